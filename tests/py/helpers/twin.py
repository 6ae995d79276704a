"""The slow, obvious twin of replay: captures to feature rows with json, dicts and NumPy.

It shares no code with the engine, neither C++ nor Python, and is written from the definitions: what a
row should be, computed for each row from the whole history. Where the definitions leave a choice, this
is the one taken, here and in the engine:

- An epoch's base state is the book right after the event that bridges its snapshot, or after the last of
  those that were buffered. Order flow, returns and the trigger `top` compare with it, `mid_return` can go
  back to it, and it is no sample: none of these events gives a row.
- The window clock is the running maximum of the stamps of the instrument's depth and trade messages and
  of its snapshots, over the whole capture, not only while the book is valid.
- `every`: the event is the first at or past a boundary of the period (UTC, on the window clock) since
  the epoch's start or the last such event; an event before the row is warm uses its boundary up.
- `book`: an event that only repeats what the book already says, such as the removal of a level that is
  not there, changes nothing and emits no row. It is a sample all the same.
- `sequence` is the venue's id of the last event applied to the book, for a row on a trade too.
- Prices and quantities are integers in units of 1e-8, and a ratio of them is rounded once, so that what is
  equal in exact arithmetic is equal.

`replay(...)` takes a minute at most for the longest recording with a dozen features.
"""

from __future__ import annotations

import ast
import gzip
import json
import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SCALE = 10**8
NO_TIME = None


# ---- captures ----


def read_lines(paths: Sequence[str | Path]) -> Iterator[tuple[int, dict[str, Any]]]:
    for path in map(Path, paths):
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt") as file:
            for line in file:
                stamp, _, text = line.partition(" ")
                yield int(stamp), json.loads(text)


@lru_cache(maxsize=1 << 17)
def exact(token: str) -> int:
    scaled = Decimal(token) * SCALE
    assert scaled == int(scaled), f"more than eight decimals: {token}"
    return int(scaled)


# ---- the book and its synchronisation ----


@dataclass
class Book:
    """Quantity by price, and the prices in order."""

    bids: dict[int, int] = field(default_factory=dict)
    asks: dict[int, int] = field(default_factory=dict)
    bid_prices: list[int] = field(default_factory=list)
    ask_prices: list[int] = field(default_factory=list)
    bid_horizon: int | None = None  # The deepest price that a snapshot showed; None where it showed all.
    ask_horizon: int | None = None

    def load(self, bids: list[list[str]], asks: list[list[str]], limit: int | None) -> None:
        """A snapshot of `limit` levels a side. A side with fewer is shown whole; where nobody knows how many
        were asked for, only the shorter one is."""
        self.set(bids, asks)
        if len(bids) >= (limit or len(asks)):
            self.bid_horizon = exact(bids[-1][0])
        if len(asks) >= (limit or len(bids)):
            self.ask_horizon = exact(asks[-1][0])

    def knows(self, levels: int) -> bool:
        """Are the best so many levels of both sides within their horizons?"""
        bids = (
            self.bid_horizon is None
            or sum(p >= self.bid_horizon for p in self.bid_prices[-levels:]) >= levels
        )
        asks = (
            self.ask_horizon is None or sum(p <= self.ask_horizon for p in self.ask_prices[:levels]) >= levels
        )
        return levels == 0 or (bids and asks)

    def set(self, bids: list[list[str]], asks: list[list[str]]) -> bool:
        """True where anything is not as it was."""
        changed = False
        for side, prices, changes in ((self.bids, self.bid_prices, bids), (self.asks, self.ask_prices, asks)):
            for price_token, qty_token in changes:
                price, qty = exact(price_token), exact(qty_token)
                if qty == 0:
                    if side.pop(price, None) is not None:
                        del prices[bisect_left(prices, price)]
                        changed = True
                else:
                    if price not in side:
                        insort(prices, price)
                    changed = changed or side.get(price) != qty
                    side[price] = qty
        return changed

    def top(self, levels: int) -> tuple[tuple[int, int], ...]:
        """`levels` bids and then `levels` asks, best first; a level that is not there is (-1, 0)."""
        bids = [(price, self.bids[price]) for price in reversed(self.bid_prices[-levels:])]
        asks = [(price, self.asks[price]) for price in self.ask_prices[:levels]]
        missing = (-1, 0)
        return (
            *bids,
            *[missing] * (levels - len(bids)),
            *asks,
            *[missing] * (levels - len(asks)),
        )

    def crossed(self) -> bool:
        return bool(self.bid_prices and self.ask_prices and self.bid_prices[-1] >= self.ask_prices[0])


