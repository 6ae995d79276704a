"""Checks by effect: what happened on the engine's cores while we looked, whatever the settings say.

Each compares the host now with the same host some seconds ago.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tickwire.host.finding import Finding, Host, Need, Verdict, check
from tickwire.host.reader import Absent, Reader, Unreadable, format_cpus

__all__ = ["RingPages", "engine_threads", "ring_pages"]

# Rows of /proc/interrupts that one processor sends another.
_BETWEEN_CPUS = ("RES", "CAL", "TLB")
_TICK = "LOC"
# A core without a tick still has one a second, for the scheduler's own accounting.
_QUIET_TICKS = 2.0


def _before(host: Host) -> Reader:
    assert host.before is not None
    return host.before


def _interrupt_rates(host: Host) -> dict[str, tuple[str, dict[int, float]]]:
    """By row, its description and its rate a second on each of the engine's cores."""
    before = _before(host).interrupts()
    rates = {}
    for row, (text, counts) in host.reader.interrupts().items():
        earlier = before.get(row, ("", {}))[1]
        here = {
            cpu: max(counts.get(cpu, 0) - earlier.get(cpu, 0), 0) / host.seconds for cpu in sorted(host.cores)
        }
        if any(here.values()):
            rates[row] = (text, here)
    return rates


def _busy(host: Host) -> bool:
    """Did a thread run on each core while we looked: an engine's, or one of ours?"""
    return bool(host.engines) or host.cores <= {probe.core for probe in host.probes}


def _per_core(rates: dict[int, float]) -> str:
    return ", ".join(f"{rate:,.1f}/s on CPU {cpu}" for cpu, rate in rates.items() if rate)


@check(
    "seen-interrupts",
    "effects",
    Need.RUNTIME,
    "Interrupts of devices that came to the engine's cores, whatever their masks say.",
    per_core=True,
    measured=True,
)
def seen_interrupts(host: Host) -> Finding:
    rates = {row: rate for row, rate in _interrupt_rates(host).items() if row.isdecimal()}
    evidence = tuple(
        f"/proc/interrupts: {row} ({text.split()[-1] if text else 'no name'}): {_per_core(here)}"
        for row, (text, here) in rates.items()
    )
    if not rates:
        found = f"none in {host.seconds:.1f} s on CPU {format_cpus(host.cores)}"
        return Finding(Verdict.OK, found, evidence)
    total = sum(sum(here.values()) for _, here in rates.values())
    found = f"{total:,.1f} a second of {len(rates)} devices"
    movable = []
    for row in rates:
        try:
            if host.reader.writable_by_root(f"/proc/irq/{row}/smp_affinity_list"):
                movable.append(row)
        except (Absent, Unreadable):
            movable.append(row)
    if not movable:
        return Finding(Verdict.UNMOVABLE, f"{found}, which root cannot move", evidence)
    return Finding(Verdict.FAIL, found, evidence, "see irq-placement")


@check(
    "seen-tick",
    "effects",
    Need.BOOT,
    "Timer interrupts that came, which a boot line with nohz_full does not promise: two runnable tasks, a "
    "timer of "
    "our own or the fair server bring the tick back.",
    per_core=True,
    measured=True,
)
def seen_tick(host: Host) -> Finding:
    rows = host.reader.interrupts()
    if _TICK not in rows:
        raise Absent(f"row {_TICK} in /proc/interrupts")
    rates = _interrupt_rates(host).get(_TICK, ("", dict.fromkeys(sorted(host.cores), 0.0)))[1]
    evidence = tuple(f"/proc/interrupts: {_TICK}: {rate:,.1f}/s on CPU {cpu}" for cpu, rate in rates.items())
    worst = max(rates.values())
    if worst <= _QUIET_TICKS and not _busy(host):
        found = "nothing of ours ran on these cores, and an idle one has no tick"
        return Finding(Verdict.UNKNOWN, found, evidence)
    if worst <= _QUIET_TICKS:
        return Finding(Verdict.OK, f"at most {worst:,.1f} a second", evidence)
    try:
        tickless = host.reader.cpus("/sys/devices/system/cpu/nohz_full")
    except (Absent, Unreadable):
        tickless = frozenset()
    noisy = frozenset(cpu for cpu, rate in rates.items() if rate > _QUIET_TICKS)
    if noisy <= tickless:
        kernel = host.reader.kernel()
        why = "although nohz_full names it: another runnable task, a timer, or"
        why += " the fair server" if kernel >= (6, 12) else " work bound to it"
    else:
        why = "because nohz_full does not name it"
    found = f"{worst:,.0f} a second on CPU {format_cpus(noisy)}, {why}"
    return Finding(Verdict.FAIL, found, evidence, "see isolation-tick and fair-server", reboot=True)


