"""`tickwire run`, `tickwire demo` and `tickwire model swap`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from rich.console import Console

from tickwire.cli import output, signals
from tickwire.config import Config, Engine
from tickwire.demo import FEEDS, MARKETS, run_demo
from tickwire.errors import ConfigError
from tickwire.findings import findings
from tickwire.pipeline import Pipeline
from tickwire.runtime import control
from tickwire.stats import Stats

if TYPE_CHECKING:
    from tickwire.cli import app

__all__ = ["demo", "run", "swap"]


def run(arguments: app.Run) -> int:
    output.log_to_stderr()
    settings = Config.from_toml(arguments.config)
    # Standard output belongs to the JSON that goes there.
    to_stdout = any(sink.to_stdout for sink in settings.sinks)
    out = output.console(to_stderr=arguments.json or to_stdout)
    stats = signals.run(_run(settings, out, arguments))
    _report(out, stats, settings, arguments)
    return 1 if arguments.strict and findings(stats, settings) else 0


def _report(out: Console, stats: Stats, settings: Config, arguments: app.Run | app.Demo) -> None:
    output.print_report(out, stats, settings)
    if arguments.record is not None:
        _say_recorded(out, arguments.record, stats)
    if arguments.json:
        output.print_json(output.report_dict(stats, settings))


def _say_recorded(out: Console, record: Path, stats: Stats) -> None:
    if stats.recording_lacks:
        said = (
            f"not recorded whole: {stats.recording_lacks}; what is whole of it is compared by: "
            f"tickwire verify --salvage {record}"
        )
    else:
        said = f"recorded in {record}; compare it with: tickwire verify {record}"
    out.print(said, soft_wrap=True, markup=False)


async def _run(config: Config, out: Console, arguments: app.Run) -> Stats:
    async with Pipeline(config, record_dir=arguments.record, warm=arguments.warm or []) as pipeline:
        signals.on_signals(lambda number: pipeline.request_stop())
        for line in pipeline.report:
            out.print(line, soft_wrap=True, markup=False)
        said: list[str] = []
        watchers = asyncio.gather(output.watch(pipeline, out), _say_warm(pipeline, out, said))
        try:
            await pipeline.run_until(arguments.seconds)
        finally:
            await _ended(watchers)
    await _say_warm(pipeline, out, said)
    return pipeline.stats()


async def _say_warm(pipeline: Pipeline, out: Console, said: list[str]) -> None:
    """What became of a warm start, when it is known: whoever hands over waits for it."""
    while True:
        # Looked at first: what is told between the two looks is said the next time.
        more = pipeline.warming_up
        for line in pipeline.warm_report:
            if line not in said:
                out.print(line, soft_wrap=True, markup=False)
                said.append(line)
        if not more:
            return
        await asyncio.sleep(0.05)


def swap(arguments: app.Swap) -> None:
    stat_path = arguments.engine or control.find_engine()
    files = [str(file.resolve()) for file in arguments.files]
    request = {"command": "swap", "model": arguments.name, "files": files}
    done = signals.run(control.ask(stat_path, request))
    out = output.console(to_stderr=False)
    if done["before"] == done["after"]:
        out.print(f"model {done['model']}: {done['after']} runs already", soft_wrap=True)
    else:
        out.print(
            f"model {done['model']}: {done['before']} -> {done['after']} in {done['seconds']} s",
            soft_wrap=True,
        )


async def _ended(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def demo(arguments: app.Demo) -> None:
    if arguments.feed == "itch" and arguments.market is not None:
        raise ConfigError(f"--market: expected none with --feed itch, found {arguments.market!r}")
    market = arguments.market or "spot"
    for name, value, known in (
        ("--layout", arguments.layout, get_args(Engine.model_fields["layout"].annotation)),
        ("--feed", arguments.feed, FEEDS),
        ("--market", market, MARKETS),
    ):
        if value not in known:
            raise ConfigError(f"{name}: expected one of {', '.join(known)}, found {value!r}")
    output.log_to_stderr()
    out = output.console(to_stderr=arguments.json)
    out.print("a local venue, the engine and a small model, all on this machine", soft_wrap=True)

    settings: list[Config] = []  # Made for the simulator's market, once that runs.

    def watch(pipeline: Pipeline) -> Coroutine[Any, Any, None]:
        settings.append(pipeline.config)
        signals.on_signals(lambda number: pipeline.request_stop())
        for line in pipeline.report:
            out.print(line, soft_wrap=True, markup=False)
        return output.watch(pipeline, out)

    running = run_demo(
        seconds=arguments.seconds,
        layout=arguments.layout,
        feed=arguments.feed,
        market=market,
        rate=arguments.rate,
        record_dir=arguments.record,
        watch=watch,
    )
    _report(out, signals.run(running), settings[0], arguments)
