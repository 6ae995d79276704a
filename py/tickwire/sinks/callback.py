"""Calls a function with each signal."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence

from tickwire.records import Signal

__all__ = ["CallbackSink"]


class CallbackSink:
    """A plain or an async function, called on the event loop with one signal at a time, in order."""

    def __init__(self, callback: Callable[[Signal], Awaitable[None] | None]) -> None:
        self._callback = callback

    async def write(self, signals: Sequence[Signal]) -> None:
        failure: Exception | None = None
        for signal in signals:
            try:
                result = self._callback(signal)
                if inspect.isawaitable(result):
                    await result
            except Exception as error:  # The signals behind this one still get their call.
                failure = failure or error
        if failure is not None:
            raise failure
