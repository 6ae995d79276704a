"""A run that is being recorded: Python's part of its folder, whose form stands in `run_folder`."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tickwire.config import Config
from tickwire.errors import ConfigError
from tickwire.held import HeldModel
from tickwire.private import private_opener
from tickwire.records import RowLayout
from tickwire.run_folder import MANIFEST, MODELS, VERSION, dtype_to_json, listed, refuse_inside_recording

if TYPE_CHECKING:
    from tickwire._core import Engine

__all__ = ["Recording", "environment"]

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
        folder = self.folder / MODELS / key
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
            shutil.rmtree(self.folder / MODELS / entry["id"], ignore_errors=True)
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
                _log.error("recording: %s: %s", self.folder / MANIFEST, error.strerror or error)

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
        self._manifest["row_dtype"] = dtype_to_json(layout.dtype)
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
        target = self.folder / MANIFEST
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
