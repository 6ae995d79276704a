"""scripts/tuning in a sandbox: plan, apply and revert against fake hosts, with every way to fail."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tuning_host import SCRIPTS, Host

FULL = """
ENGINE_CPUS=4-6
ISOLATE=partition
CONTROL_CPUS=7
INTERFACES=eth1
FLOW=eth1 udp4 239.1.1.1 26400 3 1000
RX_RING=max
PREFER_BUSY_POLL=yes
HUGE_PAGES_2M=64
HUGE_PAGES_1G=1:2
IDLE_STATES=host
REALTIME=yes
"""
PLAIN = "ENGINE_CPUS=6-7\n"
SMALL = (
    "ENGINE_CPUS=4-6\nISOLATE=partition\nCONTROL_CPUS=7\nIDLE_STATES=host\nHUGE_PAGES_2M=64\n"
    'SKIP="governor rps vm watchdogs workqueues receive-buffers busy-poll"\n'
)

THP = "/sys/kernel/mm/transparent_hugepage"
NODE1 = "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"


@pytest.fixture
def make_host(tmp_path: Path) -> Iterator[Any]:
    made: list[Host] = []

    def make(**settings: Any) -> Host:
        host = Host(tmp_path / f"host{len(made)}", **settings)
        made.append(host)
        return host

    yield make
    for host in made:
        host.end_holders()


@pytest.fixture
def host(make_host: Callable[..., Host]) -> Host:
    return make_host()


def said(ended: subprocess.CompletedProcess[str]) -> str:
    return ended.stdout + ended.stderr


# ----------------------------------------------------------------------------- what plan, apply, revert do


def test_the_plan_writes_nothing_and_shows_each_write_as_a_command(host: Host) -> None:
    before = host.snapshot()
    planned = host.plan(FULL)
    assert planned.returncode == 0, said(planned)
    assert host.snapshot() == before
    assert not host.state.exists()
    assert not [write for write in host.writes() if not re.match(r"ethtool -[cgkn] ", write)]
    lines = planned.stdout.splitlines()
    root = host.root
    for command in (
        f"echo 0-3 > {root}/proc/irq/24/smp_affinity_list  # now 0-7; IRQ 24 eth1-rx-0",
        f"echo f > {root}/sys/devices/virtual/workqueue/cpumask  # now ff",
        f"echo madvise > {root}{THP}/enabled  # now always",
        f"echo 64 > {root}{NODE1}  # now 0",
        f"mkdir {root}/sys/fs/cgroup/tickwire.slice  # now not there",
        f"echo isolated > {root}/sys/fs/cgroup/tickwire.slice/cpuset.cpus.partition  # now empty",
        "ethtool -C eth1 rx-usecs 0  # now 50",
        "ethtool -G eth1 rx 4096  # now 512",
        "ethtool -N eth1 flow-type udp4 dst-ip 239.1.1.1 dst-port 26400 action 3 loc 1000  # now not there",
    ):
        assert command in lines, planned.stdout


@pytest.mark.parametrize(
    ("settings", "env"),
    [
        ({}, FULL),
        ({}, PLAIN),
        ({"irqbalance": True}, FULL),
        ({"kernel": "5.10.0", "cgroup": 1}, PLAIN),
        ({"kernel": "6.1.0", "cgroup": 1, "irqbalance": True}, PLAIN.replace("6-7", "3")),
        ({"kernel": "6.12.3", "nodes": 1}, FULL.replace("1:2", "0:2")),
        ({"cpus": 2, "nodes": 1, "irqs": {9: ("0-1", "acpi")}}, "ENGINE_CPUS=1\n"),
        ({"cpus": 72}, "ENGINE_CPUS=70-71\nINTERFACES=eth1\n"),
    ],
)
def test_apply_then_revert_leaves_every_byte_as_it_was(
    make_host: Any, settings: dict[str, Any], env: str
) -> None:
    host = make_host(**settings)
    before = host.snapshot()
    applied = host.apply(env)
    assert applied.returncode == 0, said(applied)
    assert host.snapshot() != before
    again = host.apply(env)
    assert again.returncode == 0, said(again)
    assert "nothing to do" in again.stdout
    reverted = host.revert()
    assert reverted.returncode == 0, said(reverted)
    assert host.snapshot() == before
    assert not host.holders()
    assert list(host.state.iterdir()) == []
    assert "nothing to put back" in host.revert().stdout


def test_apply_sets_what_the_engine_needs(host: Host) -> None:
    applied = host.apply(FULL)
    assert applied.returncode == 0, said(applied)
    wanted = {
        "/proc/irq/1/smp_affinity_list": "0-3",
        "/proc/irq/25/smp_affinity_list": "2-3",  # Had none of the engine's: stays.
        "/proc/irq/default_smp_affinity": "f",
        "/sys/devices/virtual/workqueue/cpumask": "f",
        "/sys/devices/virtual/workqueue/writeback/cpumask": "f",
        "/proc/sys/kernel/watchdog_cpumask": "0-3",
        "/proc/sys/kernel/nmi_watchdog": "0",
        "/proc/sys/kernel/timer_migration": "0",
        "/proc/sys/kernel/sched_rt_runtime_us": "-1",
        "/proc/sys/kernel/numa_balancing": "0",
        "/proc/sys/vm/stat_interval": "10",
        "/proc/sys/vm/swappiness": "10",
        "/proc/sys/net/core/rmem_max": "67108864",
        "/proc/sys/net/core/busy_read": "50",
        "/sys/kernel/debug/sched/fair_server/cpu4/runtime": "0",
        "/sys/kernel/debug/sched/fair_server/cpu7/runtime": "50000000",
        "/sys/kernel/mm/ksm/run": "0",
        f"{THP}/enabled": "always [madvise] never",
        f"{THP}/defrag": "always defer defer+madvise [madvise] never",
        NODE1: "64",
        NODE1.replace("node1", "node0"): "0",
        NODE1.replace("2048kB", "1048576kB"): "2",
        "/sys/devices/system/cpu/cpufreq/policy4/scaling_governor": "performance",
        "/sys/devices/system/cpu/cpufreq/policy4/energy_performance_preference": "performance",
        "/sys/devices/system/cpu/cpufreq/policy3/scaling_governor": "powersave",
        "/sys/class/net/eth1/queues/rx-2/rps_cpus": "0",
        "/sys/class/net/eth0/queues/rx-0/rps_cpus": "f",
        "/sys/class/net/eth1/queues/tx-0/xps_cpus": "f",
        "/sys/class/net/eth1/queues/tx-3/xps_cpus": "f0",
        "/sys/class/net/eth1/napi_defer_hard_irqs": "100",
        "/sys/class/net/eth1/gro_flush_timeout": "200000",
        "/sys/fs/cgroup/cgroup.subtree_control": "cpu memory pids cpuset",
        "/sys/fs/cgroup/tickwire.slice/cpuset.cpus": "4-7",
        "/sys/fs/cgroup/tickwire.slice/cpuset.cpus.partition": "isolated",
    }
    assert {path: host.get(path) for path in wanted} == wanted
    nic = host.fake / "nic/eth1"
    assert {file.name: file.read_text().strip() for file in nic.iterdir() if file.is_file()} == {
        "adaptive-rx": "off",
        "rx-usecs": "0",
        "rx-ring": "4096",
        "ntuple": "on",
    }
    assert (nic / "rules/1000").read_text() == "udp4 239.1.1.1 26400 3\n"
    assert len(host.holders()) == 1


def test_idle_states_are_forbidden_on_the_engine_s_cores_alone(host: Host) -> None:
    assert host.apply(PLAIN).returncode == 0
    latency = "/sys/devices/system/cpu/cpu{}/power/pm_qos_resume_latency_us"
    # "n/a" forbids every idle state; 0 would set no limit at all.
    assert [host.get(latency.format(cpu)) for cpu in (5, 6, 7)] == ["0", "n/a", "n/a"]
    assert not host.holders()


def test_masks_of_many_cpus_come_in_groups_of_32(make_host: Any) -> None:
    host = make_host(cpus=72)
    assert host.apply('ENGINE_CPUS=36-71\nINTERFACES=eth1\nSKIP="governor idle-states"\n').returncode == 0
    assert host.get("/proc/irq/default_smp_affinity") == "f,ffffffff"
    assert host.get("/sys/class/net/eth1/queues/tx-3/xps_cpus") == "ff,fffffff0,00000000"


def test_paths_may_have_spaces(tmp_path: Path) -> None:
    host = Host(tmp_path / "a host; echo $(id)", irqbalance=True)
    before = host.snapshot()
    try:
        applied = host.apply(FULL)
        assert applied.returncode == 0, said(applied)
        assert host.revert().returncode == 0
    finally:
        host.end_holders()
    assert host.snapshot() == before


def test_irqbalance_is_told_and_its_file_comes_back(make_host: Any) -> None:
    host = make_host(irqbalance=True)
    # Setting the ban ends irqbalance's own exclusion of isolated and tickless cores: they are named too.
    host.put("/sys/devices/system/cpu/isolated", "2")
    host.put("/sys/devices/system/cpu/nohz_full", "3,6")
    before = host.snapshot()
    applied = host.apply(PLAIN)
    assert applied.returncode == 0, said(applied)
    text = host.get("/etc/default/irqbalance").splitlines()
    assert text[:3] == ["# Of the distribution.", 'ENABLED="1"', "#IRQBALANCE_ARGS="]
    assert text[3:] == ["IRQBALANCE_BANNED_CPUS=cc", "IRQBALANCE_BANNED_CPULIST=2-3,6-7"]
    assert "systemctl try-restart irqbalance.service" in host.writes()
    # The masks are irqbalance's own: nobody fights it.
    assert host.get("/proc/irq/24/smp_affinity_list") == "0-7"
    assert host.revert().returncode == 0
    assert host.snapshot() == before
    assert host.writes()[-1] == "systemctl try-restart irqbalance.service"


def test_irqbalance_that_does_not_restart_fails_and_its_file_is_back(make_host: Any) -> None:
    host = make_host(irqbalance=True)
    before = host.snapshot()
    host.fault("no-restart")
    applied = host.apply(PLAIN)
    assert applied.returncode == 1, said(applied)
    assert "Job failed. (SKIP=irqbalance in host.env leaves it alone)" in applied.stderr
    assert "/etc/default/irqbalance: is as it was, but: Job failed." in applied.stderr
    assert host.snapshot() == before


def test_irqbalance_without_systemd_is_left_to_the_reader(make_host: Any) -> None:
    host = make_host(irqbalance=True)
    (host.root / "run/systemd/system").rmdir()
    before = host.get("/etc/default/irqbalance")
    applied = host.apply(PLAIN)
    assert applied.returncode == 0, said(applied)
    assert "start it anew with IRQBALANCE_BANNED_CPULIST=6-7" in applied.stdout
    assert host.get("/etc/default/irqbalance") == before
    assert host.get("/proc/irq/24/smp_affinity_list") == "0-7"


def test_skip_leaves_a_group_alone(host: Host) -> None:
    assert host.apply(PLAIN + 'SKIP="thp irq ksm"\n').returncode == 0
    assert host.get(f"{THP}/enabled").startswith("[always]")
    assert host.get("/proc/irq/24/smp_affinity_list") == "0-7"
    assert host.get("/proc/sys/vm/swappiness") == "10"
    assert host.get("/sys/kernel/mm/ksm/run") == "1"


def test_a_value_that_is_better_already_stays(host: Host) -> None:
    host.put("/proc/sys/net/core/rmem_max", "268435456")
    host.put(f"{THP}/enabled", "always madvise [never]")
    host.put(NODE1, "200")
    assert host.apply("ENGINE_CPUS=6-7\nHUGE_PAGES_2M=64\n").returncode == 0
    assert host.get("/proc/sys/net/core/rmem_max") == "268435456"
    assert host.get(f"{THP}/enabled") == "always madvise [never]"
    assert host.get(NODE1) == "200"


def test_a_second_apply_with_other_wishes_still_reverts_to_the_first_state(host: Host) -> None:
    before = host.snapshot()
    assert host.apply(PLAIN).returncode == 0
    assert host.apply("ENGINE_CPUS=4-7\nBUSY_POLL_US=70\nHUGE_PAGES_2M=8\n").returncode == 0
    assert host.get("/proc/irq/24/smp_affinity_list") == "0-3"
    assert host.get("/proc/sys/net/core/busy_read") == "70"
    assert host.revert().returncode == 0
    assert host.snapshot() == before


# ------------------------------------------------------------------------------------------- what can fail


def test_an_interrupt_that_cannot_be_moved_is_named_and_nothing_fails(host: Host) -> None:
    host.fault("eio", "/proc/irq/24/smp_affinity_list")
    (host.root / "proc/irq/1/smp_affinity_list").chmod(0o444)  # As newer kernels mark managed ones.
    before = host.snapshot()
    planned = host.plan(PLAIN)
    assert "#   cannot be moved: IRQ 1 timer, on CPU 0-7" in planned.stdout
    applied = host.apply(PLAIN)
    assert applied.returncode == 0, said(applied)
    assert "#   cannot be moved: IRQ 24 eth1-rx-0 (Input/output error)" in applied.stdout
    assert "2 interrupts cannot be moved" in applied.stdout
    assert host.revert().returncode == 0
    assert host.snapshot() == before


def test_an_interrupt_that_moves_later_is_named(host: Host) -> None:
    host.fault("pending", "/proc/irq/24/smp_affinity_list")
    applied = host.apply(PLAIN)
    assert applied.returncode == 0, said(applied)
    assert "IRQ 24 eth1-rx-0 still arrives on CPU 7: it moves with its next interrupt" in applied.stdout


@pytest.mark.parametrize(
    ("fault", "target", "because"),
    [
        ("eio", "/proc/sys/vm/swappiness", "cannot write 10: Input/output error"),
        ("einval", "/proc/irq/24/smp_affinity_list", "cannot write 0-3: Invalid argument"),
        ("ignored", "/proc/sys/vm/swappiness", "wrote 10, and it reads 60"),
        ("ignored", "/sys/class/net/eth1/queues/tx-3/xps_cpus", "wrote f0, and it reads 8"),
        ("clamped", NODE1, "wrote 640, and it reads 100; ask for fewer, or reserve them at boot"),
        ("invalid", "/sys/fs/cgroup/tickwire.slice/cpuset.cpus.partition", "Cpu list in use"),
        ("eio", "/sys/fs/cgroup/tickwire.slice/cpuset.cpus", "cannot write 4-7: Input/output error"),
        (
            "ethtool-fails",
            "-G eth1 rx 4096",
            "Operation not supported (SKIP=ring in host.env leaves it alone)",
        ),
        ("ethtool-fails", "-C eth1 rx-usecs 0", "Operation not supported"),
    ],
)
def test_a_failure_puts_everything_back(host: Host, fault: str, target: str, because: str) -> None:
    before = host.snapshot()
    host.fault(fault, target)
    applied = host.apply(FULL.replace("HUGE_PAGES_2M=64", "HUGE_PAGES_2M=640"))
    assert applied.returncode == 1, said(applied)
    assert because in applied.stderr
    assert "the host is as it was before" in applied.stderr
    assert host.snapshot() == before
    assert not host.holders()
    assert not (host.state / "journal").exists()


def test_every_write_may_be_the_one_that_fails(host: Host) -> None:
    """Each target in turn refuses; what was written before goes back, whichever it is."""
    before = host.snapshot()
    env = SMALL.replace("rps", "rps irq default-affinity thp irqbalance")
    assert host.apply(env).returncode == 0
    targets = [write.split()[0] for write in host.writes() if write.startswith("/")]
    assert len(targets) >= 5
    assert host.revert().returncode == 0
    for target in targets:
        host.fault("einval", target)
        applied = host.apply(env)
        assert applied.returncode == 1, f"{target}: {said(applied)}"
        (host.fake / "einval").unlink()
        assert host.snapshot() == before, target


def test_a_device_that_cannot_be_held_fails_and_leaves_no_process(host: Host) -> None:
    device = host.root / "dev/cpu_dma_latency"
    device.unlink()
    device.mkdir()  # Cannot be opened for writing, by root either.
    before = host.snapshot()
    applied = host.apply("ENGINE_CPUS=6-7\nIDLE_STATES=host\n")
    assert applied.returncode == 1, said(applied)
    assert "the holder could not open" in applied.stderr
    assert host.snapshot() == before


def test_a_kill_at_any_command_is_undone_by_revert(make_host: Any) -> None:
    """TICKWIRE_KILLS=400 tries more places, TICKWIRE_SEED=n the ones of another run."""
    seed = int(os.environ.get("TICKWIRE_SEED", random.randrange(1 << 32)))
    print(f"TICKWIRE_SEED={seed}")
    host = make_host(irqbalance=bool(seed % 2))
    before = host.snapshot()
    env = str(host.env_file(SMALL))
    arguments = ("apply.sh", "--env", env, "--apply")
    # How many commands a plan takes and the whole: what lies between can leave something behind.
    assert host.run(*arguments[:-1], kill_at=0).returncode == 0
    first = int((host.fake / "count").read_text())
    whole = host.run(*arguments, kill_at=0)
    assert whole.returncode == 0, said(whole)
    last = int((host.fake / "count").read_text())
    assert last > first + 300
    assert host.revert().returncode == 0
    assert host.snapshot() == before
    draw = random.Random(seed)
    killed = 0
    for _ in range(int(os.environ.get("TICKWIRE_KILLS", "10"))):
        at = draw.randint(first, last)
        ended = host.run(*arguments, kill_at=at)
        killed += ended.returncode == -9
        # The revert may be killed as well, and is run again.
        host.run("revert.sh", kill_at=draw.randint(1, last))
        reverted = host.revert()
        assert reverted.returncode == 0, f"killed at {at} of {last}: {said(reverted)}"
        assert host.snapshot() == before, f"killed at {at} of {last}"
        assert not host.holders(), f"killed at {at} of {last}"
    assert killed > 0


@pytest.mark.parametrize("when", ["kill-before", "kill-after"])
@pytest.mark.parametrize("target", [f"{THP}/enabled", NODE1, "/proc/irq/24/smp_affinity_list"])
def test_a_kill_within_a_write_is_undone_by_revert(host: Host, when: str, target: str) -> None:
    before = host.snapshot()
    host.fault(when, target)
    assert host.apply(SMALL).returncode == -9
    (host.fake / when).unlink()
    assert (host.snapshot() != before) or target.endswith("24/smp_affinity_list")
    reverted = host.revert()
    assert reverted.returncode == 0, said(reverted)
    assert host.snapshot() == before


def test_a_reader_that_goes_away_interrupts_apply_and_not_revert(host: Host) -> None:
    """As `apply.sh --apply | head -1` does."""
    before = host.snapshot()
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        ended = host.apply(FULL, stdout=write_end)
        assert ended.returncode == 1, ended
        assert "interrupted" in ended.stderr
        assert host.snapshot() == before
        assert not (host.state / "journal").exists()
        assert host.apply(FULL).returncode == 0
        reverted = host.run("revert.sh", stdout=write_end)
    finally:
        os.close(write_end)
    assert (reverted.returncode, reverted.stderr) == (0, "")
    assert host.snapshot() == before


def test_the_journal_is_on_disk_before_the_write(host: Host) -> None:
    """A `sync` that fails stands for a full or broken disk: what cannot be written down is not done."""
    before = host.snapshot()
    (host.bin / "sync").write_text("#!/bin/sh\necho 'sync: error' >&2\nexit 1\n")
    (host.bin / "sync").chmod(0o755)
    applied = host.apply(PLAIN)
    assert applied.returncode == 2, said(applied)
    assert "cannot write the journal" in applied.stderr
    assert host.writes() == []
    (host.bin / "sync").unlink()
    assert host.revert().returncode == 0
    assert host.snapshot() == before


@pytest.mark.parametrize("good", [2, 3, 6, 9])
def test_a_disk_that_fails_later_ends_in_the_first_state(host: Host, good: int) -> None:
    before = host.snapshot()
    (host.bin / "sync").write_text(
        "#!/usr/bin/env bash\n"
        'count="$(cat "$FAKE/syncs" 2>/dev/null)"\n'
        'echo "$((${count:-0} + 1))" >"$FAKE/syncs"\n'
        f"[ ${{count:-0}} -lt {good} ]\n"
    )
    (host.bin / "sync").chmod(0o755)
    applied = host.apply(PLAIN)
    assert applied.returncode == 1, said(applied)
    assert "cannot write the journal" in applied.stderr
    assert host.snapshot() == before


def test_a_disk_that_is_full_is_a_refusal(host: Host) -> None:
    limit = host.folder / "limit.sh"
    limit.write_text("ulimit -f 0\n")
    before = host.snapshot()
    ended = host.apply(FULL, BASH_ENV=str(limit))
    assert ended.returncode == 2, said(ended)
    assert "lock: is the disk full?" in ended.stderr
    assert host.snapshot() == before
    assert host.apply(FULL).returncode == 0


def test_a_line_that_was_being_written_is_no_entry(host: Host) -> None:
    before = host.snapshot()
    assert host.apply(PLAIN).returncode == 0
    journal = host.state / "journal"
    entries = len(re.findall(r"^will", journal.read_text(), re.M))
    with journal.open("a") as file:
        file.write(f"will\t{entries}\ttext\t/proc/sys/vm/swa")
    again = host.apply("ENGINE_CPUS=6-7\nBUSY_POLL_US=70\n")
    assert again.returncode == 0, said(again)
    assert host.revert().returncode == 0
    assert host.snapshot() == before


def test_a_damaged_journal_is_not_guessed_at(host: Host) -> None:
    assert host.apply(PLAIN).returncode == 0
    tuned = host.snapshot()
    journal = host.state / "journal"
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([*lines[:3], "rubbish", *lines[3:]]) + "\n")
    reverted = host.revert()
    assert reverted.returncode == 4
    assert f"{journal}:4: not a line of a tuning journal" in reverted.stderr
    assert host.snapshot() == tuned


# ------------------------------------------------------------------------------- who else changes things


def test_what_somebody_changed_since_is_left_alone_and_named(host: Host) -> None:
    before = host.snapshot()
    assert host.apply(PLAIN).returncode == 0
    host.put("/proc/sys/vm/swappiness", "33")
    reverted = host.revert()
    assert reverted.returncode == 3, said(reverted)
    assert (
        "/proc/sys/vm/swappiness: somebody changed it since: it was 60, we set 10, it is 33 now; left alone"
        in reverted.stderr
    )
    assert host.get("/proc/sys/vm/swappiness") == "33"
    # All else is back, and asking again says the same.
    host_now = host.snapshot()
    key = "root/proc/sys/vm/swappiness"
    assert {**host_now, key: before[key]} == before
    assert host.revert().returncode == 3
    assert host.revert("--force").returncode == 0
    assert host.snapshot() == before


def test_forget_keeps_what_somebody_changed(host: Host) -> None:
    assert host.apply(PLAIN).returncode == 0
    host.put("/proc/sys/vm/swappiness", "33")
    assert host.revert("--forget").returncode == 0
    assert host.get("/proc/sys/vm/swappiness") == "33"
    assert list(host.state.iterdir()) == []


def test_what_cannot_be_put_back_stays_in_the_journal(host: Host) -> None:
    before = host.snapshot()
    assert host.apply(FULL).returncode == 0
    procs = host.root / "sys/fs/cgroup/tickwire.slice/cgroup.procs"
    procs.write_text("4711\n")
    reverted = host.revert()
    assert reverted.returncode == 4
    assert "Device or resource busy" in reverted.stderr
    procs.write_text("")
    assert host.revert().returncode == 0
    assert host.snapshot() == before


def test_huge_pages_in_use_go_when_they_are_released(host: Host) -> None:
    """The kernel keeps pages that somebody uses, as surplus: the pool itself is back at once."""
    surplus = NODE1.replace("nr_", "surplus_")
    host.put(surplus, "0")
    assert host.apply("ENGINE_CPUS=6-7\nHUGE_PAGES_2M=64\n").returncode == 0
    host.fault("in-use", NODE1)
    reverted = host.revert()
    assert reverted.returncode == 0, said(reverted)
    assert (host.get(NODE1), host.get(surplus)) == ("3", "3")
    assert "3 huge pages are in use, and go when they are released" in reverted.stdout


def test_values_of_an_earlier_boot_are_not_written(make_host: Any) -> None:
    host = make_host(irqbalance=True)
    before = host.snapshot()
    assert host.apply(PLAIN).returncode == 0
    # The reboot: run-time values are the kernel's again, and one happens to be what we had set.
    fresh = Host(host.folder.parent / "fresh", irqbalance=True)
    for path in ("proc/sys", "sys", "proc/irq"):
        shutil.rmtree(host.root / path)
        shutil.copytree(fresh.root / path, host.root / path)
    host.put("/proc/sys/kernel/random/boot_id", "99999999-0000-0000-0000-000000000000")
    host.put("/proc/sys/vm/swappiness", "10")
    asked = len(host.writes())
    reverted = host.revert()
    assert reverted.returncode == 0, said(reverted)
    assert "gone with the reboot: /proc/sys/vm/swappiness" in reverted.stdout
    assert host.get("/proc/sys/vm/swappiness") == "10"
    # Only the file that outlived the reboot came back.
    assert host.writes()[asked:] == ["systemctl try-restart irqbalance.service"]
    key = "root/etc/default/irqbalance"
    assert host.snapshot()[key] == before[key]


def test_apply_after_a_reboot_settles_the_old_journal_first(make_host: Any) -> None:
    host = make_host(irqbalance=True)
    before = host.snapshot()
    assert host.apply(PLAIN).returncode == 0
    for path in ("proc/sys/vm/swappiness", "proc/sys/vm/stat_interval"):
        (host.root / path).write_bytes(before[f"root/{path}"][1] or b"")
    host.put("/proc/sys/kernel/random/boot_id", "99999999-0000-0000-0000-000000000000")
    applied = host.apply(PLAIN)
    assert applied.returncode == 0, said(applied)
    assert host.revert().returncode == 0
    after = host.snapshot()
    for name in ("proc/sys/vm/swappiness", "proc/sys/vm/stat_interval", "etc/default/irqbalance"):
        assert after[f"root/{name}"] == before[f"root/{name}"], name


def test_what_outlived_a_reboot_and_was_changed_has_to_be_settled(make_host: Any) -> None:
    host = make_host(irqbalance=True)
    assert host.apply(PLAIN).returncode == 0
    host.put("/proc/sys/kernel/random/boot_id", "99999999-0000-0000-0000-000000000000")
    host.put("/etc/default/irqbalance", "IRQBALANCE_BANNED_CPULIST=1")
    asked = len(host.writes())
    applied = host.apply(PLAIN)
    assert applied.returncode == 2, said(applied)
    assert "/etc/default/irqbalance: somebody changed it since" in applied.stderr
    assert host.revert().returncode == 3
    assert host.get("/etc/default/irqbalance") == "IRQBALANCE_BANNED_CPULIST=1"
    assert len(host.writes()) == asked
    assert host.revert("--forget").returncode == 0
    assert host.apply(PLAIN).returncode == 0


def test_no_foreign_process_is_ended(host: Host) -> None:
    """The journal's pid belongs to somebody else by now: the start time tells."""
    assert host.apply("ENGINE_CPUS=6-7\nIDLE_STATES=host\n").returncode == 0
    (holder,) = host.holders()
    host.end_holders()
    with subprocess.Popen(["sleep", "60"]) as other:
        journal = host.state / "journal"
        journal.write_text(journal.read_text().replace(f"\t{holder}:", f"\t{other.pid}:"))
        reverted = host.revert()
        assert reverted.returncode == 0, said(reverted)
        assert "already ended" in reverted.stdout
        assert other.poll() is None
        other.kill()


