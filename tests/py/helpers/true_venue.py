"""A venue that knows all of its book, and scripts of what happens at it and on the way to us.

A script becomes a capture, and beside it the truth: what each row may say, by its line in the capture. The
truth is the venue's own book after the newest message that came. Nothing here knows how the engine follows a
book, so nothing here can be wrong in the same way.

The venue numbers each single change; a message holds those since the last one, so a snapshot may have been
taken between two changes of one message. Prices are whole ticks of 0.1, quantities whole numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

START_NS = 1_700_000_000_000_000_000
STEP_NS = 100_000_000

Levels = list[tuple[int, int]]  # Price and quantity, best first.
Choose = Callable[[int], int]
"""A number from 0 up to, and without, its argument; 0 is the dullest."""


class Product(NamedTuple):
    venue: str
    symbol: str
    futures: bool


PRODUCTS = {
    "spot": Product("binance_spot", "BTCUSDT", False),
    "usdm": Product("binance_usdm", "BTCUSDT", True),
    "coinm": Product("binance_coinm", "BTCUSD_PERP", True),
}


class Book(NamedTuple):
    bids: Levels
    asks: Levels


# ---- what can happen ----


Kind = Literal["set", "remove", "sweep", "far", "repeat", "clear"]


@dataclass(frozen=True)
class Change:
    """One change of the book: see `Venue.change`."""

    kind: Kind
    side: Literal["b", "a"] = "b"
    at: int = 0
    qty: int = 1


@dataclass(frozen=True)
class Told:
    """A message of the diff stream, and what becomes of it."""

    changes: tuple[Change, ...] = ()
    fate: Literal["comes", "lost", "cut", "late"] = "comes"
    again: int = 0  # It comes a second time, so many messages later.
    ahead_ms: int = 0  # Of its stamp alone.
    hole: int = 0  # Ids that the venue used for something else before it: futures alone.


@dataclass(frozen=True)
class Trade:
    pass


@dataclass(frozen=True)
class Snapshot:
    limit: int = 1000
    told: Literal["limit", "nothing", "bare"] = "limit"
    age: int = 0  # Messages ago that it was taken …
    inside: int = 0  # … and so many changes before that message's last.
    delay: int = 0  # Messages until it comes.
    spoilt: Literal[
        "", "empty", "no bids", "no asks", "crossed", "exchanged", "unsorted", "twice", "long", "cut"
    ] = ""
    beyond: int = 0  # Its id lies so far into the hole behind its last change: futures alone.


@dataclass(frozen=True)
class Renumber:
    to: Literal["up", "down", "near", "restored"] = "down"
    """Somewhere where it never was, or a bit back; `restored`: with its clock, so that ids and stamps are
    those of other messages."""


@dataclass(frozen=True)
class Lag:
    """From here on the stream comes so many messages late; snapshots do not."""

    messages: int = 0


@dataclass(frozen=True)
class Clock:
    """The venue's clock steps."""

    ms: int = 0


@dataclass(frozen=True)
class Receive:
    """Our clock steps."""

    ns: int = 0


@dataclass(frozen=True)
class Reconnect:
    """The connection ends, and another one is opened so many messages later."""

    missed: int = 0


Op = Told | Trade | Snapshot | Renumber | Lag | Clock | Receive | Reconnect


@dataclass(frozen=True)
class Script:
    product: str = "spot"
    levels: int = 1  # That a row looks at.
    ops: tuple[Op, ...] = ()
    named: bool = False  # Messages come in the wrapper of their stream.
    then: tuple[Snapshot, tuple[Told, ...]] | None = None
    """An honest end: something is lost, then a snapshot comes and all of these messages."""


# ---- the venue ----


@dataclass
class Moment:
    """After one change."""

    id: int
    book: Book
    hole: int = 0  # Ids behind it that the next message will not name.


@dataclass
class Message:
    number: int  # In the order of the venue, whatever the ids are.
    ids: tuple[int, int, int]  # First, last, and last of the message before.
    data: dict[str, Any]
    moments: list[Moment]
    numbering: int = 0

    @property
    def book(self) -> Book:
        return self.moments[-1].book


