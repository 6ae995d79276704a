"""To which features a model belongs, and how that is written into it.

Canonical JSON of the schema is under `tickwire.schema` in the file's metadata, its SHA-256 under
`tickwire.schema.sha256`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from onnx import helper

from tickwire.errors import FingerprintMismatch, ModelError
from tickwire.features import Schema
from tickwire.held import HeldFile, held_file
from tickwire.limits import Limit
from tickwire.models.files import Port, check_repeats, read, write
from tickwire.models.loading import try_for, try_out
from tickwire.outputs import refuse_over

__all__ = [
    "SCHEMA_KEY",
    "SHA256_KEY",
    "ModelSummary",
    "bind",
    "check",
    "check_fingerprint",
    "inspect",
    "sha256_of",
]

SCHEMA_KEY: Final = "tickwire.schema"
SHA256_KEY: Final = "tickwire.schema.sha256"


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
    file = read(path, held)
    if file.model is None:
        raise ModelError(
            f"{path}: expected an ONNX model to bind, found ONNX Runtime's own format, which cannot be "
            "written again; bind the .onnx file, then: tickwire model optimize --format ort"
        )
    check_repeats(path, file)
    try_for(path, held, Schema.from_json(schema_json))
    model = file.model
    kept = {p.key: p.value for p in model.metadata_props if p.key not in (SCHEMA_KEY, SHA256_KEY)}
    helper.set_model_props(model, {**kept, SCHEMA_KEY: schema_json, SHA256_KEY: sha256})
    target = Path(out) if out is not None else path.resolve()
    write(target, model, like=path)
    return target


def inspect(model_path: str | os.PathLike[str]) -> ModelSummary:
    """Describes a model file, also one that the engine would refuse."""
    path = Path(model_path)
    with contextlib.closing(held_file(path)) as held:
        return _inspect(path, held)


def _inspect(path: Path, held: HeldFile) -> ModelSummary:
    file = read(path, held)
    metadata = dict(file.metadata)
    schema = metadata.pop(SCHEMA_KEY, None)
    fingerprint = metadata.pop(SHA256_KEY, None)
    scores: tuple[str, ...] = ()
    refused = None
    try:
        scores = try_out([path], [held]).scores
        check_repeats(path, file)
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
        fingerprint_ok=None if schema is None and fingerprint is None else sha256_of(schema) == fingerprint,
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
    return try_for(path, held, schema, provider=provider, max_batch=max_batch, limit=limit).scores


def check_fingerprint(
    model_path: str | os.PathLike[str], schema: Schema, *, held: HeldFile | None = None
) -> None:
    """Raises FingerprintMismatch, the difference in its text, unless the model is bound to `schema`; and
    ModelError where its operators draw random numbers, so that a row would have no one score."""
    path = Path(model_path)
    file = read(path, held)
    _check_bound(path, file.metadata, schema)
    check_repeats(path, file)


def _check_bound(path: Path, metadata: dict[str, str], schema: Schema) -> None:
    found, stored = metadata.get(SCHEMA_KEY), metadata.get(SHA256_KEY)
    command = f"tickwire model bind {path} --config pipeline.toml"
    if found is None or stored is None:
        raise ModelError(
            f"{path}: expected a model bound to the features it was trained on, found none bound; "
            f"bind it with the configuration that made its training data: {command}"
        )
    if sha256_of(found) != stored:
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


def sha256_of(text: str | None) -> str:
    return hashlib.sha256((text or "").encode()).hexdigest()