@dataclass
class Point:
    """Something that may emit a row: a book event or a trade, within an epoch."""

    is_book: bool
    changed: bool  # A book event after which the book is another.
    clock: int
    ts_event: int | None
    ts_recv: int
    sequence: int
    books: int  # Book events of the epoch so far, this one included.
    trades: int  # Likewise.
    traded: bool = False  # A book event that is a trade as well: an execution of a feed by order.


@dataclass
class Epoch:
    """All that happened from becoming valid to the next loss: what the features are computed from."""

    number: int
    start: int  # The window clock at the first valid moment.
    levels: int
    states: list[tuple[tuple[int, int], ...]]  # Entry 0 is the base state.
    state_clocks: list[int]
    trades: list[tuple[int, int, int, int]] = field(default_factory=list)  # clock, price, qty, sign
    points: list[Point] = field(default_factory=list)
    arrivals: list[int] = field(
        default_factory=list
    )  # Of a feed by order: the clock of each order that came …
    qty_scale: int = SCALE  # Integers that a quantity of one is.
    cancels: list[int] = field(default_factory=list)  # … and of each that went without being executed.


class Synchronizer:
    """One instrument by the venue's document: buffer, snapshot, bridge, apply, gap.

    What is buffered is one unbroken chain, begun anew where a link is missing. An old id, of a message that
    did not come a moment ago, puts the book in doubt until the next event that continues it; three such that
    follow each other are another count of ids.
    """

    def __init__(self, futures: bool, reach: int = 0) -> None:
        self.futures = futures
        self.reach = reach  # Levels a side that must be known.
        self.seen: list[tuple[Any, ...]] = []
        self.lose()

    def lose(self, first: dict[str, Any] | None = None) -> None:
        """The book is not known any more; `first` begins the new buffer."""
        self.valid = False
        self.followed = False  # Not valid, but every event is in the book.
        self.strays: list[dict[str, Any]] = []
        self.late: list[dict[str, Any]] = []  # Old ids while there is no book.
        self.changed = False  # Did the last event that was applied change the book?
        self.book = Book()
        self.last_id = 0
        self.held = False  # The book is a snapshot that waits for its bridge.
        self.buffer: list[dict[str, Any]] = [first] if first else []

    def disconnect(self) -> None:
        self.lose()
        self.seen = []

    def _in_snapshot(self, diff: dict[str, Any], last_id: int) -> bool:
        return bool(diff["u"] < last_id if self.futures else diff["u"] <= last_id)

    def _bridges(self, diff: dict[str, Any], last_id: int) -> bool:
        if self.futures:
            return bool(diff["U"] <= last_id <= diff["u"] or diff["pu"] == last_id)
        return bool(diff["U"] <= last_id + 1 <= diff["u"])

    def _follows(self, diff: dict[str, Any], last_id: int) -> bool:
        return bool(diff["pu"] == last_id if self.futures else diff["U"] == last_id + 1)

    def _apply(self, diff: dict[str, Any]) -> bool:
        """False where the book is crossed by it and lost."""
        self.changed = self.book.set(diff["b"], diff["a"])
        self.last_id = diff["u"]
        if self.book.crossed():
            self.lose(diff)
            return False
        return True

    def _usable(self) -> bool:
        """The book is whole. True where that makes it valid."""
        self.valid = self.book.knows(self.reach)
        self.followed = not self.valid
        return self.valid

    @staticmethod
    def _is_book(bids: list[list[str]], asks: list[list[str]]) -> bool:
        """Sorted, without a price twice, not crossed. No snapshot of ours lacks a side."""
        bid_prices, ask_prices = [exact(p) for p, _ in bids], [exact(p) for p, _ in asks]
        return bool(
            bids
            and asks
            and bid_prices == sorted(set(bid_prices), reverse=True)
            and ask_prices == sorted(set(ask_prices))
            and bid_prices[0] < ask_prices[0]
        )

    def on_snapshot(self, body: dict[str, Any], limit: int | None = None) -> bool:
        """True where the book is valid from here on."""
        last_id = body["lastUpdateId"]
        if self.valid or self.followed:
            return False
        if self.held and last_id <= self.last_id and (last_id == self.last_id or not self.buffer):
            return False
        if not self._is_book(body["bids"], body["asks"]):
            return False
        rest = [diff for diff in self.buffer if not self._in_snapshot(diff, last_id)]
        if rest and not self._bridges(rest[0], last_id):
            return False  # It fits none of the buffered events: another one is needed.
        book = Book()
        book.load(body["bids"], body["asks"], limit)
        for diff in rest:
            book.set(diff["b"], diff["a"])
        if book.crossed():
            return False
        self.book = book
        self.last_id = rest[-1]["u"] if rest else last_id
        self.held = not rest
        if not rest:
            return False
        self.buffer = []
        return self._usable()

    def on_diff(self, diff: dict[str, Any]) -> tuple[bool, bool]:
        """Was the event applied to a valid book, and did it make the book valid?"""
        name = (diff["U"], diff["u"], diff.get("pu"), diff.get("E"), str(diff["b"]), str(diff["a"]))
        if name in self.seen[-512:]:
            return False, False
        self.seen.append(name)
        if self.valid or self.followed:
            passed = diff["u"] <= self.last_id or (not self.futures and diff["U"] <= self.last_id)
            if passed or (self.strays and self._follows(diff, self.strays[-1]["u"])):
                self._doubt(diff)
                return False, False
            if not self._follows(diff, self.last_id):
                self.lose(diff)
                return False, False
            self.strays = []
            was_valid = self.valid
            if not self._apply(diff):
                return False, False
            became = self._usable() and not was_valid
            return was_valid and self.valid, became
        if self.held and not self._in_snapshot(diff, self.last_id):
            if self._bridges(diff, self.last_id):
                self.held = False
                self.buffer = []
                return False, self._apply(diff) and self._usable()
            self.lose(diff)
            return False, False
        if self.buffer:
            last = self.buffer[-1]["u"]
            if diff["u"] <= last:
                follows = self.late and self._follows(diff, self.late[-1]["u"])
                self.late = [*self.late, diff] if follows else [diff]
                if len(self.late) < 3:
                    return False, False
            if diff["u"] <= last or not self._follows(diff, last):
                self.buffer, self.late = [], []
        self.buffer.append(diff)
        return False, False

    def _doubt(self, diff: dict[str, Any]) -> None:
        self.valid, self.followed = False, True
        last = self.strays[-1]["u"] if self.strays else None
        if last is None or diff["u"] <= last or not self._follows(diff, last):
            self.strays = []
        self.strays.append(diff)
        if len(self.strays) == 3:
            strays = self.strays
            self.lose()
            self.buffer = strays


