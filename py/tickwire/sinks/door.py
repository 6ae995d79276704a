"""Who may come in at a sink's server, before anything of HTTP is believed.

A connection is a visitor until it has become a WebSocket. Visitors are few, in all and of one address, have a
few seconds to say what they want, and are not let in where they would take the descriptors that feeds and
commands need. What a browser or a program must say of itself is checked here, too: a host name that is ours
(a page of somebody else's name could be made to lead to us), an origin that was named, and a token where one
is asked for.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import resource
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Door", "Refusal", "is_loopback"]

# Visitors at once, in all and of one address. A program is one for some milliseconds.
MAX_VISITORS = 64
MAX_OF_AN_ADDRESS = 16
# How long one may take until it is upgraded.
PATIENCE_S = 5.0
# Descriptors that stay free for feeds that connect again, snapshots and commands.
RESERVED = 64
# What the kernel keeps of those that were not accepted yet: few, so that they do not come all at once.
BACKLOG = 16


def is_loopback(host: str) -> bool:
    """Is it an address that only this machine reaches?"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Refusal(Exception):
    """Why a request is not answered with the stream: an HTTP status, and a line that says what to do."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Visitor(asyncio.Protocol):
    """Stands between a connection and the server's own protocol, until the upgrade and after it."""

    def __init__(self, door: Door, inner: asyncio.Protocol) -> None:
        self._door, self._inner = door, inner
        self._transport: Any = None
        self._address = ""
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if peer else ""
        if not self._door.admit(self._address, transport):
            transport.abort()
            return
        self._transport = transport
        self._door.visitors[transport] = self
        self._late = asyncio.get_running_loop().call_later(PATIENCE_S, self._give_up)
        self._inner.connection_made(transport)

    def upgraded(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
            self._door.leave(self._address)

    def _give_up(self) -> None:
        self._late = None
        self._door.leave(self._address)
        self._door.too_slow += 1
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is None:
            return  # It was not let in.
        self.upgraded()
        self._door.visitors.pop(self._transport, None)
        self._inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if self._transport is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._transport is not None else None

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


class Door:
    """Of one server. On the event loop; not thread-safe."""

    def __init__(
        self, host: str, *, hosts: Collection[str] = (), origins: Collection[str] = (), token: str = ""
    ) -> None:
        """`hosts`: names besides our own that a request may call us by. `token`: empty for none."""
        self.host = host
        self.hosts = frozenset(name.lower() for name in hosts)
        self.origins = frozenset(origins)
        self.visitors: dict[asyncio.BaseTransport, _Visitor] = {}
        self.turned_away = 0
        """Connections that were closed at once, because there were too many."""
        self.too_slow = 0
        """Connections that never became a WebSocket."""
        self._token = token.encode()
        self._waiting: Counter[str] = Counter()

    def protocol(self, make: Callable[[], asyncio.Protocol]) -> asyncio.Protocol:
        """For a server's factory: the protocol that `make` makes, behind the door."""
        return _Visitor(self, make())

    def admit(self, address: str, transport: asyncio.BaseTransport) -> bool:
        taken = transport.get_extra_info("socket")
        # A new descriptor gets the lowest number that is free: a high one means that few are.
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        short = taken is not None and taken.fileno() >= limit - RESERVED
        if short or self._waiting.total() >= MAX_VISITORS or self._waiting[address] >= MAX_OF_AN_ADDRESS:
            self.turned_away += 1
            return False
        self._waiting[address] += 1
        return True

    def leave(self, address: str) -> None:
        self._waiting[address] -= 1
        if self._waiting[address] <= 0:
            del self._waiting[address]

    def upgraded(self, transport: asyncio.BaseTransport | None) -> None:
        """The connection has become a WebSocket, and waits for nobody any more."""
        visitor = self.visitors.get(transport) if transport is not None else None
        if visitor is not None:
            visitor.upgraded()

    def check(
        self, headers: Mapping[str, str], query: Mapping[str, str], transport: asyncio.BaseTransport | None
    ) -> None:
        """Raises `Refusal` for a request that is not to be answered."""
        self._check_host(headers.get("Host", ""), transport)
        origin = headers.get("Origin")
        if origin is not None and origin not in self.origins:
            raise Refusal(403, "origin not allowed: name it in the sink's origins")
        if self._token:
            kind, _, given = headers.get("Authorization", "").partition(" ")
            if kind.lower() != "bearer":
                given = query.get("token", "")
            if not hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token):
                raise Refusal(401, "send the sink's token: Authorization: Bearer TOKEN, or ?token=TOKEN")

    def _check_host(self, host: str, transport: asyncio.BaseTransport | None) -> None:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        ours = {self.host.lower(), *self.hosts}
        if transport is not None and (here := transport.get_extra_info("sockname")):
            address = str(here[0]).partition("%")[0]
            ours.add(address.removeprefix("::ffff:"))
            ours.add(address)
            if is_loopback(address.removeprefix("::ffff:")):
                ours.add("localhost")
        if name.lower() not in ours:
            raise Refusal(403, "host not allowed: name it in the sink's hosts")
