"""A pipeline that starts, or does not, and stops: nothing half-done is left behind."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import fake_core
import pytest
from configuring import one_feed
from fake_core import make_rows
from waiting import LONG_S, until

import tickwire.pipeline
from tickwire import models
from tickwire.config import Config
from tickwire.errors import Error, ModelError, SetupError
from tickwire.host.startup import HostReport
from tickwire.pipeline import Pipeline
from tickwire.runtime import control
from tickwire.runtime.control import ControlServer
from tickwire.runtime.exchange import ModelExchange
from tickwire.runtime.snapshots import SnapshotService


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr("tickwire.core.extension", fake_core)
    monkeypatch.setattr(fake_core.Engine, "script", None)
    monkeypatch.setattr("tickwire.pipeline.host_report", lambda _: HostReport((), ()))
    yield fake_core
    fake_core.Engine.last = None


def config(**tables: Any) -> Config:
    return one_feed(features={"max_age": "0s"}, **tables)


class Watched:
    """A sink that says what became of it."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.closed = False

    async def write(self, signals: Any) -> None:
        self.rows += [signal.row for signal in signals]

    async def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("how", ["raises", "is cancelled"])
@pytest.mark.parametrize("where", ["host", "start", "snapshots", "control"])
async def test_a_start_that_does_not_succeed_is_undone(
    core: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str, where: str
) -> None:
    reached = asyncio.Event()

    async def stop_here(*_: Any) -> None:
        reached.set()
        if how == "raises":
            raise RuntimeError("unforeseen")
        await asyncio.Event().wait()

    def stop_in_thread(*_: Any) -> Any:
        if how == "raises":
            raise RuntimeError("unforeseen")
        loop.call_soon_threadsafe(reached.set)
        go_on.wait()
        return HostReport((), ())

    loop = asyncio.get_running_loop()
    go_on = threading.Event()
    begun = core.Engine.start
    if where == "host":
        monkeypatch.setattr("tickwire.pipeline.host_report", stop_in_thread)
    elif where == "start":

        def start(engine: fake_core.Engine) -> None:
            begun(engine)
            stop_in_thread()

        monkeypatch.setattr(core.Engine, "start", start)
    elif where == "snapshots":
        if how == "is cancelled":
            pytest.skip("it does not wait there")

        def refuse(self: SnapshotService) -> None:
            raise RuntimeError("unforeseen")

        monkeypatch.setattr(SnapshotService, "start", refuse)
    else:

        def with_a_place(engine: fake_core.Engine) -> None:
            engine.stat_path = str(tmp_path / "engine.stat")
            begun(engine)

        monkeypatch.setattr(core.Engine, "start", with_a_place)
        monkeypatch.setattr(ControlServer, "start", stop_here)
    core.Engine.script = lambda engine: engine.push(make_rows(3, 1))
    sink = Watched()
    pipeline = Pipeline(config(), record_dir=tmp_path / "run")
    await pipeline.add_sink(sink)
    starting = asyncio.create_task(pipeline.__aenter__())
    if how == "is cancelled":
        await reached.wait()
        starting.cancel()
        loop.call_later(0.02, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await starting
    else:
        with pytest.raises(RuntimeError, match="unforeseen"):
            await starting
    engine = core.Engine.last
    assert engine.stopping.is_set()
    assert sink.closed == (where != "host"), "it was open by then"
    assert not (tmp_path / "run").exists()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert [task.get_name() for task in others if task.get_name().startswith("tickwire")] == []
    await pipeline.stop()  # Nothing more to do, and no harm.


async def test_a_stop_that_is_cancelled_stops_all_the_same(
    core: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Watched):
        async def close(self) -> None:
            closing.set()
            await go_on.wait()
            self.closed = True

    sink = Slow()
    pipeline = Pipeline(config())
    await pipeline.add_sink(sink)
    await pipeline.__aenter__()
    stopping = asyncio.create_task(pipeline.stop())
    await closing.wait()
    stopping.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert sink.closed
    assert core.Engine.last.stopping.is_set()


async def test_sinks_close_beside_each_other(core: Any) -> None:
    """Each waits, while it closes, for all others to have begun to close."""
    closing = [asyncio.Event() for _ in range(3)]

    class Polite(Watched):
        def __init__(self, own: asyncio.Event) -> None:
            super().__init__()
            self.own = own

        async def close(self) -> None:
            self.own.set()
            for other in closing:
                await other.wait()
            self.closed = True

    sinks = [Polite(own) for own in closing]
    pipeline = Pipeline(config())
    for sink in sinks:
        await pipeline.add_sink(sink)
    async with pipeline:
        pass
    assert [sink.closed for sink in sinks] == [True] * 3


async def test_the_report_keeps_a_sink_s_password(core: Any) -> None:
    class Remote(Watched):
        url = "redis://desk:s3cret@cache.example:6379/0?auth=s3cret"

    pipeline = Pipeline(config())
    await pipeline.add_sink(Remote(), name="cache")
    async with pipeline:
        assert pipeline.report[-1] == "sink cache: redis://cache.example:6379/0"


async def test_what_was_checked_is_what_is_loaded_and_recorded(
    core: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The user's file is opened once, and may become another one right after that."""
    path = models.make_demo_model(tmp_path / "m.onnx", config().schema())
    good = path.read_bytes()
    models.make_demo_model(tmp_path / "other.onnx", config().schema(), seed=8)
    opened: list[str] = []
    real = os.open

    def count(file: Any, *args: Any, **options: Any) -> Any:
        if file == path:
            opened.append(str(file))
        return real(file, *args, **options)

    loaded: list[bytes] = []
    begun = core.Engine.__init__

    def load(self: fake_core.Engine, settings: dict[str, Any]) -> None:
        ((name, weight, descriptor),) = settings["models"][0]["members"]
        assert (name, weight) == (str(path), 1.0)
        loaded.append(os.pread(descriptor, 1 << 20, 0))
        begun(self, settings)

    def check(*args: Any, **options: Any) -> Any:
        os.replace(tmp_path / "other.onnx", path)  # Between the look at its features and its use.
        loaded.append(options["held"].content())
        return ()

    monkeypatch.setattr(core.Engine, "__init__", load)
    monkeypatch.setattr(models, "check", check)
    monkeypatch.setattr(os, "open", count)
    async with Pipeline(
        config(base=tmp_path, model={"path": "m.onnx"}), record_dir=tmp_path / "run"
    ) as pipeline:
        assert loaded == [good, good]
        (kept,) = (tmp_path / "run" / "models").rglob("*.onnx")
        assert kept.read_bytes() == good
        assert kept.stat().st_mode & 0o777 == 0o600
        assert kept.parent.name == f"{pipeline.layout.models[0].id:08x}"
    assert len(opened) == 1


async def request(server: ControlServer, line: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(server.path)
    writer.write(line)
    async with asyncio.timeout(LONG_S):
        answer = await reader.readline()
    writer.close()
    return answer


async def test_control_answers_whatever_becomes_of_a_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        kind = asked.get("kind")
        if kind == "error":
            raise Error("not now")
        if kind == "os":
            open("/nowhere/at/all")  # noqa: ASYNC230, SIM115
        if kind == "unforeseen":
            raise KeyError("surprise")
        return {"got": kind}

    before = os.umask(0o022)
    os.umask(before)
    server = ControlServer(str(tmp_path / "engine.stat"), {"do": handler})
    await server.start()
    try:
        assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
        after = os.umask(before)
        assert after == before
        for line, says in (
            (b'{"command": "do", "kind": 3}', b'{"ok": {"got": 3}}'),
            (b'{"command": "do", "kind": "error"}', b'{"error": "not now"}'),
            (b'{"command": "do", "kind": "os"}', b'{"error": "/nowhere/at/all: No such file or directory"}'),
            (b'{"command": "do", "kind": "unforeseen"}', b"a fault of ours: KeyError: 'surprise'"),
            (b'{"command": ["do"]}', b"expected a command of do, found"),
            (b'{"command": {"do": 1}}', b"expected a command of do, found"),
            (b'["do"]', b"expected a JSON object, found another value"),
            (b"null", b"expected a JSON object, found another value"),
            (b"", b"expected a line of JSON"),
            (b"\xff\xfe", b"expected a line of JSON"),
            (b"[" * 50_000, b"expected a line of JSON"),
            (b'"' + b"x" * (1 << 17) + b'"', b"expected a line of at most 65536 bytes"),
        ):
            assert says in await request(server, line + b"\n"), line[:40]
        assert [record.levelname for record in caplog.records] == ["ERROR"], "the one that nobody foresaw"
        monkeypatch.setattr(control, "_IDLE_S", 0.05)
        reader, writer = await asyncio.open_unix_connection(server.path)
        async with asyncio.timeout(LONG_S):
            assert b"expected a request within" in await reader.read(), "and is let go"
        writer.close()
    finally:
        await server.close()


def holds(queue: asyncio.Queue[str], count: int) -> bool:
    return queue.qsize() >= count


async def test_a_watch_over_a_model_survives_what_nobody_foresaw(
    core: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tickwire.pipeline, "_WATCH_S", 0.01)
    path = models.make_demo_model(tmp_path / "m.onnx", config().schema())
    tried = asyncio.Queue[str]()

    async def swap(self: ModelExchange, files: Any, *, model: str | None = None) -> None:
        tried.put_nowait(str(model))
        raise (KeyError("surprise") if tried.qsize() == 1 else ModelError("no"))

    monkeypatch.setattr(ModelExchange, "swap", swap)
    settings = config(base=tmp_path, model={"path": "m.onnx", "watch": True})
    with caplog.at_level(logging.ERROR):
        async with Pipeline(settings) as pipeline:
            watcher = pipeline._watcher
            assert watcher is not None
            for stamp, number in ((1, 1), (2, 2), (3, 3)):
                os.utime(path, ns=(stamp, stamp))
                await until(partial(holds, tried, number))
        assert watcher.done(), "the stop waited for it"
    assert "the watch over model files: KeyError: 'surprise'" in caplog.text
    assert "its file has changed, but the old one stays: no" in caplog.text


async def test_an_exchange_that_fails_leaves_the_layout_as_it_was(
    core: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    models.make_demo_model(tmp_path / "m.onnx", config().schema())
    models.make_demo_model(tmp_path / "n.onnx", config().schema(), seed=8)
    async with Pipeline(config(base=tmp_path, model={"path": "m.onnx"})) as pipeline:
        before = pipeline.layout.models

        def refuse(*_: Any) -> None:
            raise core.SetupError(
                "n.onnx: expected every agent to go over to it, found one that stands still"
            )

        monkeypatch.setattr(core.Engine, "swap_model", refuse, raising=False)
        with pytest.raises(SetupError, match="stands still"):
            await pipeline.swap_model(tmp_path / "n.onnx")
        assert pipeline.layout.models == before == pipeline.layout.routed

        def exchange(engine: Any, index: int, members: Any, number: int) -> None:
            # A record of the new one may be there before its exchange is over.
            named = pipeline.layout.model(number)
            assert named is not None
            assert (named.name, named.id) == ("m", number)

        monkeypatch.setattr(core.Engine, "swap_model", exchange)
        found = await pipeline.swap_model(tmp_path / "n.onnx")
        assert pipeline.layout.models == (*before, found)
        assert pipeline.layout.routed == (found,)
