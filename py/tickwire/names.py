"""Names that a user writes: which a venue or a table can have, and which known one was meant.

Each check returns what was expected, in words, or None where the name is fine.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

__all__ = ["check_interface", "check_name", "check_symbol", "nearest"]

_PLAIN = re.compile(r"[A-Za-z0-9_.-]*")
# As other libraries write a market: BTC/USDT, BTC-USDT, BTC/USDT:USDT, BTC/USD:BTC-240927.
_MARKET = re.compile(r"(\w+)[/\-.: ]+(\w+?)(?::(\w+))?(?:-(\d{6}))?", re.ASCII)
# As NASDAQ writes it: a root, and what marks units, warrants, rights, classes and preferred shares.
_ITCH_SYMBOL = re.compile(r"[A-Z0-9=#+^.*$~!@%&-]+")


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.7) -> str | None:
    """The known name that was probably meant: one that the name is a part of (`mid` of `mid_return`), or one
    that is nearly spelled so. None where a guess would be one."""
    names = list(known)
    lowered = name.lower()
    parts = [other for other in names if lowered in other.split("_") or other.startswith(lowered)]
    if lowered and parts:
        return parts[0]
    close = difflib.get_close_matches(lowered, names, n=1, cutoff=cutoff)
    return close[0] if close else None


def check_name(name: str) -> str | None:
    """Of a feed or a model: it is also a folder's in a recording."""
    if name in (".", ".."):
        return 'expected a name that a folder can have, not "." or ".."'
    if _PLAIN.fullmatch(name) is None:
        return "expected letters, digits, '_', '.' and '-'"
    return None


def check_interface(name: str) -> str | None:
    """Of a network interface, which has no space and no slash."""
    if re.search(r"[\s/]", name):
        return 'expected the name of a network interface, like "eth0"'
    return None


def check_symbol(venue: str, symbol: str) -> str | None:
    """As the venue itself writes it."""
    if venue == "nasdaq_itch":
        return _check_itch_symbol(symbol)
    if symbol != symbol.upper() and _is_word(symbol):
        return f"expected the venue's upper-case symbol, as {symbol.upper()!r}"
    if _is_word(symbol):
        return None
    return f"expected the venue's own symbol, as {_of_binance(venue, symbol.upper())!r}"


def _is_word(symbol: str) -> bool:
    # Some symbols have letters of other alphabets.
    return all(char.isalnum() or char == "_" for char in symbol)


def _of_binance(venue: str, symbol: str) -> str:
    coinm = venue == "binance_coinm"
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


def _check_itch_symbol(symbol: str) -> str | None:
    if len(symbol) > 8:
        return "expected at most the venue's eight characters"
    if symbol != symbol.upper():
        return f"expected the venue's upper-case symbol, as {symbol.upper()!r}"
    if _ITCH_SYMBOL.fullmatch(symbol) is None:
        own = "".join(_ITCH_SYMBOL.findall(re.sub(r"[/\s]+", ".", symbol.strip(" /"))))
        return f"expected the venue's own symbol, as {own or 'AAPL'!r}"
    return None