def test_two_do_not_tune_at_once(host: Host) -> None:
    assert host.apply(PLAIN).returncode == 0
    start = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19]
    lock = host.state / "lock"
    lock.write_text(f"{os.getpid()}:{start}:{host.get('/proc/sys/kernel/random/boot_id')}\n")
    for ended in (host.apply(PLAIN), host.revert()):
        assert ended.returncode == 2
        assert f"process {os.getpid()} is tuning this host" in ended.stderr
    # A lock that a killed process left behind does not last.
    lock.write_text(f"{os.getpid()}:1:{host.get('/proc/sys/kernel/random/boot_id')}\n")
    assert host.revert().returncode == 0


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("env", "because"),
    [
        ("ENGINE_CPUS=0-7\nALLOW_CPU0=yes\nALLOW_SEVERAL_NODES=yes\n", "covers every online CPU"),
        ("ENGINE_CPUS=1-7\nISOLATE=partition\nCONTROL_CPUS=0\nALLOW_SEVERAL_NODES=yes\n", "covers every"),
        ("ENGINE_CPUS=0-1\n", "ENGINE_CPUS has CPU 0"),
        ("ENGINE_CPUS=3-4\n", "spread over NUMA nodes 0 1"),
        ("ENGINE_CPUS=7-8\n", "CPU 8 is not online here"),
        ("ENGINE_CPUS=6-7\nHOUSEKEEPING_CPUS=0-6\n", "CPU 6 is the engine's and in HOUSEKEEPING_CPUS"),
        ("ENGINE_CPUS=6-7\nISOLATE=partition\n", "needs CONTROL_CPUS"),
        ("ENGINE_CPUS=6-7\nCONTROL_CPUS=5\n", "only for ISOLATE=partition"),
        ("ENGINE_CPUS=6-7\nISOLATE=partition\nCONTROL_CPUS=7\n", "in ENGINE_CPUS and in CONTROL_CPUS"),
        ("ENGINE_CPUS=6-7\nINTERFACES=eth9\n", "no interface eth9"),
        ("ENGINE_CPUS=6-7\nFLOW=eth1 udp4 239.1.1.1 26400 0 1\n", "eth1 is not one of INTERFACES"),
        ("ENGINE_CPUS=6-7\nHUGE_PAGES_2M=5:10\n", "no NUMA node 5"),
        ("ENGINE_CPUS=6-7\nSKIP=nonsense\n", "no group nonsense"),
        ("ENGINE_CPUS=7-6\n", "not a CPU list"),
    ],
)
def test_refuses(host: Host, env: str, because: str) -> None:
    before = host.snapshot()
    for ended in (host.plan(env), host.apply(env)):
        assert ended.returncode == 2, said(ended)
        assert because in ended.stderr
    assert host.snapshot() == before
    assert not (host.state / "journal").exists()


