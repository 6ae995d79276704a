"""Every check of `tickwire doctor` on hosts made of files, where what it must find is known."""

from __future__ import annotations

import dataclasses
import os
import random
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from host_tree import COMMANDS, CORES, DENIED, READ_ONLY, build, changed, engine, interrupts, tuned

from tickwire.host.doctor import freeze, running_engines
from tickwire.host.finding import (
    AREAS,
    CHECKS,
    Finding,
    Host,
    Need,
    Probe,
    Profile,
    Verdict,
    Wanted,
    WantedLine,
    examine,
)
from tickwire.host.reader import Reader

OK, WARN, FAIL = Verdict.OK, Verdict.WARN, Verdict.FAIL
UNMOVABLE, UNKNOWN, NOT_APPLICABLE = Verdict.UNMOVABLE, Verdict.UNKNOWN, Verdict.NOT_APPLICABLE

LINE = WantedLine("f.lines[0]", "239.1.1.1:4000", "eth0", "10.0.0.1")
ANY_LINE = WantedLine("f.lines[1]", "239.1.1.2:4000", "", "")
# What is judged only where a configuration asks for it.
OF_LINES = ("feed-interfaces", "feed-senders", "busy-polling", "nic-stamps")
WANTED = Wanted(cores=CORES, names=("feeds[0].core", "model.cores[0]"), threads=2, spin=False)

CPU = "/sys/devices/system/cpu"
HUGE = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB"
CLOCK = "/sys/devices/system/clocksource/clocksource0"
PARTITION = "/sys/fs/cgroup/cpuset.cpus"
SLICE = "/sys/fs/cgroup/tickwire.slice/cpuset.cpus"


@dataclass
class Case:
    check: str
    verdict: Verdict
    says: str
    changes: dict[str, Any] = field(default_factory=dict)
    """Of the tuned host's files."""
    kernel: str = "6.8.0-45-generic"
    wanted: Wanted = WANTED
    commands: dict[str, str] = field(default_factory=lambda: dict(COMMANDS))
    host: dict[str, Any] = field(default_factory=dict)
    """Of the Host's own fields."""
    then: dict[str, Any] | None = None
    """What was otherwise ten seconds before, of a check by effect."""
    fix: str | None = None
    revert: str | None = None


def wants(**changes: Any) -> Wanted:
    return dataclasses.replace(WANTED, **changes)


INTERRUPTS = interrupts()
# Ten seconds later: 24 more of the network card on CPU 2, and 10,000 ticks on CPU 3.
NOISY = interrupts(
    irq24=[900, 0, 24, 0, 0, 0, 0, 0], LOC=[50000, 50000, 100, 10100, 50000, 50000, 50000, 50000]
)
CALLS = interrupts(RES=[10, 10, 2002, 2, 10, 10, 10, 10])
SIBLINGS = {f"{CPU}/cpu2/topology/thread_siblings_list": "2,6"}
TWO_NODES = {
    "/sys/devices/system/node/node0/cpulist": "0-3",
    "/sys/devices/system/node/node1/cpulist": "4-7",
    "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages": "128",
    "/sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages": "128",
}
SMAPS = str(engine()["/proc/900/smaps"])
TRANSPARENT = SMAPS.replace("2048 kB", "4 kB").replace("AnonHugePages:         0", "AnonHugePages:     49152")
ENGINE: dict[str, Any] = {"host": {"engines": (900,)}}
MEASURED: dict[str, Any] = {"then": {}}


def stolen(ticks: int) -> str:
    """Ten seconds later on CPU 2: 1,000 ticks more, of which some were stolen."""
    text = str(tuned()["/proc/stat"])
    return text.replace("cpu2 100 0 100 10000 0 0 0 0", f"cpu2 {1100 - ticks} 0 100 10000 0 0 0 {ticks}")