class Venue:
    def __init__(self, product: Product, depth: int = 40) -> None:
        self.product = product
        self.bids = {10_000 - 2 * i: 1 + i * 7 % 13 for i in range(depth)}
        self.asks = {10_001 + 2 * i: 1 + i * 5 % 11 for i in range(depth)}
        self.id = self.highest = self.lowest = 1_000_000
        self.numbering = 0
        self.stamp_ms = START_NS // 1_000_000
        self.messages = [Message(0, (self.id, self.id, self.id - 1), {}, [Moment(self.id, self.book())])]

    def book(self) -> Book:
        return Book(sorted(self.bids.items(), reverse=True), sorted(self.asks.items()))

    def change(self, change: Change) -> list[tuple[str, int, int]]:
        """Does it; single changes as (side, price, quantity), in an order that never crosses the book."""
        own, other = (self.bids, self.asks) if change.side == "b" else (self.asks, self.bids)
        down = -1 if change.side == "b" else 1  # Away from the other side.
        prices = sorted(own, reverse=change.side == "b")
        against = "a" if change.side == "b" else "b"
        out: list[tuple[str, int, int]] = []
        # Where a side is empty it begins again behind where the other one is, or anywhere.
        near = prices[0] if prices else (min(other) - 1 if down < 0 else max(other) + 1) if other else 10_000
        match change.kind:
            case "set":
                price = near + down * (change.at - 3)
                if other and (price >= min(other) if down < 0 else price <= max(other)):
                    price = near
                out.append((change.side, price, change.qty))
            case "far":
                out.append((change.side, near + down * (25 + 7 * change.at), change.qty))
            case "remove" if prices:
                out.append((change.side, prices[min(change.at, len(prices) - 1)], 0))
            case "repeat" if prices:
                price = prices[min(change.at, len(prices) - 1)]
                out.append((change.side, price, own[price]))
            case "sweep" if prices:
                # Somebody takes the best levels, and stands there himself afterwards.
                gone = prices[: min(1 + change.at, len(prices) - 1)]
                out += [(change.side, price, 0) for price in gone]
                out += [(against, price, change.qty) for price in gone[-2:]]
            case "clear":
                out += [(change.side, price, 0) for price in prices]
            case _:
                pass
        for side, price, qty in out:
            book = self.bids if side == "b" else self.asks
            if qty:
                book[price] = qty
            else:
                book.pop(price, None)
        return out

    def tell(self, told: Told) -> Message:
        before = self.messages[-1]
        futures = self.product.futures
        previous = self.id
        self.id += told.hole if futures else 0
        before.moments[-1].hole = self.id - previous
        first = self.id + 1
        moments: list[Moment] = []
        changes: dict[str, dict[int, int]] = {"b": {}, "a": {}}
        undone = (dict(self.bids), dict(self.asks))
        for change in told.changes:
            for side, price, qty in self.change(change):
                changes[side][price] = qty
                undone_side = undone[0] if side == "b" else undone[1]
                if qty:
                    undone_side[price] = qty
                else:
                    undone_side.pop(price, None)
                self.id += 1
                now = Book(sorted(undone[0].items(), reverse=True), sorted(undone[1].items()))
                moments.append(Moment(self.id, now))
        if not moments:  # A message need not change anything.
            self.id += 1
            moments.append(Moment(self.id, self.book()))
        self.highest, self.lowest = max(self.highest, self.id), min(self.lowest, first)
        self.stamp_ms += STEP_NS // 1_000_000
        data: dict[str, Any] = {"e": "depthUpdate", "E": self.stamp_ms + told.ahead_ms}
        data |= {"s": self.product.symbol, "U": first, "u": self.id}
        if futures:
            data |= {"T": data["E"], "pu": previous}
        data |= {side: [texts(level) for level in changes[side].items()] for side in "ba"}
        message = Message(len(self.messages), (first, self.id, previous), data, moments, self.numbering)
        self.messages.append(message)
        return message

    def renumber(self, to: str) -> None:
        """The venue counts anew and does not say so."""
        self.numbering += 1
        match to:
            case "up":
                self.id = self.highest + 10_000
            case "down":
                self.id = self.lowest - 10_000
            case _:
                self.id -= 5
                self.stamp_ms -= 5 * STEP_NS // 1_000_000 if to == "restored" else 0

    def snapshot(self, told: Snapshot) -> tuple[Moment, dict[str, Any]]:
        message = self.messages[max(0, len(self.messages) - 1 - told.age)]
        moment = message.moments[max(0, len(message.moments) - 1 - told.inside)]
        into = min(told.beyond, moment.hole) if moment is message.moments[-1] else 0
        if message is self.messages[-1] and self.product.futures:
            into = 0  # What the next message will be named nobody knows yet.
        bids, asks = (side[: told.limit] for side in moment.book)
        body: dict[str, Any] = {"lastUpdateId": moment.id + into}
        body |= {"bids": [texts(level) for level in bids], "asks": [texts(level) for level in asks]}
        return moment, body


