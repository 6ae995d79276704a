"""Layout `processes`: workers that are killed, hang, leak, crash or never start. The feed goes on, and every
row is scored once or counted."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collecting import Collector
from needs import ROOT, compiled
from waiting import until
from worker_storm import check_books, check_scores, kill_storm, workers_config

from tickwire import core, models
from tickwire.config import Config
from tickwire.errors import ConfigError, SetupError
from tickwire.pipeline import Pipeline
from tickwire.runtime.workers import resident_bytes, worker_policies
from tickwire.sim import SyntheticMarket, Venue

pytestmark = compiled

REPOSITORY = ROOT


async def test_a_hundred_kills_at_random_moments_lose_no_row_and_repeat_none(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    print(await kill_storm(seed, kills=100, folder=tmp_path))


@dataclass
class Rig:
    pipeline: Pipeline
    collector: Collector

    @property
    def worker(self) -> dict[str, Any]:
        assert self.pipeline._engine is not None
        return self.pipeline._engine.workers[0]

    def count(self, name: str) -> int:
        return self.pipeline.stats().counters[f"infer0/{name}"]

    async def until(self, holds: Callable[[], bool]) -> None:
        await until(holds)

    async def scored(self, more: int = 50) -> None:
        """Until that many more rows have a score: whatever was wrong is over."""
        begin = self.count("scored")
        await self.until(lambda: self.count("scored") >= begin + more)

    def errors(self) -> str:
        return "\n".join(entry.text for entry in self.pipeline.stats().errors)


@asynccontextmanager
async def running(folder: Path, **model: Any) -> AsyncIterator[Rig]:
    """A pipeline under load whose books hold to the end, whatever a test does to its worker."""
    async with Venue([SyntheticMarket("usdm", instruments=2, rate=800, seed=4)]) as venue:
        config = workers_config(venue, folder, restart_backoff="1ms", **model)
        pipeline = Pipeline(config)
        async with pipeline:
            collector = Collector(pipeline)
            until_end = asyncio.create_task(pipeline.run_until())
            rig = Rig(pipeline, collector)
            try:
                await rig.scored()
                yield rig
            finally:
                pipeline.request_stop()
                await until_end
        stats = pipeline.stats()
    assert stats.count("gaps") == 0
    assert collector.repeated() == []
    check_books(stats, collector.rows)
    check_scores(
        folder / "m.onnx", collector.rows[collector.rows["model_id"] == collector.rows["model_id"][0]]
    )


class Misdeeds:
    """What the workers' ONNX Runtime does wrong while it is told to: see tests/shim/ort_shim.cpp."""

    NAMES = ("crash_load", "hang_load", "crash", "hang", "leak", "nan", "open", "socket")

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_bytes(bytes(len(self.NAMES)))

    def _put(self, name: str, value: int) -> None:
        with self._path.open("r+b") as file:
            file.seek(self.NAMES.index(name))
            file.write(bytes([value]))

    def begin(self, name: str) -> None:
        self._put(name, 1)

    def end(self, name: str) -> None:
        self._put(name, 0)

    def wanted(self, name: str) -> bool:
        return self._path.read_bytes()[self.NAMES.index(name)] != 0


@pytest.fixture
def misdeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Misdeeds:
    build = REPOSITORY / "build" / "release"
    if not (build / "build.ninja").exists():
        pytest.skip("no build folder: run make setup")
    subprocess.run(["cmake", "--build", build, "--target", "ort_shim"], check=True, capture_output=True)
    monkeypatch.setenv("ORT_SHIM_REAL", str(core.onnxruntime_library()))
    monkeypatch.setenv("ORT_SHIM_WANTED", str(tmp_path / "misdeeds"))
    shim = build / "tests" / "shim" / "libort_shim.so"
    monkeypatch.setattr(core, "onnxruntime_library", lambda: shim)
    return Misdeeds(tmp_path / "misdeeds")


async def test_a_worker_that_stands_still_is_killed_and_named(tmp_path: Path) -> None:
    async with running(tmp_path, heartbeat_timeout="3s") as rig:
        os.kill(rig.worker["pid"], signal.SIGSTOP)
        await rig.until(lambda: rig.count("worker_hung") == 1)
        await rig.scored()
        assert rig.count("worker_restarts") == 1
        assert "worker_hung: no sign of life" in rig.errors()