CASES = [
    # The engine's cores.
    Case("engine-cores", OK, "cores 2-3 can be had; 0-1,4-7 left"),
    Case("engine-cores", OK, "none named", wanted=Wanted()),
    Case("engine-cores", WARN, "2 threads float", wanted=wants(cores=(), names=())),
    Case("engine-cores", FAIL, "model.cores[0] = 3: that CPU is not online", {f"{CPU}/online": "0-2"}),
    Case(
        "engine-cores",
        FAIL,
        "feeds[0].core = 2: this process may not run there",
        {"/proc/self/status": "Cpus_allowed_list:\t0-1,3", f"{CPU}/isolated": ""},
    ),
    # isolcpus takes its cores off every process's list, and forbids nobody to ask for them.
    Case("engine-cores", OK, "cores 2-3 can be had", wanted=wants(threads=8, spin=True)),
    Case(
        "engine-cores",
        OK,
        "cores 2-3 can be had by what is started in tickwire.slice",
        {
            "/proc/self/cgroup": "0::/user.slice",
            f"{CPU}/isolated": "",
            f"{SLICE}.partition": "isolated",
            f"{SLICE}.effective": "2-4",
        },
    ),
    Case(
        "engine-cores",
        FAIL,
        "may not run there",
        {
            f"{CPU}/isolated": "",
            f"{SLICE}.partition": "isolated invalid (Parent unable to distribute cpu downstream)",
            f"{SLICE}.effective": "2-4",
        },
    ),
    Case("engine-cores", FAIL, "all CPUs", {f"{CPU}/online": "2-3"}),
    Case("engine-cores", FAIL, "9 threads spin on 8 CPUs", wanted=wants(threads=9, spin=True)),
    Case("engine-cores", WARN, "CPU 0 is among", wanted=wants(cores=(0, 1))),
    Case("engine-cores", WARN, "memory nodes 0-1", TWO_NODES, wanted=wants(cores=(2, 4))),
    Case("engine-cores", UNKNOWN, "/proc/stat", {f"{CPU}/online": DENIED, "/proc/stat": DENIED}),
    # Each kind of isolation by itself.
    Case("isolation-domain", OK, "(isolcpus)"),
    Case(
        "isolation-domain",
        FAIL,
        "CPU 3 takes any task",
        {f"{CPU}/isolated": "2"},
        fix="isolcpus=managed_irq,domain,2-3",
    ),
    Case(
        "isolation-domain",
        OK,
        "(a control group's partition)",
        {f"{CPU}/isolated": "", f"{PARTITION}.isolated": "2-3"},
    ),
    Case(
        "isolation-domain",
        OK,
        "(a control group's partition)",
        {f"{CPU}/isolated": "", f"{PARTITION}.partition": "isolated", f"{PARTITION}.effective": "2-3"},
        kernel="6.1.0",
    ),
    # Before 6.8 nothing lists them: a service's group lies within the partition, a shell's beside it.
    *(
        Case(
            "isolation-domain",
            OK,
            "(a control group's partition)",
            {
                "/proc/self/cgroup": f"0::{group}",
                f"{CPU}/isolated": "",
                f"{SLICE}.partition": "isolated",
                f"{SLICE}.effective": "2-4",
                "/sys/fs/cgroup/tickwire.slice/tickwire.service/cpuset.cpus.partition": "member",
            },
            kernel="6.1.0",
        )
        for group in ("/tickwire.slice/tickwire.service", "/user.slice/user-0.slice")
    ),
    Case(
        "isolation-domain",
        OK,
        "(a control group's partition)",
        {
            "/proc/self/cgroup": "0::/mine/engine/worker",
            f"{CPU}/isolated": "",
            "/sys/fs/cgroup/mine/cpuset.cpus.partition": "isolated",
            "/sys/fs/cgroup/mine/cpuset.cpus.effective": "2-3",
        },
        kernel="6.1.0",
    ),
    Case("isolation-domain", OK, "(isolcpus)", {"/proc/self/cgroup": DENIED}),
    Case("isolation-domain", UNKNOWN, "Is a directory", {"/proc/self/cgroup": DENIED, f"{CPU}/isolated": ""}),
    Case(
        "isolation-domain",
        FAIL,
        "isolated invalid (Cpu list in cpuset.cpus not exclusive)",
        {
            f"{CPU}/isolated": "",
            f"{PARTITION}.partition": "isolated invalid (Cpu list in cpuset.cpus not exclusive)",
        },
    ),
    Case("isolation-domain", UNKNOWN, "Is a directory", {f"{CPU}/isolated": DENIED}),
    Case("isolation-domain", UNKNOWN, "expected a CPU list", {f"{CPU}/isolated": "all of them"}),
    Case("isolation-domain", NOT_APPLICABLE, "cpu/isolated", {f"{CPU}/isolated": None}),
    Case("isolation-tick", OK, "--measure shows whether"),
    Case("isolation-tick", FAIL, "CPU 2-3", {f"{CPU}/nohz_full": " (null)"}, fix="nohz_full=2-3"),
    Case("isolation-tick", FAIL, "CPU 3", {f"{CPU}/nohz_full": "2"}),
    Case("isolation-tick", NOT_APPLICABLE, "whatever its boot line says", {f"{CPU}/nohz_full": None}),
    Case("isolation-tick", UNKNOWN, "nohz_full", {f"{CPU}/nohz_full": DENIED}),
    Case("isolation-rcu", OK, "2-3 run elsewhere", {"/proc/cmdline": "rcu_nocbs=2 quiet nohz_full=3"}),
    Case("isolation-rcu", OK, "2-3 run elsewhere", {"/proc/cmdline": "rcu_nocbs=all"}),
    Case("isolation-rcu", OK, "2-3 run elsewhere", {"/proc/cmdline": "rcu_nocbs=2 rcu_nocbs=3"}),
    Case("isolation-rcu", OK, "2-3 run elsewhere", {"/proc/cmdline": "rcu_nocbs=2-N"}),
    Case("isolation-rcu", FAIL, "CPU 2-3", {"/proc/cmdline": "rcu_nocbs=N"}),
    Case("isolation-rcu", FAIL, "CPU 3", {"/proc/cmdline": "rcu_nocbs=0-2 -- rcu_nocbs=3"}),
    Case("isolation-rcu", UNKNOWN, "rcu_nocbs: expected a CPU list", {"/proc/cmdline": "rcu_nocbs=2-x"}),
    Case("isolation-managed-irq", OK, "keep off 2-3"),
    Case("isolation-managed-irq", WARN, "CPU 2-3", {"/proc/cmdline": "isolcpus=2-3"}),
    Case("isolation-managed-irq", UNKNOWN, "/proc/cmdline", {"/proc/cmdline": DENIED}),
    Case("boot-line", OK, "nohz_full=2-3"),
    Case("boot-line", OK, "nothing that concerns latency", {"/proc/cmdline": "quiet"}),
    Case(
        "boot-line",
        FAIL,
        "nohz_full asks for CPU 2-3, which the kernel has not given",
        {f"{CPU}/nohz_full": None},
    ),
    Case("boot-line", UNKNOWN, "/proc/cmdline", {"/proc/cmdline": DENIED}),
    Case("workqueues", OK, "keeps off 2-3"),
    Case(
        "workqueues",
        FAIL,
        "CPU 2",
        {"/sys/devices/virtual/workqueue/cpumask": "f7"},
        fix="echo f3 > /sys/devices/virtual/workqueue/cpumask",
        revert="echo f7 > /sys/devices/virtual/workqueue/cpumask",
    ),
    Case("workqueues", NOT_APPLICABLE, "workqueue/cpumask", {"/sys/devices/virtual/workqueue/cpumask": None}),
    Case("workqueues", UNKNOWN, "expected a CPU mask", {"/sys/devices/virtual/workqueue/cpumask": "xyz"}),
    Case("fair-server", NOT_APPLICABLE, "before 6.12"),
    Case("fair-server", UNKNOWN, "in debugfs, for root", kernel="6.12.0"),
    Case("fair-server", OK, "no real-time threads", engine(), kernel="6.18.1", **ENGINE),
    *(
        Case(
            "fair-server",
            verdict,
            says,
            engine(policy=policy)
            | {f"/sys/kernel/debug/sched/fair_server/cpu{cpu}/runtime": runtime for cpu in CORES},
            kernel="6.12.9",
            **ENGINE,
        )
        for verdict, says, policy, runtime in (
            (OK, "off on 2-3", 1, "0"),
            (OK, "Tickwire's are not", 0, "50000000"),
            (FAIL, "tw-ingest0 is real-time: expect a hole of 50 ms", 1, "50000000"),
            (FAIL, "tw-ingest0 is real-time: expect a hole of 50 ms", 2, "50000000"),
        )
    ),
    Case("rt-throttling", OK, "stops real-time threads only"),
    Case("rt-throttling", OK, "not the knob any more", kernel="6.12.0"),
    Case("rt-throttling", FAIL, "stopped each second", engine(policy=1), **ENGINE),
    Case(
        "rt-throttling",
        OK,
        "off",
        {"/proc/sys/kernel/sched_rt_runtime_us": "-1"} | engine(policy=1),
        **ENGINE,
    ),
    Case("rt-throttling", UNKNOWN, "expected a number", {"/proc/sys/kernel/sched_rt_runtime_us": "?"}),
    Case("smt-siblings", OK, "no CPU that runs"),
    Case("smt-siblings", FAIL, "CPU 6, the other half", SIBLINGS, fix=f"echo 0 > {CPU}/cpu6/online"),
    Case("smt-siblings", OK, "no CPU that runs", SIBLINGS | {f"{CPU}/online": "0-5"}),
    Case("smt-siblings", OK, "idle deeply", SIBLINGS | {f"{CPU}/isolated": "2-3,6"}),
    Case(
        "smt-siblings",
        FAIL,
        "2-3 share cores",
        {f"{CPU}/cpu{n}/topology/thread_siblings_list": "2-3" for n in CORES},
    ),
    Case("smt-siblings", NOT_APPLICABLE, "topology", {f"{CPU}/cpu2/topology/thread_siblings_list": None}),
    Case("smt-siblings", UNKNOWN, "topology", {f"{CPU}/cpu2/topology/thread_siblings_list": DENIED}),
    Case("cpu-quota", OK, "no CPU limit", {"/sys/fs/cgroup/cpu.max": "max 100000"}),
    Case(
        "cpu-quota",
        FAIL,
        "1.50 CPUs",
        {
            "/proc/self/cgroup": "0::/a/b",
            "/sys/fs/cgroup/a/cpu.max": "150000 100000",
            "/sys/fs/cgroup/a/b/cpu.max": "max",
        },
        revert="echo 150000 100000 > /sys/fs/cgroup/a/cpu.max",
    ),
    Case(
        "cpu-quota",
        FAIL,
        "0.50 CPUs",
        {
            "/proc/self/cgroup": "3:cpu,cpuacct:/docker/1234",
            "/sys/fs/cgroup/cgroup.controllers": None,
            "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000",
            "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        kernel="5.4.0",
    ),
    Case("cpu-quota", NOT_APPLICABLE, "CPU limit"),
    Case("cpu-quota", UNKNOWN, "/proc/self/cgroup", {"/proc/self/cgroup": DENIED}),
    # Interrupts.
    Case("irq-placement", OK, "no device interrupts CPU 2-3"),
    Case(
        "irq-placement",
        FAIL,
        "1 interrupts are served on CPU 2-3",
        {"/proc/irq/25/smp_affinity_list": "0-7", "/proc/irq/25/effective_affinity_list": "3"},
        fix="echo 0-1,4-7 > /proc/irq/25/smp_affinity_list",
        revert="echo 0-7 > /proc/irq/25/smp_affinity_list",
    ),
    Case(
        "irq-placement",
        WARN,
        "their masks allow CPU 2-3",
        {"/proc/irq/25/smp_affinity_list": "0-7"},
        fix="echo 0-1,4-7 > /proc/irq/25/smp_affinity_list",
    ),
    Case(
        "irq-placement",
        UNMOVABLE,
        "root cannot move them",
        {"/proc/irq/25/smp_affinity_list": READ_ONLY + "0-7", "/proc/irq/25/effective_affinity_list": "3"},
    ),
    Case("irq-placement", OK, "no device", {"/proc/irq/25/smp_affinity_list": READ_ONLY + "0-7"}),
    # Taken away from our cores; the line itself moves only when it is next raised.
    Case(
        "irq-placement",
        OK,
        "1 that leave it with their next interrupt",
        {"/proc/irq/25/smp_affinity_list": "0-1", "/proc/irq/25/effective_affinity_list": "3"},
    ),
    # Without the effective place, as kernels before 4.15 have it, the mask is all there is.
    Case(
        "irq-placement",
        FAIL,
        "1 interrupts",
        {"/proc/irq/25/smp_affinity_list": "2", "/proc/irq/25/effective_affinity_list": None},
    ),
    Case(
        "irq-placement", UNKNOWN, "1 interrupts could not be read", {"/proc/irq/24/smp_affinity_list": DENIED}
    ),
    Case("irq-placement", NOT_APPLICABLE, "/proc/interrupts", {"/proc/interrupts": None}),
    Case("irq-default", OK, "elsewhere"),
    Case(
        "irq-default",
        WARN,
        "CPU 2",
        {"/proc/irq/default_smp_affinity": "00000000,00000004"},
        fix="echo f3 > ",
    ),
    Case(
        "irq-default",
        WARN,
        "CPU 2",
        {"/proc/irq/default_smp_affinity": "4", f"{CPU}/online": "0-39"},
        fix="echo ff,fffffff3 > ",
    ),
    Case("irq-default", NOT_APPLICABLE, "default_smp", {"/proc/irq/default_smp_affinity": None}),
    Case("irq-default", UNKNOWN, "mask", {"/proc/irq/default_smp_affinity": "-"}),
    Case("irqbalance", OK, "does not run"),
    Case("irqbalance", OK, "isolated CPUs 2-3 alone by itself", {"/proc/55/comm": "irqbalance"}),
    Case(
        "irqbalance",
        FAIL,
        "any interrupt on CPU 3",
        {"/proc/55/comm": "irqbalance", f"{CPU}/isolated": "2", f"{CPU}/nohz_full": None},
    ),
    Case(
        "irqbalance",
        FAIL,
        "banned list lacks CPU 3",
        {"/proc/55/comm": "irqbalance", "/etc/default/irqbalance": 'IRQBALANCE_BANNED_CPULIST="2"'},
    ),
    # A list of its own ends irqbalance's respect for isolated CPUs: 6 and 7 are not ours, but isolated.
    Case(
        "irqbalance",
        FAIL,
        "lacks the isolated CPU 6-7",
        {
            "/proc/55/comm": "irqbalance",
            f"{CPU}/isolated": "2-3,6-7",
            "/etc/sysconfig/irqbalance": "#IRQBALANCE_BANNED_CPULIST=0\nIRQBALANCE_BANNED_CPULIST=2-3\n",
        },
        fix="IRQBALANCE_BANNED_CPULIST=2-3,6-7",
    ),
    Case(
        "irqbalance",
        OK,
        "keeps off CPU 2-3",
        {"/proc/55/comm": "irqbalance", "/etc/default/irqbalance": "IRQBALANCE_BANNED_CPULIST=2-3"},
    ),
    # A container shows its own processes alone.
    Case("irqbalance", UNKNOWN, "only some of this host's processes", {"/proc/2/comm": None}),
    Case("irqbalance", UNKNOWN, "only some of this host's processes", {"/proc/2/comm": "sleep"}),
    Case("tuned", OK, "does not run"),
    Case(
        "tuned",
        WARN,
        "network-latency",
        {"/proc/56/comm": "tuned", "/etc/tuned/active_profile": "network-latency"},
    ),
    Case("tuned", UNKNOWN, "active_profile", {"/etc/tuned/active_profile": DENIED}),
    Case("tuned", UNKNOWN, "only some of this host's processes", {"/proc/2/comm": None}),
    Case("watchdogs", OK, "not on 2-3"),
    Case("watchdogs", OK, "off", {"/proc/sys/kernel/watchdog": "0"}),
    Case(
        "watchdogs",
        WARN,
        "CPU 2",
        {"/proc/sys/kernel/watchdog_cpumask": "0-2"},
        fix="echo 0-1,4-7 >",
        revert="echo 0-2 >",
    ),
    Case(
        "watchdogs",
        WARN,
        "non-maskable",
        {"/proc/sys/kernel/watchdog_cpumask": "0-7", "/proc/sys/kernel/nmi_watchdog": "1"},
    ),
    Case(
        "watchdogs",
        NOT_APPLICABLE,
        "watchdog",
        {"/proc/sys/kernel/watchdog": None, "/proc/sys/kernel/nmi_watchdog": None},
    ),
    Case("watchdogs", UNKNOWN, "watchdog", {"/proc/sys/kernel/watchdog_cpumask": DENIED}),
    Case("console", OK, "no chatter"),
    Case(
        "console", OK, "no chatter", {"/proc/cmdline": "console=tty0", "/proc/sys/kernel/printk": "7 4 1 7"}
    ),
    Case(
        "console",
        WARN,
        "ttyS0",
        {"/proc/cmdline": "console=ttyS0,115200", "/proc/sys/kernel/printk": "7 4 1 7"},
    ),
    Case("console", UNKNOWN, "level", {"/proc/sys/kernel/printk": "loud"}),
    # Memory.
    Case("huge-pages", OK, "128 pages of 2 MiB are free on node 0"),
    Case(
        "huge-pages",
        FAIL,
        "8 pages",
        {f"{HUGE}/nr_hugepages": "10", f"{HUGE}/free_hugepages": "8"},
        fix=f"echo 34 > {HUGE}/nr_hugepages",
        revert=f"echo 10 > {HUGE}/nr_hugepages",
    ),
    Case("huge-pages", FAIL, "those on node 1 are far", TWO_NODES | {f"{HUGE}/free_hugepages": "0"}),
    Case(
        "huge-pages",
        OK,
        "free on node 1",
        TWO_NODES | {f"{HUGE}/free_hugepages": "0"},
        wanted=wants(cores=(4, 5)),
    ),
    Case("huge-pages", NOT_APPLICABLE, "memory.huge_pages", wanted=wants(huge_pages=0)),
    Case("huge-pages", OK, "took what it got", {f"{HUGE}/free_hugepages": "0"}, **ENGINE),
    Case(
        "huge-pages",
        OK,
        "64 pages",
        {
            "/sys/devices/system/node/node0/cpulist": None,
            f"{HUGE}/nr_hugepages": None,
            f"{HUGE}/free_hugepages": None,
            "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "64",
            "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "64",
        },
    ),
    Case("huge-pages", NOT_APPLICABLE, "hugepages", {f"{HUGE}/free_hugepages": None}),
    Case("huge-pages", UNKNOWN, "hugepages", {f"{HUGE}/free_hugepages": "some"}),
    Case("memory-lock", OK, "no limit"),
    Case(
        "memory-lock",
        FAIL,
        "8 MiB may be locked, of 64",
        {"/proc/self/limits": "Max locked memory  8388608  8388608  bytes"},
    ),
    Case(
        "memory-lock", OK, "128 MiB", {"/proc/self/limits": "Max locked memory  134217728  134217728  bytes"}
    ),
    Case("memory-lock", OK, "CAP_IPC_LOCK", {"/proc/self/status": "CapEff:\t0000000000004000"}),
    Case("memory-lock", UNKNOWN, "limits", {"/proc/self/limits": "nothing"}),
    Case("transparent-huge-pages", OK, "only who asks"),
    Case(
        "transparent-huge-pages",
        WARN,
        "any program's",
        {"/sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never"},
        fix="echo madvise >",
        revert="echo always >",
    ),
    Case(
        "transparent-huge-pages",
        OK,
        "off",
        {"/sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]"},
    ),
    Case(
        "transparent-huge-pages",
        NOT_APPLICABLE,
        "transparent",
        {"/sys/kernel/mm/transparent_hugepage/enabled": None},
    ),
    Case(
        "transparent-huge-pages",
        UNKNOWN,
        "brackets",
        {"/sys/kernel/mm/transparent_hugepage/enabled": "always"},
    ),
    Case("ksm", OK, "off"),
    Case("ksm", FAIL, "runs", {"/sys/kernel/mm/ksm/run": "1"}, fix="echo 2 >", revert="echo 1 >"),
    Case("ksm", NOT_APPLICABLE, "ksm", {"/sys/kernel/mm/ksm/run": None}),
    Case("ksm", UNKNOWN, "ksm", {"/sys/kernel/mm/ksm/run": DENIED}),
    Case("numa-balancing", OK, "off"),
    Case("numa-balancing", OK, "without effect on one node", {"/proc/sys/kernel/numa_balancing": "1"}),
    Case(
        "numa-balancing",
        FAIL,
        "between 2 nodes",
        TWO_NODES | {"/proc/sys/kernel/numa_balancing": "2"},
        revert="echo 2 >",
    ),
    Case("numa-balancing", NOT_APPLICABLE, "numa", {"/proc/sys/kernel/numa_balancing": None}),
    Case("numa-balancing", UNKNOWN, "numa", {"/proc/sys/kernel/numa_balancing": DENIED}),
    Case("swap", OK, "no swap"),
    Case(
        "swap",
        WARN,
        "/dev/sda2",
        {"/proc/swaps": "Filename\n/dev/sda2 partition 100 0 -2"},
        revert="echo 60 >",
    ),
    Case(
        "swap",
        OK,
        "last resort",
        {"/proc/swaps": "Filename\n/dev/sda2 p 1 0 -2", "/proc/sys/vm/swappiness": "1"},
    ),
    Case("swap", NOT_APPLICABLE, "swaps", {"/proc/swaps": None}),
    Case("swap", UNKNOWN, "swaps", {"/proc/swaps": DENIED}),
    Case("shared-memory", OK, "default size"),
    Case("shared-memory", WARN, "64 MiB", {"/proc/self/mounts": "shm /dev/shm tmpfs rw,size=65536k 0 0"}),
    Case("shared-memory", OK, "1,024 MiB", {"/proc/self/mounts": "shm /dev/shm tmpfs rw,size=1048576k 0 0"}),
    Case("shared-memory", NOT_APPLICABLE, "/dev/shm", {"/proc/self/mounts": "proc /proc proc rw 0 0"}),
    Case("shared-memory", UNKNOWN, "mounts", {"/proc/self/mounts": DENIED}),
    *(
        case
        for name, path, bad in (
            ("compaction", "/proc/sys/vm/compaction_proactiveness", "20"),
            ("vm-statistics", "/proc/sys/vm/stat_interval", "1"),
            ("timer-migration", "/proc/sys/kernel/timer_migration", "1"),
        )
        for case in (
            Case(name, OK, ""),
            Case(name, WARN, bad, {path: bad}, fix=f" > {path}", revert=f"echo {bad} > {path}"),
            Case(name, NOT_APPLICABLE, path, {path: None}),
            Case(name, UNKNOWN, path, {path: "?"}),
        )
    ),
    # Power and clocks.
    Case("virtualisation", OK, "bare metal"),
    Case(
        "virtualisation", WARN, "virtual machine (Maker Model)", {"/proc/cpuinfo": "flags : tsc hypervisor"}
    ),
    Case("virtualisation", OK, "container on bare metal", {"/.dockerenv": ""}),
    Case("virtualisation", UNKNOWN, "flags", {"/proc/cpuinfo": "?"}),
    Case("stolen-time", OK, "no time worth naming"),
    Case(
        "stolen-time",
        WARN,
        "up to 1.00%",
        {"/proc/stat": "cpu2 100 0 0 890 0 0 0 10 0 0\ncpu3 100 0 0 900 0 0 0 0 0 0"},
    ),
    Case("stolen-time", UNKNOWN, "/proc/stat", {"/proc/stat": "?"}),
    Case("stolen-time", NOT_APPLICABLE, "/proc/stat", {"/proc/stat": None}),
    Case("governor", OK, "performance on 2-3"),
    Case(
        "governor",
        FAIL,
        "CPU 3",
        {f"{CPU}/cpu3/cpufreq/scaling_governor": "powersave"},
        fix=f"echo performance > {CPU}/cpu3/cpufreq/scaling_governor",
        revert=f"echo powersave > {CPU}/cpu3/cpufreq/scaling_governor",
    ),
    Case("governor", FAIL, "CPU 2", {f"{CPU}/cpu2/cpufreq/energy_performance_preference": "balance_power"}),
    Case("governor", NOT_APPLICABLE, "cpufreq", {f"{CPU}/cpu2/cpufreq/scaling_governor": None}),
    Case("governor", UNKNOWN, "cpufreq", {f"{CPU}/cpu2/cpufreq/scaling_governor": DENIED}),
    Case("idle-states", OK, "wakes within 10 us"),
    # The kernel's inversion: 0 is no limit.
    Case(
        "idle-states",
        WARN,
        "CPU 3 may sleep so deeply that waking takes 133 us",
        {f"{CPU}/cpu3/power/pm_qos_resume_latency_us": "0"},
        fix=f"echo n/a > {CPU}/cpu3/power/pm_qos_resume_latency_us",
        revert=f"echo 0 > {CPU}/cpu3/power/pm_qos_resume_latency_us",
    ),
    Case("idle-states", OK, "wakes within", {f"{CPU}/cpu3/power/pm_qos_resume_latency_us": "5"}),
    Case(
        "idle-states",
        OK,
        "wakes within",
        {f"{CPU}/cpu3/power/pm_qos_resume_latency_us": "0", f"{CPU}/cpu3/cpuidle/state2/disable": "1"},
    ),
    Case(
        "idle-states",
        OK,
        "never sleeps",
        {f"{CPU}/cpu3/power/pm_qos_resume_latency_us": "0"},
        wanted=wants(spin=True),
    ),
    Case(
        "idle-states",
        OK,
        "",
        {f"{CPU}/cpu3/power/pm_qos_resume_latency_us": "0", "/proc/cmdline": "idle=poll"},
    ),
    Case(
        "idle-states",
        NOT_APPLICABLE,
        "cpuidle",
        {
            f"{CPU}/cpu2/cpuidle/state{n}/{name}": None
            for n in range(3)
            for name in ("latency", "time", "disable")
        },
    ),
    Case("idle-states", UNKNOWN, "latency", {f"{CPU}/cpu2/cpuidle/state1/latency": "fast"}),
    Case("boost", OK, "on"),
    Case("boost", OK, "off", {f"{CPU}/intel_pstate/no_turbo": "1"}),
    Case("boost", NOT_APPLICABLE, "boost", {f"{CPU}/cpufreq/boost": None}),
    Case("boost", UNKNOWN, "boost", {f"{CPU}/cpufreq/boost": DENIED}),
    Case("mitigations", OK, "1 active; leave them on"),
    Case("mitigations", OK, "none", {f"{CPU}/vulnerabilities/spectre_v2": "Vulnerable"}),
    Case("mitigations", UNKNOWN, "l1tf", {f"{CPU}/vulnerabilities/l1tf": DENIED}),
    Case("clock-source", OK, "tsc"),
    Case("clock-source", OK, "kvm-clock", {f"{CLOCK}/current_clocksource": "kvm-clock"}, fix="echo tsc >"),
    Case(
        "clock-source",
        FAIL,
        "hpet: slow",
        {f"{CLOCK}/current_clocksource": "hpet"},
        fix="echo tsc >",
        revert="echo hpet >",
    ),
    Case(
        "clock-source",
        FAIL,
        "unsound",
        {f"{CLOCK}/current_clocksource": "hpet", f"{CLOCK}/available_clocksource": "hpet acpi_pm"},
    ),
    Case("clock-source", NOT_APPLICABLE, "clocksource", {f"{CLOCK}/current_clocksource": None}),
    Case("clock-source", UNKNOWN, "clocksource", {f"{CLOCK}/current_clocksource": DENIED}),
    Case("invariant-tsc", OK, "one rate"),
    Case("invariant-tsc", FAIL, "CLOCK_MONOTONIC", {"/proc/cpuinfo": "flags : tsc constant_tsc"}),
    Case("invariant-tsc", NOT_APPLICABLE, "Arm", {"/proc/cpuinfo": "Features : fp asimd crc32"}),
    Case("invariant-tsc", UNKNOWN, "cpuinfo", {"/proc/cpuinfo": DENIED}),
    Case("clock-sync", OK, "2.0 us from its source, measured 100 s ago"),
    Case("clock-sync", WARN, "nothing that we know", {"/proc/700/comm": "bash"}),
    Case(
        "clock-sync",
        WARN,
        "250.0 us",
        commands={"chronyc -n -c tracking": "A,B,1,1700004900.0,-0.000250,0,0,1,0,0,0,0,16,Normal"},
    ),
    Case(
        "clock-sync",
        FAIL,
        "5,000 s old",
        commands={"chronyc -n -c tracking": "A,B,1,1700000000.0,0.000001,0,0,1,0,0,0,0,16,Normal"},
    ),
    Case(
        "clock-sync",
        FAIL,
        "old",
        commands={"chronyc -n -c tracking": "0,,0,0.0,0.0,0,0,1,0,0,0,0,16,Not synchronised"},
    ),
    Case("clock-sync", UNKNOWN, "chronyd runs; how far", commands={}),
    Case(
        "clock-sync",
        UNKNOWN,
        "chronyd runs",
        commands={"chronyc -n -c tracking": "506 Cannot talk to daemon"},
    ),
    Case(
        "clock-sync",
        OK,
        "0.4 us from its source",
        {"/proc/700/comm": "ptp4l"},
        commands={"pmc -u -b 0 GET TIME_STATUS_NP": "sending: GET TIME_STATUS_NP\n\tmaster_offset   -412\n"},
    ),
    Case(
        "clock-sync",
        FAIL,
        "the last word of its source is 4,963 s old",
        {"/proc/700/comm": "ptp4l"},
        commands={
            "pmc -u -b 0 GET TIME_STATUS_NP": "\tmaster_offset   -412\n\tingress_time 1700000074000000000\n"
        },
    ),
    Case("clock-sync", UNKNOWN, "ptp4l runs", {"/proc/700/comm": "ptp4l"}, commands={}),
    # Network.
    Case("receive-buffer", OK, "65,536 KiB"),
    Case(
        "receive-buffer",
        FAIL,
        "208 KiB, of 8,192",
        {"/proc/sys/net/core/rmem_max": "212992"},
        fix="echo 8388608 >",
        revert="echo 212992 >",
    ),
    Case(
        "receive-buffer",
        FAIL,
        "65,536 KiB, of 262,144 that multicast.receive_buffer_bytes asks for",
        wanted=wants(rmem_bytes=256 << 20, lines=(LINE,)),
        fix="echo 268435456 >",
    ),
    Case("receive-buffer", OK, "asks for the kernel's default", wanted=wants(rmem_bytes=0, lines=(LINE,))),
    Case("receive-buffer", UNKNOWN, "this network namespace", {"/proc/sys/net/core/rmem_max": None}),
    Case("receive-steering", OK, "no packets"),
    Case(
        "receive-steering",
        WARN,
        "CPU 3",
        {
            "/sys/class/net/eth0/queues/rx-0/rps_cpus": "0000000c",
            "/sys/class/net/eth0/queues/tx-0/xps_cpus": DENIED,
        },
        wanted=wants(cores=(3,), names=("x",)),
        fix="echo 0 >",
        revert="echo 0000000c >",
    ),
    Case("receive-steering", UNKNOWN, "rps_cpus", {"/sys/class/net/eth0/queues/rx-0/rps_cpus": DENIED}),
    Case(
        "receive-steering",
        NOT_APPLICABLE,
        "interface",
        {"/sys/class/net/eth0/device/vendor": None, "/sys/class/net/eth0/device": None},
    ),
    *(
        Case(name, UNKNOWN, "no such interface", wanted=wants(interfaces=("eth0", "eth7")))
        for name in ("receive-steering", "interrupt-moderation", "receive-ring", "deferred-interrupts")
    ),
    Case("interrupt-moderation", OK, "at once"),
    Case(
        "interrupt-moderation",
        WARN,
        "eth0 waits",
        commands={"ethtool -c eth0": "Adaptive RX: on  TX: n/a\nrx-usecs: 8\n"},
        fix="ethtool -C eth0 adaptive-rx off rx-usecs 0",
        revert="ethtool -C eth0 adaptive-rx on rx-usecs 8",
    ),
    Case("interrupt-moderation", UNKNOWN, "eth0: cannot be asked", commands={}),
    Case("interrupt-moderation", NOT_APPLICABLE, "interface", {"/sys/class/net/eth0/device/vendor": None}),
    Case("receive-ring", OK, "no packet lost"),
    Case("receive-ring", WARN, "eth0 lost 7", {"/sys/class/net/eth0/statistics/rx_missed_errors": "7"}),
    Case(
        "receive-ring",
        NOT_APPLICABLE,
        "statistics",
        {
            f"/sys/class/net/eth0/statistics/{name}": None
            for name in ("rx_missed_errors", "rx_fifo_errors", "rx_over_errors")
        },
    ),
    Case("receive-ring", UNKNOWN, "rx_missed", {"/sys/class/net/eth0/statistics/rx_missed_errors": DENIED}),
    Case("deferred-interrupts", OK, "both or neither"),
    Case(
        "deferred-interrupts",
        WARN,
        "eth0",
        {"/sys/class/net/eth0/gro_flush_timeout": "20000"},
        revert="echo 20000 >",
    ),
    Case(
        "deferred-interrupts",
        NOT_APPLICABLE,
        "napi",
        {"/sys/class/net/eth0/napi_defer_hard_irqs": None},
        kernel="5.4.0",
    ),
    Case("deferred-interrupts", UNKNOWN, "napi", {"/sys/class/net/eth0/napi_defer_hard_irqs": "x"}),
    Case(
        "deferred-interrupts",
        WARN,
        "prefer_busy_poll is asked for, and without both",
        wanted=wants(prefer_busy_poll=True),
        fix="echo 100 >",
        revert="echo 0 >",
    ),
    Case("feed-interfaces", NOT_APPLICABLE, "no line of a multicast feed"),
    Case("feed-interfaces", OK, "lines come in on eth0", wanted=wants(lines=(LINE,))),
    Case("feed-interfaces", OK, "the only network", wanted=wants(lines=(ANY_LINE,))),
    Case(
        "feed-interfaces",
        WARN,
        "f.lines[1]: no interface is named, and routes choose among eth0, eth1",
        {"/sys/class/net/eth1/device/vendor": "0x1"},
        wanted=wants(lines=(LINE, ANY_LINE)),
    ),
    Case(
        "feed-interfaces",
        FAIL,
        "eth0 is down, which f.lines[0] names",
        {"/sys/class/net/eth0/flags": "0x1002"},
        wanted=wants(lines=(LINE,)),
        fix="ip link set eth0 up",
        revert="ip link set eth0 down",
    ),
    Case(
        "feed-interfaces",
        FAIL,
        "eth0 takes no multicast",
        {"/sys/class/net/eth0/flags": "0x3"},
        wanted=wants(lines=(LINE,)),
        fix="multicast on",
    ),
    Case(
        "feed-interfaces",
        FAIL,
        "eth7 is not there, which f.lines[0] names",
        wanted=wants(lines=(dataclasses.replace(LINE, interface="eth7"),)),
        fix="multicast.interface",
    ),
    Case(
        "feed-interfaces",
        UNKNOWN,
        "flags",
        {"/sys/class/net/eth0/flags": DENIED},
        wanted=wants(lines=(LINE,)),
    ),
    Case("feed-senders", NOT_APPLICABLE, "no line of a multicast feed"),
    Case("feed-senders", OK, "for its sender alone", wanted=wants(lines=(LINE,))),
    Case(
        "feed-senders",
        WARN,
        "f.lines[1] takes datagrams of any sender",
        wanted=wants(lines=(LINE, ANY_LINE)),
        fix="multicast.source_address",
    ),
    Case("busy-polling", NOT_APPLICABLE, "no busy polling"),
    Case(
        "busy-polling",
        OK,
        "without asking",
        {"/proc/sys/net/core/busy_read": "50"},
        wanted=wants(busy_poll_us=50),
    ),
    Case(
        "busy-polling",
        OK,
        "CAP_NET_ADMIN",
        {"/proc/self/status": "CapEff:\t1000"},
        wanted=wants(busy_poll_us=50),
    ),
    Case(
        "busy-polling",
        FAIL,
        "multicast.busy_poll_us = 50 needs CAP_NET_ADMIN",
        wanted=wants(busy_poll_us=50),
        fix="AmbientCapabilities",
    ),
    Case("busy-polling", FAIL, "multicast.prefer_busy_poll needs CAP", wanted=wants(prefer_busy_poll=True)),
    Case("busy-polling", FAIL, "Linux 5.11", kernel="5.4.0", wanted=wants(prefer_busy_poll=True)),
    Case("busy-polling", UNKNOWN, "CapEff", {"/proc/self/status": "Name: x"}, wanted=wants(busy_poll_us=50)),
    Case("nic-stamps", NOT_APPLICABLE, "no stamps of a card"),
    Case("nic-stamps", OK, "eth0 stamps what it receives", wanted=wants(nic_stamps=True)),
    Case(
        "nic-stamps",
        FAIL,
        "eth0 stamps nothing on receipt",
        commands={"ethtool -T eth0": "Capabilities:\n\tsoftware-receive\n"},
        wanted=wants(nic_stamps=True),
        fix="nic_stamps = false",
    ),
    Case("nic-stamps", UNKNOWN, "eth0: cannot be asked", commands={}, wanted=wants(nic_stamps=True)),
    Case("reverse-path", OK, "one network"),
    Case(
        "reverse-path",
        WARN,
        "bond0 filter strictly",
        {"/proc/sys/net/ipv4/conf/bond0/rp_filter": "1", "/proc/sys/net/ipv4/conf/eth0/rp_filter": "0"},
        wanted=wants(interfaces=("bond0",)),
        fix="echo 2 >",
    ),
    Case(
        "reverse-path",
        WARN,
        "eth0",
        {"/sys/class/net/eth1/device/vendor": "1", "/proc/sys/net/ipv4/conf/eth1/rp_filter": "2"},
        fix="echo 2 > /proc/sys/net/ipv4/conf/eth0/rp_filter",
    ),
    Case(
        "reverse-path",
        OK,
        "not strict",
        {
            "/sys/class/net/eth1/device/vendor": "1",
            "/proc/sys/net/ipv4/conf/eth0/rp_filter": "0",
            "/proc/sys/net/ipv4/conf/eth1/rp_filter": "2",
        },
    ),
    Case("reverse-path", UNKNOWN, "rp_filter", {"/proc/sys/net/ipv4/conf/all/rp_filter": DENIED}),
    # By effect, over ten seconds.
    Case("seen-interrupts", OK, "none in 10.0 s", **MEASURED),
    Case(
        "seen-interrupts",
        FAIL,
        "2.4 a second of 1 devices",
        {"/proc/interrupts": NOISY},
        then={"/proc/interrupts": INTERRUPTS},
    ),
    Case(
        "seen-interrupts",
        UNMOVABLE,
        "which root cannot move",
        {"/proc/interrupts": NOISY, "/proc/irq/24/smp_affinity_list": READ_ONLY + "0-7"},
        then={"/proc/interrupts": INTERRUPTS},
    ),
    Case("seen-interrupts", UNKNOWN, "column", {"/proc/interrupts": "?"}, **MEASURED),
    Case("seen-interrupts", NOT_APPLICABLE, "/proc/interrupts", {"/proc/interrupts": None}, **MEASURED),
    Case("seen-tick", OK, "at most 0.0", host={"probes": (Probe(2, 0, 0, 1), Probe(3, 0, 0, 1))}, **MEASURED),
    Case("seen-tick", OK, "at most 0.0", engine(), **ENGINE, **MEASURED),
    Case("seen-tick", UNKNOWN, "an idle one has no tick", host={"probes": (Probe(2, 0, 0, 1),)}, **MEASURED),
    Case(
        "seen-tick",
        FAIL,
        "1,000 a second on CPU 3, although nohz_full names it: another runnable task, a timer, or work",
        {"/proc/interrupts": NOISY},
        then={"/proc/interrupts": INTERRUPTS},
    ),
    Case(
        "seen-tick",
        FAIL,
        "the fair server",
        {"/proc/interrupts": NOISY},
        then={"/proc/interrupts": INTERRUPTS},
        kernel="6.14.0",
    ),
    Case(
        "seen-tick",
        FAIL,
        "because nohz_full does not name it",
        {"/proc/interrupts": NOISY, f"{CPU}/nohz_full": None},
        then={"/proc/interrupts": INTERRUPTS},
    ),
    Case("seen-tick", UNKNOWN, "/proc/interrupts", {"/proc/interrupts": DENIED}, **MEASURED),
    Case(
        "seen-tick",
        NOT_APPLICABLE,
        "LOC",
        {"/proc/interrupts": INTERRUPTS.replace("LOC", "IPI0")},
        **MEASURED,
    ),
    Case("seen-calls", OK, "at most 0.0", **MEASURED),
    Case(
        "seen-calls", WARN, "up to 200.0", {"/proc/interrupts": CALLS}, then={"/proc/interrupts": INTERRUPTS}
    ),
    Case("seen-calls", UNKNOWN, "/proc/interrupts", {"/proc/interrupts": DENIED}, **MEASURED),
    Case("seen-switches", OK, "at most 0.0", engine(), **ENGINE, **MEASURED),
    Case(
        "seen-switches",
        FAIL,
        "tw-ingest0 lost its core 2.0 times",
        engine(switches=25),
        then=engine(switches=5),
        **ENGINE,
    ),
    Case(
        "seen-switches",
        FAIL,
        "a thread of ours on CPU 3",
        host={"probes": (Probe(3, 400, 0.3, 4_000_000),)},
        **MEASURED,
    ),
    Case("seen-switches", OK, "at most 0.1", host={"probes": (Probe(2, 1, 0.0, 10),)}, **MEASURED),
    Case("seen-switches", UNKNOWN, "no engine runs", **MEASURED),
    Case("seen-lost-time", OK, "0.0500%", host={"probes": (Probe(2, 0, 0.0005, 30_000),)}, **MEASURED),
    Case("seen-lost-time", WARN, "30.0000%", host={"probes": (Probe(3, 400, 0.3, 4_000_000),)}, **MEASURED),
    Case("seen-lost-time", NOT_APPLICABLE, "an engine runs", **ENGINE, **MEASURED),
    Case("seen-lost-time", UNKNOWN, "may spin on none", **MEASURED),
    Case("seen-faults", OK, "none", engine(), **ENGINE, **MEASURED),
    Case("seen-faults", WARN, "3 pages", engine(faults=(13, 0)), then=engine(), **ENGINE),
    Case("seen-faults", FAIL, "1 times a thread waited", engine(faults=(13, 1)), then=engine(), **ENGINE),
    Case("seen-faults", NOT_APPLICABLE, "no engine runs", **MEASURED),
    Case("seen-faults", UNKNOWN, "tw-", {"/proc/900/task/900/comm": "other"}, **ENGINE, **MEASURED),
    Case("seen-steal", OK, "0.00%", {"/proc/stat": stolen(0)}, then={"/proc/stat": tuned()["/proc/stat"]}),
    Case("seen-steal", WARN, "0.50%", {"/proc/stat": stolen(5)}, then={"/proc/stat": tuned()["/proc/stat"]}),
    Case("seen-steal", FAIL, "5.00%", {"/proc/stat": stolen(50)}, then={"/proc/stat": tuned()["/proc/stat"]}),
    Case("seen-steal", UNKNOWN, "/proc/stat", {"/proc/stat": "?"}, **MEASURED),
    Case("seen-drops", OK, "none", **MEASURED),
    Case(
        "seen-drops",
        FAIL,
        "5 lost, most of them at /proc/net/snmp: Udp RcvbufErrors",
        {"/proc/net/snmp": str(tuned()["/proc/net/snmp"]).replace("1000 0 0\n", "1000 5 0\n")},
        then={"/proc/net/snmp": tuned()["/proc/net/snmp"]},
    ),
    Case(
        "seen-drops",
        FAIL,
        "3 lost, most of them at /proc/net/softnet_stat",
        {"/proc/net/softnet_stat": "0000aaaa 00000003 00000003"},
        then={"/proc/net/softnet_stat": "0000aaaa 00000000 00000003"},
    ),
    Case(
        "seen-drops",
        FAIL,
        "at /sys/class/net/eth0/statistics/rx_missed_errors",
        {"/sys/class/net/eth0/statistics/rx_missed_errors": "9"},
        then={"/sys/class/net/eth0/statistics/rx_missed_errors": "0"},
    ),
    Case("seen-drops", UNKNOWN, "softnet", {"/proc/net/softnet_stat": "?"}, **MEASURED),
    Case("granted-buffer", OK, "8,192 KiB", host={"granted_bytes": 16 << 20}, **MEASURED),
    Case("granted-buffer", NOT_APPLICABLE, "default", wanted=wants(rmem_bytes=0), **MEASURED),
    Case("granted-buffer", FAIL, "4,096 KiB granted of 8,192", host={"granted_bytes": 8 << 20}, **MEASURED),
    Case("granted-buffer", UNKNOWN, "no socket", **MEASURED),
    Case("ring-pages", OK, "48 MiB on huge pages, locked", engine(), **ENGINE, **MEASURED),
    Case(
        "ring-pages",
        FAIL,
        "48 MiB on small pages",
        engine() | {"/proc/900/smaps": SMAPS.replace("2048 kB", "4 kB")},
        **ENGINE,
        **MEASURED,
    ),
    Case(
        "ring-pages",
        WARN,
        "48 MiB are not locked",
        engine() | {"/proc/900/smaps": TRANSPARENT},
        **ENGINE,
        **MEASURED,
    ),
    Case(
        "ring-pages",
        FAIL,
        "memory on node 1",
        engine() | TWO_NODES | {"/proc/900/numa_maps": "7f0000000000 default anon=24 N1=24"},
        **ENGINE,
        **MEASURED,
    ),
    Case("ring-pages", NOT_APPLICABLE, "no engine runs", **MEASURED),
    Case("ring-pages", UNKNOWN, "expected memory", engine() | {"/proc/900/smaps": ""}, **ENGINE, **MEASURED),
    Case("seen-frequency", OK, "steady", **MEASURED),
    Case(
        "seen-frequency",
        WARN,
        "it moved by 50%",
        {f"{CPU}/cpu2/cpufreq/scaling_cur_freq": "2000000"},
        then={f"{CPU}/cpu2/cpufreq/scaling_cur_freq": "4000000"},
    ),
    Case(
        "seen-frequency",
        NOT_APPLICABLE,
        "cpufreq",
        {f"{CPU}/cpu2/cpufreq/scaling_cur_freq": None},
        **MEASURED,
    ),
    Case("seen-frequency", UNKNOWN, "cpufreq", {f"{CPU}/cpu2/cpufreq/scaling_cur_freq": "x"}, **MEASURED),
    Case("seen-idle", OK, "no core slept", **MEASURED),
    *(
        Case(
            "seen-idle",
            verdict,
            says,
            engine() | {f"{CPU}/cpu2/cpuidle/state2/time": "5001000"},
            then=engine() | {f"{CPU}/cpu2/cpuidle/state2/time": "1000"},
            wanted=wants(spin=spin),
            **ENGINE,
        )
        for verdict, says, spin in (
            (FAIL, "though its thread was asked to spin", True),
            (OK, "CPU 2 slept while", False),
        )
    ),
    Case("seen-idle", UNKNOWN, "time", {f"{CPU}/cpu2/cpuidle/state2/time": "x"}, **MEASURED),
    Case(
        "seen-idle",
        NOT_APPLICABLE,
        "cpuidle",
        {
            f"{CPU}/cpu2/cpuidle/state{n}/{name}": None
            for n in range(3)
            for name in ("latency", "time", "disable")
        },
        **MEASURED,
    ),
]


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The tuned host, and the same a while ago. A test changes what it is about and puts it back."""
    folders = (tmp_path_factory.mktemp("now"), tmp_path_factory.mktemp("then"))
    for folder in folders:
        build(folder, tuned())
    return folders


def judge(case: Case, trees: tuple[Path, Path]) -> Finding:
    files = tuned()
    changes = {"/proc/sys/kernel/osrelease": case.kernel} | case.changes
    now, then = (Reader(folder, case.commands) for folder in trees)
    with changed(now.root, files, changes), changed(then.root, files, changes | (case.then or {})):
        before = then if case.then is not None else None
        host = Host(now, case.wanted, before=before, seconds=10.0 if before else 0.0, **case.host)
        return CHECKS[case.check].run(host, Profile.DEDICATED)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.check}-{case.verdict}".replace(" ", "_"))
def test_check(case: Case, trees: tuple[Path, Path]) -> None:
    finding = judge(case, trees)
    assert finding.verdict is case.verdict, finding
    assert case.says in finding.found, finding
    if case.fix is not None:
        assert case.fix in finding.fix
    if case.revert is not None:
        assert case.revert in finding.revert
    if finding.verdict in (WARN, FAIL):
        assert finding.fix, "says what is wrong and not what to do"
        assert finding.evidence, "says what is wrong and not what was read"


def test_every_check_has_a_case_of_each_verdict_that_it_can_give() -> None:
    reached = defaultdict(set)
    for case in CASES:
        reached[case.check].add(case.verdict)
    assert reached.keys() == CHECKS.keys()
    told_only = {"mitigations", "boost"}
    for name, verdicts in reached.items():
        assert OK in verdicts, name
        assert verdicts & {WARN, FAIL} or name in told_only, name
        assert verdicts & {UNKNOWN, NOT_APPLICABLE}, name
    assert set().union(*reached.values()) == set(Verdict)


def test_tuned_host_has_no_finding_on_any_of_several_kernels(tmp_path: Path) -> None:
    for kernel in ("5.4.0", "5.15.0-91-generic", "6.1.0-18-amd64", "6.8.0", "6.12.3", "6.18.44"):
        reader = build(tmp_path, tuned(kernel))
        for profile in Profile:
            findings = examine(Host(reader, WANTED), profile)
            assert {f.check: f.found for f in findings if f.verdict in (WARN, FAIL, UNMOVABLE)} == {}
            unknown = {f.check for f in findings if f.verdict is UNKNOWN}
            assert unknown == (
                {"fair-server"} if kernel >= "6.12" and kernel[:3] == "6.1" and kernel[3] in "28" else set()
            )


def test_areas_come_in_one_order(tmp_path: Path) -> None:
    areas = [finding.area for finding in examine(Host(build(tmp_path, tuned()), WANTED), Profile.VM)]
    assert areas == sorted(areas, key=AREAS.index)


# What each profile makes of a failure: laptop, vm, shared, dedicated.
@pytest.mark.parametrize(
    ("need", "check", "changes", "verdicts"),
    [
        (Need.BASIC, "clock-source", {f"{CLOCK}/current_clocksource": "hpet"}, (WARN, FAIL, FAIL, FAIL)),
        (Need.RUNTIME, "ksm", {"/sys/kernel/mm/ksm/run": "1"}, (OK, FAIL, WARN, FAIL)),
        (Need.BOOT, "isolation-tick", {f"{CPU}/nohz_full": ""}, (OK, WARN, OK, FAIL)),
    ],
)
def test_profiles_differ_in_what_they_ask(
    need: Need, check: str, changes: dict[str, Any], verdicts: tuple[Verdict, ...], tmp_path: Path
) -> None:
    assert CHECKS[check].need is need
    host = Host(build(tmp_path, tuned() | changes), WANTED)
    for profile, verdict in zip(Profile, verdicts, strict=True):
        finding = CHECKS[check].run(host, profile)
        assert (profile, finding.verdict, finding.strict) == (profile, verdict, FAIL)


@pytest.mark.parametrize("tree", ["empty", "bare", "unreadable"])
def test_nothing_readable_is_unknown_and_no_crash(tree: str, tmp_path: Path) -> None:
    files: dict[str, Any] = {}
    if tree == "bare":
        files = {"/proc/other": "", "/sys/other": ""}
    elif tree == "unreadable":
        files = dict.fromkeys(tuned(), DENIED)
    reader = build(tmp_path / "now", files, {})
    before = build(tmp_path / "then", files, {})
    findings = examine(Host(reader, WANTED, before=before, seconds=1.0), Profile.DEDICATED)
    assert len(findings) == len(CHECKS)
    claimed = {f.check: (f.verdict, f.found) for f in findings if f.verdict not in (UNKNOWN, NOT_APPLICABLE)}
    assert claimed == {}
    unknown = {f.check for f in findings if f.verdict is UNKNOWN}
    if tree != "bare":  # There, what is missing is missing. Here only an engine is.
        assert {f.check for f in findings} - unknown <= {
            "seen-faults",
            "ring-pages",
            *OF_LINES,
            "seen-lost-time",
        }


def test_a_folder_that_may_not_be_entered_is_unknown_and_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each folder of the tree in turn is closed to an ordinary user, or open for its names only."""
    files = tuned("6.12.1") | engine()
    build(tmp_path / "host", files)
    # Folders above, made for the tests of root, may be closed to others.
    monkeypatch.chdir(tmp_path)
    reader = Reader("host", COMMANDS)
    for folder in sorted(path for path in Path("host").rglob("*") if path.is_dir()):
        for mode in (0o000, 0o444):
            folder.chmod(mode)
            try:
                with ordinary_user():
                    host = Host(reader, WANTED, before=freeze(reader, WANTED, (900,)), seconds=1.0)
                    host = dataclasses.replace(host, engines=running_engines(reader, host.cores))
                    findings = examine(host, Profile.DEDICATED)
            finally:
                folder.chmod(0o755)
            bad = [finding for finding in findings if finding.verdict is FAIL]
            assert not bad, (folder, oct(mode))


@contextmanager
def ordinary_user() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def test_garbage_in_any_file_is_no_crash(tmp_path: Path) -> None:
    """Every file in turn holds what no check expects, then all at once."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    files = tuned("6.12.1") | engine(policy=1)
    junk = [
        "",
        "-",
        "(null)",
        "999999999999999999999",
        "a b c\n: :\n",
        "\ufffd\x00",
        "0-",
        "cpu0 \nCPU0",
        "-1",
        "[x]",
    ]
    reader = build(tmp_path, files)
    host = Host(reader, WANTED, before=reader, seconds=1.0, engines=(900,), granted_bytes=1)
    for path in files:
        place = tmp_path / path.lstrip("/")
        original = place.read_bytes()
        place.write_text(rng.choice(junk))
        examine(host, Profile.DEDICATED)
        place.write_bytes(original)
    for path in files:
        (tmp_path / path.lstrip("/")).write_text(rng.choice(junk))
    examine(host, Profile.DEDICATED)


def test_lists_and_masks_of_cpus() -> None:
    from tickwire.host.reader import format_cpus, format_mask, parse_cpus, parse_mask

    assert parse_cpus("0-2,8,10-11") == {0, 1, 2, 8, 10, 11}
    assert parse_cpus("0-15:2/8") == {0, 1, 8, 9}
    assert parse_cpus("(null)") == parse_cpus("") == set()
    assert parse_mask("1,00000000,80000001") == {0, 31, 64}
    assert format_cpus({11, 10, 8, 0, 1, 2}) == "0-2,8,10-11"
    rng = random.Random(7)
    for _ in range(200):
        cpus = frozenset(rng.sample(range(200), rng.randrange(1, 50)))
        assert parse_cpus(format_cpus(cpus)) == cpus
        assert parse_mask(format_mask(cpus)) == cpus
    for bad in ("1-", "a", "3-1", "1,,2", "0-99999999", "1:2"):
        with pytest.raises(ValueError, match="expected a CPU list"):
            parse_cpus(bad)
