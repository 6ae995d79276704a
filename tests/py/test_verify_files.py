"""A recorded run, changed in one place after another: verify finds each change and says where it is."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tickwire.errors import VerifyError
from tickwire.run_folder import dtype_from_json
from tickwire.verify import describe, verify

PROGRAM = [sys.executable, "-c", "from tickwire.cli import main; main()"]
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "run"
    demo = [*PROGRAM, "demo", "--seconds", "1.5", "--layout", "inline", "--record", str(folder)]
    done = subprocess.run(demo, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"recorded in {folder}; compare it with: tickwire verify {folder}" in done.stdout
    return folder


@pytest.fixture
def run(recorded: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    shutil.copytree(recorded, tmp_path / "run")
    return tmp_path / "run"


def manifest_of(run: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((run / "run.json").read_text())
    return manifest


def edit(run: Path, **values: Any) -> None:
    """Keys of run.json; None removes one."""
    changed = {**manifest_of(run), **values}
    kept = {key: value for key, value in changed.items() if not (key in values and value is None)}
    (run / "run.json").write_text(json.dumps(kept))


def only(run: Path, part: str) -> Path:
    (file,) = (path for path in (run / part).rglob("*") if path.is_file())
    return file


def records(run: Path, part: str) -> Any:
    return np.fromfile(only(run, part), dtype_from_json(manifest_of(run)["row_dtype"]))


def put(part: str, name: str, value: Any) -> Change:
    """One field of the record in the middle."""

    def change(run: Path) -> None:
        rows = records(run, part)
        rows[name][len(rows) // 2] = value
        rows.tofile(only(run, part))

    return change


def swap(part: str) -> Change:
    """Two neighbours of one instrument change places."""

    def change(run: Path) -> None:
        rows = records(run, part)
        mine = np.flatnonzero(rows["instrument"] == rows["instrument"][0])
        a, b = mine[len(mine) // 2], mine[len(mine) // 2 + 1]
        rows[[a, b]] = rows[[b, a]]
        rows.tofile(only(run, part))

    return change


COMPARED: list[tuple[str, Change, str]] = [
    *((f"score's {name}", put("scores", name, value), f"{name}: recorded ") for name, value in (
        ("sequence", 12345), ("ts_event", 1), ("ts_recv", 1), ("reason", 3), ("recv_clock", 77),
    )),
    ("score's epoch", put("scores", "epoch", 9), "a score was recorded of a row that was not"),
    ("score's state", put("scores", "state", 5), "state: recorded nonfinite, replayed valid"),
    ("score itself", put("scores", "scores", 0.5), "score 0: recorded 0.5"),
    ("score's time", put("scores", "ts_out", 1), "ts_out is not ts_recv plus its stages"),
    ("score's place", swap("scores"), "its score was recorded behind that of a later row"),
    *((f"row's {name}", put("rows", name, value), f"{name}: recorded ") for name, value in (
        ("state", 3), ("reason", 3), ("sequence", 12345), ("ts_event", 1), ("ts_recv", 1), ("epoch", 9),
        ("row", 1), ("scored", 1), ("model_id", 7),
    )),
    ("row's feature", put("rows", "features", 0.25), "recorded 0.25"),
    ("row's place", swap("rows"), "row: recorded "),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "expected"), [pytest.param(*entry[1:], id=entry[0].replace(" ", "_")) for entry in COMPARED]
)
async def test_each_field_is_compared(run: Path, change: Change, expected: str) -> None:
    change(run)
    edit(run, files=None)  # By the comparison alone, as of a recording without hashes.
    result = await verify(run)
    assert result.divergence is not None
    assert expected in result.divergence
    assert ", epoch " in result.divergence, "with its place"


async def test_a_run_agrees_and_says_nothing_else(run: Path) -> None:
    result = await verify(run)
    assert result.same, result.divergence
    assert result.notes == ()
    assert result.scores == result.rows > 100


def cut(part: str, kept: int) -> Change:
    def change(run: Path) -> None:
        records(run, part)[:kept].tofile(only(run, part))

    return change


def remove(part: str) -> Change:
    def change(run: Path) -> None:
        path = run / part if (run / part).is_dir() else only(run, part.removesuffix("/"))
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (cut("scores", 10), r"scores/ingest0: expected [\d,]+ records of valid rows .* found 10$"),
        (cut("scores", 0), r"scores/ingest0: expected [\d,]+ records of valid rows .* found 0$"),
        (remove("scores"), "scores: expected a folder of the recording, found none"),
        (remove("rows"), "rows: expected a folder of the recording, found none"),
        (remove("capture"), "capture: expected a folder of the recording, found none"),
        (remove("models"), "the recorded model is missing"),
    ],
    ids=["most", "all", "scores", "rows", "capture", "models"],
)
@pytest.mark.parametrize("hashes", [True, False])
async def test_what_was_removed_is_missed(run: Path, change: Change, expected: str, hashes: bool) -> None:
    change(run)
    if not hashes:
        edit(run, files=None)
    with pytest.raises(VerifyError, match=expected):
        await verify(run)


async def test_a_folder_in_the_place_of_a_model_is_none(run: Path) -> None:
    path = next((run / "models").rglob("*.onnx"))
    path.unlink()
    path.mkdir()
    with pytest.raises(VerifyError, match=f"{path}: the recorded model is missing"):
        await verify(run)


@pytest.mark.parametrize("part", ["capture", "rows", "scores"])
async def test_a_missing_file_is_named(run: Path, part: str) -> None:
    path = only(run, part)
    path.unlink()
    with pytest.raises(VerifyError, match=f"{path}: expected a file of the recording, found none"):
        await verify(run)
    path.mkdir()
    with pytest.raises(VerifyError, match=f"{path}: expected a file of the recording, found none"):
        await verify(run)


def digit(run: Path) -> None:
    """A digit of what no row looks at: an event's id."""
    path = only(run, "capture")
    text = path.read_bytes()
    at = text.index(b'"E":', len(text) // 2) + 16
    path.write_bytes(text[:at] + (b"1" if text[at : at + 1] != b"1" else b"2") + text[at + 1 :])


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("rows", put("rows", "stage_ns", 5)),
        ("capture", lambda run: only(run, "capture").write_bytes(only(run, "capture").read_bytes() + b"\n")),
        ("capture", digit),
    ],
    ids=["stage", "line", "digit"],
)
async def test_a_file_that_is_not_the_one_recorded_is_named(run: Path, part: str, change: Change) -> None:
    change(run)
    said = f"{only(run, part)}: sha256 "
    with pytest.raises(VerifyError) as refused:
        await verify(run)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(("field", "value"), [("features", 0.25), ("recv_clock", 77)])
