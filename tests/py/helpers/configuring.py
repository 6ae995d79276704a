"""Configurations of one feed, which most tests have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tickwire.config import Config
from tickwire.sim import Venue


def one_feed(
    venue: str = "binance_spot",
    instruments: Sequence[str] = ("BTCUSDT",),
    rows: Sequence[str] = ("spread()",),
    *,
    feed: Mapping[str, Any] | None = None,
    features: Mapping[str, Any] | None = None,
    base: Path | None = None,
    where: str = "",
    **tables: Any,
) -> Config:
    """`feed` and `features` are further keys of these tables, `tables` the others by their names."""
    table = {"venue": venue, "instruments": list(instruments), **(feed or {})}
    of_features = {"rows": list(rows), **(features or {})}
    whole = {"feeds": [table], "features": of_features, **tables}
    return Config.from_dict(whole, base=base, where=where)


def at_venue(venue: Venue, market: str = "usdm", **keys: Any) -> dict[str, Any]:
    """The keys of a feed of the simulator's market."""
    return {
        "venue": f"binance_{market}",
        "url": venue.ws_url[market],
        "rest_url": venue.rest_url[market],
        "instruments": venue.instruments[market],
        **keys,
    }


MINIMAL = """
[[feeds]]
venue = "binance_usdm"
source = "file"
instruments = ["BTCUSDT"]

[features]
trigger = "book"
rows = ["imbalance(levels=5)", "spread()"]
"""


def load(text: str, **options: Any) -> Config:
    return Config.from_text(text, where="pipeline.toml", **options)


MULTICAST = """
[[feeds]]
venue = "nasdaq_itch"
instruments = ["AAPL"]

[feeds.multicast]
lines = ["233.54.12.111:26477", "233.49.196.111:26477"]

[features]
rows = ["spread()"]
"""


def multicast(*lines: str, feed: str = "", base: Path | None = None) -> Config:
    """The configuration above, with lines more in its multicast table and in its feed."""
    text = MULTICAST.replace("\n[features]", "\n".join(lines) + "\n[features]")
    return load(text.replace("\n[feeds.multicast]", f"{feed}\n[feeds.multicast]"), base=base)
