"""A multicast venue on loopback, a live pipeline on it, and a slow truth of what it should have said.

The truth is a dictionary of orders, summed up by price whenever a book is asked for, from the messages that
the venue numbered. No code of the engine is used, and none of the venue's own state.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from collecting import Collector
from monitor import Monitor, Told, _features, until

from tickwire import models
from tickwire.config import Config
from tickwire.pipeline import Pipeline
from tickwire.records import Rows
from tickwire.sim import LineFaults, MulticastVenue, SyntheticItch
from tickwire.verify import verify

DATE = "2020-01-30"
# Of the book alone, so that the truth of a row is the book of its sequence.
OF_THE_BOOK = ["imbalance(levels=5)", "spread()", "microprice_offset()", "queue_imbalance()"]
# And of what came before.
ROWS = [
    *OF_THE_BOOK,
    "ofi(levels=3, window='50ms')",
    "trade_flow(window='100ms')",
    "order_arrival_rate(window='100ms')",
    "cancel_rate(window='70ms')",
    "zscore(order_arrival_rate('30ms'), window='60ms')",
]
# Gives a gap up within some tens of milliseconds, whoever is late.
HASTY = {"request_timeout": "15ms", "request_attempts": 2}
BOTH = ("rerequest", "glimpse")
_KEY = ("instrument", "epoch", "row")


def market(events: int, seed: int, *, instruments: int = 3, rate: float = 5000.0) -> list[bytes]:
    """A seeded session's messages. Instruments are TW00001, TW00002, …"""
    made = SyntheticItch(instruments=instruments, events=events, seed=seed, rate=rate)
    return [message.data for message in made.messages()]


def config_of(
    lines: Iterable[str],
    folder: Path | None = None,
    *,
    layout: str = "inline",
    rows: Sequence[str] = ROWS,
    symbols: Sequence[str] = ("TW00001", "TW00002"),
    features: Mapping[str, Any] | None = None,
    feed: Mapping[str, Any] | None = None,
    multicast: Mapping[str, Any] | None = None,
) -> Config:
    """With a model where there is a folder for it."""
    table = {"lines": list(lines), "interface": "lo", **(multicast or {})}
    data: dict[str, Any] = {
        "engine": {"layout": layout, "output_slots": 65536},
        "feeds": [
            {
                "name": "itch",
                "venue": "nasdaq_itch",
                "instruments": list(symbols),
                "max_orders": 1 << 16,
                "multicast": table,
                **(feed or {}),
            }
        ],
        "features": {"rows": list(rows), "max_age": "0s", **(features or {})},
    }
    config = Config.from_dict(data, where="multicast", base=folder)
    if folder is None:
        return config
    models.make_demo_model(folder / "demo.onnx", config.schema())
    data["model"] = {"path": "demo.onnx", "queue_slots": 65536}
    return Config.from_dict(data, where="multicast", base=folder)


def last_change(history: Sequence[bytes], symbol: str) -> int:
    """The number of the last message that changed the symbol's book."""
    locate = int(symbol.removeprefix("TW"))
    return next(
        number
        for number in range(len(history), 0, -1)
        if history[number - 1][:1] in b"AFECXDU" and int.from_bytes(history[number - 1][1:3], "big") == locate
    )


def day_file(path: Path, messages: Iterable[bytes]) -> Path:
    path.write_bytes(b"".join(struct.pack(">H", len(message)) + message for message in messages))
    return path


