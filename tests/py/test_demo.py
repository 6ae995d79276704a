"""The demo: the simulator as a process, its configuration, and, where the engine is built, all of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import aiohttp
import numpy as np
import onnxruntime
import pytest
from needs import compiled
from waiting import LONG_S

from tickwire import models
from tickwire.demo import demo_config, simulator
from tickwire.errors import SetupError
from tickwire.pipeline import Pipeline
from tickwire.sinks.jsonl import JsonlSink


@pytest.fixture(autouse=True)
def _import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tests found the package the processes they start find it too."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))


@pytest.mark.parametrize("market", ["spot", "usdm", "coinm"])
async def test_simulator_is_ready_when_it_says_so_and_its_configuration_fits(
    market: str, tmp_path: Path
) -> None:
    arguments = ("--synthetic", "--market", market, "--instruments", "2", "--at-end", "idle")
    async with simulator(*arguments) as venue:
        config = demo_config(venue, tmp_path, layout="inline", market=market)
        feed = config.feeds[0]
        assert len(feed.instruments) == 2
        assert models.check(tmp_path / "demo.onnx", config.schema()) == ("prob_0", "prob_1", "prob_2")
        query = {"symbol": feed.instruments[0].symbol, "limit": str(feed.snapshot_limit)}
        async with aiohttp.ClientSession() as session, session.get(feed.rest_url, params=query) as response:
            assert response.status == 200
            assert "lastUpdateId" in await response.json()


async def test_simulator_that_cannot_start_is_an_error() -> None:
    with pytest.raises(SetupError, match="ended with 2 before it was ready"):
        async with simulator("--no-such-option"):
            pass


@compiled
@pytest.mark.parametrize("layout", ["threads", "inline"])
async def test_live_pipeline_gives_every_consumer_the_same_rows(layout: str, tmp_path: Path) -> None:
    arguments = ("--synthetic", "--market", "usdm", "--rate", "500", "--at-end", "idle")
    async with asyncio.timeout(LONG_S), simulator(*arguments) as venue:
        config = demo_config(venue, tmp_path, layout=layout, market="usdm")
        async with Pipeline(config) as pipeline:
            await pipeline.add_sink(JsonlSink(str(tmp_path / "signals.jsonl")))
            called: list[int] = []
            pipeline.on_signal(lambda signal: called.append(signal.row))
            features: dict[int, list[float]] = {}

            async def collect() -> None:
                async for batch in pipeline.features():
                    for row, values in zip(batch.rows["row"].tolist(), batch.values.tolist(), strict=True):
                        features[row] = values

            collecting = asyncio.create_task(collect())
            signals = []
            async for signal in pipeline.signals():
                signals.append(signal)
                if len(signals) == 200:
                    break
            stats = pipeline.stats()
        await collecting
    assert [signal.row for signal in signals] == list(range(1, 201))
    for signal in signals:
        assert (signal.state, signal.model, len(signal.scores)) == ("valid", "demo", 3)
        assert sum(signal.scores) == pytest.approx(1, abs=1e-5)  # The demo's model ends in a softmax.
        assert sum(signal.stages_ns) == signal.latency_ns > 0
    # The model's answer is to the features of that very row.
    session = onnxruntime.InferenceSession(tmp_path / "demo.onnx", providers=["CPUExecutionProvider"])
    for signal in signals[::20]:
        (again,) = session.run(None, {"features": np.array([features[signal.row]], np.float32)})
        np.testing.assert_allclose(signal.scores, again[0], rtol=1e-4, atol=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "signals.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines[:200]] == called[:200] == [signal.row for signal in signals]
    assert lines[7]["scores"] == list(signals[7].scores)
    assert set(stats.cpu_share) == {"python", *pipeline.threads}
    assert all(share < 1.5 for share in stats.cpu_share.values()), "a thread has one core at most"
    assert sum(stats.cpu_share.values()) > 0


@compiled
@pytest.mark.parametrize("layout", ["threads", "inline"])
def test_demo_ends_with_its_figures_and_its_recording_verifies(layout: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from tickwire.cli import main; main()"]
    run_dir = tmp_path / "run"
    demo = ["demo", "--seconds", "4", "--json", "--layout", layout, "--record", str(run_dir)]
    done = subprocess.run([*command, *demo], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["rows"] > 100
    assert 0 < report["signals"] <= report["rows"]
    assert report["gaps"] == 0
    for figures in (report["latency_us"], *report["stages_us"].values()):
        assert list(figures) == ["p50", "p99", "p999", "max"]
        assert 0 <= figures["p50"] <= figures["p99"] <= figures["p999"] <= figures["max"]
    done = subprocess.run([*command, "verify", str(run_dir)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "bit for bit" in done.stdout
