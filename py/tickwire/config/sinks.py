"""`[[sinks]]`: where signals go. What each may say stands in the sink's own file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import PlainValidator, SerializeAsAny

from tickwire.sinks.registry import SINKS
from tickwire.sinks.table import SinkTable, table_of
from tickwire.toml.words import MISSING, at, nearest_known

__all__ = ["Sink"]


def _sink(value: object) -> SinkTable:
    if isinstance(value, SinkTable):
        kind: object = value.type
    elif isinstance(value, Mapping):
        kind = value.get("type", MISSING)
    else:
        raise ValueError("expected a table")
    if kind not in list(SINKS):  # It may be any type.
        expected = ", ".join(f'"{name}"' for name in SINKS)
        if kind is MISSING:
            raise at("type", f"required, one of {expected}", MISSING)
        raise at("type", f"expected one of {expected}{nearest_known(str(kind), SINKS)}", kind)
    return table_of(str(kind)).part(value)


Sink = Annotated[SerializeAsAny[SinkTable], PlainValidator(_sink)]
