"""Checks of the engine's cores: who else may run there."""

from __future__ import annotations

import re

from tickwire.host.affinity import can_run_on
from tickwire.host.finding import Finding, Host, Need, Verdict, check
from tickwire.host.reader import Absent, Reader, Unreadable, format_cpus, format_mask, parse_cpus

__all__ = ["isolation_kinds", "partition_of"]

_CPU = "/sys/devices/system/cpu"
_CGROUP = "/sys/fs/cgroup"
# The partition that scripts/tuning makes.
_SLICE = "tickwire.slice"
_FIFO, _RR = 1, 2


def _boot_cpus(reader: Reader, key: str) -> frozenset[int]:
    """The CPUs that a word of the boot line lists; flags before the list (isolcpus=domain,2-3) do not count,
    and every occurrence does."""
    cpus: frozenset[int] = frozenset()
    for value in reader.cmdline().get(key, []):
        if value == "all":
            return reader.online()
        listed = ",".join(part for part in value.split(",") if re.match(r"[\dN]", part))
        if "N" in listed:  # The kernel's word for the last CPU.
            listed = listed.replace("N", str(max(reader.online())))
        try:
            cpus |= parse_cpus(listed)
        except ValueError as error:
            raise Unreadable("/proc/cmdline", f"{key}: {error}") from None
    return cpus


def _groups(reader: Reader) -> list[str]:
    """Control groups of the unified hierarchy, mounted by itself or beside the old controllers, that may be
    the engine's partition: the one that the tuning scripts make, then ours and all above it."""
    base = _CGROUP if reader.has(f"{_CGROUP}/cgroup.controllers") else f"{_CGROUP}/unified"
    groups = [f"{base}/{_SLICE}"]
    for line in (reader.maybe("/proc/self/cgroup") or "").splitlines():
        if line.startswith("0::"):
            parts = [part for part in line[3:].split("/") if part]
            groups += ["/".join([base, *parts[:depth]]) for depth in range(len(parts), -1, -1)]
    return list(dict.fromkeys(groups))


def partition_of(reader: Reader, cpus: frozenset[int]) -> tuple[frozenset[int], list[str]]:
    """CPUs in valid isolated partitions of control groups, and what was read on the way."""
    evidence: list[str] = []
    isolated: frozenset[int] = frozenset()
    told = f"{_CGROUP}/cpuset.cpus.isolated"
    if reader.has(told):  # Since 6.8 the root lists those of all partitions.
        isolated = reader.cpus(told)
        evidence.append(f"{told}: {format_cpus(isolated) or 'none'}")
    for group in _groups(reader):
        state = reader.maybe(f"{group}/cpuset.cpus.partition")
        if state is None or state == "member":
            continue
        evidence.append(f"{group}/cpuset.cpus.partition: {state}")
        if state == "isolated":
            isolated |= reader.cpus(f"{group}/cpuset.cpus.effective")
    return isolated & cpus, evidence


def _slice_cpus(reader: Reader) -> frozenset[int]:
    """What the partition of the tuning scripts holds: to be had by whoever is started in it."""
    try:
        group = _groups(reader)[0]
        if reader.text(f"{group}/cpuset.cpus.partition") == "isolated":
            return reader.cpus(f"{group}/cpuset.cpus.effective")
    except (Absent, Unreadable):
        pass
    return frozenset()


def isolation_kinds(reader: Reader, cpu: int) -> list[str]:
    """Which kinds of isolation a CPU has. Each keeps something else away; none of them alone is
    "isolated"."""
    one = frozenset({cpu})
    kinds = []

    def note(kind: str, cpus: frozenset[int]) -> None:
        if cpu in cpus:
            kinds.append(kind)

    for kind, path in (("domain", f"{_CPU}/isolated"), ("tick", f"{_CPU}/nohz_full")):
        try:
            note(kind, reader.cpus(path))
        except (Absent, Unreadable):
            continue
    try:
        if "domain" not in kinds:
            note("domain", partition_of(reader, one)[0])
        note("rcu", _boot_cpus(reader, "rcu_nocbs") | _boot_cpus(reader, "nohz_full"))
        if any("managed_irq" in value.split(",") for value in reader.cmdline().get("isolcpus", [])):
            note("managed_irq", _boot_cpus(reader, "isolcpus"))
    except (Absent, Unreadable):
        pass
    try:
        if cpu not in reader.mask("/sys/devices/virtual/workqueue/cpumask"):
            kinds.append("unbound work")
    except (Absent, Unreadable):
        pass
    return kinds