@pytest.mark.parametrize(
    "env", ["ENGINE_CPUS=0-1\nALLOW_CPU0=yes\n", "ENGINE_CPUS=3-4\nALLOW_SEVERAL_NODES=yes\n"]
)
def test_a_refusal_may_be_lifted(host: Host, env: str) -> None:
    planned = host.plan(env)
    assert planned.returncode == 0, said(planned)


def test_refuses_in_a_container_without_its_host_s_mounts(host: Host) -> None:
    host.put("/proc/mounts", f"proc {host.root}/proc proc rw 0 0\nsysfs {host.root}/sys sysfs ro,nosuid 0 0")
    ended = host.apply(PLAIN)
    assert ended.returncode == 2
    assert "mounted read-only: this looks like a container" in ended.stderr
    assert "TICKWIRE_TUNING_ROOT" in ended.stderr


def test_refuses_in_a_privileged_container(host: Host) -> None:
    host.put("/proc/2/comm", "bash")
    for comm in ("bash", None):
        if comm is None:
            (host.root / "proc/2/comm").unlink()
        before = host.snapshot()
        for ended in (host.plan(PLAIN), host.apply(PLAIN)):
            assert ended.returncode == 2
            assert "this is a container" in ended.stderr
        assert host.snapshot() == before
    # Where other users' processes are hidden nothing is known, and a plan harms nobody.
    (host.root / "proc/1/comm").unlink()
    assert host.plan(PLAIN).returncode == 0


