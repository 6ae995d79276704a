"""Calls a function with each signal."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tickwire.records import Signal

__all__ = ["CallbackSink"]

_log = logging.getLogger("tickwire.sinks")


class CallbackSink:
    """A plain or an async function, called on the event loop with one signal at a time, in order."""

    def __init__(self, callback: Callable[[Signal], Awaitable[None] | None]) -> None:
        self._callback = callback
        self.errors = 0

    async def write(self, signals: Sequence[Signal]) -> None:
        failed = 0
        for signal in signals:
            try:
                result = self._callback(signal)
                if inspect.isawaitable(result):
                    await result
            except Exception as error:  # The signals behind this one still get their call.
                if not self.errors + failed:
                    _log.warning("callback: %s: %s (reported once)", type(error).__name__, error)
                failed += 1
        self.errors += failed

    def counters(self) -> dict[str, int]:
        return {"errors": self.errors, "lost": self.errors}
