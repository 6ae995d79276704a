"""A stand-in for `tickwire._core` with its contract: a ring of records, an eventfd, a sleep flag.

A producer, on any thread, calls `push`. As in the engine a producer looks at the sleep flag after it
published, and the consumer looks at the ring after it set the flag; a lock makes that order plain.
What the contract leaves to a reader is enforced here: a released slot is overwritten at once, so a
view that outlives its release shows.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

import tickwire.errors

STAGES = ("receive", "decode", "book", "features", "queue", "model", "publish")
STATES = ("valid", "suspect", "stale", "halted", "empty", "nonfinite", "model_error", "warming")
REASONS = ("none", "gap", "crossed", "malformed", "disconnected", "stopped")
EXECUTORS = ("onnxruntime",)
NO_TIME = -(2**63)
_POISON = 0xEE


class SetupError(tickwire.errors.SetupError):
    """As the engine's."""


def is_pcap(path: str) -> bool:
    """By its name, so that a test needs no file."""
    return path.endswith(".pcap")


def row_dtype(features: int, scores: int = 0) -> np.dtype[np.void]:
    fields: list[Any] = [
        ("instrument", "u4"),
        ("epoch", "u4"),
        ("row", "u8"),
        ("sequence", "u8"),
        ("ts_event", "i8"),
        ("ts_recv", "i8"),
        ("ts_out", "i8"),
        ("state", "u1"),
        ("reason", "u1"),
        ("recv_clock", "u1"),
        ("scored", "u1"),
        ("model_id", "u4"),
        ("stage_ns", "i8", (len(STAGES),)),
        ("missing_trades", "u4"),
        ("unseen_us", "u4"),
    ]
    if scores:
        fields.append(("scores", "f4", (scores,)))
    fields.append(("features", "f4", (features,)))
    return np.dtype(fields)


def make_rows(count: int, features: int, scores: int = 0, *, first: int = 1, instrument: int = 0) -> Any:
    """Valid rows `first`, `first` + 1, … whose every field follows from the row's number."""
    rows = np.zeros(count, row_dtype(features, scores))
    number = np.arange(first, first + count)
    rows["instrument"] = instrument
    rows["epoch"] = 1
    rows["row"] = number
    rows["sequence"] = 1000 + number
    rows["ts_event"] = 1_700_000_000_000_000_000 + number * 1_000_000
    rows["ts_recv"] = rows["ts_event"] + 500
    rows["stage_ns"] = np.arange(1, len(STAGES) + 1) * 1000
    rows["ts_out"] = rows["ts_recv"] + rows["stage_ns"].sum(axis=1)
    rows["features"] = (number[:, None] + np.arange(features) / 10).astype("f4")
    if scores:
        rows["scores"] = (number[:, None] / 7 + np.arange(scores)).astype("f4")
        rows["scored"] = 1
        rows["model_id"] = 77
    return rows


def notice(instrument: int = 0, *, state: str = "suspect", reason: str = "gap", like: Any) -> Any:
    """A record that says that a book left valid, of the same layout as `like`."""
    row = np.zeros(1, like.dtype)
    row["instrument"] = instrument
    row["epoch"] = 1
    row["ts_event"] = NO_TIME
    row["ts_recv"] = row["ts_out"] = 1_700_000_000_000_000_123
    row["state"] = STATES.index(state)
    row["reason"] = REASONS.index(reason)
    return row


