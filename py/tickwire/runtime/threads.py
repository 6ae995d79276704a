"""How busy threads and processes are, as the kernel accounts for it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["Shares"]


class Shares:
    """How much of a core each thread and each worker process takes, from the kernel's own accounting."""

    def __init__(self, threads: Mapping[str, int], workers: Callable[[], Mapping[str, int]]) -> None:
        """`workers`: the worker processes of this moment, by name."""
        self._ids = dict(threads)
        self._workers = workers
        self._used: dict[tuple[str, int], int] = {}
        self._begin = time.monotonic_ns()
        self._first = dict(self._read())

    def _read(self) -> Mapping[tuple[str, int], int]:
        """Used so far, by name and number: a worker that was started again is another process."""
        # What has ended keeps its last figure.
        for name, tid in self._ids.items():
            with contextlib.suppress(OSError, ValueError, IndexError):
                self._used[name, tid] = _cpu_ns(tid)
        for name, pid in self._workers().items():
            with contextlib.suppress(OSError):
                self._used[name, pid] = _process_cpu_ns(pid)
        return self._used

    def shares(self) -> dict[str, float]:
        """By thread and worker, the part of one core used since the start."""
        elapsed = max(time.monotonic_ns() - self._begin, 1)
        used: dict[str, int] = {}
        for key, total in self._read().items():
            used[key[0]] = used.get(key[0], 0) + total - self._first.get(key, 0)
        return {name: round(ns / elapsed, 4) for name, ns in used.items()}


def _process_cpu_ns(pid: int) -> int:
    # The clock of a process, as clock_getcpuclockid(3) makes its number.
    return time.clock_gettime_ns(~pid << 3 | 2)


def _cpu_ns(tid: int) -> int:
    try:
        text = Path(f"/proc/self/task/{tid}/schedstat").read_text(encoding="ascii")
        return int(text.split()[0])
    except FileNotFoundError:
        # A kernel without scheduler statistics counts in clock ticks only.
        text = Path(f"/proc/self/task/{tid}/stat").read_text(encoding="ascii", errors="replace")
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