def epochs_of(
    paths: Sequence[str | Path],
    *,
    venue: str,
    symbol: str,
    levels: int,
    reach: int,
    clock: str,
    trades: str,
) -> Iterator[Epoch]:
    """Plays the capture; an epoch is yielded when it is over."""
    sync = Synchronizer(futures=venue != "binance_spot", reach=reach)
    epoch: Epoch | None = None
    number = 0
    now: int | None = None

    def advance(ts_recv: int, data: dict[str, Any]) -> int | None:
        nonlocal now
        ts_event = data["E"] * (1000 if data["E"] > 10**14 else 1_000_000) if "E" in data else None
        stamp = ts_recv if clock == "recv" else ts_event
        if stamp is not None and (now is None or stamp > now):
            now = stamp
        return ts_event

    def begin() -> Epoch:
        nonlocal number
        number += 1
        assert now is not None
        return Epoch(number, now, levels, [sync.book.top(levels)], [now])

    for ts_recv, message in read_lines(paths):
        limit = None
        if "tickwire" in message:
            if message["tickwire"] == "snapshot":
                if message["instrument"] != symbol:
                    continue
                limit = message.get("limit")
                message = message["body"]
            else:  # open, close: what the book was is lost either way.
                sync.disconnect()
                if epoch is not None:
                    yield epoch
                    epoch = None
                continue
        if "lastUpdateId" in message:
            advance(ts_recv, message)
            if sync.on_snapshot(message, limit):
                epoch = begin()
            continue
        data = message.get("data", message)
        if data.get("s") != symbol:
            continue
        kind = data.get("e")
        if kind == "depthUpdate":
            ts_event = advance(ts_recv, data)
            assert now is not None
            applied, became_valid = sync.on_diff(data)
            if not sync.valid and epoch is not None:
                yield epoch
                epoch = None
            if became_valid:
                epoch = begin()
            if not applied:
                continue
            assert epoch is not None
            epoch.states.append(sync.book.top(levels))
            epoch.state_clocks.append(now)
            count = (len(epoch.states) - 1, len(epoch.trades))
            epoch.points.append(Point(True, sync.changed, now, ts_event, ts_recv, sync.last_id, *count))
        elif kind == trades:
            ts_event = advance(ts_recv, data)
            assert now is not None
            price, qty = exact(data["p"]), exact(data["q"])
            if epoch is None or data.get("X", "MARKET") != "MARKET" or qty == 0:
                continue
            epoch.trades.append((now, price, qty, -1 if data["m"] else 1))
            count = (len(epoch.states) - 1, len(epoch.trades))
            epoch.points.append(Point(False, False, now, ts_event, ts_recv, sync.last_id, *count))
    if epoch is not None:
        yield epoch