def tuned_profile(host: Host, name: str, text: str, running: bool = True) -> None:
    host.put("/etc/tuned/active_profile", name)
    host.put(f"/usr/lib/tuned/profiles/{name}/tuned.conf", text)
    if running:
        host.put("/proc/777/comm", "tuned")


@pytest.mark.parametrize(
    ("text", "knob", "skip"),
    [
        ("[sysctl]\nvm.swappiness = 10\n", "vm: /proc/sys/vm/swappiness", "vm"),
        ("[main]\ninclude = base\n", "thp: /sys/kernel/mm/transparent_hugepage/enabled", "thp"),
        ("[power]\ntype=cpu\ngovernor=performance\n", "governor: ", "governor"),
        ("[sysfs]\n/sys/kernel/mm/ksm/*=0\n", "ksm: /sys/kernel/mm/ksm/run", "ksm"),
        (
            "[sysfs]\n/sys/bus/workqueue/devices/writeback/cpumask = f\n",
            "workqueues: /sys/devices/virtual/workqueue/writeback/cpumask",
            "workqueues",
        ),
        ("[scheduler]\nisolated_cores=6-7\n", "irq: /proc/irq/1/smp_affinity_list", "irq default-affinity"),
    ],
)
def test_refuses_what_tuned_owns(host: Host, text: str, knob: str, skip: str) -> None:
    tuned_profile(host, "latency", text)
    host.put("/usr/lib/tuned/base/tuned.conf", "[vm]\ntransparent_hugepages=never\n")
    ended = host.apply(PLAIN)
    assert ended.returncode == 2, said(ended)
    assert "TuneD's active profile latency sets what this would set" in ended.stderr
    assert knob in ended.stderr
    assert host.writes() == []
    assert host.plan(PLAIN + f'SKIP="{skip}"\n').returncode == 0


