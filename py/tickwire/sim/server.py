"""The venue: one aiohttp server on one port, with a WebSocket and a REST depth endpoint a market.

    /<market>/ws            raw streams after SUBSCRIBE
    /<market>/ws/<stream>   one raw stream
    /<market>/stream        combined streams, by ?streams=a/b or SUBSCRIBE
    /<market>/public/…      the same for depth and bookTicker only, as USD-M has split its URLs
    /<market>/market/…      the same for trade and aggTrade only
    /<market>/api/v3/depth  (spot), /fapi/v1/depth (usdm), /dapi/v1/depth (coinm)

A message is encoded once and the same bytes go to the queue of every subscriber. A queue is bounded:
at a fixed pace a client that reads too slowly is cut off and counted, as at a venue; where the play
runs as fast as possible, it waits for the slowest client instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import socket
import ssl
import struct
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from aiohttp import WSMsgType, web

from tickwire.sim.faults import Faults
from tickwire.sim.market import Market, Message, stream_key
from tickwire.sim.synthetic import SyntheticMarket

__all__ = ["BookChange", "Venue"]

# Bytes in a client's queue at which a play without a pace waits.
_HIGH_WATER_BYTES = 1 << 20
# Messages between two turns of the event loop: writers must run while the play is busy.
_BURST = 32
_STREAMS_OF_SPLIT = {"public": ("depth", "bookTicker"), "market": ("trade", "aggTrade")}
_IDS = re.compile(rb'"(U|u|pu)":(\d+)')
_SNAPSHOT_TIMEOUT_S = 30.0
_STUCK_CLIENT_S = 10.0

_ALL_LEVELS = 1 << 30
"""More than any book has: a snapshot of so many shows it whole."""


class BookChange(NamedTuple):
    """What became of a true book, told before any fault can touch the message that says so."""

    ts_ns: int  # UTC; no client can have received the message before.
    market: str
    symbol: str
    last_id: int  # As the clients see it.
    bids: list[list[str]]  # Price and quantity as printed; zero removes.
    asks: list[list[str]]
    whole: bool  # The levels are the whole book and not changes of it.


class _Client:
    """One WebSocket connection and what waits to be written to it."""

    def __init__(self, index: int, ws: web.WebSocketResponse, request: web.Request, play: _Play) -> None:
        self.index = index
        self.ws = ws
        self.transport = request.transport
        self.play = play
        self.combined = False
        self.allowed: tuple[str, ...] | None = None
        self.streams: dict[str, str] = {}  # Key -> the name that the client asked for.
        self.queue: deque[bytes] = deque()
        self.queued_bytes = 0
        self.wake = asyncio.Event()
        self.closing = False  # Close after the queue has been written.
        self.gone = False
        self.held: dict[str, bytes] = {}  # By stream, a message that a fault lets the next one overtake.
        self.stalled_until = 0.0
        self.ping_payload: bytes | None = None
        self.pong_due = math.inf

    def push(self, data: bytes) -> None:
        self.queue.append(data)
        self.queued_bytes += len(data)
        self.wake.set()

    def close_when_written(self) -> None:
        self.closing = True
        self.wake.set()

    def reset(self) -> None:
        """Cuts the connection with a TCP reset."""
        self.gone = True
        self.wake.set()
        if self.transport is None:
            return
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            # Linger of zero: closing sends RST, not FIN.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


class _Play:
    """One market being played: its clients, who subscribed to what, and how far it is."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.name = market.rules.name
        self.clients: set[_Client] = set()
        self.subscribers: dict[str, list[_Client]] = {}
        self.subscribed_clients: set[int] = set()
        self.snapshot_served: set[str] = set()
        self.id_offset = 0
        self.ended = False  # Nobody is let in any more.
        self.empty = asyncio.Event()  # No client is connected.
        self.empty.set()
        self.changed = asyncio.Event()  # A subscription or a snapshot request came in.

    def depth_symbols(self) -> set[str]:
        """The instruments whose depth stream somebody receives."""
        symbols = self.market.instruments
        return {symbol for symbol in symbols if self.subscribers.get(f"{symbol.lower()}@depth")}

    def join(self, client: _Client) -> None:
        self.clients.add(client)
        self.empty.clear()

    def forget(self, client: _Client) -> None:
        self.clients.discard(client)
        if not self.clients:
            self.empty.set()
        for key in client.streams:
            self.subscribers[key].remove(client)
        client.streams.clear()


