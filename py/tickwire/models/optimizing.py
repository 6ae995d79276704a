"""A model as ONNX Runtime optimises it for this machine."""

from __future__ import annotations

import math
import os
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from tickwire import core
from tickwire.errors import ModelError
from tickwire.models.files import read
from tickwire.models.loading import load, try_out
from tickwire.outputs import refuse_over

__all__ = ["Optimized", "optimize"]

#: Scores may differ by this much between a model and its optimised self: another order of sums.
_TOLERANCE: Final = 1e-3


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
    before = read(path)
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
        if read(made).metadata != before.metadata:
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
