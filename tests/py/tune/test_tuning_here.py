"""scripts/tuning on the host that runs this test, which it changes and puts back: `make test-host`, as root.

The last online CPU plays the engine's core. Everything the scripts may write is read before and after,
by its own code, and has to be equal.
"""

from __future__ import annotations

import mmap
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tuning_host import SCRIPTS

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("TICKWIRE_TEST_HOST") != "1", reason="changes the host: make test-host asks for it"
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

MAP_HUGETLB = 0x40000
HUGE_PAGE = 2 << 20
PAGES = 8
DEVICE = Path("/dev/cpu_dma_latency")

STATES = [
    "/proc/irq/*/smp_affinity_list",
    "/proc/irq/default_smp_affinity",
    "/proc/sys/kernel/*",
    "/proc/sys/vm/*",
    "/proc/sys/net/core/*",
    "/sys/devices/virtual/workqueue/**/cpumask",
    "/sys/devices/system/cpu/cpu*/power/pm_qos_resume_latency_us",
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor",
    "/sys/devices/system/cpu/cpufreq/policy*/energy_performance_preference",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/mm/transparent_hugepage/defrag",
    "/sys/kernel/mm/transparent_hugepage/khugepaged/defrag",
    "/sys/kernel/mm/ksm/run",
    "/sys/kernel/debug/sched/fair_server/cpu*/runtime",
    "/sys/class/net/*/queues/*/*ps_*",
    "/sys/class/net/*/napi_defer_hard_irqs",
    "/sys/class/net/*/gro_flush_timeout",
    "/sys/fs/cgroup/cgroup.subtree_control",
    "/sys/fs/cgroup/tickwire.slice",
    "/etc/default/irqbalance",
]
# Counters and random numbers, which change by themselves.
MOVING = re.compile(
    r"/(uuid|ns_last_pid|random/.*|stat_refresh|.*_nr|nr_.*_current|pty|khugepaged/(full_|pages_).*)$"
)


def state() -> dict[str, str]:
    found = {}
    for pattern in STATES:
        for path in sorted(Path("/").glob(pattern[1:])):
            if MOVING.search(str(path)):
                continue
            try:
                found[str(path)] = path.read_text() if path.is_file() else "a folder"
            except OSError as error:  # Write-only, or not on this device: it stays so.
                found[str(path)] = type(error).__name__
    for pool in sorted(Path("/sys/devices/system/node").glob("node*/hugepages/*")):
        found[str(pool)] = str(pages_of(pool))
    if DEVICE.exists():
        found[str(DEVICE)] = str(latency_limit())
    return found


def pages_of(pool: Path) -> int:
    """What the pool is to hold; what is in use beyond that goes when its users end."""
    return int((pool / "nr_hugepages").read_text()) - int((pool / "surplus_hugepages").read_text())


def latency_limit() -> int:
    """Microseconds, of everybody who asks; reading asks for nothing."""
    with DEVICE.open("rb", buffering=0) as file:
        return int.from_bytes(file.read(4), "little", signed=True)


def engine_cpu() -> int:
    online = Path("/sys/devices/system/cpu/online").read_text().strip()
    cpu = int(re.split(r"[-,]", online)[-1])
    if cpu == 0:
        pytest.skip("needs two CPUs: one has to be left for the rest")
    return cpu


class Tuning:
    def __init__(self, folder: Path) -> None:
        self.cpu = engine_cpu()
        self.folder = folder
        self.state = folder / "state"
        devices = [net.name for net in Path("/sys/class/net").iterdir() if (net / "device").exists()]
        self.env = (
            f"ENGINE_CPUS={self.cpu}\nHUGE_PAGES_2M={PAGES + self.pages()}\nIDLE_STATES=host\n"
            f"INTERFACES={' '.join(devices)}\nRECEIVE_BUFFER_BYTES=67108864\nREALTIME=yes\n"
        )

    @staticmethod
    def pages() -> int:
        pools = Path("/sys/devices/system/node").glob("node*/hugepages/hugepages-2048kB")
        return max((pages_of(pool) for pool in pools), default=0)

    def run(self, script: str, *arguments: str, env: str | None = None) -> subprocess.CompletedProcess[str]:
        words = ["--state", str(self.state)]
        if script == "apply.sh":
            file = self.folder / "host.env"
            file.write_text(env or self.env)
            words += ["--env", str(file)]
        return subprocess.run(
            ["bash", str(SCRIPTS / script), *words, *arguments], capture_output=True, text=True, check=False
        )


