"""Verify: finds the first difference and names it, and refuses what proves nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_core
import numpy as np
import pytest
from configuring import one_feed
from fake_core import STAGES, STATES, make_rows, notice

from tickwire.compare import Comparer, ScoreChecker
from tickwire.config import Config
from tickwire.errors import ConfigError, VerifyError
from tickwire.pipeline import Pipeline
from tickwire.recording import Recording, environment
from tickwire.records import ModelInfo, RowLayout
from tickwire.verify import Result, describe, verify

FEATURES = ["spread()", "imbalance(levels=5)"]


def layout_of(rows: Any) -> RowLayout:
    return RowLayout(
        rows.dtype,
        stages=fake_core.STAGES,
        states=fake_core.STATES,
        reasons=fake_core.REASONS,
        instruments=[("BTCUSDT", "binance_spot"), ("ETHUSDT", "binance_spot")],
        features=FEATURES,
        models=[ModelInfo("m", 77, ("up", "down"), "onnxruntime-cpu")],
    )


def plain_layout(rows: Any) -> RowLayout:
    """Of a run without a model."""
    return RowLayout(
        rows.dtype,
        stages=fake_core.STAGES,
        states=fake_core.STATES,
        reasons=fake_core.REASONS,
        instruments=[("BTCUSDT", "binance_spot"), ("ETHUSDT", "binance_spot")],
        features=FEATURES,
    )


def run_rows() -> Any:
    """Two instruments interleaved, with a notice between two epochs of the first."""
    one, two = make_rows(30, 2, 2), make_rows(20, 2, 2, instrument=1)
    again = make_rows(10, 2, 2)
    again["epoch"] = 2
    rows = np.concatenate([one, two, notice(like=one), again])
    order = np.concatenate([np.stack([np.arange(20), np.arange(30, 50)], 1).ravel(), np.arange(20, 30)])
    return np.concatenate([rows[order], rows[50:]])


def ingest_side(rows: Any) -> Any:
    """As the ingest agent recorded them: without scores, with stamps of its own."""
    rows = rows.copy()
    rows["scores"] = 0
    rows["scored"] = 0
    rows["stage_ns"] = 0
    rows["ts_out"] += 12345
    return rows


# How old a score may be that left as valid.
OLD_NS = 1_000_000_000


def left_later(scores: Any, index: Any, later_ns: int) -> None:
    """Their model took so much longer."""
    scores["ts_out"][index] += later_ns
    scores["stage_ns"][index, STAGES.index("model")] += later_ns


class TwinModels:
    """The model behind `run_rows`: its scores follow from the row's first feature, which is its number."""

    def __init__(self, max_batch: int = 1, factor: float = 1.0) -> None:
        self.runs: list[int] = []
        self._max_batch, self._factor = max_batch, factor
        self.max_age = OLD_NS

    def of(self, number: int) -> TwinModels:
        assert number == 77
        return self

    def max_age_ns(self, number: int) -> int:
        return self.max_age

    def max_batch(self, number: int) -> int:
        return self._max_batch

    def run(self, batch: Any) -> Any:
        self.runs.append(len(batch))
        number = batch.reshape(len(batch), -1, 2)[:, -1, 0].astype(int)
        scores = (number[:, None] / 7 + np.arange(2)).astype("f4")
        return scores * np.float32(self._factor)


def compare(recorded: Any, scores: Any, replayed: Any, *, exact: bool = True, models: Any = None) -> Result:
    # Recorded in files that end anywhere.
    rows = [recorded[:11], recorded[11:]]
    comparer = Comparer(rows, layout_of(recorded))
    for start in range(0, len(replayed), 7):
        if not comparer.on_rows(replayed[start : start + 7]):
            break
    else:
        comparer.finish()
    checker = ScoreChecker(rows, layout_of(recorded), 1, exact=exact)
    if comparer.divergence is None:
        checker.check(scores, models or TwinModels())
    return Result(
        rows=comparer.rows,
        notices=comparer.notices,
        scores=checker.scores,
        unscored=comparer.rows - checker.scores,
        unchecked=checker.unchecked,
        exact=exact,
        why_not_exact="" if exact else "cpu 'a' there, 'b' here",
        divergence=comparer.divergence or checker.divergence,
    )


