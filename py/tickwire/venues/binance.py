"""Binance: spot, and both kinds of futures."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tickwire.venues.base import StreamVenue

__all__ = ["COINM", "SPOT", "USDM"]

# As other libraries write a market: BTC/USDT, BTC-USDT, BTC/USDT:USDT, BTC/USD:BTC-240927.
_MARKET = re.compile(r"(\w+)[/\-.: ]+(\w+?)(?::(\w+))?(?:-(\d{6}))?", re.ASCII)


def _check_symbol(symbol: str, *, coinm: bool = False) -> str | None:
    """As the venue itself writes it."""
    if symbol != symbol.upper() and _is_word(symbol):
        return f"expected the venue's upper-case symbol, as {symbol.upper()!r}"
    if _is_word(symbol):
        return None
    return f"expected the venue's own symbol, as {_meant(symbol.upper(), coinm=coinm)!r}"


def _is_word(symbol: str) -> bool:
    # Some symbols have letters of other alphabets.
    return all(char.isalnum() or char == "_" for char in symbol)


def _meant(symbol: str, *, coinm: bool) -> str:
    symbol = (
        symbol.strip().removeprefix("BINANCE:").partition("@")[0]
    )  # A stream's name has its kind behind it.
    match = _MARKET.fullmatch(symbol)
    if match is None:
        joined = "".join(char for char in symbol if char.isalnum() or char == "_")
        return joined or ("BTCUSD_PERP" if coinm else "BTCUSDT")
    base, quote, day = match[1], match[2], match[4]
    if quote == "PERP":  # BTC-PERP
        return f"{base}USD_PERP" if coinm else f"{base}USDT"
    if day or coinm:
        quote = quote.removesuffix("_PERP")
        return f"{base}{quote}_{day or 'PERP'}"
    return f"{base}{quote}"


@dataclass(frozen=True, kw_only=True)
class _Binance(StreamVenue):
    """What the three have in common."""

    # Each has two streams, of which a connection may carry 1024.
    most_instruments: int = 512
    trade_streams: Sequence[str] = ("trade", "aggTrade")
    trades_urls: Mapping[str, str] = field(default_factory=dict)
    weight_header: str = "X-MBX-USED-WEIGHT-1M"
    # Who goes on asking after a 429 is banned.
    limited: Collection[int] = (418, 429)

    plain_interval: str
    """The depth interval that a stream's name leaves out."""

    def streams(self, symbol: str, *, depth_interval: str, trades: str, quotes: bool) -> list[str]:
        depth = "depth" if depth_interval == self.plain_interval else f"depth@{depth_interval}"
        of_quotes = [f"{symbol.lower()}@bookTicker"] if quotes else []
        return [f"{symbol.lower()}@{depth}", self.trade_stream(symbol, trades), *of_quotes]

    def trade_stream(self, symbol: str, trades: str) -> str:
        return f"{symbol.lower()}@{trades}"

    def snapshot_query(self, symbol: str, levels: int) -> dict[str, str]:
        return {"symbol": symbol, "limit": str(levels)}

    def error_of(self, said: Mapping[str, Any]) -> tuple[str, object] | None:
        if isinstance(said.get("error"), Mapping):
            said = said["error"]
        message = said.get("msg")
        return (message, said.get("code")) if isinstance(message, str) and message else None


SPOT = _Binance(
    name="binance_spot",
    check_symbol=_check_symbol,
    url="wss://stream.binance.com:9443/ws",
    rest_url="https://api.binance.com/api/v3/depth",
    depth_intervals=("100ms", "1000ms"),
    plain_interval="1000ms",
    snapshot_limits=range(1, 5001),
    weight_per_minute=6000,
)

# USD-M has split its endpoint by kind of stream: /public has depth and bookTicker, /market has aggTrade.
# The raw trade stream is on neither list, but clients that tried all of them find it on /public, with the
# depth, and on /market nothing. So a feed with trades = "trade" needs one connection and one with "aggTrade"
# two.
USDM = _Binance(
    name="binance_usdm",
    check_symbol=_check_symbol,
    url="wss://fstream.binance.com/public/ws",
    trades_urls={"aggTrade": "wss://fstream.binance.com/market/ws"},
    rest_url="https://fapi.binance.com/fapi/v1/depth",
    depth_intervals=("0ms", "100ms", "250ms", "500ms"),
    plain_interval="250ms",
    snapshot_limits=(5, 10, 20, 50, 100, 500, 1000),
    weight_per_minute=2400,
)

COINM = _Binance(
    name="binance_coinm",
    check_symbol=partial(_check_symbol, coinm=True),
    url="wss://dstream.binance.com/ws",
    rest_url="https://dapi.binance.com/dapi/v1/depth",
    depth_intervals=("0ms", "100ms", "250ms", "500ms"),
    plain_interval="250ms",
    snapshot_limits=(5, 10, 20, 50, 100, 500, 1000),
    weight_per_minute=2400,
)
