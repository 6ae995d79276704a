"""Proof that a recorded live run and its replay are the same.

A run with recording on leaves a folder, whose form `tickwire.run_folder` says.

`verify` replays the capture through the same engine and compares the rows as they were emitted, bit for bit
on any machine. Then it gives the rows to the models again, in the batches in which they were scored: a record
says how many rows its run had. Scores are compared bit for bit where CPU model, ONNX Runtime version and
executor are the recorded ones, else within a tolerance (`compare.RELATIVE_TOLERANCE`, of the score, or
`ABSOLUTE_TOLERANCE`), which the result states. Only the stamps of stages are outside the comparison. Then the
files are held against the counts and hashes of `run.json`: a record that is missing shows, and so does a file
that is not the one recorded.

`verify(folder, salvage=True)` takes a recording that never ended, because its process was killed or the power
failed: what is whole of it is compared, and the result says up to where that is.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tickwire.compare import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE, Comparer, ScoreChecker
from tickwire.config import Config
from tickwire.errors import VerifyError
from tickwire.pipeline import Pipeline
from tickwire.recording import environment
from tickwire.records import RowLayout, Rows
from tickwire.run_folder import (
    CAPTURE,
    MANIFEST,
    ROWS,
    SCORES,
    RecordedModels,
    altered_files,
    captures,
    dtype_from_json,
    folders,
    listed,
    load_manifest,
    load_records,
    miscounted,
    whole_lines,
)

__all__ = ["Result", "describe", "verify"]

_log = logging.getLogger("tickwire")

# Of `environment`; executors are compared as far as models were used.
_ENVIRONMENT = ("cpu", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Result:
    """What a comparison found."""

    rows: int
    notices: int
    scores: int
    unscored: int
    """Rows without a score to compare: too old by `features.max_age`, or dropped before the model."""
    unchecked: int
    """Scores of a warm run's first windows, which began with rows from before the recording."""
    exact: bool
    """Scores were compared bit for bit."""
    why_not_exact: str
    divergence: str | None
    """The first difference, None where there is none."""
    notes: tuple[str, ...] = ()
    """What else whoever relies on the comparison should know: files that are not the recorded ones, say."""
    whole_until_ns: int | None = None
    """Of a recording that never ended: the receive time of the last row that was compared."""

    @property
    def same(self) -> bool:
        return self.divergence is None


def _load_config(folder: Path, manifest: Mapping[str, Any]) -> Config:
    """The recorded configuration, whole and without its models: rows are replayed, then scored again."""
    data = tomllib.loads(manifest["config"])
    return Config.from_dict(data, where=str(folder / MANIFEST), base=folder)


def _rows_alone(config: Config) -> Config:
    data = tomllib.loads(config.to_toml())
    data.pop("model", None)
    data.pop("models", None)
    data["engine"]["layout"] = "inline"
    data["engine"].pop("stat_path", None)  # Of the engine that recorded, or of one that runs.
    return Config.from_dict(data, where=config.where, base=config.base)


async def verify(folder: str | os.PathLike[str], *, salvage: bool = False) -> Result:
    """Replays a recorded run and compares. `VerifyError` where the recording cannot be compared.

    `salvage`: also one that never ended, or lost something, as far as it is whole.
    """
    path = Path(folder)
    manifest = load_manifest(path, salvage=salvage)
    cut_off = not manifest.get("complete")
    config = _load_config(path, manifest)
    dtype = dtype_from_json(manifest["row_dtype"])
    models = RecordedModels(path, manifest, config)
    models.check_files()
    altered, notes = await asyncio.to_thread(altered_files, path, manifest, cut_off=cut_off)
    inputs = {name: captures(path, name) for name in config.feed_names}
    empty = [name for name, files in inputs.items() if not files]
    if empty:
        raise VerifyError(f"{path / CAPTURE / empty[0]}: no capture of feed {empty[0]!r}")
    rows = {agent.name: load_records(agent, dtype, cut_off=cut_off) for agent in folders(path / ROWS)}
    recorded = [file for files in rows.values() for file in files]
    scores = {
        agent.name: np.concatenate(files)
        for agent in folders(path / SCORES)
        if (files := load_records(agent, dtype, cut_off=cut_off))
    }
    used = sorted({int(number) for records in scores.values() for number in np.unique(records["model_id"])})
    there = manifest["environment"]
    here = environment(models.executors(number for number in used if number))
    differing = [
        f"{key} {there.get(key)!r} there, {here[key]!r} here"
        for key in _ENVIRONMENT
        if here[key] != there.get(key)
    ]
    if not set(here["executor"].split("; ")) <= {"", *there.get("executor", "").split("; ")}:
        differing.append(f"executor {there.get('executor')!r} there, {here['executor']!r} here")
    with tempfile.TemporaryDirectory(prefix="tickwire-verify-") as scratch:
        if cut_off:
            for feed in inputs.values():
                feed[-1] = await asyncio.to_thread(whole_lines, feed[-1], Path(scratch))
        comparer, layout, damaged = await _replayed(
            path,
            config,
            inputs,
            recorded,
            dtype,
            window_rows=config.features.window_rows if len(models) else 1,
            cut_off=cut_off,
        )
    if comparer.divergence is None and damaged and not cut_off:
        altered.append(f"{path}: {damaged} lines of the capture are damaged, though the replay agrees")
        raise VerifyError("\n".join(altered))
    checker = ScoreChecker(
        recorded,
        layout,
        config.features.window_rows,
        exact=not differing,
        warm=bool(manifest.get("warm")),
        cut_off=cut_off,
    )
    if comparer.divergence is None and len(models):
        for records in scores.values():
            if not await asyncio.to_thread(checker.check, records, models):
                break
    divergence = comparer.divergence or checker.divergence
    unscored = comparer.rows * len(models) - checker.scores - checker.unchecked
    if divergence is None:
        _hold_against_run_json(path, manifest, config, rows, scores, layout, altered, len(models), cut_off)
    if cut_off:
        unscored = 0
        notes += _beyond(manifest, comparer, checker)
    elif not manifest.get("counts") and unscored:
        if not checker.scores:
            raise VerifyError(f"{path / 'scores'}: expected scores of {len(models)} models, found none")
        notes.append(
            "whether they ever had a score is not known: an earlier version recorded it, without counts"
        )
    result = Result(
        rows=comparer.rows,
        notices=comparer.notices,
        scores=checker.scores,
        unscored=unscored,
        unchecked=checker.unchecked,
        exact=not differing,
        why_not_exact="; ".join(differing),
        divergence=divergence,
        notes=(*altered, *notes),
        whole_until_ns=comparer.last_ts_recv if cut_off else None,
    )
    if result.same and not result.rows:
        raise VerifyError(f"{path}: nothing to compare: the run gave no row, and its replay none either")
    return result