class Engine:
    """One ring. `script`, where a test set one, runs on a thread between start and stop."""

    script: Callable[[Engine], None] | None = None
    slots = 64
    scores_of_a_model = ("prob_0", "prob_1", "prob_2")
    max_snapshot_bytes = 1 << 20
    last: Engine | None = None

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.models = [
            {
                "name": model["name"],
                "id": model["id"],
                "ids": [model["id"]],
                "executor": f"{EXECUTORS[-1]} 1.0 cpu",
                "score_names": list(self.scores_of_a_model),
                "shadow": model["shadow"],
            }
            for model in config["models"]
        ]
        self.row_dtype = row_dtype(
            len(config["features"]["outputs"]), len(self.scores_of_a_model) if self.models else 0
        )
        self.report = ["a fake engine"]
        self.workers: list[dict[str, Any]] = []
        self.warm_report: list[str] = []
        self.capture_facts: list[dict[str, Any]] = []
        self.threads: dict[str, int] = {}
        self.duty_cycles: dict[str, dict[str, int]] = {}
        self.stat_path = ""
        self.stat_bytes_missing = 0
        self.finished = False
        self.failed: str | None = None
        self.dropped = 0
        self.wakeups = 0
        self.requests: list[tuple[int, int, int]] = []
        self.delivered: list[tuple[int, int, bytes]] = []
        self.failures: list[tuple[int, int, str]] = []
        self.pauses_ns: list[int] = []
        """Of each failure."""
        self.stopping = threading.Event()
        self._ring = np.zeros(self.slots, self.row_dtype)
        self._head = self._tail = self._polled = 0
        self._asleep = False
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread: threading.Thread | None = None
        Engine.last = self

    def __del__(self) -> None:
        if hasattr(self, "_fd"):  # A test may have kept it from being made.
            os.close(self._fd)

    def start(self) -> None:
        script = type(self).script
        if script is not None:
            self._thread = threading.Thread(target=self._play, args=(script,), daemon=True)
            self._thread.start()

    def _play(self, script: Callable[[Engine], None]) -> None:
        script(self)
        self.finished = self.config["replay"]

    def stop(self) -> None:
        self.stopping.set()
        with self._lock:
            self._room.notify_all()
        if self._thread is not None:
            self._thread.join()

    def recorded_files(self) -> list[tuple[str, int, str]]:
        return []

    def finish_recording(self) -> None:
        pass

    def stat_view(self) -> memoryview:
        """No statistics: a file of zeros."""
        return memoryview(bytes(512))

    # The producer's side.

    def push(self, rows: Any) -> None:
        """Writes what fits and counts the rest, as live; in a replay waits for room."""
        for row in rows:
            with self._lock:
                while self._tail - self._head == self.slots:
                    if not self.config["replay"] or self.stopping.is_set():
                        self.dropped += 1
                        break
                    self._room.wait(1.0)
                else:
                    self._ring[self._tail % self.slots] = row
                    self._tail += 1
                wake, self._asleep = self._asleep, False
            if wake:
                os.eventfd_write(self._fd, 1)
                self.wakeups += 1

    # The router's side.

    def waker_fd(self) -> int:
        return self._fd

    def prepare_sleep(self) -> bool:
        with self._lock:
            self._asleep = True
            if self._tail == self._head and not self.requests:
                return True
            self._asleep = False
            return False

    def woke(self) -> None:
        with self._lock:
            self._asleep = False
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)

    def poll(self) -> Any:
        with self._lock:
            start = self._head % self.slots
            count = min(self._tail - self._head, self.slots - start)
            self._polled = count
        view = self._ring[start : start + count]
        view.flags.writeable = False
        return view

    def release(self) -> None:
        with self._lock:
            start = self._head % self.slots
            self._ring[start : start + self._polled].view(np.uint8)[:] = _POISON
            self._head += self._polled
            self._polled = 0
            self._room.notify_all()

    # Snapshots.

    def poll_requests(self) -> list[tuple[int, int, int]]:
        with self._lock:
            taken, self.requests = self.requests, []
        return taken

    def deliver_snapshot(self, feed: int, instrument: int, body: bytes) -> bool:
        self.delivered.append((feed, instrument, body))
        return True

    def fail_snapshot(self, feed: int, instrument: int, why: str, pause_ns: int = 0) -> bool:
        self.failures.append((feed, instrument, why))
        self.pauses_ns.append(pause_ns)
        return True
