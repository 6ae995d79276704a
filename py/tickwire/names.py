"""Names that a user writes: which a table can have, and which known one was meant.

Each check returns what was expected, in words, or None where the name is fine.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

__all__ = ["check_interface", "check_name", "nearest"]

_PLAIN = re.compile(r"[A-Za-z0-9_.-]*")


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
