"""Keeps the workers of the layout `processes` at work.

A worker is watched in three ways: the kernel says at once when it ends (its pidfd becomes readable on
the event loop), a heartbeat in shared memory says that its turns go on, and `/proc` says how much memory
it holds. One that ended is started again, at once if it had worked for a while, else after pauses that
double; one that hangs is killed first; one that holds too much memory is replaced in good order, by
another that was made ready beside it. A model whose workers fail too often is given up: its rows leave
unscored and say so, and everything else goes on.

Rows wait in shared memory meanwhile. What a dead worker had not finished, the next one scores.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tickwire.config import Config
from tickwire.errors import SetupError
from tickwire.tasks import end, repeat
from tickwire.units import parse_duration

if TYPE_CHECKING:
    from tickwire._core import Engine

__all__ = ["Supervisor", "WorkerPolicy", "resident_bytes", "worker_policies"]

_log = logging.getLogger("tickwire")

# Between two looks at heartbeats and memory.
_TICK_S = 0.05
# A worker that lived for so many of its back-offs had started well.
_WELL = 10.0
# The longest pause before a worker is started again.
_LONGEST_PAUSE_S = 10.0


@dataclass(frozen=True, slots=True)
class WorkerPolicy:
    """How a model's workers are kept: see the keys of `[model]` in the configuration."""

    restart_backoff_s: float
    max_restarts: int
    restart_window_s: float
    heartbeat_timeout_s: float
    start_timeout_s: float
    max_rss_bytes: int
    """0: no limit."""


def worker_policies(config: Config) -> list[WorkerPolicy]:
    """How the workers of each model are kept, in the layout `processes`."""
    return [
        WorkerPolicy(
            restart_backoff_s=parse_duration(model.restart_backoff) / 1e9,
            max_restarts=model.max_restarts,
            restart_window_s=parse_duration(model.restart_window) / 1e9,
            heartbeat_timeout_s=parse_duration(model.heartbeat_timeout) / 1e9,
            start_timeout_s=parse_duration(model.start_timeout) / 1e9,
            max_rss_bytes=model.max_rss_mb << 20,
        )
        for model in config.all_models
    ]


@dataclass(slots=True)
class _Worker:
    index: int
    name: str
    model: int
    policy: WorkerPolicy
    incidents: deque[float] = field(default_factory=deque)
    """When it died, hung or grew too large, within the window."""
    started: float = 0.0
    """The process that is there."""
    failures: int = 0
    """One after another, each soon after its start."""
    aside_since: float = 0.0
    restart: asyncio.TimerHandle | None = None
    killed: set[int] = field(default_factory=set)
    """The pidfds of processes that were killed and have not ended yet."""
    replacement: asyncio.Future[None] | None = None
    ready: asyncio.Future[None] | None = None
    """Where the replacement shall wait, once it is warm, until the others are."""


def resident_bytes(pid: int) -> int:
    """Memory of a process that is its own: not what it shares with the engine. 0 where it has ended."""
    total = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(("RssAnon:", "RssFile:")):
                total += int(line.split()[1]) * 1024
    return total


