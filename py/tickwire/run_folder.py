"""A recorded run as it lies in its folder: its form, for who writes it, and for who reads it again.

    run.json              configuration, model hash, versions, machine; at the end, what the recorder lost
    models/ID/*.onnx      each model that scored, by the number that signals name it with
    capture/FEED/*.log    what the venue sent, in order; of multicast a packet capture, *.pcap
    rows/AGENT/*.bin      the rows as the ingest agents emitted them, as raw records
    scores/AGENT/*.bin    the same records as they were published, with their scores

A run that began warm has what it read of the other capture at the front of its own, up to a line of ours that
says `live`; a replay mutes that part, too.

`run.json` names each file with its length and SHA-256, as it was written, once the file is closed, and counts
what became of the rows.

Of a recording that is cut off, because its process was killed or the power failed, what is whole is read:
whole lines, whole records.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tickwire import core
from tickwire.config import Config
from tickwire.errors import ConfigError, VerifyError
from tickwire.held import model_number
from tickwire.json_text import parse_json
from tickwire.records import RowLayout, Rows, age_ns

__all__ = [
    "CAPTURE",
    "MANIFEST",
    "MODELS",
    "ROWS",
    "SCORES",
    "TEXT",
    "VERSION",
    "RecordedModels",
    "altered_files",
    "captures",
    "dtype_from_json",
    "dtype_to_json",
    "folders",
    "listed",
    "load_manifest",
    "load_records",
    "miscounted",
    "read_manifest",
    "refuse_inside_recording",
    "sha256_of",
    "whole_lines",
]

MANIFEST = "run.json"
CAPTURE, ROWS, SCORES, MODELS = "capture", "rows", "scores", "models"
TEXT, PACKETS = "*.log*", "*.pcap*"
"""The files of a feed's capture, which may have been packed since."""

# What run.json and the records beside it are, as this version writes and reads them.
VERSION = 5
# What was otherwise before, so that a replay of today gives other rows.
_OLDER = {
    2: "the event that bridged a snapshot was a row, too",
    3: "rows of trades did not look at how old their book was, and records said less of their own age",
    4: "the event that ended a pause told nothing of what it changed, a silence could be a leap of the "
    "clock, and no trade was late",
}


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{key} = {value:,}" for key, value in counts.items())


def read_manifest(folder: Path) -> Any:
    """What run.json says, in whatever version, of a run that has ended or not. `OSError` or `ValueError`
    where it cannot be read."""
    return parse_json((folder / MANIFEST).read_text(encoding="utf-8"))


def refuse_inside_recording(option: str, folder: str | os.PathLike[str]) -> None:
    """Refuses a folder within a recorded run: what is put there would be taken for a part of that run."""
    for parent in Path(os.path.realpath(folder)).parents:
        if (parent / MANIFEST).is_file():
            raise ConfigError(
                f"{option}: expected a folder of its own, found {os.fspath(folder)!r}, which lies in the "
                f"recorded run {str(parent)!r}; name one elsewhere"
            )