def test_same_rows_and_scores_agree() -> None:
    rows = run_rows()
    result = compare(ingest_side(rows), rows, rows)
    assert result.same, result.divergence
    assert (result.rows, result.notices, result.scores, result.unscored) == (60, 1, 60, 0)
    assert describe(result) == ["live = replay: 60 rows, 1 notices, 60 scores, bit for bit"]


def test_order_between_instruments_does_not_matter() -> None:
    rows = run_rows()
    shuffled = rows[np.argsort(rows["instrument"], kind="stable")]
    assert compare(ingest_side(rows), rows, shuffled).same


def change(field: str, value: Any) -> Callable[[Any], None]:
    def apply(row: Any) -> None:
        row[field] = value

    return apply


def flip_last_bit(row: Any) -> None:
    row["features"].view(np.uint32)[1] ^= 1


@pytest.mark.parametrize(
    ("mutate", "expected"),
    [
        (flip_last_bit, "imbalance(levels=5): recorded 5.1 (0x40a33333), replayed 5.0999994 (0x40a33332)"),
        (change("sequence", 7), "sequence: recorded 1005, replayed 7"),
        (change("ts_recv", 1), "ts_recv: recorded 1700000000005000500, replayed 1"),
        (change("ts_event", fake_core.NO_TIME), "ts_event: recorded 1700000000005000000, replayed none"),
    ],
)
def test_first_difference_is_named(mutate: Callable[[Any], None], expected: str) -> None:
    rows = run_rows()
    replayed = rows.copy()
    places = np.flatnonzero((rows["instrument"] == 1) & (rows["row"] == 5))
    mutate(replayed[places[0]])
    later = np.flatnonzero((rows["instrument"] == 0) & (rows["row"] == 9))
    replayed["sequence"][later[0]] = 1  # A later difference is not the first.
    divergence = compare(ingest_side(rows), rows, replayed).divergence
    assert divergence is not None
    assert divergence.startswith("binance_spot ETHUSDT, epoch 1, row 5, sequence 1005")
    assert divergence.endswith(expected)


def test_notice_is_compared_with_its_reason() -> None:
    rows = run_rows()
    replayed = rows.copy()
    replayed["reason"][rows["row"] == 0] = fake_core.REASONS.index("crossed")
    divergence = compare(ingest_side(rows), rows, replayed).divergence
    assert divergence is not None
    assert "notice" in divergence
    assert divergence.endswith("reason: recorded gap, replayed crossed")


def test_nan_equals_itself_and_signed_zeros_differ() -> None:
    rows = run_rows()
    rows["features"][3, 1] = np.nan
    assert compare(ingest_side(rows), rows, rows).same
    rows["features"][3, 1] = 0.0
    replayed = rows.copy()
    replayed["features"][3, 1] = -0.0
    assert not compare(ingest_side(rows), rows, replayed).same


def test_row_too_many_and_row_too_few() -> None:
    rows = run_rows()
    missing = compare(ingest_side(rows), rows, rows[:-1]).divergence
    assert missing is not None
    assert "epoch 2, row 10" in missing
    assert missing.endswith("a row was recorded that the replay did not give")
    extra = compare(ingest_side(rows)[:-1], rows[:-1], rows).divergence
    assert extra is not None
    assert "epoch 2, row 10" in extra
    assert extra.endswith("the replay gave a row that was not recorded")


def row_of(rows: Any, instrument: int, number: int) -> Any:
    return rows[np.flatnonzero((rows["instrument"] == instrument) & (rows["row"] == number))[0]]


