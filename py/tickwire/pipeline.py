"""The pipeline: a configuration, running.

    async with tw.Pipeline.from_toml("pipeline.toml") as pipeline:
        async for signal in pipeline.signals():
            print(signal.instrument, signal.score, signal.latency_ns)

Entering builds the C++ engine, opens the sinks and starts the data-plane threads; leaving stops
them, drains what they had published and closes the sinks. The data plane never waits for Python:
Python reads records and counters.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from tickwire import core
from tickwire.config import Config
from tickwire.errors import ConfigError, EngineError, Error
from tickwire.host.startup import HostReport
from tickwire.host.startup import report as host_report
from tickwire.latency import RowLatencies
from tickwire.launch import make_sinks, resolve
from tickwire.recording import Recording
from tickwire.records import ModelInfo, RowLayout, Rows, Signal
from tickwire.router.age import AgeLimit
from tickwire.router.consumers import FeatureStream, SignalStream
from tickwire.router.router import Router
from tickwire.runtime.control import ControlServer
from tickwire.runtime.exchange import ModelExchange
from tickwire.runtime.threads import Shares
from tickwire.runtime.workers import Supervisor, worker_policies
from tickwire.sinks.base import Sink, SinkRunner, public_url
from tickwire.sinks.callback import CallbackSink
from tickwire.stat_file import StatFile, StatFileError
from tickwire.stats import Stats
from tickwire.tasks import end, repeat, to_the_end
from tickwire.telling import Teller, proxy_note
from tickwire.warm import WarmInputs, assign_warm
from tickwire.wording import not_a_file

if TYPE_CHECKING:
    from tickwire._core import Engine
    from tickwire.runtime.snapshots import SnapshotService

__all__ = ["Pipeline"]

_log = logging.getLogger("tickwire")

T = TypeVar("T")

# Between two looks at the files of models that are watched.
_WATCH_S = 1.0
# How long consumers may keep the router from draining once the engine has stopped.
_DRAIN_S = 5.0


class Pipeline:
    """A configuration, ready to run. An async context manager; one use each."""

    def __init__(
        self,
        config: Config,
        *,
        record_dir: str | os.PathLike[str] | None = None,
        warm: WarmInputs | None = None,
    ) -> None:
        """`record_dir`: leave everything there that `tickwire verify` needs; a new or empty folder.

        `warm`: captures or run folders, also such as are still being written, to fill books and windows from.
        An instrument whose feed goes on where its capture ends keeps its epoch; see `warm_report`.
        """
        self.config = config
        self._record_dir = record_dir
        self._warm = assign_warm(config, warm) if warm else {}
        self._inputs: dict[str, list[str]] | None = None
        self._engine: Engine | None = None
        self._host: HostReport | None = None
        self._router: Router | None = None
        self._router_task: asyncio.Task[None] | None = None
        self._latencies: RowLatencies | None = None
        self._threads: Shares | None = None
        self._snapshots: SnapshotService | None = None
        self._supervisor: Supervisor | None = None
        self._recording: Recording | None = None
        self._recording_lacks = ""
        self._follower: asyncio.Task[None] | None = None
        self._sinks: list[SinkRunner] = []
        # Weakly: an iterator that its loop has left ends by being dropped, and its figures go to the sums.
        self._streams = weakref.WeakValueDictionary[str, SignalStream]()
        self._streams_begun = 0
        self._streams_ended: dict[str, int] = {}
        self._waiting: list[tuple[str, Sink, int]] = []
        self._control: ControlServer | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._teller: Teller | None = None
        self._telling: asyncio.Task[None] | None = None
        self._models = ModelExchange(config)
        self._stop_asked = asyncio.Event()
        self._stopped = False
        self._whole = True
        self._started_at = 0.0
        self._seconds = 0.0
        self._stat_file: StatFile | None = None
        self._stat_watch: asyncio.Task[None] | None = None
        self._stat_bytes_missing = 0
        self._shares: dict[str, float] | None = None

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """A live pipeline from a configuration file."""
        return cls(Config.from_toml(path), **options)

    @classmethod
    def replay(
        cls,
        config: Config | str | os.PathLike[str],
        inputs: Mapping[str, Sequence[str | os.PathLike[str]]] | Sequence[str | os.PathLike[str]],
    ) -> Self:
        """A pipeline that reads captures instead of a venue, as fast as its consumers take the rows.

        `inputs`: files by feed name, or a list of files where there is one feed. Nothing is dropped
        on the way: each stage waits for the next. Subscribe before the first `await` to see the
        first row. The configuration's `[[sinks]]` stay closed: they are for what happens now; add
        those that the replay should feed.
        """
        settings = config if isinstance(config, Config) else Config.from_toml(config)
        pipeline = cls(settings)
        if isinstance(inputs, str | os.PathLike):
            inputs = [inputs]
        if not isinstance(inputs, Mapping):
            if len(settings.feed_names) > 1:
                raise ConfigError(
                    f"inputs: expected files by feed name ({', '.join(settings.feed_names)}), found a list"
                )
            inputs = {settings.feed_names[0]: inputs}
        unknown = [name for name in inputs if name not in settings.feed_names]
        if unknown:
            raise ConfigError(
                f"inputs: no feed is named {unknown[0]!r}; feeds: {', '.join(settings.feed_names)}"
            )
        pipeline._inputs = {name: [os.fspath(file) for file in files] for name, files in inputs.items()}
        for file in (file for files in pipeline._inputs.values() for file in files):
            if not os.path.isfile(file):
                raise ConfigError(f"inputs: {file}: {not_a_file(file)}")
        return pipeline

    @property
    def replaying(self) -> bool:
        return self._inputs is not None

    # Lifecycle.

    async def __aenter__(self) -> Self:
        if self._engine is not None or self._stopped:
            raise Error("a pipeline runs once; make another one")
        try:
            await self._start()
        except BaseException:
            await to_the_end(self._abandon())
            raise
        return self

    async def _start(self) -> None:
        held = await self._models.take()
        if self._record_dir is not None:
            self._recording = await _in_thread(
                Recording.begin, self._record_dir, self.config, held, warm=self._warm
            )
        resolved = await _in_thread(
            resolve,
            self.config,
            replay=self.replaying,
            inputs=self._inputs,
            record_dir=self._recording.folder if self._recording is not None else None,
            warm=self._warm,
            models=held,
        )
        self._engine = engine = await _in_thread(core.extension.Engine, resolved)
        if not self.replaying:
            self._host = await asyncio.to_thread(host_report, self.config)
            if self.config.engine.strict:
                self._host.enforce()
        layout = self._layout(engine)
        shared = [
            model.label
            for model in self.config.all_models
            if model.assign == "least_loaded" and not self.replaying
        ]
        age_limit = None
        if not self.replaying:
            ages = {model.label: self.config.max_age_ns(model) for model in self.config.all_models}
            age_limit = AgeLimit(layout, self.config.max_age_ns(), ages)
        self._router = Router(engine, layout, lossless=self.replaying, shared=shared, age_limit=age_limit)
        self._latencies = RowLatencies(layout.stages)
        self._router.on_rows(self._latencies.on_rows)
        if self._recording is not None:
            self._recording.write_start(layout)
        if not self.replaying:  # A configuration's sinks are for what happens now.
            self._waiting = [*make_sinks(self.config), *self._waiting]
        for name, sink, limit in self._waiting:
            await self._open_sink(name, sink, limit)
        self._waiting = []
        if not self.replaying:
            # Loaded before anything runs that the loop would keep waiting. Not with this module, because it
            # brings aiohttp, which no replay has a use for.
            snapshots = await _in_thread(importlib.import_module, "tickwire.runtime.snapshots")
        await _in_thread(engine.start)
        self._models.let_go()
        self._stat_file = _open_stat_file(engine)
        if self._stat_file is not None:
            self._stat_watch = asyncio.create_task(
                repeat(self._look_at_stat_file, _WATCH_S, "the watch over the statistics"),
                name="tickwire statistics watch",
            )
        self._started_at = time.monotonic()
        if engine.workers:
            self._supervisor = Supervisor(engine, worker_policies(self.config), watch=self._router.watch)
            self._supervisor.start()
        threads = {**engine.threads, "python": threading.get_native_id()}
        self._models.begin(engine, layout, supervisor=self._supervisor, recording=self._recording)
        self._threads = Shares(threads, lambda: self.workers)
        if not self.replaying:
            self._snapshots = snapshots.SnapshotService(engine, self.config)
            self._router.before_sleep = self._snapshots.poll
            self._snapshots.start()
            await self._open_control()
            self._begin()
            self._begin_to_tell(self._snapshots)
        if self._recording is not None:
            self._follower = asyncio.get_running_loop().create_task(
                self._recording.follow(engine), name="tickwire recording"
            )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def request_stop(self) -> None:
        """Asks `run_until` to return. For signal handlers; from the loop's thread."""
        self._stop_asked.set()

    async def run_until(self, seconds: float | None = None) -> None:
        """Waits until the time is over, the input is consumed, or `request_stop`.

        Raises `EngineError` where an engine thread died.
        """
        self._begin()
        assert self._router_task is not None
        asked = asyncio.create_task(self._stop_asked.wait())
        try:
            await asyncio.wait(
                [self._router_task, asked], timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            asked.cancel()
        self.raise_if_failed()

    async def stop(self) -> None:
        """Stops the engine, delivers what it had published, and closes the sinks. Idempotent."""
        self._stop_asked.set()
        if not self._stopped and self._engine is not None:
            self._stopped = True
            self._whole = self._engine.finished or not self.replaying
            await to_the_end(self._stop())

    async def _stop(self) -> None:
        assert self._engine is not None
        await self._tear_down()
        if self._recording is not None:
            await asyncio.to_thread(self._engine.finish_recording)
            counters = dict(self._stat_file.counters()) if self._stat_file is not None else None
            try:
                self._recording_lacks = await asyncio.to_thread(
                    self._recording.write_end,
                    counters,
                    self._engine.failed,
                    warm=self.warm_report,
                    files=self._engine.recorded_files(),
                )
            except OSError as error:
                # The run was as good as any; without its end the recording is refused by verify.
                self._recording_lacks = f"its end cannot be written: {error}"
                _log.error("the end of the recording cannot be written: %s", error)

    async def _tear_down(self) -> None:
        """Ends whatever has begun, in an order in which nothing is lost that was published."""
        self._models.give_up()
        await end(self._telling)
        if self._control is not None:
            await self._control.close()
        # What has ended can no longer be asked.
        self._shares = self._threads.shares() if self._threads is not None else {}
        if self._supervisor is not None:  # Before the watch: an exchange that is under way ends by it.
            await self._supervisor.close()
        await end(self._watcher)
        await end(self._follower)
        await end(self._stat_watch)
        if self._snapshots is not None:
            await self._snapshots.close()
        if self._engine is not None and self._router is not None:
            # The router drains meanwhile: the engine's last rows need the room.
            self._begin()
        self._seconds = time.monotonic() - self._started_at
        async with self._models.lock:
            if self._engine is not None:
                # An agent's death; `failed` has it too, and is raised by who waits.
                with contextlib.suppress(Exception):
                    await asyncio.to_thread(self._engine.stop)
        if self._router_task is not None:
            await self._finish_router()
        await self._close_sinks()
        self._models.let_go()

    def raise_if_failed(self) -> None:
        """Raises `EngineError` where an engine thread, or the router, died."""
        if self._engine is not None and self._engine.failed is not None:
            raise EngineError(f"the engine stopped: {self._engine.failed}")
        task = self._router_task
        if (
            task is not None
            and task.done()
            and not task.cancelled()
            and (error := task.exception()) is not None
        ):
            if isinstance(error, Error):
                raise error
            raise EngineError(f"the router stopped: {type(error).__name__}: {error}") from error

    def _begin(self) -> None:
        """Starts the router. A replay's begins with its first consumer, so that nothing is missed."""
        if self._router_task is None and self._router is not None:
            self._router_task = asyncio.get_running_loop().create_task(
                self._router.run(), name="tickwire router"
            )

    def _begin_to_tell(self, snapshots: SnapshotService) -> None:
        """What happens while it runs goes to the log when it happens."""
        if (note := proxy_note(self.config)) is not None:
            _log.warning("%s", note)
        if self._stat_file is None:
            return
        self._teller = Teller(self.config, lambda line: _log.warning("%s", line))
        self._telling = asyncio.get_running_loop().create_task(
            self._teller.run(self._stat_file, snapshots.failures), name="tickwire teller"
        )

    @property
    def state(self) -> str:
        """What stands in the way of rows just now, in a few words; empty where nothing is known to."""
        return self._teller.state if self._teller is not None and not self._stopped else ""

    async def _finish_router(self) -> None:
        assert self._router is not None
        assert self._router_task is not None
        self._router.stop()
        _, late = await asyncio.wait([self._router_task], timeout=_DRAIN_S)
        if late:
            _log.warning(
                "a consumer held the router for more than %g s; the rows behind it are dropped", _DRAIN_S
            )
            self._router_task.cancel()
            await asyncio.wait([self._router_task])

    async def _abandon(self) -> None:
        """Undoes a start that failed or was given up half-way."""
        self._stopped = True
        await self._tear_down()
        if self._recording is not None:
            with contextlib.suppress(OSError):  # The reason for giving up is the one to report.
                await asyncio.to_thread(self._recording.abandon)

    async def _close_sinks(self) -> None:
        """All at once: one that is stuck takes its time and no other's."""
        await asyncio.gather(*(runner.close() for runner in self._sinks))

    async def _open_sink(self, name: str, sink: Sink, limit: int) -> None:
        assert self._router is not None
        runner = SinkRunner(name, sink, self._router.queue(name, limit))
        await runner.open()
        self._sinks.append(runner)

    def _layout(self, engine: Engine) -> RowLayout:
        return RowLayout(
            engine.row_dtype,
            stages=core.extension.STAGES,
            states=core.extension.STATES,
            reasons=core.extension.REASONS,
            instruments=[
                (instrument.symbol, feed.venue)
                for feed in self.config.feeds
                for instrument in feed.instruments
            ],
            features=self.config.plan.names,
            feeds=[
                name
                for feed, name in zip(self.config.feeds, self.config.feed_names, strict=True)
                for _ in feed.instruments
            ],
            models=[
                ModelInfo(
                    str(model["name"]),
                    int(model["id"]),
                    tuple(model["score_names"]),
                    str(model["executor"]),
                    configured.shadow,  # A replay's engine hands on their rows as well.
                )
                for model, configured in zip(engine.models, self.config.all_models, strict=True)
            ],
        )

    @property
    def workers(self) -> dict[str, int]:
        """The worker processes of the layout `processes`: name and process id, of those that run just now."""
        return self._supervisor.pids if self._supervisor is not None else {}

    async def _open_control(self) -> None:
        assert self._engine is not None
        if any(model.watch for model in self.config.all_models):
            turn = self._models.watch()
            self._watcher = asyncio.get_running_loop().create_task(
                repeat(turn, _WATCH_S, "the watch over model files"), name="tickwire model watch"
            )
        if not self._engine.stat_path:
            return
        self._control = ControlServer(self._engine.stat_path, {"swap": self._models.on_command})
        try:
            await self._control.start()
        except OSError as error:
            _log.warning("commands to this run are not possible: %s: %s", self._control.path, error)
            self._control = None

    # Models.

    async def swap_model(
        self, files: Sequence[str | os.PathLike[str]] | str | os.PathLike[str], *, model: str | None = None
    ) -> ModelInfo:
        """Exchanges a running model for another file, bound to the same features and with the same scores.

        It is loaded, checked and warmed aside; then each agent goes over between two rows: none is lost
        and none scored twice, and every signal's `model_id` says which of the two made it. `model` names
        which, where there are several; `files` are as many as it has. Raises `ModelError` or `SetupError`,
        and leaves everything as it was, when the other cannot take its place.
        """
        return await self._models.swap(files, model=model)

    # Consumers.

    def signals(self, *, queue: int = 8192) -> SignalStream:
        """An async iterator of `Signal`, from now on.

        It has a queue of its own: when `queue` signals wait, the newest are dropped for this iterator
        and counted in its `dropped`. In a replay nothing is dropped, the engine waits.
        """
        router = self._running()
        own = router.queue(f"signals_{self._streams_begun}", queue)
        stream = SignalStream(own, self._stream_closed, self.raise_if_failed)
        self._streams_begun += 1
        self._streams[own.name] = stream
        self._begin()
        return stream

    def _stream_closed(self, stream: SignalStream) -> None:
        self._running().remove(stream.queue)
        self._streams.pop(stream.queue.name, None)
        for key, value in stream.counters().items():
            self._streams_ended[key] = self._streams_ended.get(key, 0) + value

    def features(self) -> FeatureStream:
        """An async iterator of `FeatureBatch`: rows as NumPy views of the engine's ring, not copied.

        A batch is valid until the iterator advances; `batch.copy()` gives one that may be kept. The
        router waits for this consumer before it gives the slots back, so one that is slow for longer
        than the ring is deep (`engine.output_slots`) makes the engine drop rows, counted.
        """
        stream = self._running().feature_stream(self.raise_if_failed)
        self._begin()
        return stream

    def on_signal(self, callback: Callable[[Signal], Awaitable[None] | None], *, queue: int = 8192) -> None:
        """Calls back with each signal, on the event loop; `callback` may be async.

        Before the pipeline is entered, or after. What it raises is reported once and counted.
        """
        number = len(self._sinks) + len(self._waiting)
        self._add(f"callback_{number}", CallbackSink(callback), queue)

    def on_rows(self, callback: Callable[[Rows], None], *, shadows: bool = False) -> None:
        """Calls back with each batch of records in place, before any other consumer.

        For what must see every row at little cost, as writers of files do. The callback runs on the
        event loop, must be quick and must copy what it keeps; what it raises ends the router. `shadows`: in a
        replay, also with the records of models that are shadows, which no other consumer gets.
        """
        self._running().on_rows(callback, shadows=shadows)

    async def add_sink(self, sink: Sink, *, name: str | None = None, queue: int = 8192) -> None:
        """Adds a sink: any object with `async write(signals)`. Before the pipeline is entered, or after."""
        name = name or f"{type(sink).__name__}_{len(self._sinks) + len(self._waiting)}"
        if self._router is None:
            self._waiting.append((name, sink, queue))
        else:
            await self._open_sink(name, sink, queue)

    def _add(self, name: str, sink: CallbackSink, queue: int) -> None:
        if self._router is None:
            self._waiting.append((name, sink, queue))
            return
        runner = SinkRunner(name, sink, self._router.queue(name, queue))
        runner.begin()
        self._sinks.append(runner)

    def _running(self) -> Router:
        if self._router is None:
            raise Error("the pipeline is not running: use it inside `async with`")
        return self._router

    # Observation.

    @property
    def layout(self) -> RowLayout:
        """How to read the records."""
        return self._running().layout

    @property
    def threads(self) -> dict[str, int]:
        """The data-plane threads: name and kernel id."""
        return dict(self._engine.threads) if self._engine is not None else {}

    @property
    def report(self) -> list[str]:
        """What the engine got at start-up, a line each, what on the host works against it, what it begins
        with, and where sinks listen."""
        lines = list(self._engine.report) if self._engine is not None else []
        lines += self._host.all() if self._host is not None else []
        lines += [f"warning: {line}" for line in self.config.warnings()]
        for name, files in self._warm.items():
            more = f" and {len(files) - 1} before it" if len(files) > 1 else ""
            lines.append(f"warm: {name} begins with {files[-1]}{more}")
        for feed, name in zip(self.config.feeds, self.config.feed_names, strict=True):
            if self._warm and feed.multicast is not None:
                lines.append(f"warm: {name} starts cold, as multicast does")
        for runner in self._sinks:
            url = getattr(runner.sink, "url", None)
            if url is not None:
                lines.append(f"sink {runner.name}: {public_url(str(url))}")
        return lines

    @property
    def warm_report(self) -> list[str]:
        """A line for each instrument of a feed that began warm: what it continues, or why it starts cold. A
        feed's lines come when it goes live; its rows begin there."""
        lines = list(self._engine.warm_report) if self._engine is not None else []
        if self._stopped:
            lines += [f"warm: {name}: the run ended before its feed was reached" for name in self._not_live()]
        return lines

    @property
    def warming_up(self) -> bool:
        """A feed is still on its way from its capture to the venue."""
        return not self._stopped and bool(self._not_live())

    def _not_live(self) -> list[str]:
        told = {line.split()[1] for line in self._engine.warm_report} if self._engine is not None else set()
        return [name for name in self._warm if name not in told]

    def stats(self) -> Stats:
        """Counters, latencies and thread shares since the start. Costs the data plane nothing."""
        router = self._running()
        assert self._latencies is not None
        latency, stages = self._latencies.histograms()
        file = self._stat_file
        sinks = {runner.name: runner.counters() for runner in self._sinks}
        sinks.update({name: stream.counters() for name, stream in self._streams.items()})
        if self._streams_ended:
            sinks["signals_ended"] = dict(self._streams_ended)
        return Stats(
            seconds=self._seconds if self._stopped else time.monotonic() - self._started_at,
            rows=router.rows,
            signals=router.valid,
            notices=router.notices,
            warming=router.warming,
            late=router.gate.late,
            latency=latency,
            stages=stages,
            counters={
                **file.counters(),
                "engine/stat_bytes_missing": self._stat_bytes_missing,
                "router/expired": router.expired,
            }
            if file is not None
            else {},
            histograms=dict(file.histograms()) if file is not None else {},
            errors=list(file.errors()) if file is not None else [],
            sinks=sinks,
            snapshots=self._snapshots.counters() if self._snapshots is not None else {},
            cpu_share=self._thread_shares(),
            duty_cycles=self._engine.duty_cycles if self._engine is not None else {},
            report=self.report,
            warm=self.warm_report,
            recording_lacks=self._recording_lacks,
            whole=self._whole,
            captures=self._engine.capture_facts if self._engine is not None else [],
        )

    def _look_at_stat_file(self) -> None:
        """Says once, and counts, that somebody has cut the statistics file short: the engine goes on."""
        missing = self._engine.stat_bytes_missing if self._engine is not None else 0
        if missing and not self._stat_bytes_missing:
            _log.error(
                "the statistics file %s was cut short by somebody, and lacks %d bytes: what counted there "
                "began anew, and this process alone sees it; nothing else is touched",
                self._engine.stat_path if self._engine is not None else "",
                missing,
            )
        self._stat_bytes_missing = max(missing, self._stat_bytes_missing)

    def _thread_shares(self) -> dict[str, float]:
        if self._shares is not None:
            return dict(self._shares)
        return self._threads.shares() if self._threads is not None else {}


async def _in_thread(work: Callable[..., T], *args: Any, **options: Any) -> T:
    """In a thread, and to its end: one that is given up would go on behind our back."""
    return await to_the_end(asyncio.to_thread(work, *args, **options))


def _open_stat_file(engine: Engine) -> StatFile | None:
    """The engine's statistics as it has them mapped: readable whatever becomes of the file."""
    if not engine.stat_path:
        return None
    try:
        return StatFile.of_engine(engine.stat_path, engine.stat_view())
    except StatFileError as error:
        _log.warning("the statistics file cannot be read: %s", error)
        return None