async def test_a_model_that_hangs_in_a_run_is_killed_and_its_row_scored_by_the_next(
    tmp_path: Path, misdeeds: Misdeeds
) -> None:
    async with running(tmp_path, heartbeat_timeout="3s") as rig:
        misdeeds.begin("hang")
        await rig.until(lambda: rig.count("worker_hung") == 1)
        await rig.scored()
    assert rig.count("scored") == len(rig.collector.rows)


async def test_a_model_that_leaks_is_replaced_in_good_order(tmp_path: Path, misdeeds: Misdeeds) -> None:
    async with running(tmp_path, max_rss_mb=120, max_restarts=100) as rig:
        pid = rig.worker["pid"]
        misdeeds.begin("leak")
        await rig.until(lambda: rig.count("worker_replaced") >= 1)
        misdeeds.end("leak")
        await rig.scored()
        await rig.until(lambda: rig.worker["phase"] == "running" and not rig.worker["aside"]["pid"])
        assert rig.worker["pid"] != pid
        assert 0 < resident_bytes(rig.worker["pid"]) < 120 << 20
        assert rig.count("worker_restarts") == 0, "nobody died"


async def test_a_model_that_crashes_again_and_again_is_given_up_and_its_rows_say_so(
    tmp_path: Path, misdeeds: Misdeeds, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, max_restarts=2) as rig:
        scored = rig.count("scored")
        misdeeds.begin("crash")
        await rig.until(lambda: rig.count("unscored_stopped") > 200)
        assert rig.worker["given_up"]
        assert rig.count("worker_stopped") == 1
        assert rig.count("worker_restarts") == 2
        assert "worker_died: killed by signal 11" in rig.errors()
        assert "worker_stopped: 3 failures" in rig.errors()
        assert "given up" in caplog.text
        with pytest.raises(SetupError, match="was given up"):
            await rig.pipeline._supervisor.replace(0)  # type: ignore[union-attr]
    rows = rig.collector.rows
    stopped = rows[rows["scored"] == 0]
    state = rig.pipeline.layout.states.index("model_error")
    assert len(rows) - len(stopped) >= scored
    assert (stopped["state"] == state).all()
    assert np.isnan(stopped["scores"]).all()
    assert np.isfinite(stopped["features"]).all()
    assert rig.count("unscored_stopped") == len(stopped)


async def test_a_model_that_opens_a_socket_is_ended_for_it_and_its_row_scored_by_the_next(
    tmp_path: Path, misdeeds: Misdeeds
) -> None:
    async with running(tmp_path) as rig:
        skip_unless_filtered(rig)
        pid = rig.worker["pid"]
        misdeeds.begin("open")
        await rig.until(lambda: not misdeeds.wanted("open"))
        await rig.scored()
        assert rig.worker["pid"] == pid, "a file that it cannot open ends nobody"
        misdeeds.begin("socket")
        await rig.until(lambda: rig.count("worker_restarts") == 1)
        await rig.scored()
        assert "worker_died: killed by signal 31 (a system call that scoring has no use for" in rig.errors()
    assert rig.count("scored") == len(rig.collector.rows)


def skip_unless_filtered(rig: Rig) -> None:
    assert rig.pipeline._engine is not None
    for line in rig.pipeline._engine.report:
        if "no filter of system calls" in line:
            pytest.skip(line)


def may_leave_the_network() -> bool:
    """Whether a program of ours may have a network namespace of its own here."""
    program = """
import ctypes, sys
libc = ctypes.CDLL(None)
held = [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")]
sys.exit(libc.unshare(0x40000000) != 0 and (int(held[0], 16) != 0 or libc.unshare(0x50000000) != 0))
"""
    return subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