@pytest.mark.parametrize(
    ("mutate", "expected"),
    [
        (
            change("scores", (0.5, 1.7142857)),
            "score 0: recorded 0.5 (0x3f000000), replayed 0.71428573 (0x3f36db6e)",
        ),
        (change("state", STATES.index("nonfinite")), "state: recorded nonfinite, replayed valid"),
        (change("scored", 0), "it is valid without a score, and nothing says why"),
        (flip_last_bit, "the record with its score has other features than the row"),
        (change("row", 77), "a score was recorded of a row that was not"),
    ],
)
def test_a_score_that_differs_is_named(mutate: Callable[[Any], None], expected: str) -> None:
    rows = run_rows()
    scores = rows.copy()
    mutate(row_of(scores, 1, 5))
    divergence = compare(ingest_side(rows), scores, rows).divergence
    assert divergence is not None
    assert divergence.startswith("binance_spot ETHUSDT, epoch 1, row ")
    assert divergence.endswith(expected)


def test_a_row_that_was_scored_twice_is_named() -> None:
    rows = run_rows()
    scores = np.concatenate([rows, row_of(rows, 1, 5)[None]])
    divergence = compare(ingest_side(rows), scores, rows).divergence
    assert divergence is not None
    assert divergence.startswith("binance_spot ETHUSDT, epoch 1, row 5")
    assert divergence.endswith("it was scored twice by the same model")


def test_rows_that_were_not_scored_live_are_counted() -> None:
    rows = run_rows()
    scores = rows[rows["row"] != 0].copy()
    scores["state"][:4] = STATES.index("stale")
    left_later(scores, slice(4), OLD_NS)
    scores["scored"][:4] = 0
    scores["scores"][:4] = np.nan
    result = compare(ingest_side(rows), scores[:-3], rows)
    assert result.same, result.divergence
    assert (result.scores, result.unscored) == (53, 7)
    assert "7 rows were not scored live" in describe(result)[1]


@pytest.mark.parametrize(
    ("state", "age", "unseen_us", "limit", "wrong"),
    [
        ("valid", 28_000, 0, 28_000, None),
        (
            "valid",
            28_001,
            0,
            28_000,
            "it is valid, but left 0.028001 ms after its arrival, and 0.028 ms are allowed",
        ),
        (
            "valid",
            27_000,
            2,
            28_000,
            "it is valid, but left 0.029 ms after its arrival, and 0.028 ms are allowed",
        ),
        ("stale", 28_001, 0, 28_000, None),
        (
            "stale",
            28_000,
            0,
            28_000,
            "it is stale, but left 0.028 ms after its arrival, and 0.028 ms are allowed",
        ),
        ("stale", 27_000, 2, 28_000, None),
        ("valid", 10**12, 0, 0, None),
        ("stale", 10**12, 0, 0, "it is stale, but left 1e+06 ms after its arrival, and any age is allowed"),
    ],
)
def test_the_verdict_of_age_is_that_of_the_recorded_stamps(
    state: str, age: int, unseen_us: int, limit: int, wrong: str | None
) -> None:
    rows = make_rows(6, 2, 2)
    rows["unseen_us"][3] = unseen_us
    scores = rows.copy()
    left_later(scores, slice(None), -int(scores["ts_out"][0] - scores["ts_recv"][0]))
    left_later(scores, 3, age)
    scores["state"][3] = STATES.index(state)
    if state == "stale":
        scores["scores"][3] = np.nan
    models = TwinModels()
    models.max_age = limit
    checker = ScoreChecker([ingest_side(rows)], layout_of(rows), 1)
    assert checker.check(scores, models) == (wrong is None), checker.divergence
    if wrong is not None:
        assert checker.divergence is not None
        assert checker.divergence.startswith("binance_spot BTCUSDT, epoch 1, row 4")
        assert checker.divergence.endswith(wrong)


def test_rows_are_scored_again_in_the_batches_of_the_run() -> None:
    rows = run_rows()
    scores = rows[rows["row"] != 0].copy()
    scores["scored"][:12] = 3
    scores["scored"][12] = 0  # Too old when its batch was made: it took no part.
    scores["state"][12] = STATES.index("stale")
    scores["scored"][13:17] = 4
    scores["state"][14] = STATES.index("stale")  # Too old after the run, of which it was a part.
    scores["scores"][[12, 14]] = np.nan
    left_later(scores, [12, 14], OLD_NS)
    models = TwinModels(max_batch=4)
    result = compare(ingest_side(rows), scores, rows, models=models)
    assert result.same, result.divergence
    assert models.runs[:5] == [3, 3, 3, 3, 4]
    assert set(models.runs[5:]) == {1}
    assert result.scores == 58