async def test_what_differs_is_shown_with_the_file_that_was_changed(
    run: Path, field: str, value: float
) -> None:
    put("rows", field, value)(run)
    result = await verify(run)
    assert result.divergence is not None
    assert any(line.startswith(f"{only(run, 'rows')}: sha256 ") for line in describe(result))


async def test_a_file_beside_the_recorded_ones_is_named(run: Path) -> None:
    stray = only(run, "rows").with_name("000002.bin")
    stray.write_bytes(b"")
    with pytest.raises(VerifyError, match=f"{stray}: this file is none that was recorded"):
        await verify(run)


@pytest.mark.parametrize("name", ["scored", "rows", "stale", "unscored_window"])
async def test_counts_of_run_json_are_compared(run: Path, name: str) -> None:
    counts = manifest_of(run)["counts"]
    counts["ingest0"][name] += 1
    edit(run, counts=counts)
    with pytest.raises(VerifyError, match=r"as run\.json counts them"):
        await verify(run)
    counts["ingest0"][name] -= 1
    counts["ingest0"]["rows_dropped"] += 1
    edit(run, counts=counts)
    with pytest.raises(VerifyError, match="expected counts that add up"):
        await verify(run)


@pytest.mark.parametrize("key", ["config", "models", "environment", "row_dtype"])
async def test_run_json_without_a_part_of_it_is_refused(run: Path, key: str) -> None:
    edit(run, **{key: None})
    with pytest.raises(VerifyError, match=f"run.json: {key}: expected "):
        await verify(run)


async def test_a_recording_without_hashes_is_compared_and_that_is_said(run: Path) -> None:
    edit(run, files=None, counts=None)
    result = await verify(run)
    assert result.same, result.divergence
    assert result.notes == ("its files have no hashes, because an earlier version recorded it",)
    cut("scores", 10)(run)
    result = await verify(run)
    assert result.same
    assert result.unscored == result.rows - 10
    assert "whether they ever had a score is not known" in result.notes[-1]
    cut("scores", 0)(run)
    with pytest.raises(VerifyError, match="expected scores of 1 models, found none"):
        await verify(run)


async def test_a_capture_that_was_packed_since_is_the_one_recorded(run: Path) -> None:
    path = only(run, "capture")
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    result = await verify(run)
    assert result.same
    assert result.notes == ()
    packed = only(run, "capture")
    packed.write_bytes(gzip.compress(gzip.decompress(packed.read_bytes()) + b"\n"))
    with pytest.raises(VerifyError, match=f"{packed}: sha256 "):
        await verify(run)


