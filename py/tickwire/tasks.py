"""How the control plane's tasks end: never in silence, and never half-way."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["end", "repeat", "to_the_end"]

_log = logging.getLogger("tickwire")

T = TypeVar("T")

# Different failures of one task that are said; beyond them it goes on without a word more.
_MOST_SAID = 16


async def repeat(turn: Callable[[], Awaitable[None] | None], every_s: float, what: str) -> None:
    """Calls `turn` again and again. What it raises ends that turn alone, and is said once a kind.

    `what` names the task in the log.
    """
    said: set[str] = set()
    while True:
        await asyncio.sleep(every_s)
        try:
            result = turn()
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            kind = f"{type(error).__name__}: {error}"
            if kind not in said and len(said) < _MOST_SAID:
                said.add(kind)
                _log.exception("%s: %s (it goes on; said once)", what, kind)


async def end(task: asyncio.Task[Any] | None) -> None:
    """Cancels a task and waits until it has ended, whatever it ends with."""
    if task is not None:
        task.cancel()
        await asyncio.wait([task])


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Waits until `work` is over even when the waiting task is cancelled, which is heeded afterwards.

    For what leaves threads, files or processes behind when nobody waits for it.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # Seen: the cancellation is what the caller hears.
        raise cancelled
    return task.result()
