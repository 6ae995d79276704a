"""What a run says of its host when it starts, and what `engine.strict` makes of it."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_core
import pytest
from host_tree import build, engine, tuned
from needs import compiled
from waiting import LONG_S

from tickwire.config import Config
from tickwire.errors import SetupError
from tickwire.host import startup
from tickwire.host.checks_effect import ring_pages
from tickwire.host.reader import Reader
from tickwire.host.startup import HostReport, kernel_stamps, report
from tickwire.launch import resolve
from tickwire.pipeline import Pipeline

PIPELINE = """
[engine]
layout = "inline"
idle = "{idle}"
{engine}

[[feeds]]
venue = "binance_usdm"
url = "ws://127.0.0.1:9"
rest_url = "http://127.0.0.1:9"
instruments = ["BTCUSDT"]
{feed}

[features]
rows = ["spread()"]
"""

CPU = "/sys/devices/system/cpu"
SMAPS = str(engine()["/proc/900/smaps"])

# The first of its mappings, the arena's, on small pages and locked.
SMALL = SMAPS.replace("2048 kB", "4 kB").replace(
    "Locked:                0 kB", "Locked:            49152 kB", 1
)

# On transparent huge pages, and not locked.
UNLOCKED = SMAPS.replace("2048 kB", "4 kB").replace("AnonHugePages:         0", "AnonHugePages:     49152")


def config(*, idle: str = "spin", engine: str = "", feed: str = "core = 2") -> Config:
    return Config.from_text(PIPELINE.format(idle=idle, engine=engine, feed=feed))


def look(folder: Path, changes: dict[str, Any], settings: Config, *, stamps: bool = True) -> HostReport:
    files = tuned() | {"/proc/self/smaps": SMAPS} | changes
    return report(settings, build(folder, files), stamps=lambda: stamps)


def test_says_what_it_got_where_all_is_well(tmp_path: Path) -> None:
    found = look(tmp_path, {}, config())
    assert found.warnings == ()
    assert found.all() == [
        "core 2 (feeds[0].core): isolated from domain, tick, rcu, managed_irq, unbound work",
        "timestamps: the kernel's, of the receive",
    ]
    found.enforce()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {f"{CPU}/isolated": "", "/proc/self/status": "Cpus_allowed_list:\t0-7"},
            "isolation-domain: CPU 2 takes any task of this host",
        ),
        ({f"{CPU}/nohz_full": ""}, "isolation-tick: the tick runs on CPU 2"),
        (
            {"/proc/irq/25/smp_affinity_list": "0-7", "/proc/irq/25/effective_affinity_list": "2"},
            "irq-placement: 1 interrupts are served on CPU 2",
        ),
        (
            {f"{CPU}/cpu2/topology/thread_siblings_list": "2,6"},
            "smt-siblings: any task may run on CPU 6, the other half of the engine's cores",
        ),
        ({f"{CPU}/cpu2/cpufreq/scaling_governor": "powersave"}, "governor: CPU 2 is set to save power"),
        ({"/proc/cpuinfo": "flags : tsc"}, "invariant-tsc: "),
        ({"/sys/fs/cgroup/cpu.max": "50000 100000"}, "cpu-quota: this control group may use 0.50 CPUs"),
        (
            {"/proc/self/smaps": SMALL},
            "ring-pages: 48 of 48 MiB are on small pages",
        ),
        ({"/proc/self/smaps": UNLOCKED}, "ring-pages: 48 of 48 MiB are not locked"),
    ],
)
def test_warns_of_what_works_against_the_latency(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    found = look(tmp_path, changes, config())
    (warning,) = found.warnings
    assert warning.startswith(says)
    assert f"warning: {warning}" in found.all()
    with pytest.raises(SetupError) as error:
        found.enforce()
    assert str(error.value).startswith("engine.strict: expected a host that works for the latency asked for")
    assert warning in str(error.value)


def test_more_spinning_threads_than_cores(tmp_path: Path) -> None:
    changes = {f"{CPU}/online": "2", "/proc/self/status": "Cpus_allowed_list:\t2\n"}
    settings = Config.from_text(
        PIPELINE.format(idle="spin", engine="", feed="") + '\n[[feeds]]\nvenue = "binance_spot"\n'
        'instruments = ["BTCUSDT"]\n'
    )
    assert any("2 threads spin on 1 CPUs" in line for line in look(tmp_path, changes, settings).warnings)


def test_whose_stamps_there_are(tmp_path: Path) -> None:
    found = look(tmp_path, {}, config(), stamps=False)
    assert "timestamps: our own, after the read" in found.lines
    assert found.warnings[0].startswith("timestamps: the kernel gives none")


class Kernel:
    """Two ends of a connection whose receives get a stamp from a certain one on; None: never."""

    def __init__(self, first_stamp: int | None) -> None:
        self.first_stamp = first_stamp
        self.received = 0

    def sendall(self, data: bytes) -> None:
        assert data == b"?"

    def recvmsg(self, size: int, ancillary: int) -> Any:
        self.received += 1
        stamped = self.first_stamp is not None and self.received >= self.first_stamp
        stamp = [(socket.SOL_SOCKET, startup._SO_TIMESTAMPNS, bytes(16))]
        other = [(socket.SOL_SOCKET, 99, b"")]
        return b"?", other + stamp if stamped else other, 0, None


@pytest.mark.parametrize(
    ("first_stamp", "stamps"), [(1, True), (2, True), (40, True), (None, False), (10_000, False)]
)
def test_a_kernel_may_begin_to_stamp_a_little_later(
    first_stamp: int | None, stamps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(first_stamp)
    tried = startup._stamped
    monkeypatch.setattr(startup, "_stamped", lambda *_: tried(kernel, kernel))  # type: ignore[arg-type]
    monkeypatch.setattr(startup, "_STAMP_PAUSE_S", 0.0)
    assert kernel_stamps() is stamps
    if stamps:
        assert kernel.received == first_stamp


def test_asks_the_kernel_for_what_it_gives_a_warm_socket() -> None:
    """A socket that has been stamped for long, beside the question, knows the truth."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(LONG_S)
        receiver.setsockopt(socket.SOL_SOCKET, startup._SO_TIMESTAMPNS, 1)
        stamped = False
        for _ in range(200):
            receiver.sendto(b"?", receiver.getsockname())
            _, ancillary, _, _ = receiver.recvmsg(1, 128)
            if stamped := any(kind == startup._SO_TIMESTAMPNS for _, kind, _ in ancillary):
                break
            time.sleep(0.01)
        for _ in range(5):
            assert kernel_stamps() is stamped


