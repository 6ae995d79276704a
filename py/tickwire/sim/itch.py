"""ITCH 5.0 as a venue writes it: the messages, the state they build, and a seeded market of them.

The encoders and `ItchState` know the layouts of the book's messages and of what a snapshot needs; other
messages pass through them untouched.
"""

from __future__ import annotations

import gzip
import itertools
import math
import random
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["ItchState", "SyntheticItch", "TimedMessage", "read_messages", "stocks_of", "timed"]

_OPEN_NS = 34_200 * 1_000_000_000  # 09:30:00 after midnight, New York.


class TimedMessage(NamedTuple):
    due_ns: int  # From the start of the play.
    data: bytes


def _header(kind: bytes, locate: int, ts_ns: int) -> bytes:
    return kind + struct.pack(">HH", locate, 0) + ts_ns.to_bytes(6, "big")


def system_event(ts_ns: int, code: str) -> bytes:
    return _header(b"S", 0, ts_ns) + code.encode()


def directory(locate: int, ts_ns: int, stock: str) -> bytes:
    fields = struct.pack(
        ">8scc I c c 2s c c c c c I c",
        stock.encode().ljust(8),
        b"Q",
        b"N",
        100,
        b"N",
        b"C",
        b"Z ",
        b"P",
        b"N",
        b"N",
        b"1",
        b"N",
        0,
        b"N",
    )
    return _header(b"R", locate, ts_ns) + fields


def trading_action(locate: int, ts_ns: int, stock: str, state: str) -> bytes:
    return _header(b"H", locate, ts_ns) + stock.encode().ljust(8) + state.encode() + b" " + b"    "


def add_order(
    locate: int, ts_ns: int, reference: int, side: str, shares: int, stock: str, price: int, mpid: str = ""
) -> bytes:
    fields = struct.pack(">QcI8sI", reference, side.encode(), shares, stock.encode().ljust(8), price)
    if mpid:
        return _header(b"F", locate, ts_ns) + fields + mpid.encode().ljust(4)
    return _header(b"A", locate, ts_ns) + fields


def executed(locate: int, ts_ns: int, reference: int, shares: int, match: int) -> bytes:
    return _header(b"E", locate, ts_ns) + struct.pack(">QIQ", reference, shares, match)


def cancelled(locate: int, ts_ns: int, reference: int, shares: int) -> bytes:
    return _header(b"X", locate, ts_ns) + struct.pack(">QI", reference, shares)


def deleted(locate: int, ts_ns: int, reference: int) -> bytes:
    return _header(b"D", locate, ts_ns) + struct.pack(">Q", reference)


def replaced(locate: int, ts_ns: int, old: int, new: int, shares: int, price: int) -> bytes:
    return _header(b"U", locate, ts_ns) + struct.pack(">QQII", old, new, shares, price)


