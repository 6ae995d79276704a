"""What goes wrong at a venue, on purpose: seeded, counted, written down.

Faults happen between the true stream and one client's wire, or between the true book and one REST
answer; the truth itself is never touched, so a test can compare with it. A fault happens by chance
(`rates`, a probability an opportunity) or because a test asked for it (`arm`).

| kind | opportunity | effect |
|---|---|---|
| drop | message | not sent |
| duplicate | message | sent twice |
| reorder | message | sent after the next message of its stream |
| corrupt | message | cut in the middle: no JSON any more |
| stall | message | the connection stays open and sends nothing for `stall_s`, pings included |
| close | message | closed with a close frame |
| reset | message | a TCP reset |
| shutdown | message | a serverShutdown notice, closed `shutdown_grace_s` later |
| restart | message | every connection of the market closes, and its ids go on from elsewhere |
| snapshot_old | REST | a snapshot whose id lies before everything that the client buffered |
| snapshot_ahead | REST | a snapshot whose id lies far ahead of the stream |
| snapshot_oversized | REST | a body of more than `oversized_bytes` |
| rest_fail | REST | a 5xx answer, or a 429 that asks for a second of silence |
| rest_slow | REST | answered, with the book of that moment, after `slow_s` |
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

__all__ = ["MESSAGE_KINDS", "REST_KINDS", "FaultRecord", "Faults"]

MESSAGE_KINDS = (
    "drop",
    "duplicate",
    "reorder",
    "corrupt",
    "stall",
    "close",
    "reset",
    "shutdown",
    "restart",
)
REST_KINDS = ("snapshot_old", "snapshot_ahead", "snapshot_oversized", "rest_fail", "rest_slow")


@dataclass(frozen=True)
class FaultRecord:
    """One fault that happened."""

    ts_ns: int  # UTC.
    kind: str
    market: str
    symbol: str
    stream: str  # Empty for REST.
    connection: int  # -1 for REST.
    last_id: int  # Of the message hit, 0 where it changes no book.


class Faults:
    """Decides what goes wrong. The venue asks at every opportunity and carries it out."""

    def __init__(
        self,
        seed: int = 0,
        rates: Mapping[str, float] | None = None,
        *,
        symbols: Collection[str] | None = None,
        streams: Collection[str] | None = None,
        stall_s: float = 2.0,
        shutdown_grace_s: float = 2.0,
        slow_s: float = 1.0,
        oversized_bytes: int = 64 << 20,
    ) -> None:
        """`symbols` and `streams` ("depth", "trade", …) confine the faults that come by chance."""
        self.rates = dict(rates or {})
        for kind, rate in self.rates.items():
            _check_kind(kind)
            if not 0.0 <= rate <= 1.0:
                raise ValueError(f"rates.{kind}: expected a probability, found {rate}")
        self.symbols = frozenset(symbols) if symbols is not None else None
        self.streams = frozenset(streams) if streams is not None else None
        self.stall_s = stall_s
        self.shutdown_grace_s = shutdown_grace_s
        self.slow_s = slow_s
        self.oversized_bytes = oversized_bytes
        self.random = random.Random(f"tickwire/faults/{seed}")
        self.counts: Counter[str] = Counter()
        self.log: list[FaultRecord] = []
        self._armed: list[tuple[str, str | None, str | None, str | None]] = []
        self._message_rates = [(kind, self.rates[kind]) for kind in MESSAGE_KINDS if self.rates.get(kind)]
        self._rest_rates = [(kind, self.rates[kind]) for kind in REST_KINDS if self.rates.get(kind)]

    def arm(
        self,
        kind: str,
        *,
        market: str | None = None,
        symbol: str | None = None,
        stream: str | None = None,
        count: int = 1,
    ) -> None:
        """Makes the next `count` opportunities (of that market, that symbol, that stream) go wrong."""
        _check_kind(kind)
        self._armed += [(kind, market, symbol, stream)] * count

    def disarm(self) -> None:
        """From here on nothing goes wrong any more."""
        self._armed.clear()
        self._message_rates.clear()
        self._rest_rates.clear()

    def for_message(self, market: str, symbol: str, stream: str, connection: int, last_id: int) -> str | None:
        channel = stream.split("@")[1]
        kind = self._choose(market, symbol, channel, self._message_rates, MESSAGE_KINDS)
        if kind is not None:
            self._note(kind, market, symbol, stream, connection, last_id)
        return kind

    def for_rest(self, market: str, symbol: str, last_id: int) -> str | None:
        kind = self._choose(market, symbol, "", self._rest_rates, REST_KINDS)
        if kind is not None:
            self._note(kind, market, symbol, "", -1, last_id)
        return kind

    def _choose(
        self, market: str, symbol: str, stream: str, rates: list[tuple[str, float]], kinds: tuple[str, ...]
    ) -> str | None:
        for index, (kind, *armed) in enumerate(self._armed):
            if kind in kinds and all(
                a in (None, b) for a, b in zip(armed, (market, symbol, stream), strict=True)
            ):
                del self._armed[index]
                return kind
        if not rates or (self.symbols is not None and symbol not in self.symbols):
            return None
        if stream and self.streams is not None and stream not in self.streams:
            return None
        point = self.random.random()
        for kind, rate in rates:
            if point < rate:
                return kind
            point -= rate
        return None

    def _note(self, kind: str, market: str, symbol: str, stream: str, connection: int, last_id: int) -> None:
        self.counts[kind] += 1
        self.log.append(FaultRecord(time.time_ns(), kind, market, symbol, stream, connection, last_id))


def _check_kind(kind: str) -> None:
    if kind not in MESSAGE_KINDS and kind not in REST_KINDS:
        expected = ", ".join(MESSAGE_KINDS + REST_KINDS)
        raise ValueError(f"fault kind: expected one of {expected}, found {kind!r}")
