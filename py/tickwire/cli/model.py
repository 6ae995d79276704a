"""The commands of `tickwire model`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tickwire import models
from tickwire.cli import output
from tickwire.config import Config
from tickwire.errors import ConfigError, Error, SetupError
from tickwire.limits import Limit
from tickwire.models import loading
from tickwire.outputs import refuse_over
from tickwire.units import parse_duration

if TYPE_CHECKING:
    from tickwire.cli import app

__all__ = ["bench", "bind", "check", "inspect", "optimize"]


def bind(arguments: app.Bind) -> None:
    model, out = arguments.model, arguments.out
    settings = Config.from_toml(arguments.config)
    others = [entry for entry in settings.input_files() if entry[0] != "a model"]
    refuse_over("--out" if out is not None else "MODEL", out or model, others)
    schema = settings.schema()
    written = models.bind(model, schema.canonical_json(), schema.fingerprint(), out)
    print(f"{written}: bound to schema {schema.fingerprint()}")


def inspect(arguments: app.Inspect) -> None:
    found = models.inspect(arguments.model)
    lines: list[tuple[str, object]] = [
        ("file", f"{found.path} ({found.size_bytes:,} bytes)"),
        ("sha256", found.sha256),
        ("producer", found.producer or "not stated"),
        ("format", found.format),
        *(("input", port) for port in found.inputs),
        *(("output", port) for port in found.outputs),
        ("scores", ", ".join(found.scores) or "none"),
        ("schema", found.fingerprint or "not bound to any features"),
    ]
    if found.fingerprint_ok is False:
        lines.append(("warning", "the fingerprint is not that of the schema beside it"))
    if found.refused is not None:
        lines.append(("refused", found.refused))
    lines += sorted(found.metadata.items())
    for name, value in lines:
        print(f"{name:10} {value}")
    if found.schema is not None:
        print(_indented(found.schema))


def _indented(schema: str) -> str:
    import json

    from tickwire.json_text import parse_json

    try:
        return json.dumps(parse_json(schema), indent=2, ensure_ascii=False)
    except ValueError:
        return schema


def check(arguments: app.Check) -> int:
    """Every step that a start takes with a model, in its order, as far as it comes."""
    model, provider, max_batch = arguments.model, arguments.provider, arguments.max_batch
    schema = None
    limit = Limit(loading.TRIAL_S)
    if arguments.config is not None:
        settings = Config.from_toml(arguments.config)
        schema = settings.schema()
        for entry in settings.all_models:
            if model.resolve() in (file.resolve() for file in settings.model_files(entry)):
                provider, max_batch = provider or entry.provider, max_batch or entry.max_batch
                limit = Limit(parse_duration(entry.start_timeout) / 1e9)
    provider, max_batch = provider or "cpu", max_batch or 1
    steps: list[tuple[str, Callable[[], object]]] = [("file", lambda: _declared(model))]
    if schema is None:
        steps.append(("features", lambda: _own_schema(model)))
    else:
        steps.append(("features", lambda: models.check_fingerprint(model, schema)))

    def load() -> str:
        rows, features = (schema.window_rows, len(schema.expressions)) if schema is not None else (0, 0)
        found = models.try_out(
            [model], provider=provider, max_batch=max_batch, rows=rows, features=features, limit=limit
        )
        return f"{found.executor}; scores {', '.join(found.scores)}; {found.warm_up_runs} warm-up runs"

    steps.append(("run", load))
    refused = 0
    for name, step in steps:
        try:
            found = step()
        except Error as error:
            refused += 1
            print(f"refused  {name:9} {error}")
            if name == "file":
                break  # There is nothing to look into.
        else:
            print(f"ok       {name:9} {found or ''}".rstrip())
    return 1 if refused else 0


def _declared(model: Path) -> str:
    found = models.inspect(model)
    return f"{found.size_bytes:,} bytes; {'; '.join(map(str, found.inputs))} -> {len(found.outputs)} outputs"


def _own_schema(model: Path) -> str:
    found = models.inspect(model)
    if found.fingerprint is None:
        raise ConfigError(
            f"{model}: expected a model bound to the features it was trained on, found none bound; "
            f"tickwire model bind {model} --config pipeline.toml"
        )
    if not found.fingerprint_ok:
        raise ConfigError(
            f"{model}: expected the SHA-256 of the schema, found another: the metadata was changed after "
            f"binding; bind it again: tickwire model bind {model} --config pipeline.toml"
        )
    return f"bound to schema {found.fingerprint}; with --config it is compared with a pipeline's"


def optimize(arguments: app.Optimize) -> None:
    model, provider, cache_dir, out = arguments.model, arguments.provider, arguments.cache_dir, arguments.out
    if cache_dir is not None or provider == "tensorrt":
        if cache_dir is None or provider != "tensorrt" or out is not None:
            raise SetupError(
                "--cache-dir: expected with --provider tensorrt, without --out: it writes engines into the "
                "folder that model.cache_dir names, and no model"
            )
        # Building them is what a first start would wait for.
        loaded = models.load([model], provider=provider, cache_dir=cache_dir, max_batch=arguments.max_batch)
        print(f"{model}: {loaded.executor} has its engine in {cache_dir}; set model.cache_dir to it")
        return
    form: Literal["onnx", "ort"] = arguments.format.value
    made = models.optimize(model, out, format=form, provider=provider)
    same = "bit for bit" if made.difference == 0 else f"to within {made.difference:.1e}"
    print(f"{made.path}: for this machine, {provider}")
    print(f"  size    {made.size_bytes[0]:,} bytes before, {made.size_bytes[1]:,} after")
    print(f"  load    {made.load_ms[0]:.2f} ms before, {made.load_ms[1]:.2f} ms after (best of 5)")
    print(f"  scores  the same {same} on {made.rows} made-up rows")


def bench(arguments: app.Bench) -> None:
    from tickwire.models import bench as model_bench

    model, core = arguments.model, arguments.core
    chosen = model_bench.Settings(
        rate=arguments.rate,
        burst=arguments.burst,
        max_batch=arguments.max_batch,
        seconds=arguments.seconds,
    )
    todo = model_bench.cells(arguments.providers or models.providers(), chosen)
    models.try_out([model])
    about = model_bench.conditions(core)
    screen = output.console(to_stderr=True)
    results = []
    columns = (
        TextColumn("{task.description}"),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    # Drawn between the loads only: a thread that redraws would be in the times.
    with (
        model_bench.pinned(core),
        Progress(
            *columns, console=screen, transient=True, auto_refresh=False, disable=not screen.is_terminal
        ) as progress,
    ):
        task = progress.add_task("", total=len(todo))
        measured = model_bench.run(model, todo, chosen)
        for cell in todo:
            progress.update(task, description=f"{cell.provider}, {cell.load}, {cell.caches}", refresh=True)
            results.append(next(measured))
            progress.advance(task)
    if arguments.json:
        output.print_json(
            {
                "model": os.fspath(model),
                "conditions": about,
                "settings": dataclasses.asdict(chosen),
                "results": [result.as_dict() for result in results],
            }
        )
        return
    table = Table(title=f"{model.name}: from a row's arrival to its scores, µs", title_justify="left")
    for name in ("provider", "load", "caches"):
        table.add_column(name)
    for name in ("rows", *model_bench.PERCENTILES):
        table.add_column(name, justify="right")
    for result in results:
        cell = result.cell
        figures = (f"{value:,.1f}" for value in result.figures_us().values())
        table.add_row(cell.provider, cell.load, cell.caches, f"{len(result.times_ns):,}", *figures)
    out = output.console(to_stderr=False)
    out.print(table)
    lines = [
        "idle: one row each 5 ms, the thread asleep between",
        f"paced: {chosen.rate:,} rows a second, the thread spinning",
        f"burst: {chosen.burst} rows at once each 10 ms, {chosen.max_batch} a run, the wait included",
        "cold: more memory than the caches hold was walked through before each arrival",
        f"executor: {', '.join(dict.fromkeys(result.executor for result in results))}",
        *(f"{name}: {value}" for name, value in about.items()),
    ]
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)
