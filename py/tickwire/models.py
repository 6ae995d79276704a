"""Model files: what is in one, to which features it belongs, and how that is written into it.

A model is trained on rows of one feature schema and gives nonsense on any other, so the file itself
carries the schema: canonical JSON under `tickwire.schema` in its ONNX metadata and the JSON's SHA-256
under `tickwire.schema.sha256`. `bind` writes them, `check` compares them before an engine starts.

What a file declares is read here; whether it runs, and with which scores, is asked of the engine's own loader
(`load`), so that no second opinion can differ from the start's.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tickwire import core
from tickwire.errors import FingerprintMismatch, ModelError, SetupError
from tickwire.features import Schema
from tickwire.held import MAX_BYTES, HeldFile, held_file
from tickwire.limits import Limit
from tickwire.outputs import refuse_over
from tickwire.random_operators import random_operator
from tickwire.trial import Trial, try_model

__all__ = [
    "ModelSummary",
    "Optimized",
    "Port",
    "bind",
    "check",
    "check_fingerprint",
    "inspect",
    "load",
    "make_demo_model",
    "optimize",
    "providers",
    "try_out",
]

SCHEMA_KEY: Final = "tickwire.schema"
SHA256_KEY: Final = "tickwire.schema.sha256"
#: Seconds in which a model must be loaded and warm, where no configuration says otherwise.
TRIAL_S: float = 60.0
#: Scores may differ by this much between a model and its optimised self: another order of sums.
_TOLERANCE: Final = 1e-3


def providers() -> list[str]:
    """The providers that the installed ONNX Runtime has, "cpu" first."""
    return core.extension.providers(str(core.onnxruntime_library()))


def load(
    paths: Sequence[str | os.PathLike[str]],
    *,
    weights: Sequence[float] = (),
    provider: str = "cpu",
    cache_dir: str | os.PathLike[str] = "",
    max_batch: int = 1,
    rows: int = 0,
    features: int = 0,
    held: Sequence[HeldFile] = (),
) -> core.extension.Model:
    """A model as the engine loads it; several files are an ensemble. `held`: the files, read already.

    `run` of the result scores rows on the engine's own code path: float32 of [n, features], or
    [n, rows, features]. With `rows` and `features` left at 0 the shape is what the file declares.
    """
    try:
        return core.extension.Model(
            members=[os.fspath(path) for path in paths],
            weights=list(weights),
            provider=provider,
            cache_dir=os.fspath(cache_dir),
            max_batch=max_batch,
            rows=rows,
            features=features,
            library=str(core.onnxruntime_library()),
            fds=[file.descriptor for file in held],
        )
    except core.extension.SetupError as error:
        raise ModelError(str(error)) from None


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
    format: str
    """`IR 8, ai.onnx 17`, or that it is ONNX Runtime's own format, whose versions nobody tells."""
    producer: str
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
    if out is not None:
        refuse_over("--out", out, [("the model itself (without --out it is bound in place):", path)])
    if hashlib.sha256(schema_json.encode()).hexdigest() != sha256:
        raise ModelError(f"{path}: expected the SHA-256 of the schema, found {sha256}, which is another's")
    with contextlib.closing(held_file(path)) as held:
        return _bind(path, held, schema_json, sha256, out)


def _bind(
    path: Path, held: HeldFile, schema_json: str, sha256: str, out: str | os.PathLike[str] | None
) -> Path:
    file = _read(path, held)
    if file.model is None:
        raise ModelError(
            f"{path}: expected an ONNX model to bind, found ONNX Runtime's own format, which cannot be "
            "written again; bind the .onnx file, then: tickwire model optimize --format ort"
        )
    _check_repeats(path, file)
    _try_for(path, held, Schema.from_json(schema_json))
    model = file.model
    kept = {p.key: p.value for p in model.metadata_props if p.key not in (SCHEMA_KEY, SHA256_KEY)}
    helper.set_model_props(model, {**kept, SCHEMA_KEY: schema_json, SHA256_KEY: sha256})
    target = Path(out) if out is not None else path.resolve()
    _write(target, model, like=path)
    return target


def inspect(model_path: str | os.PathLike[str]) -> ModelSummary:
    """Describes a model file, also one that the engine would refuse."""
    path = Path(model_path)
    with contextlib.closing(held_file(path)) as held:
        return _inspect(path, held)


def _inspect(path: Path, held: HeldFile) -> ModelSummary:
    file = _read(path, held)
    metadata = dict(file.metadata)
    schema = metadata.pop(SCHEMA_KEY, None)
    fingerprint = metadata.pop(SHA256_KEY, None)
    scores: tuple[str, ...] = ()
    refused = None
    try:
        scores = try_out([path], [held]).scores
        _check_repeats(path, file)
    except ModelError as error:
        refused = str(error)
    return ModelSummary(
        path=path,
        size_bytes=held.size,
        sha256=held.sha256,
        format=file.format,
        producer=file.producer,
        inputs=file.inputs,
        outputs=file.outputs,
        scores=scores,
        refused=refused,
        schema=schema,
        fingerprint=fingerprint,
        fingerprint_ok=None if schema is None and fingerprint is None else _sha256(schema) == fingerprint,
        metadata=metadata,
    )


