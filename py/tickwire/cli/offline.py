"""The commands that work on files: `replay`, `verify`, `latency`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tickwire.cli import output, signals
from tickwire.config import Config
from tickwire.pipeline import Pipeline
from tickwire.stats import Stats

if TYPE_CHECKING:
    from tickwire.cli import app

__all__ = ["latency", "replay", "verify"]


def replay(arguments: app.Replay) -> int:
    from tickwire.findings import findings
    from tickwire.replay import assign_inputs, summary
    from tickwire.replay import replay as run_replay

    settings = Config.from_toml(arguments.config)
    files = assign_inputs(settings, arguments.inputs)
    ended: list[int] = []
    with _progress() as progress:
        task = progress.add_task("replaying", rows=0, messages=0)

        def begin(pipeline: Pipeline) -> None:
            def stop(number: int) -> None:
                ended.append(number)
                pipeline.request_stop()

            signals.on_signals(stop)

        def show(stats: Stats) -> None:
            progress.update(task, rows=stats.rows, messages=stats.count("messages"))

        stats = signals.run(run_replay(settings, files, arguments.out, progress=show, begin=begin))
    if not stats.whole:
        print(_how_far(stats, arguments.out), file=sys.stderr)
        raise signals.Ended(ended[0])
    for line in summary(stats, settings):
        print(line)
    return 1 if arguments.strict and findings(stats, settings) else 0


def _how_far(stats: Stats, out: Path | None) -> str:
    """Of a replay that was ended before its input was."""
    came = f"ended after {stats.count('messages'):,} messages and {stats.rows:,} rows"
    newest = max((value for key, value in stats.counters.items() if key.endswith("/input_ts")), default=0)
    if newest:
        came += f", at what was received {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(newest // 10**9))}"
    return f"tickwire: replay: {came}" + (f"; {out} is not written" if out is not None else "")


def _progress() -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}: {task.fields[messages]:,} messages, {task.fields[rows]:,} rows"),
        TimeElapsedColumn(),
    )
    where = output.console(to_stderr=True)
    return Progress(*columns, console=where, transient=True, disable=not where.is_terminal)


def verify(arguments: app.Verify) -> int:
    from tickwire import verify as verification

    result = signals.run(verification.verify(arguments.run_dir, salvage=arguments.salvage))
    for line in verification.describe(result):
        print(line, file=sys.stdout if result.same else sys.stderr)
    return 0 if result.same else 1


def latency(arguments: app.Show) -> None:
    from tickwire.latency import latency_table
    from tickwire.stat_file import StatFile

    with StatFile.open(arguments.stat_file) as stats:
        used = {name: histogram for name, histogram in stats.histograms().items() if histogram.count}
        header = stats.header
        state = "running" if stats.alive else "ended"
    out = output.console(to_stderr=False)
    out.print(latency_table(used, f"{arguments.stat_file}: process {header.pid}, {state}"))