def texts(level: tuple[int, int]) -> list[str]:
    return [f"{level[0] // 10}.{level[0] % 10}", str(level[1])]


def dumps(message: Any) -> str:
    return json.dumps(message, separators=(",", ":"))


def spoil(body: dict[str, Any], how: str) -> dict[str, Any] | None:
    """A body that is no book; None where this one cannot be made so."""
    bids, asks = body["bids"], body["asks"]
    if min(len(bids), len(asks)) < 2:
        return None
    match how:
        case "empty":
            return body | {"bids": [], "asks": []}
        case "no bids":
            return body | {"bids": []}
        case "no asks":
            return body | {"asks": []}
        case "crossed":
            return body | {"bids": [[asks[0][0], "1"], *bids]}
        case "exchanged":
            return body | {"bids": asks, "asks": bids}
        case "unsorted":
            return body | {"bids": [*bids[:-2], bids[-1], bids[-2]]}
        case "twice":
            return body | {"asks": [asks[0], *asks]}
    return None


# ---- from a script to a capture and its truth ----


@dataclass
class Line:
    at: float  # Place in the order of arrival.
    text: str
    message: Message | None = None
    steps: int = 0  # Of our clock before it, in nanoseconds.
    opens: int | None = None  # A connection: the number of the venue's last message before it.
    ts: int = 0


@dataclass
class Played:
    text: str
    lines: list[Line]
    newest: dict[int, Message] = field(default_factory=dict)
    """By the receive time of a line: the newest message that had come."""
    fresh: dict[int, int] = field(default_factory=dict)
    """By the receive time of a line: when the newest line was received that said anything of the book."""
    due: list[int] = field(default_factory=list)
    """Receive times of the honest end at which there must be a row, if each event gives one."""
    before: dict[int, Message] = field(default_factory=dict)
    """By number of a message: the one before."""


