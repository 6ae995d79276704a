"""A run's models: read and tried for its start, exchanged while it runs, watched where that is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tickwire.config import Config, Model
from tickwire.errors import ConfigError, Error
from tickwire.features import Schema
from tickwire.held import HeldModel
from tickwire.limits import Limit
from tickwire.recording import Recording
from tickwire.records import ModelInfo, RowLayout
from tickwire.runtime.workers import Supervisor
from tickwire.tasks import to_the_end
from tickwire.units import parse_duration

if TYPE_CHECKING:
    from tickwire._core import Engine

__all__ = ["ModelExchange"]

_log = logging.getLogger("tickwire")


class ModelExchange:
    """Made before the engine is; `begin` tells it of one that runs. `give_up` ends whatever it reads or
    tries, before the limit of that is reached."""

    def __init__(self, config: Config) -> None:
        self.held: dict[str, HeldModel] = {}
        """Each model's files by its label, from `take` until `let_go`: what was tried is what is loaded."""
        self.lock = asyncio.Lock()
        """Held while a model is exchanged, and while the engine is ended."""
        self._config = config
        self._limits: set[Limit] = set()  # Of models that are being read or tried.
        self._given_up = False
        self._engine: Engine | None = None
        self._layout: RowLayout | None = None
        self._supervisor: Supervisor | None = None
        self._recording: Recording | None = None

    def begin(
        self,
        engine: Engine,
        layout: RowLayout,
        *,
        supervisor: Supervisor | None,
        recording: Recording | None,
    ) -> None:
        """From now on models can be exchanged. `supervisor`: of the layout `processes`."""
        self._engine, self._layout = engine, layout
        self._supervisor, self._recording = supervisor, recording

    def give_up(self) -> None:
        """Nothing more is exchanged, and nobody waits for a model that is being read or tried."""
        self._given_up = True
        for limit in list(self._limits):
            limit.give_up()

    def let_go(self) -> None:
        """Closes the files that were held for the start."""
        for held in self.held.values():
            held.close()
        self.held.clear()

    async def take(self) -> dict[str, HeldModel]:
        """Reads and checks every model of the configuration; by label."""
        schema = self._config.schema()
        for model in self._config.all_models:
            await self._take(model, schema)
        return self.held

    async def _take(self, model: Model, schema: Schema) -> None:
        """Reads and checks a model of the configuration. Cancelled, it waits for neither."""
        limit = self._limit_of(model)

        def take() -> None:
            files, weights = self._config.model_files(model), model.member_weights()
            held = self.held[model.label] = HeldModel(files, weights, limit)
            self._check_model(model, held, schema, limit)

        task = asyncio.ensure_future(asyncio.to_thread(take))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            limit.give_up()
            await asyncio.wait([task])
            task.exception()  # Seen.
            raise
        finally:
            self._limits.discard(limit)

    def _limit_of(self, model: Model) -> Limit:
        limit = Limit(parse_duration(model.start_timeout) / 1e9)
        self._limits.add(limit)
        if self._given_up:
            limit.give_up()
        return limit

    def _check_model(self, model: Model, held: HeldModel, schema: Schema, limit: Limit) -> None:
        """Compares each file's fingerprint with the configuration's, and tries it in a process of its own."""
        from tickwire import models  # Loads onnx, which a run of rows alone has no use for.

        for file in held.files:
            if self._config.engine.layout == "processes":
                # Whether it can be loaded is for a worker to find out.
                models.check_fingerprint(file.path, schema, held=file)
            else:
                models.check(file.path, schema, max_batch=model.max_batch, held=file, limit=limit)

    async def swap(
        self, files: Sequence[str | os.PathLike[str]] | str | os.PathLike[str], *, model: str | None = None
    ) -> ModelInfo:
        """As `Pipeline.swap_model`, which says what it promises."""
        if isinstance(files, str | os.PathLike):
            files = [files]
        paths = [Path(file) for file in files]
        index, label = self._choose_model(model)
        settings = self._config.all_models[index]
        if len(paths) != len(settings.paths):
            raise ConfigError(f"swap: {label}: expected {len(settings.paths)} files, found {len(paths)}")
        async with self.lock:
            if self._engine is None or self._given_up:
                raise Error("the pipeline is not running: use it inside `async with`")
            number = await to_the_end(self._go_over(index, label, paths, settings.member_weights()))
        assert self._layout is not None
        found = self._layout.model(number)
        assert found is not None
        return found

    async def _go_over(self, index: int, label: str, paths: Sequence[Path], weights: Sequence[float]) -> int:
        """The number of the model that scores from now on."""
        assert self._engine is not None
        settings = self._config.all_models[index]
        limit = self._limit_of(settings)
        try:
            held = await asyncio.to_thread(HeldModel, paths, weights, limit)
            with held:
                await asyncio.to_thread(self._check_model, settings, held, self._config.schema(), limit)
                return await self._go_over_to(index, label, held)
        finally:
            self._limits.discard(limit)

    async def _go_over_to(self, index: int, label: str, held: HeldModel) -> int:
        assert self._engine is not None
        assert self._layout is not None
        number, before = held.number, self._running_id(index)
        if number == before:
            return number
        self._layout.expect(label, number)
        async with self._kept(index, label, held):
            if self._supervisor is None:
                await asyncio.to_thread(self._engine.swap_model, index, held.members, number)
            else:
                await asyncio.to_thread(self._engine.prepare_model, index, held.members, number)
                await self._supervisor.swap(index)
                self._engine.went_over(index)
        self._layout.exchanged(number)
        _log.info("model %s: went over from %08x to %08x", label, before, number)
        return number

    @contextlib.asynccontextmanager
    async def _kept(self, index: int, label: str, held: HeldModel) -> AsyncIterator[None]:
        """While a model is being exchanged: the recording has its files, and keeps them if it scored."""
        if self._recording is None:
            yield
            return
        entry = await asyncio.to_thread(self._recording.keep_model, label, held)
        try:
            yield
        finally:
            assert self._engine is not None
            # Also one that an agent had gone over to before all of them went back.
            scored = held.number in self._engine.models[index]["ids"]
            try:
                await asyncio.to_thread(self._recording.settle_model, entry, scored=scored)
            except OSError as error:  # It is written with what comes next, or at the end.
                _log.error("recording: %s: %s", self._recording.folder, error.strerror or error)

    def _choose_model(self, name: str | None) -> tuple[int, str]:
        labels = [model.label for model in self._config.all_models]
        if name is None and len(labels) == 1:
            return 0, labels[0]
        if name not in labels:
            raise ConfigError(f"swap: expected one of the models ({', '.join(labels)}), found {name!r}")
        return labels.index(name), name

    def _running_id(self, index: int) -> int:
        assert self._engine is not None
        return int(self._engine.models[index]["id"])

    async def on_command(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Answers `swap` of the control socket."""
        files, name = request.get("files"), request.get("model")
        if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
            raise Error("swap: expected files, a list of paths")
        before = self._running_id(self._choose_model(name)[0])
        begin = time.monotonic()
        model = await self.swap(files, model=name)
        return {
            "model": model.name,
            "before": f"{before:08x}",
            "after": f"{model.id:08x}",
            "seconds": round(time.monotonic() - begin, 3),
        }

    def watch(self) -> Callable[[], Awaitable[None]]:
        """What goes over to a model's file when it has changed, and says once why it did not."""
        watched = [model for model in self._config.all_models if model.watch]
        seen = {model.label: _stamps(self._config.model_files(model)) for model in watched}

        async def look() -> None:
            for model in watched:
                files = self._config.model_files(model)
                stamps = _stamps(files)
                if stamps is None or stamps == seen[model.label]:
                    continue
                seen[model.label] = stamps
                try:
                    await self.swap(files, model=model.label)
                except (Error, OSError) as error:
                    _log.error(
                        "model %s: its file has changed, but the old one stays: %s", model.label, error
                    )

        return look


def _stamps(files: Sequence[Path]) -> list[tuple[int, int, int]] | None:
    """What changes when a file does; None while one is missing."""
    try:
        found = [file.stat() for file in files]
    except OSError:
        return None
    return [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in found]
