"""Broadcasts signals as JSON text messages to every connected WebSocket client."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Hashable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from tickwire.errors import SetupError
from tickwire.private import read_secret
from tickwire.router.notices import NoticeQueue
from tickwire.sinks.base import encode
from tickwire.sinks.door import BACKLOG, Door, Refusal, is_loopback
from tickwire.sinks.table import SinkTable
from tickwire.toml.words import MISSING, at

if TYPE_CHECKING:
    from aiohttp import web

    from tickwire.records import Signal

__all__ = ["WebSocketSink", "WebSocketTable"]

_log = logging.getLogger("tickwire.sinks")

# A client that takes nothing for this long is cut off: its queue only holds what is already old.
_STUCK_S = 10.0
_MAX_CLIENTS = 256


def _check_origin(value: object) -> object:
    if isinstance(value, str) and (_ORIGIN.fullmatch(value) is None):
        raise ValueError('expected an origin as a browser sends it, like "https://desk.example:8443"')
    return value


_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@A-Z]+")
_Origin = Annotated[str, BeforeValidator(_check_origin)]


class WebSocketTable(SinkTable):
    """`[[sinks]] type = "websocket"`: broadcasts every signal as JSON to whoever connects."""

    type: Literal["websocket"]
    host: str = "127.0.0.1"
    """Address to listen on. Anything but this machine's own needs a token; there is no encryption, so a
    network that is not trusted needs a proxy in front."""

    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    """Port to listen on; 0 takes a free one, and the report says which."""

    queue: Annotated[int, Field(ge=1, le=1 << 20)] = 1024
    """Signals that may wait for one client. Beyond it that client loses the newest, counted."""

    origins: Annotated[list[_Origin], Field(max_length=64)] = []
    """Web pages that may read the signals, by origin: `"https://desk.example"`. A browser sends the origin of
    the page that connects, and what is not named here is refused. Programs send none and are let in."""

    hosts: Annotated[list[Annotated[str, Field(min_length=1, max_length=253)]], Field(max_length=64)] = []
    """Names that clients may call this machine by, besides `host`, its addresses and localhost: of a proxy
    in front, say. A request that names another host is refused: a page of somebody else's may have led it
    here."""

    token_file: str = ""
    """A file of one line that clients must know: `Authorization: Bearer …`, or `?token=…` from a page. Only
    its user may be able to read it. Empty: the environment's TICKWIRE_WEBSOCKET_TOKEN, if set, else none is
    asked for, which only an address of this machine's own allows."""

    def make(self, path_of: Callable[[str], Path]) -> WebSocketSink:
        try:
            token = _token(path_of(self.token_file) if self.token_file else None)
        except ValueError as error:
            raise at("token_file", str(error), MISSING) from None
        if not token and not is_loopback(self.host):
            expected = (
                f"required where other machines reach the sink (host = {self.host!r}); write a token of your "
                "own into a file with mode 0600, or set TICKWIRE_WEBSOCKET_TOKEN"
            )
            raise at("token_file", expected, MISSING)
        return WebSocketSink(self.host, self.port, self.queue, self.origins, hosts=self.hosts, token=token)


def _token(path: Path | None) -> str:
    """What clients of a sink must know; empty for nothing. `ValueError` says what is wrong with it, and
    nothing of what was found."""
    if path is None:
        found, where = os.environ.get("TICKWIRE_WEBSOCKET_TOKEN", ""), " in TICKWIRE_WEBSOCKET_TOKEN"
        if not found:
            return ""
    else:
        found, where = read_secret(path).decode("ascii", errors="replace").strip(), ""
    if not 16 <= len(found) <= 512 or not found.isascii() or not found.isprintable() or " " in found:
        raise ValueError(f"expected one line of 16 to 512 printable characters without a space{where}")
    return found


class _Message(NamedTuple):
    signal: Signal
    text: str
    notice_of: Hashable | None

    def text_at(self, now: int) -> str:
        """What to send: one that waited here for too long is no longer valid."""
        signal = self.signal.at(now)
        return self.text if signal is self.signal else encode(signal)


class _Client:
    """One connection: a bounded queue and a task that sends from it."""

    def __init__(self, socket: web.WebSocketResponse, limit: int, peer: str) -> None:
        self.socket, self.peer = socket, peer
        self.dropped = 0
        self.sent = 0
        self.stale = 0
        self.stuck = False
        self._messages = NoticeQueue[_Message](limit, attrgetter("notice_of"))
        self._ready = asyncio.Event()

    def offer(self, messages: Sequence[_Message]) -> int:
        """Queues what fits, and every notice; how many were lost."""
        lost = self._messages.offer(messages)
        self._ready.set()
        self.dropped += lost
        return lost

    async def run(self) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            while taken := self._messages.take(1):
                text = taken[0].text_at(time.time_ns())
                self.stale += text is not taken[0].text
                try:
                    async with asyncio.timeout(_STUCK_S):
                        await self.socket.send_str(text)
                except TimeoutError:
                    self.stuck = True
                    return
                self.sent += 1


