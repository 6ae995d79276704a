"""The local venue against an independent client: a small dict book that follows the venue's documents."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import math
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from needs import ROOT, recorded

from tickwire.sim import CaptureMarket, Faults, SyntheticMarket, Venue, write_capture
from tickwire.sim.server import Pace

MARKETS = ("spot", "usdm", "coinm")
RECORDED = {
    "spot": "spot_btcusdt_20240808.log.gz",
    "usdm": "usdm_btcusdt_20240808.log.gz",
    "coinm": "coinm_btcusd_perp_20240808.log.gz",
}


class Client:
    """Buffers, takes a snapshot, bridges and applies: one instrument, floats in dicts."""

    def __init__(self, market: str) -> None:
        self.market = market
        self.buffer: list[dict[str, Any]] = []
        self.last_id = -1
        self.bridged = False
        self.gaps = 0
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}

    def snapshot(self, body: dict[str, Any]) -> None:
        self.last_id = body["lastUpdateId"]
        self.bridged = False
        self.bids = {float(p): float(q) for p, q in body["bids"]}
        self.asks = {float(p): float(q) for p, q in body["asks"]}
        events, self.buffer = self.buffer, []
        for event in events:
            self.diff(event)

    def diff(self, event: dict[str, Any]) -> None:
        if self.last_id < 0:
            self.buffer.append(event)
            return
        if self.market == "spot":
            if event["u"] <= self.last_id:
                return
            follows = event["U"] <= self.last_id + 1
        elif self.bridged:
            follows = event["pu"] == self.last_id
        else:
            if event["u"] < self.last_id:
                return
            follows = event["U"] <= self.last_id <= event["u"] or event["pu"] == self.last_id
        if not follows:
            self.gaps += 1
            self.last_id = -1
            self.buffer = [event]
            return
        self.bridged = True
        self.last_id = event["u"]
        for side, changes in ((self.bids, event["b"]), (self.asks, event["a"])):
            for price, qty in changes:
                if float(qty) == 0:
                    side.pop(float(price), None)
                else:
                    side[float(price)] = float(qty)


def assert_same_book(client: Client, venue: Venue, market: str, symbol: str) -> None:
    truth = venue.markets[market].books[symbol]
    assert client.last_id == truth.last_id
    assert client.bids == {float(p): float(q) for p, q in truth.bids.items()}
    assert client.asks == {float(p): float(q) for p, q in truth.asks.items()}
    assert max(client.bids) < min(client.asks)


async def fetch(session: aiohttp.ClientSession, venue: Venue, market: str, symbol: str, limit: int) -> Any:
    url = venue.rest_url[market]
    async with session.get(url, params={"symbol": symbol, "limit": limit}) as answer:
        assert answer.status == 200
        return await answer.json()


async def frames(ws: aiohttp.ClientWebSocketResponse) -> AsyncIterator[str]:
    async for message in ws:
        assert message.type is aiohttp.WSMsgType.TEXT
        yield message.data


async def subscribe(ws: aiohttp.ClientWebSocketResponse, streams: Sequence[str]) -> None:
    await ws.send_json({"method": "SUBSCRIBE", "params": list(streams), "id": 7})
    assert await ws.receive_str() == '{"result":null,"id":7}'


@pytest.mark.parametrize("market", MARKETS)
async def test_client_that_follows_the_documents_ends_with_the_true_book(market: str) -> None:
    source = SyntheticMarket(market, instruments=2, rate=4000, seed=11, seconds=1.0)
    symbol = source.instruments[1]
    client = Client(market)
    async with Venue([source], pace=2.0) as venue, aiohttp.ClientSession() as session:
        async with session.ws_connect(venue.ws_url[market]) as ws:
            await subscribe(ws, [f"{symbol.lower()}@depth", f"{symbol.lower()}@trade"])
            asked = None
            async for text in frames(ws):
                event = json.loads(text)
                assert event["s"] == symbol
                if event["e"] == "depthUpdate":
                    client.diff(event)
                if asked is None:
                    asked = asyncio.create_task(fetch(session, venue, market, symbol, 1000))
                elif client.last_id < 0 and asked.done():
                    client.snapshot(asked.result())
        assert client.gaps == 0
        assert client.bridged
        assert_same_book(client, venue, market, symbol)
        assert venue.counters["snapshots"] == 1


@pytest.mark.parametrize("market", MARKETS)
async def test_late_client_gets_the_snapshot_of_its_moment(market: str) -> None:
    source = SyntheticMarket(market, rate=4000, seed=3, seconds=1.0)
    symbol = source.instruments[0]
    late = Client(market)
    async with Venue([source], start_clients=0) as venue, aiohttp.ClientSession() as session:
        first = (await fetch(session, venue, market, symbol, 1000))["lastUpdateId"]
        await asyncio.sleep(0.4)
        async with session.ws_connect(f"{venue.ws_url[market]}/{symbol.lower()}@depth") as ws:
            body = await fetch(session, venue, market, symbol, 1000)
            assert body["lastUpdateId"] > first
            late.snapshot(body)
            async for text in frames(ws):
                late.diff(json.loads(text))
        assert late.gaps == 0
        assert_same_book(late, venue, market, symbol)


async def test_snapshot_has_the_fields_of_its_market() -> None:
    markets = [SyntheticMarket(name, seconds=0.1) for name in MARKETS]
    keys = {
        "spot": ["lastUpdateId", "bids", "asks"],
        "usdm": ["lastUpdateId", "E", "T", "bids", "asks"],
        "coinm": ["lastUpdateId", "E", "T", "symbol", "pair", "bids", "asks"],
    }
    async with Venue(markets) as venue, aiohttp.ClientSession() as session:
        for market, symbols in venue.instruments.items():
            body = await fetch(session, venue, market, symbols[0], 5)
            assert list(body) == keys[market]
            bids, asks = [float(p) for p, _ in body["bids"]], [float(p) for p, _ in body["asks"]]
            assert bids == sorted(bids, reverse=True)
            assert asks == sorted(asks)
            assert len(bids) == len(asks) == 5


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"symbol": "NOPE"}, -1121),
        ({}, -1102),
        ({"symbol": "BTCUSDT", "limit": "7"}, -1130),
        ({"symbol": "BTCUSDT", "limit": "many"}, -1130),
    ],
)
async def test_rest_refuses_as_the_venue_does(query: dict[str, str], code: int) -> None:
    async with Venue([SyntheticMarket("usdm")]) as venue, aiohttp.ClientSession() as session:
        async with session.get(venue.rest_url["usdm"], params=query) as answer:
            assert answer.status == 400
            assert (await answer.json())["code"] == code
        assert venue.counters["rest_errors"] == 1


async def test_control_requests_are_answered() -> None:
    venue = Venue([SyntheticMarket("spot", seconds=5)], start_clients=2)
    async with venue, aiohttp.ClientSession() as session, session.ws_connect(venue.ws_url["spot"]) as ws:
        await subscribe(ws, ["btcusdt@depth@100ms", "btcusdt@trade"])
        await ws.send_json({"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": "x"})
        assert await ws.receive_json() == {"result": None, "id": "x"}
        await ws.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 3})
        assert await ws.receive_json() == {"result": ["btcusdt@depth@100ms"], "id": 3}
        await ws.send_str("{not json")
        assert "error" in await ws.receive_json()
        await ws.send_json({"method": "DANCE", "id": 4})
        assert (await ws.receive_json())["error"]["code"] == 2


def test_synthetic_content_depends_on_the_seed_alone() -> None:
    def play(seed: int) -> list[bytes]:
        market = SyntheticMarket("usdm", instruments=3, seed=seed, events=3000)
        return [message.data for message in market.messages()]

    first = play(5)
    assert first == play(5)
    assert first != play(6)
    assert len(first) > 3000


@pytest.mark.parametrize("market", MARKETS)
def test_synthetic_ids_and_books_are_sound(market: str) -> None:
    source = SyntheticMarket(market, instruments=2, seed=1, events=20_000)
    last = {symbol: book.last_id for symbol, book in source.books.items()}
    trade_ids: dict[str, int] = {}
    back_steps = jumps = 0
    newest = 0
    for message in source.messages():
        event = json.loads(message.data)
        stamp = event.get("E")
        if stamp is not None:
            back_steps += stamp < newest
            newest = max(newest, stamp)
        if event.get("e") == "depthUpdate":
            if market == "spot":
                assert event["U"] == last[message.symbol] + 1
            else:
                assert event["pu"] == last[message.symbol]
                jumps += event["U"] > event["pu"] + 1
            assert event["u"] >= event["U"]
            last[message.symbol] = event["u"]
            assert message.diff is not None
            book = source.books[message.symbol]
            assert book.apply(message.diff)
        elif event.get("e") == "trade":
            assert event["t"] == trade_ids.get(message.symbol, event["t"] - 1) + 1
            trade_ids[message.symbol] = event["t"]
        elif "@bookTicker" in message.stream:
            book = source.books[message.symbol]
            assert event["u"] == book.last_id
            assert (event["b"], event["B"]) == book.top_bids(1)[0]
            assert (event["a"], event["A"]) == book.top_asks(1)[0]
            assert float(event["b"]) < float(event["a"])
    assert back_steps > 0
    assert (jumps > 0) == (market != "spot")
    for book in source.books.values():
        assert min(len(book.bids), len(book.asks)) > 50


def test_a_play_keeps_its_pace_by_its_clock() -> None:
    clock = 1000.0
    pace = Pace(4.0, lambda: clock)
    assert [pace.wait_s(due_ns) for due_ns in (0, 2_000_000_000, 6_000_000_000)] == [0.0, 0.5, 1.5]
    clock = 1000.25
    assert pace.wait_s(2_000_000_000) == 0.25
    clock = 1003.0  # A machine that was busy: what is late is sent at once, and the rest is not put off.
    assert pace.wait_s(2_000_000_000) == -2.5
    assert pace.wait_s(16_000_000_000) == 1.0
    pace.stood_still(0.5)
    assert pace.wait_s(16_000_000_000) == 1.5


async def test_a_play_waits_for_what_is_not_due_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, int]] = []
    wait_s = Pace.wait_s

    def count(self: Pace, due_ns: int) -> float:
        asked.append((self._factor, due_ns))
        return wait_s(self, due_ns)

    monkeypatch.setattr(Pace, "wait_s", count)
    source = SyntheticMarket("spot", rate=200, seed=1, seconds=0.5)
    async with Venue([source], pace=4.0, start_clients=0) as venue:
        await venue.finished.wait()
    again = SyntheticMarket("spot", rate=200, seed=1, seconds=0.5)
    assert asked == [(4.0, message.due_ns) for message in again.messages()]


async def test_slow_client_is_cut_off_and_nobody_else_notices() -> None:
    source = SyntheticMarket("usdm", rate=20_000, seed=2, seconds=1.5)
    async with Venue([source], start_clients=2, queue_bytes=1 << 18) as venue:
        # A client by hand that asks and never reads: its small socket buffer fills, then the venue's queue.
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", venue.port))
        slow.sendall(
            b"GET /usdm/ws/btcusdt@depth HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        async with aiohttp.ClientSession() as session:
            url = f"{venue.ws_url['usdm']}/btcusdt@depth"
            async with session.ws_connect(url) as quick:
                last = 0
                async for text in frames(quick):
                    event = json.loads(text)
                    assert last in (0, event["pu"])
                    last = event["u"]
        slow.close()
        assert last == venue.markets["usdm"].books["BTCUSDT"].last_id
        assert venue.counters["slow_clients"] == 1
        assert venue.counters["dropped"] > 0


async def test_client_without_pong_is_closed() -> None:
    source = SyntheticMarket("spot", rate=50, seconds=20)
    venue = Venue([source], ping_interval_s=0.05, pong_timeout_s=0.2)
    async with venue, aiohttp.ClientSession() as session:
        async with session.ws_connect(venue.ws_url["spot"], autoping=False) as ws:
            pings = 0
            async for message in ws:
                pings += message.type is aiohttp.WSMsgType.PING
                await ws.pong(b"unsolicited")  # Does not count.
            assert pings > 0
        assert venue.counters["pong_timeouts"] == 1
        async with session.ws_connect(venue.ws_url["spot"]) as ws:
            reading = asyncio.create_task(ws.receive())  # Answers pings while it waits.
            await asyncio.sleep(0.5)
            assert venue.counters["pong_timeouts"] == 1
            assert not reading.done()
            reading.cancel()


async def test_split_urls_carry_their_own_streams_only() -> None:
    source = SyntheticMarket("usdm", rate=4000, seed=2, seconds=0.3)
    both = ["btcusdt@depth@0ms", "btcusdt@aggTrade", "btcusdt@bookTicker", "btcusdt@trade"]
    base = "/usdm/{}/stream?streams=" + "/".join(both)
    seen: dict[str, set[str]] = {"public": set(), "market": set()}
    async with Venue([source], start_clients=2) as venue, aiohttp.ClientSession() as session:

        async def read(part: str) -> None:
            url = f"ws://127.0.0.1:{venue.port}{base.format(part)}"
            async with session.ws_connect(url) as ws:
                async for text in frames(ws):
                    seen[part].add(json.loads(text)["stream"])

        await asyncio.gather(read("public"), read("market"))
    assert seen == {
        "public": {"btcusdt@depth@0ms", "btcusdt@bookTicker"},
        "market": {"btcusdt@aggTrade", "btcusdt@trade"},
    }


# ---- captures ----


def capture_of(market: str, tmp_path: Path, **options: Any) -> Path:
    path = tmp_path / f"{market}.log.gz"
    with gzip.open(path, "wb") as file:
        write_capture(SyntheticMarket(market, **options), io.BufferedWriter(file))
    return path


def recorded_frames(path: Path) -> list[str]:
    with gzip.open(path, "rt") as file:
        messages = [line.rstrip("\n").partition(" ")[2] for line in file]
    return [message for message in messages if message.startswith('{"stream"')]


async def play_and_compare(market: str, path: Path, symbol: str) -> None:
    """Everything arrives byte for byte, and the dict book ends as the venue's."""
    expected = recorded_frames(path)
    client = Client(market)
    streams = sorted({json.loads(frame)["stream"] for frame in expected})
    async with Venue([CaptureMarket(market, [path])], pace=math.inf) as venue:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(venue.stream_url[market]) as ws,
        ):
            await subscribe(ws, streams)
            body = asyncio.create_task(fetch(session, venue, market, symbol, 1000))
            got: list[str] = []
            async for text in frames(ws):
                got.append(text)
                if "@depth" in text[:60]:
                    client.diff(json.loads(text)["data"])
                    if client.last_id < 0 and not client.gaps:
                        client.snapshot(await body)
        assert got == expected
        assert client.gaps == 0
        assert venue.counters["sent"] == len(expected) + 1
        truth = venue.markets[market].books[symbol]
        assert client.last_id == truth.last_id
        assert client.bids == {float(p): float(q) for p, q in truth.bids.items()}


