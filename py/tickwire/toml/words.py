"""How what is wrong with a table is said: the key's path, the value found, what was expected."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tickwire.names import nearest
from tickwire.wording import printable

__all__ = ["MISSING", "Located", "at", "in_our_words", "line", "nearest_known", "shown"]


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


MISSING = _Missing()


class Located(ValueError):
    """A finding about a key below the value that a validator looks at."""

    def __init__(self, key: str, expected: str, value: object) -> None:
        super().__init__(expected)
        self.key, self.value = key, value


def at(key: str, expected: str, value: object) -> Located:
    return Located(key, expected, value)


def nearest_known(key: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    close = nearest(key, known, cutoff=0.6)
    return f"; nearest known: {close}" if close else ""


def line(key: str, expected: str, value: object) -> str:
    found = "" if value is MISSING else f", found {shown(value)}"
    return f"{key}: {expected}{found}"


def shown(value: object) -> str:
    # A password in a URL is nobody's to read, whatever else is wrong with it.
    return cut(re.sub(r"//[^/\s@]*@", "//…@", repr(value)), 120)


def named(key: str) -> str:
    """A key as an error names it: on one line, and no more of it than one reads."""
    return cut(printable(key), 80)


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def in_our_words(kind: str, context: Mapping[str, Any], message: str, value: object) -> str:
    """pydantic's finding in this project's words."""
    if kind == "literal_error":
        text = str(context["expected"]).replace("'", '"').replace(" or ", ", ")
        close = nearest_known(value, re.findall(r'"([^"]*)"', text)) if isinstance(value, str) else ""
        return f"expected one of {text}{close}"
    table = {
        "string_type": "a string",
        "bool_type": "true or false",
        "list_type": "a list",
        "int_type": "an integer",
        "float_type": "a number",
        "model_type": "a table",
        "model_attributes_type": "a table",
        "dict_type": "a table",
        "string_too_short": "a text that is not empty",
        "too_short": "at least one",
    }
    if kind in table:
        return f"expected {table[kind]}"
    if kind == "greater_than_equal":
        return f"expected at least {context['ge']}"
    if kind == "less_than_equal":
        return f"expected at most {context['le']}"
    if kind == "too_long":
        return f"expected at most {context['max_length']} entries"
    if kind == "string_too_long":
        return f"expected at most {context['max_length']} characters"
    return message[:1].lower() + message[1:]
