"""A bounded queue that never loses the news that a book left `valid`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

__all__ = ["NoticeQueue"]

T = TypeVar("T")


class NoticeQueue(Generic[T]):
    """First in, first out; when full it drops the newest, notices excepted.

    A notice that finds no room waits beside the queue, one an instrument, a newer one in the place of an
    older. It enters as soon as something is taken. While it waits the queue is full, so nothing that
    came after it can pass it.
    """

    def __init__(self, limit: int, notice_of: Callable[[T], Hashable | None]) -> None:
        """`notice_of`: the instrument that an item is a notice of, None for any other item."""
        self._limit = limit
        self._notice_of = notice_of
        self._items: deque[T] = deque()
        self._waiting: dict[Hashable, T] = {}  # Not empty only while `_items` is full.

    def __len__(self) -> int:
        return len(self._items) + len(self._waiting)

    def offer(self, items: Sequence[T]) -> int:
        """Takes what fits, and every notice; how many items were lost, notices that a newer one replaced
        included."""
        room = max(self._limit - len(self._items), 0)
        self._items.extend(items[:room])
        lost = 0
        for item in items[room:]:
            instrument = self._notice_of(item)
            if instrument is None:
                lost += 1
                continue
            lost += self._waiting.pop(instrument, None) is not None
            self._waiting[instrument] = item
        return lost

    def take(self, limit: int) -> list[T]:
        """Up to `limit` items, oldest first."""
        items, waiting = self._items, self._waiting
        taken: list[T] = []
        while items and len(taken) < limit:
            taken.append(items.popleft())
            if waiting:
                items.append(waiting.pop(next(iter(waiting))))
        return taken
