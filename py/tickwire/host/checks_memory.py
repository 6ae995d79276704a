"""Checks of memory: what stops a thread at a page."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tickwire.host.finding import Finding, Host, Need, Verdict, check
from tickwire.host.reader import Absent, Unreadable, format_cpus

__all__: list[str] = []

_HUGE_KB = 2048
_CAP_IPC_LOCK = 14


@check(
    "huge-pages",
    "memory",
    Need.RUNTIME,
    "Rings and books on 4 KiB pages miss the address cache at every other access. Pages of the reserved "
    "pool are "
    "there from the start and stay; transparent ones are luck.",
)
def huge_pages(host: Host) -> Finding:
    reader = host.reader
    need = host.wanted.huge_pages
    if need == 0:
        return Finding(Verdict.NOT_APPLICABLE, 'memory.huge_pages = "off"')
    nodes = reader.nodes()
    wanted = sorted(node for node, cpus in nodes.items() if cpus & host.cores) or sorted(nodes)
    evidence = []
    free: dict[int, int] = {}
    reserved: dict[int, int] = {}
    for node in sorted(nodes):
        base = f"/sys/devices/system/node/node{node}/hugepages/hugepages-{_HUGE_KB}kB"
        if not reader.has(base):
            base = f"/sys/kernel/mm/hugepages/hugepages-{_HUGE_KB}kB"
        free[node] = reader.number(f"{base}/free_hugepages")
        reserved[node] = reader.number(f"{base}/nr_hugepages")
        evidence.append(f"{base}: {free[node]} of {reserved[node]} free")
    if host.engines:
        found = (
            f"an engine runs, and took what it got: {sum(free.values())} of {sum(reserved.values())} still "
            "free"
        )
        return Finding(Verdict.OK, found, tuple(evidence))
    best = max(wanted, key=lambda node: free[node])
    if free[best] >= need:
        return Finding(Verdict.OK, f"{free[best]} pages of 2 MiB are free on node {best}", tuple(evidence))
    elsewhere = [node for node in free if node not in wanted and free[node] >= need]
    found = f"{free[best]} pages of 2 MiB are free on node {best}, of {need} that an engine may want"
    if elsewhere:
        found += f"; those on node {format_cpus(elsewhere)} are far from its cores"
    base = f"/sys/devices/system/node/node{best}/hugepages/hugepages-{_HUGE_KB}kB"
    if not reader.has(base):
        base = f"/sys/kernel/mm/hugepages/hugepages-{_HUGE_KB}kB"
    return Finding(
        Verdict.FAIL,
        found,
        tuple(evidence),
        f"echo {reserved[best] + need - free[best]} > {base}/nr_hugepages",
        f"echo {reserved[best]} > {base}/nr_hugepages",
    )


@check(
    "memory-lock",
    "memory",
    Need.RUNTIME,
    "Memory that is not locked may be taken away again, and the next touch waits for the kernel.",
)
def memory_lock(host: Host) -> Finding:
    reader = host.reader
    if not host.wanted.lock:
        return Finding(Verdict.NOT_APPLICABLE, 'memory.lock = "off"')
    limits = "/proc/self/limits"
    match = re.search(r"^Max locked memory\s+(\S+)", reader.text(limits), re.MULTILINE)
    if match is None:
        raise Unreadable(limits, "expected Max locked memory")
    status = re.search(r"^CapEff:\s*([0-9a-fA-F]+)", reader.text("/proc/self/status"), re.MULTILINE)
    evidence = (f"{limits}: Max locked memory {match[1]}",)
    if status is not None and int(status[1], 16) >> _CAP_IPC_LOCK & 1:
        found = (
            "this process may lock any amount (CAP_IPC_LOCK); run doctor as the engine's user to see its "
            "limit"
        )
        return Finding(Verdict.OK, found, (*evidence, f"/proc/self/status: CapEff {status[1]}"))
    if match[1] == "unlimited":
        return Finding(Verdict.OK, "no limit", evidence)
    if not match[1].isdecimal():
        raise Unreadable(limits, f"expected a number of bytes, found {match[1]!r}")
    need = max(host.wanted.huge_pages, 32) * _HUGE_KB * 1024
    mib = int(match[1]) / (1 << 20)
    if int(match[1]) >= need:
        return Finding(Verdict.OK, f"{mib:,.0f} MiB may be locked", evidence)
    return Finding(
        Verdict.FAIL,
        f"{mib:,.0f} MiB may be locked, of {need >> 20} that an engine may want",
        evidence,
        "LimitMEMLOCK=infinity in the service's unit; for one shell, as root: prlimit --pid PID-OF-THE-SHELL "
        "--memlock=unlimited; for good: `* - memlock unlimited` in /etc/security/limits.d/ and a new login",
        "leave the shell, or take the line out again",
    )


@check(
    "transparent-huge-pages",
    "memory",
    Need.RUNTIME,
    "With `always` the kernel stops any thread at a fault to put a huge page together, and merges pages "
    "behind its "
    "back; with `never` an engine without reserved pages has only small ones.",
)
def transparent_huge_pages(host: Host) -> Finding:
    base = "/sys/kernel/mm/transparent_hugepage"
    text = host.reader.text(f"{base}/enabled")
    defrag = host.reader.maybe(f"{base}/defrag")
    evidence = [f"{base}/enabled: {text}"]
    if defrag is not None:
        evidence.append(f"{base}/defrag: {defrag}")
    match = re.search(r"\[(\w+)\]", text)
    if match is None:
        raise Unreadable(f"{base}/enabled", f"expected one value in brackets, found {text[:60]!r}")
    if match[1] == "always":
        return Finding(
            Verdict.WARN,
            "huge pages are made of any program's memory, also behind its back",
            tuple(evidence),
            f"echo madvise > {base}/enabled",
            f"echo always > {base}/enabled",
        )
    found = {"madvise": "only who asks gets them", "never": "off: small pages where none are reserved"}
    return Finding(Verdict.OK, found.get(match[1], match[1]), tuple(evidence))


@check(
    "ksm",
    "memory",
    Need.RUNTIME,
    "The kernel's page merging scans memory and makes the next write to a merged page a fault.",
)
def ksm(host: Host) -> Finding:
    path = "/sys/kernel/mm/ksm/run"
    value = host.reader.number(path)
    evidence = (f"{path}: {value}",)
    if value == 1:
        return Finding(Verdict.FAIL, "page merging runs", evidence, f"echo 2 > {path}", f"echo 1 > {path}")
    return Finding(Verdict.OK, "page merging is off", evidence)


@check(
    "numa-balancing",
    "memory",
    Need.RUNTIME,
    "Automatic balancing unmaps pages to see who uses them: a fault each.",
)
def numa_balancing(host: Host) -> Finding:
    path = "/proc/sys/kernel/numa_balancing"
    value = host.reader.number(path)
    nodes = host.reader.nodes()
    evidence = (f"{path}: {value}", f"memory nodes: {format_cpus(nodes)}")
    if value == 0:
        return Finding(Verdict.OK, "off", evidence)
    if len(nodes) == 1:
        return Finding(Verdict.OK, "on, and without effect on one node", evidence)
    found = f"pages are moved between {len(nodes)} nodes while they are used"
    return Finding(Verdict.FAIL, found, evidence, f"echo 0 > {path}", f"echo {value} > {path}")


@check(
    "swap",
    "memory",
    Need.RUNTIME,
    "A page that was swapped out costs milliseconds at the next touch; locked memory is safe, the rest of "
    "the "
    "process is not.",
)
def swap(host: Host) -> Finding:
    path = "/proc/sys/vm/swappiness"
    areas = [line.split()[0] for line in host.reader.text("/proc/swaps").splitlines()[1:] if line.split()]
    if not areas:
        return Finding(Verdict.OK, "no swap", ("/proc/swaps: none",))
    value = host.reader.number(path)
    evidence = (f"/proc/swaps: {', '.join(areas)}", f"{path}: {value}")
    if value > 10:
        found = f"memory goes to {', '.join(areas)} readily (swappiness {value})"
        return Finding(Verdict.WARN, found, evidence, f"echo 1 > {path}", f"echo {value} > {path}")
    return Finding(Verdict.OK, f"swap is a last resort (swappiness {value})", evidence)


@check(
    "shared-memory",
    "memory",
    Need.BASIC,
    "Statistics and the rings of worker processes lie in /dev/shm; Docker gives 64 MiB of it unless told, "
    "and a full "
    "one kills whoever touches the next page.",
)
def shared_memory(host: Host) -> Finding:
    path = "/proc/self/mounts"
    mounts = [line.split() for line in host.reader.text(path).splitlines()]
    options = [fields[3] for fields in mounts if len(fields) > 3 and fields[1] == "/dev/shm"]
    if not options:
        raise Absent("/dev/shm")
    match = re.search(r"\bsize=(\d+)(k?)\b", options[-1])
    evidence = (f"{path}: /dev/shm {options[-1]}",)
    if match is None:
        return Finding(Verdict.OK, "/dev/shm has the kernel's default size, half of the memory", evidence)
    mib = int(match[1]) / (1024 if match[2] else 1 << 20)
    if mib <= 64:
        return Finding(
            Verdict.WARN,
            f"/dev/shm holds {mib:,.0f} MiB",
            evidence,
            "mount -o remount,size=1g /dev/shm (a container: --shm-size=1g)",
            f"mount -o remount,size={mib:.0f}m /dev/shm",
        )
    return Finding(Verdict.OK, f"/dev/shm holds {mib:,.0f} MiB", evidence)


@dataclass(frozen=True, slots=True)
class _Setting:
    """A number of the kernel's that says all by itself."""

    name: str
    area: str
    path: str
    good: Callable[[int], bool]
    better: int
    found: str
    why: str


