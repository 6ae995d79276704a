"""What `[[sinks]]` may say, before it is known which sink it is about."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tickwire.sinks.registry import SINKS
from tickwire.toml.table import AnyTable, Table

if TYPE_CHECKING:
    from tickwire.sinks.base import Sink

__all__ = ["SinkTable", "table_of"]


class SinkTable(Table):
    """One of `[[sinks]]`. A sink's file derives its own from it, with its `type` and its keys."""

    type: str

    @classmethod
    def of(cls, value: object) -> AnyTable:
        kind = value.get("type") if isinstance(value, Mapping) else None
        return table_of(kind) if isinstance(kind, str) and kind in SINKS else cls

    @property
    def waiting(self) -> int:
        """How many signals may wait for the sink. Beyond it the newest are dropped and counted."""
        return 8192

    @property
    def to_stdout(self) -> bool:
        """Does standard output belong to this sink?"""
        return False

    def files(self) -> dict[str, str]:
        """By key, the files that it writes, as the configuration names them: none may be one that is read."""
        return {}

    def make(self, path_of: Callable[[str], Path]) -> Sink:
        """The sink, not open yet. `path_of`: where a path of the configuration leads. A key that does not fit
        is said by raising `tickwire.toml.words.at`."""
        raise NotImplementedError


def table_of(kind: str) -> type[SinkTable]:
    """What `[[sinks]] type = kind` may say."""
    module, _, name = SINKS[kind].partition(":")
    table: type[SinkTable] = getattr(importlib.import_module(module), name)
    return table
