"""tickwire-jitter and `tickwire jitter`: what a core loses, to whom, and where the figures go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from host_tree import build

from tickwire import cli
from tickwire.errors import Error
from tickwire.host.jitter import CoreJitter, Jitter, WorstGap, measure, note_frequencies
from tickwire.stat_file import StatFile

PROGRAM = Path(sys.executable).with_name("tickwire-jitter")
CORE = max(os.sched_getaffinity(0))

pytestmark = pytest.mark.skipif(not PROGRAM.exists(), reason="the program is not installed")

BUSY = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[2])})
print("ready", flush=True)
while os.getppid() == int(sys.argv[1]):
    for _ in range(100_000):
        pass
"""


@contextmanager
def busy_neighbour() -> Iterator[int]:
    """A process of our own priority that wants all of the core."""
    command = [sys.executable, "-c", BUSY, str(os.getpid()), str(CORE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            yield child.pid
        finally:
            child.kill()


def test_sees_a_load_on_its_core_and_names_it(tmp_path: Path) -> None:
    with busy_neighbour() as pid:
        found = measure([CORE], 2.0, stat_file=tmp_path / "busy.stat")
    (core,) = found.cores
    # Two tasks of one priority share a core by halves. Whatever else runs here takes from both.
    assert core.lost > 0.25
    # The kernel charged the switches to the thread: no guess.
    assert core.lost_to_tasks_ns > 0.5 * core.lost_ns
    assert core.switches > 0
    assert core.worst[0].cause.startswith("another task ran")
    named = {name: share for name, share in core.tasks.items() if f"(process {pid})" in name}
    assert named, core.tasks
    assert max(named.values()) > 0.02, "on a host that has more to do it gets less than half"


def test_without_one_it_says_what_the_floor_is(tmp_path: Path) -> None:
    found = measure([CORE], 0.5, stat_file=tmp_path / "idle.stat")
    (core,) = found.cores
    assert core.core == CORE
    assert core.floor_ns > 0
    assert core.threshold_ns == max(8 * core.floor_ns, 200)
    assert 0 <= core.lost_to_tasks_ns <= core.lost_ns <= core.watched_ns
    assert 0 < found.hourly_seen < 0.001
    assert found.aside == (len(os.sched_getaffinity(0)) > 1)


def test_histogram_of_all_gaps_is_in_the_statistics_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "jitter.stat"
    with busy_neighbour():  # There are gaps to count then, also on the stillest host.
        found = measure([CORE], 1.0, worst=3, stat_file=path)
    (core,) = found.cores
    with StatFile.open(path) as stats:
        histogram = stats.histograms()[f"cpu{CORE}/gap"]
        counters = stats.counters()
        assert stats.header.end_ts > 0
    assert core.gaps == histogram.count > 3
    assert core.gaps_not_looked_at == 0
    assert core.max_ns == histogram.max == core.worst[0].ns
    assert (core.p50_ns, core.p99_ns, core.p999_ns) == (histogram.p50, histogram.p99, histogram.p999)
    assert core.lost_ns == histogram.sum == counters[f"cpu{CORE}/lost_ns"]
    assert [gap.ns for gap in core.worst] == sorted((gap.ns for gap in core.worst), reverse=True)
    assert len(core.worst) == 3
    monkeypatch.setattr(sys, "argv", ["tickwire", "latency", "show", str(path)])
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (0, None)
    out = capsys.readouterr().out
    assert f"cpu{CORE}/gap" in out
    assert f"{core.gaps:,}" in out


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_program_by_itself_prints_text(tmp_path: Path) -> None:
    done = run("--cores", CORE, "--seconds", 0.3, "--stat-file", tmp_path / "x.stat")
    assert done.returncode == 0, done.stderr
    assert f"CPU {CORE}: reading the clock takes " in done.stdout
    assert f"tickwire latency show {tmp_path}/x.stat" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--cores", "a"), "--cores: expected a number from 0 to 16383, found a"),
        (("--cores", "3-1"), "found 1"),
        (("--seconds", "0"), "--seconds: expected a number from 0.1 to 86400, found 0"),
        (("--seconds", "nan"), "--seconds: expected a number"),
        (("--worst",), "--worst: expected an option and its value"),
        (("--speed", "1"), "unknown option --speed"),
        (("now",), "expected an option, found now"),
    ],
)
def test_refuses_what_it_does_not_understand(arguments: tuple[str, ...], says: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "usage: tickwire-jitter" in done.stderr


def test_core_that_cannot_be_had_is_an_error_that_names_it(tmp_path: Path) -> None:
    done = run("--cores", 16000, "--seconds", 0.2, "--stat-file", tmp_path / "x.stat")
    assert done.returncode == 1
    assert "16000" in done.stderr
    with pytest.raises(Error, match="16000"):
        measure([16000], 0.2, stat_file=tmp_path / "x.stat")


def test_frequencies_seen_are_the_lowest_and_the_highest(tmp_path: Path) -> None:
    seen: dict[int, tuple[int, int]] = {}
    path = "/sys/devices/system/cpu/cpu2/cpufreq/scaling_cur_freq"
    for khz in ("3000000", "2100000", "3600999"):
        note_frequencies(build(tmp_path, {path: khz}), (2, 3), seen)
    assert seen == {2: (2100, 3600)}


def made(**changes: Any) -> CoreJitter:
    values: dict[str, Any] = {
        "core": 3,
        "floor_ns": 12,
        "threshold_ns": 200,
        "watched_ns": 2_000_000_000,
        "lost_ns": 1_000_000,
        "lost_to_tasks_ns": 0,
        "gaps": 500,
        "gaps_not_looked_at": 0,
        "switches": 0,
        "faults": 0,
        "p50_ns": 2_000,
        "p99_ns": 9_000,
        "p999_ns": 20_000,
        "max_ns": 30_000,
        "longest_quiet_ns": 4_000_000,
        "worst_second_ns": 600_000,
        "period_ns": 0,
        "steal_ticks": 0,
        "interrupts": "LOC +500",
        "worst": (WorstGap(1_700_000_000_000_000_000, 0.5, 30_000, "perhaps the timer tick"),),
    }
    return CoreJitter(**(values | changes))


def test_names_what_is_known_to_come_at_a_period() -> None:
    for period_ns, says in (
        (4_000_000, "each 4 ms, as the scheduler's tick of 250 Hz does"),
        (1_004_000_000, "each 1 s, as the fair server or a statistics timer does"),
        (10_100_000_000, "each 10.1 s, as irqbalance does"),
        (7_000_000, "each 7 ms"),
    ):
        assert made(period_ns=period_ns).rhythm.endswith(says)
    assert made().rhythm == ""


def test_limits_are_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = Jitter(2.0, tmp_path / "x.stat", True, (made(),))
    monkeypatch.setattr("tickwire.cli.host.measure", lambda *_, **__: found)
    monkeypatch.setattr("tickwire.cli.host.running_engines", lambda *_: ())

    def code(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tickwire", "jitter", "--cores", "3", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    assert code()[0] == 0
    assert code("--max-us", "30", "--max-lost-ppm", "500")[0] == 0
    ended, out, _ = code("--max-us", "29")
    assert ended == 1
    assert "CPU 3: expected no gap over 29 us, found 30.0" in out
    ended, out, err = code("--max-lost-ppm", "499", "--json")
    assert ended == 1
    data = json.loads(out)
    assert data["broken"] == ["CPU 3: expected at most 499 ppm lost, found 500.0"]
    assert data["cores"][0]["worst"][0]["cause"] == "perhaps the timer tick"
    assert "floor: reading the clock takes 12 ns" in err


def test_does_not_spin_beside_a_running_engine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tickwire.cli.host.running_engines", lambda *_: (77,))
    monkeypatch.setattr("tickwire.cli.host.pinned_cores", lambda *_: frozenset({3}))
    monkeypatch.setattr(sys, "argv", ["tickwire", "jitter", "--cores", "3"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "CPU 3: expected a core that nobody uses" in capsys.readouterr().err
