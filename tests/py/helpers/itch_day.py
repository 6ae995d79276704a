"""Days of ITCH 5.0 for tests: a seeded market, its messages, and what its rows should be.

The messages are packed from the specification's offsets; the truth is a dictionary of orders, summed up by
price whenever a book is asked for, and rows come from the twin of the features. No code of the engine is
used.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from twin import Epoch, Point

OPEN_NS = 34_200_000_000_000


def message(kind: bytes, locate: int, ts_ns: int, body: bytes) -> bytes:
    return kind + struct.pack(">HH", locate, 0) + ts_ns.to_bytes(6, "big") + body


def stock(symbol: str) -> bytes:
    return symbol.ljust(8).encode()


def directory(locate: int, ts_ns: int, symbol: str) -> bytes:
    rest = b"QN" + struct.pack(">I", 100) + b"NCZ PNN1N" + struct.pack(">I", 0) + b"N"
    return message(b"R", locate, ts_ns, stock(symbol) + rest)


def trading_action(locate: int, ts_ns: int, symbol: str, state: str) -> bytes:
    return message(b"H", locate, ts_ns, stock(symbol) + state.encode() + b" " + b"    ")


def framed(messages: Iterable[bytes]) -> bytes:
    return b"".join(struct.pack(">H", len(text)) + text for text in messages)


@dataclass
class Order:
    side: str
    price: int
    qty: int


@dataclass
class Stock:
    """One instrument: its orders, and the epochs of its valid book."""

    symbol: str
    locate: int
    levels: int
    orders: dict[int, Order] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)
    trading: bool = False

    def side(self, side: str) -> list[tuple[int, int]]:
        by_price: dict[int, int] = {}
        for order in self.orders.values():
            if order.side == side:
                by_price[order.price] = by_price.get(order.price, 0) + order.qty
        return sorted(by_price.items(), reverse=side == "B")

    def top(self) -> tuple[tuple[int, int], ...]:
        filled = [(self.side(side) + [(-1, 0)] * self.levels)[: self.levels] for side in "BS"]
        return (*filled[0], *filled[1])


class Day:
    """A market of some instruments, one call an event. `midnight` is its day's, in UTC nanoseconds."""

    def __init__(self, symbols: list[str], *, seed: int, midnight: int, levels: int = 5) -> None:
        self.random = random.Random(seed)
        self.midnight = midnight
        self.stocks = [Stock(symbol, 10 + 3 * i, levels) for i, symbol in enumerate(symbols)]
        self.messages: list[bytes] = []
        self.now = OPEN_NS
        self.ref = self.random.randrange(1 << 40)
        self.match = 1
        self.say(message(b"S", 0, self.now, b"O"))
        for one in self.stocks:
            self.say(directory(one.locate, self.now, one.symbol))

    def say(self, text: bytes) -> int:
        self.messages.append(text)
        return len(self.messages)

    def tick(self) -> int:
        # Never twice the same, so that what a window holds is beyond doubt.
        self.now += self.random.choice((1, 1_000, 50_000, 2_000_000, 40_000_000))
        return self.now

    def act(self, one: Stock, state: str) -> None:
        self.tick()
        self.say(trading_action(one.locate, self.now, one.symbol, state))
        if state == "T" and not one.trading:
            clock = self.midnight + self.now
            one.epochs.append(
                Epoch(len(one.epochs) + 1, clock, one.levels, [one.top()], [clock], qty_scale=1)
            )
        one.trading = state == "T"

    def note(
        self,
        one: Stock,
        number: int,
        *,
        book: bool = True,
        trade: tuple[int, int, int] | None = None,
        came: bool = False,
        went: bool = False,
    ) -> None:
        """What message `number` was: `trade` is price, qty and sign."""
        if not one.trading:
            return
        clock, epoch = self.midnight + self.now, one.epochs[-1]
        if came:
            epoch.arrivals.append(clock)
        if went:
            epoch.cancels.append(clock)
        if trade is not None:
            epoch.trades.append((clock, *trade))
        if book:
            epoch.states.append(one.top())
            epoch.state_clocks.append(clock)
        if book or trade is not None:
            count = (len(epoch.states) - 1, len(epoch.trades))
            epoch.points.append(
                Point(book, book, clock, clock, clock, number, *count, traded=trade is not None)
            )

    def price(self, one: Stock, side: str) -> int:
        """One that does not cross the book."""
        other = one.side("S" if side == "B" else "B")
        away = 100 * self.random.randrange(1, 40)
        if not other:
            return 1_000_000 + (-away if side == "B" else away)
        return other[0][0] + (-away if side == "B" else away)

    def add(self, one: Stock, side: str | None = None) -> None:
        side = side or self.random.choice("BS")
        self.ref += self.random.randrange(1, 9)
        order = Order(side, self.price(one, side), self.random.randrange(1, 500))
        mpid = self.random.random() < 0.1
        body = struct.pack(">Q", self.ref) + side.encode() + struct.pack(">I", order.qty) + stock(one.symbol)
        body += struct.pack(">I", order.price) + (b"MPID" if mpid else b"")
        self.tick()
        number = self.say(message(b"F" if mpid else b"A", one.locate, self.now, body))
        one.orders[self.ref] = order
        self.note(one, number, came=True)

    def step(self) -> None:
        """Any event of any instrument; both sides of each keep three orders at least."""
        one = self.random.choice(self.stocks)
        for side in "BS":
            if sum(order.side == side for order in one.orders.values()) < 3:
                self.add(one, side)
                return
        what = self.random.choices("AEeCcXDUPQ*", (30, 8, 4, 3, 3, 8, 24, 12, 3, 1, 4))[0]
        if what == "A":
            self.add(one)
            return
        ref = self.random.choice(list(one.orders))
        order = one.orders[ref]
        sign = -1 if order.side == "B" else 1
        part = self.random.randrange(1, order.qty + 1) if what != "e" else order.qty
        self.tick()
        if what in "EeCc":
            self.match += 1
            body = struct.pack(">QIQ", ref, part, self.match)
            price = order.price
            if what in "Cc":
                price = order.price - 50
                body += (b"Y" if what == "C" else b"N") + struct.pack(">I", price)
            number = self.say(message(b"C" if what in "Cc" else b"E", one.locate, self.now, body))
            self.shrink(one, ref, part)
            self.note(one, number, trade=None if what == "c" else (price, part, sign))
        elif what == "X":
            number = self.say(message(b"X", one.locate, self.now, struct.pack(">QI", ref, part)))
            self.shrink(one, ref, part)
            self.note(one, number, went=True)
        elif what == "D":
            number = self.say(message(b"D", one.locate, self.now, struct.pack(">Q", ref)))
            del one.orders[ref]
            self.note(one, number, went=True)
        elif what == "U":
            self.ref += 1
            new = Order(order.side, self.price(one, order.side), self.random.randrange(1, 500))
            body = struct.pack(">QQII", ref, self.ref, new.qty, new.price)
            number = self.say(message(b"U", one.locate, self.now, body))
            del one.orders[ref]
            one.orders[self.ref] = new
            self.note(one, number, came=True, went=True)
        elif what == "P":
            body = struct.pack(">Q", 0) + b"B" + struct.pack(">I", part) + stock(one.symbol)
            number = self.say(
                message(b"P", one.locate, self.now, body + struct.pack(">IQ", order.price, self.match))
            )
            self.note(one, number, book=False, trade=(order.price, part, 0))
        elif what == "Q":
            body = (
                struct.pack(">Q", 10 * part) + stock(one.symbol) + struct.pack(">IQ", order.price, self.match)
            )
            number = self.say(message(b"Q", one.locate, self.now, body + b"H"))
            self.note(one, number, book=False, trade=(order.price, 10 * part, 0))
        else:  # What no book and no window hears of.
            noise = [
                message(b"Y", one.locate, self.now, stock(one.symbol) + b"0"),
                message(b"I", one.locate, self.now, bytes(39)),
                message(b"B", one.locate, self.now, bytes(8)),
                message(b"Z", one.locate, self.now, b"of a later version"),
                message(b"A", 999, self.now, struct.pack(">Q", ref) + b"B" + bytes(16)),
            ]
            self.say(self.random.choice(noise))

    @staticmethod
    def shrink(one: Stock, ref: int, qty: int) -> None:
        one.orders[ref].qty -= qty
        if one.orders[ref].qty == 0:
            del one.orders[ref]

    def write(self, path: Path) -> Path:
        path.write_bytes(framed(self.messages))
        return path