def check(
    model_path: str | os.PathLike[str],
    schema: Schema,
    *,
    provider: str = "cpu",
    max_batch: int = 1,
    held: HeldFile | None = None,
    limit: Limit | None = None,
) -> tuple[str, ...]:
    """Whether an engine of this schema can run the model; returns the names of its scores.

    `held`: its bytes, where they were read already. `limit`: how long it may take, as for `try_out`.
    """
    path = Path(model_path)
    if held is None:
        with contextlib.closing(held_file(path, limit)) as held:
            return check(path, schema, provider=provider, max_batch=max_batch, held=held, limit=limit)
    check_fingerprint(path, schema, held=held)
    return _try_for(path, held, schema, provider=provider, max_batch=max_batch, limit=limit).scores


def _try_for(
    path: Path,
    held: HeldFile,
    schema: Schema,
    *,
    provider: str = "cpu",
    max_batch: int = 1,
    limit: Limit | None = None,
) -> Trial:
    return try_out(
        [path],
        [held],
        provider=provider,
        max_batch=max_batch,
        rows=schema.window_rows,
        features=len(schema.expressions),
        limit=limit,
    )


def try_out(
    paths: Sequence[Path],
    held: Sequence[HeldFile] = (),
    *,
    provider: str = "cpu",
    cache_dir: str | os.PathLike[str] = "",
    max_batch: int = 1,
    rows: int = 0,
    features: int = 0,
    limit: Limit | None = None,
) -> Trial:
    """Loads and warms a model in a process of its own, which is stopped where it does not end: after a
    minute, if no limit says otherwise. `ModelError` says why an engine could not have it. `held`: the files,
    read already."""
    limit = limit or Limit(TRIAL_S)
    with contextlib.ExitStack() as opened:
        if not held:
            held = [opened.enter_context(contextlib.closing(held_file(path, limit))) for path in paths]
        return try_model(
            [os.fspath(path) for path in paths],
            [file.descriptor for file in held],
            limit,
            library=str(core.onnxruntime_library()),
            provider=provider,
            cache_dir=os.fspath(cache_dir),
            max_batch=max_batch,
            rows=rows,
            features=features,
        )


@dataclass(frozen=True)
class Optimized:
    """What `optimize` made of a model."""

    path: Path
    size_bytes: tuple[int, int]
    """Of the file before and after."""
    load_ms: tuple[float, float]
    """To load it, the best of several."""
    rows: int
    """Made-up rows that both files scored."""
    difference: float
    """Largest between their scores; 0 where all are the same bits."""


def optimize(
    model_path: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    format: Literal["onnx", "ort"] = "onnx",
    provider: str = "cpu",
) -> Optimized:
    """Writes the model as ONNX Runtime optimises it for this machine, so that a start has less to do.

    The schema it is bound to stays. The file is for the ONNX Runtime and the kind of CPU that made it.
    Nothing is written where the optimised model scores otherwise than the original.
    """
    path = Path(model_path)
    target = Path(out) if out is not None else path.with_suffix(f".optimized.{format}")
    refuse_over("--out", target, [("the model", path)])
    before = _read(path)
    try_out([path], provider=provider)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    made = Path(name)
    try:
        try:
            core.extension.optimize_model(
                path=str(path),
                out=name,
                format=format,
                provider=provider,
                library=str(core.onnxruntime_library()),
            )
        except core.extension.SetupError as error:
            raise ModelError(str(error)) from None
        rows, difference = _compare(path, made, provider)
        if _read(made).metadata != before.metadata:
            raise ModelError(f"{path}: expected an optimised model with the same metadata, found it changed")
        load_ms = _load_ms(path, provider), _load_ms(made, provider)
        sizes = len(before.content), made.stat().st_size
        made.chmod(stat.S_IMODE(path.stat().st_mode))
        made.replace(target)
    finally:
        made.unlink(missing_ok=True)
    return Optimized(path=target, size_bytes=sizes, load_ms=load_ms, rows=rows, difference=difference)


def _compare(one: Path, other: Path, provider: str) -> tuple[int, float]:
    models = [load([path], provider=provider) for path in (one, other)]
    shape = (256, models[0].rows, models[0].features)
    rows = np.random.RandomState(7).standard_normal(shape).astype(np.float32)
    if models[0].rows == 1:
        rows = rows[:, 0, :]
    before, after = (model.run(rows) for model in models)
    if before.tobytes() == after.tobytes():
        return len(rows), 0.0
    scale = np.maximum(1.0, np.abs(before))
    difference = float(np.max(np.abs(np.nan_to_num(before) - np.nan_to_num(after))))
    if not np.array_equal(np.isfinite(before), np.isfinite(after)) or bool(
        np.any(np.abs(np.nan_to_num(before) - np.nan_to_num(after)) > _TOLERANCE * scale)
    ):
        raise ModelError(
            f"{one}: expected the optimised model to score as the original, found scores that differ by up "
            f"to {difference:g}; nothing was written"
        )
    return len(rows), difference


