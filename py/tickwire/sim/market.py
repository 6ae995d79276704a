"""What the three Binance markets have in common and where they differ, and what a market is here."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from tickwire.sim.book import TruthBook

__all__ = ["RULES", "Diff", "Market", "Message", "Rules", "rules_of", "stream_key"]


@dataclass(frozen=True)
class Rules:
    """The habits of one market that a client can see."""

    name: str
    venue: str
    rest_path: str
    # Depths that REST accepts; empty: any up to max_depth.
    depths: tuple[int, ...]
    default_depth: int
    max_depth: int
    ping_interval_s: float
    pong_timeout_s: float


_FUTURES_DEPTHS = (5, 10, 20, 50, 100, 500, 1000)
RULES = {
    "spot": Rules("spot", "binance_spot", "/api/v3/depth", (), 100, 5000, 20.0, 60.0),
    "usdm": Rules("usdm", "binance_usdm", "/fapi/v1/depth", _FUTURES_DEPTHS, 500, 1000, 180.0, 600.0),
    "coinm": Rules("coinm", "binance_coinm", "/dapi/v1/depth", _FUTURES_DEPTHS, 500, 1000, 180.0, 600.0),
}


def rules_of(market: str) -> Rules:
    try:
        return RULES[market]
    except KeyError:
        raise ValueError(f"market: expected one of {', '.join(RULES)}, found {market!r}") from None


class Diff(NamedTuple):
    """The part of a depth message that changes the true book."""

    first_id: int
    last_id: int
    ts_event_ms: int
    ts_match_ms: int
    bids: list[list[str]]
    asks: list[list[str]]


class Message(NamedTuple):
    """One message of a stream, in the raw form (without the combined stream's envelope)."""

    due_ns: int  # When to send it, from the start of play, at the market's own pace.
    symbol: str
    stream: str  # As the market itself names it, for example "btcusdt@depth@100ms".
    data: bytes
    diff: Diff | None = None
    # Not messages to send (data is empty): the true book starts over from this snapshot; the
    # connection that a capture came from was opened anew.
    repair: dict[str, Any] | None = None
    reopened: bool = False


_INTERVAL = re.compile(r"@depth@\d+ms$")


def stream_key(stream: str) -> str:
    """The name under which subscribers and messages meet: every diff-depth interval is one stream.

    A market has one diff stream an instrument, at the interval it was recorded or made with; it is
    sent under whatever interval the client asked for.
    """
    return _INTERVAL.sub("@depth", stream)


class Market(ABC):
    """Where the messages of one market come from.

    `messages()` is lazy: a market that is longer than memory can be played. The venue applies each
    message to `books` when it sends the message, not when the iterator makes it.
    """

    rules: Rules
    instruments: tuple[str, ...]
    books: dict[str, TruthBook]

    @abstractmethod
    def messages(self) -> Iterator[Message]: ...

    def advance(self, message: Message) -> None:
        """Takes the true books past a message."""
        if message.diff is not None:
            self.books[message.symbol].apply(message.diff)
        elif message.repair is not None:
            self.books[message.symbol].repair(message.repair)
        elif message.reopened:
            for book in self.books.values():
                book.forget()