def test_a_batch_of_which_a_row_is_missing_is_named() -> None:
    rows = run_rows()
    scores = rows[rows["row"] != 0].copy()
    scores["scored"][:3] = 3
    divergence = compare(ingest_side(rows), scores[1:], rows, models=TwinModels(max_batch=4)).divergence
    assert divergence is not None
    assert divergence.endswith("it was scored in a run of 3 rows, of which some were not recorded")


def test_a_sequence_model_sees_the_window_that_ends_with_the_row() -> None:
    rows = make_rows(20, 2, 2)
    seen: list[Any] = []

    class Windows(TwinModels):
        def run(self, batch: Any) -> Any:
            seen.append(batch.copy())
            return super().run(batch)

    scores = rows.copy()
    scores["scored"][:3] = 0
    scores["state"][:3] = STATES.index("warming")
    scores["scores"][:3] = np.nan
    checker = ScoreChecker([ingest_side(rows)], layout_of(rows), 4)
    assert checker.check(scores, Windows()), checker.divergence
    features = rows["features"]
    expected = np.stack([features[i - 3 : i + 1] for i in range(3, 20)])
    np.testing.assert_array_equal(np.concatenate(seen), expected)
    assert checker.scores == 17
    late = scores.copy()
    late["scored"][3], late["state"][3] = 0, STATES.index("warming")
    again = ScoreChecker([ingest_side(rows)], layout_of(rows), 4)
    assert not again.check(late, Windows())
    assert again.divergence is not None
    assert again.divergence.endswith("it is warming without a score, and nothing says why")


def test_scores_of_another_machine_within_tolerance() -> None:
    rows = run_rows()
    near = TwinModels(factor=1 + 1e-5)
    assert not compare(ingest_side(rows), rows, rows, models=near).same
    result = compare(ingest_side(rows), rows, rows, exact=False, models=near)
    assert result.same
    assert "within 0.0001 relative" in describe(result)[0]
    assert "cpu 'a' there" in describe(result)[0]
    assert not compare(ingest_side(rows), rows, rows, exact=False, models=TwinModels(factor=1.01)).same


# Whole folders.


