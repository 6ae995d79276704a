"""Proof that a recorded live run and its replay are the same.

A run with recording on leaves a folder:

    run.json              configuration, model hash, versions, machine; at the end, what the recorder lost
    model.onnx            the model, where there is one
    capture/FEED/*.log    what the venue sent, in order
    rows/AGENT/*.bin      the rows as the ingest agents emitted them, as raw records
    scores/AGENT/*.bin    the same records as they were published, with their scores

A run that began warm has what it read of the other capture at the front of its own, up to a line of ours that
says `live`; a replay mutes that part, too.

`verify` replays the capture through the same engine and compares. Rows are compared bit for bit on
any machine. Scores are compared bit for bit where CPU model, ONNX Runtime version and executor are
the recorded ones, else within a tolerance that the result states. Stage stamps and `ts_out` are
outside the comparison, and so is the flag that says which clock stamped a message: a capture does
not carry it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickwire.config import Config
from tickwire.engine import Pipeline
from tickwire.errors import ConfigError, VerifyError
from tickwire.records import NO_TIME, RowLayout, Rows

__all__ = ["Comparer", "Recording", "Result", "environment", "verify"]

# Between machines, ONNX Runtime's kernels add in another order and round otherwise.
RELATIVE_TOLERANCE = 1e-4
ABSOLUTE_TOLERANCE = 1e-6

_VERSION = 1
# What a row is, besides its features. Not the stamps of stages, which no two runs share.
_ROW_FIELDS = ("epoch", "row", "sequence", "ts_event", "ts_recv")
# A notice is also why it was sent.
_NOTICE_FIELDS = (*_ROW_FIELDS, "state", "reason")


def environment(executor: str) -> dict[str, str]:
    """What decides whether two runs of a model can agree to the last bit."""
    return {"cpu": _cpu_model(), "onnxruntime": _version("onnxruntime"), "executor": executor}


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
            model = None
            if config.model_path is not None:
                shutil.copyfile(config.model_path, path / "model.onnx")
                model = {
                    "file": "model.onnx",
                    "name": config.model_path.stem,
                    "source": str(config.model_path),
                    "sha256": _sha256(path / "model.onnx"),
                }
        except OSError as error:
            raise ConfigError(f"--record: {error.filename or folder}: {error.strerror or error}") from None
        return cls(
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
                "model": model,
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

    def abandon(self) -> None:
        """Empties the folder again, for a run that never started: all that is in it is ours."""
        for entry in self.folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        if self._made:
            self.folder.rmdir()

    def write_start(self, dtype: np.dtype[np.void], executor: str) -> None:
        self._manifest["environment"] = environment(executor)
        self._manifest["row_dtype"] = _dtype_to_json(dtype)
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
    data = tomllib.loads(manifest["config"])
    model = manifest["model"]
    if model is not None:
        path = folder / model["file"]
        if not path.is_file():
            raise VerifyError(f"{path}: the recorded model is missing")
        if (found := _sha256(path)) != model["sha256"]:
            raise VerifyError(
                f"{path}: sha256 {found}, expected {model['sha256']}: this is not the recorded model"
            )
        data["model"]["path"] = model["file"]
    return Config.from_dict(data, where=str(folder / "run.json"), base=folder)


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
    inputs = {name: sorted(map(str, (path / "capture" / name).glob("*.log*"))) for name in config.feed_names}
    empty = [name for name, files in inputs.items() if not files]
    if empty:
        raise VerifyError(f"{path / 'capture' / empty[0]}: no capture of feed {empty[0]!r}")
    pipeline = Pipeline.replay(config, inputs)
    async with pipeline:
        there, here = manifest["environment"], environment(pipeline.executor)
        differing = [
            f"{key} {there.get(key)!r} there, {here[key]!r} here"
            for key in here
            if here[key] != there.get(key)
        ]
        if pipeline.layout.dtype != dtype:
            raise VerifyError(f"{path}: this version's records have another layout than the recorded ones")
        comparer = Comparer(
            _load_records(path / "rows", dtype),
            _load_records(path / "scores", dtype),
            pipeline.layout,
            exact=not differing,
        )

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
    result = comparer.result("; ".join(differing))
    if result.same and not result.rows:
        raise VerifyError(f"{path}: nothing to compare: the run gave no row, and its replay none either")
    return result


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


class _Scores:
    """Recorded scores of each instrument, in the order of its rows."""

    def __init__(self, files: Sequence[Rows]) -> None:
        by_instrument: dict[int, list[Rows]] = {}
        for file in files:
            for instrument in np.unique(file["instrument"]).tolist():
                rows = file[(file["instrument"] == instrument) & (file["row"] != 0)]
                by_instrument.setdefault(instrument, []).append(rows)
        self._rows: dict[int, Rows] = {}
        self._keys: dict[int, NDArray[np.uint64]] = {}
        self._at: dict[int, int] = {}
        for instrument, parts in by_instrument.items():
            rows = np.concatenate(parts)
            keys = _row_key(rows)
            order = np.argsort(keys, kind="stable")
            self._rows[instrument], self._keys[instrument], self._at[instrument] = rows[order], keys[order], 0

    def take(self, instrument: int, last: np.uint64) -> tuple[Rows, NDArray[np.uint64]] | None:
        """The scores up to a row, with their keys; None without any."""
        if instrument not in self._rows:
            return None
        start = self._at[instrument]
        stop = max(int(np.searchsorted(self._keys[instrument], last, side="right")), start)
        self._at[instrument] = stop
        return (
            (self._rows[instrument][start:stop], self._keys[instrument][start:stop]) if stop > start else None
        )

    def first_left(self) -> Any | None:
        left = [rows[self._at[i]] for i, rows in self._rows.items() if self._at[i] < len(rows)]
        return min(left, key=lambda row: int(row["ts_recv"]), default=None)


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    """Values as integers of their bits: equal only where every bit is, a NaN and a signed zero included."""
    values = np.ascontiguousarray(values)
    return values.view(f"u{values.dtype.itemsize}") if values.dtype.kind == "f" else values


class Comparer:
    """Compares a replay's rows with recorded ones as they come. Stops looking at the first difference."""

    def __init__(
        self, rows: Sequence[Rows], scores: Sequence[Rows], layout: RowLayout, *, exact: bool = True
    ) -> None:
        self.divergence: str | None = None
        self._layout = layout
        self._exact = exact
        self._rows = _Rows(rows)
        self._scores = _Scores(scores)
        self._has_scores = layout.score_count > 0
        self._compared = {"rows": 0, "notices": 0, "scores": 0}
        self._unscored = 0

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
            positions = np.flatnonzero(mine & ~is_notice)
            if self._has_scores and len(positions):
                self._compare_scores(instrument, rows[positions], positions, found)
        if found:
            self.divergence = min(found)[1]
        return not found

    def finish(self) -> None:
        """The replay has ended: what was recorded and did not come again is a difference too."""
        for what, row in (("row", self._rows.first_left()), ("score", self._scores.first_left())):
            if row is not None:
                self.divergence = f"{self._name(row)}: a {what} was recorded that the replay did not give"
                return

    def result(self, differing: str = "") -> Result:
        return Result(
            rows=self._compared["rows"],
            notices=self._compared["notices"],
            scores=self._compared["scores"],
            unscored=self._unscored,
            exact=self._exact,
            why_not_exact=differing,
            divergence=self.divergence,
        )

    def _compare_rows(
        self, key: tuple[int, bool], replayed: Rows, places: NDArray[np.intp], found: list[tuple[int, str]]
    ) -> None:
        recorded = self._rows.take(key, len(replayed))
        count = len(recorded) if recorded is not None else 0
        self._compared["notices" if key[1] else "rows"] += count
        if recorded is not None:
            names = _NOTICE_FIELDS if key[1] else (*_ROW_FIELDS, "features")
            for name in names:
                differs = _bits(recorded[name]) != _bits(replayed[name][:count])
                lines = differs.any(axis=1) if differs.ndim > 1 else differs
                if lines.any():
                    i = int(np.argmax(lines))
                    cell = int(np.argmax(differs[i])) if differs.ndim > 1 else None
                    found.append((int(places[i]), self._difference(recorded[i], replayed[i], name, cell)))
        if count < len(replayed):
            row = replayed[count]
            found.append(
                (int(places[count]), f"{self._name(row)}: the replay gave a row that was not recorded")
            )

    def _compare_scores(
        self, instrument: int, replayed: Rows, places: NDArray[np.intp], found: list[tuple[int, str]]
    ) -> None:
        keys = _row_key(replayed)
        taken = self._scores.take(instrument, keys[-1])
        count = len(taken[0]) if taken is not None else 0
        self._unscored += max(len(replayed) - count, 0)
        if taken is None:
            return
        recorded, wanted = taken
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        absent = keys[at] != wanted
        if absent.any():
            i = int(np.argmax(absent))
            text = f"{self._name(recorded[i])}: a score was recorded that the replay did not give"
            found.append((int(places[at[i]]), text))
            return
        again = replayed[at]
        # A row that was too old to score live is young in a replay.
        stale = recorded["state"] == self._stale_code()
        self._unscored += int(stale.sum())
        self._compared["scores"] += int((~stale).sum())
        for name in ("state", "scored"):
            differs = (recorded[name] != again[name]) & ~stale
            if differs.any():
                i = int(np.argmax(differs))
                found.append((int(places[at[i]]), self._difference(recorded[i], again[i], name, None)))
        both = (recorded["scored"] != 0) & (again["scored"] != 0) & ~stale
        count = len(recorded)
        there, here = recorded["scores"].reshape(count, -1), again["scores"].reshape(count, -1)
        if self._exact:
            cells = _bits(there) != _bits(here)
        else:
            close = np.isclose(here, there, rtol=RELATIVE_TOLERANCE, atol=ABSOLUTE_TOLERANCE, equal_nan=True)
            cells = ~close
        lines = cells.any(axis=1) & both
        if lines.any():
            i = int(np.argmax(lines))
            cell = int(np.argmax(cells[i]))
            found.append((int(places[at[i]]), self._difference(recorded[i], again[i], "scores", cell)))

    def _stale_code(self) -> int:
        return self._layout.states.index("stale") if "stale" in self._layout.states else -1

    def _name(self, row: Any) -> str:
        symbol, venue = self._layout.instrument(int(row["instrument"]))
        which = f"row {row['row']}" if row["row"] else "notice"
        place = f"epoch {row['epoch']}, {which}, sequence {row['sequence']}, ts_recv {row['ts_recv']}"
        return f"{venue} {symbol}, {place}"

    def _difference(self, recorded: Any, replayed: Any, name: str, cell: int | None) -> str:
        there, here = recorded[name], replayed[name]
        if cell is not None:
            there, here = np.ravel(there)[cell], np.ravel(here)[cell]
            name = (self._layout.features if name == "features" else self._layout.outputs)[cell]
        shown = f"recorded {self._shown(name, there)}, replayed {self._shown(name, here)}"
        return f"{self._name(recorded)}: {name}: {shown}"

    def _shown(self, name: str, value: Any) -> str:
        if isinstance(value, np.floating):
            return f"{value!s} (0x{int(value.view(np.uint32)):08x})"
        if name == "state":
            return self._layout.state(int(value))
        if name == "reason":
            return self._layout.reason(int(value))
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
    if result.unscored:
        lines.append(f"{result.unscored:,} rows were not scored live and have no score to compare")
    return lines
