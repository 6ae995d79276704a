"""Which operator of a model draws random numbers, if any whose numbers can reach a score does.

A row has one score: what is recorded live must come out of a replay again. The engine's loader tries a model
on rows of its own, which finds what draws at every run; here it is found by name, also where only some rows
come to it.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

__all__ = ["random_operator"]

_RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Sampling",
    }
)


def random_operator(model: onnx.ModelProto) -> str | None:
    """Its type, and its name where it has one: `RandomNormalLike (noise)`. None where there is none."""
    functions = {(function.domain, function.name): function for function in model.functions}
    for node in _live(model.graph):
        found = _random_in(node, functions, frozenset())
        if found is not None:
            return f"{found.op_type} ({found.name})" if found.name else found.op_type
    return None


def _live(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes that an output depends on."""
    needed = {value.name for value in graph.output}
    for node in reversed(graph.node):  # In an order in which each comes after what it reads.
        if needed.isdisjoint(node.output):
            continue
        needed.update(node.input)
        for inner in _graphs(node):
            needed.update(_names_read(inner))
        yield node


def _graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _names_read(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (value.name for value in graph.output)
    for node in graph.node:
        yield from node.input
        for inner in _graphs(node):
            yield from _names_read(inner)


def _random_in(
    node: onnx.NodeProto,
    functions: dict[tuple[str, str], onnx.FunctionProto],
    inside: frozenset[tuple[str, str]],
) -> onnx.NodeProto | None:
    """The node itself, or one of the graphs inside it, or of the function that it calls."""
    key = (node.domain, node.op_type)
    function = functions.get(key)
    if function is None and node.op_type in _RANDOM:
        return node
    inner = [child for graph in _graphs(node) for child in graph.node]
    if function is not None and key not in inside:
        inside = inside | {key}
        inner += function.node
    for child in inner:
        found = _random_in(child, functions, inside)
        if found is not None:
            return found
    return None
