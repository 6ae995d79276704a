"""Who listens to the router: bounded queues of copied signals, and streams of rows in place.

A consumer of signals has a bounded queue of its own. When it is full the newest signals are dropped
for this consumer alone, and counted. The notice that a book left `valid` is not dropped: it waits
beside a full queue. In a replay nothing is dropped: the router waits for room, and the engine waits for
the router.

A consumer of features works in the ring itself, so the router waits for it before it gives the slots
back. That is the price of not copying, and it is stated where it is offered.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Sequence

from tickwire.errors import Error
from tickwire.records import FeatureBatch, RowLayout, Rows, Signal
from tickwire.router.age import AgeLimit
from tickwire.router.notices import NoticeQueue

__all__ = ["FeatureStream", "SignalQueue", "SignalStream"]

# An iterator that always finds the next signal waiting would never let the loop turn.
_YIELD_EVERY = 256
# How long a consumer may sit on a batch once the engine has stopped: it may be the one that waits for us.
_PATIENCE_S = 0.25


class SignalQueue:
    """Bounded queue of signals: the router puts, one consumer takes. One event loop, no locks."""

    def __init__(
        self, name: str, limit: int, *, lossless: bool = False, age_limit: AgeLimit | None = None
    ) -> None:
        """`age_limit` judges signals once more as they are taken."""
        if limit < 1:
            raise Error(f"queue: expected room for at least one signal, found {limit}")
        self.name = name
        self.limit = limit
        self.dropped = 0
        self.closed = False
        self._age_limit = age_limit
        self._items = NoticeQueue[Signal](sys.maxsize if lossless else limit, Signal.notice_of)
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def __len__(self) -> int:
        return len(self._items)

    def offer(self, signals: Sequence[Signal]) -> None:
        """Takes what fits, and every notice, and counts what it does not take. Never waits."""
        if self.closed or not signals:
            return
        self.dropped += self._items.offer(signals)
        self._readable.set()
        if len(self._items) >= self.limit:
            self._writable.clear()

    async def room(self) -> None:
        """Waits until the queue is below its limit or closed."""
        while not self.closed and len(self._items) >= self.limit:
            await self._writable.wait()

    def close(self) -> None:
        """No more will come; what waits can still be taken."""
        self.closed = True
        self._readable.set()
        self._writable.set()

    def take(self, limit: int) -> list[Signal]:
        """Up to `limit` waiting signals, oldest first. Never waits."""
        taken = self._items.take(limit)
        if len(self._items) < self.limit:
            self._writable.set()
        if not self._items and not self.closed:
            self._readable.clear()
        return self.judged(taken)

    def judged(self, signals: list[Signal]) -> list[Signal]:
        """Those that grew too old while they waited as stale."""
        return self._age_limit.judged(signals) if self._age_limit is not None else signals

    async def get(self, limit: int = 512) -> list[Signal]:
        """Waits for signals and takes up to `limit`; an empty list once closed and empty."""
        while not self._items:
            if self.closed:
                return []
            await self._readable.wait()
        return self.take(limit)


class SignalStream:
    """Async iterator over signals, with a queue of its own. Leaving the loop unsubscribes it."""

    def __init__(
        self, queue: SignalQueue, on_close: Callable[[SignalStream], None], at_end: Callable[[], None]
    ) -> None:
        self.queue = queue
        self.delivered = 0
        self._on_close = on_close
        self._at_end = at_end  # Raises where the end has a reason that the caller must hear.
        self._ready: deque[Signal] = deque()
        self._since_yield = 0
        self._closed = False

    @property
    def dropped(self) -> int:
        """Signals that this iterator lost because it was not fast enough."""
        return self.queue.dropped

    def __aiter__(self) -> SignalStream:
        return self

    async def __anext__(self) -> Signal:
        if not self._ready:
            self._ready.extend(await self.queue.get(64))
            if not self._ready:
                self._at_end()
                raise StopAsyncIteration
        self._since_yield += 1
        if self._since_yield >= _YIELD_EVERY:
            self._since_yield = 0
            await asyncio.sleep(0)
        self.delivered += 1
        return self.queue.judged([self._ready.popleft()])[0]

    def counters(self) -> dict[str, int]:
        """What was handed out, what was lost, and what waits or was left waiting."""
        waiting = len(self._ready) + len(self.queue)
        return {"delivered": self.delivered, "dropped": self.dropped, "unread": waiting}

    def close(self) -> None:
        """Unsubscribes. Leaving an `async for` loop does it too, as the iterator is dropped."""
        self.queue.close()
        if not self._closed:
            self._closed = True
            self._on_close(self)
            self._ready.clear()
            self.queue.take(len(self.queue))

    def __del__(self) -> None:
        self.close()


class _FeatureSlot:
    """Where the router lays a batch, and waits until the consumer is through with it."""

    def __init__(self) -> None:
        self.batch: FeatureBatch | None = None
        self.closed = False
        self.ready = asyncio.Event()
        self.done = asyncio.Event()
        self.done.set()

    def finish(self) -> None:
        if self.batch is not None:
            self.batch.expire()
            self.batch = None
        self.done.set()

    def close(self) -> None:
        self.closed = True
        self.finish()
        self.ready.set()


class FeatureStream:
    """Async iterator over batches that lie in the engine's ring; `FeatureBatch` says for how long."""

    def __init__(
        self, slot: _FeatureSlot, unsubscribe: Callable[[_FeatureSlot], None], at_end: Callable[[], None]
    ) -> None:
        self._slot = slot
        self._unsubscribe = unsubscribe
        self._at_end = at_end
        self._held = False

    def __aiter__(self) -> FeatureStream:
        return self

    async def __anext__(self) -> FeatureBatch:
        slot = self._slot
        if self._held:  # The caller is back: it is through with the batch it got last.
            self._held = False
            slot.finish()
        while slot.batch is None:
            if slot.closed:
                self._at_end()
                raise StopAsyncIteration
            slot.ready.clear()
            await slot.ready.wait()
        self._held = True
        return slot.batch

    def close(self) -> None:
        """Gives the batch back and unsubscribes. Leaving an `async for` loop does it too."""
        self._slot.close()
        self._unsubscribe(self._slot)

    def __del__(self) -> None:
        self.close()


