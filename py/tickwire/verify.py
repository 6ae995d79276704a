"""Proof that a recorded live run and its replay are the same.

A run with recording on leaves a folder:

    run.json              configuration, model hash, versions, machine; at the end, what the recorder lost
    models/ID/*.onnx      each model that scored, by the number that signals name it with
    capture/FEED/*.log    what the venue sent, in order; of multicast a packet capture, *.pcap
    rows/AGENT/*.bin      the rows as the ingest agents emitted them, as raw records
    scores/AGENT/*.bin    the same records as they were published, with their scores

A run that began warm has what it read of the other capture at the front of its own, up to a line of ours that
says `live`; a replay mutes that part, too.

`verify` replays the capture through the same engine and compares the rows, bit for bit on any machine.
Then it gives the rows to the models again, in the batches in which they were scored: a record says how
many rows its run had. Scores are compared bit for bit where CPU model, ONNX Runtime version and
executor are the recorded ones, else within a tolerance that the result states. Stage stamps and
`ts_out` are outside the comparison, and so is the flag that says which clock stamped a message: a
capture does not carry it.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickwire.config import Config, model_id
from tickwire.engine import Pipeline, core_module
from tickwire.errors import ConfigError, VerifyError
from tickwire.records import NO_TIME, RowLayout, Rows

__all__ = ["Comparer", "Recording", "Result", "ScoreChecker", "environment", "verify"]

# Between machines, ONNX Runtime's kernels add in another order and round otherwise.
RELATIVE_TOLERANCE = 1e-4
ABSOLUTE_TOLERANCE = 1e-6

_VERSION = 3  # 2: the event that bridged a snapshot was a row, too.
# What a row is, besides its features. Not the stamps of stages, which no two runs share.
_ROW_FIELDS = ("epoch", "row", "sequence", "ts_event", "ts_recv")
# A notice is also why it was sent.
_NOTICE_FIELDS = (*_ROW_FIELDS, "state", "reason")


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


def _dtype_from_json(data: Mapping[str, Any]) -> np.dtype[np.void]:
    formats = [(base, tuple(shape)) if shape else base for base, shape in data["formats"]]
    # NumPy's stubs know the dictionary form only in part.
    description: Any = {
        "names": list(data["names"]),
        "formats": formats,
        "offsets": list(data["offsets"]),
        "itemsize": data["itemsize"],
    }
    dtype: np.dtype[np.void] = np.dtype(description)
    return dtype


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Recording:
    """Python's part of a recorded run: the folder and its `run.json`. The engine writes the rest."""

    def __init__(self, folder: Path, manifest: dict[str, Any], *, made: bool) -> None:
        self.folder = folder
        self._manifest = manifest
        self._made = made
        self._started = False

    @classmethod
    def begin(
        cls,
        folder: str | os.PathLike[str],
        config: Config,
        *,
        warm: Mapping[str, Sequence[str]] | None = None,
    ) -> Recording:
        """Makes the folder and puts the model there. Refuses a folder that holds something already.

        `warm`: the captures that each feed begins with.
        """
        path = Path(folder).resolve()
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
                "version": _VERSION,
                "started_ns": time.time_ns(),
                "ended_ns": None,
                "complete": None,
                "lost": {},
                "failed": None,
                "feeds": config.feed_names,
                "models": [],
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
        )
        for model in config.all_models:
            files, weights = config.model_files(model), model.member_weights()
            try:
                recording.add_model(model.label, model_id(files, weights), files, weights)
            except OSError as error:
                raise ConfigError(
                    f"--record: {error.filename or folder}: {error.strerror or error}"
                ) from None
        return recording

    def add_model(self, name: str, number: int, files: Sequence[Path], weights: Sequence[float]) -> None:
        """Keeps a model that scores, or is about to: at the start, and when one is exchanged for another."""
        key = f"{number:08x}"
        if any(model["id"] == key for model in self._manifest["models"]):
            return
        folder = self.folder / "models" / key
        folder.mkdir(parents=True, exist_ok=True)
        kept = []
        for i, file in enumerate(files):
            copy = folder / f"{i}{file.suffix}"
            shutil.copyfile(file, copy)
            kept.append({"file": str(copy.relative_to(self.folder)), "sha256": _sha256(copy)})
        self._manifest["models"].append(
            {
                "name": name,
                "id": key,
                "files": kept,
                "weights": list(weights),
                "source": list(map(str, files)),
            }
        )
        if self._started:
            self._write()

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
        self, counters: Mapping[str, int] | None, failed: str | None, *, warm: Sequence[str] = ()
    ) -> None:
        """`complete` says that the run ended as it should and its recorder lost nothing.

        `warm`: what the warm start came to.
        `counters`: the engine's; None where they cannot be read, and so nobody knows what was lost.
        """
        lost = {key: value for key, value in (counters or {}).items() if value and key.endswith("_lost")}
        complete = counters is not None and not lost and failed is None
        if self._manifest["warm"] is not None:
            self._manifest["warm"]["report"] = list(warm)
        self._manifest.update(ended_ns=time.time_ns(), complete=complete, lost=lost, failed=failed)
        self._write()

    def _write(self) -> None:
        target = self.folder / "run.json"
        partial = target.with_suffix(".json.part")
        partial.write_text(json.dumps(self._manifest, indent=2) + "\n", encoding="utf-8")
        partial.replace(target)


