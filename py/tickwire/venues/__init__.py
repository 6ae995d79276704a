"""The venues, a line each."""

from tickwire.venues.base import StreamVenue, Venue
from tickwire.venues.binance import COINM, SPOT, USDM
from tickwire.venues.nasdaq_itch import NASDAQ_ITCH

__all__ = ["VENUES", "StreamVenue", "Venue"]

VENUES: dict[str, Venue] = {
    venue.name: venue
    for venue in (
        SPOT,
        USDM,
        COINM,
        NASDAQ_ITCH,
    )
}
