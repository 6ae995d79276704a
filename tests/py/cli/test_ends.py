"""How commands end: by signals, with outputs that cannot be written, started without some of them. Each is a
process of its own, as a shell would start it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from needs import compiled
from waiting import LONG_S, wait_until

from tickwire import models
from tickwire.config import Config

pytestmark = compiled

TICKWIRE = [sys.executable, "-c", "from tickwire.cli import main; main()"]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CONFIG = """
[[feeds]]
venue = "binance_spot"
source = "file"
instruments = ["BTCUSDT"]
[features]
rows = ["spread()"]
"""


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`command` in a shell, with $TW as the command and `environment` beside ours."""
    words = " ".join(f"'{word}'" for word in TICKWIRE)
    return subprocess.run(
        ["bash", "-c", f'tw() {{ {words} "$@"; }}; {command}'],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200", **environment},
        capture_output=True,
        encoding="latin-1",
        timeout=120,
    )


def messages(count: int) -> Iterator[str]:
    """A capture's lines: a snapshot, then diffs that give a row each but for the first."""
    body = {"lastUpdateId": 1, "bids": [["99.00", "1.0"]], "asks": [["101.00", "1.0"]]}
    start = 1_700_000_000_000_000_000
    yield f"{start} {json.dumps(body)}"
    for i in range(2, count + 2):
        diff = f'{{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":{i},"u":{i},"b":[["98.50","{i % 7}.5"]],"a":[]}}'
        yield f"{start + i * 1_000_000} {diff}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "replay.toml").write_text(CONFIG)
    (tmp_path / "capture.log").write_text("\n".join(messages(50)) + "\n")
    return tmp_path


class Venue:
    """The simulator as a process, and a configuration for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Venue:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tickwire.sim", "--synthetic", "--rate", "200", "--instruments", "1"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        said = json.loads(self._process.stdout.readline())
        self.config = self.folder / "live.toml"
        self.config.write_text(
            f"""