async def test_a_worker_gives_up_what_scoring_has_no_use_for(tmp_path: Path) -> None:
    def check(pid: int) -> None:
        assert pid
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        for thread in threads:
            status = dict(line.split(":\t", 1) for line in (thread / "status").read_text().splitlines())
            assert status["NoNewPrivs"] == "1"
            assert status["Seccomp"] == "2", thread
        apart = os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
        assert apart == may_leave_the_network()

    async with running(tmp_path) as rig:
        skip_unless_filtered(rig)
        check(rig.worker["pid"])
        assert rig.pipeline._engine is not None
        kept = [line for line in rig.pipeline._engine.report if "its worker: " in line]
        assert bool(kept) != may_leave_the_network()
        # Whoever takes its place gives up the same: after a death, and with another model.
        os.kill(rig.worker["pid"], signal.SIGKILL)
        await rig.until(lambda: rig.count("worker_restarts") == 1)
        await rig.scored()
        check(rig.worker["pid"])
        other = tmp_path / "other.onnx"
        models.make_demo_model(other, rig.pipeline.config.schema(), seed=8)
        number = (await rig.pipeline.swap_model(other)).id
        await rig.scored(200)
        assert rig.collector.rows["model_id"][-1] == number
        check(rig.worker["pid"])


async def test_a_score_that_is_no_number_is_nonfinite_and_nobody_dies(
    tmp_path: Path, misdeeds: Misdeeds
) -> None:
    async with running(tmp_path) as rig:
        misdeeds.begin("nan")
        await rig.until(lambda: rig.count("nonfinite") > 20)
        misdeeds.end("nan")
        await rig.scored()
        assert rig.count("worker_restarts") == 0


@pytest.mark.parametrize(
    ("misdeed", "found"),
    [
        ("crash_load", r"m\.onnx: expected a model that a worker can load.*killed by signal 11"),
        ("hang_load", r"m\.onnx: expected a model that loads within model\.start_timeout"),
    ],
)
async def test_a_model_that_cannot_be_loaded_is_an_error_of_the_start(
    tmp_path: Path, misdeeds: Misdeeds, misdeed: str, found: str
) -> None:
    misdeeds.begin(misdeed)
    with pytest.raises(SetupError, match=found):
        async with running(tmp_path, start_timeout="500ms"):
            pytest.fail("it started")


async def test_a_model_that_cannot_be_loaded_any_more_says_why_and_is_tried_again(
    tmp_path: Path, misdeeds: Misdeeds, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, max_restarts=1000) as rig:
        misdeeds.begin("crash_load")
        os.kill(rig.worker["pid"], signal.SIGKILL)
        await rig.until(lambda: rig.count("worker_restarts") >= 2)
        misdeeds.end("crash_load")
        await rig.scored()
        assert "killed by signal 11" in caplog.text


async def test_workers_are_replaced_and_models_exchanged_between_two_rows(tmp_path: Path) -> None:
    async with running(tmp_path, workers=2) as rig:
        before = rig.pipeline.workers
        for index in (0, 1, 0):
            await rig.pipeline._supervisor.replace(index)  # type: ignore[union-attr]
        after = rig.pipeline.workers
        assert set(after) == {"infer0", "infer1"}
        assert not set(before.values()) & set(after.values())
        other = tmp_path / "other.onnx"
        models.make_demo_model(other, rig.pipeline.config.schema(), seed=8)
        number = (await rig.pipeline.swap_model(other)).id
        await rig.scored(200)
        rows = rig.collector.rows
        # Each instrument's rows are the old model's up to one, and the new one's from the next on.
        for instrument in np.unique(rows["instrument"]):
            mine = rows[rows["instrument"] == instrument]["model_id"] == number
            assert mine[-1]
            assert (np.diff(mine.astype(int)) >= 0).all()
        narrow = tmp_path / "narrow.onnx"
        models.make_demo_model(narrow, rig.pipeline.config.schema(), outputs=1)
        with pytest.raises(SetupError, match="the scores of the model it replaces"):
            await rig.pipeline.swap_model(narrow)
        # One that dies now comes back with the model of now.
        os.kill(rig.worker["pid"], signal.SIGKILL)
        await rig.scored()
    check_scores(other, rig.collector.rows[rig.collector.rows["model_id"] == number])
    assert rig.pipeline.stats().counters["infer0/worker_replaced"] == 3


