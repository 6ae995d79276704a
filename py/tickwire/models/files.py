"""What is in a model file: its ports, its metadata and its operators, as the file declares them."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from tickwire.errors import ModelError, SetupError
from tickwire.held import MAX_BYTES, HeldFile, held_file
from tickwire.models.random_operators import random_operator

__all__ = ["ModelFile", "Port", "check_repeats", "read", "write"]


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
class ModelFile:
    content: bytes
    model: onnx.ModelProto | None
    """None in ONNX Runtime's own format."""
    format: str
    producer: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: dict[str, str]


def read(path: Path, held: HeldFile | None = None) -> ModelFile:
    if held is None:
        with contextlib.closing(held_file(path)) as held:
            return read(path, held)
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
    return ModelFile(
        content=content,
        model=model,
        format=f"IR {model.ir_version}, {versions}",
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        inputs=_inputs(model),
        outputs=tuple(_port(value) for value in model.graph.output),
        metadata={p.key: p.value for p in model.metadata_props},
    )


def _read_ort(path: Path, content: bytes) -> ModelFile:
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
    return ModelFile(
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


def check_repeats(path: Path, file: ModelFile) -> None:
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


def write(target: Path, model: onnx.ModelProto, like: Path | None = None) -> None:
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