def _load_ms(path: Path, provider: str, times: int = 5) -> float:
    best = math.inf
    for _ in range(times):
        start = time.perf_counter()
        load([path], provider=provider)
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def check_fingerprint(
    model_path: str | os.PathLike[str], schema: Schema, *, held: HeldFile | None = None
) -> None:
    """Raises FingerprintMismatch, the difference in its text, unless the model is bound to `schema`; and
    ModelError where its operators draw random numbers, so that a row would have no one score."""
    path = Path(model_path)
    file = _read(path, held)
    _check_bound(path, file.metadata, schema)
    _check_repeats(path, file)


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
    helper.set_model_props(model, {SCHEMA_KEY: text, SHA256_KEY: _sha256(text)})
    _write(Path(path), model)
    return Path(path)


def _sha256(text: str | None) -> str:
    return hashlib.sha256((text or "").encode()).hexdigest()


@dataclass(frozen=True)
class _File:
    content: bytes
    model: onnx.ModelProto | None
    """None in ONNX Runtime's own format."""
    format: str
    producer: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: dict[str, str]


def _read(path: Path, held: HeldFile | None = None) -> _File:
    if held is None:
        with contextlib.closing(held_file(path)) as held:
            return _read(path, held)
    content = held.content()
    if content[4:8] == b"ORTM":
        return _read_ort(path, content)
    advice = "; export the model again, or copy it again"
    if not content:
        raise ModelError(f"{path}: expected an ONNX model, found an empty file{advice}")
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # Protocol buffers raise their own kinds, which differ by version.
        raise ModelError(
            f"{path}: expected an ONNX model, found a file that is none or is damaged ({error}){advice}"
        ) from None
    if not model.graph.node:
        raise ModelError(f"{path}: expected an ONNX model, found a file without operators{advice}")
    _check_in_one_file(path, model)
    versions = ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in model.opset_import)
    return _File(
        content=content,
        model=model,
        format=f"IR {model.ir_version}, {versions}",
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        inputs=_inputs(model),
        outputs=tuple(_port(value) for value in model.graph.output),
        metadata={p.key: p.value for p in model.metadata_props},
    )


def _read_ort(path: Path, content: bytes) -> _File:
    # Before it is loaded, as the engine does for its own copy: no report on this host to anybody.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime  # Here: it takes long to load, and no other file needs it.

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # The runtime's own kinds, which it does not export.
        raise ModelError(
            f"{path}: expected a model in ONNX Runtime's own format that {onnxruntime.__version__} can read, "
            f"found {error}; make it again with this version: tickwire model optimize --format ort"
        ) from None

    def port(value: Any) -> Port:
        kind = str(value.type).removeprefix("tensor(").removesuffix(")")
        name = {"float": "float32", "double": "float64"}.get(kind, kind)
        return Port(value.name, name, tuple(value.shape) if str(value.type).startswith("tensor") else None)

    meta = session.get_modelmeta()
    return _File(
        content=content,
        model=None,
        format="ONNX Runtime's own (.ort)",
        producer=meta.producer_name,
        inputs=tuple(port(value) for value in session.get_inputs()),
        outputs=tuple(port(value) for value in session.get_outputs()),
        metadata=dict(meta.custom_metadata_map),
    )


def _check_in_one_file(path: Path, model: onnx.ModelProto) -> None:
    outside = [t for t in _tensors(model.graph) if t.data_location == TensorProto.EXTERNAL]
    if not outside:
        return
    entries = [{entry.key: entry.value for entry in tensor.external_data} for tensor in outside]
    names = outside[0].name + (f" and {len(outside) - 1} more" if len(outside) > 1 else "")
    files = sorted({entry.get("location", "?") for entry in entries})
    size = sum(int(entry.get("length") or 0) for entry in entries)
    advice = (
        "an ONNX file ends at 2 GiB: quantise the model, or take a smaller one"
        if size > MAX_BYTES
        else "save it with torch.onnx.export(…, external_data=False), or with "
        "onnx.save(model, path, save_as_external_data=False)"
    )
    raise ModelError(
        f"{path}: expected a model in one file, found weights in another "
        f"({names}: {size:,} bytes in {', '.join(files)}); {advice}"
    )


def _check_repeats(path: Path, file: _File) -> None:
    found = random_operator(file.model) if file.model is not None else None
    if found is not None:
        raise ModelError(
            f"{path}: expected the same scores each time a row is scored, found the operator {found}, which "
            "draws random numbers; export the model for inference (model.eval()), without it"
        )


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
    target = Path(os.path.realpath(target))  # A link stays one.
    if target.exists() and not target.is_file():
        found = "a folder" if target.is_dir() else "a pipe or a device"
        raise SetupError(f"{target}: expected a file to write the model to, found {found}; name another one")
    try:
        _replace(target, content, like)
    except OSError as error:
        raise SetupError(f"{target}: the model cannot be written: {error.strerror or error}") from None


def _replace(target: Path, content: bytes, like: Path | None) -> None:
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
    # From the kernel's account: to ask by setting it would change it for all threads for a moment.
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o077


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


def _check_bound(path: Path, metadata: dict[str, str], schema: Schema) -> None:
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
