"""The commands and their options. Thin: each hands over to the module that does the work.

Nothing heavy is imported here, so that `tickwire --help` answers at once.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

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


ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="The pipeline's TOML file.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object last, on standard output.")]
Seconds = Annotated[float | None, typer.Option("--seconds", min=0.1, help="Stop after this long.")]
ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file, or a .ort file.")]
MaxBatch = Annotated[int, typer.Option("--max-batch", min=1, max=64, help="Most rows in one run.")]
Record = Annotated[Path | None, typer.Option("--record", metavar="DIR", help="Record the run, for `verify`.")]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Exit 1 where the report has a note: something was lost, unused or missing."
    ),
]
HostConfig = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The engine's cores: those of this pipeline.")
]
HostEnv = Annotated[Path | None, typer.Option("--env", metavar="FILE", help="Those of this host.env.")]
HostCores = Annotated[str | None, typer.Option("--cores", metavar="LIST", help="These: 2-3,8.")]


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


@app.command()
def run(
    config: ConfigPath,
    record: Record = None,
    warm: Annotated[
        list[str] | None,
        typer.Option(
            "--warm",
            metavar="[FEED=]CAPTURE",
            help="Begin with windows filled from a recorded run's folder or a capture, which may still be "
            "written; repeat it for files one after another.",
        ),
    ] = None,
    seconds: Seconds = None,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Run live: a status line, then a report at the end. Ctrl-C ends it in good order."""
    from tickwire.cli import live

    raise typer.Exit(
        live.run(config, record=record, warm=warm or [], seconds=seconds, strict=strict, as_json=json)
    )


@app.command()
def replay(
    config: ConfigPath,
    inputs: Annotated[
        list[str],
        typer.Option(
            "--input", metavar="[FEED=]FILE", help="A capture; repeat it for files one after another."
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Where the rows go: .csv or .parquet.")] = None,
    strict: Strict = False,
) -> None:
    """Replay captures: features, scores and stamps, one row a trigger."""
    from tickwire.cli import offline

    raise typer.Exit(offline.replay(config, inputs, out, strict=strict))


@app.command()
def verify(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A recorded run.")],
    salvage: Annotated[
        bool,
        typer.Option(
            "--salvage", help="Of a run that was killed or lost something: compare what is whole of it."
        ),
    ] = False,
) -> None:
    """Replay a recorded run and compare. Exit 0: every row and score agrees. 1: the first divergence is
    shown. 2: the recording cannot be compared, or is not what was recorded."""
    from tickwire.cli import offline

    raise typer.Exit(offline.verify(run_dir, salvage=salvage))


@app.command()
def demo(
    seconds: Annotated[float, typer.Option("--seconds", min=1.0, help="How long.")] = 10.0,
    layout: Annotated[str, typer.Option("--layout", help="threads, inline or processes.")] = "threads",
    feed: Annotated[
        str, typer.Option("--feed", help="binance, or itch: NASDAQ's multicast lines, with losses.")
    ] = "binance",
    market: Annotated[
        str | None, typer.Option("--market", help="Of binance: spot (the default), usdm or coinm.")
    ] = None,
    rate: Annotated[float, typer.Option("--rate", min=1.0, help="Venue messages a second.")] = 1000.0,
    record: Record = None,
    json: Json = False,
) -> None:
    """A local venue, the engine and a small model: live signals with no network, and each stage's latency."""
    from tickwire.cli import live

    live.demo(
        seconds=seconds, layout=layout, feed=feed, market=market, rate=rate, record=record, as_json=json
    )


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


@app.command(cls=_Doctor)
def doctor(
    config: HostConfig = None,
    env: HostEnv = None,
    cores: HostCores = None,
    profile: Annotated[
        str, typer.Option("--profile", help="auto, laptop, vm, shared or dedicated: how much is asked for.")
    ] = "auto",
    measure: Annotated[
        str | None, typer.Option("--measure", metavar="TIME", help="Also watch for this long: 5s.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", metavar="FILE", help="Compare with an earlier --json.")
    ] = None,
    json: Json = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Say of every check what was read, and why.")
    ] = False,
    root: Annotated[
        Path, typer.Option("--root", metavar="DIR", help="Examine the files of a host that lie here.")
    ] = Path("/"),
) -> None:
    """What on this host works against low latency, and what to do about it. Reads only, needs no root.
    Exit 0: nothing. 1: warnings, or something could not be seen. 2: failures. 3: it could not run."""
    from tickwire.cli import host

    raise typer.Exit(
        host.doctor(
            config=config,
            env=env,
            cores=cores,
            profile=profile,
            measure=measure,
            baseline=baseline,
            as_json=json,
            verbose=verbose,
            root=root,
        )
    )


@app.command()
def jitter(
    config: HostConfig = None,
    env: HostEnv = None,
    cores: HostCores = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, max=86400.0, help="How long.")] = 5.0,
    worst: Annotated[int, typer.Option("--worst", min=0, max=1000, help="How many gaps to show.")] = 10,
    stat_file: Annotated[
        Path | None, typer.Option("--stat-file", help="Where the histograms go, for `latency show`.")
    ] = None,
    max_us: Annotated[
        float | None, typer.Option("--max-us", min=0.0, help="Exit 1 when a gap is longer.")
    ] = None,
    max_lost_ppm: Annotated[
        float | None, typer.Option("--max-lost-ppm", min=0.0, help="Exit 1 when more of the time is lost.")
    ] = None,
    json: Json = False,
) -> None:
    """What cores lose to the rest of the host, and to whom: a thread on each reads the clock, and every
    gap is counted. With no cores named: all but the lowest."""
    from tickwire.cli import host

    raise typer.Exit(
        host.jitter(
            config=config,
            env=env,
            cores=cores,
            seconds=seconds,
            worst=worst,
            stat_file=stat_file,
            max_us=max_us,
            max_lost_ppm=max_lost_ppm,
            as_json=json,
        )
    )