def load_manifest(folder: Path, *, salvage: bool) -> dict[str, Any]:
    """What run.json says of a run that can be compared; `VerifyError` where it cannot."""
    path = folder / MANIFEST
    try:
        manifest = read_manifest(folder)
    except OSError as error:
        raise VerifyError(f"{folder}: not a recorded run: {MANIFEST}: {error.strerror}") from None
    except ValueError as error:
        raise VerifyError(f"{path}: not JSON: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("version") != VERSION:
        found = manifest.get("version") if isinstance(manifest, dict) else type(manifest).__name__
        older = _OLDER.get(found) if isinstance(found, int) else None
        why = f": {older}; verify it with the version that recorded it" if older is not None else ""
        raise VerifyError(f"{path}: expected version {VERSION}, found {found!r}{why}")
    for key, kind in (("config", str), ("models", list), ("environment", dict), ("row_dtype", dict)):
        if not isinstance(manifest.get(key), kind):
            raise VerifyError(f"{path}: {key}: expected a {kind.__name__}, found {manifest.get(key)!r:.80}")
    if salvage or (manifest.get("complete") and not manifest.get("failed")):
        return manifest
    way_out = f"; what is whole of it is compared by: tickwire verify --salvage {folder}"
    if manifest.get("failed"):
        raise VerifyError(
            f"{folder}: the run failed ({manifest['failed']}); its recording proves nothing{way_out}"
        )
    if manifest.get("complete") is None:
        raise VerifyError(
            f"{folder}: the run never ended its recording (crashed, killed, or still running){way_out}"
        )
    lost = listed(manifest.get("lost", {}))
    if lost:
        raise VerifyError(
            f"{folder}: the recorder itself lost something ({lost}); its recording proves nothing{way_out}"
        )
    why = (
        manifest.get("lacks") or "what the recorder lost is not known, because its counters could not be read"
    )
    raise VerifyError(f"{folder}: {why}; its recording proves nothing{way_out}")


def dtype_to_json(dtype: np.dtype[np.void]) -> dict[str, Any]:
    fields: Mapping[str, Any] = dtype.fields or {}
    names = list(dtype.names or ())
    return {
        "names": names,
        "formats": [[fields[name][0].base.str, list(fields[name][0].shape)] for name in names],
        "offsets": [int(fields[name][1]) for name in names],
        "itemsize": dtype.itemsize,
    }


def dtype_from_json(data: Mapping[str, Any]) -> np.dtype[np.void]:
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


class RecordedModels:
    """The recorded models, loaded when a score asks for one."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any], config: Config) -> None:
        self._folder, self._config = folder, config
        self._entries = {int(entry["id"], 16): entry for entry in manifest["models"]}
        self._settings = {model.label: model for model in config.all_models}
        self._loaded: dict[int, Any] = {}
        for kept in folders(folder / MODELS):
            self._take_unlisted(kept)

    def _take_unlisted(self, kept: Path) -> None:
        """A model that a run was killed over before run.json could name it: its number is its files' own."""
        files = sorted(file for file in kept.iterdir() if file.is_file())
        for model in self._settings.values():
            weights = model.member_weights()
            if len(files) != len(weights):
                continue
            number = model_number([sha256_of(file) for file in files], weights)
            if kept.name == f"{number:08x}" and number not in self._entries:
                names = [
                    {"file": str(file.relative_to(self._folder)), "sha256": sha256_of(file)} for file in files
                ]
                self._entries[number] = {"name": model.label, "files": names, "weights": weights}

    def __len__(self) -> int:
        return len(self._settings)

    def check_files(self) -> None:
        """`VerifyError` where one is missing or is not the recorded one."""
        for entry in self._entries.values():
            for file in entry["files"]:
                self._checked(file)

    def executors(self, numbers: Iterable[int]) -> set[str]:
        """What runs those models here."""
        return {str(self.of(number).executor) for number in numbers}

    def max_batch(self, number: int) -> int:
        return self._settings[self._entries[number]["name"]].max_batch

    def max_age_ns(self, number: int) -> int:
        """How old a signal of it might be when it left; 0: any age."""
        if number not in self._entries:
            raise VerifyError(f"{self._folder}: a score names the model {number:08x}, which was not recorded")
        return self._config.max_age_ns(self._settings[self._entries[number]["name"]])

    def of(self, number: int) -> Any:
        """The engine's own model, as it loads it for a run."""
        if number not in self._entries:
            raise VerifyError(f"{self._folder}: a score names the model {number:08x}, which was not recorded")
        if number not in self._loaded:
            entry = self._entries[number]
            settings = self._settings[entry["name"]]
            files = [str(self._checked(file)) for file in entry["files"]]
            self._loaded[number] = core.extension.Model(
                files,
                entry["weights"],
                settings.provider,
                str(self._config.path_of(settings.cache_dir)) if settings.cache_dir else "",
                settings.max_batch,
                self._config.features.window_rows,
                len(self._config.plan.outputs),
                str(core.onnxruntime_library()),
            )
        return self._loaded[number]

    def _checked(self, file: Mapping[str, str]) -> Path:
        path = self._folder / file["file"]
        if not path.is_file():
            raise VerifyError(f"{path}: the recorded model is missing")
        if (found := sha256_of(path)) != file["sha256"]:
            raise VerifyError(
                f"{path}: sha256 {found}, expected {file['sha256']}: this is not the recorded model"
            )
        return path


def captures(folder: Path, feed: str, patterns: Sequence[str] = (TEXT, PACKETS)) -> list[str]:
    """The files of one feed's capture, in order."""
    return sorted(str(file) for pattern in patterns for file in (folder / CAPTURE / feed).glob(pattern))


def folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []


def load_records(folder: Path, dtype: np.dtype[np.void], *, cut_off: bool) -> list[Rows]:
    """The record files of a folder, mapped, in order. Of a recording that is cut off, the whole records."""
    files: list[Rows] = []
    for path in sorted(folder.rglob("*.bin")):
        size = path.stat().st_size
        if size % dtype.itemsize and not cut_off:
            raise VerifyError(
                f"{path}: ends in the middle of a record ({size} bytes of {dtype.itemsize} each)"
            )
        if count := size // dtype.itemsize:
            rows: Rows = np.memmap(path, dtype=dtype, mode="r", shape=(count,))
            if cut_off:
                # Space that the disk had given, and not yet what was to stand there.
                written = np.flatnonzero(rows["ts_recv"] != 0)
                rows = rows[: written[-1] + 1 if len(written) else 0]
            files.append(rows)
    return files


def whole_lines(file: str, scratch: Path) -> str:
    """A capture as far as its lines are whole: itself, or a copy without the torn one at its end."""
    path = Path(file)
    if path.suffix != ".log":
        return file
    with path.open("rb") as source:
        end = size = source.seek(0, os.SEEK_END)
        while end > 0:
            begin = max(end - (1 << 16), 0)
            source.seek(begin)
            if (at := source.read(end - begin).rfind(b"\n")) >= 0:
                end = begin + at + 1
                break
            end = begin
        if end == size:
            return file
        copy = scratch / f"{path.parent.name}-{path.name}"
        source.seek(0)
        with copy.open("wb") as target:
            left = end
            while left and (chunk := source.read(min(left, 1 << 20))):
                target.write(chunk)
                left -= len(chunk)
    return str(copy)


# How a capture may have been packed since, and how its own bytes are read then.
_PACKED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def altered_files(folder: Path, manifest: Mapping[str, Any], *, cut_off: bool) -> tuple[list[str], list[str]]:
    """Which files are not the ones recorded, and what cannot be told. `VerifyError` where one is missing."""
    for part in (CAPTURE, ROWS, *((SCORES,) if manifest["models"] else ())):
        if not (folder / part).is_dir():
            raise VerifyError(f"{folder / part}: expected a folder of the recording, found none")
    present = {
        path.relative_to(folder).as_posix(): path
        for part in (CAPTURE, ROWS, SCORES)
        for path in (folder / part).rglob("*")
        if path.is_file() and (part == CAPTURE or path.suffix == ".bin")
    }
    if not cut_off and not manifest.get("files"):
        return [], ["its files have no hashes, because an earlier version recorded it"]
    altered, notes = [], []
    for entry in manifest.get("files", ()):
        name, path = entry["file"], folder / entry["file"]
        opened: Callable[..., Any] = open
        if present.pop(name, None) is None:
            packed = [other for other in present if Path(other).with_suffix("").as_posix() == name]
            if not packed:
                raise VerifyError(f"{path}: expected a file of the recording, found none")
            path = present.pop(packed[0])
            if path.suffix not in _PACKED:
                notes.append(f"{path}: it was packed since, and its hash is not compared")
                continue
            opened = _PACKED[path.suffix]
        try:
            with opened(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise VerifyError(f"{path}: cannot be read: {error}") from None
        if found != entry["sha256"]:
            altered.append(
                f"{path}: sha256 {found}, expected {entry['sha256']}: this is not the file that was recorded"
            )
    if cut_off and present:
        notes.append(f"{', '.join(sorted(present))}: not closed by the recorder, and so without a hash")
    elif not cut_off:
        altered += [f"{present[name]}: this file is none that was recorded" for name in sorted(present)]
    return altered, notes


def miscounted(
    counts: Mapping[str, Mapping[str, int]],
    rows: Mapping[str, Sequence[Rows]],
    scores: Mapping[str, Rows],
    *,
    layout: RowLayout,
    models: int,
    processes: bool,
    max_age_ns: int,
) -> str | None:
    """Where the recorded files hold other numbers of records than the run counted."""
    emitted = answered = 0
    for agent, count in counts.items():
        emitted += count.get("rows", 0)
        answered += count.get("rows_dropped", 0)
        found = sum(int((file["row"] != 0).sum()) for file in rows.get(agent, ()))
        if found != count.get("rows", 0):
            expected = f"{count.get('rows', 0):,} rows as run.json counts them"
            return f"rows/{agent}: expected {expected}, found {found:,}"
        if not models and "rows_stale" in count:
            # Recorded as they were before; whether one left in time its stamps tell.
            old = sum(
                int(((file["row"] != 0) & (file["state"] == 0) & (age_ns(file) > max_age_ns)).sum())
                for file in rows.get(agent, ())
            )
            if (old if max_age_ns else 0) != count["rows_stale"]:
                expected = f"{count['rows_stale']:,} rows that were too old as run.json counts them"
                return f"rows/{agent}: expected {expected}, found {old:,}"
        if "scored" not in count:
            continue
        answered += sum(count[name] for name in ("scored", "stale", "nonfinite", "model_errors"))
        answered += sum(value for name, value in count.items() if name.startswith("unscored_"))
        stopped = count.get("unscored_stopped", 0)
        recorded = scores.get(agent)
        states = recorded["state"][recorded["row"] != 0] if recorded is not None else np.zeros(0, np.uint8)
        of = {name: int((states == code).sum()) for code, name in enumerate(layout.states)}
        # A row whose window was short is warming, or not finite.
        wanted = {
            "valid": count["scored"],
            "stale": count["stale"],
            "model_error": count["model_errors"] + stopped,
            "nonfinite or warming": count["nonfinite"] + count["unscored_window"],
        }
        there = {
            **{name: of[name] for name in ("valid", "stale", "model_error")},
            "nonfinite or warming": of["nonfinite"] + of["warming"],
        }
        # What had no room on its way out of a process never came to the recorder.
        dropped = count["output_dropped"] if processes else 0
        if dropped:
            wanted, there = {"scored": sum(wanted.values()) - dropped}, {"scored": len(states)}
        for name, value in wanted.items():
            if there[name] != value:
                return (
                    f"scores/{agent}: expected {value:,} records of {name} rows as run.json counts them, "
                    f"found {there[name]:,}"
                )
    given_up = any(count.get("worker_stopped") for count in counts.values())
    if models and not given_up and answered != emitted * models:
        return (
            f"run.json: expected counts that add up to {emitted * models:,}, the rows that came to the "
            f"models, found {answered:,}"
        )
    return None
