"""No row from a book that is older than allowed, and none that is older than anybody wants."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_core import STATES, make_rows, notice
from fake_rows import layout_of
from needs import compiled
from scripted import BTC, Run, ScriptedVenue, config_of
from trade_lines import MS, SECOND, START_NS, Line, diff, snapshot, trade, write
from waiting import LONG_S

from tickwire import models
from tickwire.config import Config
from tickwire.pipeline import Pipeline
from tickwire.records import age_ns
from tickwire.replay import replay
from tickwire.router.age import AgeLimit
from tickwire.verify import verify


@compiled
@pytest.mark.parametrize("when", ['trigger = "trade"', 'every = "100ms"', 'trigger = "book"'])
async def test_a_row_of_whatever_event_checks_the_age_of_the_book(tmp_path: Path, when: str) -> None:
    """Trades go on while the book says nothing, now and then."""
    rng = np.random.default_rng(11)
    lines: list[Line] = [snapshot(START_NS, 100)]
    book, trades, number = [], 0, 100
    next_diff = 1
    for ms in range(1, 30_000):
        ts = START_NS + ms * MS
        if ms == next_diff:
            number += 1
            lines.append(diff(ts, number))
            book.append(ts)
            next_diff += int(rng.choice([20, 100, 700, 1000, 1001, 2500]))
        if ms % 30 == 7:
            trades += 1
            lines.append(trade(ts + MS // 2, trades))
    text = (
        '[[feeds]]\nvenue = "binance_spot"\ninstruments = ["BTCUSDT"]\nstale_after = "1s"\n'
        f"[features]\n{when}\n" + """rows = ["spread()", "trade_count(window='1s')"]\n"""
    )
    out = tmp_path / "out.csv"
    config = Config.from_text(text, base=tmp_path)
    stats = await replay(config, {config.feed_names[0]: [str(write(tmp_path / "in.log", lines))]}, out)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    changes = np.array(book)
    ages = [int(row["ts_recv"]) - changes[changes <= int(row["ts_recv"])].max() for row in rows]
    assert max(ages) <= SECOND
    # Each silence that a message of any kind saw the end of ended an epoch.
    assert stats.counters["binance_spot/data_stale"] == int((np.diff(changes) > SECOND).sum())
    assert len({row["epoch"] for row in rows}) > 3
    if "trade" in when:
        # None is missing that was in time: of trades behind the first of an epoch.
        assert sum(age > 900 * MS for age in ages) > 3


@compiled
async def test_live_a_trade_shows_that_the_book_is_old_and_the_replay_agrees(tmp_path: Path) -> None:
    venue = ScriptedVenue()
    folder = tmp_path / "run"
    async with venue.serve():
        data = config_of(venue, {"stale_after": "150ms"})
        data["features"] = {"rows": ["spread()"], "trigger": "trade"}
        config = Config.from_dict(data, where="test")
        async with Pipeline(config, record_dir=folder) as pipeline:
            run = Run(venue, pipeline)
            kept: list[Any] = []
            pipeline.on_rows(run.on_rows)
            pipeline.on_rows(lambda rows: kept.append(rows.copy()))
            trades = 0
            for _ in range(4):
                before = run.count("data_stale")
                for _ in range(10):
                    await venue.say(venue.diff(BTC))
                    trades += 1
                    await venue.say(trade(START_NS + trades * MS, trades).text)
                    await asyncio.sleep(0.01)
                while run.count("data_stale") == before and trades < 2000:
                    trades += 1
                    await venue.say(trade(START_NS + trades * MS, trades).text)
                    await asyncio.sleep(0.005)
        assert run.count("data_stale") >= 4
    captured = (folder / "capture" / "main" / "000001.log").read_text().splitlines()
    diffs = np.array([int(line.split(" ", 1)[0]) for line in captured if '"depthUpdate"' in line])
    rows = np.concatenate(kept)
    rows = rows[rows["row"] != 0]
    assert len(rows) > 10
    for ts in rows["ts_recv"].tolist():
        assert ts - diffs[diffs <= ts].max() <= 150 * MS
    result = await verify(folder)
    assert result.same, result.divergence


def test_what_waited_too_long_behind_the_engine_leaves_as_stale() -> None:
    rows = np.concatenate([make_rows(6, 2, 2), notice(like=make_rows(1, 2, 2))])
    rows["ts_recv"] = 1000 * MS
    rows["model_id"][3:6] = 78
    rows["ts_recv"][3] += MS
    rows["unseen_us"][3] = 1000  # It may have come with the others.
    rows["state"][1] = STATES.index("nonfinite")
    layout = layout_of(rows)
    now = [0]
    for own, default, age, late in (
        (None, 1000, 1000, set()),
        (None, 1000, 1001, {0, 2, 3, 4, 5}),
        (None, 0, 10**6, set()),
        (5000, 1000, 1001, {3, 4, 5}),
        (0, 1000, 10**6, {3, 4, 5}),
        (5000, 0, 5001, {0, 2}),
    ):
        limit = AgeLimit(
            layout,
            default * MS,
            {"m": own * MS} if own is not None else None,
            clock=lambda: now[0],
        )
        now[0] = (1000 + age) * MS
        judged = limit.rows(rows)
        found = {i for i in range(6) if judged["state"][i] == STATES.index("stale")}
        assert found == late, (own, default, age)
        assert limit.expired == len(late)
        assert np.isnan(judged["scores"][sorted(late)]).all()
        kept = sorted(set(range(7)) - late)
        assert judged[kept].tobytes() == rows[kept].tobytes()
        assert rows["state"][0] == STATES.index("valid"), "the engine's own record is left as it is"
        signals = limit.judged(limit.signals(rows))
        assert {i for i in range(6) if signals[i].state == "stale"} == late
        assert all(signals[i].score is None and signals[i].scores == () for i in late)


PROGRAM = """
import asyncio, json, sys
from tickwire.config import Config
from tickwire.pipeline import Pipeline