class Supervisor:
    """Runs on the event loop, from `start` to `close`. `policies`: one a model, in the engine's order."""

    def __init__(
        self, engine: Engine, policies: Sequence[WorkerPolicy], *, watch: Callable[[int], None]
    ) -> None:
        """`watch`: called with a descriptor that becomes readable when rows of a given-up model wait."""
        self._engine = engine
        self._watch = watch
        self._workers = [
            _Worker(i, worker["name"], worker["model"], policies[worker["model"]])
            for i, worker in enumerate(engine.workers)
        ]
        self._readers: dict[int, _Worker] = {}
        self._ticker: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def pids(self) -> dict[str, int]:
        """By worker, its process; without those that have none just now."""
        return {state["name"]: state["pid"] for state in self._engine.workers if state["pid"]}

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        for worker in self._workers:
            worker.started = time.monotonic()
            self._follow(worker)
        self._ticker = self._loop.create_task(
            repeat(self._tick, _TICK_S, "the watch over worker processes"), name="tickwire supervisor"
        )

    async def close(self) -> None:
        """From now on nobody is restarted: the engine stops its workers itself."""
        self._closed = True
        await end(self._ticker)
        self._ticker = None
        if self._loop is None:
            return
        for descriptor in list(self._readers):
            self._loop.remove_reader(descriptor)
        self._readers.clear()
        for worker in self._workers:
            if worker.restart is not None:
                worker.restart.cancel()
            self._replaced(worker, SetupError(f"worker {worker.name}: the pipeline stopped meanwhile"))

    async def replace(self, index: int) -> None:
        """Puts another process in a worker's place, between two rows.

        It is started and warmed aside; then the one at work finishes its turn and leaves. Raises
        `SetupError`, and leaves the worker at work, when the other one cannot start.
        """
        await self._replace([self._workers[index]], prepared=False)

    async def swap(self, model: int) -> None:
        """All workers of a model go over to the files that `engine.prepare_model` made ready: all, or, where
        one of them cannot, none."""
        await self._replace([worker for worker in self._workers if worker.model == model], prepared=True)

    async def _replace(self, workers: Sequence[_Worker], *, prepared: bool) -> None:
        if self._closed:
            raise SetupError("the pipeline stopped meanwhile")
        for worker in workers:
            if self._engine.workers[worker.index]["given_up"]:
                raise SetupError(f"worker {worker.name}: its model was given up; start the pipeline again")
            while worker.replacement is not None:  # For memory, say: ours comes next.
                await asyncio.wait([worker.replacement])
        for worker in workers:
            self._begin_replacement(worker, prepared=prepared, hold=True)
        try:
            await asyncio.gather(*(worker.ready for worker in workers if worker.ready is not None))
        except BaseException:
            for worker in workers:
                if self._engine.workers[worker.index]["aside"]["pid"]:
                    self._engine.kill_worker(worker.index, True, False)
            raise
        waiting = [worker.replacement for worker in workers if worker.replacement is not None]
        for worker in workers:
            if worker.replacement is not None:
                self._hand_over(worker)
        await asyncio.gather(*waiting)

    # What the kernel says.

    def _follow(self, worker: _Worker) -> None:
        """Watches the processes of a worker that are not watched yet."""
        assert self._loop is not None
        state = self._engine.workers[worker.index]
        for descriptor in (state["pidfd"], state["aside"]["pidfd"]):
            if descriptor >= 0 and descriptor not in self._readers:
                self._readers[descriptor] = worker
                self._loop.add_reader(descriptor, self._ended, worker, descriptor)

    def _ended(self, worker: _Worker, descriptor: int) -> None:
        assert self._loop is not None
        aside = self._engine.workers[worker.index]["aside"]["pidfd"] == descriptor
        # Before it is closed: its number may come again.
        self._loop.remove_reader(descriptor)
        del self._readers[descriptor]
        worker.killed.discard(descriptor)
        end = self._engine.reap_worker(worker.index, aside)
        if end is None:  # Readable and alive: only if somebody else waited for our child.
            self._follow(worker)
            return
        if aside and worker.replacement is not None and not worker.aside_since:
            # It had been handed over to: the one before it still leaves, and then another one starts.
            _log.error("worker %s: %s", worker.name, end["how"])
            worker.incidents.append(time.monotonic())
            self._replaced(worker, None)
            return
        if aside:
            _log.error("worker %s: its replacement could not start: %s", worker.name, end["how"])
            self._replaced(
                worker, SetupError(f"worker {worker.name}: expected one that starts, found {end['how']}")
            )
            return
        if not end["in_order"]:
            _log.error("worker %s: %s", worker.name, end["how"])
            worker.incidents.append(time.monotonic())
        if self._engine.workers[worker.index]["given_up"]:
            return
        if end["trouble"]:
            self._give_up(worker, f"the memory it shared is damaged: {end['trouble']}")
        elif self._engine.workers[worker.index]["pid"]:
            # Another one was aside, and goes on now.
            worker.started = time.monotonic()
            self._replaced(worker, None)
        else:
            self._restart(worker, end["how"])

    # What follows from it.

    def _restart(self, worker: _Worker, how: str) -> None:
        assert self._loop is not None
        if self._too_many(worker):
            self._give_up(
                worker,
                f"{len(worker.incidents)} failures in {worker.policy.restart_window_s:g} s; the last: {how}",
            )
            return
        # One that had worked for a while is back at once. One that fails again and again waits, twice as
        # long each time, and a little different each time, so that several workers of one bad model do not
        # all start at one moment.
        backoff = worker.policy.restart_backoff_s
        lived = time.monotonic() - worker.started
        worker.failures = worker.failures + 1 if lived < _WELL * backoff else 0
        pause = 0.0
        if worker.failures:
            pause = min(backoff * 2.0 ** min(worker.failures - 1, 20), _LONGEST_PAUSE_S)
            pause *= random.uniform(0.5, 1.0)
        worker.restart = self._loop.call_later(pause, self._start, worker)

    def _start(self, worker: _Worker) -> None:
        worker.restart = None
        if distrusted := self._engine.workers[worker.index]["distrusted"]:
            # Found in what the dead one had left.
            self._give_up(worker, f"the memory it shared is damaged: {distrusted}")
            return
        worker.started = time.monotonic()
        try:
            self._engine.start_worker(worker.index)
        except Exception as error:  # No process, no memory: as good as one that died.
            _log.error("worker %s: %s", worker.name, error)
            worker.incidents.append(time.monotonic())
            self._restart(worker, str(error))
            return
        self._follow(worker)

    def _too_many(self, worker: _Worker) -> bool:
        horizon = time.monotonic() - worker.policy.restart_window_s
        while worker.incidents and worker.incidents[0] < horizon:
            worker.incidents.popleft()
        return len(worker.incidents) > worker.policy.max_restarts

    def _give_up(self, worker: _Worker, why: str) -> None:
        _log.error("worker %s: given up, its rows leave unscored: %s", worker.name, why)
        state = self._engine.workers[worker.index]
        for aside, process in ((False, state), (True, state["aside"])):
            if process["pid"]:
                self._engine.kill_worker(worker.index, aside, False)
        self._engine.give_up_worker(worker.index, why)
        self._watch(state["wake_fd"])
        self._replaced(worker, SetupError(f"worker {worker.name}: given up: {why}"))

    # Replacements.

    def _begin_replacement(self, worker: _Worker, *, prepared: bool, hold: bool) -> None:
        assert self._loop is not None
        worker.replacement = self._loop.create_future()
        worker.ready = self._loop.create_future() if hold else None
        worker.aside_since = time.monotonic()
        try:
            self._engine.start_worker_aside(worker.index, prepared)
        except Exception as error:  # No process, no memory.
            self._replaced(worker, SetupError(f"worker {worker.name}: {error}"))
            return
        self._follow(worker)

    def _hand_over(self, worker: _Worker) -> None:
        worker.aside_since = 0.0
        worker.ready = None
        if worker.restart is not None:  # There is nobody to hand over; the one aside just begins.
            worker.restart.cancel()
            worker.restart = None
        self._engine.hand_over_worker(worker.index)
        if not self._engine.workers[worker.index]["aside"]["pid"]:
            self._replaced(worker, None)

    def _replaced(self, worker: _Worker, error: SetupError | None) -> None:
        """The replacement has taken over, or failed."""
        for future in (worker.ready, worker.replacement):
            if future is None or future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
                future.exception()  # Seen: one for memory has nobody who waits for it.
        worker.ready = worker.replacement = None
        worker.aside_since = 0.0

    # What the worker itself says, or does not say.

    def _tick(self) -> None:
        for worker, state in zip(self._workers, self._engine.workers, strict=True):
            if state["given_up"]:
                continue
            if state["pid"] and state["pidfd"] not in worker.killed:
                self._look(worker, state)
            if state["aside"]["pid"]:
                self._look_aside(worker, state["aside"])

    def _look(self, worker: _Worker, state: dict[str, object]) -> None:
        policy = worker.policy
        now = time.monotonic()
        age_ns = state["heartbeat_age_ns"]
        assert isinstance(age_ns, int)
        if state["phase"] == "loading":
            hangs = now - worker.started > policy.start_timeout_s
        else:
            hangs = age_ns > policy.heartbeat_timeout_s * 1e9
        if hangs:
            what = (
                "still loads"
                if state["phase"] == "loading"
                else f"gave no sign of life for {age_ns / 1e9:.1f} s"
            )
            _log.error("worker %s: it %s, and is killed", worker.name, what)
            self._kill(worker, state, aside=False)
        elif policy.max_rss_bytes and state["phase"] == "running" and worker.replacement is None:
            pid = state["pid"]
            assert isinstance(pid, int)
            self._look_at_memory(worker, resident_bytes(pid))

    def _look_at_memory(self, worker: _Worker, resident: int) -> None:
        if resident <= worker.policy.max_rss_bytes:
            return
        holds = (
            f"it holds {resident / 2**20:.0f} MiB, more than max_rss_mb = {worker.policy.max_rss_bytes >> 20}"
        )
        worker.incidents.append(time.monotonic())
        if self._too_many(worker):
            self._give_up(worker, f"{holds}, and so did {len(worker.incidents) - 1} before it")
            return
        _log.warning("worker %s: %s, and is replaced", worker.name, holds)
        self._begin_replacement(worker, prepared=False, hold=False)

    def _look_aside(self, worker: _Worker, aside: dict[str, object]) -> None:
        if aside["pidfd"] in worker.killed:
            return
        if aside["phase"] == "ready" and worker.aside_since:
            if worker.ready is None:
                self._hand_over(worker)
            elif not worker.ready.done():
                worker.ready.set_result(None)
        elif worker.aside_since and time.monotonic() - worker.aside_since > worker.policy.start_timeout_s:
            self._kill(worker, aside, aside=True)

    def _kill(self, worker: _Worker, process: dict[str, object], *, aside: bool) -> None:
        descriptor = process["pidfd"]
        assert isinstance(descriptor, int)
        worker.killed.add(descriptor)
        self._engine.kill_worker(worker.index, aside, True)