@check(
    "engine-cores",
    "cores",
    Need.BASIC,
    "A thread pinned to a core that it cannot have does not start; one on CPU 0 shares it with timekeeping "
    "and "
    "work that cannot be moved; one without a core left for the rest of the system waits behind it.",
)
def engine_cores(host: Host) -> Finding:
    reader = host.reader
    online = reader.online()
    wanted = host.wanted
    evidence = [f"CPUs online: {format_cpus(online)}"]
    try:
        allowed = _allowed(reader)
        evidence.append(f"/proc/self/status: Cpus_allowed_list: {format_cpus(allowed)}")
    except (Absent, Unreadable):
        allowed = online
    # The boot line's isolation and a service's affinity keep a process off cores that it may pin threads to
    # all the same; its list does not tell. In files of another host nothing can be tried.
    if reader.live:
        elsewhere = frozenset(core for core in host.cores - allowed if can_run_on(core))
    else:
        elsewhere = _isolated(reader) & host.cores - allowed
    if elsewhere:
        evidence.append(f"off that list, and to be had by who asks for it: {format_cpus(elsewhere)}")
    in_slice = _slice_cpus(reader) & host.cores - allowed - elsewhere
    if in_slice:
        evidence.append(f"in the partition {_SLICE}, for who is started in it: {format_cpus(in_slice)}")
    allowed |= elsewhere | in_slice
    problems = []
    for core, name in zip(wanted.cores, wanted.names, strict=True):
        if core not in online:
            problems.append(f"{name} = {core}: that CPU is not online")
        elif core not in allowed:
            problems.append(f"{name} = {core}: this process may not run there")
    if problems:
        fix = "pin to a CPU of the first list, or run in a control group that has it"
        return Finding(Verdict.FAIL, "; ".join(problems), tuple(evidence), fix)
    if wanted.spin and wanted.threads > len(allowed):
        found = (
            f"{wanted.threads} threads spin on {len(allowed)} CPUs: each holds up another for a whole slice"
        )
        return Finding(
            Verdict.FAIL, found, tuple(evidence), 'engine.idle = "backoff", or fewer feeds and models'
        )
    if not wanted.cores:
        if not wanted.threads:
            found = f"{len(online)} CPUs online; none named as the engine's"
            return Finding(Verdict.OK, found, tuple(evidence))
        found = f"{wanted.threads} threads float over {len(allowed)} CPUs: none of them has a core of its own"
        return Finding(
            Verdict.WARN, found, tuple(evidence), "feeds[].core and model.cores in the configuration"
        )
    evidence += [
        f"CPU {core} has isolation of: {', '.join(isolation_kinds(reader, core)) or 'nothing'}"
        for core in sorted(host.cores)
    ]
    cores = format_cpus(host.cores)
    if not online - host.cores:
        found = f"the engine's cores {cores} are all CPUs: nothing is left for the rest of the system"
        return Finding(Verdict.FAIL, found, tuple(evidence), "pin to fewer cores")
    nodes = {node for node, cpus in reader.nodes().items() if cpus & host.cores}
    if len(nodes) > 1:
        found = (
            f"the engine's cores {cores} lie on memory nodes {format_cpus(nodes)}: rings between them are "
            "slow"
        )
        return Finding(Verdict.WARN, found, tuple(evidence), "pin to cores of one node")
    if 0 in host.cores:
        found = "CPU 0 is among the engine's cores: timekeeping and unmovable work collect there"
        return Finding(Verdict.WARN, found, tuple(evidence), "pin to another core")
    left = format_cpus(online - host.cores)
    how = f" by what is started in {_SLICE}" if in_slice else ""
    return Finding(Verdict.OK, f"cores {cores} can be had{how}; {left} left for the rest", tuple(evidence))


