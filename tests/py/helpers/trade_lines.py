"""A capture of spot, message by message: snapshots, changes of the book and trades, with their ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_NS = 1_700_000_000_000_000_000
MS = 1_000_000
SECOND = 1000 * MS


@dataclass(frozen=True)
class Line:
    ts: int
    kind: str  # snapshot, diff or trade
    id: int
    text: str

    def later(self, ns: int) -> Line:
        return Line(self.ts + ns, self.kind, self.id, self.text)


def snapshot(ts: int, last_id: int) -> Line:
    body = {"lastUpdateId": last_id, "bids": [["99.00", "1.5"]], "asks": [["101.00", "2.5"]]}
    return Line(ts, "snapshot", last_id, json.dumps(body))


def diff(ts: int, number: int) -> Line:
    message = {
        "e": "depthUpdate",
        "E": ts // MS,
        "s": "BTCUSDT",
        "U": number,
        "u": number,
        "b": [["99.00", f"{number}.0"]],
        "a": [],
    }
    return Line(ts, "diff", number, json.dumps(message))


def trade(ts: int, number: int, *, price: str = "100.00", stamps: bool = True) -> Line:
    message: dict[str, Any] = {"e": "trade", "s": "BTCUSDT", "t": number, "p": price, "q": "1.0", "m": True}
    if stamps:
        message.update(E=ts // MS, T=ts // MS)
    return Line(ts, "trade", number, json.dumps(message))


def quote(ts: int, number: int) -> Line:
    message = {"u": number, "s": "BTCUSDT", "b": "99.00", "B": "1.5", "a": "101.00", "A": "2.5"}
    return Line(ts, "quote", number, json.dumps(message))


def write(path: Path, lines: Sequence[Line]) -> Path:
    path.write_text("".join(f"{line.ts} {line.text}\n" for line in lines))
    return path
