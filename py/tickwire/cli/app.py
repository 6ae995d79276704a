"""The commands. What each does is in the module that it names: see `options.command`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from tickwire.cli import options
from tickwire.cli.options import command
from tickwire.cli.tune import tune_app

__all__ = ["app"]

app = typer.Typer(
    name="tickwire",
    help="A market-data feed to model signals, on one host, in microseconds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
model_app = typer.Typer(
    help="Model files: what is in one, to which features it belongs, how long its runs take.",
    no_args_is_help=True,
)
latency_app = typer.Typer(help="Latency figures.", no_args_is_help=True)
app.add_typer(model_app, name="model")
app.add_typer(latency_app, name="latency")
app.add_typer(tune_app, name="tune")


class ModelFormat(StrEnum):
    onnx = "onnx"
    ort = "ort"


def _version(show: bool) -> None:
    if show:
        import tickwire

        typer.echo(f"tickwire {tickwire.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A market-data feed to model signals, on one host, in microseconds."""


@command(app, "tickwire.cli.live:run")
@dataclass(frozen=True)
class Run:
    """Run live: a status line, then a report at the end. Ctrl-C ends it in good order."""

    config: options.Config
    record: options.Record = None
    warm: Annotated[
        list[str] | None,
        typer.Option(
            "--warm",
            metavar="[FEED=]CAPTURE",
            help="Begin with windows filled from a recorded run's folder or a capture, which may still be "
            "written; repeat it for files one after another.",
        ),
    ] = None
    seconds: Annotated[float | None, options.seconds("Stop after this long.", 0.1)] = None
    strict: options.Strict = False
    json: options.Json = False


@command(app, "tickwire.cli.offline:replay")
@dataclass(frozen=True)
class Replay:
    """Replay captures: features, scores and stamps, one row a trigger."""

    config: options.Config
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input", metavar="[FEED=]FILE", help="A capture; repeat it for files one after another."
        ),
    ]
    out: Annotated[Path | None, options.out("Where the rows go: .csv or .parquet.")] = None
    strict: options.Strict = False


@command(app, "tickwire.cli.offline:verify")
@dataclass(frozen=True)
class Verify:
    """Replay a recorded run and compare. Exit 0: every row and score agrees. 1: the first divergence is
    shown. 2: the recording cannot be compared, or is not what was recorded."""

    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A recorded run.")]
    salvage: Annotated[
        bool,
        typer.Option(
            "--salvage", help="Of a run that was killed or lost something: compare what is whole of it."
        ),
    ] = False


@command(app, "tickwire.cli.live:demo")
@dataclass(frozen=True)
class Demo:
    """A local venue, the engine and a small model: live signals with no network, and each stage's latency."""

    seconds: Annotated[float, options.seconds("How long.", 1.0)] = 10.0
    layout: Annotated[str, typer.Option("--layout", help="threads, inline or processes.")] = "threads"
    feed: Annotated[
        str, typer.Option("--feed", help="binance, or itch: NASDAQ's multicast lines, with losses.")
    ] = "binance"
    market: Annotated[
        str | None, typer.Option("--market", help="Of binance: spot (the default), usdm or coinm.")
    ] = None
    rate: Annotated[float, typer.Option("--rate", min=1.0, help="Venue messages a second.")] = 1000.0
    record: options.Record = None
    json: options.Json = False


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def sim(context: typer.Context) -> None:
    """A local venue as a process of its own; `tickwire sim --help` shows its options."""
    from tickwire.sim.__main__ import main as simulate

    raise typer.Exit(simulate(context.args))