@check(
    "seen-calls",
    "effects",
    Need.RUNTIME,
    "Interrupts that other CPUs sent: to drop addresses of memory that some thread of the same process "
    "gave back, to "
    "run a function, to reschedule.",
    per_core=True,
    measured=True,
)
def seen_calls(host: Host) -> Finding:
    rates = {row: here for row, (_, here) in _interrupt_rates(host).items() if row in _BETWEEN_CPUS}
    evidence = tuple(f"/proc/interrupts: {row}: {_per_core(here)}" for row, here in rates.items())
    by_core = {cpu: sum(here[cpu] for here in rates.values()) for cpu in sorted(host.cores)}
    worst = max(by_core.values())
    if worst > 10.0:
        return Finding(Verdict.WARN, f"up to {worst:,.1f} a second", evidence, "see isolation-domain")
    return Finding(Verdict.OK, f"at most {worst:,.1f} a second", evidence)


def engine_threads(reader: Reader, pid: int) -> dict[int, str]:
    """The data-plane threads of an engine: kernel id and name."""
    threads = {}
    for name in reader.names(f"/proc/{pid}/task"):
        comm = reader.maybe(f"/proc/{pid}/task/{name}/comm")
        # The resolver of names is off the data plane, and jitter's threads are no engine's.
        if comm is not None and comm.startswith("tw-") and not comm.startswith(("tw-lookup", "tw-jitter")):
            threads[int(name)] = comm
    return threads


def _switches(reader: Reader, pid: int, tid: int) -> int:
    path = f"/proc/{pid}/task/{tid}/status"
    match = re.search(r"^nonvoluntary_ctxt_switches:\s*(\d+)", reader.text(path), re.MULTILINE)
    if match is None:
        raise Unreadable(path, "expected nonvoluntary_ctxt_switches")
    return int(match[1])


def _faults(reader: Reader, pid: int, tid: int) -> tuple[int, int]:
    """Minor and major faults."""
    path = f"/proc/{pid}/task/{tid}/stat"
    fields = reader.text(path).rpartition(")")[2].split()
    try:
        return int(fields[7]), int(fields[9])
    except (IndexError, ValueError):
        raise Unreadable(path, "expected the fields of stat") from None


@check(
    "seen-switches",
    "effects",
    Need.BOOT,
    "Another task took the core: a slice is milliseconds.",
    measured=True,
)
def seen_switches(host: Host) -> Finding:
    rates: dict[str, float] = {}
    for pid in host.engines:
        for tid, name in engine_threads(host.reader, pid).items():
            now = _switches(host.reader, pid, tid)
            rates[name] = (now - _switches(_before(host), pid, tid)) / host.seconds
    if not host.engines:
        rates = {
            f"a thread of ours on CPU {probe.core}": probe.involuntary / host.seconds for probe in host.probes
        }
    if not rates:
        return Finding(Verdict.UNKNOWN, "no engine runs, and there was no core to spin on")
    evidence = tuple(f"{name}: {rate:,.1f} involuntary switches a second" for name, rate in rates.items())
    worst = max(rates.values())
    if worst > 1.0:
        name = max(rates, key=lambda key: rates[key])
        found = f"{name} lost its core {worst:,.1f} times a second"
        return Finding(
            Verdict.FAIL, found, evidence, "see isolation-domain, or stop what runs there: tickwire jitter"
        )
    return Finding(Verdict.OK, f"at most {worst:,.1f} a second", evidence)