def test_asks_little_where_little_is_asked(tmp_path: Path) -> None:
    """A run with default settings on a laptop is no reason to complain."""
    changes = {
        f"{CPU}/isolated": "",
        f"{CPU}/nohz_full": "",
        f"{CPU}/cpu2/cpufreq/scaling_governor": "powersave",
        "/proc/self/smaps": SMAPS.replace("2048 kB", "4 kB"),
    }
    assert look(tmp_path, changes, config(idle="backoff", feed="")).warnings == ()
    slow = {"/sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet"}
    assert look(tmp_path, slow, config(idle="backoff", feed="")).warnings[0].startswith("clock-source: hpet")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr("tickwire.core.extension", fake_core)
    monkeypatch.setattr(fake_core.Engine, "script", None)
    yield fake_core.Engine
    fake_core.Engine.last = None


async def test_is_part_of_the_run_s_report(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickwire.pipeline.host_report", lambda _: HostReport(("a line",), ("a warning",)))
    async with Pipeline(config(idle="backoff", feed="")) as pipeline:
        assert pipeline.report[:3] == ["a fake engine", "a line", "warning: a warning"]
        assert pipeline.stats().report == pipeline.report


async def test_strict_refuses_to_start(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickwire.pipeline.host_report", lambda _: HostReport((), ("a warning",)))
    pipeline = Pipeline(config(idle="backoff", feed="", engine="strict = true"))
    with pytest.raises(SetupError, match=r"engine\.strict: expected .*\n  a warning"):
        await pipeline.__aenter__()
    assert fake.last.stopping.is_set()
    monkeypatch.setattr("tickwire.pipeline.host_report", lambda _: HostReport(("well",), ()))
    async with Pipeline(config(idle="backoff", feed="", engine="strict = true")) as started:
        assert "well" in started.report


async def test_a_replay_asks_nothing_of_the_host(
    fake: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(_: Config) -> HostReport:
        raise AssertionError("a replay looked at the host")

    monkeypatch.setattr("tickwire.pipeline.host_report", refuse)
    (tmp_path / "capture.log").write_text("")
    settings = config(engine="strict = true")
    async with Pipeline.replay(settings, [tmp_path / "capture.log"]) as pipeline:
        assert pipeline.report == ["a fake engine"]


@compiled
def test_pages_are_those_that_the_engine_says_it_got() -> None:
    """The kernel's account of our mappings and the arena's own are two ways to one figure."""
    import tickwire._core as core

    before = ring_pages(Reader(), "self")
    made = core.Engine(resolve(config(idle="backoff", feed="")))
    after = ring_pages(Reader(), "self")
    line = made.report[0]
    match = re.match(
        r"memory: ([\d.]+) MiB on reserved .* ([\d.]+) MiB on transparent .* ([\d.]+) MiB on", line
    )
    assert match is not None, line
    got = (after.huge - before.huge, after.transparent - before.transparent, after.small - before.small)
    assert [kib / 1024 for kib in got] == [float(mib) for mib in match.groups()]
    del made
    assert ring_pages(Reader(), "self").total == before.total
