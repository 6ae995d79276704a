"""How things are said to people."""

from __future__ import annotations

import os
import re

__all__ = ["none_of", "not_a_file", "numbered", "printable"]


_BY_NUMBER = re.compile(r"\[(\w+)(?:\|(\w+))?\]")


def numbered(count: int, text: str) -> str:
    """The count before the text, whose `[s]` and `[was|were]` become what fits it: 1 row was, 2 rows were."""

    def chosen(found: re.Match[str]) -> str:
        one, many = ("", found[1]) if found[2] is None else (found[1], found[2])
        return one if count == 1 else many

    return f"{count:,} {_BY_NUMBER.sub(chosen, text)}"


def none_of(count: int, noun: str, one: str, many: str) -> str:
    """What is true of none of so many: `its only line could not`, `none of its 2 lines could`."""
    return f"its only {noun} {one}" if count == 1 else f"none of its {count:,} {noun}s {many}"


def printable(text: str) -> str:
    """One line for a log, whatever somebody has sent."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))


def not_a_file(path: str | os.PathLike[str]) -> str:
    """Why a path cannot be read as a capture."""
    if os.path.isdir(path):
        return "a folder; name the files in it"
    if os.path.exists(path):
        return "a pipe or a device, which cannot be looked at twice; save it to a file first"
    return "no such file"
