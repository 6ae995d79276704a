"""A model gives a row the same scores each time, or it is refused: by bind, by check and by a start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from odd_models import config, constant, make, node, value
from onnx import TensorProto, helper

from tickwire import models
from tickwire.errors import ModelError
from tickwire.models.random_operators import random_operator
from tickwire.pipeline import Pipeline


def noisy(kind: str = "RandomNormalLike", **attributes: Any) -> onnx.ModelProto:
    return make([node(kind, ["x"], ["r"], **attributes), node("Add", ["x", "r"], ["y"])])


def of_no_input() -> onnx.ModelProto:
    return make([node("RandomUniform", [], ["r"], shape=[1, 2], seed=1.0), node("Mul", ["x", "r"], ["y"])])


def of_choices() -> onnx.ModelProto:
    return make(
        [
            node("Multinomial", ["x"], ["r"], sample_size=2, dtype=TensorProto.INT32),
            node("Cast", ["r"], ["y"], to=TensorProto.FLOAT),
        ]
    )


def of_coins() -> onnx.ModelProto:
    return make(
        [
            node("Sigmoid", ["x"], ["p"]),
            node("Bernoulli", ["p"], ["r"]),
            node("Add", ["x", "r"], ["y"]),
        ]
    )


def branches(then: list[Any], otherwise: list[Any]) -> list[Any]:
    """Which of two graphs runs depends on whether the first feature is above a million."""
    graphs = {
        f"{name}_branch": helper.make_graph(nodes, name, [], [value("z", 1, 2)])
        for name, nodes in (("then", then), ("else", otherwise))
    }
    return [
        node("ReduceMax", ["x"], ["m"], keepdims=0),
        node("Greater", ["m", "million"], ["c"]),
        node("If", ["c"], ["y"], **graphs),
    ]


MILLION = constant("million", TensorProto.FLOAT, [], [1e6])


def of_rare_rows() -> onnx.ModelProto:
    noise = [node("RandomNormalLike", ["x"], ["r"]), node("Add", ["x", "r"], ["z"])]
    return make(branches(noise, [node("Identity", ["x"], ["z"])]), MILLION)


def of_rare_rows_deep() -> onnx.ModelProto:
    inner = {
        f"{name}_branch": helper.make_graph([operator], name, [], [value("z2", 1, 2)])
        for name, operator in (
            ("then", node("RandomUniformLike", ["x"], ["z2"], name="deep")),
            ("else", node("Identity", ["x"], ["z2"])),
        )
    }
    deep = [node("If", ["c"], ["z1"], **inner), node("Identity", ["z1"], ["z"])]
    return make(branches(deep, [node("Identity", ["x"], ["z"])]), MILLION)


def of_a_function() -> onnx.ModelProto:
    noise = helper.make_function(
        "own",
        "Noise",
        ["a"],
        ["b"],
        [node("RandomNormalLike", ["a"], ["r"]), node("Add", ["a", "r"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    outer = helper.make_function(
        "own",
        "Outer",
        ["a"],
        ["b"],
        [node("Noise", ["a"], ["b"], domain="own")],
        [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)],
    )
    return make([node("Outer", ["x"], ["y"], domain="own")], functions=[noise, outer])


RANDOM = {
    "like the input": noisy,
    "from a seed": lambda: noisy("RandomUniformLike", seed=3.0),
    "of no input": of_no_input,
    "choices": of_choices,
    "coins": of_coins,
    "in a branch": of_rare_rows,
    "in a branch of a branch": of_rare_rows_deep,
    "in a function": of_a_function,
}


@pytest.mark.parametrize("layout", ["threads", "inline", "processes"])
def test_a_start_refuses_it(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    settings = config(tmp_path, layout, path="m.onnx")
    model = noisy()
    schema = settings.schema()
    properties = {models.SCHEMA_KEY: schema.canonical_json(), models.SHA256_KEY: schema.fingerprint()}
    helper.set_model_props(model, properties)
    onnx.save(model, path)

    async def start() -> None:
        async with Pipeline(settings):
            pass

    with pytest.raises(ModelError, match="found the operator RandomNormalLike, which draws random numbers"):
        asyncio.run(start())


@pytest.mark.parametrize("which", RANDOM)
def test_bind_and_check_refuse_it(which: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(RANDOM[which](), path)
    schema = config(tmp_path).schema()
    expected = (
        r"expected the same scores each time a row is scored, found the operator \w+( \(deep\))?, which"
    )
    with pytest.raises(ModelError, match=expected):
        models.bind(path, schema.canonical_json(), schema.fingerprint())
    assert "the same scores each time" in str(models.inspect(path).refused)
    # Bound in another way, it is refused all the same.
    model = onnx.load(path)
    properties = {models.SCHEMA_KEY: schema.canonical_json(), models.SHA256_KEY: schema.fingerprint()}
    helper.set_model_props(model, properties)
    onnx.save(model, path)
    for check in (models.check, models.check_fingerprint):
        with pytest.raises(ModelError, match=expected):
            check(path, schema)


@pytest.mark.parametrize("which", [which for which in RANDOM if "branch" not in which])
@pytest.mark.parametrize("max_batch", [1, 3])
def test_the_loader_finds_it_by_trying(which: str, max_batch: int, tmp_path: Path) -> None:
    model = RANDOM[which]()
    if max_batch > 1:
        for port in (*model.graph.input, *model.graph.output):
            port.type.tensor_type.shape.dim[0].dim_param = "batch"
        if which == "of no input":
            pytest.skip("has one shape")
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    expected = (
        r"expected the same scores each time a row is scored, found y_\d of .* and then of .* for one row"
    )
    with pytest.raises(ModelError, match=expected):
        models.load([path], max_batch=max_batch)


def of_unused_noise() -> onnx.ModelProto:
    return make([node("RandomNormalLike", ["x"], ["r"]), node("Tanh", ["x"], ["y"])])


def of_an_own_operator_of_the_name() -> onnx.ModelProto:
    calm = helper.make_function(
        "own", "RandomNormal", ["a"], ["b"], [node("Tanh", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    return make([node("RandomNormal", ["x"], ["y"], domain="own")], functions=[calm])


@pytest.mark.parametrize(
    "build",
    [
        of_unused_noise,
        of_an_own_operator_of_the_name,
        lambda: make(branches([node("Neg", ["x"], ["z"])], [node("Abs", ["x"], ["z"])]), MILLION),
    ],
)
def test_what_only_looks_so_is_taken(build: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    model = build()
    assert random_operator(model) is None
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    schema = config(tmp_path).schema()
    models.bind(path, schema.canonical_json(), schema.fingerprint())
    assert models.check(path, schema) == ("y_0", "y_1")