def _isolated(reader: Reader) -> frozenset[int]:
    """By the boot line."""
    try:
        return reader.cpus(f"{_CPU}/isolated")
    except (Absent, Unreadable):
        return frozenset()


def _allowed(reader: Reader) -> frozenset[int]:
    path = "/proc/self/status"
    match = re.search(r"^Cpus_allowed_list:\s*(\S*)", reader.text(path), re.MULTILINE)
    if match is None:
        raise Unreadable(path, "expected Cpus_allowed_list")
    try:
        return parse_cpus(match[1])
    except ValueError as error:
        raise Unreadable(path, str(error)) from None


def _boot_fix(word: str) -> str:
    return f"add {word} to the kernel's boot line (tickwire tune boot-line prints the whole of it)"


@check(
    "isolation-domain",
    "cores",
    Need.BOOT,
    "Without it the scheduler balances any task of the host onto the engine's core, for milliseconds at a "
    "time.",
    per_core=True,
)
def isolation_domain(host: Host) -> Finding:
    reader = host.reader
    path = f"{_CPU}/isolated"
    listed = reader.cpus(path)
    in_partition, more = (frozenset[int](), []) if host.cores <= listed else partition_of(reader, host.cores)
    evidence = (f"{path}: {format_cpus(listed) or 'none'}", *more)
    missing = host.cores - listed - in_partition
    if not missing:
        how = "isolcpus" if host.cores <= listed else "a control group's partition"
        return Finding(Verdict.OK, f"the scheduler leaves {format_cpus(host.cores)} alone ({how})", evidence)
    cores = format_cpus(missing)
    invalid = [line for line in more if "isolated invalid" in line]
    found = f"CPU {cores} takes any task of this host" + (f"; {invalid[0]}" if invalid else "")
    fix = (
        _boot_fix(f"isolcpus=managed_irq,domain,{format_cpus(host.cores)}")
        + ", or an isolated cpuset partition"
    )
    return Finding(Verdict.FAIL, found, evidence, fix, "take the word out again", reboot=True)


@check(
    "isolation-tick",
    "cores",
    Need.BOOT,
    "The scheduler's tick interrupts a busy core 100 to 1000 times a second, some microseconds each.",
    per_core=True,
)
def isolation_tick(host: Host) -> Finding:
    path = f"{_CPU}/nohz_full"
    wanted = _boot_cpus(host.reader, "nohz_full")
    try:
        tickless = host.reader.cpus(path)
    except Absent:
        found = "this kernel is built without nohz_full: the tick stays"
        if wanted:
            found += ", whatever its boot line says"
        return Finding(Verdict.NOT_APPLICABLE, found, (f"{path}: no such file",))
    evidence = (f"{path}: {format_cpus(tickless) or 'none'}",)
    missing = host.cores - tickless
    if not missing:
        found = f"the tick may stop on {format_cpus(host.cores)}; --measure shows whether it does"
        return Finding(Verdict.OK, found, evidence)
    return Finding(
        Verdict.FAIL,
        f"the tick runs on CPU {format_cpus(missing)}",
        evidence,
        _boot_fix(f"nohz_full={format_cpus(host.cores)}"),
        "take the word out again",
        reboot=True,
    )


@check(
    "isolation-rcu",
    "cores",
    Need.BOOT,
    "Callbacks of the kernel's RCU run in batches on the core that queued them, unless they are offloaded.",
    per_core=True,
)
def isolation_rcu(host: Host) -> Finding:
    named = {key: _boot_cpus(host.reader, key) for key in ("rcu_nocbs", "nohz_full")}
    evidence = tuple(f"/proc/cmdline: {key}: {format_cpus(cpus) or 'none'}" for key, cpus in named.items())
    missing = host.cores - named["rcu_nocbs"] - named["nohz_full"]
    if not missing:
        return Finding(Verdict.OK, f"callbacks of {format_cpus(host.cores)} run elsewhere", evidence)
    return Finding(
        Verdict.FAIL,
        f"callbacks run on CPU {format_cpus(missing)}",
        evidence,
        _boot_fix(f"rcu_nocbs={format_cpus(host.cores)}"),
        "take the word out again",
        reboot=True,
    )


