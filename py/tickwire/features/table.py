"""The kernels there are, as the compiled engine's list of them says.

Each entry stands beside the code that computes it, in `cpp/tickwire/features/kernels/<name>.hpp`, so what is
told here and what runs cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tickwire.core import extension

__all__ = ["KERNELS", "MAX_COUNT", "MAX_DURATION_NS", "MAX_LEVELS", "Kernel", "Parameter"]

MAX_LEVELS: int = extension.MAX_LEVELS
MAX_COUNT: int = extension.MAX_WINDOW_COUNT
"""Samples, events or trades of a window; samples of a lag."""
MAX_DURATION_NS: int = extension.MAX_WINDOW_NS

ParameterKind = Literal["expression", "levels", "window", "duration", "lag"]

_EXPECTED: dict[str, str] = {
    "expression": "an expression",
    "levels": f"an integer from 1 to {MAX_LEVELS}",
    "window": f'a duration like "1s" (at most 7 days) or a count from 1 to {MAX_COUNT}',
    "duration": 'a duration like "1s" (at most 7 days)',
    "lag": f"an integer from 1 to {MAX_COUNT}",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel; without a default it must be given."""

    name: str
    kind: ParameterKind
    default: int | None = None

    @property
    def expected(self) -> str:
        return _EXPECTED[self.kind]


@dataclass(frozen=True)
class Kernel:
    """What a feature computes."""

    name: str
    parameters: tuple[Parameter, ...]
    formula: str
    unit: str
    description: str
    source: str = ""
    version: int = 1
    """Grows when the same input gives another value: a model bound to the old one is then refused."""
    reads_trades: bool = False
    by_order: bool = False
    """Does it need a venue that tells of every order?"""
    reach: Literal["none", "best", "levels"] = "none"
    """Which levels of each side its value depends on, by itself: the best, so many as `levels` says, or none.
    They must be known for a row to be valid."""

    @property
    def signature(self) -> str:
        """How it is called: `ofi(levels=1, window)`."""
        parts = [p.name if p.default is None else f"{p.name}={p.default}" for p in self.parameters]
        return f"{self.name}({', '.join(parts)})"


def _kernel(entry: Mapping[str, Any]) -> Kernel:
    parameters = tuple(Parameter(*parameter) for parameter in entry["parameters"])
    return Kernel(**{**entry, "parameters": parameters})


KERNELS: dict[str, Kernel] = {entry["name"]: _kernel(entry) for entry in extension.kernels()}
"""Every kernel by name: its parameters, formula, unit and source."""
