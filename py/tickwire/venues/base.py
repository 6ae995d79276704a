"""What a venue is to the configuration and to snapshots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["StreamVenue", "Venue"]


@dataclass(frozen=True)
class Venue:
    """What is true of any venue. `by_order`: one that tells of every order, on multicast lines or in files of
    its own form; all that has to do with a connection or a snapshot over HTTP says nothing about it."""

    name: str
    check_symbol: Callable[[str], str | None]
    """What was expected of a symbol, in words; None where it is one."""
    by_order: bool = False
    price_decimals: int | None = None
    """Where the venue has a number of its own, that no configuration may change."""
    qty_decimals: int | None = None


@dataclass(frozen=True, kw_only=True)
class StreamVenue(Venue):
    """A venue whose streams are subscribed to over WebSocket, and whose snapshots come over HTTP."""

    url: str
    """The production endpoint."""
    agg_trades_url: str = ""
    """Another one for aggregated trades, where the venue has split it."""
    rest_url: str
    depth_intervals: Sequence[str]
    """How often book changes may come, the fastest first."""
    plain_interval: str
    """The one that a stream's name leaves out."""
    snapshot_limits: Sequence[int]
    """Levels a side that a snapshot may have; the deepest last."""
    weight_per_minute: int
    """Request weight that an address may use."""
    weight_header: str
    """Where an answer says how much of it was used."""

    def streams(self, symbol: str, *, depth_interval: str, trades: str, quotes: bool) -> list[str]:
        """Names of an instrument's streams."""
        depth = "depth" if depth_interval == self.plain_interval else f"depth@{depth_interval}"
        kinds = [depth, trades, *(["bookTicker"] if quotes else [])]
        return [f"{symbol.lower()}@{kind}" for kind in kinds]