@check(
    "isolation-managed-irq",
    "cores",
    Need.BOOT,
    "The kernel itself places the interrupts of many-queue devices, and spreads them over all CPUs unless "
    "told.",
    per_core=True,
)
def isolation_managed_irq(host: Host) -> Finding:
    values = host.reader.cmdline().get("isolcpus", [])
    evidence = (f"/proc/cmdline: isolcpus: {' '.join(values) or 'none'}",)
    managed = any("managed_irq" in value.split(",") for value in values)
    missing = host.cores - (_boot_cpus(host.reader, "isolcpus") if managed else frozenset())
    if not missing:
        return Finding(Verdict.OK, f"managed interrupts keep off {format_cpus(host.cores)}", evidence)
    return Finding(
        Verdict.WARN,
        f"managed interrupts may be placed on CPU {format_cpus(missing)}",
        evidence,
        _boot_fix(f"isolcpus=managed_irq,domain,{format_cpus(host.cores)}"),
        "take the word out again",
        reboot=True,
    )


@check(
    "boot-line",
    "cores",
    Need.BOOT,
    "A boot line is only asked for: a kernel built without the feature ignores it, and says so nowhere.",
)
def boot_line(host: Host) -> Finding:
    reader = host.reader
    words = reader.cmdline()
    shown = [
        f"{key}={value}" if value else key
        for key, values in words.items()
        for value in values
        if key
        in (
            *(
                "isolcpus",
                "nohz_full",
                "rcu_nocbs",
                "irqaffinity",
                "nosmt",
                "idle",
                "mitigations",
                "tsc",
                "skew_tick",
            ),
            *("intel_pstate", "amd_pstate", "processor.max_cstate", "intel_idle.max_cstate", "nosoftlockup"),
            *(
                "default_hugepagesz",
                "hugepagesz",
                "hugepages",
                "transparent_hugepage",
                "nmi_watchdog",
                "maxcpus",
            ),
        )
    ]
    evidence = (f"/proc/cmdline: {' '.join(shown) or 'nothing that concerns latency'}",)
    broken = []
    for key, path in (("isolcpus", f"{_CPU}/isolated"), ("nohz_full", f"{_CPU}/nohz_full")):
        asked = _boot_cpus(reader, key) & reader.online()
        if not asked:
            continue
        got = reader.maybe(path)
        try:
            missing = asked - parse_cpus(got or "")
        except ValueError as error:
            raise Unreadable(path, str(error)) from None
        if missing:
            broken.append(f"{key} asks for CPU {format_cpus(missing)}, which the kernel has not given")
    if broken:
        return Finding(Verdict.FAIL, "; ".join(broken), evidence, "a kernel with these features", reboot=True)
    return Finding(Verdict.OK, "; ".join(shown) or "nothing that concerns latency", evidence)


@check(
    "workqueues",
    "cores",
    Need.RUNTIME,
    "Work of the kernel that is bound to no CPU (writeback, cryptography, drivers) runs wherever its mask "
    "allows.",
    per_core=True,
)
def workqueues(host: Host) -> Finding:
    base = "/sys/devices/virtual/workqueue"
    online = host.reader.online()
    rest = online - host.cores
    evidence, fixes, reverts, on = [], [], [], frozenset[int]()
    for path in (f"{base}/cpumask", f"{base}/writeback/cpumask"):
        text = host.reader.maybe(path)
        if text is None:
            if path.startswith(f"{base}/cpumask"):
                raise Absent(path)
            continue
        evidence.append(f"{path}: {text}")
        here = host.on_cores(host.reader.mask(path))
        if here:
            on |= here
            fixes.append(f"echo {format_mask(rest)} > {path}")
            reverts.append(f"echo {text} > {path}")
    if on:
        found = f"unbound work of the kernel may run on CPU {format_cpus(on)}"
        return Finding(Verdict.FAIL, found, tuple(evidence), "; ".join(fixes), "; ".join(reverts))
    return Finding(Verdict.OK, f"unbound work keeps off {format_cpus(host.cores)}", tuple(evidence))