async def _replayed(
    path: Path,
    config: Config,
    inputs: Mapping[str, Sequence[str]],
    recorded: Sequence[Rows],
    dtype: np.dtype[np.void],
    *,
    window_rows: int,
    cut_off: bool,
) -> tuple[Comparer, RowLayout, int]:
    """Replays the capture beside the recorded rows; also how many of its lines are damaged."""
    pipeline = Pipeline.replay(_rows_alone(config), inputs)
    async with pipeline:
        if not _same_rows(pipeline.layout.dtype, dtype):
            raise VerifyError(f"{path}: this version's records have another layout than the recorded ones")
        comparer = Comparer(recorded, pipeline.layout, window_rows, cut_off=cut_off)

        def compare(rows: Rows) -> None:
            if comparer.divergence is None and not comparer.on_rows(rows):
                pipeline.request_stop()

        pipeline.on_rows(compare)
        await pipeline.run_until()
        stats = pipeline.stats()
    if comparer.divergence is None:
        comparer.finish()
    pipeline.raise_if_failed()
    return comparer, pipeline.layout, stats.count("capture_lines_skipped", "capture_truncated")


def _hold_against_run_json(
    path: Path,
    manifest: Mapping[str, Any],
    config: Config,
    rows: Mapping[str, Sequence[Rows]],
    scores: Mapping[str, Rows],
    layout: RowLayout,
    altered: Sequence[str],
    models: int,
    cut_off: bool,
) -> None:
    """`VerifyError` where what agrees with its replay is not what was recorded."""
    found = list(altered)
    counts = manifest.get("counts")
    if counts and not cut_off:
        wrong = miscounted(
            counts,
            rows,
            scores,
            layout=layout,
            models=models,
            processes=config.engine.layout == "processes",
            max_age_ns=config.max_age_ns(),
        )
        found += [f"{path}: {wrong}"] if wrong is not None else []
    if found:
        raise VerifyError("\n".join(found))


def _beyond(manifest: Mapping[str, Any], comparer: Comparer, checker: ScoreChecker) -> list[str]:
    notes = []
    if lost := listed(manifest.get("lost", {})):
        notes.append(f"the recorder lost something ({lost}): what differs may come of that")
    for count, what in (
        (comparer.recorded_beyond, "recorded rows and notices are of what came after the capture's end"),
        (comparer.replayed_beyond, "rows and notices of the capture's end were not written any more"),
        (checker.beyond, "scores have no row, or no whole run, that was written"),
    ):
        if count and comparer.divergence is None:
            notes.append(f"not compared: {count:,} {what}")
    return notes


def _same_rows(here: np.dtype[np.void], there: np.dtype[np.void]) -> bool:
    """Do records have the same fields, scores aside?"""
    mine: Mapping[str, Any] = here.fields or {}
    theirs: Mapping[str, Any] = there.fields or {}
    names = {*mine, *theirs} - {"scores"}
    return all(name in mine and name in theirs and mine[name][0] == theirs[name][0] for name in names)


def describe(result: Result) -> list[str]:
    """The result as the command prints it."""
    scores = f"{result.scores:,} scores"
    if result.scores and not result.exact:
        scores += (
            f" (within {RELATIVE_TOLERANCE:g} relative or {ABSOLUTE_TOLERANCE:g}: {result.why_not_exact})"
        )
    compared = f"{result.rows:,} rows, {result.notices:,} notices, {scores}"
    until = ""
    if result.whole_until_ns is not None:
        moment = datetime.datetime.fromtimestamp(result.whole_until_ns // 10**9, datetime.UTC)
        nanoseconds = result.whole_until_ns % 10**9
        until = f" up to {moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09}Z, the end of what is whole"
    if result.divergence is not None:
        lines = [f"first divergence: {result.divergence}", f"compared before it: {compared}"]
    else:
        lines = [f"live = replay{until}: {compared}" + (", bit for bit" if result.exact else "")]
        if result.unchecked:
            lines.append(f"{result.unchecked:,} scores are of windows that began before the recording")
        if result.unscored:
            lines.append(f"{result.unscored:,} rows were not scored live and have no score to compare")
    return [*lines, *result.notes]
