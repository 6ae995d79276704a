"""How long a model's runs take on this host: `tickwire model bench`.

The runs are made and timed in C++ (infer/model_timer.hpp), on the engine's own code path; Python only says
which load comes next and reads the times afterwards. A row's time counts from its arrival, by the clock,
until its scores are there.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tickwire import models
from tickwire.errors import SetupError

__all__ = ["PERCENTILES", "Cell", "Result", "Settings", "cells", "conditions", "pinned", "run"]

PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
_IDLE_INTERVAL_NS: Final = 5_000_000
_BURST_INTERVAL_NS: Final = 10_000_000


@dataclass(frozen=True)
class Settings:
    """The loads. Each is there with warm and with cold caches."""

    rate: int
    """Rows a second of the paced load."""
    burst: int
    """Rows that arrive at once in a burst."""
    max_batch: int
    seconds: float
    """Of each load."""


@dataclass(frozen=True)
class Cell:
    """One line of the table, before it is measured."""

    provider: str
    load: str
    caches: str
    rows: int
    interval_ns: int


@dataclass(frozen=True)
class Result:
    cell: Cell
    executor: str
    times_ns: NDArray[np.int64]

    def figures_us(self) -> dict[str, float]:
        # The smallest time that the share of rows does not exceed: one that was measured.
        return {
            name: float(np.percentile(self.times_ns, share, method="inverted_cdf")) / 1e3
            for name, share in PERCENTILES.items()
        }

    def as_dict(self) -> dict[str, Any]:
        return {
            "executor": self.executor,
            "provider": self.cell.provider,
            "load": self.cell.load,
            "caches": self.cell.caches,
            "rows": len(self.times_ns),
            "us": self.figures_us(),
        }


def cells(providers: Sequence[str], settings: Settings) -> list[Cell]:
    """What will be measured, in the order of the table."""
    paced_ns = 1_000_000_000 // settings.rate
    return [
        Cell(provider, load, caches, rows, interval_ns)
        for provider in providers
        for load, rows, interval_ns in (
            ("idle", 1, _IDLE_INTERVAL_NS),
            ("paced", 1, paced_ns),
            ("burst", settings.burst, _BURST_INTERVAL_NS),
        )
        for caches in ("warm", "cold")
    ]


def run(path: str | os.PathLike[str], todo: Sequence[Cell], settings: Settings) -> Iterator[Result]:
    """Measures one cell after another. A model that cannot be loaded is an error before the first."""
    loaded = {
        provider: models.load([path], provider=provider, max_batch=settings.max_batch)
        for provider in dict.fromkeys(cell.provider for cell in todo)
    }
    for cell in todo:
        model = loaded[cell.provider]
        model.warm_up()
        times = model.time(
            rows=cell.rows,
            interval_ns=cell.interval_ns,
            total_ns=int(settings.seconds * 1e9),
            sleep=cell.load == "idle",
            cold=cell.caches == "cold",
        )
        yield Result(cell, model.executor, times)


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Keeps this thread on one core meanwhile."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    if core not in before:
        raise SetupError(
            f"--core: expected one of {sorted(before)}, which this process may use, found {core}"
        )
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def conditions(core: int | None) -> dict[str, str]:
    """What of the host bears on the times."""
    cpu = core if core is not None else min(os.sched_getaffinity(0))
    governor = _read(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")
    isolated = _read("/sys/devices/system/cpu/isolated")
    return {
        "cpu": _cpu_name(),
        "cores": f"{len(os.sched_getaffinity(0))} to run on",
        "thread": "not pinned" if core is None else f"pinned to core {core}",
        "governor": governor or "not visible (a guest?)",
        "isolated cores": isolated or "none",
        "load average": f"{os.getloadavg()[0]:.1f} before the start",
    }


def _cpu_name() -> str:
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