class _Player:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.product = PRODUCTS[script.product]
        self.venue = Venue(self.product)
        self.lines: list[Line] = []
        self.place = 0
        self.lag = 0
        self.last_place = -1.0
        self.calm = 0  # Messages until something may go wrong again …
        self.quiet = 0  # … and since something did.
        self.snapshots_until = 0  # Place at which the last snapshot comes.
        self.near_from = 0  # First message of a numbering that repeats the ids of the one before.
        self.step_ns = 0
        self.one_sided = False
        self.trades = 0
        self.missed = 0

    def play(self) -> Played:
        for op in self.script.ops:
            self.do(op)
        self.lines.sort(key=lambda line: line.at)  # Stable.
        honest_from = len(self.lines)
        base: Message | None = None
        snapshot: Snapshot | None = None
        told: list[Message] = []
        if self.script.then is not None:
            snapshot, events = self.script.then
            self.place = int(self.lines[-1].at) + 10 if self.lines else 10
            self.lag, self.last_place = 0, -1.0
            if self.missed:
                self.missed = 0
                self.open()
            for _ in range(4):
                self.do(Told((Change("remove", "b", 3),)))
            self.venue.tell(Told((Change("set", "b", 9, 5),)))  # Lost.
            for i in range(4):
                self.do(Told((Change("set", "a", 9, 6 + i),)))
            self.do(snapshot)
            base = self.venue.messages[-1]
            for event in events:
                told.append(self.do(event) or base)
        return self.arrange(honest_from, snapshot, base, told)

    def put(self, at: float, text: str, **more: Any) -> None:
        self.lines.append(Line(at, text, steps=self.step_ns, **more))
        self.step_ns = 0

    def stream_place(self) -> float:
        self.last_place = max(self.last_place, self.place + self.lag + 0.5)
        return self.last_place

    def message_text(self, data: dict[str, Any], stream: str) -> str:
        if not self.script.named:
            return dumps(data)
        return dumps({"stream": f"{self.product.symbol.lower()}@{stream}", "data": data})

    def open(self) -> None:
        self.put(
            self.stream_place(), dumps({"tickwire": "open", "conn": 0}), opens=self.venue.messages[-1].number
        )

    def do(self, op: Op) -> Message | None:
        self.place += 1
        match op:
            case Told():
                return self.tell(op)
            case Trade():
                self.trades += 1
                if self.missed:
                    return None
                data: dict[str, Any] = {"e": "trade", "E": self.venue.stamp_ms, "s": self.product.symbol}
                data |= {"t": self.trades, "p": "1000.0", "q": "1", "T": self.venue.stamp_ms, "m": False}
                data |= {"X": "MARKET"} if self.product.futures else {"M": True}
                self.put(self.stream_place(), self.message_text(data, "trade"))
            case Snapshot():
                self.snapshot(op)
            case Renumber():
                self.renumber(op.to)
            case Lag():
                self.lag = 0 if self.calm else op.messages
            case Clock():
                self.venue.stamp_ms += op.ms
            case Receive():
                self.step_ns += op.ns
            case Reconnect():
                if not self.missed and not self.calm:
                    self.put(self.stream_place(), dumps({"tickwire": "close", "conn": 0}))
                    self.missed = 1 + op.missed
        return None

    def renumber(self, to: Literal["up", "down", "near", "restored"]) -> None:
        """Of ids that come a second time nobody can tell which of the two they are. So where the venue goes
        back a bit, nothing is lost and no old snapshot comes until it has been there, and no message is the
        same."""
        if self.calm:
            return
        if to in ("near", "restored"):
            if self.quiet < 4 or self.missed or self.lag or self.place <= self.snapshots_until:
                return
            self.calm = 4
            self.near_from = len(self.venue.messages)
        self.venue.renumber(to)

    def tell(self, told: Told) -> Message:
        if self.calm:
            told = replace(told, changes=(Change("set", "b", 5, 1000 + self.place), *told.changes[1:]))
        message = self.venue.tell(told)
        self.quiet = self.quiet + 1 if told.fate == "comes" and not self.missed else 0
        if self.missed:
            self.missed -= 1
            if not self.missed:
                self.open()
            return message
        fate = "comes" if self.calm else told.fate
        self.calm -= 1 if self.calm else 0
        text = self.message_text(message.data, "depth@100ms")
        match fate:
            case "comes":
                self.put(self.stream_place(), text, message=message)
            case "late":
                self.put(self.stream_place() + 1.25, text, message=message)
            case "cut":
                self.put(self.stream_place(), text[: len(text) * 2 // 3])
        if told.again and fate in ("comes", "late"):
            self.put(self.stream_place() + told.again + 1.3, text, message=message)
        return message

    def snapshot(self, told: Snapshot) -> None:
        if self.calm:
            return
        newest = self.venue.messages[-1].number
        _, body = self.venue.snapshot(replace(told, age=min(told.age, newest - self.near_from)))
        self.snapshots_until = max(self.snapshots_until, self.place + told.delay + 1)
        if told.told == "limit":
            note = {"tickwire": "snapshot", "conn": 0, "instrument": self.product.symbol, "limit": told.limit}
        else:
            note = {"tickwire": "snapshot", "conn": 0, "instrument": self.product.symbol}
        spoilt = spoil(body, told.spoilt)
        # Whoever says so twice is believed, and must not be lying.
        if told.spoilt in ("no bids", "no asks") and self.one_sided:
            spoilt = None
        if spoilt is not None:
            body = spoilt
        elif told.spoilt == "long" and told.told == "limit":
            note["limit"] = limit = max(len(body["bids"]), len(body["asks"])) - 1
            if limit < 1:
                return
        self.one_sided = self.one_sided or (not body["bids"]) != (not body["asks"])
        text = dumps(body) if told.told == "bare" else dumps(note | {"body": body})
        if told.spoilt == "cut":
            text = text[: len(text) // 2]
        self.put(self.place + told.delay + 0.75, text)

    def arrange(
        self, honest_from: int, snapshot: Snapshot | None, base: Message | None, told: list[Message]
    ) -> Played:
        self.lines[honest_from:] = sorted(self.lines[honest_from:], key=lambda line: line.at)
        played = Played("", self.lines)
        played.before = {
            m.number: b for b, m in zip(self.venue.messages, self.venue.messages[1:], strict=False)
        }
        now, used, said = START_NS, set[int](), 0
        newest = self.venue.messages[0]
        before = 0  # This connection.
        kept: list[Line] = []
        by_number: dict[int, int] = {}
        for line in self.lines:
            if line.opens is not None:
                before = line.opens
            if line.message is not None and line.message.number <= before:
                continue  # No connection brings what was on another one.
            now += STEP_NS + line.steps
            while now in used:
                now += 1
            used.add(now)
            line.ts = now
            # What came before says nothing.
            if '"bids"' in line.text or (line.message is not None and line.message.number not in by_number):
                said = max(said, now)
            if line.message is not None:
                by_number.setdefault(line.message.number, now)
                if line.message.number > newest.number:
                    newest = line.message
            played.newest[now], played.fresh[now] = newest, said
            kept.append(line)
        played.lines = kept
        played.text = "".join(f"{line.ts} {line.text}\n" for line in kept)
        if snapshot is not None and base is not None:
            played.due = self.due(snapshot, base, told, by_number)
        return played

    def due(
        self, snapshot: Snapshot, base: Message, told: list[Message], by_number: dict[int, int]
    ) -> list[int]:
        """The events behind the honest snapshot that change the book, where the levels that a row looks at
        are among those that it showed, or stand before them, before the event and after it."""
        moment = base.moments[max(0, len(base.moments) - 1 - snapshot.inside)]
        ends = [None if len(side) < snapshot.limit else side[snapshot.limit - 1][0] for side in moment.book]

        def seen(book: Book) -> Book:
            """The part of it that the snapshot's levels reach to."""
            return Book(
                [level for level in book.bids if ends[0] is None or level[0] >= ends[0]],
                [level for level in book.asks if ends[1] is None or level[0] <= ends[1]],
            )

        def known(book: Book) -> bool:
            return all(
                end is None or len(side) >= self.script.levels
                for end, side in zip(ends, seen(book), strict=True)
            )

        due = []
        # The event that bridges the snapshot is no event of the epoch.
        bridge = base if moment is not base.moments[-1] else told[0]
        for message in told:
            before = self.venue.messages[message.number - 1]
            reached = message.number > bridge.number and known(before.book) and known(message.book)
            if reached and seen(before.book) != seen(message.book):
                due.append(by_number[message.number])
        return due


def play(script: Script) -> Played:
    return _Player(script).play()


# ---- what a row may say ----


def imbalance(book: Book, levels: int) -> float:
    bids, asks = (sum(qty for _, qty in side[:levels]) for side in book)
    return (bids - asks) / (bids + asks) if bids + asks else math.nan


def spread(book: Book) -> float:
    if not book.bids or not book.asks:
        return math.nan
    bid, ask = book.bids[0][0], book.asks[0][0]
    return 1e4 * (ask - bid) / ((ask + bid) / 2)


def microprice_offset(book: Book) -> float:
    if not book.bids or not book.asks:
        return math.nan
    (bid, bid_qty), (ask, ask_qty) = book.bids[0], book.asks[0]
    mid = (bid + ask) / 2
    return 1e4 * ((bid * ask_qty + ask * bid_qty) / (bid_qty + ask_qty) - mid) / mid


def order_flow(before: Book, after: Book, levels: int) -> float:
    """Of one event. A level that is not there is a quantity of nothing at the worst price."""
    flow = 0

    def level(side: Levels, i: int, worst: float) -> tuple[float, int]:
        return side[i] if i < len(side) else (worst, 0)

    for i in range(levels):
        (b, bq), (b0, bq0) = level(after.bids, i, -math.inf), level(before.bids, i, -math.inf)
        (a, aq), (a0, aq0) = level(after.asks, i, math.inf), level(before.asks, i, math.inf)
        flow += (b >= b0) * bq - (b <= b0) * bq0 - (a <= a0) * aq + (a >= a0) * aq0
    return float(flow)


def columns(levels: int) -> list[str]:
    return [
        f"imbalance(levels={levels})",
        "spread()",
        "microprice_offset()",
        f"ofi(levels={levels}, window=1)",
    ]


def truth(before: Book, book: Book, levels: int) -> list[float]:
    """What `columns` are."""
    return [
        imbalance(book, levels),
        spread(book),
        microprice_offset(book),
        order_flow(before, book, levels),
    ]


# ---- scripts by chance ----

_SIDES: tuple[Literal["b", "a"], ...] = ("b", "a")
_CHANGES: tuple[Literal["set", "remove", "sweep", "far", "repeat", "clear"], ...] = (
    *("set",) * 8,
    *("remove",) * 5,
    *("sweep",) * 3,
    *("far",) * 2,
    "repeat",
)


def some(choose: Choose, values: Sequence[Any]) -> Any:
    return values[choose(len(values))]


def make_change(choose: Choose) -> Change:
    kind: Kind = "clear" if choose(100) == 99 else some(choose, _CHANGES)
    return Change(kind, some(choose, _SIDES), choose(12), choose(9) + 1)


def make_told(choose: Choose, bad: int = 0) -> Told:
    """`bad`: how many of a hundred such messages meet with something."""
    changes = tuple(make_change(choose) for _ in range(choose(4)))
    told = Told(changes, hole=some(choose, (0, 0, 0, 1, 4)))
    if not bad or choose(100) < 100 - bad:
        return told
    match choose(5):
        case 0:
            return replace(told, ahead_ms=some(choose, (-1, -3_000, 5_000, 10**9, 2_400_000_000_000)))
        case 1:
            return replace(told, again=some(choose, (1, 3, 9)))
        case kind:
            fates: tuple[Literal["late", "lost", "cut"], ...] = ("late", "lost", "cut")
            return replace(told, fate=fates[kind - 2])


_LIMITS = (1000, 1, 2, 3, 5, 8, 12, 20, 30)
_SPOILT = ("empty", "no bids", "no asks", "crossed", "exchanged", "unsorted", "twice", "long", "cut")


def make_snapshot(choose: Choose, bad: int = 0) -> Snapshot:
    honest = Snapshot(
        some(choose, _LIMITS),
        some(choose, ("limit", "limit", "nothing", "bare")),
        some(choose, (0, 0, 0, 1, 2, 5, 12)),
        some(choose, (0, 0, 1, 2)),
        some(choose, (0, 0, 0, 1, 3, 8)),
        "",
        some(choose, (0, 0, 1, 3)),
    )
    if not bad or choose(100) < 100 - 2 * bad:
        return honest
    return replace(honest, spoilt=some(choose, _SPOILT))


def make_op(choose: Choose, bad: int) -> Op:
    """`bad`: how bad the weather is, from 0 to 50."""
    kind = choose(64)
    if kind < 46:
        return make_told(choose, bad)
    if kind < 54:
        return Trade()
    if kind < 60 or not bad or choose(100) < 100 - 2 * bad:
        return make_snapshot(choose, bad)
    match choose(5):
        case 0:
            return Renumber(some(choose, ("down", "up", "near", "restored")))
        case 1:
            return Lag(some(choose, (0, 1, 4, 10)))
        case 2:
            return Clock(some(choose, (1, -500, 60_000, -3_600_000, 10**9)))
        case 3:
            return Receive(some(choose, (1, 700_000_000, -150_000_000, 20_000_000_000, -3_600_000_000_000)))
        case _:
            return Reconnect(choose(4))


WEATHERS = (0, 2, 5, 15, 40)


def make_script(choose: Choose, ops: Iterable[Op]) -> Script:
    return Script(
        product=some(choose, tuple(PRODUCTS)),
        levels=some(choose, (1, 2, 3, 5, 8)),
        ops=(Told(), replace(make_snapshot(choose), age=0, delay=0), *ops),
        named=some(choose, (False, True)),
        then=(
            Snapshot(some(choose, _LIMITS), "limit", 0, some(choose, (0, 0, 1))),
            tuple(make_told(choose) for _ in range(1 + choose(12))),
        ),
    )
