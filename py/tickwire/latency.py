"""Latencies of the rows that pass the router, and tables of them.

The engine keeps its own histograms in the statistics file, of every event it handles. These here are
of the rows that reached Python, whose stages add up to their tick-to-signal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tickwire.records import Rows
from tickwire.stat_file import BUCKET_COUNT, BUCKETS_END_NS, SUB_BITS, Histogram

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["RowLatencies", "in_us", "latency_table"]

# Rows kept before they are folded into buckets: bucketing a handful at a time costs as much as this many.
_PENDING = 4096


class _Column:
    """One stage's histogram under construction, in the statistics file's buckets."""

    def __init__(self) -> None:
        self.counts = np.zeros(BUCKET_COUNT, np.uint64)
        self.underflow = self.overflow = self.sum = self.max = 0

    def add(self, values: NDArray[np.int64]) -> None:
        self.underflow += int((values < 0).sum())
        self.overflow += int((values >= BUCKETS_END_NS).sum())
        inside = values[(values >= 0) & (values < BUCKETS_END_NS)]
        # Each value up to 127 has its own bucket; from there every power of two has 64 equal ones.
        shift = np.maximum(np.frexp(inside.astype(np.float64))[1] - (SUB_BITS + 1), 0)
        index = (shift << SUB_BITS) + (inside >> shift)
        self.counts += np.bincount(index, minlength=BUCKET_COUNT).astype(np.uint64)
        self.sum += int(values[values >= 0].sum())
        self.max = max(self.max, int(values.max()))

    def histogram(self) -> Histogram:
        return Histogram(self.counts.copy(), self.underflow, self.overflow, self.sum, self.max)


class RowLatencies:
    """Stage durations and tick-to-signal of the rows that pass the router."""

    def __init__(self, stages: Sequence[str]) -> None:
        self.stages = tuple(stages)
        self._columns = [_Column() for _ in range(len(self.stages) + 1)]
        self._pending = np.zeros((_PENDING, len(self.stages) + 1), np.int64)
        self._fill = 0

    def on_rows(self, rows: Rows) -> None:
        """Takes a batch in place. Notices are left out: they are about no message's way through."""
        if not rows["row"].all():
            rows = rows[rows["row"] != 0]
        start = 0
        while start < len(rows):
            part = rows[start : start + _PENDING - self._fill]
            into = self._pending[self._fill : self._fill + len(part)]
            into[:, :-1] = part["stage_ns"]
            np.subtract(part["ts_out"], part["ts_recv"], out=into[:, -1])
            start += len(part)
            self._fill += len(part)
            if self._fill == _PENDING:
                self._fold()

    def histograms(self) -> tuple[Histogram, dict[str, Histogram]]:
        """Tick-to-signal, and each stage by name."""
        self._fold()
        made = [column.histogram() for column in self._columns]
        return made[-1], dict(zip(self.stages, made[:-1], strict=True))

    def _fold(self) -> None:
        if self._fill:
            for i, column in enumerate(self._columns):
                column.add(self._pending[: self._fill, i])
            self._fill = 0


def in_us(histogram: Histogram) -> dict[str, float]:
    """p50, p99, p999 and max in microseconds."""
    figures = {"p50": histogram.p50, "p99": histogram.p99, "p999": histogram.p999, "max": histogram.max}
    return {name: round(value / 1e3, 3) for name, value in figures.items()}


def latency_table(histograms: Mapping[str, Histogram], title: str) -> Table:
    """A line a stage: count, p50, p99, p99.9 and maximum in microseconds."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("stage")
    for heading in ("count", "p50 µs", "p99 µs", "p99.9 µs", "max µs"):
        table.add_column(heading, justify="right")
    for stage, histogram in histograms.items():
        figures = (histogram.p50, histogram.p99, histogram.p999, histogram.max)
        table.add_row(stage, f"{histogram.count:,}", *(f"{value / 1e3:,.2f}" for value in figures))
    return table
