"""Drains the engine's ring on the event loop.

The router sleeps on the engine's eventfd, and only after it has told the engine so:

    poll() empty -> prepare_sleep()  True: asleep, the next row writes the eventfd
                                     False: a row came in between, drain again

Both sides order flag and ring sequentially (in C++), so a row is either seen by the second look or
wakes us. A timer looks again anyway, as a net under a rule that no test can prove.

One turn handles one `poll()` in slices, and gives the loop a turn after each: the drain never
starves the loop, and with no row to drain the router costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numpy as np

from tickwire.records import RowLayout, Rows
from tickwire.router.age import AgeLimit
from tickwire.router.consumers import FeatureHub, FeatureStream, SignalQueue
from tickwire.router.gate import EpochGate

if TYPE_CHECKING:
    from tickwire._core import Engine

__all__ = ["Router"]

# Rows turned into signals before the loop gets a turn: well under a millisecond.
_SLICE = 256
# The net under the wake-up: how long a row could lie if a wake-up were ever lost.
_NET_S = 0.05


class Router:
    """Hands the engine's rows to consumers. Runs as one task on one loop; nothing here is thread-safe."""

    def __init__(
        self,
        engine: Engine,
        layout: RowLayout,
        *,
        lossless: bool = False,
        shared: Collection[str] = (),
        age_limit: AgeLimit | None = None,
    ) -> None:
        """`shared`: names of the models whose workers share an instrument's rows; `age_limit`: None for a
        replay, where nothing is too old."""
        self.layout = layout
        self.gate = EpochGate(layout, shared)
        self.rows = 0
        self.valid = 0
        self.notices = 0
        self.warming = 0
        self.before_sleep: Callable[[], None] | None = None
        """Called when the ring is empty: for what else the engine wakes us for."""
        self._engine = engine
        self._stopped = layout.reasons.index("stopped")
        self._warming = layout.states.index("warming")
        self._lossless = lossless
        self._age_limit = age_limit
        self._queues: list[SignalQueue] = []
        self._row_callbacks: list[Callable[[Rows], None]] = []
        self._all_callbacks: list[Callable[[Rows], None]] = []
        self._shadows = [model.id for model in layout.models if model.shadow]
        self._features = FeatureHub()
        self._stopping = False
        self._closed = False
        self._wake = asyncio.Event()
        self._watched: list[int] = []

    def watch(self, descriptor: int) -> None:
        """Another descriptor that becomes readable when the engine has rows for us; cleared by its `woke`."""
        asyncio.get_running_loop().add_reader(descriptor, self._on_waker)
        self._watched.append(descriptor)

    # Subscriptions: from the loop's thread, at any time.

    def on_rows(self, callback: Callable[[Rows], None], *, shadows: bool = False) -> None:
        """Calls back with each batch in place. The callback must be quick and copy what it keeps.

        `shadows`: also with the records of models that are shadows, where the engine hands them on.
        """
        (self._all_callbacks if shadows else self._row_callbacks).append(callback)

    def queue(self, name: str, limit: int) -> SignalQueue:
        """A queue of signals of its own. Unsubscribe with `remove`."""
        queue = SignalQueue(name, limit, lossless=self._lossless, age_limit=self._age_limit)
        if self._closed:
            queue.close()
        else:
            self._queues.append(queue)
        return queue

    def remove(self, queue: SignalQueue) -> None:
        if queue in self._queues:
            self._queues.remove(queue)

    def feature_stream(self, at_end: Callable[[], None]) -> FeatureStream:
        return self._features.stream(at_end)

    @property
    def expired(self) -> int:
        """Records and signals that were valid when the engine published them, and too old when taken."""
        return self._age_limit.expired if self._age_limit is not None else 0

    def stop(self) -> None:
        """Asks the task to drain what is in the ring now and end."""
        self._stopping = True
        self._features.hurry()
        self._wake.set()

    async def run(self) -> None:
        """Until the engine has finished or failed, or `stop`. Whatever the ring held by then is delivered."""
        loop = asyncio.get_running_loop()
        descriptor = self._engine.waker_fd()
        loop.add_reader(descriptor, self._on_waker)
        try:
            while True:
                # Read before the poll: what the engine published before it finished is then in that poll.
                ending = self._stopping or self._engine.finished or self._engine.failed is not None
                drained = await self._drain()
                if self.before_sleep is not None:
                    self.before_sleep()
                if drained:
                    await asyncio.sleep(0)
                elif ending:
                    return
                elif self._engine.prepare_sleep():
                    await self._sleep(loop)
                else:
                    await asyncio.sleep(0)
        finally:
            for watched in (descriptor, *self._watched):
                loop.remove_reader(watched)
            self._close()

    def _on_waker(self) -> None:
        self._engine.woke()  # Clears the descriptor, which is level-triggered.
        self._wake.set()

    async def _sleep(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._stopping:
            return
        self._wake.clear()
        net = loop.call_later(_NET_S, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            net.cancel()
            self._engine.woke()  # After the timer or stop() the flag still says asleep.

    async def _drain(self) -> int:
        rows = self._engine.poll()
        count = len(rows)
        if count == 0:
            return 0
        try:
            for start in range(0, count, _SLICE):
                if start:
                    await asyncio.sleep(0)
                await self._dispatch(rows[start : start + _SLICE])
        finally:
            self._engine.release()
        return count

    async def _dispatch(self, rows: Rows) -> None:
        rows = self.gate.admit(rows)
        for callback in self._all_callbacks:
            callback(rows)
        if self._shadows:
            rows = rows[~np.isin(rows["model_id"], self._shadows)]
        if not len(rows):
            return
        if self._age_limit is not None:
            rows = self._age_limit.rows(rows)
        self._count(rows)
        for callback in self._row_callbacks:
            callback(rows)
        if self._queues:
            judge = self._age_limit
            signals = self.layout.signals(rows) if judge is None else judge.signals(rows)
            for queue in self._queues:
                queue.offer(signals)
            if self._lossless:
                for queue in list(self._queues):
                    await queue.room()
        self._features.offer(rows, self.layout)
        await self._features.drained()

    def _count(self, rows: Rows) -> None:
        real = rows["row"] != 0
        valid = real & (rows["state"] == 0)
        if self.layout.score_count:
            valid &= rows["scored"] != 0
        # Our own stop ends every book's life in order: nothing was invalid.
        stopped = rows["reason"] == self._stopped
        self.rows += int(real.sum())
        self.notices += int((~real & ~stopped).sum())
        self.valid += int(valid.sum())
        self.warming += int((real & (rows["state"] == self._warming)).sum())

    def _close(self) -> None:
        self._closed = True
        for queue in list(self._queues):
            queue.close()
        self._features.close()