def test_a_tuned_profile_that_sets_nothing_of_ours_or_does_not_run_is_no_obstacle(host: Host) -> None:
    tuned_profile(host, "audio", "[audio]\ntimeout=10\n")
    assert host.plan(PLAIN).returncode == 0
    (host.root / "proc/777/comm").unlink()
    tuned_profile(host, "latency", "[sysctl]\nvm.swappiness=10\n", running=False)
    assert host.plan(PLAIN).returncode == 0


def test_a_flow_rule_of_somebody_else_is_not_replaced(host: Host) -> None:
    (host.fake / "nic/eth1/rules/1000").write_text("tcp4 10.0.0.1 80 1\n")
    (host.fake / "nic/eth1/ntuple").write_text("on\n")
    ended = host.apply(FULL)
    assert ended.returncode == 2, said(ended)
    assert "rule 1000 of eth1 is somebody else's (tcp4 10.0.0.1 80 1)" in ended.stderr


def test_without_permission_the_plan_works_and_apply_says_so() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        host = Host(folder / "host")
        host.env_file(PLAIN)
        scripts = folder / "tuning"
        shutil.copytree(SCRIPTS, scripts)
        (host.root / "proc/sys/vm/swappiness").chmod(0o444 if os.getuid() else 0o644)
        secret = host.root / "sys/kernel/mm/ksm/run"
        secret.chmod(0o200)
        state = folder / "state"
        state.mkdir()
        state.chmod(0o777)
        before = host.snapshot() if os.getuid() == 0 else None
        command: list[str | Path] = ["bash", scripts / "apply.sh", "--env", folder / "host/host.env"]
        command += ["--state", state]
        as_root = os.getuid() == 0
        nobody: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if as_root else {}

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*command, *arguments],
                env={"PATH": os.environ["PATH"], "TICKWIRE_TUNING_ROOT": str(host.root), "FAKE": ""},
                capture_output=True,
                text=True,
                check=False,
                **nobody,
            )

        planned = run()
        assert planned.returncode == 0, said(planned)
        assert "#   not allowed to read: /sys/kernel/mm/ksm/run" in planned.stdout
        applied = run("--apply")
        assert applied.returncode == 2, said(applied)
        assert "no permission" in applied.stderr
        assert "run as root" in applied.stderr
        if before is not None:
            assert host.snapshot() == before


