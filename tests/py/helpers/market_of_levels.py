"""A market for tests, as a dictionary of levels: what each of the venue's streams says of it, and the truth.

No code of the engine is used. Prices are whole ticks of 0.01, quantities whole numbers, so that a row can be
worked out exactly.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START_NS = 1_700_000_000_000_000_000
STEP_NS = 100_000_000


@dataclass
class Market:
    futures: bool
    seed: int
    symbol: str = "BTCUSDT"
    depth: int = 60  # Levels a side at the beginning; the rest of the book is deeper and never ends.
    drift: int = 0  # Ticks a step that the market goes, down where negative.
    bids: dict[int, int] = field(default_factory=dict)
    asks: dict[int, int] = field(default_factory=dict)
    truth: dict[int, tuple[list[tuple[int, int]], list[tuple[int, int]]]] = field(default_factory=dict)
    """After each event by its id: all levels, best first."""
    at: dict[int, tuple[list[tuple[int, int]], list[tuple[int, int]]]] = field(default_factory=dict)
    """The same by the event's receive time."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.centre = 100_000
        self.last_id = 1000
        self.now = START_NS
        self.stamp_ms = START_NS // 1_000_000
        for i in range(1, self.depth + 1):
            self.bids[self.centre - i] = 1 + self.random.randrange(50)
            self.asks[self.centre + i] = 1 + self.random.randrange(50)

    def step(self) -> dict[str, Any]:
        """Something changes; what the diff stream says of it."""
        self.centre += self.drift + self.random.randrange(-1, 2)
        changes: dict[str, dict[int, int]] = {"b": {}, "a": {}}
        for price in [p for p in self.bids if p >= self.centre]:
            changes["b"][price] = 0
        for price in [p for p in self.asks if p <= self.centre]:
            changes["a"][price] = 0
        for _ in range(self.random.randrange(1, 6)):
            side = self.random.choice("ba")
            away = 1 + self.random.randrange(40)
            price = self.centre - away if side == "b" else self.centre + away
            changes[side][price] = self.random.choice((0, 1 + self.random.randrange(50)))
        for side, book in (("b", self.bids), ("a", self.asks)):
            for price, qty in changes[side].items():
                if qty:
                    book[price] = qty
                else:
                    book.pop(price, None)
            # Somebody is always there.
            while len(book) < 30:
                price = min(book) - 1 if side == "b" else max(book) + 1
                book[price] = changes[side][price] = 1 + self.random.randrange(50)
        previous = self.last_id
        first = previous + (1 if not self.futures else 1 + self.random.randrange(3))
        self.last_id = first + self.random.randrange(4)
        self.now += STEP_NS
        self.truth[self.last_id] = self.at[self.now] = (self.side("b"), self.side("a"))
        self.stamp_ms += STEP_NS // 1_000_000
        data = {"e": "depthUpdate", "E": self.stamp_ms, "s": self.symbol, "U": first, "u": self.last_id}
        if self.futures:
            data["pu"] = previous
        return data | {side: [texts(level) for level in changes[side].items()] for side in "ba"}

    def told(self, **other: Any) -> str:
        """A step, as a line of a capture; `other` stands instead of what it says."""
        data = self.step() | other
        return line(self.now, data)

    def side(self, side: str) -> list[tuple[int, int]]:
        book = self.bids if side == "b" else self.asks
        return sorted(book.items(), reverse=side == "b")

    def levels(self, count: int) -> dict[str, Any]:
        return {side: [texts(level) for level in self.side(side)[:count]] for side in "ba"}

    def snapshot(self, limit: int) -> dict[str, Any]:
        shown = self.levels(limit)
        return {"lastUpdateId": self.last_id, "bids": shown["b"], "asks": shown["a"]}

    def partial(self, data: dict[str, Any], count: int) -> dict[str, Any]:
        """What a stream of partial books says where the diff stream says `data`."""
        return data | self.levels(count) if self.futures else self.snapshot(count)

    def renumber(self, first: int) -> None:
        """The venue counts anew and does not say so."""
        self.last_id = first


def texts(level: tuple[int, int]) -> list[str]:
    return [f"{level[0] // 100}.{level[0] % 100:02d}", str(level[1])]


def line(ts: int, message: dict[str, Any], stream: str = "") -> str:
    shown = {"stream": stream, "data": message} if stream else message
    return f"{ts} {json.dumps(shown, separators=(',', ':'))}\n"


def own_snapshot(ts: int, symbol: str, body: dict[str, Any], limit: int | None) -> str:
    note: dict[str, Any] = {"tickwire": "snapshot", "conn": 0, "instrument": symbol}
    if limit is not None:
        note["limit"] = limit
    return f"{ts} {json.dumps(note | {'body': body}, separators=(',', ':'))}\n"


def imbalance(levels: tuple[list[tuple[int, int]], list[tuple[int, int]]], count: int) -> float:
    bids, asks = (sum(qty for _, qty in side[:count]) for side in levels)
    return (bids - asks) / (bids + asks)


def spread(levels: tuple[list[tuple[int, int]], list[tuple[int, int]]]) -> float:
    bid, ask = levels[0][0][0], levels[1][0][0]
    return 1e4 * (ask - bid) / ((ask + bid) / 2)


def written(path: Path, lines: Iterable[str]) -> Path:
    path.write_text("".join(lines))
    return path


def rows_in(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
