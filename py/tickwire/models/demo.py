"""A small model of our own, for the demo, the tests and the benchmark."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tickwire.features import Schema
from tickwire.models.binding import SCHEMA_KEY, SHA256_KEY, sha256_of
from tickwire.models.files import write

__all__ = ["make_demo_model"]


def make_demo_model(
    path: str | os.PathLike[str],
    schema: Schema,
    *,
    outputs: int = 3,
    hidden: Iterable[int] = (64, 32),
    seed: int = 7,
    free_batch: bool = False,
) -> Path:
    """Makes a small model bound to `schema`, for the demo, the tests and the benchmark.

    A perceptron with weights from `seed`: it predicts nothing, and costs what a model of its size
    costs. With several outputs they are probabilities, `prob`; with one, `score`. A free batch lets a run
    score several rows.
    """
    rows, features = schema.window_rows, len(schema.expressions)
    # Its stream is frozen, unlike that of newer generators: the same file from every NumPy.
    random = np.random.RandomState(seed)
    tensors: dict[str, np.ndarray[Any, np.dtype[np.float32]]] = {}
    nodes = []
    last, width = "features", features
    if rows > 1:
        nodes.append(helper.make_node("Flatten", [last], ["window"]))
        last, width = "window", rows * features
    layers = [*hidden, outputs]
    for i, size in enumerate(layers):
        tensors[f"w{i}"] = (random.standard_normal((width, size)) / math.sqrt(width)).astype(np.float32)
        tensors[f"b{i}"] = (random.standard_normal(size) * 0.1).astype(np.float32)
        is_last = i == len(layers) - 1
        name = "score" if is_last and outputs == 1 else f"h{i}"
        nodes.append(helper.make_node("Gemm", [last, f"w{i}", f"b{i}"], [name]))
        last, width = name, size
        if not is_last:
            nodes.append(helper.make_node("Relu", [name], [f"a{i}"]))
            last = f"a{i}"
    if outputs > 1:
        nodes.append(helper.make_node("Softmax", [last], ["prob"], axis=1))
        last = "prob"
    batch = "batch" if free_batch else 1
    shape = [batch, features] if rows == 1 else [batch, rows, features]
    graph = helper.make_graph(
        nodes,
        "tickwire_demo",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [batch, outputs])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, producer_name="tickwire", opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8  # Of the time of opset 17: every runtime we accept reads it.
    text = schema.canonical_json()
    helper.set_model_props(model, {SCHEMA_KEY: text, SHA256_KEY: sha256_of(text)})
    write(Path(path), model)
    return Path(path)