@pytest.mark.parametrize("market", MARKETS)
async def test_capture_arrives_byte_for_byte(market: str, tmp_path: Path) -> None:
    path = capture_of(market, tmp_path, events=3000, seed=4)
    symbol = SyntheticMarket(market).instruments[0]
    await play_and_compare(market, path, symbol)


@pytest.mark.parametrize("market", MARKETS)
async def test_recording_arrives_byte_for_byte(market: str) -> None:
    (path,) = recorded(f"binance/{RECORDED[market]}")
    await play_and_compare(market, path, "BTCUSD_PERP" if market == "coinm" else "BTCUSDT")


async def test_interval_is_the_one_the_client_asked_for(tmp_path: Path) -> None:
    path = capture_of("usdm", tmp_path, events=50, seed=4)
    async with Venue([CaptureMarket("usdm", [path])], pace=math.inf, hold_for_snapshot=False) as venue:
        url = f"{venue.stream_url['usdm']}?streams=btcusdt@depth@250ms"
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as ws:
            streams = {json.loads(text)["stream"] async for text in frames(ws)}
    assert streams == {"btcusdt@depth@250ms"}


def test_later_snapshot_repairs_the_book_of_a_capture_with_a_gap(tmp_path: Path) -> None:
    file = io.BytesIO()
    source = SyntheticMarket("usdm", seed=9, events=400)
    write_capture(source, file, kinds=("depth",))
    lines = file.getvalue().splitlines(keepends=True)
    # The true book after each diff, from the whole stream.
    whole = SyntheticMarket("usdm", seed=9, events=400)
    book = whole.books["BTCUSDT"]
    bodies = []
    for message in whole.messages():
        if message.diff is not None:
            book.apply(message.diff)
            bodies.append(book.snapshot(1000))
    diffs = [index for index, line in enumerate(lines) if b'"stream"' in line]
    stamp = lines[diffs[150]].split()[0]
    note = b'%s {"tickwire":"snapshot","conn":0,"instrument":"BTCUSDT","body":%s}\n' % (stamp, bodies[145])
    # Diffs 100..139 are lost; the snapshot of diff 145 comes in the capture after diff 150.
    kept = lines[: diffs[100]] + lines[diffs[140] : diffs[150] + 1] + [note] + lines[diffs[150] + 1 :]

    def end_of(capture: list[bytes]) -> dict[str, str]:
        path = tmp_path / "capture.log"
        path.write_bytes(b"".join(capture))
        market = CaptureMarket("usdm", [path])
        for message in market.messages():
            market.advance(message)
        return market.books["BTCUSDT"].bids

    assert end_of(kept) == book.bids
    assert end_of([line for line in kept if line is not note]) != book.bids