@check(
    "seen-lost-time",
    "effects",
    Need.RUNTIME,
    "The sum of everything that stopped a thread which only read the clock.",
    per_core=True,
    measured=True,
)
def seen_lost_time(host: Host) -> Finding:
    if host.engines:
        return Finding(Verdict.NOT_APPLICABLE, "an engine runs on these cores, beside which we do not spin")
    if not host.probes:
        return Finding(Verdict.UNKNOWN, "this process may spin on none of these cores: see engine-cores")
    evidence = tuple(
        f"CPU {probe.core}: {probe.lost:.4%} of the time lost, at most {probe.max_ns / 1e3:,.1f} us at once"
        for probe in host.probes
    )
    worst = max(host.probes, key=lambda probe: probe.lost)
    found = (
        f"up to {worst.lost:.4%} of the time, at most {max(p.max_ns for p in host.probes) / 1e3:,.1f} us "
        "at once"
    )
    if worst.lost > 0.01:
        return Finding(Verdict.WARN, found, evidence, "tickwire jitter, which says by what")
    return Finding(Verdict.OK, found, evidence)


@check(
    "seen-faults",
    "effects",
    Need.BASIC,
    "A data-plane thread touched a page that was not there: after its first seconds there should be none.",
    measured=True,
)
def seen_faults(host: Host) -> Finding:
    if not host.engines:
        return Finding(Verdict.NOT_APPLICABLE, "no engine runs")
    minor: dict[str, int] = {}
    major: dict[str, int] = {}
    for pid in host.engines:
        for tid, name in engine_threads(host.reader, pid).items():
            now, then = (_faults(reader, pid, tid) for reader in (host.reader, _before(host)))
            minor[name], major[name] = now[0] - then[0], now[1] - then[1]
    if not minor:
        raise Unreadable(f"/proc/{host.engines[0]}/task", "expected threads named tw-…")
    evidence = tuple(f"{name}: {minor[name]} minor, {major[name]} major faults" for name in minor)
    if sum(major.values()):
        found = f"{sum(major.values())} times a thread waited for a disk"
        return Finding(Verdict.FAIL, found, evidence, "see memory-lock and swap")
    if sum(minor.values()):
        found = f"{sum(minor.values())} pages were touched for the first time"
        return Finding(Verdict.WARN, found, evidence, 'memory.lock = "require"; see memory-lock')
    return Finding(Verdict.OK, "none", evidence)


@check(
    "seen-steal",
    "effects",
    Need.BOOT,
    "Time in which the hypervisor ran somebody else.",
    measured=True,
)
def seen_steal(host: Host) -> Finding:
    before, now = _before(host).cpu_times(), host.reader.cpu_times()
    shares = {}
    for cpu in sorted(host.cores & now.keys() & before.keys()) or sorted(now.keys() & before.keys()):
        total = sum(now[cpu].values()) - sum(before[cpu].values())
        stolen = now[cpu].get("steal", 0) - before[cpu].get("steal", 0)
        shares[cpu] = stolen / total if total > 0 else 0.0
    if not shares:
        raise Unreadable("/proc/stat", "expected the same CPUs twice")
    evidence = tuple(f"/proc/stat: cpu{cpu}: {share:.2%} stolen" for cpu, share in shares.items())
    worst = max(shares.values())
    found = f"up to {worst:.2%} of {host.seconds:.1f} s"
    if worst > 0.01:
        return Finding(Verdict.FAIL, found, evidence, "an instance with CPUs of its own", reboot=True)
    if worst > 0.001:
        return Finding(Verdict.WARN, found, evidence, "an instance with CPUs of its own", reboot=True)
    return Finding(Verdict.OK, found, evidence)


def _drops(reader: Reader) -> dict[str, int]:
    """Every place where this host loses what it received."""
    counts = {}
    heads: list[str] = []
    for line in (reader.maybe("/proc/net/snmp") or "").splitlines():
        protocol, _, rest = line.partition(":")
        if protocol != "Udp":
            continue
        if heads:
            values = dict(zip(heads, rest.split(), strict=False))
            counts["/proc/net/snmp: Udp RcvbufErrors"] = int(values.get("RcvbufErrors", "0"))
        heads = rest.split()
    softnet = reader.maybe("/proc/net/softnet_stat")
    if softnet is not None:
        rows = [line.split() for line in softnet.splitlines()]
        try:
            counts["/proc/net/softnet_stat: dropped"] = sum(int(row[1], 16) for row in rows)
        except (IndexError, ValueError):
            raise Unreadable("/proc/net/softnet_stat", "expected hexadecimal columns") from None
    try:
        names = reader.interfaces()
    except Absent:
        names = []
    for name in names:
        for counter in ("rx_missed_errors", "rx_fifo_errors", "rx_dropped"):
            text = reader.maybe(f"/sys/class/net/{name}/statistics/{counter}")
            if text is not None and text.isdecimal():
                counts[f"/sys/class/net/{name}/statistics/{counter}"] = int(text)
    if not counts:
        raise Absent("counters of lost packets")
    return counts