_SETTINGS = (
    _Setting(
        "compaction",
        "memory",
        "/proc/sys/vm/compaction_proactiveness",
        lambda value: value == 0,
        0,
        "memory is compacted ahead of need",
        "Moving pages to have huge ones later stops whoever touches them meanwhile.",
    ),
    _Setting(
        "vm-statistics",
        "memory",
        "/proc/sys/vm/stat_interval",
        lambda value: value >= 10,
        10,
        "each CPU is woken this often (seconds) to add up memory statistics",
        "A timer and a worker on each CPU, the engine's too where they are not isolated.",
    ),
    _Setting(
        "timer-migration",
        "interrupts",
        "/proc/sys/kernel/timer_migration",
        lambda value: value == 0,
        0,
        "timers of idle CPUs move to busy ones",
        "The busiest CPU is the engine's, since it spins.",
    ),
)


def _register(setting: _Setting) -> None:
    def judge(host: Host) -> Finding:
        value = host.reader.number(setting.path)
        evidence = (f"{setting.path}: {value}",)
        if setting.good(value):
            return Finding(Verdict.OK, f"{value}", evidence)
        fix, revert = (f"echo {number} > {setting.path}" for number in (setting.better, value))
        return Finding(Verdict.WARN, f"{value}: {setting.found}", evidence, fix, revert)

    check(setting.name, setting.area, Need.RUNTIME, setting.why)(judge)


for _setting in _SETTINGS:
    _register(_setting)
