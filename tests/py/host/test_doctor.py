"""`tickwire doctor`: what it prints and with which exit code, for whom, on which host."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from host_tree import DENIED, build, engine, tuned
from needs import ROOT

from tickwire import cli
from tickwire.config import Config
from tickwire.errors import ConfigError, Error
from tickwire.host.doctor import drift, freeze, guess_profile, read_baseline, running_engines
from tickwire.host.finding import CHECKS, Profile, Verdict, Wanted
from tickwire.host.reader import Reader
from tickwire.host.wanted import from_config, read_env, with_cores, with_env

PACKAGE = ROOT / "py"

PIPELINE = """
[engine]
idle = "spin"

[[feeds]]
venue = "binance_spot"
instruments = ["BTCUSDT"]
core = 2

[features]
rows = ["spread()"]

[model]
path = "model.onnx"
cores = [3, 5]
"""


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["tickwire", "doctor", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    capsys.readouterr()
    try:
        cli.main()
        code: Any = 0
    except SystemExit as exit_:
        code = exit_.code
    out, err = capsys.readouterr()
    return int(code or 0), out, err


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda *arguments: run(monkeypatch, capsys, *arguments)


def no_commands() -> dict[str, Any]:
    """What a tuned host shows to a reader that may run nothing: no clock daemon, no card to ask."""
    return {
        "/proc/700/comm": "bash",
        "/sys/class/net/eth0/device/vendor": None,
        "/sys/class/net/eth0/device": None,
    }


def test_exit_code_says_how_it_stands(doctor: Any, tmp_path: Path) -> None:
    quiet = tuned() | {
        "/sys/class/net/eth0/device/vendor": None,
        "/proc/sys/net/ipv4/conf/eth0/rp_filter": None,
    }
    build(tmp_path, quiet)
    code, out, _ = doctor("--root", tmp_path, "--cores", "2-3", "--profile", "dedicated")
    # Whether the clock is kept cannot be asked of files.
    assert code == 1
    assert "unknown" in out
    build(tmp_path, quiet | {"/sys/kernel/mm/ksm/run": "1"})
    code, out, _ = doctor("--root", tmp_path, "--cores", "2-3", "--profile", "dedicated")
    assert code == 2
    assert "echo 2 > /sys/kernel/mm/ksm/run" in out
    assert "echo 1 > /sys/kernel/mm/ksm/run" in out
    code, out, _ = doctor("--root", tmp_path, "--cores", "2-3", "--profile", "shared")
    assert code == 1
    code, out, _ = doctor("--root", tmp_path, "--cores", "2-3", "--profile", "laptop", "--json")
    findings = {finding["check"]: finding for finding in json.loads(out)["findings"]}
    assert findings["ksm"]["verdict"] == "ok"
    assert findings["ksm"]["strict"] == "fail"


def test_could_not_run_is_exit_3(doctor: Any, tmp_path: Path) -> None:
    build(tmp_path / "host", tuned())
    for arguments, says in (
        (("--cores", "x"), "--cores: expected a CPU list"),
        (
            ("--profile", "server"),
            "--profile: expected one of auto, laptop, vm, shared, dedicated, found 'server'",
        ),
        (("--config", tmp_path / "none.toml"), "cannot be read"),
        (("--env", tmp_path / "none.env"), "cannot be read"),
        (("--baseline", tmp_path / "none.json"), "expected what doctor --json printed"),
        (("--measure", "5"), "--measure: expected a duration"),
        (("--sparkle",), "No such option: --sparkle"),
        (("2-3",), "unexpected extra argument"),
        (("--cores",), "requires an argument"),
        (("--measure", "5s"), "files of another do not move"),
    ):
        code, out, err = doctor("--root", tmp_path / "host", *arguments)
        assert (code, out) == (3, ""), arguments
        assert says in err


def test_json_is_the_whole_report_and_a_baseline_for_drift(doctor: Any, tmp_path: Path) -> None:
    host, baseline = tmp_path / "host", tmp_path / "baseline.json"
    build(host, tuned())
    _, out, err = doctor("--root", host, "--cores", "2-3", "--json")
    data = json.loads(out)
    assert data["schema"] == 1
    assert data["profile"] == "dedicated"
    assert data["cores"] == [2, 3]
    assert {finding["check"] for finding in data["findings"]} == {
        name for name, check in CHECKS.items() if not check.measured
    }
    assert sum(data["counts"].values()) == len(data["findings"])
    for finding in data["findings"]:
        assert finding["verdict"] in list(Verdict)
        assert finding["why"]
    assert "engine-cores" in err, "the table is for people, and leaves standard output to the JSON"
    baseline.write_text(out)
    _, out, _ = doctor("--root", host, "--cores", "2-3", "--baseline", baseline)
    assert "0 differences" in out
    build(host, tuned() | {"/sys/kernel/mm/ksm/run": "1", "/proc/sys/net/core/rmem_max": str(32 << 20)})
    code, out, _ = doctor("--root", host, "--cores", "2-3", "--baseline", baseline, "--profile", "laptop")
    assert "2 differences" in out
    assert "ksm: was ok, page merging is off; is fail, page merging runs" in out
    assert "receive-buffer: was ok, sockets may have 65,536 KiB; is ok, sockets may have 32,768 KiB" in out
    assert code == 1, "drift is worth a look in every profile"
    baseline.write_text('{"schema": 99, "findings": []}')
    with pytest.raises(Error, match="schema 1"):
        read_baseline(baseline)
    baseline.write_text("[" * 200_000)
    with pytest.raises(Error, match="expected what doctor --json printed, found: nested too deep"):
        read_baseline(baseline)


def test_profile_is_guessed_from_what_the_host_is(tmp_path: Path) -> None:
    cores = Wanted(cores=(2,), names=("x",))
    for changes, wanted, profile in (
        ({}, cores, Profile.DEDICATED),
        ({}, Wanted(), Profile.SHARED),
        ({"/proc/cpuinfo": "flags : tsc hypervisor"}, cores, Profile.VM),
        ({"/sys/class/power_supply/BAT0/status": "Full"}, cores, Profile.LAPTOP),
        ({"/proc/cpuinfo": DENIED}, cores, Profile.SHARED),
    ):
        found, why = guess_profile(build(tmp_path, tuned() | changes), wanted)
        assert found is profile
        assert why


ITCH = """
[[feeds]]
venue = "nasdaq_itch"
instruments = ["AAPL"]
[feeds.multicast]
lines = [
  "10.0.0.9:5",
  "239.1.1.1:4000",
  {address = "239.1.1.2:4001", interface = "eth2", source_address = "10.0.0.2"},
]
interface = "eth1"
receive_buffer_bytes = %d
%s
[features]
rows = ["spread()"]
"""


def test_what_multicast_lines_ask_for_comes_from_the_configuration(tmp_path: Path) -> None:
    more = "busy_poll_us = 50\nprefer_busy_poll = true\nnic_stamps = true"
    wanted = from_config(Config.from_text(ITCH % (128 << 20, more)))
    assert wanted.rmem_bytes == 128 << 20
    assert wanted.interfaces == ("eth1", "eth2")
    assert [(line.key, line.address, line.interface, line.source_address) for line in wanted.lines] == [
        ("feeds[0].multicast.lines[1]", "239.1.1.1:4000", "eth1", ""),
        ("feeds[0].multicast.lines[2]", "239.1.1.2:4001", "eth2", "10.0.0.2"),
    ], "the one that is no group is joined nowhere"
    assert (wanted.busy_poll_us, wanted.prefer_busy_poll, wanted.nic_stamps) == (50, True, True)
    # What a host was tuned to counts besides; it cannot make less of what a socket asks for.
    env = tmp_path / "host.env"
    env.write_text("INTERFACES=eth2 eth3\nRECEIVE_BUFFER_BYTES=67108864\n")
    both = with_env(wanted, env)
    assert (both.rmem_bytes, both.interfaces) == (128 << 20, ("eth1", "eth2", "eth3"))
    # A feed that reads files joins nothing, and a configuration may ask for little.
    of_files = ITCH.replace("[feeds.multi", 'source = "file"\n[feeds.multi') % (1, "")
    assert from_config(Config.from_text(of_files)) == Wanted(threads=1)
    assert from_config(Config.from_text(ITCH % (0, ""))).rmem_bytes == 0
    assert not from_config(Config.from_text(PIPELINE + '\n[memory]\nlock = "off"\n')).lock


def test_doctor_judges_by_what_the_configuration_asks_for(doctor: Any, tmp_path: Path) -> None:
    """The host has one card, eth0, and 64 MiB for a socket."""
    host, pipeline = tmp_path / "host", tmp_path / "pipeline.toml"
    build(host, tuned())
    text = (ITCH % (96 << 20, "")).replace("eth1", "eth0").replace("eth2", "eth0")
    for asked, verdict in ((text, "fail"), (text.replace(str(96 << 20), str(64 << 20)), "ok")):
        pipeline.write_text(asked)
        _, out, _ = doctor("--root", host, "--config", pipeline, "--json")
        found = {finding["check"]: finding for finding in json.loads(out)["findings"]}
        assert found["receive-buffer"]["strict"] == verdict
        assert found["feed-interfaces"]["strict"] == "ok"
        assert "feeds[0].multicast.lines[1] takes datagrams of any sender" in found["feed-senders"]["found"]
    pipeline.write_text(text.replace("eth0", "eth9"))
    _, out, _ = doctor("--root", host, "--config", pipeline, "--json")
    found = {finding["check"]: finding for finding in json.loads(out)["findings"]}
    assert "eth9 is not there, which feeds[0].multicast.lines[1] names" in found["feed-interfaces"]["found"]
    assert found["receive-ring"]["verdict"] == "unknown"


def test_cores_come_from_the_pipeline_host_env_or_the_option(tmp_path: Path) -> None:
    wanted = from_config(Config.from_text(PIPELINE))
    assert wanted.cores == (2, 3, 5)
    assert wanted.names == ("feeds[0].core", "model.cores[0]", "model.cores[1]")
    assert (wanted.threads, wanted.spin) == (3, True)
    inline = PIPELINE.replace("[engine]", '[engine]\nlayout = "inline"').replace("cores = [3, 5]", "")
    assert from_config(Config.from_text(inline)).threads == 1
    assert from_config(Config.from_text(PIPELINE + '\n[memory]\nhuge_pages = "off"\n')).huge_pages == 0

    env = tmp_path / "host.env"
    env.write_text(
        "# what the scripts read\nENGINE_CPUS='3-4'\nINTERFACES=\"eth1 eth2\"\n\n"
        "RECEIVE_BUFFER_BYTES=67108864\nHUGE_PAGES_2M=0:128,1:64\nCONTROL_CPUS=\n"
    )
    assert read_env(env)["CONTROL_CPUS"] == ""
    wanted = with_env(wanted, env)
    assert wanted.cores == (2, 3, 5, 4)
    assert wanted.names[-1] == f"{env}: ENGINE_CPUS"
    assert wanted.interfaces == ("eth1", "eth2")
    assert (wanted.rmem_bytes, wanted.huge_pages) == (64 << 20, 128)
    assert with_cores(Wanted(), "7,1-2", "--cores").cores == (1, 2, 7)
    for line, says in (
        ("ENGINE_CPUS", "host.env:1: expected KEY=VALUE"),
        ("ENGINE_CPUS=a", "ENGINE_CPUS: expected a CPU list"),
        ("HUGE_PAGES_2M=many", "HUGE_PAGES_2M: expected a number, found 'many'"),
        ("RECEIVE_BUFFER_BYTES=64M", "RECEIVE_BUFFER_BYTES: expected a number"),
    ):
        env.write_text(line + "\n")
        with pytest.raises(ConfigError, match=says):
            with_env(Wanted(), env)


SCRIPT = """
import json, sys
from tickwire.cli import main
sys.argv = ["tickwire", "doctor", "--cores", "0", "--json", *sys.argv[1:]]
main()
"""


def doctor_as(user: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, *arguments]
    if user != "self":
        command = [
            "setpriv",
            f"--reuid={user}",
            f"--regid={user}",
            "--clear-groups",
            "--bounding-set=-all",
            *command,
        ]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def report_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode in (0, 1, 2), done.stderr
    assert "Traceback" not in done.stderr
    data = json.loads(done.stdout)
    assert isinstance(data, dict)
    return data


def test_this_host_as_whoever_runs_the_tests() -> None:
    data = report_of(doctor_as("self"))
    verdicts = {finding["check"]: finding["verdict"] for finding in data["findings"]}
    # What each Linux shows to everybody.
    assert verdicts["engine-cores"] in ("ok", "warn", "fail")
    assert verdicts["memory-lock"] in ("ok", "fail")


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can become somebody else"
)
def test_this_host_as_an_ordinary_user() -> None:
    reachable = subprocess.run(
        [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            sys.executable,
            "-c",
            "import tickwire",
        ],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        check=False,
    )
    if reachable.returncode != 0:
        pytest.skip("this tree and its Python are not open to other users")
    ordinary, root = (report_of(doctor_as(user)) for user in ("65534", "self"))
    assert {f["check"] for f in ordinary["findings"]} == {f["check"] for f in root["findings"]}
    # What is open to all and nobody sets while the tests run: both see the same.
    by_root = {f["check"]: f for f in root["findings"]}
    for finding in ordinary["findings"]:
        if finding["check"].startswith(
            ("isolation-", "clock-source", "invariant-tsc", "mitigations", "boot-line")
        ):
            assert finding["strict"] == by_root[finding["check"]]["strict"]
            assert finding["found"] == by_root[finding["check"]]["found"]


@pytest.mark.skipif(
    not Path(sys.executable).with_name("tickwire-jitter").exists(), reason="the program is not installed"
)
def test_effects_are_measured_by_a_thread_of_ours_where_no_engine_runs(doctor: Any) -> None:
    core = max(os.sched_getaffinity(0))
    code, out, err = doctor("--cores", core, "--measure", "500ms", "--json")
    assert code in (0, 1, 2), err
    data = json.loads(out)
    findings = {finding["check"]: finding for finding in data["findings"]}
    assert findings.keys() == CHECKS.keys()
    assert 0.5 <= data["measured_seconds"] < 30
    if not data["engines"]:
        assert f"CPU {core}: " in findings["seen-lost-time"]["evidence"][0]
        assert findings["seen-switches"]["evidence"][0].startswith(f"a thread of ours on CPU {core}: ")
    assert findings["granted-buffer"]["verdict"] in ("ok", "fail", "warn")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a core to stay off")
@pytest.mark.skipif(
    not Path(sys.executable).with_name("tickwire-jitter").exists(), reason="the program is not installed"
)
def test_a_core_off_our_own_list_is_judged_by_trying(doctor: Any) -> None:
    """As on a host whose boot line isolates it, or in a service that keeps us off the engine's cores."""
    before = os.sched_getaffinity(0)
    core = max(before)
    os.sched_setaffinity(0, before - {core})
    try:
        code, out, err = doctor("--cores", core, "--measure", "300ms", "--json")
        assert os.sched_getaffinity(0) == before - {core}
    finally:
        os.sched_setaffinity(0, before)
    assert code in (0, 1, 2), err
    data = json.loads(out)
    findings = {finding["check"]: finding for finding in data["findings"]}
    assert "may not run" not in findings["engine-cores"]["found"]
    assert f"off that list, and to be had by who asks for it: {core}" in findings["engine-cores"]["evidence"]
    assert data["measured_seconds"] >= 0.3
    if not data["engines"]:
        assert f"CPU {core}: " in findings["seen-lost-time"]["evidence"][0]