def test_capture_without_a_snapshot_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no_snapshot.log"
    data = b'{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":1,"u":2,"b":[],"a":[]}'
    path.write_bytes(b'1 {"stream":"btcusdt@depth@100ms","data":%s}\n' % data)
    with pytest.raises(ValueError, match="no snapshot of BTCUSDT"):
        CaptureMarket("spot", [path])


async def test_true_stream_can_be_recorded(tmp_path: Path) -> None:
    path = tmp_path / "truth.log"
    source = SyntheticMarket("usdm", instruments=2, rate=5000, seed=3, seconds=0.2)
    async with Venue([source], start_clients=0, record=path) as venue:
        await venue.finished.wait()
        played = venue.counters["played"]
        ends = {symbol: book.bids for symbol, book in venue.markets["usdm"].books.items()}
    replayed = CaptureMarket("usdm", [path])
    messages = list(replayed.messages())
    assert len(messages) == played
    for message in messages:
        replayed.advance(message)
    assert {symbol: book.bids for symbol, book in replayed.books.items()} == ends


# ---- the process ----


async def start(*arguments: str) -> asyncio.subprocess.Process:
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "py"))
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tickwire.sim",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )


async def test_command_announces_itself_plays_and_reports() -> None:
    process = await start(
        *[
            "--market",
            "spot,coinm",
            "--synthetic",
            "--instruments",
            "2",
            "--rate",
            "2000",
            "--seconds",
            "0.3",
            "--seed",
            "7",
        ]
    )
    assert process.stdout is not None
    ready = json.loads(await process.stdout.readline())
    assert ready["instruments"] == {"spot": ["BTCUSDT", "ETHUSDT"], "coinm": ["BTCUSD_PERP", "ETHUSD_PERP"]}
    assert ready["rest_url"]["coinm"] == f"http://127.0.0.1:{ready['port']}/coinm/dapi/v1/depth"
    got = {}
    async with aiohttp.ClientSession() as session:

        async def read(market: str) -> None:
            stream = f"{ready['instruments'][market][1].lower()}@depth"
            async with session.ws_connect(f"{ready['ws_url'][market]}/{stream}") as ws:
                got[market] = [text async for text in frames(ws)]

        await asyncio.gather(read("spot"), read("coinm"))
    rest = await process.stdout.read()
    assert await process.wait() == 0
    counters = json.loads(rest)
    assert counters["sent"] == len(got["spot"]) + len(got["coinm"]) > 0
    assert counters["connections"] == 2