@pytest.fixture
def tuning(tmp_path: Path) -> Iterator[Tuning]:
    tuning = Tuning(tmp_path)
    yield tuning
    # Whatever a test left: the host goes back.
    reverted = tuning.run("revert.sh", "--force")
    assert reverted.returncode == 0, reverted.stdout + reverted.stderr


def cpus(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1)) if first else set()
    return found


def interrupts(cpu: int) -> dict[str, int]:
    """How often each device interrupt has come to a CPU."""
    lines = Path("/proc/interrupts").read_text().splitlines()
    column = lines[0].split().index(f"CPU{cpu}") + 1
    rows = [line.split() for line in lines[1:]]
    return {row[0].rstrip(":"): int(row[column]) for row in rows if row[0].rstrip(":").isdigit()}


def huge_mapping(pages: int) -> bool:
    try:
        mmap.mmap(-1, pages * HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB).close()
    except OSError:
        return False
    return True


def granted_receive_buffer(wanted: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
        # The kernel doubles what it grants, for its own book-keeping.
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def test_apply_takes_effect_and_revert_leaves_the_host_as_it_was(tuning: Tuning) -> None:
    before = state()
    planned = tuning.run("apply.sh")
    assert planned.returncode == 0, planned.stderr
    assert state() == before

    applied = tuning.run("apply.sh", "--apply")
    print(applied.stdout)
    assert applied.returncode == 0, applied.stdout + applied.stderr
    # Every write that was planned is there when it is read.
    writes = re.findall(r"^echo (\S+) > (\S+)", applied.stdout, re.MULTILINE)
    assert len(writes) > 10
    after = state()
    for value, path in writes:
        if "cannot be moved: IRQ " + path.split("/")[3] + " " in applied.stdout:
            continue
        now = after[str(Path(path).parent) if path.endswith("nr_hugepages") else path].strip()
        assert now in (value.strip("'"), f"[{value}]") or f"[{value}]" in now or cpus(now) == cpus(value), (
            path
        )

    # And has its effect.
    movable = []
    for irq in Path("/proc/irq").glob("[0-9]*"):
        mask = irq / "smp_affinity_list"
        if mask.stat().st_mode & 0o222 and f"cannot be moved: IRQ {irq.name} " not in applied.stdout:
            assert tuning.cpu not in cpus(mask.read_text()), irq
            movable.append(irq.name)
    first = interrupts(tuning.cpu)
    time.sleep(2.0)
    last = interrupts(tuning.cpu)
    # One that was on its way moves with its next interrupt, so one more may still come.
    assert {
        irq: last[irq] - first[irq] for irq in movable if irq in last and last[irq] - first[irq] > 1
    } == {}
    for path in Path("/sys/devices/virtual/workqueue").glob("**/cpumask"):
        assert not int(path.read_text().strip().replace(",", ""), 16) >> tuning.cpu & 1, path
    if DEVICE.exists():
        assert latency_limit() == 0
    # Unless an engine that runs beside us took them first.
    free = sum(
        int(pool.read_text()) for pool in Path("/sys/kernel/mm/hugepages").glob("*2048kB/free_hugepages")
    )
    assert free == 0 or huge_mapping(1)
    assert granted_receive_buffer(32 << 20) == 32 << 20

    again = tuning.run("apply.sh", "--apply")
    assert again.returncode == 0
    assert "nothing to do" in again.stdout

    reverted = tuning.run("revert.sh")
    print(reverted.stdout)
    assert reverted.returncode == 0, reverted.stdout + reverted.stderr
    assert state() == before


def test_a_write_that_the_kernel_refuses_puts_the_host_back(tuning: Tuning) -> None:
    before = state()
    # More than an int holds.
    env = tuning.env.replace("=67108864", "=9999999999")
    applied = tuning.run("apply.sh", "--apply", env=env)
    assert applied.returncode == 1, applied.stdout + applied.stderr
    assert "/proc/sys/net/core/rmem_max: cannot write 9999999999: Invalid argument" in applied.stderr
    assert state() == before


@pytest.mark.parametrize("after", [3, 12, 25])
def test_a_kill_is_undone_by_revert(tuning: Tuning, after: int) -> None:
    before = state()
    file = tuning.folder / "host.env"
    file.write_text(tuning.env)
    words = ["bash", str(SCRIPTS / "apply.sh"), "--apply", "--state", str(tuning.state), "--env", str(file)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = 0
        for line in process.stdout:
            seen += line.startswith("echo ")
            if seen == after:
                process.kill()
                break
    assert process.returncode == -9
    assert (tuning.state / "journal").exists()
    reverted = tuning.run("revert.sh")
    assert reverted.returncode == 0, reverted.stdout + reverted.stderr
    assert state() == before