# ---- expressions ----

_UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PARAMETERS = {
    "imbalance": ("levels",),
    "spread": (),
    "microprice_offset": (),
    "mid_return": ("window",),
    "ofi": ("levels", "window"),
    "trade_flow": ("window",),
    "trade_count": ("window",),
    "vwap_offset": ("window",),
    "realized_vol": ("window",),
    "queue_imbalance": (),
    "order_arrival_rate": ("window",),
    "cancel_rate": ("window",),
    "mean": ("x", "window"),
    "std": ("x", "window"),
    "min": ("x", "window"),
    "max": ("x", "window"),
    "zscore": ("x", "window"),
    "ema": ("x", "halflife"),
    "diff": ("x", "lag"),
}


@dataclass(frozen=True)
class Call:
    kernel: str
    x: Call | None = None
    levels: int = 1
    window: int = 0  # Nanoseconds, where count is 0.
    count: int = 0
    halflife: int = 0
    lag: int = 0


def duration(text: str) -> int:
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    value = Decimal(digits) * _UNITS[text[len(digits) :]]
    assert value == int(value)
    return int(value)


def parse(text: str) -> Call:
    return _call(ast.parse(text, mode="eval").body)


def _call(node: ast.expr) -> Call:
    assert isinstance(node, ast.Call)
    assert isinstance(node.func, ast.Name)
    kernel = node.func.id
    given: dict[str, ast.expr] = dict(zip(_PARAMETERS[kernel], node.args, strict=False))
    given.update({keyword.arg: keyword.value for keyword in node.keywords if keyword.arg})
    fields: dict[str, Any] = {}
    for name, value in given.items():
        assert name in _PARAMETERS[kernel], f"{kernel} has no parameter {name}"
        if name == "x":
            fields["x"] = _call(value)
            continue
        assert isinstance(value, ast.Constant)
        if name == "window" and isinstance(value.value, int):
            fields["count"] = value.value
        elif name in ("window", "halflife"):
            fields[name] = duration(str(value.value))
        else:
            fields[name] = value.value
    return Call(kernel, **fields)


def levels_of(call: Call) -> int:
    return max(call.levels, levels_of(call.x) if call.x else 1)


def reach_of(call: Call) -> int:
    """Levels a side that the value depends on; none where it is of trades or orders alone."""
    without = ("trade_flow", "trade_count", "order_arrival_rate", "cancel_rate")
    if call.x:
        return reach_of(call.x)
    return 0 if call.kernel in without else call.levels


# ---- features ----


@dataclass
class At:
    """Moments at which something is evaluated: the window clock, and how much has happened by then."""

    clock: Ints
    books: Ints
    trades: Ints


