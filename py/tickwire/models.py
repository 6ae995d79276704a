"""Model files: what is in one, to which features it belongs, and how that is written into it.

A model is trained on rows of one feature schema and gives nonsense on any other, so the file itself
carries the schema: canonical JSON under `tickwire.schema` in its ONNX metadata and the JSON's SHA-256
under `tickwire.schema.sha256`. `bind` writes them, `check` compares them before an engine starts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tickwire.errors import FingerprintMismatch, ModelError, SetupError
from tickwire.features import Schema

__all__ = [
    "MAX_SCORES",
    "ModelSummary",
    "Port",
    "bind",
    "check",
    "check_fingerprint",
    "inspect",
    "make_demo_model",
    "onnxruntime_library",
]

SCHEMA_KEY: Final = "tickwire.schema"
SHA256_KEY: Final = "tickwire.schema.sha256"
#: Scores a model may give, as in infer/model.hpp.
MAX_SCORES: Final = 64
#: Protocol buffers end at 2 GiB, and so does an ONNX file.
_MAX_BYTES: Final = 2**31 - 1


def onnxruntime_library() -> Path:
    """The shared library inside the installed onnxruntime wheel, which the engine opens.

    The package is looked up, not imported: its Python module is another copy of the runtime, and an
    engine needs only the one.
    """
    expected = "onnxruntime: expected the wheel of version 1.21 or newer"
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or not spec.submodule_search_locations:
        raise SetupError(f"{expected}, found none installed; pip install 'onnxruntime>=1.21'")
    folders = [Path(location) / "capi" for location in spec.submodule_search_locations]
    found = sorted(file for folder in folders for file in folder.glob("libonnxruntime.so*"))
    if not found:
        raise SetupError(f"{expected} with libonnxruntime.so in it, found none in {folders[0]}")
    return found[-1]


@dataclass(frozen=True)
class Port:
    """One input or output as the file declares it."""

    name: str
    type: str
    shape: tuple[int | str | None, ...] | None
    """`None` where nothing is declared; a name or `None` for a free dimension."""

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.name}: {self.type}"
        return f"{self.name}: {self.type}[{', '.join('?' if d is None else str(d) for d in self.shape)}]"


@dataclass(frozen=True)
class ModelSummary:
    """What `tickwire model inspect` shows."""

    path: Path
    size_bytes: int
    sha256: str
    producer: str
    ir_version: int
    opsets: dict[str, int]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    scores: tuple[str, ...]
    """Names of the scores, empty where the engine would refuse the model."""
    refused: str | None
    """Why the engine would refuse the model, else None."""
    schema: str | None
    """The canonical JSON it is bound to; None in a model that was never bound."""
    fingerprint: str | None
    """SHA-256 of the schema as written into the file."""
    fingerprint_ok: bool | None
    """Whether the fingerprint is that of the schema beside it; None in a model that was never bound."""
    metadata: dict[str, str] = field(default_factory=dict)
    """The other entries of the file's metadata."""


def bind(
    model_path: str | os.PathLike[str],
    schema_json: str,
    sha256: str,
    out: str | os.PathLike[str] | None = None,
) -> Path:
    """Writes the feature schema into a model file, and returns the file's path.

    The model's input must have the schema's shape. Other metadata stays; an earlier schema is
    replaced. Without `out` the file itself is replaced, in one step: a reader sees the old file or
    the new one, never a part.
    """
    path = Path(model_path)
    if hashlib.sha256(schema_json.encode()).hexdigest() != sha256:
        raise ModelError(f"{path}: expected the SHA-256 of the schema, found {sha256}, which is another's")
    model, _ = _read(path)
    _check_input(path, model, Schema.from_json(schema_json))
    kept = {p.key: p.value for p in model.metadata_props if p.key not in (SCHEMA_KEY, SHA256_KEY)}
    helper.set_model_props(model, {**kept, SCHEMA_KEY: schema_json, SHA256_KEY: sha256})
    target = Path(out) if out is not None else path.resolve()
    _write(target, model, like=path)
    return target


