"""The router and what listens to it: nothing lost, nothing starved, everything counted."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

import fake_core
import numpy as np
import pytest
from configuring import one_feed
from fake_core import make_rows, notice
from fake_rows import FEATURES, layout_of
from waiting import LONG_S, until

from tickwire.config import Config
from tickwire.errors import EngineError, Error, SetupError
from tickwire.pipeline import Pipeline
from tickwire.records import Signal
from tickwire.router import router as router_module
from tickwire.router.consumers import SignalQueue
from tickwire.router.router import Router


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The fake in the place of the compiled engine."""
    monkeypatch.setattr("tickwire.core.extension", fake_core)
    monkeypatch.setattr(fake_core.Engine, "script", None)
    yield fake_core
    fake_core.Engine.last = None


def config(**tables: Any) -> Config:
    # Rows of the fake engine are of another year.
    return one_feed(instruments=("BTCUSDT", "ETHUSDT"), rows=FEATURES, features={"max_age": "0s"}, **tables)


def engine_of(pipeline: Pipeline) -> fake_core.Engine:
    engine: object = pipeline._engine
    assert isinstance(engine, fake_core.Engine)
    return engine


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)


async def test_signals_carry_what_the_records_say(core: Any) -> None:
    async with Pipeline(config()) as pipeline:
        stream = pipeline.signals()
        engine_of(pipeline).push(make_rows(2, 2, instrument=1))
        signal = await anext(stream)
        assert (signal.instrument, signal.venue) == ("ETHUSDT", "binance_spot")
        assert (signal.epoch, signal.row, signal.sequence) == (1, 1, 1001)
        assert (signal.state, signal.reason, signal.model, signal.score, signal.scores) == (
            "valid",
            "none",
            None,
            None,
            (),
        )
        assert signal.latency_ns == signal.ts_out - signal.ts_recv == 28_000
        assert signal.stage_ns == {stage: (i + 1) * 1000 for i, stage in enumerate(core.STAGES)}
        assert (await anext(stream)).row == 2


def test_score_is_there_only_where_the_row_is_valid_and_scored() -> None:
    rows = make_rows(4, 2, 3)
    rows["state"][1] = fake_core.STATES.index("stale")  # Scores of an earlier use still lie in the slot.
    rows["scored"][2] = 0
    signals = layout_of(rows, ("a", "b", "c")).signals(rows)
    assert signals[0].score == pytest.approx(1 / 7)
    assert signals[0].scores == tuple(float(x) for x in rows["scores"][0])
    assert signals[0].model == "m"
    for signal in signals[1:3]:
        assert (signal.model, signal.score, signal.scores) == ("m", None, ())
    assert signals[3].row == 4


def test_notice_says_why_and_carries_no_score() -> None:
    rows = make_rows(1, 2, 3)
    (signal,) = layout_of(rows).signals(notice(like=rows))
    assert (signal.row, signal.state, signal.reason, signal.score) == (0, "suspect", "gap", None)
    assert signal.ts_event is None