class FeatureHub:
    """The streams of features; owned by the router."""

    def __init__(self) -> None:
        self._slots: list[_FeatureSlot] = []
        self._hurrying = False
        self.closed = False

    def stream(self, at_end: Callable[[], None]) -> FeatureStream:
        slot = _FeatureSlot()
        if self.closed:
            slot.close()
        else:
            self._slots.append(slot)
        return FeatureStream(slot, self._remove, at_end)

    def _remove(self, slot: _FeatureSlot) -> None:
        if slot in self._slots:
            self._slots.remove(slot)

    def offer(self, rows: Rows, layout: RowLayout) -> None:
        for slot in self._slots:
            slot.batch = FeatureBatch(rows, layout)
            slot.done.clear()
            slot.ready.set()
        if self._hurrying:
            self.hurry()

    def hurry(self) -> None:
        """The engine has stopped: a consumer that does not come back for more soon is not waited for."""
        self._hurrying = True
        for slot in self._slots:
            if slot.batch is not None:
                asyncio.get_running_loop().call_later(_PATIENCE_S, self._give_up, slot, slot.batch)

    def _give_up(self, slot: _FeatureSlot, batch: FeatureBatch) -> None:
        if slot.batch is batch:
            slot.close()
            self._remove(slot)

    async def drained(self) -> None:
        """Waits until every consumer is through with what was offered."""
        for slot in list(self._slots):
            await slot.done.wait()

    def close(self) -> None:
        """No more will come. A batch that a consumer still holds expires."""
        self.closed = True
        for slot in list(self._slots):
            slot.close()
        self._slots.clear()
