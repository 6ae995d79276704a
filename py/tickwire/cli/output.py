"""What the commands print: a status line while it runs, a report at the end."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tickwire.config import Config
from tickwire.engine import Pipeline, Stats
from tickwire.findings import findings
from tickwire.latency import in_us, latency_table

__all__ = ["console", "print_json", "print_report", "report_dict", "watch"]

_REFRESH_S = 0.25
_PLAIN_EVERY_S = 5.0
_BOOK_VALID = 2  # The engine's code in the counter `book_state`.


def console(*, to_stderr: bool) -> Console:
    """Where people read. Standard output is left to data where data goes there."""
    return Console(stderr=to_stderr, highlight=False)


def status_text(stats: Stats, previous: Stats | None) -> str:
    """The state of a run in one line that fits a terminal: valid books, rows, tick-to-signal, losses."""
    since = previous.seconds if previous is not None else 0.0
    rate = (stats.rows - (previous.rows if previous is not None else 0)) / max(stats.seconds - since, 1e-9)
    books = [value for key, value in stats.counters.items() if key.endswith("/book_state")]
    valid = f"  books {sum(value == _BOOK_VALID for value in books)}/{len(books)}" if books else ""
    lost = sum(counts.get("dropped", 0) + counts.get("lost", 0) for counts in stats.sinks.values())
    sinks = f"  sinks lost {lost:,}" if lost else ""
    return (
        f"{stats.seconds:5.1f} s{valid}  rows {stats.rows:,} ({rate:,.0f}/s)  "
        f"p50 {stats.latency.p50 / 1e3:.1f} µs  p99 {stats.latency.p99 / 1e3:.1f} µs  "
        f"gaps {stats.gaps}  dropped {stats.dropped}{sinks}"
    )


async def watch(pipeline: Pipeline, out: Console) -> None:
    """Shows the status line until cancelled: in place on a terminal, now and then a line elsewhere."""
    previous: Stats | None = None
    if not out.is_terminal:
        while True:
            await asyncio.sleep(_PLAIN_EVERY_S)
            stats = pipeline.stats()
            out.print(status_text(stats, previous), soft_wrap=True)
            previous = stats
    # Drawn by us and not by a thread of rich's: nothing else of Python's should want a core.
    with Live(console=out, auto_refresh=False, transient=True) as live:
        while True:
            stats = pipeline.stats()
            live.update(Text(status_text(stats, previous), overflow="ellipsis", no_wrap=True), refresh=True)
            if previous is None or stats.seconds - previous.seconds > 1.0:
                previous = stats
            await asyncio.sleep(_REFRESH_S)


def print_report(out: Console, stats: Stats, config: Config) -> None:
    """Stage latencies, thread shares, everything that was lost, and the findings that a replay has too."""
    out.print(
        latency_table({**stats.stages, "tick to signal": stats.latency}, "Stage latencies, of every row")
    )
    if stats.cpu_share:
        table = Table(title="CPU, part of one core", title_justify="left")
        table.add_column("thread")
        table.add_column("share", justify="right")
        for name, share in stats.cpu_share.items():
            table.add_row(name, f"{share:.1%}")
        out.print(table)
    warming = f"{stats.warming:,} warming up, " if stats.warming else ""
    out.print(
        f"{stats.rows:,} rows, {stats.signals:,} valid signals, {warming}{stats.invalid:,} invalid, "
        f"{stats.gaps:,} gaps, "
        f"{stats.dropped:,} dropped in {stats.seconds:.1f} s",
        soft_wrap=True,
    )
    for name, counts in stats.sinks.items():
        out.print(
            f"sink {name}: " + ", ".join(f"{key} {value:,}" for key, value in counts.items()), soft_wrap=True
        )
    for line in findings(stats, config):
        out.print(line, soft_wrap=True, markup=False)


def report_dict(stats: Stats) -> dict[str, Any]:
    """The report as data: the keys that `demo --json` and `run --json` print."""
    return {
        "signals": stats.signals,
        "rows": stats.rows,
        "gaps": stats.gaps,
        "dropped": stats.dropped,
        "invalid": stats.invalid,
        "warming": stats.warming,
        "seconds": round(stats.seconds, 3),
        "latency_us": in_us(stats.latency),
        "stages_us": {stage: in_us(histogram) for stage, histogram in stats.stages.items()},
        "cpu_share": stats.cpu_share,
        "sinks": stats.sinks,
        "warm": stats.warm,
    }


def print_json(data: dict[str, Any]) -> None:
    """One object on one line, last on standard output."""
    sys.stderr.flush()
    print(json.dumps(data, allow_nan=False), flush=True)