[[feeds]]
venue = "binance_spot"
instruments = ["{said["instruments"]["spot"][0]}"]
url = "{said["ws_url"]["spot"]}"
rest_url = "{said["rest_url"]["spot"]}"
[features]
rows = ["spread()"]
"""
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=LONG_S)


_STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    for process in _STARTED:
        if process.poll() is None:  # Of a test that failed.
            process.kill()
            process.communicate()
    _STARTED.clear()


def start(*arguments: object, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [*TICKWIRE, *map(str, arguments)],
        cwd=cwd,
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    _STARTED.append(process)
    return process


@pytest.mark.parametrize("number", SIGNALS)
def test_a_run_ends_in_order_and_its_recording_is_whole(number: signal.Signals, tmp_path: Path) -> None:
    with Venue(tmp_path) as venue:
        run = start("run", venue.config, "--record", "rec", cwd=tmp_path)
        recorded = tmp_path / "rec"
        wait_until(lambda: any(file.stat().st_size > 20_000 for file in recorded.glob("capture/*/*.log")))
        wait_until(lambda: any(file.stat().st_size > 0 for file in recorded.glob("rows/**/*.bin")))
        run.send_signal(number)
        out, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    assert "recorded in rec; compare it with: tickwire verify rec" in out
    assert "Traceback" not in err
    verified = shell("tw verify rec", tmp_path)
    assert verified.returncode == 0, verified.stderr


def writes_in(pid: int, folder: Path) -> bool:
    """Does the process write a file in this folder that has no name?"""
    opened = 0  # Once to have it, once to write it.
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found = os.readlink(fd)
            opened += found.startswith(f"{folder}/") and found.endswith(" (deleted)")
    return opened > 1


@pytest.mark.parametrize("numbers", [[signal.SIGKILL], [signal.SIGINT, signal.SIGTERM, signal.SIGINT]])
def test_a_replay_that_is_killed_or_told_twice_leaves_no_half_file(
    numbers: list[signal.Signals], folder: Path
) -> None:
    (folder / "long.log").write_text("\n".join(messages(400_000)) + "\n")
    replay = start("replay", "replay.toml", "--input", "long.log", "--out", "rows.csv", cwd=folder)
    wait_until(lambda: replay.poll() is not None or writes_in(replay.pid, folder))
    for number in numbers:
        replay.send_signal(number)
    replay.communicate(timeout=60)
    names = sorted(file.name for file in folder.iterdir())
    assert names == ["capture.log", "long.log", "replay.toml"] or replay.returncode == 0, names


def over_or_writing(process: subprocess.Popen[str], folder: Path) -> bool:
    return process.poll() is not None or bool(writes_in(process.pid, folder))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_replay_says_how_far_it_came_and_leaves_no_half_file(number: signal.Signals, folder: Path) -> None:
    (folder / "rows.csv").write_text("of before\n")
    for size in (100_000, 400_000, 1_600_000):  # It may be over before the signal comes.
        (folder / "long.log").write_text("\n".join(messages(size)) + "\n")
        replay = start("replay", "replay.toml", "--input", "long.log", "--out", "rows.csv", cwd=folder)
        wait_until(partial(over_or_writing, replay, folder))
        replay.send_signal(number)
        _, err = replay.communicate(timeout=60)
        if replay.returncode != 0:
            break
        (folder / "rows.csv").write_text("of before\n")
    assert replay.returncode == 128 + number
    how_far, ended = err.splitlines()
    found = re.fullmatch(
        r"tickwire: replay: ended after ([\d,]+) messages and ([\d,]+) rows(, at what was received "
        r"2023-11-14T22:\d\d:\d\dZ)?; rows.csv is not written",
        how_far,
    )
    assert found, how_far
    assert int(found[1].replace(",", "")) < size
    assert ended == f"tickwire: ended by {number.name}"
    assert (folder / "rows.csv").read_text() == "of before\n"
    assert sorted(file.name for file in folder.iterdir()) == [
        "capture.log",
        "long.log",
        "replay.toml",
        "rows.csv",
    ]


def test_a_replay_gives_its_file_its_name_when_it_is_whole(folder: Path) -> None:
    done = shell("tw replay replay.toml --input capture.log --out rows.csv", folder)
    assert done.returncode == 0, done.stderr
    assert len((folder / "rows.csv").read_text().splitlines()) == 1 + 49
    (folder / "to.csv").symlink_to("rows.csv")
    (folder / "rows.csv").write_text("")
    done = shell("tw replay replay.toml --input capture.log --out to.csv", folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "to.csv").is_symlink()
    assert len((folder / "rows.csv").read_text().splitlines()) == 1 + 49
    done = shell(
        "mkfifo f.csv; cat f.csv > copy & tw replay replay.toml --input capture.log --out f.csv; wait", folder
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "copy").read_text() == (folder / "rows.csv").read_text()
    done = shell("tw replay replay.toml --input capture.log --out nowhere/rows.csv", folder)
    assert done.returncode == 2
    assert done.stderr == "tickwire: nowhere/rows.csv: cannot be written: No such file or directory\n"


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        (("jitter", "--seconds", "60"), signal.SIGHUP),
        (("sim", "--synthetic"), signal.SIGHUP),
        (("model", "bench", "m.onnx", "--seconds", "30"), signal.SIGTERM),
    ],
)
def test_every_other_command_ends_with_one_line(
    arguments: tuple[str, ...], number: signal.Signals, tmp_path: Path
) -> None:
    if arguments[0] == "model":
        models.make_demo_model(tmp_path / "m.onnx", Config.from_dict(tomllib.loads(CONFIG)).schema())
    command = start(*arguments, cwd=tmp_path, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)})
    wait_until(lambda: _listens(command.pid, number))
    command.send_signal(number)
    _, err = command.communicate(timeout=60)
    assert len(err.splitlines()) <= 1, err
    assert command.returncode in (0, 128 + number), err


def _listens(pid: int, number: int) -> bool:
    """The process catches the signal: what it does with it is its own affair from now on."""
    with contextlib.suppress(OSError):
        found = re.search(r"SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
        return found is not None and bool(int(found[1], 16) >> (number - 1) & 1)
    return False


def test_under_nohup_a_hangup_is_nothing(tmp_path: Path) -> None:
    with Venue(tmp_path) as venue:
        run = start(
            "run", venue.config, "--seconds", "4", "--record", "rec", cwd=tmp_path, preexec_fn=ignore_hup
        )
        wait_until(lambda: (tmp_path / "rec" / "capture").exists())
        run.send_signal(signal.SIGHUP)
        out, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    took = re.search(r" in (\d+\.\d) s$", out, re.M)
    assert took is not None, out
    assert float(took[1]) >= 4.0, "not ended by the hangup"


def ignore_hup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


# Standard streams.


def test_a_report_is_shown_in_an_encoding_without_its_characters(tmp_path: Path) -> None:
    with Venue(tmp_path) as venue:
        done = shell(f"tw run {venue.config} --seconds 1", tmp_path, PYTHONIOENCODING="gbk")
    assert done.returncode == 0, done.stderr
    assert "p99 ?s" in done.stdout
    assert "valid signals" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "cp037", "utf-16"])
def test_no_encoding_is_a_traceback(encoding: str, folder: Path) -> None:
    done = shell("tw replay replay.toml --input capture.log", folder, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_a_symbol_that_the_encoding_does_not_have_is_replaced(folder: Path) -> None:
    (folder / "replay.toml").write_text(CONFIG.replace("BTCUSDT", "\u5e01\u5b89USDT"))
    done = shell("tw replay replay.toml --input capture.log", folder, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "??USDT never became valid" in done.stdout


COMMANDS = ("replay replay.toml --input capture.log", "tune plan --env nothing", "verify nothing", "nonsense")


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_standard_stream_a_command_is_the_same(command: str, folder: Path) -> None:
    whole = shell(f"tw {command}", folder)
    for closed in (">&-", "<&- 2>&-"):
        done = shell(f"tw {command} {closed}", folder)
        assert done.returncode == whole.returncode, (closed, done.stderr)
        assert "Traceback" not in done.stderr
        if ">&-" not in closed:
            assert len(done.stdout.splitlines()) == len(whole.stdout.splitlines())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_under_standard_output_is_one_line(command: str, folder: Path) -> None:
    whole = shell(f"tw {command}", folder)
    done = shell(f"tw {command} >/dev/full", folder)
    if whole.stdout:
        *others, line = done.stderr.splitlines()
        assert line == "tickwire: standard output: No space left on device; what came after is lost"
        assert len(others) == len(whole.stderr.splitlines())
        assert done.returncode == (whole.returncode or 74)
    else:
        assert (done.returncode, done.stderr) == (whole.returncode, whole.stderr)
    both = shell(f"tw {command} >/dev/full 2>/dev/full", folder)
    assert both.returncode in (whole.returncode, 74)


def test_a_reader_that_has_left_is_nothing_to_speak_of(folder: Path) -> None:
    done = shell("tw replay replay.toml --input capture.log | true; exit ${PIPESTATUS[0]}", folder)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_run_whose_output_is_lost_is_recorded(tmp_path: Path) -> None:
    with Venue(tmp_path) as venue:
        for i, output in enumerate((">/dev/full", "| true", ">&-")):
            done = shell(
                f"tw run {venue.config} --seconds 2 --record rec{i} {output}; exit ${{PIPESTATUS[0]}}",
                tmp_path,
            )
            assert done.returncode == (74, 141, 0)[i], done.stderr
            assert len(done.stderr.splitlines()) == (1, 0, 0)[i], done.stderr
            assert shell(f"tw verify rec{i}", tmp_path).returncode == 0


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A folder for what engines leave, of a name that is short enough for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="tw") as folder:
        yield Path(folder)


def test_what_a_killed_engine_left_is_cleared_by_the_next(tmp_path: Path, runtime: Path) -> None:
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime)}

    def left() -> list[str]:
        return sorted(file.name for file in (runtime / "tickwire").glob("*"))

    with Venue(tmp_path) as venue:
        killed = start("run", venue.config, cwd=tmp_path, env=environment)
        wait_until(lambda: len(left()) == 2)
        living = start("run", venue.config, cwd=tmp_path, env=environment)
        wait_until(lambda: len(left()) == 4)
        killed.kill()
        killed.communicate()
        assert len(left()) == 4
        done = shell(f"tw run {venue.config} --seconds 1", tmp_path, XDG_RUNTIME_DIR=str(runtime))
        assert done.returncode == 0, done.stderr
        assert left() == [f"engine-{living.pid}-1.stat", f"engine-{living.pid}-1.stat.control"]
        living.terminate()
        living.communicate(timeout=60)
    assert left() == []


def test_a_replay_leaves_no_file_and_honours_stat_path(folder: Path) -> None:
    nowhere = {"XDG_RUNTIME_DIR": "/proc/nothing-can-be-made-here"}
    done = shell("tw replay replay.toml --input capture.log --out a.csv", folder, **nowhere)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("50 messages, 49 rows")
    (folder / "replay.toml").write_text('[engine]\nstat_path = "here.stat"\n' + CONFIG)
    done = shell("tw replay replay.toml --input capture.log && tw latency show here.stat", folder)
    assert done.returncode == 0, done.stderr
    assert "here.stat: process" in done.stdout