class Live:
    """A pipeline on the venue, and every record that left it."""

    def __init__(self, venue: MulticastVenue, pipeline: Pipeline, monitor: ItchMonitor) -> None:
        self.venue, self.pipeline, self.monitor = venue, pipeline, monitor
        self.collector = Collector(pipeline)
        self.sent_before = self.sent
        monitor.watch(pipeline.layout)
        pipeline.on_rows(monitor.on_rows)

    @property
    def records(self) -> Rows:
        return self.collector.records

    @property
    def rows(self) -> Rows:
        return ordered(self.records)

    @property
    def sent(self) -> list[int]:
        """Datagrams that the venue has sent, by line."""
        return [self.venue.counters[f"sent_{i}"] for i in range(len(self.venue.lines))]

    def told(self, symbol: str) -> Told:
        return self.monitor.told["nasdaq_itch", symbol]

    @property
    def symbols(self) -> list[str]:
        return [symbol for symbol, _ in self.pipeline.layout.instruments]

    def count(self, name: str) -> int:
        return self.pipeline.stats().counters[f"itch/{name}"]

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        await until(self, condition, what)

    async def played(self, messages: Iterable[Any], *, pace: float = 0.0) -> None:
        """Plays them, until every book is valid and gave the row of its last change."""
        await self.venue.play(messages, pace=pace)
        await self.caught_up()

    async def caught_up(self) -> None:
        last = {symbol: last_change(self.venue.history, symbol) for symbol in self.symbols}
        await self.until(
            lambda: all(self.told(s).valid and self.told(s).sequence == last[s] for s in self.symbols),
            f"rows of the messages {last}",
        )

    async def settled(self) -> None:
        """Until what the agents count now and then (each 100 ms) is counted."""
        await asyncio.sleep(0.25)

    async def all_lost(self, reason: str, times: int = 1) -> None:
        await self.until(
            lambda: all(
                len(self.told(s).lost(reason)) >= times and not self.told(s).valid for s in self.symbols
            ),
            f"all books lost for {reason}",
        )

    def state(self) -> str:
        told = {key: (t.epoch, t.row, t.ended, t.lost()[-2:]) for key, t in self.monitor.told.items()}
        stats = self.pipeline.stats()
        counters = {name: value for name, value in stats.counters.items() if value}
        return f"{told}\nvenue {dict(self.venue.counters)}\nerrors {stats.errors}\ncounters {counters}"


