"""NASDAQ's TotalView-ITCH."""

from __future__ import annotations

import re

from tickwire.venues.base import Venue

__all__ = ["NASDAQ_ITCH"]

# As NASDAQ writes it: a root, and what marks units, warrants, rights, classes and preferred shares.
_SYMBOL = re.compile(r"[A-Z0-9=#+^.*$~!@%&-]+")


def _check_symbol(symbol: str) -> str | None:
    if len(symbol) > 8:
        return "expected at most the venue's eight characters"
    if symbol != symbol.upper():
        return f"expected the venue's upper-case symbol, as {symbol.upper()!r}"
    if _SYMBOL.fullmatch(symbol) is None:
        own = "".join(_SYMBOL.findall(re.sub(r"[/\s]+", ".", symbol.strip(" /"))))
        return f"expected the venue's own symbol, as {own or 'AAPL'!r}"
    return None


NASDAQ_ITCH = Venue("nasdaq_itch", _check_symbol, by_order=True, price_decimals=4, qty_decimals=0)
