"""How things are said to people: counts with their words, and what a venue said in its own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["none_of", "not_a_file", "numbered", "printable", "venue_words"]


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


def venue_words(text: str) -> str:
    """The text, a venue's error in JSON at its end as `message (code N)`."""
    begin = text.find("{")
    if begin < 0:
        return text
    try:
        said: Any = json.loads(text[begin:])
    except (ValueError, RecursionError):
        return text
    if isinstance(said.get("error"), Mapping):
        said = said["error"]
    message, code = said.get("msg"), said.get("code")
    if not isinstance(message, str) or not message:
        return text
    return text[:begin] + message + (f" (code {code})" if isinstance(code, int) and code != 0 else "")


def not_a_file(path: str | os.PathLike[str]) -> str:
    """Why a path cannot be read as a capture."""
    if os.path.isdir(path):
        return "a folder; name the files in it"
    if os.path.exists(path):
        return "a pipe or a device, which cannot be looked at twice; save it to a file first"
    return "no such file"
