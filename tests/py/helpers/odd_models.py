"""Models made of single operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from configuring import one_feed
from onnx import TensorProto, helper

from tickwire.config import Config

FEATURES = ["spread()", "microprice_offset()"]


def config(folder: Path, layout: str = "threads", **model: Any) -> Config:
    nowhere = {"url": "ws://127.0.0.1:9", "rest_url": "http://127.0.0.1:9"}
    tables: dict[str, Any] = {"model": model} if model else {}
    return one_feed(rows=FEATURES, feed=nowhere, base=folder, engine={"layout": layout}, **tables)


def value(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def constant(name: str, kind: int, shape: list[int], values: list[Any]) -> onnx.TensorProto:
    return helper.make_tensor(name, kind, shape, values)


def make(
    nodes: list[Any], *constants: onnx.TensorProto, functions: list[Any] | None = None
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", [value("x", 1, 2)], [value("y", 1, 2)], list(constants))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, functions=functions or [])
    model.ir_version = 8
    return model


def node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, outputs, **attributes)