@check(
    "seen-drops",
    "effects",
    Need.BASIC,
    "Packets that came and were lost on this host: at the card, in the kernel's queue, or at a full socket.",
    measured=True,
)
def seen_drops(host: Host) -> Finding:
    before, now = _drops(_before(host)), _drops(host.reader)
    lost = {
        where: count - before.get(where, 0) for where, count in now.items() if count > before.get(where, 0)
    }
    evidence = tuple(f"{where}: +{count}" for where, count in lost.items())
    if lost:
        worst = max(lost, key=lambda where: lost[where])
        found = f"{sum(lost.values()):,} lost, most of them at {worst}"
        return Finding(Verdict.FAIL, found, evidence, "see receive-buffer and receive-ring")
    return Finding(Verdict.OK, f"none in {host.seconds:.1f} s", tuple(f"{where}: +0" for where in now))


@check(
    "granted-buffer",
    "effects",
    Need.RUNTIME,
    "What a socket was given when it asked, which may be less without any error.",
    measured=True,
)
def granted_buffer(host: Host) -> Finding:
    if not host.wanted.rmem_bytes:
        return Finding(Verdict.NOT_APPLICABLE, "the kernel's default is asked for")
    if not host.granted_bytes:
        return Finding(Verdict.UNKNOWN, "no socket was asked")
    # The kernel counts its own overhead in: it shows twice what it grants.
    granted = host.granted_bytes // 2
    wanted = host.wanted.rmem_bytes
    evidence = (f"SO_RCVBUF: asked for {wanted}, shown {host.granted_bytes}, of which half is data",)
    if granted < wanted:
        found = f"{granted >> 10:,} KiB granted of {wanted >> 10:,} asked for, without an error"
        return Finding(Verdict.FAIL, found, evidence, "see receive-buffer")
    return Finding(Verdict.OK, f"{granted >> 10:,} KiB granted", evidence)


@dataclass(frozen=True, slots=True)
class RingPages:
    """What an engine's arena lies on, in KiB."""

    huge: int = 0
    transparent: int = 0
    small: int = 0
    locked: int = 0
    nodes: frozenset[int] = frozenset()

    @property
    def total(self) -> int:
        return self.huge + self.transparent + self.small


def ring_pages(reader: Reader, pid: int | str) -> RingPages:
    """The arena's chunks of a process, by the kernel's own account.

    They are told by a flag: nothing else of ours that is large and writable is kept from children (`dc`).
    """
    path = f"/proc/{pid}/smaps"
    huge = transparent = small = locked = 0
    starts = set()
    for block in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", reader.text(path), flags=re.MULTILINE):
        fields = dict(re.findall(r"^(\w+):\s*(.*)$", block, re.MULTILINE))
        flags = fields.get("VmFlags", "").split()
        head = block.split("\n", 1)[0].split()
        private = len(head) > 1 and head[1].startswith("rw") and head[1].endswith("p")
        if "dc" not in flags or not private:
            continue

        def kib(name: str, fields: dict[str, str] = fields) -> int:
            match = re.match(r"(\d+) kB", fields.get(name, "0 kB"))
            return int(match[1]) if match else 0

        size = kib("Size")
        starts.add(int(head[0].split("-")[0], 16))
        if kib("KernelPageSize") >= 1024:
            huge += size
            locked += size  # These are never swapped, and the kernel counts no lock of theirs.
        else:
            locked += kib("Locked")
            transparent += kib("AnonHugePages")
            small += size - kib("AnonHugePages")
    nodes: set[int] = set()
    try:
        maps = reader.text(f"/proc/{pid}/numa_maps")
    except (Absent, Unreadable):
        maps = ""
    for line in maps.splitlines():
        start, _, rest = line.partition(" ")
        if re.fullmatch(r"[0-9a-f]+", start) and int(start, 16) in starts:
            nodes |= {int(node) for node in re.findall(r"\bN(\d+)=", rest)}
    return RingPages(huge, transparent, small, locked, frozenset(nodes))