def _real_time_threads(host: Host) -> list[str]:
    """Threads of the running engines with a real-time policy."""
    found = []
    for pid in host.engines:
        for tid in host.reader.names(f"/proc/{pid}/task"):
            fields = host.reader.text(f"/proc/{pid}/task/{tid}/stat").rpartition(")")[2].split()
            if len(fields) > 38 and fields[38] in (str(_FIFO), str(_RR)):
                found.append(host.reader.text(f"/proc/{pid}/task/{tid}/comm"))
    return found


@check(
    "fair-server",
    "cores",
    Need.RUNTIME,
    "Since 6.12 the kernel takes a real-time thread's core away for 50 ms of each second as soon as an "
    "ordinary "
    "task waits there; sched_rt_runtime_us = -1, which every guide names, no longer prevents it.",
    per_core=True,
)
def fair_server(host: Host) -> Finding:
    kernel = host.reader.kernel()
    version = f"/proc/sys/kernel/osrelease: {kernel[0]}.{kernel[1]}"
    if kernel < (6, 12):
        return Finding(Verdict.NOT_APPLICABLE, "kernels before 6.12 have no fair server", (version,))
    real_time = _real_time_threads(host)
    evidence, fixes, reverts = [version], [], []
    on = []
    try:
        for cpu in sorted(host.cores):
            path = f"/sys/kernel/debug/sched/fair_server/cpu{cpu}/runtime"
            value = host.reader.number(path)
            evidence.append(f"{path}: {value}")
            if value:
                on.append(cpu)
                fixes.append(f"echo 0 > {path}")
                reverts.append(f"echo {value} > {path}")
    except (Absent, Unreadable) as error:
        if not real_time and host.engines:
            found = "the engine has no real-time threads, from which alone it takes"
            return Finding(Verdict.OK, found, (*evidence, str(error)))
        found = (
            "on by default and not readable here (it is in debugfs, for root); it takes from real-time "
            "threads only"
        )
        return Finding(Verdict.UNKNOWN, found, (*evidence, str(error)))
    if not on:
        return Finding(Verdict.OK, f"off on {format_cpus(host.cores)}", tuple(evidence))
    cores = format_cpus(on)
    if real_time:
        found = f"{', '.join(real_time)} is real-time: expect a hole of 50 ms each second on CPU {cores}"
        return Finding(Verdict.FAIL, found, tuple(evidence), "; ".join(fixes), "; ".join(reverts))
    found = f"on for CPU {cores}; it takes from real-time threads only, which Tickwire's are not"
    return Finding(Verdict.OK, found, tuple(evidence))


@check(
    "rt-throttling",
    "cores",
    Need.RUNTIME,
    "Kernels before 6.12 stop real-time threads for 50 ms of each second.",
    per_core=True,
)
def rt_throttling(host: Host) -> Finding:
    kernel = host.reader.kernel()
    path = "/proc/sys/kernel/sched_rt_runtime_us"
    value = host.reader.number(path)
    evidence = (f"/proc/sys/kernel/osrelease: {kernel[0]}.{kernel[1]}", f"{path}: {value}")
    if kernel >= (6, 12):
        found = f"{value}, which on this kernel is not the knob any more: see fair-server"
        return Finding(Verdict.OK, found, evidence)
    real_time = _real_time_threads(host)
    if value >= 0 and real_time:
        return Finding(
            Verdict.FAIL,
            f"{', '.join(real_time)} is real-time and is stopped each second",
            evidence,
            f"echo -1 > {path}",
            f"echo {value} > {path}",
        )
    found = "off" if value < 0 else "on; it stops real-time threads only, which Tickwire's are not"
    return Finding(Verdict.OK, found, evidence)


