"""Every fault of the local venue, seen from a client that follows the venue's documents.

The client checks nothing itself: it notes what its book was after every event it believed in. Afterwards
these notes are compared with the truth, rebuilt from the venue's own record of the true stream.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from waiting import LONG_S, until

from tickwire.sim import CaptureMarket, Faults, Message, SyntheticMarket, Venue
from tickwire.sim.faults import MESSAGE_KINDS, REST_KINDS

MARKETS = ("spot", "usdm", "coinm")
_BODY_LIMIT = 1 << 20


class Book:
    def __init__(self) -> None:
        self.valid = False
        self.bridged = False
        self.last_id = 0
        self.buffer: list[dict[str, Any]] = []
        self.sides: tuple[dict[float, float], dict[float, float]] = ({}, {})
        self.asking = False

    def top(self) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        bids, asks = (sorted(side.items()) for side in self.sides)
        return bids[::-1][:5], asks[:5]


class Client:
    """One connection with all instruments of a market; it reconnects, and resyncs one by one."""

    def __init__(self, venue: Venue, market: str, session: aiohttp.ClientSession) -> None:
        self.venue, self.market, self.session = venue, market, session
        self.books = {symbol: Book() for symbol in venue.instruments[market]}
        self.seen: list[tuple[str, int, Any]] = []
        self.counts: Counter[str] = Counter()
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        streams = "/".join(f"{symbol.lower()}@depth" for symbol in self.books)
        while not self.venue.finished.is_set():
            try:
                async with self.session.ws_connect(
                    f"{self.venue.stream_url[self.market]}?streams={streams}"
                ) as ws:
                    self.counts["connections"] += 1
                    self.books = {symbol: Book() for symbol in self.books}
                    async for message in ws:
                        if message.type is aiohttp.WSMsgType.TEXT:
                            self.on_text(message.data)
                    self.counts[f"close {ws.close_code}"] += 1
            except aiohttp.ClientError:
                self.counts["refused"] += 1
                await asyncio.sleep(0.02)

    def on_text(self, text: str) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            self.counts["malformed"] += 1
            # It may have been anybody's.
            for symbol, book in self.books.items():
                if book.valid:
                    self.lose(symbol, book, [])
            return
        data = message["data"]
        if data["e"] == "serverShutdown":
            self.counts["shutdown"] += 1
            return
        self.on_diff(data["s"], self.books[data["s"]], data)

    def lose(self, symbol: str, book: Book, buffer: list[dict[str, Any]]) -> None:
        book.valid = book.bridged = False
        book.buffer = buffer
        self.ask(symbol, book)

    def ask(self, symbol: str, book: Book) -> None:
        if not book.asking:
            book.asking = True
            task = asyncio.create_task(self.fetch(symbol, book))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def on_diff(self, symbol: str, book: Book, diff: dict[str, Any]) -> None:
        if not book.valid:
            if book.buffer and self.market != "spot" and diff["pu"] != book.buffer[-1]["u"]:
                book.buffer = []
            book.buffer.append(diff)
            self.ask(symbol, book)
            return
        if diff["u"] < book.last_id or (book.bridged and diff["u"] == book.last_id):
            self.counts["old"] += 1
            return
        spot = self.market == "spot"
        if spot:
            follows = diff["U"] <= book.last_id + 1
        elif book.bridged:
            follows = diff["pu"] == book.last_id
        else:
            follows = diff["U"] <= book.last_id <= diff["u"] or diff["pu"] == book.last_id
        if not follows:
            self.counts["gap"] += 1
            self.lose(symbol, book, [diff])
            return
        book.bridged = True
        book.last_id = diff["u"]
        for side, changes in zip(book.sides, (diff["b"], diff["a"]), strict=True):
            for price, qty in changes:
                if float(qty):
                    side[float(price)] = float(qty)
                else:
                    side.pop(float(price), None)
        self.seen.append((symbol, book.last_id, book.top()))

    async def fetch(self, symbol: str, book: Book) -> None:
        params = {"symbol": symbol, "limit": "1000"}
        for _ in range(100):
            await asyncio.sleep(0.01)
            if self.books[symbol] is not book:
                return  # Another connection: another book.
            async with self.session.get(self.venue.rest_url[self.market], params=params) as answer:
                if answer.status != 200:
                    self.counts[f"http {answer.status // 100}xx"] += 1
                    continue
                if (answer.content_length or 0) > _BODY_LIMIT:
                    self.counts["oversized"] += 1
                    answer.close()
                    continue
                body = await answer.json()
            last_id = body["lastUpdateId"]
            if self.books[symbol] is not book:
                return
            spot = self.market == "spot"
            rest = [d for d in book.buffer if (d["u"] > last_id if spot else d["u"] >= last_id)]
            first = (rest or book.buffer[-1:])[0]
            if not rest and first["u"] != last_id:
                self.counts["ahead"] += 1
                continue
            fits = first["U"] <= last_id + 1 if spot else first["U"] <= last_id or first["pu"] == last_id
            if rest and not fits:
                self.counts["old snapshot"] += 1
                continue
            book.sides = tuple({float(p): float(q) for p, q in body[side]} for side in ("bids", "asks"))  # type: ignore[assignment]
            book.valid, book.bridged, book.last_id, book.buffer = True, False, last_id, []
            book.asking = False
            for diff in rest:
                self.on_diff(symbol, book, diff)
            return
        raise AssertionError(f"no usable snapshot of {symbol}")


def truth_of(record: Path, market: str) -> dict[tuple[str, int], list[Any]]:
    """Tops of the true book by instrument and id, from the venue's record.

    Several where a restart has given ids again.
    """
    source = CaptureMarket(market, [record])
    truth = defaultdict(list)
    for message in source.messages():
        source.advance(message)
        if message.diff is not None:
            book = source.books[message.symbol]
            tops = (book.top_bids(5), book.top_asks(5))
            truth[message.symbol, book.last_id].append(
                tuple([(float(p), float(q)) for p, q in top] for top in tops)
            )
    return truth


@dataclass
class Played:
    client: Client
    venue: Venue
    faults: Faults


class OpenMarket(SyntheticMarket):
    """Goes on until it is closed."""

    closed = False

    def messages(self) -> Iterator[Message]:
        for message in super().messages():
            if self.closed:
                return
            yield message


async def play(
    tmp_path: Path,
    market: str,
    faults: Faults,
    *,
    enough: Callable[[Client], bool],
    arm: Mapping[str, int] | None = None,
) -> Played:
    """Plays two instruments to a client; faults are armed when its books are valid, on the first.

    Until there was enough of them; then until both books have gone on for a while without.
    """
    record = tmp_path / "truth.log"
    source = OpenMarket(market, instruments=2, rate=1500, seed=21, seconds=10 * LONG_S)
    victim = source.instruments[0]
    venue = Venue([source], faults=faults, record=record)
    async with venue, aiohttp.ClientSession() as session:
        client = Client(venue, market, session)

        def valid() -> bool:
            return len(client.books) == 2 and all(book.valid for book in client.books.values())

        async def bad_weather() -> None:
            await until(valid)
            for kind, count in (arm or {}).items():
                faults.arm(kind, symbol=victim, count=count)
                if kind in REST_KINDS:
                    faults.arm("drop", symbol=victim)  # So that a snapshot is asked for.
            await until(lambda: enough(client) and all(faults.counts[k] >= n for k, n in (arm or {}).items()))
            faults.disarm()
            before = len(client.seen)
            await until(lambda: valid() and len(client.seen) > before + 300)
            source.closed = True

        async with asyncio.timeout(LONG_S):
            weather = asyncio.create_task(bad_weather())
            await client.run()
            await weather
        for task in list(client.tasks):
            task.cancel()
        offset = venue.id_offsets[market]
        for symbol, book in venue.markets[market].books.items():
            assert client.books[symbol].valid, symbol
            assert client.books[symbol].last_id == book.last_id + offset
    truth = truth_of(record, market)
    for symbol, last_id, top in client.seen:
        assert top in truth[symbol, last_id], (symbol, last_id)
    return Played(client, venue, faults)


def twice_connected(client: Client) -> bool:
    return client.counts["connections"] > 1


@pytest.mark.parametrize("market", MARKETS)
async def test_drop_is_a_gap(tmp_path: Path, market: str) -> None:
    done = await play(tmp_path, market, Faults(1), arm={"drop": 1}, enough=lambda c: c.counts["gap"] > 0)
    assert done.faults.counts == {"drop": 1}
    assert done.client.counts["gap"] == 1
    assert done.venue.counters["snapshots"] >= 3  # Two at the start, one of the victim.
    [note] = done.faults.log
    assert (note.kind, note.market) == ("drop", market)
    assert note.stream.startswith(f"{note.symbol.lower()}@depth@")
    assert note.last_id > 0


async def test_duplicate_changes_nothing(tmp_path: Path) -> None:
    done = await play(tmp_path, "usdm", Faults(1), arm={"duplicate": 3}, enough=lambda c: c.counts["old"] > 2)
    assert done.faults.counts == {"duplicate": 3}
    assert done.client.counts["old"] == 3
    assert done.client.counts["gap"] == 0


async def test_reorder_is_a_gap_when_the_next_is_of_the_same_book(tmp_path: Path) -> None:
    faults = Faults(1, {"reorder": 0.1})
    done = await play(
        tmp_path, "usdm", faults, enough=lambda c: c.counts["gap"] > 0 and faults.counts["reorder"] > 5
    )
    assert 1 <= done.client.counts["gap"] <= faults.counts["reorder"]


async def test_corrupt_is_no_json(tmp_path: Path) -> None:
    done = await play(
        tmp_path, "spot", Faults(1), arm={"corrupt": 1}, enough=lambda c: c.counts["malformed"] > 0
    )
    assert done.client.counts["malformed"] == 1


async def test_stall_sends_nothing_and_stays_open(tmp_path: Path) -> None:
    done = await play(
        tmp_path,
        "coinm",
        Faults(1, stall_s=0.15),
        arm={"stall": 1},
        enough=lambda c: c.counts["gap"] > 1,
    )
    assert done.venue.counters["stalled"] > 20
    assert done.client.counts["connections"] == 1
    assert done.client.counts["gap"] == 2  # Both instruments are on the connection.


@pytest.mark.parametrize(("kind", "code"), [("close", 1001), ("reset", 1006)])
async def test_connection_ends(tmp_path: Path, kind: str, code: int) -> None:
    done = await play(tmp_path, "usdm", Faults(1), arm={kind: 1}, enough=twice_connected)
    assert done.venue.counters["connections"] == done.client.counts["connections"] == 2
    ends = {1001: 1, code: 1} if code != 1001 else {1001: 2}
    assert {int(k.split()[1]): v for k, v in done.client.counts.items() if k.startswith("close")} == ends


async def test_shutdown_is_announced_before_the_end(tmp_path: Path) -> None:
    done = await play(
        tmp_path, "spot", Faults(1, shutdown_grace_s=0.1), arm={"shutdown": 1}, enough=twice_connected
    )
    assert done.client.counts["shutdown"] == 1
    assert done.client.counts["connections"] == 2
    assert done.client.counts["gap"] == 0


@pytest.mark.parametrize(("market", "seed"), [("spot", 1), ("usdm", 2), ("coinm", 3)])
async def test_restart_goes_on_with_other_ids(tmp_path: Path, market: str, seed: int) -> None:
    done = await play(tmp_path, market, Faults(seed), arm={"restart": 1}, enough=twice_connected)
    assert done.client.counts["connections"] == 2
    assert done.venue.id_offsets[market] != 0


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("snapshot_old", "old snapshot"),
        ("snapshot_ahead", "ahead"),
        ("snapshot_oversized", "oversized"),
    ],
)
async def test_useless_snapshot_is_asked_for_again(tmp_path: Path, kind: str, seen: str) -> None:
    done = await play(
        tmp_path,
        "usdm",
        Faults(1, oversized_bytes=2 << 20),
        arm={kind: 2},
        enough=lambda c: c.counts[seen] > 1,
    )
    assert done.faults.counts == {kind: 2, "drop": 1}
    assert done.client.counts[seen] >= 2


async def test_rest_fails_and_is_slow(tmp_path: Path) -> None:
    done = await play(
        tmp_path,
        "usdm",
        Faults(1, slow_s=0.1),
        arm={"rest_fail": 2, "rest_slow": 1},
        enough=lambda c: c.counts["http 5xx"] + c.counts["http 4xx"] > 1,
    )
    assert done.faults.counts == {"rest_fail": 2, "rest_slow": 1, "drop": 2}
    assert done.venue.counters["rest_errors"] == 2
    assert done.client.counts["http 5xx"] + done.client.counts["http 4xx"] == 2


@pytest.mark.parametrize("market", MARKETS)
async def test_everything_at_once(tmp_path: Path, market: str) -> None:
    rates = dict.fromkeys(("drop", "duplicate", "reorder", "corrupt"), 0.005)
    rates |= dict.fromkeys(("stall", "close", "reset", "restart"), 0.0005)
    rates |= dict.fromkeys(REST_KINDS, 0.1)
    faults = Faults(7, rates, stall_s=0.05, slow_s=0.02, shutdown_grace_s=0.05, oversized_bytes=2 << 20)
    done = await play(
        tmp_path,
        market,
        faults,
        enough=lambda c: len(faults.log) > 20 and c.counts["gap"] > 0 and len(c.seen) > 1000,
    )
    assert sum(done.faults.counts.values()) == len(faults.log)


async def test_faults_keep_to_their_instrument_and_stream(tmp_path: Path) -> None:
    victim = SyntheticMarket("usdm", instruments=2).instruments[1]
    faults = Faults(3, {"drop": 0.05}, symbols={victim}, streams={"depth"})
    await play(tmp_path, "usdm", faults, enough=lambda _: len(faults.log) > 10)
    assert {note.symbol for note in faults.log} == {victim}
    assert {note.stream.split("@")[1] for note in faults.log} == {"depth"}


def test_same_seed_makes_the_same_choices() -> None:
    def choices(seed: int) -> list[str | None]:
        faults = Faults(seed, dict.fromkeys(MESSAGE_KINDS, 0.01))
        return [faults.for_message("spot", "X", "x@depth@100ms", 0, n) for n in range(2000)]

    assert choices(4) == choices(4)
    assert choices(4) != choices(5)
    assert set(choices(4)) == {None, *MESSAGE_KINDS}