@check(
    "ring-pages",
    "effects",
    Need.RUNTIME,
    "What the rings of the running engine really lie on: page size, lock and memory node.",
    measured=True,
)
def rings(host: Host) -> Finding:
    if not host.engines:
        return Finding(Verdict.NOT_APPLICABLE, "no engine runs")
    # The first has the rings: its workers map them.
    engine = host.engines[0]
    pages = ring_pages(host.reader, engine)
    if not pages.total:
        raise Unreadable(f"/proc/{engine}/smaps", "expected memory of an arena")
    nodes = host.reader.nodes()
    far = (
        {node for node in pages.nodes if not nodes.get(node, frozenset()) & host.cores}
        if host.cores
        else set()
    )
    evidence = (
        f"/proc/{engine}/smaps: {pages.huge >> 10} MiB on reserved huge pages, "
        f"{pages.transparent >> 10} on "
        f"transparent ones, {pages.small >> 10} on small ones; {pages.locked >> 10} MiB locked",
        f"/proc/{engine}/numa_maps: nodes {format_cpus(pages.nodes) or 'not told'}",
    )
    if far:
        found = f"memory on node {format_cpus(far)}, which none of the engine's cores is on"
        return Finding(Verdict.FAIL, found, evidence, "reserve huge pages on the cores' node: see huge-pages")
    if pages.small > pages.total // 10 and host.wanted.huge_pages:
        return Finding(Verdict.FAIL, f"{pages.small >> 10} MiB on small pages", evidence, "see huge-pages")
    # A few hundred KiB may be a guard or a remainder.
    if pages.locked < pages.total - 1024:
        found = f"{(pages.total - pages.locked) >> 10} MiB are not locked"
        return Finding(Verdict.WARN, found, evidence, "see memory-lock")
    return Finding(Verdict.OK, f"{pages.total >> 10} MiB on huge pages, locked", evidence)


@check(
    "seen-frequency",
    "effects",
    Need.RUNTIME,
    "The frequency that the cores had, and not the one that was set.",
    per_core=True,
    measured=True,
)
def seen_frequency(host: Host) -> Finding:
    seen = {}
    for cpu in sorted(host.cores):
        path = f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq"
        seen[cpu] = sorted(reader.number(path) for reader in (_before(host), host.reader))
    evidence = tuple(
        f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq: {low // 1000} to {high // 1000} MHz"
        for cpu, (low, high) in seen.items()
    )
    spread = max((high - low) / high if high else 0.0 for low, high in seen.values())
    if spread > 0.1:
        return Finding(Verdict.WARN, f"it moved by {spread:.0%}", evidence, "see governor")
    return Finding(Verdict.OK, f"steady within {spread:.0%}", evidence)


@check(
    "seen-idle",
    "effects",
    Need.RUNTIME,
    "A core that should spin and slept deeply has a thread that does not spin.",
    per_core=True,
    measured=True,
)
def seen_idle(host: Host) -> Finding:
    evidence: list[str] = []
    slept: dict[int, int] = {}
    for cpu in sorted(host.cores):
        base = f"/sys/devices/system/cpu/cpu{cpu}/cpuidle"
        for state in (name for name in host.reader.names(base) if name.startswith("state")):
            used = host.reader.number(f"{base}/{state}/time") - _before(host).number(f"{base}/{state}/time")
            latency = host.reader.number(f"{base}/{state}/latency")
            evidence.append(
                f"{base}/{state} ({latency} us to wake): {used / host.seconds / 1e6:.1%} of the time"
            )
            if latency > 0 and used > 0.01 * host.seconds * 1e6:
                slept[cpu] = max(slept.get(cpu, 0), latency)
    if slept and host.wanted.spin and host.engines:
        found = f"CPU {format_cpus(slept)} slept, though its thread was asked to spin"
        return Finding(Verdict.FAIL, found, tuple(evidence), "see engine-cores: is the thread pinned there?")
    found = f"CPU {format_cpus(slept)} slept while its thread waited" if slept else "no core slept"
    return Finding(Verdict.OK, found, tuple(evidence))