@check(
    "smt-siblings",
    "cores",
    Need.RUNTIME,
    "Two CPUs of one core share its execution units and first caches: work on one slows the other by up to "
    "half.",
    per_core=True,
)
def smt_siblings(host: Host) -> Finding:
    reader = host.reader
    control = reader.maybe(f"{_CPU}/smt/control")
    evidence = [f"{_CPU}/smt/control: {control}"] if control is not None else []
    online = reader.online()
    busy: dict[int, frozenset[int]] = {}
    quiet: frozenset[int] = frozenset()
    for cpu in sorted(host.cores & online):
        path = f"{_CPU}/cpu{cpu}/topology/thread_siblings_list"
        siblings = reader.cpus(path) - {cpu}
        evidence.append(f"{path}: {format_cpus(siblings | {cpu})}")
        for sibling in siblings & online:
            if sibling not in host.cores and {"domain"} <= set(isolation_kinds(reader, sibling)):
                quiet |= {sibling}
            else:
                busy[cpu] = busy.get(cpu, frozenset()) | {sibling}
    shared = sorted(cpu for cpu, siblings in busy.items() if siblings & host.cores)
    if shared:
        found = f"the engine's own CPUs {format_cpus(shared)} share cores with one another"
        return Finding(Verdict.FAIL, found, tuple(evidence), "pin to CPUs of different cores")
    if busy:
        siblings = frozenset(sibling for each in busy.values() for sibling in each)
        path = f"{_CPU}/cpu{{}}/online"
        return Finding(
            Verdict.FAIL,
            f"any task may run on CPU {format_cpus(siblings)}, the other half of the engine's cores",
            tuple(evidence),
            "; ".join(f"echo 0 > {path.format(cpu)}" for cpu in sorted(siblings)),
            "; ".join(f"echo 1 > {path.format(cpu)}" for cpu in sorted(siblings)),
        )
    if quiet:
        found = f"siblings {format_cpus(quiet)} are isolated and idle deeply"
        return Finding(Verdict.OK, found, tuple(evidence))
    return Finding(Verdict.OK, "no CPU that runs shares a core with the engine's", tuple(evidence))


@check(
    "cpu-quota",
    "cores",
    Need.BASIC,
    "A container's CPU limit stops every thread of it for the rest of each 100 ms once the quota is used "
    "up, and a "
    "spinning thread uses it up.",
)
def cpu_quota(host: Host) -> Finding:
    reader = host.reader
    evidence = []
    limits = []
    for line in reader.text("/proc/self/cgroup").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if hierarchy == "0":
            base = _CGROUP if reader.has(f"{_CGROUP}/cgroup.controllers") else f"{_CGROUP}/unified"
            name = "cpu.max"
        elif "cpu" in controllers.split(","):
            base = f"{_CGROUP}/cpu" if reader.has(f"{_CGROUP}/cpu") else f"{_CGROUP}/{controllers}"
            name = "cpu.cfs_quota_us"
        else:
            continue
        # A limit of a group above counts too. Inside a container ours may be shown as a path that only the
        # host has: then its root is what we are in.
        parts = [part for part in group.split("/") if part]
        for depth in range(len(parts), -1, -1):
            path = "/".join([base, *parts[:depth], name])
            value = reader.maybe(path)
            if value is None:
                continue
            evidence.append(f"{path}: {value}")
            quota = value.split()[0] if value else ""
            if quota.isdecimal():
                period = (value.split()[1:] or [reader.maybe(path.replace("quota", "period")) or "100000"])[0]
                limits.append((int(quota) / max(int(period), 1) if period.isdecimal() else 0.0, path, value))
    if not evidence:
        raise Absent("CPU limit of a control group")
    if not limits:
        return Finding(Verdict.OK, "no CPU limit", tuple(evidence))
    share, path, value = min(limits)
    unlimited = "max" if path.endswith("cpu.max") else "-1"
    return Finding(
        Verdict.FAIL,
        f"this control group may use {share:.2f} CPUs: its threads are stopped when they used that up",
        tuple(evidence),
        f"echo {unlimited} > {path} (or start the container without a CPU limit, with a cpuset instead)",
        f"echo {value} > {path}",
    )
