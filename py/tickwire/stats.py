"""What a run has come to, at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tickwire.stat_file import ErrorEntry, Histogram

__all__ = ["Stats"]


@dataclass(frozen=True, slots=True)
class Stats:
    """What a pipeline has done since its start."""

    seconds: float
    rows: int
    """Rows that reached Python; what the engine dropped before is in `dropped`."""
    signals: int
    """Of those, the ones that left as valid: scored, or with no model configured."""
    notices: int
    """Signals without a row, which say that a book left `valid`."""
    warming: int
    """Rows without a score because the window of a sequence model was not full yet."""
    late: int
    """Rows of a model with several workers that came after the notice that ended their epoch: withheld."""
    latency: Histogram
    """Tick to signal: `ts_out - ts_recv`."""
    stages: dict[str, Histogram]
    """Time by stage, of the same rows."""
    counters: dict[str, int]
    """Every counter of the engine's statistics file."""
    histograms: dict[str, Histogram]
    """The engine's own histograms, of every event and not only of those that gave a row."""
    errors: list[ErrorEntry]
    """The engine's error log: each kind once, with first, last and count."""
    sinks: dict[str, dict[str, int]]
    """By sink and iterator: what it got and what it lost. Iterators that are closed are one sum,
    `signals_ended`, whose `unread` they left waiting."""
    snapshots: dict[str, int]
    cpu_share: dict[str, float]
    """By thread and worker process, the part of one core it took since the start."""
    duty_cycles: dict[str, dict[str, int]] = field(default_factory=dict)
    """By thread: turns, those that did something (`busy`), those of more than a millisecond (`long`), and the
    longest in nanoseconds."""
    report: list[str] = field(default_factory=list)
    """What the engine got at start-up: memory, pages, cores, model."""
    warm: list[str] = field(default_factory=list)
    """By instrument, what became of a warm start."""
    recording_lacks: str = ""
    """Once stopped: why what was recorded is not whole; empty where it is, and where nothing was."""
    whole: bool = True
    """Of a replay: its input was read to the end, and every row was delivered."""
    captures: list[dict[str, Any]] = field(default_factory=list)
    """Of a replay, by feed, once it has ended: in which units the stamps of its files were (`stamps`), which
    venue its messages look like where it is another (`looks_like`), which instruments were found that it does
    not name (`others`), which books were lost for good and where (`lost`), and which gave no row because they
    were not warm before the end (`not_warm`)."""

    def count(self, *names: str) -> int:
        """Sum over all scopes of the counters with these names."""
        return sum(value for key, value in self.counters.items() if key.rpartition("/")[2] in names)

    @property
    def gaps(self) -> int:
        """Breaks in a venue's sequence."""
        return self.count("gaps")

    @property
    def dropped(self) -> int:
        """Rows that were lost between two stages because a ring was full or a policy gave them up."""
        return self.count(
            "rows_dropped",
            "output_dropped",
            "unscored_dropped_oldest",
            "unscored_conflated",
            "unscored_shutdown",
        )

    @property
    def invalid(self) -> int:
        """Signals without a score because something was not valid; rows that only warm up are not."""
        return self.notices + self.rows - self.signals - self.warming