@asynccontextmanager
async def live(
    venue: MulticastVenue,
    folder: Path | None = None,
    *,
    record: Path | None = None,
    servers: Sequence[str] = ("rerequest",),
    multicast: Mapping[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Live]:
    """With a re-request server that is given up only when it is really down: see HASTY for who wants that."""
    table: dict[str, Any] = {"reorder_window": "5ms"}
    if "rerequest" in servers:
        server = "{}:{}".format(*venue.rerequest)
        table |= {"rerequest": server, "request_timeout": "50ms", "request_attempts": 200}
    if "glimpse" in servers:
        table |= {"glimpse": "{}:{}".format(*venue.glimpse), "glimpse_retry": "20ms"}
    lines = [f"{group}:{port}" for group, port in venue.lines]
    config = config_of(lines, folder, multicast={**table, **(multicast or {})}, **options)
    async with Pipeline(config, record_dir=record) as pipeline:
        yield Live(venue, pipeline, ItchMonitor(venue))


async def replayed(config: Config, *files: Path) -> Rows:
    """The rows of a replay, and its notices, as they came."""
    async with Pipeline.replay(config, list(files)) as pipeline:
        collector = Collector(pipeline)
        await pipeline.run_until()
    return collector.records


def ordered(records: Rows) -> Rows:
    rows: Rows = records[records["row"] != 0]
    ordered_rows: Rows = rows[np.lexsort([rows[name] for name in reversed(_KEY)])]
    return ordered_rows


def assert_same(found: Rows, expected: Rows, *, stamps: bool = False, scores: bool = True) -> None:
    """Row for row and bit for bit."""
    found, expected = ordered(found), ordered(expected)
    fields = [*_KEY, "sequence", "features", "ts_event", *(["ts_recv"] if stamps else [])]
    fields += ["scores", "state"] if scores and "scores" in (found.dtype.names or ()) else []
    count = min(len(found), len(expected))
    for name in fields:
        there, here = (np.ascontiguousarray(rows[name][:count]) for rows in (expected, found))
        if there.dtype.kind == "f":
            there, here = there.view(np.uint32), here.view(np.uint32)
        differs = (there != here).reshape(count, -1).any(axis=1)
        assert not differs.any(), (
            f"{name} of {len(expected)} rows: expected {expected[differs][0]}, found {found[differs][0]}"
        )
    assert len(found) == len(expected)


async def check_lines(rig: Live) -> None:
    """What the lines' counters must come to, once the newest heartbeat is counted, too."""

    def of(scope: str, *names: str) -> int:
        return sum(rig.count(f"{scope}/{name}") for name in names)

    def all_came() -> bool:
        """All since we joined; of what was sent before, at most a heartbeat may have been on its way."""
        return all(
            sent - before <= of(f"line{i}", "line_datagrams", "line_heartbeats", "socket_drops") <= sent
            for i, (before, sent) in enumerate(zip(rig.sent_before, rig.sent, strict=True))
        )

    def adds_up() -> bool:
        """Of each line; what was kept behind a gap when the counters were last written does not yet."""
        return all(
            of(scope, "line_received") == of(scope, "line_won", "line_duplicate", "line_late")
            for scope in ("line0", "line1", "rerequest")
        )

    await rig.until(all_came, "all that was sent")
    await rig.until(adds_up, "counters that add up")
    assert sum(of(scope, "line_won") for scope in ("line0", "line1", "rerequest")) == rig.count("messages")


# The truth.

_Truth = dict[int, "np.ndarray[Any, np.dtype[np.float32]] | None"]


def truth_of(history: Sequence[bytes], symbols: Sequence[str]) -> dict[str, _Truth]:
    """By symbol and number: what a row of it says, None where a side of the book is empty."""
    names: dict[int, str] = {}
    orders: dict[int, dict[int, list[int]]] = {}  # By locate and reference: side, price, shares.
    out: dict[str, _Truth] = {symbol: {} for symbol in symbols}
    for number, message in enumerate(history, 1):
        kind, locate = message[:1], int.from_bytes(message[1:3], "big")
        if kind == b"R":
            names[locate] = message[11:19].decode().rstrip()
            orders[locate] = {}
        symbol = names.get(locate)
        if symbol not in out or kind not in b"AFECXDU":
            continue
        book = orders[locate]
        reference = int.from_bytes(message[11:19], "big")
        if kind in b"AF":
            _, side, shares, _, price = struct.unpack(">QcI8sI", message[11:36])
            book[reference] = [side[0], price, shares]
        elif kind == b"U":
            _, new, shares, price = struct.unpack(">QQII", message[11:35])
            book[new] = [book.pop(reference)[0], price, shares]
        else:
            gone = book[reference][2] if kind == b"D" else int.from_bytes(message[19:23], "big")
            book[reference][2] -= gone
            if book[reference][2] == 0:
                del book[reference]
        out[symbol][number] = _row_of(book)
    return out


def _row_of(book: Mapping[int, Sequence[int]]) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    sides: dict[int, dict[int, int]] = {ord("B"): {}, ord("S"): {}}
    for side, price, shares in book.values():
        sides[side][price] = sides[side].get(price, 0) + shares
    bids, asks = sides[ord("B")], sides[ord("S")]
    if not bids or not asks:
        return None
    bid, ask = bids[max(bids)], asks[min(asks)]
    queue = np.float32((bid - ask) / (bid + ask))
    return np.append(_features(bids, asks), queue).astype(np.float32)


class ItchMonitor(Monitor):
    """Holds every row to the truth of its session, and every epoch to being without holes."""

    def __init__(self, venue: MulticastVenue) -> None:
        super().__init__()
        self._venue = venue

    def check(self) -> int:
        assert not self.violations, "\n".join(self.violations[:10])
        symbols = [symbol for _, symbol in self.told]
        truths = [truth_of(history, symbols) for history in self._venue.sessions.values()]
        return sum(
            self._check_epochs(symbol, told, [truth[symbol] for truth in truths])
            for (_, symbol), told in self.told.items()
        )

    @staticmethod
    def _check_epochs(symbol: str, told: Told, truths: Sequence[_Truth]) -> int:
        first = 0
        for epoch in sorted({row[0] for row in told.rows}):
            mine = [(sequence, np.array(f, np.float32)) for e, _, sequence, _, f in told.rows if e == epoch]
            wrong = []
            # Sessions and epochs both go on: an epoch is of one session, and of none before the last one's.
            for number, truth in enumerate(truths[first:], first):
                difference = _difference(mine, truth)
                if difference is None:
                    first = number
                    break
                wrong.append(f"session {number}: {difference}")
            else:
                raise AssertionError(f"{symbol}, epoch {epoch}, {len(mine)} rows: {'; '.join(wrong)}")
        return len(told.rows)


def _difference(rows: Sequence[tuple[int, Any]], truth: _Truth) -> str | None:
    """The first row that is not so. An epoch must have one for each change of a book with two sides."""
    first, last = rows[0][0], rows[-1][0]
    numbers = [number for number, row in truth.items() if first <= number <= last and row is not None]
    found = [sequence for sequence, _ in rows]
    if found != numbers:
        odd = next((a, b) for a, b in itertools.zip_longest(found, numbers) if a != b)
        return f"a row of message {odd[0]}, expected one of {odd[1]}"
    for sequence, features in rows:
        expected = truth[sequence]
        assert expected is not None
        if not (np.abs(features - expected) <= np.spacing(np.abs(expected))).all():
            return f"row of message {sequence} says {features}, expected {expected}"
    return None


# Captures of both lines, as a tool beside us would write them.


def write_pcap(path: Path, packets: Iterable[tuple[int, tuple[str, int], bytes]]) -> Path:
    """Datagrams with their receive times in nanoseconds and their groups: Ethernet, IPv4, UDP."""
    out = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)]
    for ts, (group, port), payload in packets:
        udp = struct.pack(">HHHH", 30000, port, 8 + len(payload), 0) + payload
        address = bytes(map(int, group.split(".")))
        ip = struct.pack(
            ">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 1, 17, 0, bytes((10, 0, 0, 1)), address
        )
        frame = b"\x01\x00\x5e" + address[1:] + b"\x02" * 6 + b"\x08\x00" + ip + udp
        out += [struct.pack("<IIII", ts // 10**9, ts % 10**9, len(frame), len(frame)), frame]
    path.write_bytes(b"".join(out))
    return path


def datagrams(
    messages: Sequence[bytes], *, session: str = "TICK000001", most: int = 12
) -> list[tuple[int, bytes]]:
    """The messages in datagrams of a few each: number of the first, and the bytes."""
    out, first, rand = [], 1, random.Random("datagrams")
    while first <= len(messages):
        some = messages[first - 1 : first - 1 + rand.randrange(1, most)]
        blocks = b"".join(struct.pack(">H", len(message)) + message for message in some)
        header = struct.pack(">10sQH", session.encode().ljust(10), first, len(some))
        out.append((first, header + blocks))
        first += len(some)
    return out


# Everything by chance.

_STORM = {
    "line_a_loss": 0.02,
    "line_b_loss": 0.02,
    "both_loss": 0.004,
    "duplicate": 0.02,
    "reorder": 0.02,
    "answer_loss": 0.1,
    "burst": 0.003,
    "burst_datagrams": 8,
    "line_a_silence": 0.0005,
    "line_b_silence": 0.0005,
    "both_silence": 0.0008,
    "silence_s": 0.6,
    "new_session": 0.0008,
    "rerequest_down": 0.004,
    "glimpse_down": 0.003,
    "glimpse_cut": 0.2,
    "down_s": 0.2,
    "skew_s": 0.001,
}


async def storm(seed: int, *, seconds: float, layout: str, folder: Path) -> tuple[Live, int]:
    """All faults by chance for a while, then calm: the truth, and the recording's replay."""
    venue = MulticastVenue(faults=LineFaults.of(seed, _STORM), heartbeat_s=0.05)
    made = SyntheticItch(instruments=3, events=2000 * seconds, seed=seed, rate=2000.0)
    options: dict[str, Any] = {"rows": OF_THE_BOOK, "feed": {"liveness_timeout": "300ms"}, "layout": layout}
    run = folder / "run"
    async with venue, live(venue, record=run, multicast=HASTY, servers=BOTH, **options) as rig:
        messages = list(made.messages())
        await venue.play(messages, pace=1.0)
        venue.faults = LineFaults(seed)
        await asyncio.sleep(0.7)  # What the last fault began has ended.
        state = venue.state.orders
        before = {symbol: len(rig.told(symbol).rows) for symbol in rig.symbols}

        def going() -> bool:
            return all(rig.told(s).valid and len(rig.told(s).rows) > before[s] for s in rig.symbols)

        # A venue that has said its last word goes on with a small one: rows must come of it.
        end = time.monotonic() + 20.0
        while not going():
            assert state, "a market without orders"
            reference, order = next(iter(state.items()))
            locate, stamp = order[1:3], order[5:11]
            venue.publish(b"D" + locate + b"\0\0" + stamp + reference.to_bytes(8, "big"))
            venue.flush()
            await asyncio.sleep(0.005)
            rig.pipeline.raise_if_failed()
            assert time.monotonic() < end, f"not back within 20 s of calm: {rig.state()}"
        await rig.settled()
    checked = rig.monitor.check()
    result = await verify(run)
    assert result.same, result.divergence
    assert result.rows == len(rig.rows)
    return rig, checked