# ------------------------------------------------------------------------------------------------ host.env


@pytest.mark.parametrize(
    "line",
    [
        "ENGINE_CPUS=$(touch {0})",
        "ENGINE_CPUS=`touch {0}`",
        "INTERFACES='eth1; touch {0}'",
        'INTERFACES="$(touch {0})"',
        "INTERFACES=../../../etc",
        "INTERFACES=eth1 /sys",
        "INTERFACES=-s",
        "RX_USECS=a[$(touch {0})]",
        "RX_USECS=0+1",
        "HUGE_PAGES_2M=$((1))",
        "HUGE_PAGES_2M=a[`touch {0}`]:1",
        "FLOW=eth1 udp4 239.1.1.1 26400 0 1000 ; touch {0}",
        "FLOW=eth1 udp4 $(touch {0}) 26400 0 1000",
        "SKIP=$(touch {0})",
        "SERVICE_USER=root\\nExecStart=/bin/touch {0}",
        "SERVICE_COMMAND=/bin/touch {0}",
        "SERVICE_CONFIG=/etc/../tmp/%n",
        "PATH={0}",
        "BASH_ENV={0}",
        "touch {0}",
        "ENGINE_CPUS = 6",
        "export ENGINE_CPUS=6",
        "ENGINE_CPUS=99999999999999999999",
    ],
)
def test_a_hostile_host_env_is_refused_and_never_run(host: Host, line: str, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    hostile = line.format(planted)
    ended = host.apply(hostile if hostile.startswith("ENGINE") else f"ENGINE_CPUS=6-7\n{hostile}\n")
    assert ended.returncode == 2, said(ended)
    assert re.search(r"host\.env:[12]: ", ended.stderr), ended.stderr
    assert not planted.exists()
    assert host.writes() == []


def test_host_env_may_have_quotes_comments_and_windows_line_ends(host: Host) -> None:
    text = "# The host.\r\n\r\n  ENGINE_CPUS='6-7'  \r\nBUSY_POLL_US=70\r\nSKIP=\"thp  vm\"\r\n"
    planned = host.plan(text)
    assert planned.returncode == 0, said(planned)
    assert "engine on CPUs 6-7, housekeeping on 0-5" in planned.stdout
    assert f"echo 70 > {host.root}/proc/sys/net/core/busy_read  # now 0" in planned.stdout
    assert "[thp]" not in planned.stdout
    assert "[vm]" not in planned.stdout


def test_a_key_set_twice_is_refused(host: Host) -> None:
    ended = host.plan("ENGINE_CPUS=6\nENGINE_CPUS=7\n")
    assert ended.returncode == 2
    assert "ENGINE_CPUS is set again, first on line 1" in ended.stderr


def test_the_example_names_every_key_with_its_default(host: Host) -> None:
    keys = re.findall(r"^_key (\w+) (\S+) ", (SCRIPTS / "lib/common.sh").read_text(), re.M)
    example = dict(
        re.findall(r"^(?:# )?([A-Z_0-9]+)=(.*)$", (SCRIPTS / "host.env.example").read_text(), re.M)
    )
    assert {key for key, _ in keys} == set(example)
    for key, default in keys:
        if key not in ("ENGINE_CPUS", "FLOW"):
            assert example[key] == default.strip("'"), key
    planned = host.plan((SCRIPTS / "host.env.example").read_text())
    assert planned.returncode == 0, said(planned)


# --------------------------------------------------------------------------------------------- what it says


def test_says_which_of_the_five_kinds_of_isolation_is_there(host: Host) -> None:
    assert (
        "# isolation of CPUs 6-7 now: domain no, tick no, RCU no, managed interrupts no, unbound work no"
        in host.plan(PLAIN).stdout
    )
    host.put("/proc/cmdline", "isolcpus=managed_irq,domain,6-N rcu_nocbs=6 rcu_nocbs=N quiet")
    host.put("/sys/devices/system/cpu/isolated", "6-7")
    host.put("/sys/devices/system/cpu/nohz_full", "7")
    host.put("/sys/devices/virtual/workqueue/cpumask", "3f")
    assert (
        "# isolation of CPUs 6-7 now: domain yes, tick not on 6, RCU yes, managed interrupts yes,"
        " unbound work yes" in host.plan(PLAIN).stdout
    )


def test_reads_the_clocks_and_says_how_far_off_and_how_old(host: Host) -> None:
    host.put("/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet")
    (host.bin / "chronyc").write_text(
        "#!/bin/sh\necho A29FC87B,192.0.2.1,3,$(($(date +%s) - 41)).5,0.000012,0.1,0.1,1,0,1,1,1,64,Normal\n"
    )
    (host.bin / "pmc").write_text(
        "#!/bin/sh\nprintf 'sending\\n\\t\\tmaster_offset              -23\\n"
        "\\t\\tingress_time               %s000000000\\n' $(($(date +%s) + 37 - 5))\n"
    )
    for name in ("chronyc", "pmc"):
        (host.bin / name).chmod(0o755)
    text = host.plan(PLAIN).stdout
    assert "# clock source: hpet" in text
    assert "clock source hpet is slow to read" in text
    assert re.search(
        r"chrony: system clock 0\.000012 s off UTC, last update 4[1-3] s ago, reference 192", text
    )
    assert re.search(r"PTP: -23 ns off the master, last message about [5-7] s ago", text)


def test_names_a_sibling_that_is_not_the_engine_s(host: Host) -> None:
    host.put("/sys/devices/system/cpu/cpu6/topology/thread_siblings_list", "2,6")
    assert "CPU 6 shares its core with CPU 2" in host.plan(PLAIN).stdout


def test_a_partition_without_cgroup_v2_is_left_to_the_boot_line(make_host: Any) -> None:
    host = make_host(cgroup=1)
    planned = host.plan(FULL)
    assert planned.returncode == 0
    assert "ISOLATE=partition needs cgroup v2" in planned.stdout


def test_help_is_the_head_of_the_script(host: Host) -> None:
    for script in ("apply.sh", "revert.sh"):
        helped = subprocess.run(
            ["bash", SCRIPTS / script, "--help"], capture_output=True, text=True, check=False
        )
        assert helped.returncode == 0
        assert "Exit code:" in helped.stdout
        wrong = host.run(script, "--nonsense")
        assert wrong.returncode == 2
        assert "--help" in wrong.stderr
