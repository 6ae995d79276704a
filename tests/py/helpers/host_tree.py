"""A host made of files: a /proc and a /sys with known truth, below a folder.

`tuned()` is bare metal with eight CPUs, of which 2 and 3 are the engine's and everything
is as it should be. A test changes what it is about. A value of None takes a file away, `DENIED` leaves
something there that cannot be read, also not by root.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tickwire.host.reader import Reader

DENIED = object()
READ_ONLY = "\0read-only\0"

CPUS = range(8)
CORES = (2, 3)


def interrupts(**changes: list[int]) -> str:
    """/proc/interrupts of the tuned host; a row's counts by CPU can be given: `LOC=[…]`, `irq24=[…]`."""
    rows: dict[str, tuple[list[int], str]] = {
        "irq24": ([900, 0, 0, 0, 0, 0, 0, 0], "PCI-MSI 0-edge eth0-rx-0"),
        "irq25": ([0, 800, 0, 0, 0, 0, 0, 0], "PCI-MSI 1-edge nvme0q1"),
        "irq26": ([0] * 8, "PCI-MSI 2-edge unused"),
        "LOC": ([50000, 50000, 100, 100, 50000, 50000, 50000, 50000], "Local timer interrupts"),
        "RES": ([10, 10, 2, 2, 10, 10, 10, 10], "Rescheduling interrupts"),
        "TLB": ([5, 5, 0, 0, 5, 5, 5, 5], "TLB shootdowns"),
    }
    text = " " * 6 + " ".join(f"{f'CPU{n}':>10}" for n in CPUS) + "\n"
    for name, (counts, what) in rows.items():
        counts = changes.get(name, counts)
        text += f"{name.removeprefix('irq'):>4}: " + " ".join(f"{n:>10}" for n in counts) + f"  {what}\n"
    return text + " ERR:          0\n"


_STAT = "cpu  800 0 800 80000 0 0 0 0 0 0\n" + "".join(f"cpu{n} 100 0 100 10000 0 0 0 0 0 0\n" for n in CPUS)
_STAT += "intr 1 2 3\nbtime 1700000000\n"

_LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max locked memory         unlimited            unlimited            bytes
"""

_FLAGS = "fpu tsc msr constant_tsc nonstop_tsc rdtscp"

_SNMP = """\
Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors
Udp: 1000 0 0 1000 0 0
"""


def tuned(kernel: str = "6.8.0-45-generic") -> dict[str, object]:
    """The files of a host where nothing is wrong."""
    cpu = "/sys/devices/system/cpu"
    files: dict[str, object] = {
        "/proc/sys/kernel/osrelease": kernel,
        "/proc/cmdline": "root=/dev/sda1 isolcpus=managed_irq,domain,2-3 nohz_full=2-3 rcu_nocbs=2-3 quiet",
        "/proc/cpuinfo": f"processor\t: 0\nflags\t\t: {_FLAGS}\n",
        "/proc/stat": _STAT,
        "/proc/uptime": "5000.00 40000.00",
        "/proc/interrupts": interrupts(),
        "/proc/swaps": "Filename\tType\tSize\tUsed\tPriority",
        "/proc/self/status": "Name:\tpython\nCapEff:\t0000000000000000\nCpus_allowed_list:\t0-1,4-7\n",
        "/proc/self/limits": _LIMITS,
        "/proc/self/cgroup": "0::/",
        "/proc/self/mounts": "tmpfs /dev/shm tmpfs rw,nosuid,nodev 0 0",
        "/proc/1/comm": "systemd",
        "/proc/2/comm": "kthreadd",
        "/proc/irq/default_smp_affinity": "f3",
        "/proc/net/snmp": _SNMP,
        "/proc/net/softnet_stat": "0000aaaa 00000000 00000003\n0000bbbb 00000000 00000000",
        "/proc/sys/kernel/sched_rt_runtime_us": "950000",
        "/proc/sys/kernel/watchdog": "1",
        "/proc/sys/kernel/nmi_watchdog": "0",
        "/proc/sys/kernel/watchdog_cpumask": "0-1,4-7",
        "/proc/sys/kernel/printk": "4\t4\t1\t7",
        "/proc/sys/kernel/numa_balancing": "0",
        "/proc/sys/kernel/timer_migration": "0",
        "/proc/sys/vm/swappiness": "60",
        "/proc/sys/vm/stat_interval": "10",
        "/proc/sys/vm/compaction_proactiveness": "0",
        "/proc/sys/net/core/rmem_max": str(64 << 20),
        "/proc/sys/net/core/busy_read": "0",
        "/proc/sys/net/ipv4/conf/all/rp_filter": "0",
        "/proc/sys/net/ipv4/conf/eth0/rp_filter": "1",
        f"{cpu}/online": "0-7",
        f"{cpu}/isolated": "2-3",
        f"{cpu}/nohz_full": "2-3",
        f"{cpu}/smt/control": "on",
        f"{cpu}/cpufreq/boost": "1",
        f"{cpu}/vulnerabilities/spectre_v2": "Mitigation: Retpolines",
        f"{cpu}/vulnerabilities/l1tf": "Not affected",
        "/sys/devices/virtual/workqueue/cpumask": "f3",
        "/sys/devices/virtual/workqueue/writeback/cpumask": "f3",
        "/sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
        "/sys/devices/system/clocksource/clocksource0/available_clocksource": "tsc hpet acpi_pm",
        "/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
        "/sys/kernel/mm/transparent_hugepage/defrag": "always defer defer+madvise [madvise] never",
        "/sys/kernel/mm/ksm/run": "0",
        "/sys/devices/system/node/node0/cpulist": "0-7",
        "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages": "128",
        "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages": "128",
        "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu memory",
        "/sys/class/dmi/id/sys_vendor": "Maker",
        "/sys/class/dmi/id/product_name": "Model",
        "/sys/class/ptp/ptp0/clock_name": "card",
        "/sys/class/net/lo/mtu": "65536",
        "/sys/class/net/eth0/device/vendor": "0x1",
        "/sys/class/net/eth0/flags": "0x1003",
        "/sys/class/net/eth0/napi_defer_hard_irqs": "0",
        "/sys/class/net/eth0/gro_flush_timeout": "0",
        "/sys/class/net/eth0/queues/rx-0/rps_cpus": "00",
        "/sys/class/net/eth0/queues/tx-0/xps_cpus": "01",
        "/sys/class/net/eth0/statistics/rx_missed_errors": "0",
        "/sys/class/net/eth0/statistics/rx_fifo_errors": "0",
        "/sys/class/net/eth0/statistics/rx_over_errors": "0",
        "/sys/class/net/eth0/statistics/rx_dropped": "0",
    }
    for irq, allowed, effective in ((24, "0", "0"), (25, "0-1,4-7", "1"), (26, "0-7", "0")):
        files[f"/proc/irq/{irq}/smp_affinity_list"] = allowed
        files[f"/proc/irq/{irq}/effective_affinity_list"] = effective
    for n in CPUS:
        # CPUs n and n + 4 would be two threads of one core, had they not been switched off: one each.
        files[f"{cpu}/cpu{n}/topology/thread_siblings_list"] = str(n)
        files[f"{cpu}/cpu{n}/cpufreq/scaling_governor"] = "performance"
        files[f"{cpu}/cpu{n}/cpufreq/energy_performance_preference"] = "performance"
        files[f"{cpu}/cpu{n}/cpufreq/scaling_cur_freq"] = "3500000"
        files[f"{cpu}/cpu{n}/power/pm_qos_resume_latency_us"] = "n/a"
        for state, latency in ((0, 0), (1, 2), (2, 133)):
            files[f"{cpu}/cpu{n}/cpuidle/state{state}/latency"] = str(latency)
            files[f"{cpu}/cpu{n}/cpuidle/state{state}/time"] = "1000"
            files[f"{cpu}/cpu{n}/cpuidle/state{state}/disable"] = "0"
    files["/proc/700/comm"] = "chronyd"
    return files


#: What the commands of a tuned host print.
COMMANDS = {
    # Asked 100 s ago, 2 us off.
    "chronyc -n -c tracking": "50545030,PHC0,1,1700004900.0,0.000002,0,0,1.2,0.0,0.1,0.0,0.0,16.0,Normal",
    "ethtool -c eth0": "Coalesce parameters for eth0:\nAdaptive RX: off  TX: "
    "off\nrx-usecs:\t0\nrx-frames:\t0\n",
    "ethtool -T eth0": "Time stamping parameters for eth0:\nCapabilities:\n\thardware-receive\n",
    "ethtool -g eth0": "Ring parameters for eth0:\nPre-set maximums:\nRX:\t\t4096\nTX:\t\t4096\n"
    "Current hardware settings:\nRX:\t\t1024\nTX:\t\t1024\n",
}


def engine(
    pid: int = 900, *, policy: int = 0, switches: int = 0, faults: tuple[int, int] = (10, 0)
) -> dict[str, object]:
    """The files of a running engine with one thread pinned to CPU 2, 48 MiB of it on huge pages."""
    tid = pid + 1
    fields = ["S", *["0"] * 6, str(faults[0]), "0", str(faults[1]), *["0"] * 28, str(policy), "0"]
    head = "7f0000000000-7f0003000000 rw-p 00000000 00:0f 1  /anon_hugepage (deleted)"
    return {
        f"/proc/{pid}/comm": "tickwire",
        f"/proc/{pid}/task/{pid}/comm": "tickwire",
        f"/proc/{pid}/task/{pid}/stat": f"{pid} (tickwire) {' '.join(fields[:38])} 0 0",
        f"/proc/{pid}/task/{tid}/comm": "tw-ingest0",
        f"/proc/{pid}/task/{tid}/status": f"Cpus_allowed_list:\t2\nnonvoluntary_ctxt_switches:\t{switches}\n",
        f"/proc/{pid}/task/{tid}/stat": f"{tid} (tw-ingest0) {' '.join(fields)}",
        f"/proc/{pid}/smaps": f"{head}\nSize:              49152 kB\nKernelPageSize:     2048 kB\n"
        "AnonHugePages:         0 kB\nLocked:                0 kB\nVmFlags: rd wr mr mw me dc de ht\n"
        "7ffe00000000-7ffe00021000 rw-p 00000000 00:00 0  [stack]\nSize:                132 kB\n"
        "KernelPageSize:        4 kB\nLocked:                0 kB\nVmFlags: rd wr mr mw me gd ac\n",
        f"/proc/{pid}/numa_maps": "7f0000000000 default anon=24 N0=24 kernelpagesize_kB=2048\n",
    }


def _write(folder: Path, path: str, content: object) -> None:
    place = folder / path.lstrip("/")
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    if content is None:
        parent = place.parent  # A directory of nothing is not there either.
        while parent != folder and parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
            parent = parent.parent
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if content is DENIED:
        place.mkdir()  # Reading a directory as a file is refused to everybody.
        return
    assert isinstance(content, str)
    place.write_text(content.removeprefix(READ_ONLY) + "\n")
    if content.startswith(READ_ONLY):
        place.chmod(0o444)


def build(folder: Path, files: Mapping[str, object], commands: Mapping[str, str] = COMMANDS) -> Reader:
    """Writes the files, and nothing else, and gives a reader of them."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for path, content in files.items():
        if content is not None:
            _write(folder, path, content)
    return Reader(folder, commands)


@contextmanager
def changed(folder: Path, files: Mapping[str, object], changes: Mapping[str, object]) -> Iterator[None]:
    """The tree of `files` with changes, until the end of the block."""
    for path, content in changes.items():
        _write(folder, path, content)
    try:
        yield
    finally:
        for path in changes:
            _write(folder, path, None)
        for path in changes:
            if path in files:
                _write(folder, path, files[path])
