"""What a model is bound to: everything that gives a row of numbers its meaning."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from tickwire.errors import ModelError
from tickwire.features.plan import Plan
from tickwire.features.table import KERNELS
from tickwire.json_text import parse_json

__all__ = ["Schema"]


class Schema:
    """Everything that gives a row of numbers its meaning.

    A model file carries it as canonical JSON; a model whose schema differs from the configuration's
    is refused, with the lines of `diff`. The trade stream is part of it also where no kernel reads
    trades: every message moves the clock that windows are measured on.
    """

    FORMAT = 1

    def __init__(
        self,
        plan: Plan,
        *,
        trigger: str,
        every_ns: int = 0,
        clock: str,
        window_rows: int,
        trade_stream: str,
    ) -> None:
        self._document: dict[str, Any] = {
            "format": self.FORMAT,
            "expressions": list(plan.canonical),
            "window_rows": window_rows,
            "dtype": "float32",
            "trigger": f"every:{every_ns}" if trigger == "every" else trigger,
            "clock": clock,
            "trade_stream": trade_stream,
            "kernel_versions": {name: KERNELS[name].version for name in plan.kernels},
            "normalisation": "none",
        }

    @classmethod
    def from_json(cls, text: str) -> Schema:
        """The schema in a model's metadata. One written by a later version keeps what we do not know."""
        try:
            document = parse_json(text)
        except ValueError as error:
            raise ModelError(f"tickwire.schema: expected JSON, found {text[:60]!r} ({error})") from None
        if not isinstance(document, dict) or not isinstance(document.get("expressions"), list):
            raise ModelError(f"tickwire.schema: expected an object with 'expressions', found {text[:60]!r}")
        schema = cls.__new__(cls)
        schema._document = document
        return schema

    @property
    def document(self) -> dict[str, Any]:
        """A copy of the content, as JSON would give it."""
        copy: dict[str, Any] = json.loads(self.canonical_json())
        return copy

    @property
    def expressions(self) -> list[str]:
        """The features in canonical text, in the order of the row."""
        return [str(expression) for expression in self._document["expressions"]]

    @property
    def window_rows(self) -> int:
        """T of a `[1, T, F]` model."""
        return int(self._document.get("window_rows", 1))

    def canonical_json(self) -> str:
        """One text for one schema: keys sorted, no spaces, ASCII."""
        return json.dumps(self._document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    def diff(self, other: Schema, *, this: str = "this", that: str = "the other") -> list[str]:
        """What differs, one line each; empty exactly when the fingerprints are equal.

        `this` and `that` say in the lines whose value is whose.
        """
        lines = []
        mine = dict(_leaves(self._document))
        theirs = dict(_leaves(other._document))
        for key in [*mine, *(key for key in theirs if key not in mine)]:
            here = mine.get(key, "nothing")
            there = theirs.get(key, "nothing")
            if here != there:
                lines.append(f"{key}: {this} has {here}, {that} has {there}")
        ours, others = self.expressions, other.expressions
        if ours != others and sorted(ours) == sorted(others):
            lines.append("expressions: the same ones in another order")
        return lines

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.canonical_json() == other.canonical_json()

    def __hash__(self) -> int:
        return hash(self.canonical_json())

    def __repr__(self) -> str:
        return f"Schema({self.canonical_json()})"


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Path and JSON text of everything that is neither a list nor an object with something in it."""
    if isinstance(value, dict) and value:
        for key in sorted(value):
            yield from _leaves(value[key], f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for i, item in enumerate(value):
            yield from _leaves(item, f"{path}[{i}]")
    else:
        yield path, json.dumps(value, ensure_ascii=False)