def read_messages(path: Path) -> Iterator[bytes]:
    """A day file in the venue's own form: two bytes of length, then the message; `.gz` accepted."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        while len(head := file.read(2)) == 2:
            yield file.read(int.from_bytes(head, "big"))


def timed(messages: Iterable[bytes]) -> Iterator[TimedMessage]:
    """Messages that are due when they say, from the first of them on."""
    start = None
    for message in messages:
        ts = int.from_bytes(message[5:11], "big")
        start = ts if start is None else start
        yield TimedMessage(max(ts - start, 0), message)


def stocks_of(messages: Iterable[bytes]) -> list[str]:
    """The stocks whose directory entries come before the first order."""
    found = []
    for message in messages:
        if message[:1] in b"AF":
            break
        if message[:1] == b"R":
            found.append(message[11:19].decode("ascii", "replace").rstrip())
    return found


class ItchState:
    """What the messages up to now have built: instruments, their trading states, live orders by age."""

    def __init__(self) -> None:
        self.directories: dict[int, bytes] = {}
        self.actions: dict[int, bytes] = {}
        self.orders: dict[int, bytearray] = {}  # The add message, with the shares that are left.

    def apply(self, message: bytes) -> None:
        kind = message[:1]
        if kind in b"AF":
            self.orders[int.from_bytes(message[11:19], "big")] = bytearray(message)
        elif kind in b"ECX":
            self._reduce(int.from_bytes(message[11:19], "big"), int.from_bytes(message[19:23], "big"))
        elif kind == b"D":
            self.orders.pop(int.from_bytes(message[11:19], "big"), None)
        elif kind == b"U":
            old, new, shares, price = struct.unpack(">QQII", message[11:35])
            order = self.orders.pop(old, None)
            if order is not None:
                order[11:19] = new.to_bytes(8, "big")
                order[20:24] = shares.to_bytes(4, "big")
                order[32:36] = price.to_bytes(4, "big")
                self.orders[new] = order  # At the end: it lost its place.
        elif kind == b"R":
            self.directories[int.from_bytes(message[1:3], "big")] = message
        elif kind == b"H":
            self.actions[int.from_bytes(message[1:3], "big")] = message

    def _reduce(self, reference: int, shares: int) -> None:
        order = self.orders.get(reference)
        if order is None:
            return
        left = int.from_bytes(order[20:24], "big") - shares
        if left > 0:
            order[20:24] = left.to_bytes(4, "big")
        else:
            del self.orders[reference]

    def snapshot(self) -> list[bytes]:
        """The messages that build this state from nothing."""
        return [*self.directories.values(), *self.actions.values(), *map(bytes, self.orders.values())]


class SyntheticItch:
    """A seeded market: directory and trading states, then `events` changes of the books at `rate` a second.

    Adds are most of it, then deletes, replaces, executions and partial cancels, as on a day of the venue.
    No order ever crosses the book.
    """

    def __init__(
        self, *, instruments: int = 3, events: float = 1000, rate: float = 10_000, seed: int = 1
    ) -> None:
        """`events` may be `math.inf`: the market never closes."""
        if not 1 <= instruments <= 0xFFFF:
            raise ValueError(f"instruments: expected 1 to 65535, found {instruments}")
        if not rate > 0:
            raise ValueError(f"rate: expected a positive number, found {rate}")
        self.stocks = tuple(f"TW{index:05d}" for index in range(1, instruments + 1))
        self._events = events
        self._rate = rate
        self._seed = seed

    def messages(self) -> Iterator[TimedMessage]:
        rand = random.Random(f"tickwire/itch/{self._seed}")
        due = 0
        yield TimedMessage(0, system_event(_OPEN_NS, "O"))
        for locate, stock in enumerate(self.stocks, 1):
            yield TimedMessage(0, directory(locate, _OPEN_NS, stock))
            yield TimedMessage(0, trading_action(locate, _OPEN_NS, stock, "T"))
        yield TimedMessage(0, system_event(_OPEN_NS, "Q"))
        mids = [100_0000 + 5_0000 * index for index in range(len(self.stocks))]
        live: list[list[tuple[int, str, int]]] = [[] for _ in self.stocks]  # Reference, side, shares.
        reference = match = 0
        for _ in itertools.count() if math.isinf(self._events) else range(int(self._events)):
            due += int(rand.expovariate(self._rate) * 1e9)
            ts = _OPEN_NS + due
            index = rand.randrange(len(self.stocks))
            locate, orders = index + 1, live[index]
            chance = rand.random()
            if len(orders) < 10 or (chance < 0.45 and len(orders) < 500):
                reference += 1
                side, price = self._price(rand, mids[index])
                shares = 100 * rand.randrange(1, 20)
                orders.append((reference, side, shares))
                mpid = "TWMM" if rand.random() < 0.1 else ""
                stock = self.stocks[index]
                yield TimedMessage(due, add_order(locate, ts, reference, side, shares, stock, price, mpid))
                continue
            at = rand.randrange(len(orders))
            old, side, shares = orders[at]
            if chance < 0.8:
                del orders[at]
                yield TimedMessage(due, deleted(locate, ts, old))
            elif chance < 0.9:
                reference += 1
                _, price = self._price(rand, mids[index], side)
                shares = 100 * rand.randrange(1, 20)
                orders[at] = (reference, side, shares)
                yield TimedMessage(due, replaced(locate, ts, old, reference, shares, price))
            else:
                part = shares if chance < 0.95 and rand.random() < 0.5 else max(1, shares // 2)
                if part < shares:
                    orders[at] = (old, side, shares - part)
                else:
                    del orders[at]
                if chance < 0.95:
                    match += 1
                    yield TimedMessage(due, executed(locate, ts, old, part, match))
                else:
                    yield TimedMessage(due, cancelled(locate, ts, old, part))
        yield TimedMessage(due, system_event(_OPEN_NS + due, "M"))

    @staticmethod
    def _price(rand: random.Random, mid: int, side: str | None = None) -> tuple[str, int]:
        """A bid below the mid or an ask above it, mostly near, in whole cents."""
        side = side or rand.choice("BS")
        away = 100 * (1 + int(rand.expovariate(0.3)))
        return side, mid - away if side == "B" else mid + away
