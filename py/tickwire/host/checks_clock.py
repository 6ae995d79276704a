"""Checks of power and clocks: how fast the cores run, and whether the time they tell is right."""

from __future__ import annotations

import re

from tickwire.host.finding import Finding, Host, Need, Verdict, check
from tickwire.host.reader import Absent, Unreadable, format_cpus

__all__ = ["is_guest"]

_CPU = "/sys/devices/system/cpu"
# A C-state that is left within this is no matter beside a packet's way through the kernel.
_DEEP_US = 10
# What European rules ask of high-frequency traders: 100 us to UTC.
_OFFSET_S = 100e-6
_OFFSET_AGE_S = 4096.0  # The longest that chrony and ntpd poll a source in their defaults is 1024 s.
_TAI_S = 37  # PTP counts TAI, which is so far ahead of UTC.


def _flags(host: Host) -> frozenset[str]:
    """The CPU's features. Arm calls the line otherwise."""
    path = "/proc/cpuinfo"
    match = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", host.reader.text(path), re.MULTILINE)
    if match is None:
        raise Unreadable(path, "expected the CPU's flags")
    return frozenset(match[1].split())


def is_guest(host: Host) -> bool:
    """Do we run under a hypervisor?"""
    return "hypervisor" in _flags(host)


@check(
    "virtualisation",
    "power",
    Need.BOOT,
    "A hypervisor may run others on this CPU at any time; the guest sees it as stolen time, or not at all.",
)
def virtualisation(host: Host) -> Finding:
    reader = host.reader
    product = [
        text
        for name in ("sys_vendor", "product_name")
        if (text := reader.maybe(f"/sys/class/dmi/id/{name}")) is not None
    ]
    evidence = [f"/sys/class/dmi/id: {' '.join(product) or 'not told'}"]
    container = _container(host)
    if container:
        evidence.append(container)
    if is_guest(host):
        evidence.append("/proc/cpuinfo: flags: hypervisor")
        found = "a virtual machine" + (f" ({' '.join(product)})" if product else "")
        return Finding(Verdict.WARN, found, tuple(evidence), "a machine of its own", reboot=True)
    return Finding(Verdict.OK, "a container on bare metal" if container else "bare metal", tuple(evidence))


def _container(host: Host) -> str:
    for path in ("/.dockerenv", "/run/.containerenv"):
        if host.reader.has(path):
            return f"{path}: a container"
    return ""


@check(
    "stolen-time",
    "power",
    Need.BOOT,
    "Stolen time is when the guest wanted to run and the host ran somebody else.",
)
def stolen_time(host: Host) -> Finding:
    times = host.reader.cpu_times()
    cpus = sorted(host.cores & times.keys()) or sorted(times)
    shares = {}
    for cpu in cpus:
        total = sum(times[cpu].values())
        shares[cpu] = times[cpu].get("steal", 0) / total if total else 0.0
    evidence = tuple(f"/proc/stat: cpu{cpu}: {share:.2%} stolen since boot" for cpu, share in shares.items())
    worst = max(shares.values())
    if worst > 0.001:
        found = f"up to {worst:.2%} of the time since boot was stolen"
        return Finding(Verdict.WARN, found, evidence, "an instance with CPUs of its own", reboot=True)
    return Finding(Verdict.OK, "no time worth naming was stolen since boot", evidence)


@check(
    "governor",
    "power",
    Need.RUNTIME,
    "A core that saves power runs slow until the kernel notices work, milliseconds later.",
)
def governor(host: Host) -> Finding:
    reader = host.reader
    cpus = sorted(host.cores) or sorted(reader.online())
    evidence, slow, fixes, reverts = [], [], [], []
    for cpu in cpus:
        base = f"{_CPU}/cpu{cpu}/cpufreq"
        wanted = {"scaling_governor": "performance", "energy_performance_preference": "performance"}
        for name, best in wanted.items():
            value = (
                reader.text(f"{base}/{name}")
                if name == "scaling_governor"
                else reader.maybe(f"{base}/{name}")
            )
            if value is None:
                continue
            evidence.append(f"{base}/{name}: {value}")
            if value != best:
                slow.append(cpu)
                fixes.append(f"echo {best} > {base}/{name}")
                reverts.append(f"echo {value} > {base}/{name}")
    if slow:
        found = f"CPU {format_cpus(slow)} is set to save power"
        return Finding(Verdict.FAIL, found, tuple(evidence), "; ".join(fixes), "; ".join(reverts))
    return Finding(Verdict.OK, f"performance on {format_cpus(cpus)}", tuple(evidence))


