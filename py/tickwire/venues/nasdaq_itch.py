"""NASDAQ's TotalView-ITCH."""

from __future__ import annotations

import contextlib
import datetime
import re

from tickwire import core
from tickwire.venues.base import OrderVenue

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


# A day in a file's name, the most telling form first: year first, then NASDAQ's own two.
_DATES = (
    (re.compile(r"(?<![0-9])(20[0-9]{2})-?([01][0-9])-?([0-3][0-9])(?![0-9])"), (1, 2, 3)),
    (re.compile(r"(?<![0-9])([01][0-9])([0-3][0-9])(20[0-9]{2})(?![0-9])"), (3, 1, 2)),
    (re.compile(r"(?<![0-9])([01][0-9])([0-3][0-9])([0-9]{2})(?![0-9])"), (3, 1, 2)),
)


class _Itch(OrderVenue):
    def date_of(self, name: str) -> datetime.date | None:
        for form, order in _DATES:
            for match in form.finditer(name):
                year, month, day = (int(match.group(i)) for i in order)
                with contextlib.suppress(ValueError):
                    return datetime.date(year if year > 99 else 2000 + year, month, day)
        return None

    def midnight_ns(self, day: datetime.date) -> int:
        """The day's first moment in New York."""
        noon = datetime.datetime(day.year, day.month, day.day, 12, tzinfo=datetime.UTC)
        return int(core.extension.new_york_midnight(int(noon.timestamp()) * 1_000_000_000))

    def check_file(self, path: str) -> None:
        core.extension.check_day_file(path)


NASDAQ_ITCH = _Itch(
    name="nasdaq_itch",
    check_symbol=_check_symbol,
    # A locate has two bytes, and 0 is nobody's.
    most_instruments=65535,
    price_decimals=4,
    qty_decimals=0,
    directory="stock directory (R)",
    trading="trading action",
    trading_type="H",
)
