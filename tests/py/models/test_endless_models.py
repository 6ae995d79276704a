"""A model that never ends, and a file that does not: both are given up, and nothing waits for them."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from modelled import configuration, make_model, market
from odd_models import config, constant, make, node, value
from onnx import TensorProto, helper
from waiting import until

from tickwire import held, models, trial
from tickwire.errors import ModelError
from tickwire.limits import Expired, Limit
from tickwire.pipeline import Pipeline

ENDLESS = (
    r"expected a model that is loaded and warm within 1 s, found one that is not: it never ends, or needs"
)


def endless(width: int = 2) -> onnx.ModelProto:
    """A loop that goes on for as long as a whole number may count."""
    body = helper.make_graph(
        [node("Identity", ["go"], ["still"]), node("Sin", ["v"], ["w"])],
        "body",
        [value("i", kind=TensorProto.INT64), value("go", kind=TensorProto.BOOL), value("v", 1, width)],
        [value("still", kind=TensorProto.BOOL), value("w", 1, width)],
    )
    loop = node("Loop", ["times", "true", "x"], ["y"], body=body)
    times = constant("times", TensorProto.INT64, [], [2**63 - 1])
    model = make([loop], times, constant("true", TensorProto.BOOL, [], [True]))
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[1].dim_value = width
    return model


def bound(path: Path, model: onnx.ModelProto, schema: Any) -> Path:
    properties = {models.SCHEMA_KEY: schema.canonical_json(), models.SHA256_KEY: schema.fingerprint()}
    helper.set_model_props(model, properties)
    onnx.save(model, path)
    return path


def test_bind_check_and_inspect_give_it_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickwire.models.loading.TRIAL_S", 1.0)
    schema = config(tmp_path).schema()
    path = bound(tmp_path / "m.onnx", endless(), schema)
    before = path.read_bytes()
    with pytest.raises(ModelError, match=ENDLESS):
        models.bind(path, schema.canonical_json(), schema.fingerprint())
    assert path.read_bytes() == before
    with pytest.raises(ModelError, match=ENDLESS):
        models.check(path, schema)
    with pytest.raises(ModelError, match=ENDLESS):
        models.optimize(path)
    assert "within 1 s" in str(models.inspect(path).refused)


@pytest.mark.parametrize("layout", ["threads", "inline"])
def test_a_start_gives_it_up(layout: str, tmp_path: Path) -> None:
    settings = config(tmp_path, layout, path="m.onnx", start_timeout="1s")
    bound(tmp_path / "m.onnx", endless(), settings.schema())

    async def start() -> None:
        async with Pipeline(settings):
            pass

    with pytest.raises(ModelError, match=ENDLESS):
        asyncio.run(start())


def test_a_start_that_is_cancelled_waits_for_no_model(tmp_path: Path) -> None:
    settings = config(tmp_path, path="m.onnx", start_timeout="24h")
    bound(tmp_path / "m.onnx", endless(), settings.schema())

    async def start() -> None:
        pipeline = Pipeline(settings)
        task = asyncio.create_task(pipeline.__aenter__())
        await until(lambda: bool(pipeline._models._limits))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(start())


async def test_an_exchange_gives_it_up_and_the_next_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with market() as venue:
        settings = configuration(venue, tmp_path, model={"path": "a.onnx"})
        make_model(tmp_path / "a.onnx", settings, 1)
        make_model(tmp_path / "b.onnx", settings, 2)
        model = endless(width=3)
        bound(tmp_path / "endless.onnx", model, settings.schema())
        async with Pipeline(settings) as pipeline:
            before = pipeline._models._running_id(0)
            with monkeypatch.context() as patch:
                patch.setattr(pipeline._models, "_limit_of", lambda model: Limit(1.0))
                with pytest.raises(ModelError, match=ENDLESS):
                    await pipeline.swap_model(tmp_path / "endless.onnx")
            assert pipeline._models._running_id(0) == before
            await pipeline.swap_model(tmp_path / "b.onnx")
            assert pipeline._models._running_id(0) != before


async def test_a_stop_waits_for_no_exchange(tmp_path: Path) -> None:
    async with market() as venue:
        settings = configuration(venue, tmp_path, model={"path": "a.onnx", "start_timeout": "24h"})
        make_model(tmp_path / "a.onnx", settings, 1)
        bound(tmp_path / "endless.onnx", endless(width=3), settings.schema())
        async with Pipeline(settings) as pipeline:
            exchange = asyncio.create_task(pipeline.swap_model(tmp_path / "endless.onnx"))
            await until(lambda: bool(pipeline._models._limits))
        with pytest.raises(ModelError, match=r"given up before it was loaded and warm|nobody waits for"):
            await exchange


async def test_a_stop_waits_for_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = threading.Event()
    read_once = held._read_once

    def hang(path: Path) -> Any:
        if path.name == "far.onnx":
            gone.wait()
        return read_once(path)

    monkeypatch.setattr(held, "_read_once", hang)
    async with market() as venue:
        settings = configuration(venue, tmp_path, model={"path": "a.onnx", "start_timeout": "24h"})
        make_model(tmp_path / "a.onnx", settings, 1)
        async with Pipeline(settings) as pipeline:
            exchange = asyncio.create_task(pipeline.swap_model(tmp_path / "far.onnx"))
            await until(lambda: bool(pipeline._models._limits))
        with pytest.raises(ModelError, match="nobody waits for"):
            await exchange
    gone.set()


def endless_for_some(feature_above: float) -> onnx.ModelProto:
    """It goes on for as long as a whole number may count, but only for rows that no trial is made with."""
    model = endless(width=1)
    loop = model.graph.node.pop()
    loop.input[0] = "often"
    graph = model.graph
    graph.initializer.extend(
        [
            constant("few", TensorProto.INT64, [], [1]),
            constant("limit", TensorProto.FLOAT, [], [feature_above]),
        ]
    )
    graph.node.extend(
        [
            node("ReduceMax", ["x"], ["m"], keepdims=0),
            node("Greater", ["m", "limit"], ["far"]),
            node("Where", ["far", "times", "few"], ["often"]),
            loop,
        ]
    )
    return model


@pytest.mark.parametrize("layout", ["threads", "inline"])
async def test_a_stop_waits_for_no_run(layout: str, tmp_path: Path) -> None:
    async with market() as venue:
        settings = configuration(venue, tmp_path, layout=layout, model={"path": "m.onnx"})
        settings = settings.model_copy(update={"features": {"rows": ["trade_count(window='1s')"]}})
        bound(tmp_path / "m.onnx", endless_for_some(2.0), settings.schema())

        async def run() -> Any:
            async with Pipeline(settings) as pipeline:
                # The first row is one without an end.
                await until(lambda: pipeline.stats().counters["ingest0/rows"] > 0)
            return pipeline.stats()

        # Where a run had no end, this had none.
        found = await asyncio.wait_for(run(), 60)
        errors = [count for name, count in found.counters.items() if name.endswith("model_errors")]
        assert sum(errors) >= 1


def _zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound_here:
        bound_here.bind(str(path))


@pytest.mark.parametrize(
    ("make_it", "kind"),
    [
        (_zeros, "a device"),
        (os.mkfifo, "a pipe"),
        (Path.mkdir, "a folder"),
        (_socket, "No such device or address"),
        (lambda path: None, "No such file or directory"),
    ],
)
def test_what_is_no_file_is_not_read(make_it: Callable[[Path], None], kind: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    make_it(path)
    with pytest.raises(ModelError) as caught:
        models.inspect(path)
    expected = f"{path}: expected an ONNX model, found {kind}; name a file that `tickwire model inspect` can"
    assert str(caught.value).startswith(expected)


def test_a_file_that_cannot_be_read_to_its_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = threading.Event()
    monkeypatch.setattr(held, "_read_once", lambda path: gone.wait())
    with pytest.raises(
        ModelError, match=r"expected an ONNX model that can be read within 0\.1 s, found none"
    ):
        held.held_file(tmp_path / "m.onnx", Limit(0.1))
    gone.set()


def test_one_that_takes_its_process_down_takes_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_MAIN", "import os; os.kill(os.getpid(), 11)")
    settings = config(tmp_path)
    path = tmp_path / "m.onnx"
    models.make_demo_model(path, settings.schema())
    with pytest.raises(
        ModelError, match=r"found one that takes its process down \(SIGSEGV\); export it again"
    ):
        models.check(path, settings.schema())


def test_a_trial_ends_by_itself_where_its_parent_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody waits, so only its own clock can end it.
    monkeypatch.setattr(Limit, "wait", lambda self, work: work())
    schema = config(tmp_path).schema()
    path = bound(tmp_path / "m.onnx", endless(), schema)
    with pytest.raises(ModelError, match=ENDLESS):
        models.check(path, schema, limit=Limit(1.0))


def test_a_limit_gives_what_comes_in_time() -> None:
    def fail() -> None:
        raise KeyError("x")

    assert Limit(60.0).wait(lambda: 3) == 3
    with pytest.raises(KeyError):
        Limit(60.0).wait(fail)
    limit = Limit(60.0)
    limit.give_up()
    with pytest.raises(Expired):
        limit.wait(threading.Event().wait)
