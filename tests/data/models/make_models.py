"""Makes the ONNX files of this folder and `cases.txt`, the answers expected from them.

    python tests/data/models/make_models.py [FOLDER]

The answers are computed here in NumPy float64, from the same float32 weights and without any ONNX
runtime. Weights come from a fixed seed; tests/py/models/test_models.py checks that the committed files
are what this script makes. `good_*` load; `bad_*` must be refused.

cases.txt, one block a model:

    model good_mlp 1 5              file name, rows, features
    scores prob_0 prob_1 prob_2
    in 0.1 ...                      rows x features floats, oldest row first
    out 0.2 ...
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
FLOAT = TensorProto.FLOAT
OPSET = 17
IR_VERSION = 8  # Of the time of opset 17, so that old runtimes read the files too.
CASES = 5


def weights(rng: np.random.Generator, *shape: int) -> F32:
    return rng.normal(0.0, 0.6, shape).astype(np.float32)


def port(name: str, shape: list[int | str | None] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    tensors: dict[str, NDArray[Any]] | None = None,
    opset: int = OPSET,
    metadata: dict[str, str] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tickwire_test",
        inputs,
        outputs,
        [numpy_helper.from_array(value, name) for name, value in (tensors or {}).items()],
    )
    made = helper.make_model(
        graph,
        producer_name="tickwire tests",
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)],
    )
    made.ir_version = IR_VERSION
    if metadata:
        helper.set_model_props(made, metadata)
    return made


def sigmoid(x: F64) -> F64:
    return 1.0 / (1.0 + np.exp(-x))


class Maker:
    """Writes the models and collects the cases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []

    def bad(self, name: str, made: onnx.ModelProto) -> None:
        (self.folder / f"bad_{name}.onnx").write_bytes(made.SerializeToString(deterministic=True))

    def good(
        self,
        name: str,
        made: onnx.ModelProto,
        rows: int,
        features: int,
        scores: list[str],
        oracle: Callable[[F64], F64],
        inputs: list[F32] | None = None,
    ) -> None:
        (self.folder / f"good_{name}.onnx").write_bytes(made.SerializeToString(deterministic=True))
        if inputs is None:
            rng = np.random.default_rng(sum(name.encode()))
            inputs = [rng.normal(0.0, 1.5, (rows, features)).astype(np.float32) for _ in range(CASES)]
        self.lines += [f"model good_{name} {rows} {features}", "scores " + " ".join(scores)]
        for x in inputs:
            expected = np.ravel(oracle(x.astype(np.float64)))
            assert expected.size == len(scores)
            self.lines.append("in " + " ".join(repr(float(v)) for v in x.ravel()))
            self.lines.append("out " + " ".join(repr(float(v)) for v in expected))


