"""What a venue said, for people: its own words, out of whatever it wrapped them in."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

__all__ = ["not_a_file", "printable", "venue_words"]


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