@model_app.command("bind")
def model_bind(
    model: ModelPath,
    config: Annotated[Path, typer.Option("--config", help="The configuration it was trained on.")],
    out: Annotated[Path | None, typer.Option("--out", help="Write here instead of into MODEL.")] = None,
) -> None:
    """Write the configuration's feature schema into a model file."""
    from tickwire.cli import model as command

    command.bind(model, config, out)


@model_app.command("inspect")
def model_inspect(model: ModelPath) -> None:
    """Show a model's inputs, outputs and schema."""
    from tickwire.cli import model as command

    command.inspect(model)


@model_app.command("check")
def model_check(
    model: ModelPath,
    config: Annotated[
        Path | None, typer.Option("--config", help="Compare its features with this pipeline's.")
    ] = None,
    provider: Annotated[
        str | None, typer.Option("--provider", help="cpu, cuda or tensorrt; else the pipeline's, else cpu.")
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option("--max-batch", min=1, max=64, help="Most rows in one run; else the pipeline's, else 1."),
    ] = None,
) -> None:
    """Say whatever a start would refuse about a model, without starting anything. Exit 0: nothing."""
    from tickwire.cli import model as command

    raise typer.Exit(command.check(model, config, provider, max_batch))


@model_app.command("optimize")
def model_optimize(
    model: ModelPath,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write here instead of beside MODEL, as NAME.optimized.FORMAT."),
    ] = None,
    format: Annotated[
        ModelFormat, typer.Option("--format", help="onnx, or ONNX Runtime's own, which loads fastest.")
    ] = ModelFormat.onnx,
    provider: Annotated[str, typer.Option("--provider", help="cpu, cuda or tensorrt.")] = "cpu",
    cache_dir: Annotated[
        Path | None, typer.Option("--cache-dir", help="For tensorrt: the pipeline's model.cache_dir.")
    ] = None,
    max_batch: MaxBatch = 1,
) -> None:
    """Write a model as ONNX Runtime optimises it for this machine; compare its scores with the original's.
    With --provider tensorrt: build its engine into --cache-dir, so that the first start does not wait."""
    from tickwire.cli import model as command

    command.optimize(model, out, format.value, provider, cache_dir, max_batch)


@model_app.command("bench")
def model_bench(
    model: ModelPath,
    providers: Annotated[
        list[str] | None,
        typer.Option(
            "--provider", help="cpu, cuda or tensorrt; repeat it to compare. All there are, if left out."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.01, help="Of each load.")] = 1.0,
    rate: Annotated[int, typer.Option("--rate", min=1, max=1_000_000, help="Rows a second, paced.")] = 1000,
    burst: Annotated[int, typer.Option("--burst", min=1, max=4096, help="Rows at once in a burst.")] = 32,
    max_batch: MaxBatch = 1,
    core: Annotated[int | None, typer.Option("--core", help="Pin the measuring thread.")] = None,
    json: Json = False,
) -> None:
    """Time a model's runs, idle, paced and in bursts, with warm and cold caches: p50 to the maximum."""
    from tickwire.cli import model as command

    settings = {"rate": rate, "burst": burst, "max_batch": max_batch, "seconds": seconds}
    command.bench(model, providers or [], core, settings, as_json=json)


@model_app.command("swap")
def model_swap(
    files: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="The new file; an ensemble's files.")
    ],
    name: Annotated[
        str | None, typer.Option("--model", help="Which model, where the run has several.")
    ] = None,
    engine: Annotated[
        Path | None,
        typer.Option("--engine", metavar="STAT_FILE", help="Which run, where there are several."),
    ] = None,
) -> None:
    """Exchange a running engine's model between two rows: none lost, none scored twice."""
    from tickwire.cli import live

    live.swap(files, name, engine)


@latency_app.command("show")
def latency_show(
    stat_file: Annotated[Path, typer.Argument(metavar="STAT_FILE", help="An engine's statistics file.")],
) -> None:
    """Print the stage latencies in a statistics file, of a running engine or of one that has ended."""
    from tickwire.cli import offline

    offline.latency(stat_file)