def test_a_core_that_may_not_be_had_is_watched_and_nothing_claimed(doctor: Any) -> None:
    code, out, err = doctor("--cores", 60000, "--measure", "200ms", "--json")
    assert code == 2, err
    data = json.loads(out)
    verdicts = {finding["check"]: finding["strict"] for finding in data["findings"]}
    assert data["measured_seconds"] >= 0.2
    assert verdicts["engine-cores"] == "fail"
    assert (verdicts["seen-lost-time"], verdicts["seen-switches"]) == ("unknown", "unknown")
    assert verdicts["seen-tick"] == "unknown"


def test_a_copy_of_counters_stays_as_it_was(tmp_path: Path) -> None:
    reader = build(tmp_path, tuned())
    frozen = freeze(reader, Wanted(cores=(2,), names=("x",)), ())
    before = reader.cpu_times()
    (tmp_path / "proc/stat").write_text("cpu0 9 9 9 9 9 9 9 9\n")
    assert frozen.cpu_times() == before
    assert reader.cpu_times() != before
    # All else is read as it is now.
    assert frozen.online() == reader.online()


def test_finds_engines_by_their_threads_and_cores(tmp_path: Path) -> None:
    """Also those of another user, whose statistics we may not read: we must not spin beside them."""
    assert running_engines(build(tmp_path, tuned()), frozenset()) == ()
    jitter = {"/proc/70/task/71/comm": "tw-jitter2", "/proc/70/task/71/status": "Cpus_allowed_list:\t2\n"}
    reader = build(tmp_path, tuned() | jitter | engine(900) | engine(950))
    (tmp_path / "proc/950/task/951/status").write_text("Cpus_allowed_list:\t3\n")
    assert running_engines(reader, frozenset()) == (900, 950)
    assert running_engines(reader, frozenset({2, 5})) == (900,)
    assert running_engines(reader, frozenset({2, 3})) == (900, 950)
    assert running_engines(reader, frozenset({0, 5})) == ()


def test_drift_counts_checks_that_came_and_went() -> None:
    from tickwire.host.doctor import Report

    report = Report(Profile.VM, "", Wanted(), [], 0.0, ())
    assert drift(report, {"old": {"strict": "ok", "found": "x"}}) == ["old: no longer examined"]
    assert report.exit_code == 0


def test_reader_runs_no_command_for_another_host(tmp_path: Path) -> None:
    from tickwire.host.reader import Absent

    with pytest.raises(Absent):
        Reader(tmp_path).command("true")
    assert Reader("/").command("echo", "x") == "x\n"
