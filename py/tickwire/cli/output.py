"""What the commands print: a status line while it runs, a report at the end."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tickwire.config import Config
from tickwire.findings import findings
from tickwire.latency import in_us, latency_table
from tickwire.pipeline import Pipeline
from tickwire.stats import Stats

__all__ = ["console", "log_to_stderr", "print_json", "print_report", "report_dict", "watch"]

_REFRESH_S = 0.25
_PLAIN_EVERY_S = 5.0
_BOOK_VALID = 2  # The engine's code in the counter `book_state`.


def console(*, to_stderr: bool) -> Console:
    """Where people read. Standard output is left to data where data goes there."""
    return Console(stderr=to_stderr, highlight=False)


class _StderrHandler(logging.StreamHandler[Any]):
    """To what standard error is at the time: a live display takes it over and gives it back."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        formatter = logging.Formatter("%(asctime)sZ %(message)s", "%H:%M:%S")
        formatter.converter = time.gmtime
        self.setFormatter(formatter)

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, value: Any) -> None:
        pass


def log_to_stderr() -> None:
    """What happens while a command runs is said on standard error, with the time, UTC."""
    log = logging.getLogger("tickwire")
    if not log.handlers:
        log.addHandler(_StderrHandler())


def status_text(stats: Stats, previous: Stats | None, state: str = "") -> str:
    """The state of a run in one line that fits a terminal: valid books, rows, tick-to-signal, losses; and
    what stands in the way of rows, where something does."""
    since = previous.seconds if previous is not None else 0.0
    rate = (stats.rows - (previous.rows if previous is not None else 0)) / max(stats.seconds - since, 1e-9)
    books = [value for key, value in stats.counters.items() if key.endswith("/book_state")]
    valid = f"  books {sum(value == _BOOK_VALID for value in books)}/{len(books)}" if books else ""
    lost = sum(counts.get("dropped", 0) + counts.get("lost", 0) for counts in stats.sinks.values())
    sinks = f"  sinks lost {lost:,}" if lost else ""
    return (
        f"{stats.seconds:5.1f} s{valid}  rows {stats.rows:,} ({rate:,.0f}/s)  "
        f"p50 {stats.latency.p50 / 1e3:.1f} µs  p99 {stats.latency.p99 / 1e3:.1f} µs  "
        f"gaps {stats.gaps}  dropped {stats.dropped}{sinks}" + (f"  {state}" if state else "")
    )


async def watch(pipeline: Pipeline, out: Console) -> None:
    """Shows the status line until cancelled: in place on a terminal, now and then a line elsewhere."""
    previous: Stats | None = None
    if not out.is_terminal:
        while True:
            await asyncio.sleep(_PLAIN_EVERY_S)
            stats = pipeline.stats()
            out.print(status_text(stats, previous, pipeline.state), soft_wrap=True, markup=False)
            previous = stats
    # Drawn by us and not by a thread of rich's: nothing else of Python's should want a core.
    # What is logged meanwhile goes above the line, where both are on one terminal.
    with Live(console=out, auto_refresh=False, transient=True, redirect_stderr=sys.stderr.isatty()) as live:
        while True:
            stats = pipeline.stats()
            text = status_text(stats, previous, pipeline.state)
            live.update(Text(text, overflow="ellipsis", no_wrap=True), refresh=True)
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
        table.add_column("thread or process")
        table.add_column("share", justify="right")
        for name, share in stats.cpu_share.items():
            table.add_row(name, f"{share:.1%}")
        out.print(table)
    for name, lines in multicast_dict(stats, config).items():
        out.print(_lines_table(name, lines["lines"]))
        recovery = ", ".join(f"{lines[key]:,} {text}" for key, text in _RECOVERY.items())
        out.print(f"{name}: {recovery}", soft_wrap=True)
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


# Of a line, and as many of it as a terminal has columns for; and of a feed's recovery, as words.
_OF_A_LINE = ("received", "won", "duplicate", "late", "gap", "overtaken", "heartbeats")
_SHOWN_OF_A_LINE = ("received", "won", "duplicate", "late", "gap", "socket_drops")
_RECOVERY = {
    "sequence_gaps": "gaps",
    "requests": "requests",
    "requested_messages": "messages requested",
    "snapshots": "snapshots",
    "lost_messages": "messages lost",
}


def multicast_dict(stats: Stats, config: Config) -> dict[str, dict[str, Any]]:
    """By multicast feed: each line's counters, the re-request server's among them, and what recovery took."""
    found = {}
    for feed, name in zip(config.feeds, config.feed_names, strict=True):
        if feed.multicast is None:
            continue
        scopes = [f"line{i}" for i in range(len(feed.multicast.lines))]
        scopes += ["rerequest"] if feed.multicast.rerequest else []
        lines = {
            scope: {key: stats.counters.get(f"{name}/{scope}/line_{key}", 0) for key in _OF_A_LINE}
            | {"socket_drops": stats.counters.get(f"{name}/{scope}/socket_drops", 0)}
            for scope in scopes
        }
        found[name] = {"lines": lines} | {key: stats.counters.get(f"{name}/{key}", 0) for key in _RECOVERY}
    return found


def _lines_table(name: str, lines: dict[str, dict[str, int]]) -> Table:
    """Messages by line; the sum of won, duplicate and late is what was received."""
    table = Table(title=f"Lines of {name}, in messages", title_justify="left")
    table.add_column("line")
    for key in _SHOWN_OF_A_LINE:
        table.add_column(key.replace("_", " "), justify="right")
    for scope, counts in lines.items():
        table.add_row(scope, *(f"{counts[key]:,}" for key in _SHOWN_OF_A_LINE))
    return table


def report_dict(stats: Stats, config: Config) -> dict[str, Any]:
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
        "multicast": multicast_dict(stats, config),
    }


def print_json(data: dict[str, Any]) -> None:
    """One object on one line, last on standard output."""
    sys.stderr.flush()
    print(json.dumps(data, allow_nan=False), flush=True)
