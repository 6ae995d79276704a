"""TOML as text. Read, it may be anybody's: what no configuration needs is refused before the parser meets it.

The standard library's parser takes minutes for a key of many parts, runs out of stack in nested brackets,
and calls an integer of many digits no error of TOML's. One pass over the text, of which the time grows with
its length alone, finds these.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

__all__ = ["MAX_BYTES", "dump", "parse"]

MAX_BYTES = 1 << 20
_MAX_DEPTH = 32
_MAX_PARTS = 32
_MAX_DIGITS = 100
_TOKEN = re.compile(
    r"""
    (?P<text>  \"{3} (?: [^"\\] | \\. | "(?!"") )* \"{3,5}
             | '{3} (?: [^'] | '(?!'') )* '{3,5}
             | " (?: [^"\\\n] | \\. )* "
             | ' [^'\n]* '
             | \# [^\n]* )
  | (?P<open>  [\[{] )
  | (?P<close> [\]}] )
  | (?P<dot>   \. )
  | (?P<end>   [\n=,] )
  | (?P<digits> 0[xob][0-9A-Fa-f_]+ | [0-9_]+ )
  | (?P<other> [^\[\]{}.\n=,"'\#0-9_]+ | . )
    """,
    re.VERBOSE | re.DOTALL,
)


def parse(text: str) -> dict[str, Any]:
    """`ValueError` says what is wrong, with the line where that is known."""
    if len(text) > MAX_BYTES:
        raise ValueError(f"expected at most {MAX_BYTES:,} characters, found {len(text):,}")
    _check(text)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"not TOML: {error}") from None
    except (ValueError, RecursionError) as error:  # Of a value that only the parser can judge.
        raise ValueError(f"cannot be read as TOML: {error}") from None


def _check(text: str) -> None:
    depth, parts, line = 0, 1, 1
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        found = ""
        if kind == "open":
            depth, parts = depth + 1, 1
            if depth > _MAX_DEPTH:
                found = f"brackets of at most {_MAX_DEPTH} levels, found more"
        elif kind == "close":
            depth = max(depth - 1, 0)
        elif kind == "dot":
            parts += 1
            if parts > _MAX_PARTS:
                found = f"keys of at most {_MAX_PARTS} parts, found one of more"
        elif kind == "end":
            parts = 1
        elif kind == "digits" and token.end() - token.start() > _MAX_DIGITS:
            found = (
                f"numbers of at most {_MAX_DIGITS} digits, found one of {token.end() - token.start():,} "
            ).rstrip()
        if found:
            raise ValueError(f"line {line}: expected {found}")
        line += token.group().count("\n")


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    # A JSON string with its escapes is a TOML basic string, DEL aside, which JSON leaves bare.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def dump(data: Mapping[str, Any]) -> str:
    """Tables, and lists of tables, as TOML text."""
    lines: list[str] = []
    for key, value in data.items():
        tables = value if isinstance(value, list) else [value]
        for table in tables:
            lines.append(f"[[{key}]]" if isinstance(value, list) else f"[{key}]")
            lines += [f"{name} = {_value(item)}" for name, item in table.items()]
            lines.append("")
    return "\n".join(lines)