async def test_workers_end_with_their_engine(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        pid = rig.worker["pid"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_layouts_give_the_same_scores_bit_for_bit(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        config = rig.pipeline.config
    del rig
    capture = tmp_path / "capture.log"
    async with Venue([SyntheticMarket("usdm", instruments=2, rate=800, seed=4)]) as venue:
        recorded = workers_config(venue, tmp_path)
        async with Pipeline(recorded, record_dir=tmp_path / "run") as pipeline:
            await pipeline.run_until(1.0)
    files = sorted((tmp_path / "run" / "capture" / "binance_usdm").glob("*.log"))
    capture.write_bytes(b"".join(file.read_bytes() for file in files))
    found: dict[str, np.ndarray[Any, Any]] = {}
    for layout in ("inline", "threads", "processes"):
        text = config.to_toml().replace('layout = "processes"', f'layout = "{layout}"')
        settings = Config.from_text(text.replace('restart_backoff = "1ms"', ""), base=tmp_path)
        async with Pipeline.replay(settings, [capture]) as replay:
            collector = Collector(replay)
            await replay.run_until()
        found[layout] = collector.rows
    assert len(found["inline"]) > 300
    for field in (
        "instrument",
        "epoch",
        "row",
        "sequence",
        "state",
        "scored",
        "model_id",
        "scores",
        "features",
    ):
        for layout in ("threads", "processes"):
            assert found[layout][field].tobytes() == found["inline"][field].tobytes(), (layout, field)


def test_the_program_is_found_or_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tickwire.core import worker_program

    assert worker_program().name == "tickwire-worker"
    monkeypatch.setenv("TICKWIRE_WORKER", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"needs the program tickwire-worker.*nowhere"):
        worker_program()


def test_the_program_is_not_for_hand_use() -> None:
    from tickwire.core import worker_program

    by_hand = subprocess.run([worker_program()], capture_output=True, text=True, check=False)
    assert by_hand.returncode == 2
    assert 'engine.layout = "processes"' in by_hand.stderr
    wrong = subprocess.run([worker_program(), "run", "x"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "expected a number, found 'x'" in wrong.stderr


def test_keys_of_processes_are_refused_elsewhere(tmp_path: Path) -> None:
    text = (
        '[engine]\nlayout = "{layout}"\n[[feeds]]\nvenue = "binance_spot"\nsource = "websocket"\n'
        'url = "ws://x/"\ninstruments = ["A"]\n[features]\nrows = ["spread()"]\n'
        '[model]\npath = "m.onnx"\nmax_rss_mb = 64\n'
    )
    assert worker_policies(Config.from_text(text.format(layout="processes")))[0].max_rss_bytes == 64 << 20
    with pytest.raises(ConfigError, match=r'model\.max_rss_mb: expected none without engine\.layout = "proc'):
        Config.from_text(text.format(layout="threads"))


def used_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_a_worker_s_processor_time_is_in_the_report_also_of_one_that_has_ended(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        first = rig.worker["pid"]
        before = rig.pipeline.stats()
        assert set(before.cpu_share) == {*rig.pipeline.threads, "python", *rig.pipeline.workers}
        # The kernel's other account of the process: what it took to load was before our start.
        assert before.cpu_share["infer0"] * before.seconds <= used_s(first) + 0.02
        os.kill(first, signal.SIGKILL)
        await rig.until(lambda: rig.worker["pid"] not in (0, first) and rig.worker["phase"] == "running")
        await rig.scored()
        after = rig.pipeline.stats()
    assert after.cpu_share["infer0"] * after.seconds > before.cpu_share["infer0"] * before.seconds > 0


async def test_a_worker_knows_of_our_environment_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = ("TICKWIRE_GLIMPSE_PASSWORD", "TICKWIRE_WEBSOCKET_TOKEN", "AWS_SECRET_ACCESS_KEY", "SOMETHING")
    for name in secrets:
        monkeypatch.setenv(name, "s3cret")
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    async with running(tmp_path) as rig:
        entries = environment_of(rig.worker["pid"])
    assert not any("s3cret" in value for value in entries.values())
    assert entries["ORT_DISABLE_TELEMETRY"] == "1"
    assert (entries["OMP_NUM_THREADS"], entries["PATH"]) == ("1", os.environ["PATH"])


def environment_of(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_text()
    return dict(entry.split("=", 1) for entry in text.split("\0") if entry)
