"""From the expressions of a row to the plan that the engine runs, each distinct sub-expression once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tickwire.features.grammar import Duration, Expression, ExpressionError, parse
from tickwire.features.table import KERNELS

__all__ = ["Plan", "compile_rows", "reach"]


@dataclass(frozen=True)
class Plan:
    """The rows' expressions as the C++ engine takes them."""

    nodes: list[dict[str, Any]]
    """Each distinct sub-expression once, what is wrapped before what wraps it."""
    outputs: list[int]
    """Node of each cell of a row."""
    names: list[str]
    """The expressions as they were written: the names of the columns."""
    canonical: list[str]
    """The expressions in canonical text."""
    kernels: tuple[str, ...]
    """The kernels in use, sorted."""


class _Compiler:
    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self._index: dict[Expression, int] = {}

    def add(self, expression: Expression) -> int:
        known = self._index.get(expression)
        if known is not None:
            return known
        node: dict[str, Any] = {
            "kernel": expression.kernel,
            "input": -1,
            "levels": 0,
            "window_ns": 0,
            "window_count": 0,
            "halflife_ns": 0,
            "lag": 0,
        }
        for parameter, value in zip(KERNELS[expression.kernel].parameters, expression.arguments, strict=True):
            if isinstance(value, Expression):
                node["input"] = self.add(value)
            elif isinstance(value, Duration):
                node[f"{parameter.name}_ns"] = value.ns
            else:
                node["window_count" if parameter.name == "window" else parameter.name] = value
        self.nodes.append(node)
        self._index[expression] = len(self.nodes) - 1
        return len(self.nodes) - 1


def compile_rows(rows: Sequence[str], where: str = "features.rows") -> Plan:
    """Parses the expressions of a row and shares what they have in common.

    Raises `ExpressionError`: `features.rows[2]: unknown kernel 'imbalnce' at column 1, did you mean …`.
    """
    if isinstance(rows, str) or not isinstance(rows, Sequence):
        raise ExpressionError(f"{where}: expected a list of expressions, found {type(rows).__name__}")
    if not rows:
        raise ExpressionError(f"{where}: expected at least one expression, found none")
    expressions = [parse(text, f"{where}[{i}]") for i, text in enumerate(rows)]
    compiler = _Compiler()
    outputs = [compiler.add(expression) for expression in expressions]
    return Plan(
        nodes=compiler.nodes,
        outputs=outputs,
        names=[text.strip() for text in rows],
        canonical=[str(expression) for expression in expressions],
        kernels=tuple(sorted({node["kernel"] for node in compiler.nodes})),
    )


def reach(plan: Plan) -> int:
    """Levels a side of the book that a row depends on; 0 for features of trades and orders alone."""
    levels = 0
    for node in plan.nodes:
        own = KERNELS[node["kernel"]].reach
        levels = max(levels, int(node["levels"]) if own == "levels" else int(own == "best"))
    return levels