async def test_command_stops_at_a_signal() -> None:
    process = await start("--synthetic", "--market", "usdm", "--at-end", "idle")
    assert process.stdout is not None
    json.loads(await process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    rest = await process.stdout.read()
    assert await process.wait() == 0
    assert json.loads(rest)["connections"] == 0


async def test_command_names_a_bad_argument() -> None:
    process = await start("--synthetic", "--market", "mars")
    _, error = await process.communicate()
    assert process.returncode == 2
    assert b"expected one of spot, usdm, coinm, found 'mars'" in error


async def test_tls_verifies_with_the_certificate_it_made() -> None:
    async with Venue([SyntheticMarket("spot", rate=2000, seconds=0.2)], tls=True) as venue:
        assert venue.certificate is not None
        context = ssl.create_default_context(cafile=venue.certificate)
        url = f"{venue.ws_url['spot']}/btcusdt@depth"
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.ws_connect(url)
            async with session.ws_connect(url, ssl=context) as ws:
                assert [text async for text in frames(ws)]


def test_fault_kinds_are_checked() -> None:
    with pytest.raises(ValueError, match=r"fault kind: expected one of drop, .* found 'explode'"):
        Faults(rates={"explode": 0.1})
    with pytest.raises(ValueError, match=r"rates\.drop: expected a probability, found 2"):
        Faults(rates={"drop": 2})