class Features:
    """Every expression over one epoch, from its whole history."""

    def __init__(self, epoch: Epoch) -> None:
        self.epoch = epoch
        states = np.array(epoch.states, dtype=np.int64).reshape(len(epoch.states), 2 * epoch.levels, 2)
        self.bid_price, self.bid_qty = states[:, : epoch.levels, 0], states[:, : epoch.levels, 1]
        self.ask_price, self.ask_qty = states[:, epoch.levels :, 0], states[:, epoch.levels :, 1]
        self.state_clock = np.array(epoch.state_clocks, dtype=np.int64)
        trades = np.array(epoch.trades, dtype=np.int64).reshape(len(epoch.trades), 4)
        self.trade_clock, self.trade_price, self.trade_qty, self.trade_sign = trades.T
        empty = (self.bid_price[:, 0] < 0) | (self.ask_price[:, 0] < 0)
        self.bid = np.where(empty, np.nan, self.bid_price[:, 0])
        self.ask = np.where(empty, np.nan, self.ask_price[:, 0])
        self.mid = (self.bid + self.ask) / 2
        with np.errstate(invalid="ignore"):
            # Up and down by the same is the same.
            size = np.log(np.fmax(self.mid[1:], self.mid[:-1]) / np.fmin(self.mid[1:], self.mid[:-1]))
            change = np.copysign(size, self.mid[1:] - self.mid[:-1])
            self.log_change = np.concatenate(([np.nan], np.where(np.isnan(self.mid[1:]), np.nan, change)))
        book_points = [point for point in epoch.points if point.is_book]
        # At entry i: book event i + 1, for it is at book events that wrapped expressions are sampled.
        self.at_books = At(
            self.state_clock[1:],
            np.arange(1, len(self.state_clock), dtype=np.int64),
            np.array([point.trades for point in book_points], dtype=np.int64),
        )
        self._samples: dict[Call, tuple[int, Floats]] = {}

    # The time from which an expression counts; None where it never does in this epoch. An expression
    # whose warm-up is a count of events is warm from such an event on, which `first` tells exactly.

    def warm_clock(self, call: Call) -> int | None:
        if call.kernel in ("imbalance", "spread", "microprice_offset", "queue_imbalance"):
            return self.epoch.start
        if call.kernel == "diff":
            return self._sample_clock(call, call.lag + 1)
        if call.count and call.x:
            return self._sample_clock(call, call.count)
        if call.count:
            clocks = self.trade_clock if _of_trades(call) else self.state_clock[1:]
            return int(clocks[call.count - 1]) if len(clocks) >= call.count else None
        start = self.warm_clock(call.x) if call.x else self.epoch.start
        return None if start is None else start + (5 * call.halflife if call.kernel == "ema" else call.window)

    def _sample_clock(self, call: Call, count: int) -> int | None:
        assert call.x
        first, values = self.samples(call.x)
        if len(values) - first < count:
            return None
        return int(self.at_books.clock[first + count - 1])

    def warm(self, call: Call, at: At) -> NDArray[np.bool_]:
        clock = self.warm_clock(call)
        if clock is None:
            return np.zeros(len(at.clock), dtype=bool)
        warm: NDArray[np.bool_] = at.clock >= clock
        if call.x:
            first, _ = self.samples(call.x)
            needed = call.lag + 1 if call.kernel == "diff" else max(call.count, 1)
            warm &= at.books - first >= needed
        elif call.count:
            warm &= (at.trades if _of_trades(call) else at.books) >= call.count
        return warm

    def samples(self, call: Call) -> tuple[int, Floats]:
        """The value at each book event, and the index of the first at which it is warm."""
        if call not in self._samples:
            warm = self.warm(call, self.at_books)
            first = int(np.argmax(warm)) if warm.any() else len(warm)
            self._samples[call] = first, self.values(call, self.at_books, warm)
        return self._samples[call]

    def values(self, call: Call, at: At, warm: NDArray[np.bool_]) -> Floats:
        values = np.full(len(at.clock), np.nan)
        where = np.flatnonzero(warm)
        method: Callable[[Call, At], Floats] = getattr(self, call.kernel)
        values[where] = method(call, At(at.clock[where], at.books[where], at.trades[where]))
        return values

    # Of the book as it is.

    def imbalance(self, call: Call, at: At) -> Floats:
        bids, asks = (
            qty[at.books, : call.levels].astype(object).sum(axis=1) for qty in (self.bid_qty, self.ask_qty)
        )
        return ratios(bids - asks, bids + asks)

    def queue_imbalance(self, call: Call, at: At) -> Floats:
        bids, asks = (qty[at.books, 0].astype(object) for qty in (self.bid_qty, self.ask_qty))
        return np.where((bids == 0) | (asks == 0), np.nan, ratios(bids - asks, bids + asks))

    def _best(self, at: At) -> tuple[Any, Any, Any]:
        """Bid, ask and twice the mid as integers, the last 0 where a side is empty."""
        bid, ask = (price[at.books, 0].astype(object) for price in (self.bid_price, self.ask_price))
        return bid, ask, np.where(np.isnan(self.mid[at.books]), 0, bid + ask)

    def spread(self, call: Call, at: At) -> Floats:
        bid, ask, twice_mid = self._best(at)
        return ratios(20_000 * (ask - bid), twice_mid)

    def microprice_offset(self, call: Call, at: At) -> Floats:
        bid, ask, twice_mid = self._best(at)
        bid_qty, ask_qty = (qty[at.books, 0].astype(object) for qty in (self.bid_qty, self.ask_qty))
        # (bid·ask_qty + ask·bid_qty) / (bid_qty + ask_qty) less mid, each times 2·(bid_qty + ask_qty).
        micro = 2 * (bid * ask_qty + ask * bid_qty) - (bid + ask) * (bid_qty + ask_qty)
        return 1e4 * ratios(micro, twice_mid * (bid_qty + ask_qty))

    # Of the book's past.

    def mid_return(self, call: Call, at: At) -> Floats:
        if call.count:
            past = at.books - call.count
        else:
            past = np.searchsorted(self.state_clock, at.clock - call.window, side="right") - 1
            past = np.minimum(past, at.books)
        return np.log(self.mid[at.books] / self.mid[past])

    def flow(self, levels: int) -> list[int]:
        """Of each state against the one before it; entry 0 is none."""
        flows = [0]
        none_bid, none_ask = -1, 1 << 62
        for index in range(1, len(self.state_clock)):
            total = 0
            for level in range(levels):
                bid0, bid1 = (int(p) for p in self.bid_price[index - 1 : index + 1, level])
                ask0, ask1 = (int(p) for p in self.ask_price[index - 1 : index + 1, level])
                bid0, bid1 = (none_bid if price < 0 else price for price in (bid0, bid1))
                ask0, ask1 = (none_ask if price < 0 else price for price in (ask0, ask1))
                if bid1 >= bid0:
                    total += int(self.bid_qty[index, level])
                if bid1 <= bid0:
                    total -= int(self.bid_qty[index - 1, level])
                if ask1 <= ask0:
                    total -= int(self.ask_qty[index, level])
                if ask1 >= ask0:
                    total += int(self.ask_qty[index - 1, level])
            flows.append(total)
        return flows

    def ofi(self, call: Call, at: At) -> Floats:
        flow = self.flow(call.levels)
        first = self._first_entry(call, self.state_clock, at, at.books + 1)
        first = np.maximum(first, 1)  # The base state is no event.
        sums = [sum(flow[i:j]) for i, j in zip(first, at.books + 1, strict=True)]
        return np.array([total / self.epoch.qty_scale for total in sums], dtype=float)

    def realized_vol(self, call: Call, at: At) -> Floats:
        first = np.maximum(self._first_entry(call, self.state_clock, at, at.books + 1), 1)
        squares = self.log_change**2
        ends = zip(first, at.books + 1, strict=True)
        return np.array([math.sqrt(math.fsum(squares[i:j].tolist())) for i, j in ends])

    # Of orders. The moments are at messages, so all orders up to a moment's clock have come by then but those
    # of later messages of the same nanosecond, which no moment of ours lies between.

    def _rate(self, times: list[int], call: Call, at: At) -> Floats:
        clocks = np.array(times, dtype=np.int64)
        until = np.searchsorted(clocks, at.clock, side="right")
        since = np.searchsorted(clocks, at.clock - call.window, side="right")
        return (until - since) * 1e9 / call.window

    def order_arrival_rate(self, call: Call, at: At) -> Floats:
        return self._rate(self.epoch.arrivals, call, at)

    def cancel_rate(self, call: Call, at: At) -> Floats:
        return self._rate(self.epoch.cancels, call, at)

    # Of trades.

    def _trade_window(self, call: Call, at: At) -> Iterator[slice]:
        first = self._first_entry(call, self.trade_clock, at, at.trades)
        for i, j in zip(first, at.trades, strict=True):
            yield slice(int(i), int(j))

    def trade_flow(self, call: Call, at: At) -> Floats:
        values = []
        for window in self._trade_window(call, at):
            qty = self.trade_qty[window]
            total = int(qty.sum())
            values.append(int((qty * self.trade_sign[window]).sum()) / total if total else 0.0)
        return np.array(values, dtype=float)

    def trade_count(self, call: Call, at: At) -> Floats:
        return np.array([w.stop - w.start for w in self._trade_window(call, at)], dtype=float)

    def vwap_offset(self, call: Call, at: At) -> Floats:
        values = []
        price, qty = self.trade_price.astype(object), self.trade_qty.astype(object)
        for window, twice_mid in zip(self._trade_window(call, at), self._best(at)[2], strict=True):
            if twice_mid == 0:
                values.append(math.nan)  # Without trades it is 0 whatever mid is, but a mid must be there.
                continue
            total = int(qty[window].sum())
            above = int((2 * price[window] * qty[window]).sum()) - int(twice_mid) * total
            values.append(1e4 * (above / (int(twice_mid) * total)) if total else 0.0)
        return np.array(values, dtype=float)

    # Of any expression, over its samples.

    def _sample_windows(self, call: Call, at: At) -> Iterator[Floats]:
        assert call.x
        first_warm, values = self.samples(call.x)
        # Never empty: the newest sample still is the value.
        first = np.minimum(self._first_entry(call, self.at_books.clock, at, at.books), at.books - 1)
        first = np.maximum(first, first_warm)
        for i, j in zip(first, at.books, strict=True):
            yield values[i:j]

    def _over_samples(self, call: Call, at: At, reduce: Callable[[Floats], float]) -> Floats:
        return np.array([reduce(window) for window in self._sample_windows(call, at)], dtype=float)

    def mean(self, call: Call, at: At) -> Floats:
        def average(x: Floats) -> float:
            if (x == x[0]).all() or np.isnan(x).any():
                return float(x[0] + x.sum() * 0)
            total = math.fsum(x.tolist())
            rest = math.fsum([*x.tolist(), -total])  # What the sum was rounded by.
            return float((Fraction(total) + Fraction(rest)) / len(x))

        return self._over_samples(call, at, average)

    def std(self, call: Call, at: At) -> Floats:
        return self._over_samples(call, at, lambda x: 0.0 if (x == x[0]).all() else x.std())

    def min(self, call: Call, at: At) -> Floats:
        return self._over_samples(call, at, np.min)

    def max(self, call: Call, at: At) -> Floats:
        return self._over_samples(call, at, np.max)

    def zscore(self, call: Call, at: At) -> Floats:
        def score(x: Floats) -> float:
            return 0.0 if (x == x[0]).all() else float((x[-1] - x.mean()) / x.std())

        return self._over_samples(call, at, score)

    def ema(self, call: Call, at: At) -> Floats:
        assert call.x
        first, values = self.samples(call.x)
        averages = np.full(len(values), np.nan)
        y, before = math.nan, 0
        for index in range(first, len(values)):
            x, clock = float(values[index]), int(self.at_books.clock[index])
            if math.isnan(x):
                continue  # The value is NaN here; the average goes on from where it was.
            if math.isnan(y):
                y = x
            else:
                y += (1.0 - 2.0 ** (-(clock - before) / call.halflife)) * (x - y)
            averages[index], before = y, clock
        return averages[at.books - 1]

    def diff(self, call: Call, at: At) -> Floats:
        assert call.x
        _, values = self.samples(call.x)
        return values[at.books - 1] - values[at.books - 1 - call.lag]

    @staticmethod
    def _first_entry(call: Call, clocks: Ints, at: At, stop: Ints) -> Ints:
        """The first entry of the window that ends before entry `stop`: the last n, or (t - w, t]."""
        if call.count:
            return np.maximum(stop - call.count, 0)
        first = np.searchsorted(clocks, at.clock - call.window, side="right")
        return np.minimum(first, stop).astype(np.int64)


