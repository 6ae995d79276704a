"""The commands that work on files: `replay`, `verify`, `latency`."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tickwire.cli import output
from tickwire.config import Config
from tickwire.engine import Stats

__all__ = ["latency", "replay", "verify"]


def replay(config: Path, inputs: list[str], out: Path | None) -> None:
    import uvloop

    from tickwire.replay import assign_inputs, summary
    from tickwire.replay import replay as run_replay

    settings = Config.from_toml(config)
    files = assign_inputs(settings, inputs)
    with _progress() as progress:
        task = progress.add_task("replaying", rows=0, messages=0)

        def show(stats: Stats) -> None:
            progress.update(task, rows=stats.rows, messages=stats.count("messages"))

        stats = uvloop.run(run_replay(settings, files, out, progress=show))
    for line in summary(stats, settings):
        print(line)


def _progress() -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}: {task.fields[messages]:,} messages, {task.fields[rows]:,} rows"),
        TimeElapsedColumn(),
    )
    where = output.console(to_stderr=True)
    return Progress(*columns, console=where, transient=True, disable=not where.is_terminal)


def verify(run_dir: Path, *, salvage: bool = False) -> int:
    import uvloop

    from tickwire import verify as verification

    result = uvloop.run(verification.verify(run_dir, salvage=salvage))
    for line in verification.describe(result):
        print(line, file=sys.stdout if result.same else sys.stderr)
    return 0 if result.same else 1


def latency(stat_file: Path) -> None:
    from tickwire.latency import latency_table
    from tickwire.stat_file import StatFile

    with StatFile.open(stat_file) as stats:
        used = {name: histogram for name, histogram in stats.histograms().items() if histogram.count}
        header = stats.header
        state = "running" if stats.alive else "ended"
    out = output.console(to_stderr=False)
    out.print(latency_table(used, f"{stat_file}: process {header.pid}, {state}"))
