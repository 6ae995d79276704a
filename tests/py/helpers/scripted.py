"""A venue of two spot instruments that says exactly what a test tells it to, and a pipeline on it.

BTCUSDT is the victim and ETHUSDT stands by on the same connection; SOLUSDT is on another feed, so on another
connection. Left alone the venue is honest: contiguous ids, snapshots that fit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from waiting import until

from tickwire.config import Config
from tickwire.pipeline import Pipeline
from tickwire.records import Rows

BTC, ETH, SOL = "BTCUSDT", "ETHUSDT", "SOLUSDT"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ScriptedVenue:
    def __init__(self) -> None:
        self.ids = {BTC: 1000, ETH: 5000, SOL: 9000}
        self.sockets: list[web.WebSocketResponse] = []
        self.transports: list[asyncio.Transport] = []
        self.handshake: Answer | None = None
        """Instead of a WebSocket."""
        self.rest: list[bytes | Answer] = []
        """What the next requests for BTCUSDT get instead of the truth."""
        self.rest_requests = 0
        self.answers_pings = True
        self.port = 0
        self.scheme = ""
        self._ticks = 0

    @property
    def ws_url(self) -> str:
        return f"ws{self.scheme}://127.0.0.1:{self.port}/ws"

    @property
    def rest_url(self) -> str:
        return f"http{self.scheme}://127.0.0.1:{self.port}/depth"

    def diff(self, symbol: str, **fields: Any) -> str:
        """The next diff of an instrument; `fields` replace its own, None leaves one out."""
        first = self.ids[symbol] + 1
        self.ids[symbol] += 1
        self._ticks += 1
        message: dict[str, Any] = {
            "e": "depthUpdate",
            "E": time.time_ns() // 1_000_000 + self._ticks,  # Never the same twice.
            "s": symbol,
            "U": first,
            "u": first,
            "b": [["99.00", f"{1 + self._ticks % 7}.5"]],
            "a": [["101.00", "2.5"]],
        }
        message.update(fields)
        return json.dumps({k: v for k, v in message.items() if v is not None}, separators=(",", ":"))

    def snapshot(self, symbol: str, **fields: Any) -> bytes:
        body = {
            "lastUpdateId": self.ids[symbol],
            "bids": [["99.00", "1.5"], ["98.00", "1.0"]],
            "asks": [["101.00", "2.5"], ["102.00", "1.0"]],
        }
        body.update(fields)
        return json.dumps(body, separators=(",", ":")).encode()

    async def say(self, text: str | bytes) -> None:
        """To every client: those of another feed hear of instruments they did not ask for."""
        for ws in self.sockets:
            if not ws.closed:
                await (ws.send_str(text) if isinstance(text, str) else ws.send_bytes(text))

    async def chatter(self, stop: asyncio.Event) -> None:
        """Honest diffs of everything, until told to stop."""
        while not stop.is_set():
            for symbol in self.ids:
                await self._say_of(symbol)
            await asyncio.sleep(0.005)

    async def _say_of(self, symbol: str) -> None:
        text = self.diff(symbol)
        for ws in self.sockets:
            if not ws.closed and symbol.lower() in ws["streams"]:
                try:
                    await ws.send_str(text)
                except (ConnectionError, aiohttp.ClientError):
                    continue

    def write_raw(self, data: bytes, *, then_close: bool = False) -> None:
        """Bytes on the connection of BTCUSDT, past the WebSocket layer."""
        for ws, transport in zip(self.sockets, self.transports, strict=True):
            if not ws.closed and BTC.lower() in ws["streams"]:
                transport.write(data)
                if then_close:
                    transport.close()

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if self.handshake is not None:
            return await self.handshake(request)
        ws = web.WebSocketResponse(compress=False, autoping=self.answers_pings)
        ws["streams"] = set()
        await ws.prepare(request)
        assert isinstance(request.transport, asyncio.Transport)
        self.sockets.append(ws)
        self.transports.append(request.transport)
        async for message in ws:
            if message.type is aiohttp.WSMsgType.TEXT:
                asked = json.loads(message.data)
                ws["streams"] |= {name.partition("@")[0] for name in asked["params"]}
                await ws.send_str(json.dumps({"result": None, "id": asked["id"]}))
        return ws

    async def _depth(self, request: web.Request) -> web.StreamResponse:
        symbol = request.query["symbol"]
        if symbol == BTC:
            self.rest_requests += 1
            if self.rest:
                answer = self.rest.pop(0)
                return web.Response(body=answer) if isinstance(answer, bytes) else await answer(request)
        return web.Response(body=self.snapshot(symbol))

    @asynccontextmanager
    async def serve(self, context: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedVenue]:
        self.scheme = "s" if context else ""
        app = web.Application()
        app.router.add_get("/ws", self._socket)
        app.router.add_get("/depth", self._depth)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            for transport in self.transports:
                # A TLS transport that has ended has nothing left to abort, and older Pythons trip over that.
                with contextlib.suppress(AttributeError):
                    transport.abort()
            await runner.cleanup()


@dataclass
class Run:
    venue: ScriptedVenue
    pipeline: Pipeline
    rows: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, list[str]] = field(default_factory=dict)
    valid: dict[str, bool] = field(default_factory=dict)

    def on_rows(self, rows: Rows) -> None:
        layout = self.pipeline.layout
        for record in rows:
            symbol, _ = layout.instrument(int(record["instrument"]))
            if record["row"] == 0:
                self.reasons.setdefault(symbol, []).append(layout.reason(int(record["reason"])))
                self.valid[symbol] = False
            else:
                self.rows[symbol] = self.rows.get(symbol, 0) + 1
                self.valid[symbol] = True

    def lost(self, symbol: str) -> list[str]:
        return [reason for reason in self.reasons.get(symbol, []) if reason != "stopped"]

    def count(self, name: str, feed: str = "main") -> int:
        return self.pipeline.stats().counters[f"{feed}/{name}"]

    def errors(self) -> str:
        return "\n".join(f"{error.scope}: {error.text}" for error in self.pipeline.stats().errors)

    async def until(self, condition: Callable[[], bool], what: str = "") -> None:
        def state() -> str:
            counters = {k: v for k, v in self.pipeline.stats().counters.items() if v}
            return f"{what}: {self.reasons} {self.errors()} {counters}"

        await until(condition, state, look=self.pipeline.raise_if_failed)

    async def goes_on(self, *symbols: str) -> None:
        """Each of these gives rows from here on."""
        before = dict(self.rows)
        names = symbols or (BTC, ETH, SOL)
        await self.until(
            lambda: all(self.valid.get(s) and self.rows[s] > before.get(s, 0) + 2 for s in names),
            f"rows of {names}",
        )


def config_of(venue: ScriptedVenue, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    common = {
        "venue": "binance_spot",
        "url": venue.ws_url,
        "rest_url": venue.rest_url,
        "max_levels": 64,
        "snapshot_limit": 50,
        # What the venue says goes to both connections.
        "max_frame_bytes": (changes or {}).get("max_frame_bytes", 1 << 16),
        "snapshot_backoff": "20ms",
        "reconnect_min": "20ms",
        "reconnect_max": "50ms",
    }
    return {
        "feeds": [
            {"name": "main", "instruments": [BTC, ETH], **common, **(changes or {})},
            {"name": "other", "instruments": [SOL], **common},
        ],
        "features": {"trigger": "book", "max_age": "0s", "rows": ["imbalance(levels=5)", "spread()"]},
    }


@asynccontextmanager
async def scripted(
    changes: Mapping[str, Any] | None = None, *, wait: bool = True, **options: Any
) -> AsyncIterator[Run]:
    """A run on a scripted venue, whose honest chatter goes on beside whatever the test says.

    `changes` are of the feed of BTCUSDT and ETHUSDT. Yields once every instrument is valid.
    """
    venue = ScriptedVenue()
    async with venue.serve():
        config = Config.from_dict(config_of(venue, changes), where="test")
        async with Pipeline(config, **options) as pipeline:
            run = Run(venue, pipeline)
            pipeline.on_rows(run.on_rows)
            stop = asyncio.Event()
            chatter = asyncio.create_task(venue.chatter(stop))
            try:
                await run.goes_on(*((BTC, ETH, SOL) if wait else (SOL,)))
                yield run
            finally:
                stop.set()
                await chatter