async def test_only_models_that_scored_are_loaded(run: Path) -> None:
    """One that was kept and never scored need not be one that loads here."""
    manifest = manifest_of(run)
    other = {**manifest["models"][0], "id": "0badcafe"}
    (run / "models" / "0badcafe").mkdir()
    (run / "models" / "0badcafe" / "0.onnx").write_bytes(b"no model")
    digest = hashlib.sha256(b"no model").hexdigest()
    other["files"] = [{"file": "models/0badcafe/0.onnx", "sha256": digest}]
    edit(run, models=[*manifest["models"], other])
    assert (await verify(run)).same


async def test_a_model_that_run_json_could_not_name_any_more_is_known_by_its_number(run: Path) -> None:
    edit(run, models=[])
    result = await verify(run)
    assert result.same, result.divergence
    assert result.scores == result.rows
    only(run, "models").write_bytes(only(run, "models").read_bytes() + b"x")
    with pytest.raises(VerifyError, match=r"a score names the model [0-9a-f]{8}, which was not recorded"):
        await verify(run)


# Of a recording that never ended.


async def test_what_is_whole_of_a_torn_recording_is_compared(run: Path) -> None:
    edit(run, complete=None, ended_ns=None, counts={}, files=[])
    with pytest.raises(VerifyError, match=f"tickwire verify --salvage {run}"):
        await verify(run)
    whole = await verify(run, salvage=True)
    assert whole.same, whole.divergence
    rows = records(run, "rows")
    assert whole.whole_until_ns == rows["ts_recv"][rows["row"] != 0].max()

    # The capture ends in a torn line, the rows earlier in a torn record, the scores in space that was given.
    kept = len(rows) // 3
    lines = only(run, "capture").read_bytes().splitlines(keepends=True)
    behind = int(rows["ts_recv"][2 * len(rows) // 3])
    whole_lines = next(i for i, line in enumerate(lines) if int(line.split(b" ", 1)[0]) > behind)
    torn = b"".join(lines[:whole_lines]) + lines[whole_lines][:20]
    only(run, "capture").write_bytes(torn)
    size = rows.dtype.itemsize
    only(run, "rows").write_bytes(rows[:kept].tobytes() + b"x" * (size // 2))
    scores = records(run, "scores")
    only(run, "scores").write_bytes(scores[: kept + 5].tobytes() + b"\0" * (3 * size))
    result = await verify(run, salvage=True)
    assert result.same, result.divergence
    assert result.rows + result.notices == kept
    assert result.scores == result.rows
    assert result.whole_until_ns == rows["ts_recv"][:kept].max()
    assert only(run, "capture").read_bytes() == torn, "nothing of it is touched"
    said = " ".join(describe(result))
    assert "the end of what is whole" in said
    assert "rows and notices of the capture's end were not written any more" in said
    assert "scores have no row, or no whole run, that was written" in said

    # And the other way round: rows of what the capture has lost.
    rows.tofile(only(run, "rows"))
    result = await verify(run, salvage=True)
    assert result.same, result.divergence
    assert 0 < result.rows < (rows["row"] != 0).sum()
    assert "recorded rows and notices are of what came after the capture's end" in " ".join(result.notes)

    # A difference is one all the same.
    put("rows", "sequence", 1)(run)
    rows = records(run, "rows")
    rows["sequence"][10] = 1
    rows.tofile(only(run, "rows"))
    assert not (await verify(run, salvage=True)).same


def test_a_run_that_is_killed_is_salvaged(tmp_path: Path) -> None:
    run = tmp_path / "run"
    demo = subprocess.Popen(
        [*PROGRAM, "demo", "--seconds", "60", "--rate", "2000", "--record", str(run)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size > 100_000 for path in run.glob("scores/*/*.bin")):
            assert time.monotonic() < deadline
            assert demo.poll() is None
            time.sleep(0.05)
    finally:
        demo.send_signal(signal.SIGKILL)
        demo.wait()
    refused = subprocess.run([*PROGRAM, "verify", str(run)], capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2
    assert f"tickwire verify --salvage {run}" in refused.stderr
    salvaged = subprocess.run(
        [*PROGRAM, "verify", "--salvage", str(run)], capture_output=True, text=True, timeout=120
    )
    assert salvaged.returncode == 0, salvaged.stderr
    assert "the end of what is whole" in salvaged.stdout
    assert "bit for bit" in salvaged.stdout
    for path in run.rglob("*.stat"):
        os.unlink(path)