def inspect(model_path: str | os.PathLike[str]) -> ModelSummary:
    """Describes a model file, also one that the engine would refuse."""
    path = Path(model_path)
    model, content = _read(path)
    metadata = {p.key: p.value for p in model.metadata_props}
    schema = metadata.pop(SCHEMA_KEY, None)
    fingerprint = metadata.pop(SHA256_KEY, None)
    scores: tuple[str, ...] = ()
    refused = None
    try:
        scores = _score_names(path, model, content)
    except ModelError as error:
        refused = str(error)
    return ModelSummary(
        path=path,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        ir_version=model.ir_version,
        opsets={entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        inputs=_inputs(model),
        outputs=tuple(_port(value) for value in model.graph.output),
        scores=scores,
        refused=refused,
        schema=schema,
        fingerprint=fingerprint,
        fingerprint_ok=None if schema is None and fingerprint is None else _sha256(schema) == fingerprint,
        metadata=metadata,
    )


def check(model_path: str | os.PathLike[str], schema: Schema) -> tuple[str, ...]:
    """Whether an engine of this schema can run the model; returns the names of its scores."""
    path = Path(model_path)
    model, content = _read(path)
    _check_bound(path, model, schema)
    _check_input(path, model, schema)
    return _score_names(path, model, content)


def check_fingerprint(model_path: str | os.PathLike[str], schema: Schema) -> None:
    """Raises FingerprintMismatch, the difference in its text, unless the model is bound to `schema`."""
    path = Path(model_path)
    _check_bound(path, _read(path)[0], schema)


def make_demo_model(
    path: str | os.PathLike[str],
    schema: Schema,
    *,
    outputs: int = 3,
    hidden: Iterable[int] = (64, 32),
    seed: int = 7,
) -> Path:
    """Makes a small model bound to `schema`, for the demo, the tests and the benchmark.

    A perceptron with weights from `seed`: it predicts nothing, and costs what a model of its size
    costs. With several outputs they are probabilities, `prob`; with one, `score`.
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
    shape = [1, features] if rows == 1 else [1, rows, features]
    graph = helper.make_graph(
        nodes,
        "tickwire_demo",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, outputs])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, producer_name="tickwire", opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8  # Of the time of opset 17: every runtime we accept reads it.
    text = schema.canonical_json()
    helper.set_model_props(model, {SCHEMA_KEY: text, SHA256_KEY: _sha256(text)})
    _write(Path(path), model)
    return Path(path)


def _sha256(text: str | None) -> str:
    return hashlib.sha256((text or "").encode()).hexdigest()


def _read(path: Path) -> tuple[onnx.ModelProto, bytes]:
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise ModelError(f"{path}: expected an ONNX model of less than 2 GiB, found {size} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: expected an ONNX model, found {error.strerror or error}") from None
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # Protocol buffers raise their own kinds, which differ by version.
        raise ModelError(f"{path}: expected an ONNX model, found a file that is none ({error})") from None
    if not model.graph.node:
        raise ModelError(f"{path}: expected an ONNX model, found a file without operators")
    outside = next((t.name for t in _tensors(model.graph) if t.data_location == TensorProto.EXTERNAL), None)
    if outside is not None:
        raise ModelError(
            f"{path}: expected a model in one file, found weights in another ({outside}); "
            "save it with save_as_external_data=False"
        )
    return model, content


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every constant of a graph and of the graphs inside its operators."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            for inner in attribute.graphs:
                yield from _tensors(inner)


def _write(target: Path, model: onnx.ModelProto, like: Path | None = None) -> None:
    content = model.SerializeToString(deterministic=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp gives 0600; a model has the mode of the one it came from, or what any new file gets.
        os.chmod(name, stat.S_IMODE(like.stat().st_mode) if like is not None else 0o666 & ~_umask())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _port(value: onnx.ValueInfoProto) -> Port:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return Port(value.name, str(kind or "nothing declared").removesuffix("_type"), None)
    tensor = value.type.tensor_type
    name = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name if tensor.elem_type else "any"
    if tensor.elem_type == TensorProto.STRING:
        name = "string"
    if not tensor.HasField("shape"):
        return Port(value.name, name, None)
    dims = (d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim)
    return Port(value.name, name, tuple(dims))


def _inputs(model: onnx.ModelProto) -> tuple[Port, ...]:
    # Old files list the weights among the inputs.
    weights = {tensor.name for tensor in model.graph.initializer}
    return tuple(_port(value) for value in model.graph.input if value.name not in weights)


def _check_input(path: Path, model: onnx.ModelProto, schema: Schema) -> None:
    rows, features = schema.window_rows, len(schema.expressions)
    inputs = _inputs(model)
    expected = (
        f"one input of float32[1, {features}]"
        if rows == 1
        else f"one input of float32[1, {rows}, {features}]"
    )
    if len(inputs) != 1:
        found = f"{len(inputs)} inputs: {'; '.join(map(str, inputs))}" if inputs else "none"
        raise ModelError(f"{path}: expected {expected}, found {found}")
    port = inputs[0]
    shape = port.shape or ()
    batch_of_one = bool(shape) and (shape[0] == 1 or not isinstance(shape[0], int))
    fits = shape[1:] == (rows, features) or (rows == 1 and shape[1:] == (features,))
    if port.type != "float32" or not batch_of_one or not fits:
        raise ModelError(f"{path}: expected {expected}, found {port}")


def _check_bound(path: Path, model: onnx.ModelProto, schema: Schema) -> None:
    metadata = {p.key: p.value for p in model.metadata_props}
    found, stored = metadata.get(SCHEMA_KEY), metadata.get(SHA256_KEY)
    command = f"tickwire model bind {path} --config pipeline.toml"
    if found is None or stored is None:
        raise ModelError(
            f"{path}: expected a model bound to the features it was trained on, found none bound; "
            f"bind it with the configuration that made its training data: {command}"
        )
    if _sha256(found) != stored:
        raise ModelError(
            f"{path}: expected {SHA256_KEY} to be the SHA-256 of {SCHEMA_KEY}, found {stored}: "
            f"the metadata was changed after binding; bind it again: {command}"
        )
    bound = Schema.from_json(found)
    if bound == schema:
        return
    differences = schema.diff(bound, this="configuration", that="model")
    lines = "\n".join(f"  {line}" for line in differences)
    raise FingerprintMismatch(
        f"{path}: expected a model bound to the features of the configuration, found one bound to others; "
        f"configure what it was trained on, or train it anew and bind it: {command}\n{lines}",
        differences,
    )


def _score_names(path: Path, model: onnx.ModelProto, content: bytes) -> tuple[str, ...]:
    """The names that infer/ort_model.cpp gives, found the same way: by one run on zeros."""
    import onnxruntime  # Here: it takes longer to load than all else, and bind does without.

    inputs = _inputs(model)
    shape = inputs[0].shape if len(inputs) == 1 else None
    if len(inputs) != 1 or inputs[0].type != "float32" or not shape or len(shape) not in (2, 3):
        raise ModelError(
            f"{path}: expected one input of float32[1, features] or float32[1, rows, features], "
            f"found {'; '.join(map(str, inputs)) or 'none'}"
        )
    free = not isinstance(shape[0], int)
    if not (free or shape[0] == 1) or not all(isinstance(size, int) for size in shape[1:]):
        raise ModelError(f"{path}: expected every dimension but the first to be fixed, found {inputs[0]}")
    outputs = [port for port in map(_port, model.graph.output) if port.type == "float32"]
    if not outputs:
        found = "; ".join(str(_port(value)) for value in model.graph.output) or "none"
        raise ModelError(f"{path}: expected at least one output of float32, found {found}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        zeros = np.zeros([1, *(int(d) for d in shape[1:] if d is not None)], np.float32)
        values = session.run([port.name for port in outputs], {inputs[0].name: zeros})
    except Exception as error:  # The runtime's own kinds, which it does not export.
        raise ModelError(
            f"{path}: expected an ONNX model that ONNX Runtime {onnxruntime.__version__} can run, "
            f"found {error}"
        ) from None
    names: list[str] = []
    for port, value in zip(outputs, values, strict=True):
        names += [port.name] if value.size == 1 else [f"{port.name}_{i}" for i in range(value.size)]
        if value.size == 0 or len(names) > MAX_SCORES:
            raise ModelError(
                f"{path}: expected 1 to {MAX_SCORES} scores in all, found {port} with {value.size} values"
            )
    if len(set(names)) != len(names):
        raise ModelError(f"{path}: expected scores of different names, found {', '.join(names)}")
    return tuple(names)