def make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    maker = Maker(folder)
    rng = np.random.default_rng(20240808)

    # A classifier of the usual form, batch fixed to 1: one output of three scores.
    w0, b0, w1, b1 = weights(rng, 5, 8), weights(rng, 8), weights(rng, 8, 3), weights(rng, 3)

    def mlp(x: F64) -> F64:
        logits = np.maximum(x @ w0 + b0, 0.0) @ w1 + b1
        e = np.exp(logits - logits.max())
        return np.asarray(e / e.sum())

    mlp_nodes = [
        helper.make_node("Gemm", ["features", "w0", "b0"], ["h0"]),
        helper.make_node("Relu", ["h0"], ["h1"]),
        helper.make_node("Gemm", ["h1", "w1", "b1"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["prob"], axis=1),
    ]
    mlp_tensors = {"w0": w0, "b0": b0, "w1": w1, "b1": b1}
    mlp_args = (mlp_nodes, [port("features", [1, 5])], [port("prob", [1, 3])], mlp_tensors)
    maker.good("mlp", model(*mlp_args), 1, 5, ["prob_0", "prob_1", "prob_2"], mlp)
    bound = {
        "tickwire.schema": '{"rows":["spread()"]}',
        "tickwire.schema.sha256": "ab" * 32,
        "author": "tests",
    }
    maker.good("bound", model(*mlp_args, metadata=bound), 1, 5, ["prob_0", "prob_1", "prob_2"], mlp)

    # A regressor with a free batch, one score.
    w, b = weights(rng, 4, 1), weights(rng, 1)
    gemm = [helper.make_node("Gemm", ["x", "w", "b"], ["edge"])]
    maker.good(
        "free_batch",
        model(gemm, [port("x", ["batch", 4])], [port("edge", ["batch", 1])], {"w": w, "b": b}),
        1,
        4,
        ["edge"],
        lambda x: x @ w + b,
    )
    # The same, with a batch dimension that has no name and an output of which nothing is known.
    maker.good(
        "nameless_batch",
        model(gemm, [port("x", [None, 4])], [port("edge", None)], {"w": w, "b": b}),
        1,
        4,
        ["edge"],
        lambda x: x @ w + b,
    )

    # A sequence model: an LSTM over a window of four rows of three features, free batch.
    hidden = 4
    lw, lr, lb = (
        weights(rng, 1, 4 * hidden, 3),
        weights(rng, 1, 4 * hidden, hidden),
        weights(rng, 1, 8 * hidden),
    )
    hw, hb = weights(rng, hidden, 2), weights(rng, 2)

    def lstm(x: F64) -> F64:
        h = np.zeros(hidden)
        c = np.zeros(hidden)
        for row in x:  # ONNX's gate order: input, output, forget, cell.
            gates = lw[0] @ row + lr[0] @ h + lb[0][: 4 * hidden] + lb[0][4 * hidden :]
            i, o, f = (sigmoid(gates[k * hidden : (k + 1) * hidden]) for k in range(3))
            c = f * c + i * np.tanh(gates[3 * hidden :])
            h = o * np.tanh(c)
        return h @ hw + hb

    maker.good(
        "window",
        model(
            [
                helper.make_node("Transpose", ["window"], ["steps"], perm=[1, 0, 2]),
                helper.make_node("LSTM", ["steps", "lw", "lr", "lb"], ["", "h"], hidden_size=hidden),
                helper.make_node("Squeeze", ["h", "axis"], ["last"]),
                helper.make_node("Gemm", ["last", "hw", "hb"], ["move"]),
            ],
            [port("window", ["n", 4, 3])],
            [port("move", ["n", 2])],
            {"lw": lw, "lr": lr, "lb": lb, "hw": hw, "hb": hb, "axis": np.array([0], np.int64)},
        ),
        4,
        3,
        ["move_0", "move_1"],
        lstm,
    )

    # Several outputs: two of float32, a label between them, a scalar without dimensions at the end.
    maker.good(
        "several_outputs",
        model(
            [
                helper.make_node("Mul", ["x", "two"], ["double"]),
                helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
                helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
            ],
            [port("x", [1, 2])],
            [port("double", [1, 2]), port("label", [1], TensorProto.INT64), port("top", [])],
            {"two": np.array(2.0, np.float32)},
        ),
        1,
        2,
        ["double_0", "double_1", "top"],
        lambda x: np.append(x * 2.0, x.max()),
    )

    # What converters write for a classifier: label, probabilities, and a ZipMap of them.
    cw, cb = weights(rng, 3, 3), weights(rng, 3)

    def linear_classifier(x: F64) -> F64:
        e = np.exp(cw @ x[0] + cb)
        return np.asarray(e / e.sum())

    zip_map = onnx.ValueInfoProto(name="by_class")
    zip_map.type.sequence_type.elem_type.map_type.key_type = TensorProto.INT64
    zip_map.type.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = FLOAT
    maker.good(
        "zipmap",
        model(
            [
                helper.make_node(
                    "LinearClassifier",
                    ["x"],
                    ["label", "prob"],
                    domain="ai.onnx.ml",
                    coefficients=cw.ravel().tolist(),
                    intercepts=cb.tolist(),
                    classlabels_ints=[0, 1, 2],
                    post_transform="SOFTMAX",
                ),
                helper.make_node(
                    "ZipMap", ["prob"], ["by_class"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]
                ),
            ],
            [port("x", ["N", 3])],
            [port("label", ["N"], TensorProto.INT64), zip_map, port("prob", ["N", 3])],
        ),
        1,
        3,
        ["prob_0", "prob_1", "prob_2"],
        linear_classifier,
    )

    # Trees: two of depth one and a half, summed.
    def trees(x: F64) -> F64:
        first = (1.5 if x[0, 1] <= -1.0 else -0.25) if x[0, 0] <= 0.5 else 2.0
        second = 0.125 if x[0, 2] <= 0.0 else -3.0
        return np.array([first + second])

    tree = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["value"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=[0, 0, 0, 0, 0, 1, 1, 1],
        nodes_nodeids=[0, 1, 2, 3, 4, 0, 1, 2],
        nodes_featureids=[0, 1, 0, 0, 0, 2, 0, 0],
        nodes_modes=["BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.5, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        nodes_truenodeids=[1, 3, 0, 0, 0, 1, 0, 0],
        nodes_falsenodeids=[2, 4, 0, 0, 0, 2, 0, 0],
        target_treeids=[0, 0, 0, 1, 1],
        target_nodeids=[2, 3, 4, 1, 2],
        target_ids=[0, 0, 0, 0, 0],
        target_weights=[2.0, 1.5, -0.25, 0.125, -3.0],
    )
    maker.good(
        "trees",
        model([tree], [port("x", ["N", 3])], [port("value", ["N", 1])]),
        1,
        3,
        ["value"],
        trees,
        [
            np.array([row], np.float32)
            for row in (
                [0.5, -1.0, 0.0],
                [0.5, -0.5, 0.0],
                [0.75, -2.0, 0.0],
                [0.0, 0.0, 0.5],
                [-1.0, -1.5, 2.0],
            )
        ],
    )

    # Products below the smallest normal float: with denormals flushed, nothing is left of them.
    maker.good(
        "denormal",
        model(
            [
                helper.make_node("Mul", ["x", "tiny"], ["small"]),
                helper.make_node("Mul", ["small", "huge"], ["y"]),
            ],
            [port("x", [1, 1])],
            [port("y", [1, 1])],
            {"tiny": np.array(1e-20, np.float32), "huge": np.array(1e30, np.float32)},
        ),
        1,
        1,
        ["y"],
        lambda x: np.where(np.abs(x) < 1.0, 0.0, x * 1e10),
        [np.array([[v]], np.float32) for v in (1e-20, 3.0, -1e-20)],
    )

    # A mean over the input itself: the runtime sums in an order that depends on where the memory starts.
    maker.good(
        "mean",
        model(
            [helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0)],
            [port("x", [1, 50, 7])],
            [port("mean", [])],
        ),
        50,
        7,
        ["mean"],
        lambda x: x.mean(),
    )

    # The classifier again with a free batch and weights of its own: the other half of an ensemble.
    v0, c0, v1, c1 = weights(rng, 5, 8), weights(rng, 8), weights(rng, 8, 3), weights(rng, 3)

    def other_mlp(x: F64) -> F64:
        logits = np.tanh(x @ v0 + c0) @ v1 + c1
        e = np.exp(logits - logits.max())
        return np.asarray(e / e.sum())

    maker.good(
        "mlp_batch",
        model(
            [
                helper.make_node("Gemm", ["features", "v0", "c0"], ["h0"]),
                helper.make_node("Tanh", ["h0"], ["h1"]),
                helper.make_node("Gemm", ["h1", "v1", "c1"], ["logits"]),
                helper.make_node("Softmax", ["logits"], ["p"], axis=1),
            ],
            [port("features", ["batch", 5])],
            [port("p", ["batch", 3])],
            {"v0": v0, "c0": c0, "v1": v1, "c1": c1},
        ),
        1,
        5,
        ["p_0", "p_1", "p_2"],
        other_mlp,
    )

    # Right for a row alone, wrong in a batch: the first scores a row by its neighbours too, the second
    # gives one score for the whole batch, the third fixes the size of its batch inside.
    mean_of_all = helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1)
    maker.good(
        "batch_mixed",
        model(
            [mean_of_all, helper.make_node("Add", ["x", "mean"], ["y"])],
            [port("x", ["batch", 2])],
            [port("y", ["batch", 2])],
        ),
        1,
        2,
        ["y_0", "y_1"],
        lambda x: 2 * x,
    )
    maker.good(
        "batch_reduced",
        model(
            [helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0)],
            [port("x", ["batch", 2])],
            [port("top", [])],
        ),
        1,
        2,
        ["top"],
        lambda x: x.max(),
    )
    maker.good(
        "batch_fixed_inside",
        model(
            [
                helper.make_node("Reshape", ["x", "shape"], ["flat"]),
                helper.make_node("Mul", ["flat", "two"], ["y"]),
            ],
            [port("x", ["batch", 2])],
            [port("y", [2])],
            {"shape": np.array([2], np.int64), "two": np.array(2.0, np.float32)},
        ),
        1,
        2,
        ["y_0", "y_1"],
        lambda x: 2 * x,
    )

    # What must be refused.
    def identity(
        shape: list[int | str | None], kind: int = FLOAT, out: list[int | str | None] | None = None
    ) -> onnx.ModelProto:
        return model(
            [helper.make_node("Identity", ["x"], ["y"])],
            [port("x", shape, kind)],
            [port("y", out or shape, kind)],
        )

    maker.bad(
        "two_inputs",
        model(
            [helper.make_node("Add", ["a", "b"], ["y"])],
            [port("a", [1, 5]), port("b", [1, 5])],
            [port("y", [1, 5])],
        ),
    )
    maker.bad("string_input", identity([1, 5], TensorProto.STRING))
    maker.bad("double_input", identity([1, 5], TensorProto.DOUBLE))
    maker.bad("one_dimension", identity([5]))
    maker.bad("free_features", identity([1, "F"]))
    maker.bad("free_rows", identity(["N", "T", 5]))
    maker.bad("batch_of_eight", identity([8, 5]))
    maker.bad("many_scores", identity([1, 65]))
    maker.bad(
        "labels_only",
        model(
            [helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0)],
            [port("x", [1, 5])],
            [port("label", [1], TensorProto.INT64)],
        ),
    )
    maker.bad(
        "unknown_operator",
        model([helper.make_node("Prophesy", ["x"], ["y"])], [port("x", [1, 5])], [port("y", [1, 5])]),
    )
    maker.bad(
        "future_opset",
        model([helper.make_node("Relu", ["x"], ["y"])], [port("x", [1, 5])], [port("y", [1, 5])], opset=999),
    )
    # The output's shape follows the values, and a row of zeros gives none.
    maker.bad(
        "empty_output",
        model(
            [
                helper.make_node("NonZero", ["x"], ["where"]),
                helper.make_node("Cast", ["where"], ["y"], to=FLOAT),
            ],
            [port("x", [1, 5])],
            [port("y", [2, "n"])],
        ),
    )
    # Loads, then fails: ten values for a row of zeros, fewer for others.
    maker.bad(
        "shape_changes",
        model(
            [
                helper.make_node("LessOrEqual", ["x", "half"], ["mask"]),
                helper.make_node("NonZero", ["mask"], ["where"]),
                helper.make_node("Cast", ["where"], ["y"], to=FLOAT),
            ],
            [port("x", [1, 5])],
            [port("y", [2, "n"])],
            {"half": np.array(0.5, np.float32)},
        ),
    )

    (folder / "cases.txt").write_text("\n".join(maker.lines) + "\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