@check(
    "idle-states",
    "power",
    Need.RUNTIME,
    "A core that sleeps deeply takes up to hundreds of microseconds to come back, and one that spins never "
    "sleeps: "
    "this is about threads that back off, and about the first packet after a pause.",
)
def idle_states(host: Host) -> Finding:
    reader = host.reader
    cpus = sorted(host.cores) or sorted(reader.online())
    boot = reader.cmdline()
    evidence, deep, fixes, reverts = [], {}, [], []
    for cpu in cpus:
        base = f"{_CPU}/cpu{cpu}/cpuidle"
        limit = reader.maybe(f"{_CPU}/cpu{cpu}/power/pm_qos_resume_latency_us")
        # The kernel's own inversion: "n/a" forbids all idle states, 0 stands for no limit at all.
        limit_us = (
            0 if limit == "n/a" else int(limit) if limit and limit.isdecimal() and limit != "0" else None
        )
        latest = 0
        for state in (name for name in reader.names(base) if name.startswith("state")):
            if reader.maybe(f"{base}/{state}/disable") == "1":
                continue
            latency = reader.number(f"{base}/{state}/latency")
            if limit_us is None or latency <= limit_us:
                latest = max(latest, latency)
        note = "no limit" if limit_us is None else f"at most {limit_us} us"
        evidence.append(f"{base}: up to {latest} us to wake; pm_qos_resume_latency_us: {limit} ({note})")
        if latest > _DEEP_US:
            deep[cpu] = latest
            path = f"{_CPU}/cpu{cpu}/power/pm_qos_resume_latency_us"
            fixes.append(f"echo n/a > {path}")
            reverts.append(f"echo {limit} > {path}")
    if "idle" in boot:
        evidence.append(f"/proc/cmdline: idle={' '.join(boot['idle'])}")
    if deep and "poll" not in boot.get("idle", []):
        found = f"CPU {format_cpus(deep)} may sleep so deeply that waking takes {max(deep.values())} us"
        if host.wanted.spin and host.cores:
            return Finding(Verdict.OK, f"{found}; its thread spins and never sleeps", tuple(evidence))
        return Finding(Verdict.WARN, found, tuple(evidence), "; ".join(fixes), "; ".join(reverts))
    return Finding(Verdict.OK, f"CPU {format_cpus(cpus)} wakes within {_DEEP_US} us", tuple(evidence))


@check(
    "boost",
    "power",
    Need.RUNTIME,
    "Boost makes cores faster for as long as the others are cool and idle: quicker on average, less even.",
)
def boost(host: Host) -> Finding:
    reader = host.reader
    for path, on in ((f"{_CPU}/intel_pstate/no_turbo", "0"), (f"{_CPU}/cpufreq/boost", "1")):
        value = reader.maybe(path)
        if value is not None:
            found = "on: faster, and less even; --measure shows the spread" if value == on else "off: even"
            return Finding(Verdict.OK, found, (f"{path}: {value}",))
    raise Absent(f"{_CPU}/cpufreq/boost")


@check(
    "mitigations",
    "power",
    Need.BOOT,
    "Protection against leaks between programs makes each system call dearer. It is told, and never "
    "advised against.",
)
def mitigations(host: Host) -> Finding:
    base = f"{_CPU}/vulnerabilities"
    active = []
    for name in host.reader.names(base):
        text = host.reader.text(f"{base}/{name}")
        if text.startswith("Mitigation"):
            active.append(f"{base}/{name}: {text}")
    found = f"{len(active)} active; leave them on unless nobody else's code ever runs here"
    return Finding(Verdict.OK, found if active else "none active", tuple(active))


@check(
    "clock-source",
    "clocks",
    Need.BASIC,
    "The kernel's clock stamps packets and our rows; from a slow source each reading is a system call of a "
    "microsecond.",
)
def clock_source(host: Host) -> Finding:
    base = "/sys/devices/system/clocksource/clocksource0"
    current = host.reader.text(f"{base}/current_clocksource")
    available = (host.reader.maybe(f"{base}/available_clocksource") or "").split()
    evidence = (
        f"{base}/current_clocksource: {current}",
        f"{base}/available_clocksource: {' '.join(available)}",
    )
    if current in ("tsc", "arch_sys_counter"):
        return Finding(Verdict.OK, current, evidence)
    path = f"{base}/current_clocksource"
    fix = f"echo tsc > {path}" if "tsc" in available else ""
    if current in ("kvm-clock", "hyperv_clocksource_tsc_page"):
        found = f"{current}: read without a system call, a little slower than tsc"
        return Finding(Verdict.OK, found, evidence, fix, f"echo {current} > {path}" if fix else "")
    found = f"{current}: slow to read"
    if not fix:
        found += ", and the kernel has taken tsc off its list, because it found it unsound (see dmesg)"
        return Finding(
            Verdict.FAIL, found, evidence, "tsc=reliable on the boot line, where that is known", reboot=True
        )
    return Finding(Verdict.FAIL, found, evidence, fix, f"echo {current} > {path}")