def ratios(numerators: Any, denominators: Any) -> Floats:
    """Of Python's integers, each rounded once; NaN where the denominator is 0."""
    pairs = zip(numerators.tolist(), denominators.tolist(), strict=True)
    return np.array([a / b if b else math.nan for a, b in pairs], dtype=float)


def _of_trades(call: Call) -> bool:
    return call.kernel in ("trade_flow", "trade_count", "vwap_offset")


# ---- rows ----


@dataclass
class Rows:
    """One entry a row. `ts_event` is None where the venue gave no time."""

    instrument: str
    names: list[str]
    ts_event: list[int | None]
    ts_recv: Ints
    epoch: Ints
    row: Ints
    sequence: Ints
    values: Floats  # [rows, features]

    def __len__(self) -> int:
        return len(self.ts_recv)


def triggered(epoch: Epoch, trigger: str, every: int | None) -> list[bool]:
    """Which points of the epoch would emit a row, were they warm."""
    fires = []
    boundary = epoch.start // every if every else 0
    for point in epoch.points:
        if every is not None:
            fires.append(point.clock // every > boundary)
            boundary = point.clock // every
        elif trigger == "book":
            fires.append(point.changed)
        elif trigger == "trade":
            fires.append(point.traded or not point.is_book)
        elif trigger == "top":
            levels = (0, epoch.levels)
            now, before = epoch.states[point.books], epoch.states[point.books - 1]
            changed = any(now[level] != before[level] for level in levels)
            fires.append(point.is_book and changed)
        else:
            raise ValueError(f"trigger: expected book, top or trade, found {trigger!r}")
    return fires


def replay(
    inputs: Sequence[str | Path],
    *,
    venue: str,
    symbol: str,
    rows: Sequence[str],
    trigger: str = "book",
    every: str | None = None,
    clock: str = "recv",
    trades: str = "trade",
) -> Rows:
    """All rows of one instrument of a capture."""
    levels = max(levels_of(parse(text)) for text in rows)
    reach = max(reach_of(parse(text)) for text in rows)
    if trigger == "top" and every is None:
        reach = max(reach, 1)  # It looks at the best price, whatever the features do.
    epochs = epochs_of(
        inputs, venue=venue, symbol=symbol, levels=levels, reach=reach, clock=clock, trades=trades
    )
    return rows_of(epochs, symbol, rows, trigger=trigger, every=every)


def rows_of(
    epochs: Iterable[Epoch],
    symbol: str,
    rows: Sequence[str],
    *,
    trigger: str = "book",
    every: str | None = None,
) -> Rows:
    calls = [parse(text) for text in rows]
    period = duration(every) if every else None
    keys: list[tuple[int | None, int, int, int, int]] = []
    blocks: list[Floats] = []
    for epoch in epochs:
        features = Features(epoch)
        fires = triggered(epoch, trigger, period)
        points = [point for point, fired in zip(epoch.points, fires, strict=True) if fired]
        at = At(
            np.array([point.clock for point in points], dtype=np.int64),
            np.array([point.books for point in points], dtype=np.int64),
            np.array([point.trades for point in points], dtype=np.int64),
        )
        warm = np.ones(len(points), dtype=bool)
        for call in calls:
            warm &= features.warm(call, at)
        values = [features.values(call, at, warm)[warm] for call in calls]
        blocks.append(np.array(values, dtype=float).reshape(len(calls), -1).T)
        leaving = [point for point, is_warm in zip(points, warm, strict=True) if is_warm]
        keys += [(p.ts_event, p.ts_recv, epoch.number, n, p.sequence) for n, p in enumerate(leaving, 1)]
    columns = np.array([key[1:] for key in keys], dtype=np.int64).reshape(len(keys), 4).T
    ts_recv, epochs, numbers, sequence = columns
    return Rows(
        symbol,
        list(rows),
        [key[0] for key in keys],
        ts_recv,
        epochs,
        numbers,
        sequence,
        np.concatenate(blocks) if blocks else np.empty((0, len(calls))),
    )
