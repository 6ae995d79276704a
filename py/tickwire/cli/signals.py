"""SIGINT, SIGTERM and SIGHUP end every command in good order: what is open is closed, what is half is taken
back, and one line says so. A second one ends it at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

__all__ = ["Ended", "default", "on_signals", "prepare", "run"]

_T = TypeVar("_T")


class Ended(SystemExit):
    """A signal ended the command: the shell's exit code for it. As a SystemExit it passes loops and every
    `except Exception`."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


def _taken() -> list[int]:
    """Those that are ours: SIGHUP is not under nohup."""
    numbers: list[int] = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


def _raise(number: int, frame: FrameType | None) -> None:
    raise Ended(number)


def prepare() -> None:
    """For commands that wait for nothing: the signal becomes an exception where it is met."""
    for number in _taken():
        signal.signal(number, _raise)


def default() -> None:
    """Another one ends the process as it is, without a word of ours."""
    for number in _taken():
        signal.signal(number, signal.SIG_DFL)


def on_signals(handler: Callable[[int], None]) -> None:
    """From within a loop: the first signal calls `handler`, a second one ends the process at once."""
    loop = asyncio.get_running_loop()
    numbers = _taken()

    def first(number: int) -> None:
        for each in numbers:
            loop.remove_signal_handler(each)
        default()
        handler(number)

    for number in numbers:
        loop.add_signal_handler(number, first, number)


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Runs a coroutine on a loop of its own. A signal cancels it, where it has not arranged otherwise by
    `on_signals`, and then it is `Ended`."""
    import uvloop

    ended: list[int] = []

    async def cancellable() -> _T | None:
        task = asyncio.current_task()
        assert task is not None

        def cancel(number: int) -> None:
            ended.append(number)
            task.cancel()

        on_signals(cancel)
        try:
            return await main
        except asyncio.CancelledError:
            if not ended:
                raise
            return None

    try:
        result = uvloop.run(cancellable())
    finally:
        prepare()  # The loop has put back what was there before Python.
    if ended:
        raise Ended(ended[0])
    return result  # type: ignore[return-value]