@check(
    "invariant-tsc",
    "clocks",
    Need.BASIC,
    "Durations come from the CPU's counter. One that follows the frequency or stops in sleep cannot be "
    "used, and "
    "stamps then cost a kernel clock reading each.",
)
def invariant_tsc(host: Host) -> Finding:
    path = "/proc/cpuinfo"
    flags = _flags(host)
    if "fp" in flags and "asimd" in flags:
        return Finding(Verdict.NOT_APPLICABLE, "an Arm CPU, whose counter has one rate by its architecture")
    named = [flag for flag in ("constant_tsc", "nonstop_tsc") if flag in flags]
    evidence = (f"{path}: flags: {' '.join(named) or 'neither constant_tsc nor nonstop_tsc'}",)
    if len(named) == 2:
        return Finding(Verdict.OK, "one rate on all cores in all power states", evidence)
    found = "the counter is not told to have one rate: stage clocks use CLOCK_MONOTONIC instead"
    return Finding(
        Verdict.FAIL, found, evidence, "a CPU, or a guest's CPU model, with an invariant TSC", reboot=True
    )


@check(
    "clock-sync",
    "clocks",
    Need.RUNTIME,
    "ts_recv is compared with the venue's stamps and with other machines: an unkept clock drifts by a "
    "tenth of a "
    "second a day.",
)
def clock_sync(host: Host) -> Finding:
    reader = host.reader
    running = reader.processes()
    daemons = [name for name in ("chronyd", "ptp4l", "phc2sys", "ntpd", "systemd-timesyn") if name in running]
    evidence = [
        f"/proc/*/comm: {', '.join(daemons) or 'none of chronyd, ptp4l, phc2sys, ntpd, systemd-timesyncd'}"
    ]
    if reader.has("/sys/class/ptp"):
        clocks = [
            f"{name} ({reader.maybe(f'/sys/class/ptp/{name}/clock_name') or 'no name'})"
            for name in reader.names("/sys/class/ptp")
        ]
        evidence.append(f"/sys/class/ptp: {', '.join(clocks) or 'none'}")
    if not daemons:
        found = "nothing that we know keeps this machine's clock"
        return Finding(
            Verdict.WARN,
            found,
            tuple(evidence),
            "systemctl enable --now chronyd",
            "systemctl disable --now chronyd",
        )
    fix = "chronyc sources, or the daemon's log: why it is off"
    for ask in (_chrony, _ptp):
        try:
            asked = ask(host)
        except (Absent, Unreadable) as error:
            evidence.append(str(error))
            continue
        if asked is None:
            continue
        offset, age, line = asked
        evidence.append(line)
        if age is not None and age > _OFFSET_AGE_S:
            return Finding(
                Verdict.FAIL, f"the last word of its source is {age:,.0f} s old", tuple(evidence), fix
            )
        when = "" if age is None else f", measured {age:,.0f} s ago"
        found = f"{abs(offset) * 1e6:,.1f} us from its source{when}"
        if abs(offset) > _OFFSET_S:
            return Finding(Verdict.WARN, found, tuple(evidence), fix)
        return Finding(Verdict.OK, found, tuple(evidence))
    found = f"{', '.join(daemons)} runs; how far the clock is off is not readable here"
    return Finding(Verdict.UNKNOWN, found, tuple(evidence))


def _chrony(host: Host) -> tuple[float, float | None, str] | None:
    """Offset and age in seconds, and what was read."""
    if "chronyd" not in host.reader.processes():
        return None
    command = ("chronyc", "-n", "-c", "tracking")
    fields = host.reader.command(*command).strip().split(",")
    try:
        reference, offset, leap = float(fields[3]), float(fields[4]), fields[13]
    except (IndexError, ValueError):
        raise Unreadable(" ".join(command), "expected the fields of tracking") from None
    line = f"{' '.join(command)}: offset {offset:.9f} s, reference time {reference:.0f}, {leap}"
    if leap == "Not synchronised" or reference <= 0:
        return offset, float("inf"), line
    return offset, max(_utc_s(host) - reference, 0.0), line


def _utc_s(host: Host) -> float:
    """The host's own time: that of boot plus the seconds since."""
    match = re.search(r"^btime (\d+)", host.reader.text("/proc/stat"), re.MULTILINE)
    uptime = host.reader.text("/proc/uptime").split()
    if match is None or not uptime:
        raise Unreadable("/proc/stat", "expected btime")
    try:
        return int(match[1]) + float(uptime[0])
    except ValueError:
        raise Unreadable("/proc/uptime", "expected seconds") from None


def _ptp(host: Host) -> tuple[float, float | None, str] | None:
    if "ptp4l" not in host.reader.processes():
        return None
    command = ("pmc", "-u", "-b", "0", "GET TIME_STATUS_NP")
    said = dict(re.findall(r"(master_offset|ingress_time)\s+(-?\d+)", host.reader.command(*command)))
    if "master_offset" not in said:
        raise Unreadable(" ".join(command), "expected master_offset")
    line = f"{' '.join(command)}: " + ", ".join(f"{name} {value} ns" for name, value in said.items())
    # When the master's last message came; 0 where none has, or this clock is the master.
    ingress = int(said.get("ingress_time", "0"))
    age = max(_utc_s(host) + _TAI_S - ingress / 1e9, 0.0) if ingress > 0 else None
    return int(said["master_offset"]) / 1e9, age, line
