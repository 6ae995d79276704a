"""Dates in HTTP headers, as the data plane reads them in the answer to a handshake."""

from __future__ import annotations

import datetime
import re

__all__ = ["parse_http_date"]

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_MONTH = "(?P<month>" + "|".join(_MONTHS) + ")"
_FORMS = (
    re.compile(rf"[A-Za-z]{{3,}}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    re.compile(rf"[A-Za-z]{{3,}}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"),
    re.compile(rf"[A-Za-z]{{3,}} {_MONTH} (?P<day>[ 0-9][0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)
_EPOCH = datetime.date(1970, 1, 1)


def parse_http_date(text: str, now_s: float) -> int | None:
    """The seconds since 1970 of a date in one of the three forms of RFC 9110, 5.6.7; None for anything else.

    A year of two digits is the one that is not more than fifty after `now_s`.
    """
    for form in _FORMS:
        if (found := form.fullmatch(text)) is None:
            continue
        year, hour, minute, second = (int(found[name]) for name in ("year", "hour", "minute", "second"))
        if len(found["year"]) == 2:
            newest = datetime.datetime.fromtimestamp(now_s, datetime.UTC).year + 50
            year = newest - (newest - year) % 100
        if hour > 23 or minute > 59 or second > 60:  # 60 is a leap second.
            return None
        try:
            date = datetime.date(year, _MONTHS.index(found["month"]) + 1, int(found["day"]))
        except ValueError:
            return None
        return (date - _EPOCH).days * 86_400 + hour * 3_600 + minute * 60 + second
    return None