def config() -> Config:
    return one_feed(
        instruments=("BTCUSDT", "ETHUSDT"), rows=FEATURES, feed={"name": "spot"}, engine={"layout": "inline"}
    )


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recorded run without a model, whose replay gives the recorded rows again."""
    monkeypatch.setattr("tickwire.core.extension", fake_core)
    rows = make_rows(100, 2)
    folder = tmp_path / "run"
    recording = Recording.begin(folder, config())
    recording.write_start(plain_layout(rows))
    (folder / "capture" / "spot").mkdir(parents=True)
    (folder / "capture" / "spot" / "000002.log").write_text("")
    (folder / "capture" / "spot" / "000001.log").write_text("")
    (folder / "rows" / "ingest0").mkdir(parents=True)
    (folder / "rows" / "ingest0" / "000001.bin").write_bytes(rows[:60].tobytes())
    (folder / "rows" / "ingest0" / "000002.bin").write_bytes(rows[60:].tobytes())
    recording.write_end({"spot/capture_lost": 0, "recorder/bytes_written": 5}, None)
    monkeypatch.setattr(fake_core.Engine, "script", lambda engine: engine.push(rows))
    return folder


def edit(folder: Path, **values: Any) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


async def test_recorded_run_agrees_with_its_replay(run_dir: Path) -> None:
    result = await verify(run_dir)
    assert result.same, result.divergence
    assert (result.rows, result.exact) == (100, True)
    engine = fake_core.Engine.last
    assert engine is not None
    assert engine.config["replay"] is True
    assert engine.config["engine"]["layout"] == "inline"
    inputs = engine.config["feeds"][0]["inputs"]
    assert [Path(path).name for path in inputs] == ["000001.log", "000002.log"]


async def test_multicast_is_recorded_as_packets_and_without_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickwire.core.extension", fake_core)
    monkeypatch.setenv("TICKWIRE_GLIMPSE_USERNAME", "sesame")
    monkeypatch.setenv("TICKWIRE_GLIMPSE_PASSWORD", "opensesame")
    settings = Config.from_dict(
        {
            "feeds": [
                {
                    "name": "itch",
                    "venue": "nasdaq_itch",
                    "instruments": ["AAPL"],
                    "multicast": {"lines": ["233.1.1.1:7"], "glimpse": "venue.example:8"},
                }
            ],
            "features": {"rows": FEATURES},
        }
    )
    rows = make_rows(10, 2)
    monkeypatch.setattr(fake_core.Engine, "script", lambda engine: engine.push(rows))
    async with Pipeline(settings, record_dir=tmp_path / "run"):
        engine = fake_core.Engine.last
        assert engine is not None
        assert engine.config["feeds"][0]["multicast"]["password"] == "opensesame"
        (tmp_path / "run" / "capture" / "itch").mkdir(parents=True)
        for name in ("000002.pcap", "000001.pcap", "notes.txt"):
            (tmp_path / "run" / "capture" / "itch" / name).write_text("")
        (tmp_path / "run" / "rows" / "ingest0").mkdir(parents=True)
        (tmp_path / "run" / "rows" / "ingest0" / "000001.bin").write_bytes(rows.tobytes())
    assert "sesame" not in (tmp_path / "run" / "run.json").read_text()
    edit(tmp_path / "run", complete=True)  # The stand-in has no counters to say so.
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence
    engine = fake_core.Engine.last
    assert engine is not None
    feed = engine.config["feeds"][0]
    assert [Path(path).name for path in feed["inputs"]] == ["000001.pcap", "000002.pcap"]
    assert feed["midnights"] == [0, 0]
    assert (feed["multicast"]["username"], feed["multicast"]["password"]) == ("", "")


async def test_recorded_run_that_differs(run_dir: Path) -> None:
    path = run_dir / "rows" / "ingest0" / "000002.bin"
    rows = np.fromfile(path, make_rows(1, 2).dtype)
    rows["features"][3, 0] += 1
    path.write_bytes(rows.tobytes())
    result = await verify(run_dir)
    assert result.divergence is not None
    assert "row 64" in result.divergence
    assert "spread()" in result.divergence


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"complete": False, "lost": {"spot/capture_lost": 3}},
            r"recorder itself lost something \(spot/capture_lost = 3\)",
        ),
        ({"complete": None}, "never ended its recording"),
        ({"complete": False}, "what the recorder lost is not known"),
        ({"failed": "ingest0: bang"}, r"the run failed \(ingest0: bang\)"),
        ({"version": 99}, "expected version 5, found 99"),
    ],
)
async def test_recording_that_proves_nothing_is_refused(
    run_dir: Path, values: dict[str, Any], expected: str
) -> None:
    edit(run_dir, **values)
    with pytest.raises(VerifyError, match=expected):
        await verify(run_dir)


@pytest.mark.parametrize(
    ("version", "why"), [(2, "bridged a snapshot"), (3, "how old their book was"), (4, "no trade was late")]
)
async def test_a_recording_whose_replay_would_be_another_is_refused(
    run_dir: Path, version: int, why: str
) -> None:
    edit(run_dir, version=version)
    with pytest.raises(VerifyError, match=f"found {version}: .*{why}.*verify it with the version"):
        await verify(run_dir)


async def test_recording_with_no_row_in_it_has_nothing_to_compare(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in (run_dir / "rows" / "ingest0").iterdir():
        file.write_bytes(b"")
    monkeypatch.setattr(fake_core.Engine, "script", lambda engine: None)
    with pytest.raises(VerifyError, match="nothing to compare"):
        await verify(run_dir)
    # A replay that gives rows where the run gave none is a difference, not nothing.
    monkeypatch.setattr(fake_core.Engine, "script", lambda engine: engine.push(make_rows(1, 2)))
    assert not (await verify(run_dir)).same


async def test_damaged_folders_are_refused(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(VerifyError, match="not a recorded run"):
        await verify(tmp_path)
    path = run_dir / "rows" / "ingest0" / "000002.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(VerifyError, match="ends in the middle of a record"):
        await verify(run_dir)
    for file in (run_dir / "capture" / "spot").iterdir():
        file.unlink()
    with pytest.raises(VerifyError, match="no capture of feed 'spot'"):
        await verify(run_dir)
    (run_dir / "run.json").write_text("{")
    with pytest.raises(VerifyError, match="not JSON"):
        await verify(run_dir)
    (run_dir / "run.json").write_text("[" * 200_000)
    with pytest.raises(VerifyError, match="not JSON: nested too deep"):
        await verify(run_dir)


async def test_another_model_is_refused(run_dir: Path) -> None:
    (run_dir / "0.onnx").write_bytes(b"one")
    entry = {"name": "m", "id": "0000004d", "weights": [1.0]}
    edit(run_dir, models=[{**entry, "files": [{"file": "0.onnx", "sha256": "0" * 64}]}])
    manifest = json.loads((run_dir / "run.json").read_text())
    edit(run_dir, config=manifest["config"] + '[model]\npath = "m.onnx"\n')
    with pytest.raises(VerifyError, match="this is not the recorded model"):
        await verify(run_dir)
    edit(run_dir, models=[{**entry, "files": [{"file": "gone.onnx", "sha256": "0" * 64}]}])
    with pytest.raises(VerifyError, match="the recorded model is missing"):
        await verify(run_dir)


def test_lost_counters_make_a_recording_incomplete(tmp_path: Path) -> None:
    recording = Recording.begin(tmp_path / "run", config())
    recording.write_start(plain_layout(make_rows(1, 2)))
    recording.write_end(
        {"spot/capture_lost": 0, "rows/ingest0/record_lost": 2, "recorder/disk_lost": 1}, None
    )
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["complete"] is False
    assert manifest["lost"] == {"rows/ingest0/record_lost": 2, "recorder/disk_lost": 1}
    assert manifest["environment"] == environment([])
    assert Config.from_text(manifest["config"]).feed_names == ["spot"]


def test_recording_whose_counters_cannot_be_read_claims_nothing(tmp_path: Path) -> None:
    recording = Recording.begin(tmp_path / "run", config())
    recording.write_start(plain_layout(make_rows(1, 2)))
    recording.write_end(None, None)
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (manifest["complete"], manifest["lost"]) == (False, {})


async def test_a_file_that_is_closed_is_written_down_while_the_run_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickwire.recording._FOLLOW_S", 0.0)
    recording = Recording.begin(tmp_path / "run", config(), {})
    recording.write_start(plain_layout(make_rows(1, 2)))
    closed = [("capture/spot/000001.log", 5, "ab"), ("capture/spot/000002.log", 7, "cd")]
    given = [closed[:1], [], closed[1:]]

    class Engine:
        def recorded_files(self) -> list[tuple[str, int, str]]:
            return given.pop(0) if given else []

    def written() -> list[Any]:
        files: list[Any] = json.loads((tmp_path / "run" / "run.json").read_text())["files"]
        return files

    following = asyncio.create_task(recording.follow(Engine()))  # type: ignore[arg-type]
    for _ in range(1000):
        if len(written()) == 2:
            break
        await asyncio.sleep(0.01)
    following.cancel()
    await asyncio.wait([following])
    assert written() == [{"file": name, "bytes": size, "sha256": digest} for name, size, digest in closed]
    assert not list((tmp_path / "run").glob("*.part"))


def test_recording_into_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--record: .*expected a new or an empty folder"):
        Recording.begin(tmp_path, config())