@dataclass(frozen=True, slots=True)
class Result:
    """What a comparison found."""

    rows: int
    notices: int
    scores: int
    unscored: int
    """Rows that the live run did not score: too old by `model.max_age_us`, or dropped before the model."""
    unchecked: int
    """Scores of a warm run's first windows, which began with rows from before the recording."""
    exact: bool
    """Scores were compared bit for bit."""
    why_not_exact: str
    divergence: str | None
    """The first difference, None where there is none."""

    @property
    def same(self) -> bool:
        return self.divergence is None


def _load_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VerifyError(f"{folder}: not a recorded run: run.json: {error.strerror}") from None
    except ValueError as error:
        raise VerifyError(f"{path}: not JSON: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("version") != _VERSION:
        found = manifest.get("version") if isinstance(manifest, dict) else type(manifest).__name__
        raise VerifyError(f"{path}: expected version {_VERSION}, found {found!r}")
    if manifest.get("failed"):
        raise VerifyError(f"{folder}: the run failed ({manifest['failed']}); its recording proves nothing")
    if manifest.get("complete") is None:
        raise VerifyError(f"{folder}: the run never ended its recording (crashed, killed, or still running)")
    if not manifest["complete"]:
        lost = ", ".join(f"{key} = {value:,}" for key, value in manifest.get("lost", {}).items())
        if not lost:
            raise VerifyError(
                f"{folder}: what the recorder lost is not known, because its counters could not be read; "
                "its recording proves nothing"
            )
        raise VerifyError(
            f"{folder}: the recorder itself lost something ({lost}); its recording proves nothing"
        )
    return manifest


def _load_config(folder: Path, manifest: Mapping[str, Any]) -> Config:
    """The recorded configuration, whole and without its models: rows are replayed, then scored again."""
    data = tomllib.loads(manifest["config"])
    return Config.from_dict(data, where=str(folder / "run.json"), base=folder)


def _rows_alone(config: Config) -> Config:
    data = tomllib.loads(config.to_toml())
    data.pop("model", None)
    data.pop("models", None)
    data["engine"]["layout"] = "inline"
    return Config.from_dict(data, where=config.where, base=config.base)


class _Models:
    """The recorded models, loaded when a score asks for one."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any], config: Config) -> None:
        self._folder, self._config = folder, config
        self._entries = {int(entry["id"], 16): entry for entry in manifest["models"]}
        self._settings = {model.label: model for model in config.all_models}
        self._loaded: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._settings)

    def load_all(self) -> list[str]:
        """Their executors."""
        return [str(self.of(number).executor) for number in self._entries]

    def max_batch(self, number: int) -> int:
        return self._settings[self._entries[number]["name"]].max_batch

    def of(self, number: int) -> Any:
        """The engine's own model, as it loads it for a run."""
        if number not in self._entries:
            raise VerifyError(f"{self._folder}: a score names the model {number:08x}, which was not recorded")
        if number not in self._loaded:
            from tickwire import models

            entry = self._entries[number]
            settings = self._settings[entry["name"]]
            files = [str(self._checked(file)) for file in entry["files"]]
            self._loaded[number] = core_module().Model(
                files,
                entry["weights"],
                settings.provider,
                str(self._config.path_of(settings.cache_dir)) if settings.cache_dir else "",
                settings.max_batch,
                self._config.features.window_rows,
                len(self._config.plan.outputs),
                str(models.onnxruntime_library()),
            )
        return self._loaded[number]

    def _checked(self, file: Mapping[str, str]) -> Path:
        path = self._folder / file["file"]
        if not path.is_file():
            raise VerifyError(f"{path}: the recorded model is missing")
        if (found := _sha256(path)) != file["sha256"]:
            raise VerifyError(
                f"{path}: sha256 {found}, expected {file['sha256']}: this is not the recorded model"
            )
        return path


def _load_records(folder: Path, dtype: np.dtype[np.void]) -> list[Rows]:
    """The record files of a folder, mapped, in order."""
    files: list[Rows] = []
    for path in sorted(folder.rglob("*.bin")):
        size = path.stat().st_size
        if size % dtype.itemsize:
            raise VerifyError(
                f"{path}: ends in the middle of a record ({size} bytes of {dtype.itemsize} each)"
            )
        if size:
            files.append(np.memmap(path, dtype=dtype, mode="r"))
    return files


async def verify(folder: str | os.PathLike[str]) -> Result:
    """Replays a recorded run and compares. `VerifyError` where the recording cannot be compared."""
    path = Path(folder)
    manifest = _load_manifest(path)
    config = _load_config(path, manifest)
    dtype = _dtype_from_json(manifest["row_dtype"])
    inputs = {name: captures(path / "capture" / name) for name in config.feed_names}
    empty = [name for name, files in inputs.items() if not files]
    if empty:
        raise VerifyError(f"{path / 'capture' / empty[0]}: no capture of feed {empty[0]!r}")
    models = _Models(path, manifest, config)
    there, here = manifest["environment"], environment(models.load_all())
    differing = [
        f"{key} {there.get(key)!r} there, {here[key]!r} here" for key in here if here[key] != there.get(key)
    ]
    recorded = _load_records(path / "rows", dtype)
    pipeline = Pipeline.replay(_rows_alone(config), inputs)
    async with pipeline:
        if not _same_rows(pipeline.layout.dtype, dtype):
            raise VerifyError(f"{path}: this version's records have another layout than the recorded ones")
        comparer = Comparer(recorded, pipeline.layout)

        def compare(rows: Rows) -> None:
            if comparer.divergence is None and not comparer.on_rows(rows):
                pipeline.request_stop()

        pipeline.on_rows(compare)
        await pipeline.run_until()
        stats = pipeline.stats()
    if comparer.divergence is None:
        comparer.finish()
    pipeline.raise_if_failed()
    if comparer.divergence is None and (cut := stats.count("capture_lines_skipped", "capture_truncated")):
        raise VerifyError(f"{path}: {cut} lines of the capture are damaged, though the replay agrees")
    checker = ScoreChecker(
        recorded,
        pipeline.layout,
        config.features.window_rows,
        exact=not differing,
        warm=bool(manifest.get("warm")),
    )
    if comparer.divergence is None and len(models):
        for agent in sorted(entry for entry in (path / "scores").iterdir() if entry.is_dir()):
            records = _load_records(agent, dtype)
            if records and not await asyncio.to_thread(checker.check, np.concatenate(records), models):
                break
    result = Result(
        rows=comparer.rows,
        notices=comparer.notices,
        scores=checker.scores,
        unscored=comparer.rows * len(models) - checker.scores - checker.unchecked,
        unchecked=checker.unchecked,
        exact=not differing,
        why_not_exact="; ".join(differing),
        divergence=comparer.divergence or checker.divergence,
    )
    if result.same and not result.rows:
        raise VerifyError(f"{path}: nothing to compare: the run gave no row, and its replay none either")
    return result


def captures(folder: Path) -> list[str]:
    """The files of one feed's capture, in order."""
    return sorted(str(file) for pattern in ("*.log*", "*.pcap*") for file in folder.glob(pattern))


def _same_rows(here: np.dtype[np.void], there: np.dtype[np.void]) -> bool:
    """Do records have the same fields, scores aside?"""
    mine: Mapping[str, Any] = here.fields or {}
    theirs: Mapping[str, Any] = there.fields or {}
    names = {*mine, *theirs} - {"scores"}
    return all(name in mine and name in theirs and mine[name][0] == theirs[name][0] for name in names)


class _Rows:
    """Recorded rows of each instrument, notices apart, in the order they were written."""

    def __init__(self, files: Sequence[Rows]) -> None:
        self._parts: dict[tuple[int, bool], list[tuple[Rows, NDArray[np.intp]]]] = {}
        for file in files:
            is_notice = file["row"] == 0
            for instrument in np.unique(file["instrument"]).tolist():
                mine = file["instrument"] == instrument
                for kind in (False, True):
                    positions = np.flatnonzero(mine & (is_notice == kind))
                    if len(positions):
                        self._parts.setdefault((instrument, kind), []).append((file, positions))

    def take(self, key: tuple[int, bool], count: int) -> Rows | None:
        """The next `count` rows of a key, or as many as there are; None without any."""
        taken: list[Rows] = []
        parts = self._parts.get(key, [])
        while count and parts:
            file, positions = parts[0]
            taken.append(file[positions[:count]])
            count -= len(taken[-1])
            if len(taken[-1]) == len(positions):
                parts.pop(0)
            else:
                parts[0] = (file, positions[len(taken[-1]) :])
        return np.concatenate(taken) if taken else None

    def first_left(self) -> Any | None:
        """The earliest row that nobody took."""
        left = [file[positions[0]] for parts in self._parts.values() for file, positions in parts[:1]]
        return min(left, key=lambda row: int(row["ts_recv"]), default=None)


def _row_key(rows: Any) -> NDArray[np.uint64]:
    """One number that orders an instrument's rows."""
    key: NDArray[np.uint64] = (rows["epoch"].astype(np.uint64) << np.uint64(40)) + rows["row"]
    return key


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    """Values as integers of their bits: equal only where every bit is, a NaN and a signed zero included."""
    values = np.ascontiguousarray(values)
    return values.view(f"u{values.dtype.itemsize}") if values.dtype.kind == "f" else values


class Comparer:
    """Compares a replay's rows with recorded ones as they come. Stops looking at the first difference."""

    def __init__(self, rows: Sequence[Rows], layout: RowLayout) -> None:
        self.divergence: str | None = None
        self.rows = 0
        self.notices = 0
        self._layout = layout
        self._rows = _Rows(rows)

    def on_rows(self, rows: Rows) -> bool:
        """The replay's next rows, in the order it gave them. False once something differs."""
        found: list[tuple[int, str]] = []  # Place in this batch, text: the earliest is the first divergence.
        is_notice = rows["row"] == 0
        for instrument in np.unique(rows["instrument"]).tolist():
            mine = rows["instrument"] == instrument
            for kind in (False, True):
                positions = np.flatnonzero(mine & (is_notice == kind))
                if len(positions):
                    self._compare_rows((instrument, kind), rows[positions], positions, found)
        if found:
            self.divergence = min(found)[1]
        return not found

    def finish(self) -> None:
        """The replay has ended: what was recorded and did not come again is a difference too."""
        row = self._rows.first_left()
        if row is not None:
            name = _name(self._layout, row)
            self.divergence = f"{name}: a row was recorded that the replay did not give"

    def _compare_rows(
        self, key: tuple[int, bool], replayed: Rows, places: NDArray[np.intp], found: list[tuple[int, str]]
    ) -> None:
        recorded = self._rows.take(key, len(replayed))
        count = len(recorded) if recorded is not None else 0
        if key[1]:
            self.notices += count
        else:
            self.rows += count
        if recorded is not None:
            names = _NOTICE_FIELDS if key[1] else (*_ROW_FIELDS, "features")
            for name in names:
                differs = _bits(recorded[name]) != _bits(replayed[name][:count])
                lines = differs.any(axis=1) if differs.ndim > 1 else differs
                if lines.any():
                    i = int(np.argmax(lines))
                    cell = int(np.argmax(differs[i])) if differs.ndim > 1 else None
                    text = _difference(
                        self._layout, recorded[i], recorded[i][name], replayed[i][name], name, cell
                    )
                    found.append((int(places[i]), text))
        if count < len(replayed):
            row = replayed[count]
            text = f"{_name(self._layout, row)}: the replay gave a row that was not recorded"
            found.append((int(places[count]), text))


class ScoreChecker:
    """Gives recorded rows to their model again, in the batches of the run, and compares the scores."""

    _CHUNK = 4096

    def __init__(
        self,
        rows: Sequence[Rows],
        layout: RowLayout,
        window_rows: int,
        *,
        exact: bool = True,
        warm: bool = False,
    ) -> None:
        """`rows`: what the ingest agents recorded; `warm`: other rows were there before the first of them."""
        self.divergence: str | None = None
        self.scores = 0
        self.unchecked = 0
        self._warm = warm
        self._layout = layout
        self._exact = exact
        self._window = window_rows
        self._keys: dict[int, NDArray[np.uint64]] = {}
        self._features: dict[int, NDArray[np.float32]] = {}
        every = [part for part in (file[file["row"] != 0] for file in rows) if len(part)]
        for instrument in sorted({int(i) for part in every for i in np.unique(part["instrument"])}):
            mine = np.concatenate([part[part["instrument"] == instrument] for part in every])
            keys = _row_key(mine)
            order = np.argsort(keys, kind="stable")
            self._keys[instrument] = keys[order]
            self._features[instrument] = mine["features"][order].reshape(len(mine), -1)
        self._seen: set[tuple[int, int, int]] = set()

    def check(self, records: Rows, models: Any) -> bool:
        """The records of one agent, in the order in which it published them. False once something differs."""
        records = records[records["row"] != 0]
        inputs = np.empty((len(records), self._window, len(self._layout.features)), np.float32)
        known = np.ones(len(records), np.bool_)
        for i, record in enumerate(records):
            found = self._input_of(record)
            if isinstance(found, str):
                self.divergence = f"{_name(self._layout, record)}: {found}"
                return False
            known[i] = found is not None
            inputs[i] = found if found is not None else 0
        for batch in self._batches(records, known):
            if batch is None:
                return False
            if not known[batch].all():
                self.unchecked += len(batch)
            elif not self._check_batch(records[batch], inputs[batch], models):
                return False
        return self._check_unscored(records, inputs)

    def _input_of(self, record: Any) -> NDArray[np.float32] | str | None:
        """What its model saw, or what is wrong with the record; None if it began before the recording."""
        instrument, key = int(record["instrument"]), _row_key(record)
        keys = self._keys.get(instrument)
        at = int(np.searchsorted(keys, key)) if keys is not None else 0
        if keys is None or at == len(keys) or keys[at] != key:
            return "a score was recorded of a row that was not"
        name = (instrument, int(key), int(record["model_id"]))
        if name in self._seen:
            return "it was scored twice by the same model"
        self._seen.add(name)
        features = self._features[instrument]
        if (_bits(features[at]) != _bits(np.ravel(record["features"]))).any():
            return "the record with its score has other features than the row"
        first = max(at - self._window + 1, 0)
        window = features[first : at + 1]
        if len(window) < self._window or keys[at] - keys[first] != self._window - 1:
            if record["scored"] and self._warm and keys[first] >> 40 == keys[0] >> 40:
                return None
            if record["scored"]:
                return "it was scored before its window was full"
            window = features[at : at + 1]  # Short of a whole window; nobody scored it.
        return np.broadcast_to(window, (self._window, features.shape[1])) if len(window) == 1 else window

    def _batches(self, records: Rows, known: NDArray[np.bool_]) -> Iterator[NDArray[np.intp] | None]:
        """Positions of the rows of each run; None where they do not add up."""
        ran = np.flatnonzero(records["scored"] != 0)
        sizes, names = records["scored"][ran], records["model_id"][ran]
        at = 0
        while at < len(ran):
            size = int(sizes[at])
            batch = slice(at, at + size)
            if len(ran) < at + size or (sizes[batch] != size).any() or (names[batch] != names[at]).any():
                row = _name(self._layout, records[ran[at]])
                self.divergence = (
                    f"{row}: it was scored in a run of {size} rows, of which some were not recorded"
                )
                yield None
                return
            if size == 1:
                # Rows that were scored one by one go to the model together: it takes them one by one.
                end = at
                while (
                    end < len(ran)
                    and known[ran[end]] == known[ran[at]]
                    and end - at < self._CHUNK
                    and sizes[end] == 1
                    and names[end] == names[at]
                ):
                    end += 1
                yield ran[at:end]
                at = end
            else:
                yield ran[batch]
                at += size

    def _check_batch(self, records: Rows, inputs: NDArray[np.float32], models: Any) -> bool:
        model = models.of(int(records["model_id"][0]))
        if self._window == 1:
            inputs = inputs[:, 0, :]
        inputs = np.ascontiguousarray(inputs)
        if int(records["scored"][0]) == 1 and models.max_batch(int(records["model_id"][0])) > 1:
            again = np.concatenate([model.run(inputs[i : i + 1]) for i in range(len(inputs))])
        else:
            again = model.run(inputs)
        count = again.shape[1]
        finite = np.isfinite(again).all(axis=1)
        states = self._layout.states
        expected = np.where(finite, states.index("valid"), states.index("nonfinite")).astype(np.uint8)
        # A row that was too old to score live has no age now.
        stale = records["state"] == states.index("stale")
        wrong = (records["state"] != expected) & ~stale
        if wrong.any():
            i = int(np.argmax(wrong))
            self.divergence = _difference(
                self._layout, records[i], records[i]["state"], expected[i], "state", None
            )
            return False
        live = records["scores"].reshape(len(records), -1)[:, :count]
        if self._exact:
            cells = _bits(live) != _bits(again)
        else:
            cells = ~np.isclose(again, live, rtol=RELATIVE_TOLERANCE, atol=ABSOLUTE_TOLERANCE, equal_nan=True)
        lines = cells.any(axis=1) & finite & ~stale
        if lines.any():
            i = int(np.argmax(lines))
            cell = int(np.argmax(cells[i]))
            self.divergence = _difference(
                self._layout, records[i], live[i][cell], again[i][cell], f"score {cell}", None
            )
            return False
        self.scores += int((~stale).sum())
        return True

    def _check_unscored(self, records: Rows, inputs: NDArray[np.float32]) -> bool:
        """Rows that no run answered must have had a reason that can be seen again."""
        states = self._layout.states
        left = records["scored"] == 0
        finite = np.isfinite(inputs).all(axis=(1, 2))
        short = records["row"] < self._window
        wrong = left & (
            ((records["state"] == states.index("nonfinite")) & finite)
            | ((records["state"] == states.index("warming")) & ~short)
            | (records["state"] == states.index("valid"))
        )
        if wrong.any():
            i = int(np.argmax(wrong))
            state = self._layout.state(int(records[i]["state"]))
            self.divergence = (
                f"{_name(self._layout, records[i])}: it is {state} without a score, and nothing says why"
            )
            return False
        return True


def _name(layout: RowLayout, row: Any) -> str:
    symbol, venue = layout.instrument(int(row["instrument"]))
    which = f"row {row['row']}" if row["row"] else "notice"
    place = f"epoch {row['epoch']}, {which}, sequence {row['sequence']}, ts_recv {row['ts_recv']}"
    return f"{venue} {symbol}, {place}"


def _difference(layout: RowLayout, row: Any, there: Any, here: Any, name: str, cell: int | None) -> str:
    if cell is not None:
        there, here = np.ravel(there)[cell], np.ravel(here)[cell]
        name = layout.features[cell]
    shown = f"recorded {_shown(layout, name, there)}, replayed {_shown(layout, name, here)}"
    return f"{_name(layout, row)}: {name}: {shown}"


def _shown(layout: RowLayout, name: str, value: Any) -> str:
    if isinstance(value, np.floating):
        return f"{value!s} (0x{int(value.view(np.uint32)):08x})"
    if name == "state":
        return layout.state(int(value))
    if name == "reason":
        return layout.reason(int(value))
    if name == "ts_event" and value == NO_TIME:
        return "none"
    return str(value)


def describe(result: Result) -> list[str]:
    """The result as the command prints it."""
    scores = f"{result.scores:,} scores"
    if result.scores and not result.exact:
        scores += (
            f" (within {RELATIVE_TOLERANCE:g} relative or {ABSOLUTE_TOLERANCE:g}: {result.why_not_exact})"
        )
    compared = f"{result.rows:,} rows, {result.notices:,} notices, {scores}"
    if result.divergence is not None:
        return [f"first divergence: {result.divergence}", f"compared before it: {compared}"]
    lines = [f"live = replay: {compared}" + (", bit for bit" if result.exact else "")]
    if result.unchecked:
        lines.append(f"{result.unchecked:,} scores are of windows that began before the recording")
    if result.unscored:
        lines.append(f"{result.unscored:,} rows were not scored live and have no score to compare")
    return lines
