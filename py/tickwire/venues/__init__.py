"""The venues, a line each."""

from __future__ import annotations

from tickwire.json_text import parse_json
from tickwire.venues.base import OrderVenue, StreamVenue, Venue
from tickwire.venues.binance import COINM, SPOT, USDM
from tickwire.venues.nasdaq_itch import NASDAQ_ITCH

__all__ = ["VENUES", "OrderVenue", "StreamVenue", "Venue", "venue_words"]

VENUES: dict[str, Venue] = {
    venue.name: venue
    for venue in (
        SPOT,
        USDM,
        COINM,
        NASDAQ_ITCH,
    )
}


def venue_words(text: str) -> str:
    """The text, a venue's error in JSON at its end as `message (code N)`."""
    begin = text.find("{")
    if begin < 0:
        return text
    try:
        said = parse_json(text[begin:])
    except ValueError:
        return text
    for venue in VENUES.values():
        if (error := venue.error_of(said)) is not None:
            message, code = error
            return text[:begin] + message + (f" (code {code})" if isinstance(code, int) and code != 0 else "")
    return text