async def test_no_wake_up_is_lost(core: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the net: a lost wake-up would hang the test.
    monkeypatch.setattr(router_module, "_NET_S", 3600.0)
    total = 6000
    random = np.random.default_rng(seed := time.time_ns() % 2**32)
    print("seed", seed)
    pauses = random.choice([0.0, 0.0, 0.0, 1e-5, 2e-4], total)

    def produce(engine: fake_core.Engine) -> None:
        rows = make_rows(total, 2)
        for i in range(total):
            engine.push(rows[i : i + 1])
            # Slower than the consumer on the whole, so that it falls asleep again and again.
            while engine._tail - engine._head > 32:
                time.sleep(1e-5)
            if pauses[i]:
                time.sleep(pauses[i])

    async with Pipeline(config()) as pipeline:
        stream = pipeline.signals(queue=total)
        engine = engine_of(pipeline)
        thread = threading.Thread(target=produce, args=(engine,))
        thread.start()
        async with asyncio.timeout(LONG_S):
            got = [(await anext(stream)).row for _ in range(total)]
        thread.join()
        assert got == list(range(1, total + 1))
        assert engine.dropped == 0
        assert engine.wakeups > 0


async def test_sleeping_router_is_woken_by_the_descriptor(core: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_module, "_NET_S", 3600.0)
    async with Pipeline(config()) as pipeline:
        stream = pipeline.signals()
        engine = engine_of(pipeline)
        await settle()
        engine.push(make_rows(1, 2))
        assert engine.wakeups == 1
        async with asyncio.timeout(LONG_S):
            assert (await anext(stream)).row == 1
        await settle()
        # Awake or asleep, the second row needs one more wake-up and not one a row.
        engine.push(make_rows(5, 2, first=2))
        assert engine.wakeups == 2


async def test_net_finds_rows_nobody_told_of(core: Any) -> None:
    async with Pipeline(config()) as pipeline:
        stream = pipeline.signals()
        engine = engine_of(pipeline)
        await settle()
        engine._asleep = False  # The wake-up is lost.
        engine.push(make_rows(1, 2))
        async with asyncio.timeout(LONG_S):
            assert (await anext(stream)).row == 1


async def test_loop_turns_while_the_ring_never_empties(core: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever waits, no more than a slice is handled before others have their turn."""
    monkeypatch.setattr(core.Engine, "slots", 1024)
    turns = 0
    handled: Counter[int] = Counter()
    left = 20

    async with Pipeline(config()) as pipeline:
        engine = engine_of(pipeline)

        def count(rows: Any) -> None:
            handled[turns] += len(rows)

        pipeline.on_rows(count)
        while left or engine._tail > engine._head:
            if left and (room := 1024 - (engine._tail - engine._head)):
                left -= 1
                engine.push(make_rows(room, 2))
            turns += 1
            await asyncio.sleep(0)
    assert sum(handled.values()) == engine._tail > 1024
    assert max(handled.values()) <= router_module._SLICE


async def test_slow_consumer_loses_the_newest_and_nobody_else_notices(core: Any) -> None:
    async with Pipeline(config()) as pipeline:
        slow = pipeline.signals(queue=10)
        fast = pipeline.signals(queue=1000)
        for first in range(1, 51, 25):
            engine_of(pipeline).push(make_rows(25, 2, first=first))
            await settle()
        assert [(await anext(fast)).row for _ in range(50)] == list(range(1, 51))
        assert [(await anext(slow)).row for _ in range(10)] == list(range(1, 11))
        assert (slow.dropped, fast.dropped) == (40, 0)
        engine_of(pipeline).push(make_rows(1, 2, first=99))
        assert (await anext(slow)).row == 99
        sinks = pipeline.stats().sinks
        assert [counts["dropped"] for counts in sinks.values()] == [40, 0]


async def test_stuck_sink_and_raising_sink_leave_the_others_alone(
    core: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck:
        async def write(self, signals: Any) -> None:
            await asyncio.Event().wait()

    class Raising:
        async def write(self, signals: Any) -> None:
            raise RuntimeError("no")

    got: list[int] = []
    pipeline = Pipeline(config())
    await pipeline.add_sink(Stuck(), name="stuck", queue=5)
    await pipeline.add_sink(Raising(), name="raising")
    pipeline.on_signal(lambda signal: got.append(signal.row))
    from tickwire.sinks import base

    base._CLOSE_S, before = 0.05, base._CLOSE_S
    try:
        async with pipeline:
            for first in range(1, 40, 10):
                engine_of(pipeline).push(make_rows(10, 2, first=first))
                await settle()
            assert got == list(range(1, 41))
    finally:
        base._CLOSE_S = before
    sinks = pipeline.stats().sinks
    assert sinks["raising"] == {"delivered": 0, "dropped": 0, "errors": 4, "lost": 40}
    # It sat on the first five, or ten, for ever; the rest found no room or waited to the end.
    assert sinks["stuck"]["delivered"] == sinks["stuck"]["errors"] == 0
    assert 0 < sinks["stuck"]["lost"] <= 10
    assert sinks["stuck"]["lost"] + sinks["stuck"]["dropped"] == 40
    assert sinks["callback_2"] == {"delivered": 40, "dropped": 0, "errors": 0, "lost": 0}
    assert len([record for record in caplog.records if "raising" in record.message]) == 1


async def test_callback_that_raises_still_gets_the_next_signal(core: Any) -> None:
    got: list[int] = []

    async def callback(signal: Signal) -> None:
        got.append(signal.row)
        if signal.row == 1:
            raise ValueError("first")

    async with Pipeline(config()) as pipeline:
        pipeline.on_signal(callback)
        engine_of(pipeline).push(make_rows(3, 2))
        await settle()
    assert got == [1, 2, 3]
    (counts,) = pipeline.stats().sinks.values()
    assert counts == {"delivered": 2, "dropped": 0, "errors": 1, "lost": 1}


async def test_iterators_that_have_ended_leave_nothing_but_their_sums(core: Any) -> None:
    async with Pipeline(config()) as pipeline:
        engine = engine_of(pipeline)
        kept = pipeline.signals()
        router = pipeline._router
        assert router is not None
        gone = []
        for i in range(20):
            stream = pipeline.signals(queue=3)
            gone.append((weakref.ref(stream), weakref.ref(stream.queue)))
            engine.push(make_rows(5, 2, first=5 * i + 1))
            assert (await anext(stream)).row == 5 * i + 1
            await settle()
            del stream  # As a loop that is left drops its iterator.
        gc.collect()
        assert all(one() is None for pair in gone for one in pair)
        assert len(router._queues) == 1
        sinks = pipeline.stats().sinks
        assert sinks["signals_0"] == {"delivered": 0, "dropped": 0, "unread": 100}
        # Of each five one was read; the others found no room, or waited when the iterator ended.
        ended = sinks["signals_ended"]
        assert (ended["delivered"], ended["dropped"] + ended["unread"]) == (20, 80)
        assert ended["dropped"] > 0
        assert ended["unread"] > 0
        assert [(await anext(kept)).row for _ in range(100)] == list(range(1, 101))
        kept.close()
        kept.close()
        assert pipeline.stats().sinks == {"signals_ended": {**ended, "delivered": 120}}


async def test_feature_batch_is_a_view_until_the_iterator_advances(core: Any) -> None:
    async with Pipeline(config()) as pipeline:
        stream = pipeline.features()
        engine = engine_of(pipeline)
        rows = make_rows(3, 2)
        engine.push(rows)
        batch = await anext(stream)
        assert batch.names == tuple(FEATURES)
        assert np.shares_memory(batch.rows, engine._ring)
        assert np.shares_memory(batch.values, engine._ring)
        np.testing.assert_array_equal(batch.values, rows["features"])
        await settle()
        # The slots are still ours.
        assert engine._head == 0
        np.testing.assert_array_equal(batch.rows["row"], [1, 2, 3])
        kept = batch.copy()
        raw = batch.rows
        engine.push(make_rows(1, 2, first=4))
        following = await anext(stream)
        assert list(following.rows["row"]) == [4]
        with pytest.raises(Error, match="expired"):
            batch.values  # noqa: B018
        assert (raw["row"] != [1, 2, 3]).all()  # What the docstring warns of.
        np.testing.assert_array_equal(kept.rows, rows)
        assert [signal.row for signal in kept.signals()] == [1, 2, 3]


async def test_view_is_read_only(core: Any) -> None:
    async with Pipeline(config()) as pipeline:
        stream = pipeline.features()
        engine_of(pipeline).push(make_rows(1, 2))
        batch = await anext(stream)
        with pytest.raises(ValueError, match="read-only"):
            batch.rows["row"][0] = 9


async def test_leaving_a_feature_loop_gives_the_slots_back(core: Any) -> None:
    async with Pipeline(config()) as pipeline:
        engine = engine_of(pipeline)
        signals = pipeline.signals()
        engine.push(make_rows(1, 2))
        async for _batch in pipeline.features():
            break
        gc.collect()
        engine.push(make_rows(1, 2, first=2))
        async with asyncio.timeout(LONG_S):
            assert [(await anext(signals)).row for _ in range(2)] == [1, 2]


async def test_two_feature_loops_see_the_same_rows(core: Any) -> None:
    async with Pipeline(config()) as pipeline:
        engine = engine_of(pipeline)
        one, two = pipeline.features(), pipeline.features()
        engine.push(make_rows(2, 2))
        first, second = await anext(one), await anext(two)
        assert list(first.rows["row"]) == list(second.rows["row"]) == [1, 2]
        engine.push(make_rows(1, 2, first=3))
        waiting = asyncio.ensure_future(anext(one))
        await settle()
        assert not waiting.done()  # The other one still holds its batch.
        assert list((await anext(two)).rows["row"]) == [3]
        assert list((await waiting).rows["row"]) == [3]


async def test_stop_ends_iterators_after_what_was_published(core: Any) -> None:
    pipeline = Pipeline(config())
    async with pipeline:
        stream = pipeline.signals()
        engine_of(pipeline).push(make_rows(5, 2))
    assert [signal.row async for signal in stream] == [1, 2, 3, 4, 5]
    stats = pipeline.stats()
    assert (stats.rows, stats.signals, stats.invalid) == (5, 5, 0)


async def test_dead_agent_is_raised_where_somebody_waits(core: Any) -> None:
    async with Pipeline(config()) as pipeline:
        stream = pipeline.signals()
        engine_of(pipeline).push(make_rows(1, 2))
        engine_of(pipeline).failed = "ingest0: out of luck"
        assert (await anext(stream)).row == 1
        with pytest.raises(EngineError, match="ingest0: out of luck"):
            await anext(stream)
        with pytest.raises(EngineError, match="ingest0: out of luck"):
            await pipeline.run_until(5)


async def test_stats_count_rows_notices_and_stages(core: Any) -> None:
    async with Pipeline(config()) as pipeline:
        rows = make_rows(10, 2)
        engine_of(pipeline).push(rows)
        engine_of(pipeline).push(notice(like=rows))
        await settle()
        stats = pipeline.stats()
        assert (stats.rows, stats.signals, stats.notices, stats.invalid) == (10, 10, 1, 1)
        assert stats.latency.count == 10
        assert stats.latency.max == 28_000
        assert stats.stages["decode"].p50 == 2_000
        assert list(stats.cpu_share) == ["python"]
        assert stats.report[0] == "a fake engine"


async def test_rows_that_warm_up_are_no_invalid_ones(core: Any) -> None:
    async with Pipeline(config()) as pipeline:
        stream = pipeline.signals()
        rows = make_rows(6, 2)
        rows["state"] = [
            core.STATES.index(state) for state in ["warming"] * 3 + ["nonfinite", "valid", "valid"]
        ]
        engine_of(pipeline).push(rows)
        assert [(await anext(stream)).state for _ in range(4)] == ["warming"] * 3 + ["nonfinite"]
        stats = pipeline.stats()
        assert (stats.rows, stats.signals, stats.warming, stats.invalid) == (6, 2, 3, 1)


async def test_replay_delivers_every_row_to_a_slow_consumer(core: Any, tmp_path: Any) -> None:
    total = 500
    capture = tmp_path / "capture.log"
    capture.write_text("")
    core.Engine.script = lambda engine: engine.push(make_rows(total, 2))
    async with Pipeline.replay(config(), [capture]) as pipeline:
        rows = []
        async for signal in pipeline.signals(queue=7):
            rows.append(signal.row)
            if signal.row % 100 == 0:
                await asyncio.sleep(0.01)
        assert rows == list(range(1, total + 1))
        assert engine_of(pipeline).dropped == 0
        assert engine_of(pipeline).config["feeds"][0]["inputs"] == [str(capture)]


async def test_replay_left_early_stops(core: Any, tmp_path: Any) -> None:
    capture = tmp_path / "capture.log"
    capture.write_text("")
    core.Engine.script = lambda engine: engine.push(make_rows(500, 2))
    async with asyncio.timeout(LONG_S), Pipeline.replay(config(), [capture]) as pipeline:
        async for signal in pipeline.signals(queue=3):
            if signal.row == 5:
                break


async def test_set_up_error_of_the_engine_is_ours(core: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, config: Any) -> None:
        raise core.SetupError("memory.lock: expected a lock, found none")

    monkeypatch.setattr(core.Engine, "__init__", refuse)
    monkeypatch.setattr(core.Engine, "__del__", lambda self: None)
    with pytest.raises(SetupError, match=r"memory\.lock"):
        async with Pipeline(config()):
            pass


async def test_pipeline_runs_once(core: Any) -> None:
    pipeline = Pipeline(config())
    with pytest.raises(Error, match="async with"):
        pipeline.signals()
    async with pipeline:
        pass
    with pytest.raises(Error, match="once"):
        await pipeline.__aenter__()


async def test_run_until_returns_when_asked_and_when_over(core: Any) -> None:
    async with asyncio.timeout(LONG_S), Pipeline(config()) as pipeline:
        await pipeline.run_until(0.02)
        asyncio.get_running_loop().call_later(0.02, pipeline.request_stop)
        await pipeline.run_until()


async def test_queue_closed_while_it_waits_for_room() -> None:
    queue = SignalQueue("q", 1, lossless=True)
    rows = make_rows(2, 2)
    queue.offer(layout_of(rows).signals(rows))
    waiting = asyncio.ensure_future(queue.room())
    await settle()
    assert not waiting.done()
    queue.close()
    await asyncio.wait_for(waiting, LONG_S)
    assert [signal.row for signal in await queue.get()] == [1, 2]
    assert await queue.get() == []


async def test_row_callback_that_raises_ends_the_router() -> None:
    engine = fake_core.Engine({"features": {"outputs": [0, 1]}, "models": [], "replay": False})
    router = Router(engine, layout_of(make_rows(1, 2)))  # type: ignore[arg-type]

    def callback(rows: Any) -> None:
        raise OSError("disk")

    router.on_rows(callback)
    engine.push(make_rows(1, 2))
    with pytest.raises(OSError, match="disk"):
        await router.run()
    assert engine._head == 1  # The slots went back all the same.


async def test_snapshot_request_wakes_the_router_and_is_served(
    core: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetch(self: Any, feed: Any, symbol: str) -> bytes:
        return symbol.encode()

    monkeypatch.setattr("tickwire.runtime.snapshots.SnapshotService._fetch", fetch)
    monkeypatch.setattr("tickwire.runtime.snapshots._POLL_S", 3600.0)
    async with Pipeline(config()) as pipeline:
        engine = engine_of(pipeline)
        await settle()
        engine.requests = [(0, 1, 0)]
        await until(lambda: engine.delivered)
        assert engine.delivered == [(0, 1, b"ETHUSDT")]
        assert pipeline.stats().snapshots["fetched"] == 1


async def test_requests_are_served_while_a_consumer_holds_the_router(
    core: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetch(self: Any, feed: Any, symbol: str) -> bytes:
        return b"x"

    monkeypatch.setattr("tickwire.runtime.snapshots.SnapshotService._fetch", fetch)
    async with Pipeline(config()) as pipeline:
        engine = engine_of(pipeline)
        stream = pipeline.features()
        engine.push(make_rows(1, 2))
        batch = await anext(stream)
        engine.requests = [(0, 0, 0)]
        await until(lambda: engine.delivered)
        assert len(batch) == 1  # Still held.


async def test_start_that_fails_leaves_no_recording_behind(
    core: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    def refuse(self: Any) -> None:
        raise core.SetupError("feeds[0].core: expected a core")

    monkeypatch.setattr(core.Engine, "start", refuse)
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "new", tmp_path / "there"):
        with pytest.raises(SetupError):
            async with Pipeline(config(), record_dir=folder):
                pass
    assert list((tmp_path / "there").iterdir()) == []
    assert not (tmp_path / "new").exists()
