"""The true book of one instrument, in the venue's own tokens. Plain dicts: slow, and obviously right."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tickwire.sim.market import Diff

__all__ = ["TruthBook"]

# Diffs kept to be applied again over a later snapshot: as many as a client buffers while it waits for one.
_RECENT_DIFFS = 4096


def _levels(side: dict[str, str], limit: int, best_is_high: bool) -> list[tuple[str, str]]:
    # A float orders distinct prices of a venue correctly: they have far fewer than 15 digits.
    return sorted(side.items(), key=lambda level: float(level[0]), reverse=best_is_high)[:limit]


class TruthBook:
    """Prices and quantities as text, keyed by the price token: a venue prints a price in one way only."""

    def __init__(self, market: str, symbol: str) -> None:
        self.market = market
        self.symbol = symbol
        self.last_id = 0
        self.ts_event_ms = 0
        self.ts_match_ms = 0
        self.bids: dict[str, str] = {}
        self.asks: dict[str, str] = {}
        self._recent: deque[Diff] = deque(maxlen=_RECENT_DIFFS)

    def load(self, snapshot: dict[str, Any]) -> None:
        """Replaces the book with a REST snapshot (the parsed body)."""
        self.last_id = int(snapshot["lastUpdateId"])
        self.ts_event_ms = int(snapshot.get("E", 0))
        self.ts_match_ms = int(snapshot.get("T", 0))
        self.bids = dict(snapshot["bids"])
        self.asks = dict(snapshot["asks"])

    def repair(self, snapshot: dict[str, Any]) -> None:
        """Starts over from a snapshot that the stream may already be ahead of."""
        self.load(snapshot)
        for diff in list(self._recent):
            self._apply(diff)

    def forget(self) -> None:
        """What was applied says nothing about what comes: the ids may start anew."""
        self.last_id = 0
        self._recent.clear()

    def apply(self, diff: Diff) -> bool:
        """False where the diff is older than the book and was left out."""
        self._recent.append(diff)
        return self._apply(diff)

    def _apply(self, diff: Diff) -> bool:
        if diff.last_id <= self.last_id:
            return False
        for side, changes in ((self.bids, diff.bids), (self.asks, diff.asks)):
            for price, qty in changes:
                if float(qty) == 0.0:
                    side.pop(price, None)
                else:
                    side[price] = qty
        self.last_id = diff.last_id
        self.ts_event_ms = diff.ts_event_ms
        self.ts_match_ms = diff.ts_match_ms
        return True

    def top_bids(self, limit: int) -> list[tuple[str, str]]:
        return _levels(self.bids, limit, best_is_high=True)

    def top_asks(self, limit: int) -> list[tuple[str, str]]:
        return _levels(self.asks, limit, best_is_high=False)

    def snapshot(self, limit: int, *, id_offset: int = 0) -> bytes:
        """The body that the market's REST endpoint would answer now."""
        body: dict[str, object] = {"lastUpdateId": self.last_id + id_offset}
        if self.market != "spot":
            body["E"] = self.ts_event_ms
            body["T"] = self.ts_match_ms
        if self.market == "coinm":
            body["symbol"] = self.symbol
            body["pair"] = self.symbol.split("_")[0]
        body["bids"] = self.top_bids(limit)
        body["asks"] = self.top_asks(limit)
        return json.dumps(body, separators=(",", ":")).encode()
