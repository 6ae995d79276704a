"""What a venue is to the configuration, to snapshots, and to files of its own form."""

from __future__ import annotations

import datetime
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["OrderVenue", "StreamVenue", "Venue"]


@dataclass(frozen=True, kw_only=True)
class Venue(ABC):
    """What is true of any venue. A venue's file derives from `StreamVenue` or `OrderVenue`."""

    name: str
    check_symbol: Callable[[str], str | None]
    """What was expected of a symbol, in words; None where it is one."""
    most_instruments: int
    """How many a feed may have."""

    def error_of(self, said: Mapping[str, Any]) -> tuple[str, object] | None:
        """The message and the code of an error that the venue says in JSON; None where it is none of its own
        form."""
        return None


@dataclass(frozen=True, kw_only=True)
class OrderVenue(Venue):
    """One that tells of every order, on multicast lines or in files of its own form. All that has to do with
    a connection or a snapshot over HTTP says nothing about it."""

    price_decimals: int
    """The venue's own, that no configuration may change."""
    qty_decimals: int
    directory: str
    """What the message is called that names an instrument."""
    trading: str
    """What the one is called that says that it trades, and its type."""
    trading_type: str

    @abstractmethod
    def date_of(self, name: str) -> datetime.date | None:
        """The day that a file's name tells, as far as there is such a day."""

    @abstractmethod
    def midnight_ns(self, day: datetime.date) -> int:
        """What the venue's times of a day count from, UTC nanoseconds."""

    @abstractmethod
    def check_file(self, path: str) -> None:
        """`SetupError` where a file does not begin as one of the venue's own form does."""


@dataclass(frozen=True, kw_only=True)
class StreamVenue(Venue):
    """A venue whose streams are subscribed to over WebSocket, and whose snapshots come over HTTP."""

    url: str
    """The production endpoint."""
    trades_urls: Mapping[str, str]
    """By trade stream, another one, where the venue has split it."""
    rest_url: str
    depth_intervals: Sequence[str]
    """How often book changes may come, the fastest first."""
    trade_streams: Sequence[str]
    """The kinds of trade streams, of which a feed reads one; the usual one first."""
    snapshot_limits: Sequence[int]
    """Levels a side that a snapshot may have; the deepest last."""
    weight_per_minute: int
    """Request weight that an address may use."""
    weight_header: str
    """Where an answer says how much of it was used."""
    limited: Collection[int] = (429,)
    """The HTTP statuses of an answer to who asks too much."""

    @abstractmethod
    def streams(self, symbol: str, *, depth_interval: str, trades: str, quotes: bool) -> list[str]:
        """Names of an instrument's streams."""

    @abstractmethod
    def trade_stream(self, symbol: str, trades: str) -> str:
        """Which of them brings the trades."""

    @abstractmethod
    def snapshot_query(self, symbol: str, levels: int) -> dict[str, str]:
        """What to ask `rest_url` for."""
