"""How long is waited for work that may never end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Expired", "Limit"]

T = TypeVar("T")

_LOOK_S = 0.02


class Expired(Exception):
    """The work had not ended by then, or nobody waits for it any more."""


class Limit:
    """So many seconds for one piece of work; less where somebody gives up."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._given_up = threading.Event()

    def give_up(self) -> None:
        """Whoever waits by this limit, now or later, gets `Expired`. Any thread."""
        self._given_up.set()

    @property
    def given_up(self) -> bool:
        return self._given_up.is_set()

    def wait(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises, or `Expired`. It runs in a thread that no exit waits for, and is
        left to itself where it does not end."""
        done: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                done.put((work(), None))
            except BaseException as error:
                done.put((None, error))

        threading.Thread(target=run, name="tickwire-limited", daemon=True).start()
        left = self.seconds
        while not self.given_up and left > 0:
            try:
                result, error = done.get(timeout=min(_LOOK_S, left))
            except queue.Empty:
                left -= _LOOK_S
                continue
            if error is not None:
                raise error
            return result  # type: ignore[return-value]
        raise Expired
