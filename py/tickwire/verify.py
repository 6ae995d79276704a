"""Proof that a recorded live run and its replay are the same.

A run with recording on leaves a folder:

    run.json              configuration, model hash, versions, machine; at the end, what the recorder lost
    models/ID/*.onnx      each model that scored, by the number that signals name it with
    capture/FEED/*.log    what the venue sent, in order; of multicast a packet capture, *.pcap
    rows/AGENT/*.bin      the rows as the ingest agents emitted them, as raw records
    scores/AGENT/*.bin    the same records as they were published, with their scores

A run that began warm has what it read of the other capture at the front of its own, up to a line of ours that
says `live`; a replay mutes that part, too.

`run.json` names each file with its length and SHA-256, as it was written, once the file is closed, and counts
what became of the rows.

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
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tickwire.compare import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE, Comparer, ScoreChecker
from tickwire.config import Config
from tickwire.engine import Pipeline
from tickwire.errors import ConfigError, VerifyError
from tickwire.held import HeldModel
from tickwire.outputs import refuse_inside_recording
from tickwire.private import private_opener
from tickwire.records import RowLayout, Rows
from tickwire.run_folder import (
    VERSION,
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

if TYPE_CHECKING:
    from tickwire._core import Engine

__all__ = ["Comparer", "Recording", "Result", "ScoreChecker", "environment", "verify"]

_log = logging.getLogger("tickwire")

# Between two looks at what the engine's recorder has closed.
_FOLLOW_S = 1.0
# Counters of what became of rows, by agent; and every unscored_….
_COUNTED = (
    "rows",
    "rows_dropped",
    "rows_stale",
    "scored",
    "stale",
    "nonfinite",
    "model_errors",
    "output_dropped",
    "worker_stopped",
)
# Of `environment`; executors are compared as far as models were used.
_ENVIRONMENT = ("cpu", "onnxruntime")


def environment(executors: Iterable[str]) -> dict[str, str]:
    """What decides whether two runs of a model can agree to the last bit."""
    return {
        "cpu": _cpu_model(),
        "onnxruntime": _version("onnxruntime"),
        "executor": "; ".join(sorted(set(executors))),
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    for name in (package, f"{package}-gpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def _dtype_to_json(dtype: np.dtype[np.void]) -> dict[str, Any]:
    fields: Mapping[str, Any] = dtype.fields or {}
    names = list(dtype.names or ())
    return {
        "names": names,
        "formats": [[fields[name][0].base.str, list(fields[name][0].shape)] for name in names],
        "offsets": [int(fields[name][1]) for name in names],
        "itemsize": dtype.itemsize,
    }


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _counts(counters: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """By agent, what became of the rows: what the recorded files can be held against."""
    counts: dict[str, dict[str, int]] = {}
    for key, value in counters.items():
        agent, _, name = key.rpartition("/")
        if "/" not in agent and (name in _COUNTED or name.startswith("unscored_")):
            counts.setdefault(agent, {})[name] = value
    return counts


class Recording:
    """Python's part of a recorded run: the folder and its `run.json`. The engine writes the rest."""

    def __init__(self, folder: Path, manifest: dict[str, Any], *, made: bool, fsync: bool) -> None:
        self.folder = folder
        self._manifest = manifest
        self._made = made
        self._fsync = fsync
        self._started = False
        self._lock = threading.Lock()

    @classmethod
    def begin(
        cls,
        folder: str | os.PathLike[str],
        config: Config,
        models: Mapping[str, HeldModel] | None = None,
        *,
        warm: Mapping[str, Sequence[str]] | None = None,
    ) -> Recording:
        """Makes the folder and puts the models there. Refuses a folder that holds something already.

        `models`: by their names, as they were read.
        `warm`: the captures that each feed begins with.
        """
        path = Path(folder).resolve()
        refuse_inside_recording("--record", path)
        try:
            made = not path.exists()
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise ConfigError(f"--record: {folder}: expected a new or an empty folder")
        except OSError as error:
            raise ConfigError(f"--record: {error.filename or folder}: {error.strerror or error}") from None
        recording = cls(
            path,
            {
                "tickwire": _version("tickwire"),
                "version": VERSION,
                "started_ns": time.time_ns(),
                "ended_ns": None,
                "complete": None,
                "lost": {},
                "failed": None,
                "feeds": config.feed_names,
                "models": [],
                "files": [],
                "counts": {},
                "warm": {
                    "inputs": {
                        name: [os.path.abspath(file) for file in files] for name, files in warm.items()
                    },
                    "report": [],
                }
                if warm
                else None,
                "environment": None,
                "row_dtype": None,
                "config": config.to_toml(),
                "config_text": config.text,
            },
            made=made,
            fsync=config.record.fsync != "never",
        )
        for label, held in (models or {}).items():
            try:
                recording.add_model(label, held)
            except OSError as error:
                raise ConfigError(
                    f"--record: {error.filename or folder}: {error.strerror or error}"
                ) from None
        return recording

    def add_model(self, name: str, held: HeldModel) -> None:
        """Keeps a model that scores from the start."""
        self.settle_model(self.keep_model(name, held), scored=True)

    def keep_model(self, name: str, held: HeldModel) -> dict[str, Any]:
        """Keeps the files of a model that is about to score; `settle_model` takes what this returns, once it
        is known whether it did."""
        key = f"{held.number:08x}"
        folder = self.folder / "models" / key
        kept: list[dict[str, str]] = []
        entry = {
            "name": name,
            "id": key,
            "files": kept,
            "weights": held.weights,
            "source": [str(file.path) for file in held.files],
        }
        for i, file in enumerate(held.files):
            copy = folder / f"{i}{file.path.suffix}"
            kept.append({"file": str(copy.relative_to(self.folder)), "sha256": file.sha256})
            if not self._has_model(key):
                folder.mkdir(parents=True, exist_ok=True)
                copy.unlink(missing_ok=True)  # Of an exchange that failed half-way.
                file.copy_to(copy)
        return entry

    def _has_model(self, key: str) -> bool:
        return any(model["id"] == key for model in self._manifest["models"])

    def settle_model(self, entry: dict[str, Any], *, scored: bool) -> None:
        """Writes down a model that may have scored; lets go of one that was refused."""
        if self._has_model(entry["id"]):
            return
        if not scored:
            shutil.rmtree(self.folder / "models" / entry["id"], ignore_errors=True)
            return
        self._manifest["models"].append(entry)
        if self._started:
            self._write()

    async def follow(self, engine: Engine) -> None:
        """Writes down what a file came to when the engine has closed it, for as long as the run lasts."""
        while True:
            await asyncio.sleep(_FOLLOW_S)
            # Taken and noted in one step, so that being ended here loses none.
            if not self._note(engine.recorded_files()):
                continue
            try:
                await asyncio.to_thread(self._write)
            except OSError as error:  # It is tried again with the next one, and at the end.
                _log.error("recording: %s: %s", self.folder / "run.json", error.strerror or error)

    def _note(self, files: Sequence[tuple[str, int, str]]) -> bool:
        """Files that are done with: name, length and SHA-256 of each as it was written."""
        self._manifest["files"] += [
            {"file": name, "bytes": size, "sha256": digest} for name, size, digest in files
        ]
        return bool(files)

    def abandon(self) -> None:
        """Empties the folder again, for a run that never started: all that is in it is ours."""
        for entry in self.folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        if self._made:
            self.folder.rmdir()

    def write_start(self, layout: RowLayout) -> None:
        self._started = True
        self._manifest["environment"] = environment(model.executor for model in layout.models)
        self._manifest["row_dtype"] = _dtype_to_json(layout.dtype)
        try:
            self._write()
        except OSError as error:
            raise ConfigError(f"--record: {self.folder}: {error.strerror or error}") from None

    def write_end(
        self,
        counters: Mapping[str, int] | None,
        failed: str | None,
        *,
        warm: Sequence[str] = (),
        files: Sequence[tuple[str, int, str]] = (),
    ) -> str:
        """`complete` says that the run ended as it should and its recorder lost nothing. Returns why it is
        not, empty where it is.

        `warm`: what the warm start came to.
        `counters`: the engine's; None where they cannot be read, and so nobody knows what was lost.
        `files`: those that were closed last.
        """
        lost = {key: value for key, value in (counters or {}).items() if value and key.endswith("_lost")}
        if self._manifest["warm"] is not None:
            self._manifest["warm"]["report"] = list(warm)
        self._note(files)
        why_not = self._why_not_whole(counters, lost, failed)
        self._manifest.update(
            ended_ns=time.time_ns(),
            complete=not why_not,
            lacks=why_not,
            lost=lost,
            failed=failed,
            counts=_counts(counters or {}),
        )
        self._write()
        return why_not

    def _why_not_whole(
        self, counters: Mapping[str, int] | None, lost: Mapping[str, int], failed: str | None
    ) -> str:
        if failed is not None:
            return f"the run failed: {failed}"
        if counters is None:
            return "what the recorder lost is not known, because its counters could not be read"
        if lost:
            return "the recorder lost something: " + listed(lost)
        for file in self._manifest["files"]:
            path = self.folder / file["file"]
            try:
                size = path.stat().st_size
            except OSError as error:
                return f"{path}: {error.strerror}"
            if size != file["bytes"]:
                return f"{path}: expected {file['bytes']:,} bytes as written, found {size:,}"
        return ""

    def _write(self) -> None:
        """In one step: whoever reads it, also after a crash, finds what it was or what it is."""
        target = self.folder / "run.json"
        partial = target.with_suffix(".json.part")
        with self._lock:
            try:
                with open(partial, "w", encoding="utf-8", opener=private_opener) as file:
                    file.write(json.dumps(self._manifest, indent=2) + "\n")
                    file.flush()
                    if self._fsync:
                        os.fsync(file.fileno())
                partial.replace(target)
            except OSError:
                partial.unlink(missing_ok=True)
                raise
            if self._fsync:
                _sync_folder(self.folder)


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
    return Config.from_dict(data, where=str(folder / "run.json"), base=folder)


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
    inputs = {name: captures(path / "capture" / name) for name in config.feed_names}
    empty = [name for name, files in inputs.items() if not files]
    if empty:
        raise VerifyError(f"{path / 'capture' / empty[0]}: no capture of feed {empty[0]!r}")
    rows = {agent.name: load_records(agent, dtype, cut_off=cut_off) for agent in folders(path / "rows")}
    recorded = [file for files in rows.values() for file in files]
    scores = {
        agent.name: np.concatenate(files)
        for agent in folders(path / "scores")
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
