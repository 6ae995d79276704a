"""Workers that are killed at random moments under load, and what must hold all the same. The tests and the
soak share it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from collecting import Collector
from configuring import at_venue
from waiting import until

from tickwire import models
from tickwire.config import Config
from tickwire.pipeline import Pipeline
from tickwire.records import Rows
from tickwire.sim import SyntheticMarket, Venue
from tickwire.stats import Stats
from tickwire.verify import verify

ROWS = ["imbalance(levels=5)", "spread()", "microprice_offset()"]
# Where a row may go besides to the router: each counter says of some that they have no record.
GIVEN_UP = ("rows_dropped", "unscored_dropped_oldest", "unscored_conflated", "unscored_shutdown")


def workers_config(venue: Venue, folder: Path, *, more: str = "m.onnx", **model: Any) -> Config:
    """Layout `processes` at a venue of one market, with a small model."""
    data: dict[str, Any] = {
        "engine": {"layout": "processes"},
        "feeds": [at_venue(venue)],
        "features": {"rows": list(ROWS), "max_age": "0s"},
    }
    models.make_demo_model(folder / more, Config.from_dict(data, base=folder).schema())
    return Config.from_dict({**data, "model": {"path": more, **model}}, base=folder)


def _valid(rows: Rows) -> np.ndarray[Any, np.dtype[np.bool_]]:
    valid: np.ndarray[Any, np.dtype[np.bool_]] = (rows["scored"] != 0) & (rows["state"] == 0)
    return valid


def check_books(stats: Stats, rows: Rows) -> None:
    """Each row that the ingest agent emitted is in exactly one place, by the counters and by the records."""
    emitted = stats.counters["ingest0/rows"]
    answered = stats.count(
        "scored", "stale", "nonfinite", "model_errors", "unscored_window", "unscored_stopped"
    )
    assert emitted == answered + stats.count(*GIVEN_UP)
    assert len(rows) == answered - stats.count("output_dropped")
    assert int(_valid(rows).sum()) == stats.count("scored")


def check_scores(model: Path, rows: Rows) -> None:
    """The scores are the model's answer to these very features: by a session of Python's own."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    scored = rows[_valid(rows)]
    features = np.ascontiguousarray(scored["features"]).reshape(len(scored), 1, -1)
    truth = np.array([session.run(None, {name: row})[0].reshape(-1) for row in features])
    np.testing.assert_allclose(scored["scores"], truth, rtol=1e-4, atol=1e-6)


@dataclass(frozen=True)
class Storm:
    kills: int
    rows: int
    stats: Stats

    def __str__(self) -> str:
        recovery = self.stats.histograms["infer0/worker_recovery"]
        decode, hop = self.stats.histograms["ingest0/decode"], self.stats.histograms["infer0/queue"]
        return (
            f"{self.kills} kills, {self.rows:,} rows, each once; recovery ms "
            f"p50 {recovery.p50 / 1e6:.1f} p99 {recovery.p99 / 1e6:.1f} max {recovery.max / 1e6:.1f}; "
            f"decode µs p50 {decode.p50 / 1e3:.1f} p99 {decode.p99 / 1e3:.1f} max {decode.max / 1e3:.0f}; "
            f"queue µs p50 {hop.p50 / 1e3:.0f}"
        )


async def kill_storm(seed: int, *, kills: int, folder: Path) -> Storm:
    """Kills the worker at random moments while rows come, then holds every row to account."""
    chance = random.Random(seed)
    async with Venue(
        [SyntheticMarket("usdm", instruments=2, rate=1500, seed=seed, seconds=0.1 * kills)]
    ) as venue:
        config = workers_config(venue, folder, max_restarts=1_000_000, restart_backoff="1ms")
        pipeline = Pipeline(config, record_dir=folder / "run")
        async with pipeline:
            collector = Collector(pipeline)
            running = asyncio.create_task(pipeline.run_until())
            await until(lambda: collector.batches)
            done, shot = 0, 0
            while done < kills and not venue.finished.is_set():
                (worker,) = pipeline._engine.workers  # type: ignore[union-attr]
                # From time to time one that has not even begun.
                if worker["pid"] and (worker["phase"] == "running" or chance.random() < 0.02):
                    await asyncio.sleep(chance.uniform(0.0, 0.02))
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker["pid"], signal.SIGKILL)
                        # One that is dead, and not yet seen to be, does not die again.
                        done += worker["pid"] != shot
                        shot = worker["pid"]
                await asyncio.sleep(chance.uniform(0.002, 0.006))
            await venue.finished.wait()
            arrived = -1
            while arrived != (now := pipeline.stats().counters["binance_usdm/messages"]):
                arrived = now
                await asyncio.sleep(0.3)
            pipeline.request_stop()
            await running
        stats, sent, held = pipeline.stats(), venue.counters["sent"], venue.counters["dropped"]
    rows = collector.rows
    assert collector.repeated() == []
    check_books(stats, rows)
    check_scores(folder / "m.onnx", rows)
    # The feed never noticed: all that was sent came in, and a replay of it gives these rows.
    assert stats.count("gaps", "capture_lost", "record_lost") == 0
    assert sent == arrived
    assert held == 0
    assert done > 0, "the market was over before the first kill: a machine too busy for this"
    result = await verify(folder / "run")
    assert result.same, result.divergence
    assert result.exact, result.why_not_exact
    assert (result.rows, result.scores) == (stats.counters["ingest0/rows"], stats.count("scored"))
    # One that was killed while it still loaded, by a second shot, is one failure.
    assert stats.counters["infer0/worker_restarts"] >= done * 0.9
    return Storm(done, len(rows), stats)