class _Doctor(TyperCommand):
    """Its exit codes are verdicts: with arguments that it does not understand it could not run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if (
                getattr(error, "exit_code", None) == 2
            ):  # A usage error; where its class is, is typer's affair.
                vars(error)["exit_code"] = 3
            raise


@command(app, "tickwire.cli.host:doctor", cls=_Doctor)
@dataclass(frozen=True)
class Doctor:
    """What on this host works against low latency, and what to do about it. Reads only, needs no root.
    Exit 0: nothing. 1: warnings, or something could not be seen. 2: failures. 3: it could not run."""

    config: options.HostConfig = None
    env: options.HostEnv = None
    cores: options.HostCores = None
    profile: Annotated[
        str, typer.Option("--profile", help="auto, laptop, vm, shared or dedicated: how much is asked for.")
    ] = "auto"
    measure: Annotated[
        str | None, typer.Option("--measure", metavar="TIME", help="Also watch for this long: 5s.")
    ] = None
    baseline: Annotated[
        Path | None, typer.Option("--baseline", metavar="FILE", help="Compare with an earlier --json.")
    ] = None
    json: options.Json = False
    verbose: Annotated[bool, typer.Option("--verbose", help="Say of every check what was read, and why.")] = (
        False
    )
    root: Annotated[
        Path, typer.Option("--root", metavar="DIR", help="Examine the files of a host that lie here.")
    ] = Path("/")


@command(app, "tickwire.cli.host:jitter")
@dataclass(frozen=True)
class Jitter:
    """What cores lose to the rest of the host, and to whom: a thread on each reads the clock, and every
    gap is counted. With no cores named: all but the lowest."""

    config: options.HostConfig = None
    env: options.HostEnv = None
    cores: options.HostCores = None
    seconds: Annotated[float, options.seconds("How long.", 0.1, 86400.0)] = 5.0
    worst: Annotated[int, typer.Option("--worst", min=0, max=1000, help="How many gaps to show.")] = 10
    stat_file: Annotated[
        Path | None, typer.Option("--stat-file", help="Where the histograms go, for `latency show`.")
    ] = None
    max_us: Annotated[
        float | None, typer.Option("--max-us", min=0.0, help="Exit 1 when a gap is longer.")
    ] = None
    max_lost_ppm: Annotated[
        float | None, typer.Option("--max-lost-ppm", min=0.0, help="Exit 1 when more of the time is lost.")
    ] = None
    json: options.Json = False


@command(model_app, "tickwire.cli.model:bind")
@dataclass(frozen=True)
class Bind:
    """Write the configuration's feature schema into a model file."""

    model: options.ModelPath
    config: Annotated[Path, typer.Option("--config", help="The configuration it was trained on.")]
    out: Annotated[Path | None, options.out("Write here instead of into MODEL.")] = None


@command(model_app, "tickwire.cli.model:inspect")
@dataclass(frozen=True)
class Inspect:
    """Show a model's inputs, outputs and schema."""

    model: options.ModelPath


@command(model_app, "tickwire.cli.model:check")
@dataclass(frozen=True)
class Check:
    """Say whatever a start would refuse about a model, without starting anything. Exit 0: nothing."""

    model: options.ModelPath
    config: Annotated[
        Path | None, typer.Option("--config", help="Compare its features with this pipeline's.")
    ] = None
    provider: Annotated[
        str | None, typer.Option("--provider", help="cpu, cuda or tensorrt; else the pipeline's, else cpu.")
    ] = None
    max_batch: Annotated[
        int | None,
        typer.Option("--max-batch", min=1, max=64, help="Most rows in one run; else the pipeline's, else 1."),
    ] = None


@command(model_app, "tickwire.cli.model:optimize")
@dataclass(frozen=True)
class Optimize:
    """Write a model as ONNX Runtime optimises it for this machine; compare its scores with the original's.
    With --provider tensorrt: build its engine into --cache-dir, so that the first start does not wait."""

    model: options.ModelPath
    out: Annotated[
        Path | None, options.out("Write here instead of beside MODEL, as NAME.optimized.FORMAT.")
    ] = None
    format: Annotated[
        ModelFormat, typer.Option("--format", help="onnx, or ONNX Runtime's own, which loads fastest.")
    ] = ModelFormat.onnx
    provider: Annotated[str, typer.Option("--provider", help="cpu, cuda or tensorrt.")] = "cpu"
    cache_dir: Annotated[
        Path | None, typer.Option("--cache-dir", help="For tensorrt: the pipeline's model.cache_dir.")
    ] = None
    max_batch: options.MaxBatch = 1


@command(model_app, "tickwire.cli.model:bench")
@dataclass(frozen=True)
class Bench:
    """Time a model's runs, idle, paced and in bursts, with warm and cold caches: p50 to the maximum."""

    model: options.ModelPath
    providers: Annotated[
        list[str] | None,
        typer.Option(
            "--provider", help="cpu, cuda or tensorrt; repeat it to compare. All there are, if left out."
        ),
    ] = None
    seconds: Annotated[float, options.seconds("Of each load.", 0.01)] = 1.0
    rate: Annotated[int, typer.Option("--rate", min=1, max=1_000_000, help="Rows a second, paced.")] = 1000
    burst: Annotated[int, typer.Option("--burst", min=1, max=4096, help="Rows at once in a burst.")] = 32
    max_batch: options.MaxBatch = 1
    core: Annotated[int | None, typer.Option("--core", help="Pin the measuring thread.")] = None
    json: options.Json = False


@command(model_app, "tickwire.cli.live:swap")
@dataclass(frozen=True)
class Swap:
    """Exchange a running engine's model between two rows: none lost, none scored twice."""

    files: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="The new file; an ensemble's files.")
    ]
    name: Annotated[str | None, typer.Option("--model", help="Which model, where the run has several.")] = (
        None
    )
    engine: Annotated[
        Path | None,
        typer.Option("--engine", metavar="STAT_FILE", help="Which run, where there are several."),
    ] = None


@command(latency_app, "tickwire.cli.offline:latency")
@dataclass(frozen=True)
class Show:
    """Print the stage latencies in a statistics file, of a running engine or of one that has ended."""

    stat_file: Annotated[Path, typer.Argument(metavar="STAT_FILE", help="An engine's statistics file.")]
