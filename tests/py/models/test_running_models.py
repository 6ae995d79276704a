"""Several models on one row stream, their workers, their batches, and the exchange of one for another.

The truth of a score is ONNX Runtime's own answer, from Python, to the features in the same record.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
from pathlib import Path
from signal import SIGKILL
from typing import Any

import fake_core
import numpy as np
import onnxruntime
import pytest
from collecting import Collector, keys
from fake_core import make_rows, notice
from modelled import configuration, make_model, market
from needs import compiled
from waiting import LONG_S, until

from tickwire.errors import Error, FingerprintMismatch, ModelError, SetupError
from tickwire.held import model_id
from tickwire.pipeline import Pipeline
from tickwire.records import ModelInfo, RowLayout, Rows
from tickwire.replay import replay
from tickwire.router.gate import EpochGate
from tickwire.runtime import control
from tickwire.sim import Faults
from tickwire.verify import verify

pytestmark = compiled


def truth(path: Path, features: Any) -> Any:
    """ONNX Runtime's scores of rows of features, one by one."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: row[None, :]})[0] for row in features])


def number_of(*files: Path, weights: list[float] | None = None) -> int:
    return model_id(files, weights or [1.0] * len(files))


def assert_scores(rows: Rows, path: Path, tolerance: float = 1e-6) -> None:
    assert len(rows)
    assert (rows["state"] == 0).all()
    expected = truth(path, rows["features"])
    np.testing.assert_allclose(rows["scores"][:, : expected.shape[1]], expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("layout", ["threads", "inline", "processes"])
async def test_each_row_goes_once_to_each_model(tmp_path: Path, layout: str) -> None:
    async with market() as venue:
        plain = configuration(venue, tmp_path)
        a, b, c = (make_model(tmp_path / f"{name}.onnx", plain, seed) for seed, name in enumerate("abc"))
        narrow = make_model(tmp_path / "narrow.onnx", plain, 9, outputs=1)
        workers = {"workers": 2} if layout != "inline" else {}
        tables = [
            {"path": "a.onnx", **workers},
            {"name": "both", "path": ["a.onnx", "b.onnx"], "weights": [3.0, 1.0]},
            {"path": "c.onnx", "shadow": True},
            {"path": "narrow.onnx"},
        ]
        config = configuration(venue, tmp_path, layout=layout, models=tables)
        async with Pipeline(config, record_dir=tmp_path / "run") as pipeline:
            collector = Collector(pipeline)
            stream = pipeline.signals()
            await pipeline.run_until(1.5)
    rows, stats = collector.rows, pipeline.stats()
    ids = {
        "a": number_of(a),
        "both": number_of(a, b, weights=[3.0, 1.0]),
        "narrow": number_of(narrow),
    }
    emitted = stats.counters["ingest0/rows"]
    assert emitted > 300
    assert set(rows["model_id"].tolist()) == set(ids.values()), "a shadow's scores leave only to the recorder"
    assert set(keys(rows).values()) == {1}
    by_model = {name: rows[rows["model_id"] == number] for name, number in ids.items()}
    assert {name: len(part) for name, part in by_model.items()} == dict.fromkeys(ids, emitted)
    assert_scores(by_model["a"], a)
    assert_scores(by_model["narrow"], narrow)
    assert np.isnan(by_model["narrow"]["scores"][:, 1:]).all()
    mean = (3 * truth(a, by_model["both"]["features"]) + truth(b, by_model["both"]["features"])) / 4
    np.testing.assert_allclose(by_model["both"]["scores"], mean, rtol=0, atol=1e-6)
    scores_of = {signal.model: len(signal.scores) async for signal in stream if signal.scores}
    assert scores_of == {"a": 3, "both": 3, "narrow": 1}

    # The shadow's scores are in the recording, with the rest; and all of it comes again from the capture.
    recorded = np.concatenate(
        # Records as they lie: what was put together of several batches has no room between its fields.
        [np.fromfile(file, pipeline.layout.dtype) for file in (tmp_path / "run" / "scores").glob("*/*.bin")]
    )
    assert_scores(recorded[(recorded["model_id"] == number_of(c)) & (recorded["row"] != 0)], c)
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence
    assert (result.exact, result.scores, result.unscored) == (True, 4 * emitted, 0)

    # One line a row in a replay's file, with the scores of all, the shadow's as well.
    capture = sorted((tmp_path / "run" / "capture" / "binance_usdm").iterdir())
    await replay(config, {"binance_usdm": [os.fspath(file) for file in capture]}, tmp_path / "rows.csv")
    header, *lines = (tmp_path / "rows.csv").read_text().splitlines()
    names = [f"{model}.prob_{i}" for model in ("a", "both", "c") for i in range(3)] + ["narrow.score"]
    assert header.split(",")[-10:] == names
    assert len(lines) == emitted
    cells = np.array([line.split(",")[-10:] for line in lines]).astype(np.float32)
    order = np.lexsort((rows["row"], rows["epoch"], rows["instrument"]))
    lives = {name: np.sort(part["scores"][:, 0]) for name, part in by_model.items()}
    assert len(order) == 3 * emitted
    lives["c"] = np.sort(
        recorded["scores"][(recorded["model_id"] == number_of(c)) & (recorded["row"] != 0), 0]
    )
    for name, column in (("a", 0), ("both", 3), ("c", 6), ("narrow", 9)):
        np.testing.assert_array_equal(np.sort(cells[:, column]), lives[name])


async def test_rows_that_wait_are_scored_together_and_the_same_batches_again(tmp_path: Path) -> None:
    async with market(rate=3000) as venue:
        plain = configuration(venue, tmp_path)
        path = make_model(tmp_path / "m.onnx", plain, 1, hidden=(1500, 1500))
        config = configuration(
            venue, tmp_path, model={"path": "m.onnx", "max_batch": 8, "queue_slots": 16384}
        )
        async with Pipeline(config, record_dir=tmp_path / "run") as pipeline:
            collector = Collector(pipeline)
            await pipeline.run_until(1.5)
    rows = collector.rows
    assert int(rows["scored"].max()) > 1, "the model was late, so rows waited"
    assert int(rows["scored"].max()) <= 8
    assert set(keys(rows).values()) == {1}
    sample = rows[:: max(len(rows) // 200, 1)]
    assert_scores(sample, path, 1e-4)
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence
    assert result.exact
    assert result.scores == len(rows)


async def test_a_worker_that_is_killed_leaves_no_half_batch(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    async with market(rate=3000) as venue:
        make_model(tmp_path / "m.onnx", configuration(venue, tmp_path), 1, hidden=(1200, 1200))
        keep = {"queue_slots": 16384, "max_restarts": 1000, "restart_backoff": "1ms"}
        config = configuration(
            venue, tmp_path, layout="processes", model={"path": "m.onnx", "max_batch": 8, **keep}
        )
        async with Pipeline(config, record_dir=tmp_path / "run") as pipeline:
            collector = Collector(pipeline)
            async with asyncio.timeout(LONG_S):
                while pipeline.stats().counters["infer0/worker_restarts"] <= 10:
                    for worker in pipeline._engine.workers:  # type: ignore[union-attr]
                        if worker["phase"] == "running" and worker["pid"]:
                            os.kill(worker["pid"], SIGKILL)
                    await asyncio.sleep(chance.uniform(0.05, 0.1))
    rows = collector.rows
    assert pipeline.stats().counters["infer0/worker_restarts"] > 10
    assert int((rows["scored"] > 1).sum()) > 100
    assert set(keys(rows).values()) == {1}
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence
    assert result.scores == len(rows)


@pytest.mark.parametrize("layout", ["threads", "inline", "processes"])
@pytest.mark.parametrize("window_rows", [1, 4])
async def test_exchanges_lose_no_row_and_score_none_twice(
    tmp_path: Path, layout: str, window_rows: int
) -> None:
    """TICKWIRE_EXCHANGES=100 makes as many of them."""
    exchanges = int(os.environ.get("TICKWIRE_EXCHANGES", "16"))
    async with market(rate=1500) as venue:
        plain = configuration(venue, tmp_path, window_rows=window_rows)
        files = [make_model(tmp_path / f"{name}.onnx", plain, seed) for seed, name in enumerate("ab")]
        config = configuration(
            venue, tmp_path, layout=layout, window_rows=window_rows, model={"path": "a.onnx", "name": "m"}
        )
        async with Pipeline(config, record_dir=tmp_path / "run") as pipeline:
            collector = Collector(pipeline)
            await asyncio.sleep(0.5)
            for file in itertools.islice(itertools.cycle(reversed(files)), exchanges):
                assert (await pipeline.swap_model(file)).id == number_of(file)
            await asyncio.sleep(0.2)
    rows, stats = collector.rows, pipeline.stats()
    assert set(keys(rows).values()) == {1}
    assert len(rows) == stats.counters["ingest0/rows"]
    assert stats.dropped == 0
    for instrument in (0, 1):
        mine = np.sort(rows[rows["instrument"] == instrument]["row"])
        np.testing.assert_array_equal(mine, np.arange(1, len(mine) + 1))
    ids = [number_of(file) for file in files]
    assert set(rows["model_id"].tolist()) == set(ids)
    changes = int((np.diff(rows["model_id"].astype(np.int64)) != 0).sum())
    assert changes >= exchanges // 2, "rows of both models, in turns"
    if window_rows == 1:
        for file, number in zip(files, ids, strict=True):
            assert_scores(rows[rows["model_id"] == number], file)
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence
    assert result.exact
    assert result.scores == len(rows) - stats.warming


@pytest.mark.parametrize("layout", ["threads", "processes"])
async def test_an_exchange_that_cannot_be_leaves_the_model_that_runs(tmp_path: Path, layout: str) -> None:
    async with market() as venue:
        plain = configuration(venue, tmp_path)
        good = make_model(tmp_path / "a.onnx", plain, 1)
        other_scores = make_model(tmp_path / "b.onnx", plain, 2, outputs=2)
        other = configuration(venue, tmp_path, window_rows=2)
        other_features = make_model(tmp_path / "c.onnx", other, 3)
        corrupt = tmp_path / "d.onnx"
        corrupt.write_bytes(good.read_bytes()[:-100])
        config = configuration(venue, tmp_path, layout=layout, model={"path": "a.onnx"})
        async with Pipeline(config, record_dir=tmp_path / "run") as pipeline:
            collector = Collector(pipeline)
            for file, kind, says in (
                (
                    other_scores,
                    SetupError,
                    r"b.onnx: expected the scores of the model it replaces: prob_0, prob_1",
                ),
                (other_features, FingerprintMismatch, "c.onnx: expected a model bound to the features"),
                (corrupt, ModelError, "d.onnx: expected an ONNX model"),
                (tmp_path / "none.onnx", ModelError, "none.onnx: expected an ONNX model, found No such file"),
            ):
                with pytest.raises(kind, match=says):
                    await pipeline.swap_model(file)
            with pytest.raises(Error, match=r"swap: expected one of the models \(a\), found 'b'"):
                await pipeline.swap_model(good, model="b")
            with pytest.raises(Error, match="swap: a: expected 1 files, found 2"):
                await pipeline.swap_model([good, good])
            assert (await pipeline.swap_model(good)).id == number_of(good), "what runs already is no exchange"
            await pipeline.run_until(0.5)
    assert set(collector.rows["model_id"].tolist()) == {number_of(good)}
    assert_scores(collector.rows, good)
    # Nor does the recording name what never scored.
    names = [f"{number_of(good):08x}"]
    assert [
        entry["id"] for entry in json.loads((tmp_path / "run" / "run.json").read_text())["models"]
    ] == names
    assert [folder.name for folder in (tmp_path / "run" / "models").iterdir()] == names
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence


async def test_all_workers_of_a_model_go_over_or_none(tmp_path: Path) -> None:
    async with market() as venue:
        plain = configuration(venue, tmp_path)
        one, two = (make_model(tmp_path / f"{name}.onnx", plain, seed) for seed, name in enumerate("ab"))
        config = configuration(
            venue,
            tmp_path,
            layout="processes",
            model={"path": "a.onnx", "workers": 2, "restart_backoff": "1ms"},
        )
        async with Pipeline(config) as pipeline:
            collector = Collector(pipeline)
            supervisor, engine = pipeline._supervisor, pipeline._engine
            assert supervisor is not None
            assert engine is not None
            begin, hand_over = supervisor._begin_replacement, supervisor._hand_over

            async def models_after(rows: int) -> set[int]:
                seen = len(collector.rows)
                await until(lambda: len(collector.rows) >= seen + rows)
                return set(collector.rows[seen:]["model_id"].tolist())

            def dies_meanwhile(worker: Any, **options: Any) -> None:
                """One worker dies while its replacement loads, and the other one's replacement does."""
                begin(worker, **options)
                process = engine.workers[worker.index]
                os.kill((process if worker.index == 0 else process["aside"])["pid"], SIGKILL)

            supervisor._begin_replacement = dies_meanwhile  # type: ignore[method-assign]
            await until(lambda: pipeline.stats().rows > 50)
            with pytest.raises(
                SetupError, match="infer1: expected one that starts, found killed by signal 9"
            ):
                await pipeline.swap_model(two)
            supervisor._begin_replacement = begin  # type: ignore[method-assign]
            await until(lambda: all(worker["phase"] == "running" for worker in engine.workers))
            assert await models_after(100) == {number_of(one)}

            def dies_too_late(worker: Any) -> None:
                """The replacement dies as it takes over: it is too late to go back."""
                os.kill(engine.workers[worker.index]["aside"]["pid"], SIGKILL)
                hand_over(worker)

            supervisor._hand_over = dies_too_late  # type: ignore[method-assign]
            assert (await pipeline.swap_model(two)).id == number_of(two)
            supervisor._hand_over = hand_over  # type: ignore[method-assign]
            await until(lambda: all(worker["phase"] == "running" for worker in engine.workers))
            assert await models_after(100) == {number_of(two)}

            def recoveries() -> list[int]:
                return [pipeline.stats().histograms[f"infer{i}/worker_recovery"].count for i in range(2)]

            assert recoveries() == [2, 1]
            await pipeline.swap_model(one)
            assert await models_after(100) == {number_of(one)}
            assert recoveries() == [2, 1], "an exchange is no recovery from a death long ago"
    rows = collector.rows
    assert set(keys(rows).values()) == {1}
    assert len(rows) == pipeline.stats().counters["ingest0/rows"]


async def test_a_file_that_is_watched_is_gone_over_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with market(rate=200) as venue:
        plain = configuration(venue, tmp_path)
        make_model(tmp_path / "m.onnx", plain, 1)
        newer = make_model(tmp_path / "newer.onnx", plain, 2)
        number = number_of(newer)
        config = configuration(venue, tmp_path, model={"path": "m.onnx", "watch": True})
        async with Pipeline(config) as pipeline:
            stream = pipeline.signals()
            (tmp_path / "half").write_bytes(newer.read_bytes()[:1000])
            os.replace(tmp_path / "half", tmp_path / "m.onnx")
            await until(lambda: "but the old one stays" in caplog.text)
            os.replace(newer, tmp_path / "m.onnx")
            async with asyncio.timeout(LONG_S):
                async for signal in stream:
                    if signal.model_id == number:
                        assert signal.model == "m"
                        break


async def test_a_running_engine_is_asked_through_its_socket(tmp_path: Path) -> None:
    async with market(rate=200) as venue:
        plain = configuration(venue, tmp_path)
        one, two = (make_model(tmp_path / f"{name}.onnx", plain, seed) for seed, name in enumerate("ab"))
        config = configuration(venue, tmp_path, model={"path": "a.onnx"}, engine={"stat_path": "engine.stat"})
        stat_path = tmp_path / "engine.stat"
        async with Pipeline(config):
            socket = control.socket_path(stat_path)
            assert socket.stat().st_mode & 0o777 == 0o600
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", "from tickwire.cli import main; main()"),
                *("model", "swap", os.fspath(two), "--engine", os.fspath(stat_path)),
                stdout=asyncio.subprocess.PIPE,
            )
            out, _ = await process.communicate()
            assert process.returncode == 0
            said = f"model a: {number_of(one):08x} -> {number_of(two):08x} in "
            assert out.decode().startswith(said)
            for request, says in (
                (
                    {"command": "swap", "model": None, "files": [os.fspath(tmp_path / "x")]},
                    "expected an ONNX model",
                ),
                (
                    {"command": "swap", "model": "z", "files": []},
                    r"expected one of the models \(a\), found 'z'",
                ),
                ({"command": "swap", "files": 3}, "expected files, a list of paths"),
                ({"command": "dance"}, "expected a command of swap, found 'dance'"),
            ):
                with pytest.raises(Error, match=says):
                    await control.ask(stat_path, request)
            reader, writer = await asyncio.open_unix_connection(socket)
            writer.write(b"no json\n")
            assert b"expected a line of JSON" in await reader.readline()
            writer.close()
        assert not socket.exists()
        with pytest.raises(Error, match="no engine answers there"):
            await control.ask(stat_path, {"command": "swap"})


async def test_an_engine_that_was_killed_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "default_directories", lambda: [tmp_path])
    killed = await asyncio.start_unix_server(lambda *_: None, tmp_path / "engine-1.stat.control")
    assert control.find_engine() == tmp_path / "engine-1.stat"
    killed.close()
    assert (tmp_path / "engine-1.stat.control").is_socket(), "what a kill leaves behind"
    with pytest.raises(Error, match="expected a running engine of this user, found none"):
        control.find_engine()
    async with await asyncio.start_unix_server(lambda *_: None, tmp_path / "engine-2.stat.control"):
        assert control.find_engine() == tmp_path / "engine-2.stat"


async def test_workers_that_share_an_instrument_send_nothing_after_the_end_of_its_epoch(
    tmp_path: Path,
) -> None:
    faults = Faults(3, {"drop": 0.01})
    async with market(rate=1500, faults=faults) as venue:
        plain = configuration(venue, tmp_path)
        path = make_model(tmp_path / "m.onnx", plain, 1, hidden=(900, 900))
        config = configuration(
            venue,
            tmp_path,
            model={"path": "m.onnx", "workers": 3, "assign": "least_loaded", "queue_slots": 16384},
        )
        async with Pipeline(config, record_dir=tmp_path / "run") as pipeline:
            collector = Collector(pipeline)
            await pipeline.run_until(3)
            # Longer where the machine has much else to do.
            await until(
                lambda: (
                    len(collector.rows) > 100
                    and pipeline.stats().count("left_valid") > 0
                    and all(pipeline.stats().counters[f"infer{i}/scored"] for i in range(3))
                )
            )
    records, stats = collector.records, pipeline.stats()
    rows = records[records["row"] != 0]
    assert faults.counts["drop"] > 0
    assert stats.count("left_valid") > 0
    assert set(keys(rows).values()) == {1}
    scored = [stats.counters[f"infer{i}/scored"] for i in range(3)]
    assert all(scored), "each had its share"
    assert sum(scored) == len(rows) + stats.late
    assert sum(scored) + stats.count("unscored_shutdown") == stats.counters["ingest0/rows"]
    ended: dict[int, int] = {}
    for record in records:
        instrument, epoch = int(record["instrument"]), int(record["epoch"])
        assert epoch > ended.get(instrument, 0), "an epoch that had ended"
        if record["row"] == 0:
            ended[instrument] = epoch
    assert_scores(rows[:: max(len(rows) // 100, 1)], path, 1e-5)
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence


def gate_of(rows: Any, *names: str) -> EpochGate:
    layout = RowLayout(
        rows.dtype,
        stages=fake_core.STAGES,
        states=fake_core.STATES,
        reasons=fake_core.REASONS,
        instruments=[("BTCUSDT", "binance_spot"), ("ETHUSDT", "binance_spot")],
        features=["a", "b"],
        models=[ModelInfo("m", 77, ("s",)), ModelInfo("other", 78, ("s",))],
    )
    return EpochGate(layout, names)


def end_of(epoch: int, like: Any, instrument: int = 0) -> Any:
    end = notice(instrument, like=like)
    end["epoch"], end["model_id"] = epoch, 77
    return end


def test_the_gate_lets_one_notice_through_and_nothing_of_its_epoch_after_it() -> None:
    first = make_rows(3, 2, 1)
    gate = gate_of(first, "m")
    assert gate.admit(first) is first, "no copy where all may pass"
    later = make_rows(2, 2, 1, first=4)
    newer = make_rows(2, 2, 1)
    newer["epoch"] = 2
    elsewhere = make_rows(2, 2, 1, instrument=1)
    batch = np.concatenate([end_of(1, first), later, end_of(1, first), newer, elsewhere])
    passed = gate.admit(batch)
    np.testing.assert_array_equal(passed, batch[[0, 4, 5, 6, 7]])
    assert gate.late == 2
    assert len(gate.admit(later)) == 0
    assert gate.late == 4


def test_the_gate_leaves_models_alone_whose_workers_share_nothing() -> None:
    rows = make_rows(2, 2, 1)
    rows["model_id"] = 78
    gate = gate_of(rows, "m")
    gate.admit(end_of(1, rows))
    assert gate.admit(rows) is rows
    nobody = gate_of(rows)
    assert nobody.admit(np.concatenate([end_of(1, rows), rows])).shape == (3,)