class Pace:
    """When a play's messages are due: `factor` times as fast as they came about, on the clock `now`."""

    def __init__(self, factor: float, now: Callable[[], float]) -> None:
        self._factor, self._now = factor, now
        self._start = now()

    def wait_s(self, due_ns: int) -> float:
        """How long to wait for what came `due_ns` after the beginning; nothing or less where it is late."""
        return self._start + due_ns / (1e9 * self._factor) - self._now()

    def stood_still(self, seconds: float) -> None:
        """For so long the play waited for somebody: all that follows is later by that."""
        self._start += seconds


class Venue:
    """A venue with its markets. Use as `async with`; all on the running event loop.

    pace            1 = the market's own pace, N = N times as fast, math.inf = as fast as the clients read
    start_clients   a market starts to play when so many clients have subscribed; 0 = at once
    hold_for_snapshot  after the first diffs, wait until a snapshot of every subscribed instrument has
                    been asked for. Default: where the pace is unbounded, since otherwise the play may be
                    over before the client has its snapshot.
    at_end          "close" the connections when the market has been played, or stay "idle"
    ping_interval_s, pong_timeout_s   default: the venue's own
    record          a capture file of the true stream (before any fault), with the snapshots it began with
    on_book         is told each change of a true book, before any fault
    """

    def __init__(
        self,
        markets: Sequence[Market],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        pace: float = 1.0,
        start_clients: int = 1,
        hold_for_snapshot: bool | None = None,
        at_end: str = "close",
        queue_bytes: int = 64 << 20,
        ping_interval_s: float | None = None,
        pong_timeout_s: float | None = None,
        tls: bool = False,
        faults: Faults | None = None,
        record: str | Path | None = None,
        on_book: Callable[[BookChange], None] | None = None,
    ) -> None:
        if not pace > 0:
            raise ValueError(f"pace: expected a positive number, found {pace}")
        if at_end not in ("close", "idle"):
            raise ValueError(f"at_end: expected 'close' or 'idle', found {at_end!r}")
        if len({market.rules.name for market in markets}) != len(markets) or not markets:
            raise ValueError("markets: expected one or more, each once")
        self.faults = faults
        self.counters: dict[str, int] = dict.fromkeys(
            (
                "played",  # Messages of the markets, sent or not.
                "sent",  # Messages put on a wire.
                "sent_bytes",
                "connections",
                "slow_clients",  # Cut off because their queue was full.
                "dropped",  # Messages that were still in such a queue.
                "stalled",  # Messages that a stalled connection swallowed.
                "shutdown_notices",
                "snapshots",
                "rest_errors",
                "pong_timeouts",
            ),
            0,
        )
        self.finished = asyncio.Event()  # Every market has been played.
        self.port = 0
        self.certificate: str | None = None
        self._plays = {market.rules.name: _Play(market) for market in markets}
        self._host = host
        self._want_port = port
        self._pace = pace
        self._start_clients = start_clients
        self._hold = math.isinf(pace) if hold_for_snapshot is None else hold_for_snapshot
        self._at_end = at_end
        self._queue_bytes = queue_bytes
        self._ping_interval_s = ping_interval_s
        self._pong_timeout_s = pong_timeout_s
        self._tls = tls
        self._record_path = record
        self._on_book = on_book
        self._record: IO[bytes] | None = None
        self._runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    # ---- addresses ----

    def _base(self, scheme: str) -> str:
        return f"{scheme}{'s' if self._tls else ''}://{self._host}:{self.port}"

    @property
    def ws_url(self) -> dict[str, str]:
        return {name: f"{self._base('ws')}/{name}/ws" for name in self._plays}

    @property
    def stream_url(self) -> dict[str, str]:
        """The combined form."""
        return {name: f"{self._base('ws')}/{name}/stream" for name in self._plays}

    @property
    def rest_url(self) -> dict[str, str]:
        return {
            name: f"{self._base('http')}/{name}{play.market.rules.rest_path}"
            for name, play in self._plays.items()
        }

    @property
    def instruments(self) -> dict[str, list[str]]:
        return {name: list(play.market.instruments) for name, play in self._plays.items()}

    @property
    def markets(self) -> dict[str, Market]:
        return {name: play.market for name, play in self._plays.items()}

    @property
    def id_offsets(self) -> dict[str, int]:
        """What a restart has added to the ids of each market's own stream and books."""
        return {name: play.id_offset for name, play in self._plays.items()}

    # ---- life ----

    async def __aenter__(self) -> Self:
        app = web.Application()
        for name, play in self._plays.items():
            for prefix in ("", "/public", "/market"):
                app.router.add_get(f"/{name}{prefix}/ws", self._socket)
                app.router.add_get(f"/{name}{prefix}/ws/{{streams:.+}}", self._socket)
                app.router.add_get(f"/{name}{prefix}/stream", self._socket)
            app.router.add_get(f"/{name}{play.market.rules.rest_path}", self._depth)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        context = self._ssl_context() if self._tls else None
        site = web.TCPSite(self._runner, self._host, self._want_port, ssl_context=context)
        await site.start()
        self.port = self._runner.addresses[0][1]
        if self._record_path is not None:
            self._record = open(self._record_path, "wb")  # noqa: SIM115, ASYNC230 (closed in __aexit__)
        self._tasks = [asyncio.create_task(self._play_market(play)) for play in self._plays.values()]
        self._tasks.append(asyncio.create_task(self._finish(list(self._tasks))))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for play in self._plays.values():
            for client in list(play.clients):
                client.close_when_written()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._record is not None:
            self._record.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _ssl_context(self) -> ssl.SSLContext:
        self._temporary = tempfile.TemporaryDirectory(prefix="tickwire-sim-")
        certificate = Path(self._temporary.name, "cert.pem")
        key = Path(self._temporary.name, "key.pem")
        names = f"subjectAltName=IP:{self._host},DNS:localhost"
        subprocess.run(
            [
                *[
                    "openssl",
                    "req",
                    "-x509",
                    "-newkey",
                    "rsa:2048",
                    "-nodes",
                    "-days",
                    "30",
                    "-subj",
                    "/CN=localhost",
                ],
                *("-addext", names, "-keyout", str(key), "-out", str(certificate)),
            ],
            check=True,
            capture_output=True,
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        self.certificate = str(certificate)
        return context

    async def _finish(self, plays: list[asyncio.Task[None]]) -> None:
        try:
            await asyncio.gather(*plays)
        finally:
            self.finished.set()

    # ---- play ----

    async def _play_market(self, play: _Play) -> None:
        while len(play.subscribed_clients) < self._start_clients:
            play.changed.clear()
            await play.changed.wait()
        self._record_snapshots(play)
        self._tell_whole_books(play)
        loop = asyncio.get_running_loop()
        unbounded = math.isinf(self._pace)
        pace = Pace(self._pace, loop.time)
        if isinstance(play.market, SyntheticMarket):
            wall_ns = time.time_ns()
            play.market.clock_ms = (
                (lambda _: time.time_ns() // 1_000_000)
                if unbounded
                else (lambda due_ns: int(wall_ns + due_ns / self._pace) // 1_000_000)
            )
        holding = self._hold
        begun: set[str] = set()
        burst = 0
        for message in play.market.messages():
            if not unbounded:
                wait_s = pace.wait_s(message.due_ns)
                if wait_s > 0.0:
                    await asyncio.sleep(wait_s)
                    burst = 0
            self._publish(play, message)
            burst += 1
            if burst >= _BURST:
                burst = 0
                await asyncio.sleep(0)
                if unbounded:
                    await self._wait_for_clients(play)
            if holding and message.diff is not None:
                begun.add(message.symbol)
                if begun >= play.depth_symbols():
                    holding = False
                    before = loop.time()
                    await self._wait_for_snapshots(play)
                    pace.stood_still(loop.time() - before)
        for client in list(play.clients):
            for stream in list(client.held):
                self._send(client, b"", stream)
        if self._at_end == "close":
            play.ended = True
            for client in list(play.clients):
                client.close_when_written()
            await play.empty.wait()

    async def _wait_for_clients(self, play: _Play) -> None:
        since = time.monotonic()
        while behind := [client for client in play.clients if client.queued_bytes > _HIGH_WATER_BYTES]:
            if time.monotonic() - since > _STUCK_CLIENT_S:
                for client in behind:
                    self._cut_off(client)
                return
            await asyncio.sleep(0.0005)

    async def _wait_for_snapshots(self, play: _Play) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SNAPSHOT_TIMEOUT_S):
                while not play.snapshot_served >= play.depth_symbols():
                    play.changed.clear()
                    await play.changed.wait()

    def _publish(self, play: _Play, message: Message) -> None:
        play.market.advance(message)
        if self._on_book is not None:
            self._tell_book(play, message)
        if not message.data:
            return
        self.counters["played"] += 1
        data = message.data
        if play.id_offset:
            data = _shift_ids(data, play.id_offset)
        if self._record is not None:
            stamp = time.time_ns()
            self._record.write(b'%d {"stream":"%s","data":%s}\n' % (stamp, message.stream.encode(), data))
        envelopes: dict[str, bytes] = {}
        for client in list(play.subscribers.get(stream_key(message.stream), ())):
            if client.gone or client.closing:
                continue
            if client.combined:
                name = client.streams[stream_key(message.stream)]
                frame = envelopes.get(name)
                if frame is None:
                    frame = b'{"stream":"%s","data":%s}' % (name.encode(), data)
                    envelopes[name] = frame
            else:
                frame = data
            if self.faults is None:
                self._send(client, frame, message.stream)
            else:
                self._send_through_faults(play, client, message, frame)

    def _tell_book(self, play: _Play, message: Message) -> None:
        assert self._on_book is not None
        if message.reopened or message.repair is not None:
            self._tell_whole_books(play)
        elif message.diff is not None:
            last_id = message.diff.last_id + play.id_offset
            changes = (message.diff.bids, message.diff.asks)
            self._on_book(
                BookChange(time.time_ns(), play.name, message.symbol, last_id, *changes, whole=False)
            )

    def _tell_whole_books(self, play: _Play) -> None:
        if self._on_book is None:
            return
        for symbol, book in play.market.books.items():
            bids, asks = ([[*level] for level in side.items()] for side in (book.bids, book.asks))
            last_id = book.last_id + play.id_offset
            self._on_book(BookChange(time.time_ns(), play.name, symbol, last_id, bids, asks, whole=True))

    def _send(self, client: _Client, frame: bytes, stream: str) -> None:
        if client.queued_bytes > self._queue_bytes:
            self._cut_off(client)
            return
        if frame:
            client.push(frame)
        if client.held and (held := client.held.pop(stream, None)) is not None:
            client.push(held)

    def _cut_off(self, client: _Client) -> None:
        self.counters["slow_clients"] += 1
        self.counters["dropped"] += len(client.queue)
        client.queue.clear()
        client.queued_bytes = 0
        client.reset()

    def _send_through_faults(self, play: _Play, client: _Client, message: Message, frame: bytes) -> None:
        assert self.faults is not None
        now = time.monotonic()
        if now < client.stalled_until:
            self.counters["stalled"] += 1
            return
        last_id = message.diff.last_id + play.id_offset if message.diff is not None else 0
        kind = self.faults.for_message(play.name, message.symbol, message.stream, client.index, last_id)
        stream = message.stream
        match kind:
            case None:
                self._send(client, frame, stream)
            case "drop":
                pass
            case "duplicate":
                self._send(client, frame, stream)
                self._send(client, frame, stream)
            case "reorder":
                if (held := client.held.get(stream)) is not None:
                    client.push(held)
                client.held[stream] = frame
            case "corrupt":
                self._send(client, frame[: len(frame) // 2], stream)
            case "stall":
                client.stalled_until = now + self.faults.stall_s
                self.counters["stalled"] += 1
            case "close":
                client.close_when_written()
            case "reset":
                client.reset()
            case "shutdown":
                self._send(client, frame, stream)
                self._announce_shutdown(client, self.faults.shutdown_grace_s)
            case "restart":
                self.restart(play.name)

    def _announce_shutdown(self, client: _Client, grace_s: float) -> None:
        notice = b'{"e":"serverShutdown","E":%d}' % (time.time_ns() // 1_000_000)
        if client.combined:
            notice = b'{"stream":"!serverShutdown","data":%s}' % notice
        client.push(notice)
        self.counters["shutdown_notices"] += 1
        asyncio.get_running_loop().call_later(grace_s, client.close_when_written)

    def shut_down(self, market: str, grace_s: float = 2.0) -> None:
        """Tells every client of the market that its connection ends, and ends it after the grace time."""
        for client in list(self._plays[market].clients):
            self._announce_shutdown(client, grace_s)

    def restart(self, market: str, *, back: bool | None = None) -> None:
        """Closes every connection of a market; its ids go on from elsewhere: back, ahead, or by chance."""
        for client in list(self._plays[market].clients):
            client.close_when_written()
        self.renumber(market, back=back)

    def renumber(self, market: str, *, back: bool | None = None) -> None:
        """The ids of a market go on from elsewhere, and no connection closes: what no venue should do."""
        play = self._plays[market]
        smallest = min(book.last_id for book in play.market.books.values())
        if back is None:
            back = self.faults is None or self.faults.random.random() < 0.5
        play.id_offset = -(smallest // 2) if back else smallest
        if self._record is not None:
            self._record.write(b'%d {"tickwire":"open","conn":0}\n' % time.time_ns())
        self._record_snapshots(play)
        self._tell_whole_books(play)

    def _record_snapshots(self, play: _Play) -> None:
        if self._record is None:
            return
        for symbol, book in play.market.books.items():
            body = book.snapshot(_ALL_LEVELS, id_offset=play.id_offset)
            note = b'{"tickwire":"snapshot","conn":0,"instrument":"%s","limit":%d,"body":%s}'
            line = note % (symbol.encode(), _ALL_LEVELS, body)
            self._record.write(b"%d %s\n" % (time.time_ns(), line))

    # ---- WebSocket ----

    def _play_of(self, request: web.Request) -> _Play:
        return self._plays[request.path.split("/")[1]]

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        play = self._play_of(request)
        if play.ended:
            raise web.HTTPServiceUnavailable
        ws = web.WebSocketResponse(autoping=False, compress=False, timeout=2.0, max_msg_size=1 << 20)
        await ws.prepare(request)
        client = _Client(self.counters["connections"], ws, request, play)
        self.counters["connections"] += 1
        parts = request.path.split("/")
        client.allowed = _STREAMS_OF_SPLIT.get(parts[2])
        client.combined = "stream" in parts[2:4]
        play.join(client)
        named = request.query.get("streams", "") if client.combined else request.match_info.get("streams", "")
        if named:
            self._subscribe(client, named.split("/"))
        writer = asyncio.create_task(self._write(client))
        pinger = asyncio.create_task(self._ping(client))
        try:
            async for message in ws:
                if message.type is WSMsgType.TEXT:
                    client.push(self._control(client, message.data))
                elif message.type is WSMsgType.PING and time.monotonic() >= client.stalled_until:
                    await ws.pong(message.data)
                elif message.type is WSMsgType.PONG and message.data == client.ping_payload:
                    client.pong_due = math.inf  # Only the payload of our own ping counts.
        finally:
            client.gone = True
            play.forget(client)
            writer.cancel()
            pinger.cancel()
            await asyncio.gather(writer, pinger, return_exceptions=True)
        return ws

    async def _write(self, client: _Client) -> None:
        queue, send = client.queue, client.ws.send_frame
        counters = self.counters
        with contextlib.suppress(ConnectionError, RuntimeError):
            while not client.gone:
                if not queue:
                    if client.closing:
                        break
                    client.wake.clear()
                    await client.wake.wait()
                    continue
                data = queue.popleft()
                client.queued_bytes -= len(data)
                await send(data, WSMsgType.TEXT)
                counters["sent"] += 1
                counters["sent_bytes"] += len(data)
        if not client.gone:
            client.gone = True
            await client.ws.close(code=1001, message=b"end of play")

    async def _ping(self, client: _Client) -> None:
        rules = client.play.market.rules
        interval = self._ping_interval_s or rules.ping_interval_s
        timeout = self._pong_timeout_s or rules.pong_timeout_s
        with contextlib.suppress(ConnectionError, RuntimeError):
            while not client.gone:
                wait = min(interval, max(client.pong_due - time.monotonic(), 0.0))
                await asyncio.sleep(wait)
                now = time.monotonic()
                if now >= client.pong_due:
                    self.counters["pong_timeouts"] += 1
                    client.close_when_written()
                    return
                if now < client.stalled_until:
                    continue
                client.ping_payload = str(time.time_ns() // 1_000_000).encode()
                if math.isinf(client.pong_due):
                    client.pong_due = now + timeout
                await client.ws.ping(client.ping_payload)

    def _control(self, client: _Client, text: str) -> bytes:
        """Answers one request on the socket."""
        try:
            request = json.loads(text)
            method, request_id = request["method"], request.get("id")
        except (ValueError, TypeError, KeyError) as error:
            return _json({"error": {"code": 3, "msg": f"Invalid JSON: {error}"}})
        params = request.get("params", [])
        if method in ("SUBSCRIBE", "UNSUBSCRIBE"):
            if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
                return _json({"error": {"code": 0, "msg": "Unknown property"}, "id": request_id})
            (self._subscribe if method == "SUBSCRIBE" else self._unsubscribe)(client, params)
            return _json({"result": None, "id": request_id})
        if method == "LIST_SUBSCRIPTIONS":
            return _json({"result": list(client.streams.values()), "id": request_id})
        message = f"Invalid request: unknown variant `{method}`"
        return _json({"error": {"code": 2, "msg": message}, "id": request_id})

    def _subscribe(self, client: _Client, names: list[str]) -> None:
        """Like the venue, takes any name: a stream that does not exist is never heard of again."""
        play = client.play
        for name in names:
            key = stream_key(name)
            if client.allowed is not None and key.partition("@")[2] not in client.allowed:
                continue
            if key not in client.streams:
                play.subscribers.setdefault(key, []).append(client)
            client.streams[key] = name
        if client.streams:
            play.subscribed_clients.add(client.index)
            play.changed.set()

    def _unsubscribe(self, client: _Client, names: list[str]) -> None:
        for name in names:
            key = stream_key(name)
            if client.streams.pop(key, None) is not None:
                client.play.subscribers[key].remove(client)

    # ---- REST ----

    async def _depth(self, request: web.Request) -> web.Response:
        play = self._play_of(request)
        rules = play.market.rules
        symbol = request.query.get("symbol")
        if not symbol:
            text = "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."
            return self._refuse(400, -1102, text)
        book = play.market.books.get(symbol)
        if book is None:
            return self._refuse(400, -1121, "Invalid symbol.")
        try:
            limit = int(request.query.get("limit", rules.default_depth))
        except ValueError:
            limit = 0
        if limit < 1 or (rules.depths and limit not in rules.depths):
            return self._refuse(400, -1130, "Data sent for parameter 'limit' is not valid.")
        kind = self.faults.for_rest(play.name, symbol, book.last_id + play.id_offset) if self.faults else None
        shift = play.id_offset
        match kind:
            case "rest_fail":
                assert self.faults is not None
                status = self.faults.random.choice((500, 503, 429))
                return self._refuse(status, -1003 if status == 429 else -1000, "Injected failure.")
            case "snapshot_old":
                shift -= max(book.last_id // 4, 1)
            case "snapshot_ahead":
                shift += max(book.last_id // 4, 1)
        body = book.snapshot(min(limit, rules.max_depth), id_offset=shift)
        if kind == "rest_slow":
            assert self.faults is not None
            await asyncio.sleep(self.faults.slow_s)
        if kind == "snapshot_oversized":
            assert self.faults is not None
            level = b'["0.00000001","1.00000000"],'
            filler = level * (self.faults.oversized_bytes // len(level) + 1)
            body = body.replace(b'"bids":[', b'"bids":[' + filler, 1)
        self.counters["snapshots"] += 1
        play.snapshot_served.add(symbol)
        play.changed.set()
        return web.Response(body=body, content_type="application/json")

    def _refuse(self, status: int, code: int, text: str) -> web.Response:
        self.counters["rest_errors"] += 1
        headers = {"Retry-After": "1"} if status == 429 else {}
        return web.json_response({"code": code, "msg": text}, status=status, headers=headers)


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _shift_ids(data: bytes, offset: int) -> bytes:
    return _IDS.sub(lambda found: b'"%s":%d' % (found[1], int(found[2]) + offset), data)
