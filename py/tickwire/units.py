"""Lengths of time as text: `"250ms"`, `"1.5s"`, `"23h50m"`."""

from __future__ import annotations

import re

__all__ = ["DURATION", "format_ns", "parse_duration"]

_NS = {
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "ns": 1,
}
_TEXT = re.compile(r"(?:[0-9]{1,18}(?:\.[0-9]{1,9})?(?:ns|us|ms|s|m|h))+")
_PART = re.compile(r"([0-9]+)(?:\.([0-9]+))?(ns|us|ms|s|m|h)")

DURATION = 'a duration like "250ms", "1s" or "23h50m"'
"""What is expected, in words."""


def parse_duration(text: str) -> int:
    """Nanoseconds in a duration such as `"250ms"`, `"1.5s"` or `"23h50m"`. `ValueError` when it is none.

    >>> parse_duration("1.5s")
    1500000000
    """
    if _TEXT.fullmatch(text) is None:
        raise ValueError(f"expected {DURATION}")
    value = 0
    last_scale = 1 << 62
    for whole, fraction, unit in _PART.findall(text):
        scale = _NS[unit]
        if scale >= last_scale:
            raise ValueError(f"expected {DURATION}, larger units first")
        last_scale = scale
        value += int(whole) * scale
        if fraction:
            part, remainder = divmod(int(fraction) * scale, 10 ** len(fraction))
            if remainder:
                raise ValueError(f"expected {DURATION}, in whole nanoseconds")
            value += part
    return value


def format_ns(ns: int) -> str:
    """In the largest unit that leaves a whole number.

    >>> format_ns(90_000_000_000)
    '90s'
    """
    unit, scale = next((unit, scale) for unit, scale in _NS.items() if ns % scale == 0)
    return f"{ns // scale}{unit}"