class WebSocketSink:
    """An HTTP server of its own; every path answers with the stream of signals.

    Each client has its own bounded queue. A client that is too slow loses the newest signals, counted,
    but never the last notice of an instrument; one that takes nothing for ten seconds is disconnected.
    What a client sends is read and ignored.

    A web page is refused unless its origin is one of `origins`: any page that a browser on this host
    shows could read the signals otherwise, wherever the page is from. `door.py` says what else is asked of
    whoever comes, and how many may stand there.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8765,
        queue: int = 1024,
        origins: Sequence[str] = (),
        *,
        hosts: Sequence[str] = (),
        token: str = "",
    ) -> None:
        self.host, self.port, self.queue = host, port, queue
        if not token and not is_loopback(host):
            raise SetupError(
                f"sinks: websocket: {host}: expected a token for an address that other machines reach, "
                "found none"
            )
        self.door = Door(host, hosts=hosts, origins=origins, token=token)
        self.refused = 0
        self.clients_seen = 0
        self.clients_dropped = 0
        self.client_dropped = 0
        self.sent = 0
        self.stale = 0
        self._clients: set[_Client] = set()
        self._runner: web.AppRunner | None = None
        self._server: asyncio.AbstractServer | None = None

    @property
    def origins(self) -> frozenset[str]:
        return self.door.origins

    async def open(self) -> None:
        from aiohttp import web  # Heavy, and of use only to who listens.

        app = web.Application()
        app.router.add_get("/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        make = self._runner.server
        assert make is not None
        try:
            self._server = server = await asyncio.get_running_loop().create_server(
                lambda: self.door.protocol(make), self.host, self.port, backlog=BACKLOG
            )
        except OSError as error:
            await self._runner.cleanup()
            raise SetupError(
                f"sinks: websocket: cannot listen on {self.host}:{self.port}: {error.strerror or error}"
            ) from None
        if self.port == 0:
            self.port = int(server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}/"

    async def write(self, signals: Sequence[Signal]) -> None:
        if not self._clients:
            return
        messages = [_Message(signal, encode(signal), signal.notice_of()) for signal in signals]
        for client in self._clients:
            self.client_dropped += client.offer(messages)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        closing = [client.socket.close(code=1001, message=b"engine stopped") for client in self._clients]
        await asyncio.gather(*(asyncio.wait_for(one, 1.0) for one in closing), return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def counters(self) -> dict[str, int]:
        return {
            "clients": len(self._clients),
            "clients_seen": self.clients_seen,
            "clients_disconnected": self.clients_dropped,
            "clients_refused": self.refused,
            "connections_turned_away": self.door.turned_away,
            "connections_too_slow": self.door.too_slow,
            "client_dropped": self.client_dropped,
            "sent": self.sent + sum(client.sent for client in self._clients),
            "client_stale": self.stale + sum(client.stale for client in self._clients),
        }

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        try:
            self.door.check(request.headers, request.query, request.transport)
        except Refusal as refusal:
            self.refused += 1
            answer = web.Response(status=refusal.status, text=f"{refusal}\n")
            answer.force_close()
            return answer
        socket = web.WebSocketResponse(heartbeat=20.0, max_msg_size=1 << 16)
        if not socket.can_prepare(request).ok:
            raise web.HTTPUpgradeRequired(
                headers={"Upgrade": "websocket"}, text="tickwire signals: connect with a WebSocket client\n"
            )
        if len(self._clients) >= _MAX_CLIENTS:
            raise web.HTTPServiceUnavailable(text="too many clients\n")
        await socket.prepare(request)
        self.door.upgraded(request.transport)
        client = _Client(socket, self.queue, str(request.remote))
        self._clients.add(client)
        self.clients_seen += 1
        sender = asyncio.create_task(client.run())
        reader = asyncio.create_task(_read(socket))
        try:
            await asyncio.wait([sender, reader], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._clients.discard(client)
            self.sent += client.sent
            self.stale += client.stale
            if client.stuck:
                self.clients_dropped += 1
                _log.warning(
                    "sink websocket: client %s took nothing for %g s; disconnected", client.peer, _STUCK_S
                )
                if request.transport is not None:
                    request.transport.abort()
            for task in (sender, reader):
                task.cancel()
            await asyncio.gather(sender, reader, return_exceptions=True)
        return socket


async def _read(socket: web.WebSocketResponse) -> None:
    """Keeps the connection's control frames going until the client leaves."""
    from aiohttp import WSMsgType

    async for message in socket:
        if message.type == WSMsgType.ERROR:
            return
