"""Models as the engine's own loader has them: so no second opinion can differ from the start's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from tickwire import core
from tickwire.errors import ModelError
from tickwire.features import Schema
from tickwire.held import HeldFile, held_file
from tickwire.limits import Limit
from tickwire.trial import Trial, try_model

__all__ = ["TRIAL_S", "load", "providers", "try_for", "try_out"]

#: Seconds in which a model must be loaded and warm, where no configuration says otherwise.
TRIAL_S: float = 60.0


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


def try_for(
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
