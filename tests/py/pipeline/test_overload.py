"""Overload: a model that is too slow, sinks that do not keep up. Nobody upstream waits, and every row that
is not scored is counted in one place."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import onnx
import psutil
import pytest
from collecting import Collector
from configuring import at_venue
from needs import compiled
from onnx import TensorProto, helper, numpy_helper
from waiting import LONG_S, until, wait_until

from tickwire import models
from tickwire.config import Config
from tickwire.pipeline import Pipeline
from tickwire.records import Signal
from tickwire.sim import SyntheticMarket, Venue
from tickwire.sinks.websocket import WebSocketSink
from tickwire.stats import Stats
from tickwire.verify import verify

pytestmark = compiled

ROWS = ["imbalance(levels=5)", "spread()", 'trade_flow(window="100ms")']


def slow_model(path: Path, config: Config, rounds: int) -> None:
    """A bound model whose run multiplies matrices `rounds` times: tens of milliseconds and more.

    The matrix depends on the input, so that no runtime can do the work ahead.
    """
    size = 256
    features = len(ROWS)
    spread = np.random.default_rng(3).standard_normal((features, size)).astype(np.float32)
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["m_in", "m_in"], ["square"]),
            helper.make_node("Tanh", ["square"], ["m_out"]),
            helper.make_node("Identity", ["go_in"], ["go_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m_in", TensorProto.FLOAT, [size, size]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("m_out", TensorProto.FLOAT, [size, size]),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "spread"], ["line"]),
            helper.make_node("Tanh", ["line"], ["bounded"]),
            helper.make_node("Transpose", ["bounded"], ["column"], perm=[1, 0]),
            helper.make_node("MatMul", ["column", "bounded"], ["start"]),
            helper.make_node("Loop", ["rounds", "go", "start"], ["end"], body=body),
            helper.make_node("ReduceMean", ["end"], ["score"], axes=[0, 1], keepdims=1),
        ],
        "slow",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, features])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1, 1])],
        [
            numpy_helper.from_array(spread, "spread"),
            numpy_helper.from_array(np.array(rounds, np.int64), "rounds"),
            numpy_helper.from_array(np.array(True), "go"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    schema = config.schema()
    models.bind(path, schema.canonical_json(), schema.fingerprint())


def configuration(venue: Venue, folder: Path, rounds: int = 0, **tables: Any) -> Config:
    data: dict[str, Any] = {
        "feeds": [at_venue(venue)],
        "features": {"rows": list(ROWS)},
        "sinks": tables.pop("sinks", []),
    }
    if not rounds:
        return Config.from_dict(data, base=folder)
    slow_model(folder / "slow.onnx", Config.from_dict(data, base=folder), rounds)
    return Config.from_dict({**data, "model": {"path": "slow.onnx", **tables}}, base=folder)


def unscored(stats: Stats) -> dict[str, int]:
    names = ("unscored_dropped_oldest", "unscored_conflated", "unscored_shutdown", "unscored_window")
    return {name: stats.count(name) for name in (*names, "rows_dropped", "nonfinite", "model_errors")}


@pytest.mark.parametrize(
    ("options", "loses"),
    [
        ({"policy": "every", "queue_slots": 64, "max_age_us": 0}, "rows_dropped"),
        (
            {"policy": "drop_oldest", "queue_slots": 4096, "queue_limit": 8, "max_age_us": 0},
            "unscored_dropped_oldest",
        ),
        ({"policy": "conflate", "queue_slots": 4096, "max_age_us": 0}, "unscored_conflated"),
        ({"policy": "every", "queue_slots": 16384, "max_age_us": 0}, "unscored_shutdown"),
        ({"policy": "every", "queue_slots": 4096, "max_age_us": 400_000}, "stale"),
    ],
    ids=["full ring", "drop_oldest", "conflate", "shutdown", "max_age"],
)
async def test_a_model_too_slow_for_the_feed(tmp_path: Path, options: dict[str, Any], loses: str) -> None:
    source = SyntheticMarket("usdm", instruments=2, rate=800, seed=9)
    async with Venue([source]) as venue:
        # Short of the age allowed, also where the machine has much else to do.
        rounds = {"unscored_dropped_oldest": 50, "stale": 20}.get(loses, 100)
        config = configuration(venue, tmp_path, rounds=rounds, **options)
        async with Pipeline(config, record_dir=tmp_path / "run") as pipeline:
            collector = Collector(pipeline)
            await pipeline.run_until(1.5)
    stats = pipeline.stats()
    records = collector.records
    rows = records[records["row"] != 0]
    counted = unscored(stats)

    # Overloaded it was: rows came faster than the model, and most have no score.
    emitted = stats.counters["ingest0/rows"]
    assert emitted > 300
    assert 0 < stats.count("scored") < emitted / 2
    # Every row is accounted for, exactly, and by the cause that this policy has.
    assert emitted == stats.count("scored", "stale") + sum(counted.values())
    lost = {**counted, "stale": stats.count("stale")}
    assert lost[loses] == max(lost.values())
    # At the end a run that takes too long is interrupted, and fails.
    assert stats.dropped == sum(counted.values()) - counted["model_errors"]
    assert counted["model_errors"] <= 1
    # What Python got are the records that the model's thread let out; some it got too late.
    valid = int(((rows["scored"] != 0) & (rows["state"] == 0)).sum())
    assert valid == stats.count("scored") - stats.counters["router/expired"]
    assert len(rows) == stats.count("scored", "stale", "model_errors")
    # Ingestion went on: nothing was missed, and no event waited for a run.
    assert stats.count("gaps", "capture_lost", "record_lost") == 0
    model = stats.histograms["infer0/model"].max
    for stage in ("decode", "book", "features"):
        assert stats.histograms[f"ingest0/{stage}"].percentile(99.0) < model / 2, stage
    if loses != "unscored_dropped_oldest":
        return  # A replay scores every row: once is enough.
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence
    assert result.rows == emitted
    assert result.unscored == emitted - stats.count("scored")


def until_stopped(pid: int) -> None:
    """What it had in hand is given back or not: from here on nothing is."""
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)


async def test_a_model_that_stands_still_for_a_second_holds_nothing_up(tmp_path: Path) -> None:
    source = SyntheticMarket("usdm", instruments=2, rate=800, seed=9)
    async with Venue([source]) as venue:
        plain = configuration(venue, tmp_path)
        models.make_demo_model(tmp_path / "m.onnx", plain.schema())
        config = Config.from_dict(
            {
                **plain.model_dump(exclude_none=True),
                "engine": {"layout": "processes"},
                "model": {"path": "m.onnx", "queue_slots": 128, "heartbeat_timeout": "30s", "max_age_us": 0},
            },
            base=tmp_path,
        )
        async with Pipeline(config) as pipeline:
            collector = Collector(pipeline)
            await pipeline.run_until(1)
            (worker,) = pipeline.workers.values()
            os.kill(worker, signal.SIGSTOP)
            until_stopped(worker)
            before = pipeline.stats()
            stopped = time.monotonic()
            await pipeline.run_until(1)
            during = pipeline.stats()
            stood_s = time.monotonic() - stopped
            os.kill(worker, signal.SIGCONT)
            await pipeline.run_until(0.5)
    stats = pipeline.stats()
    assert stood_s >= 1
    emitted = [each.counters["ingest0/rows"] for each in (before, during, stats)]
    # The feed went on: rows were made as before, though none was scored.
    assert emitted[1] - emitted[0] > emitted[0] / 4
    assert during.count("scored") <= before.count("scored") + 1
    # Nobody waited: had an event been held up by the model, it would have been for most of that second. What
    # `receive` tells begins at the kernel's stamp, so it would show a late read, too.
    for stage in ("receive", "decode", "book", "features"):
        held = during.histograms[f"ingest0/{stage}"] - before.histograms[f"ingest0/{stage}"]
        assert held.count > 100, stage
        assert held.percentile(99.0) < stood_s * 1e9 / 4, stage
    # The ring took what it has room for and let go of the rest, each row counted once.
    assert during.counters["ingest0/rows_dropped"] > 0
    assert emitted[2] == stats.count("scored") + sum(unscored(stats).values())
    assert stats.count("gaps") == 0
    records = collector.records
    assert int((records["scored"] != 0).sum()) == stats.count("scored")


async def test_slow_and_dead_clients_of_a_sink_are_nobody_elses_business(tmp_path: Path) -> None:
    source = SyntheticMarket("usdm", instruments=2, rate=2000, seed=9)
    got: Counter[str] = Counter()
    async with Venue([source]) as venue, aiohttp.ClientSession() as session:
        sinks = [{"type": "websocket", "port": 0, "queue": 64}]
        config = configuration(venue, tmp_path, sinks=sinks)
        pipeline = Pipeline(config)

        def count(signal: Signal) -> None:
            got["callback"] += signal.row != 0

        pipeline.on_signal(count, queue=1 << 16)
        async with pipeline:
            (line,) = (line for line in pipeline.report if "ws://" in line)
            url = line.split(": ", 1)[1]
            # One reads nothing, one is cut off without a word, one reads everything.
            host, _, port = url.removeprefix("ws://").removesuffix("/").partition(":")
            silent = socket.socket()
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            silent.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(silent, (host, int(port)))
            await loop.sock_sendall(
                silent,
                b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            )
            # A kernel's send buffer grows to megabytes; the slow client shall be slow within seconds.
            (sink,) = (runner.sink for runner in pipeline._sinks if isinstance(runner.sink, WebSocketSink))
            await until(lambda: sink._clients)
            (slow,) = sink._clients
            transport = slow.socket.get_extra_info("socket")
            transport.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            dead = await session.ws_connect(url)
            reader = await session.ws_connect(url)

            async def read() -> None:
                async for _ in reader:
                    got["reader"] += 1

            reading = asyncio.create_task(read())
            await pipeline.run_until(1.0)
            connection = dead._response.connection
            assert connection is not None
            assert connection.transport is not None
            connection.transport.abort()
            await pipeline.run_until(3.0)
            stats = pipeline.stats()
        silent.close()
        await asyncio.wait_for(reading, LONG_S)
    final = pipeline.stats()
    (counters,) = (counters for name, counters in stats.sinks.items() if "websocket" in name)
    assert counters["client_dropped"] > 100  # The silent one's.
    # The engine noticed nothing, and neither did who reads.
    assert final.dropped == 0
    assert final.rows > 200
    assert got["callback"] == final.rows
    assert got["reader"] > final.rows / 2
    assert final.count("gaps") == 0