async def main():
    config = Config.from_dict(json.loads(sys.argv[1]), where="test")
    async with Pipeline(config, record_dir=sys.argv[2]) as pipeline:
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(0, told.set)
        seen = []
        def on_rows(rows):
            if not seen:
                print("rows", flush=True)
            seen.append(1)
        pipeline.on_rows(on_rows)
        await told.wait()

asyncio.run(main())
"""


@compiled
@pytest.mark.parametrize("layout", ["rows", "inline", "threads"])
async def test_what_waited_while_the_process_was_stopped_does_not_leave_as_valid(
    tmp_path: Path, layout: str
) -> None:
    venue = ScriptedVenue()
    folder = tmp_path / "run"
    async with venue.serve():
        data = config_of(venue)
        data["feeds"] = data["feeds"][:1]
        data["features"]["max_age"] = "300ms"
        if layout != "rows":
            plain = Config.from_dict(data, where="test")
            models.make_demo_model(tmp_path / "m.onnx", plain.schema())
            data |= {"model": {"path": str(tmp_path / "m.onnx")}, "engine": {"layout": layout}}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM,
            json.dumps(data),
            str(folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        stop = asyncio.Event()
        chatter = asyncio.create_task(venue.chatter(stop))
        try:
            async with asyncio.timeout(LONG_S):
                assert await process.stdout.readline() == b"rows\n"
                await asyncio.sleep(0.5)
                os.kill(process.pid, signal.SIGSTOP)
                await asyncio.sleep(1.0)
                os.kill(process.pid, signal.SIGCONT)
                await asyncio.sleep(0.5)
                process.stdin.write(b"\n")
                await process.stdin.drain()
                assert await process.wait() == 0
        finally:
            stop.set()
            await chatter
            if process.returncode is None:
                process.kill()
                await process.wait()
    manifest = json.loads((folder / "run.json").read_text())
    names, formats = manifest["row_dtype"]["names"], manifest["row_dtype"]["formats"]
    dtype = np.dtype(
        {
            "names": names,
            "formats": [(base, tuple(shape)) if shape else base for base, shape in formats],
            "offsets": manifest["row_dtype"]["offsets"],
            "itemsize": manifest["row_dtype"]["itemsize"],
        }
    )
    part = "rows" if layout == "rows" else "scores"
    records = np.concatenate([np.fromfile(path, dtype) for path in sorted((folder / part).rglob("*.bin"))])
    records = records[records["row"] != 0]
    old = age_ns(records) > 300 * MS
    counts = manifest["counts"]
    if layout == "rows":
        # Recorded as they were before they left.
        assert (records["state"] == STATES.index("valid")).all()
        assert sum(agent.get("rows_stale", 0) for agent in counts.values()) == old.sum()
    else:
        assert ((records["state"] == STATES.index("stale")) == old).all()
        assert sum(agent.get("stale", 0) for agent in counts.values()) == old.sum()
    assert old.sum() > 20, "those that waited while nobody read"
    assert (~old).sum() > 20
    result = await verify(folder)
    assert result.same, result.divergence
