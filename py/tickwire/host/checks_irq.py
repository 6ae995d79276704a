"""Checks of what interrupts the engine's cores."""

from __future__ import annotations

import re

from tickwire.host.finding import Finding, Host, Need, Verdict, check
from tickwire.host.reader import Absent, Unreadable, format_cpus, format_mask, parse_cpus

__all__: list[str] = []

_MAX_SHOWN = 8


@check(
    "irq-placement",
    "interrupts",
    Need.RUNTIME,
    "A device's interrupt stops the thread on its CPU for microseconds and takes its cache.",
    per_core=True,
)
def irq_placement(host: Host) -> Finding:
    reader = host.reader
    rows = reader.interrupts()
    rest = format_cpus(reader.online() - host.cores)
    here: list[str] = []  # Movable, and effective on a core of ours.
    stuck: list[str] = []
    stray: list[str] = []  # Elsewhere now, but its mask lets it come.
    leaving: list[str] = []  # Its mask bars it; many move only with their next interrupt.
    fixes: dict[str, str] = {}
    reverts: dict[str, str] = {}
    hidden = 0
    for number in reader.names("/proc/irq"):
        if not number.isdecimal():
            continue
        mask_path = f"/proc/irq/{number}/smp_affinity_list"
        try:
            allowed = reader.cpus(mask_path)
            movable = reader.writable_by_root(mask_path)
        except Absent:
            continue  # Freed while we looked.
        except Unreadable:
            hidden += 1
            continue
        try:
            effective = reader.cpus(f"/proc/irq/{number}/effective_affinity_list")
        except (Absent, Unreadable):
            effective = allowed
        name, counts = rows.get(number, ("", {}))
        ours = host.on_cores(effective)
        count = sum(counts.get(cpu, 0) for cpu in ours)
        if not sum(counts.values()):
            continue  # Nobody uses it.
        line = (
            f"IRQ {number} ({name.split()[-1] if name else 'no name'}): mask {format_cpus(allowed)}, "
            f"on CPU {format_cpus(effective)}"
        )
        if ours:
            line += f", {count:,} there since boot"
        if ours and movable and not host.on_cores(allowed):
            leaving.append(line)
            continue
        if ours:
            (here if movable else stuck).append(line)
        elif host.on_cores(allowed) and movable:
            stray.append(line)
        else:
            continue
        if movable:
            fixes[line] = f"echo {rest} > {mask_path}"
            reverts[line] = f"echo {format_cpus(allowed)} > {mask_path}"
    if hidden:
        stray_note = f"{hidden} interrupts could not be read"
        if not here:
            return Finding(Verdict.UNKNOWN, stray_note, tuple(stuck + stray))
    cores = format_cpus(host.cores)
    evidence = tuple(here + stuck + stray + leaving)
    to_move = here + stray

    def commands(lines: dict[str, str]) -> str:
        texts = [lines[line] for line in to_move]
        more = f"; … {len(texts) - _MAX_SHOWN} more" if len(texts) > _MAX_SHOWN else ""
        return "; ".join(texts[:_MAX_SHOWN]) + more

    if here:
        also = f", and {len(stuck)} that cannot be moved" if stuck else ""
        found = f"{len(here)} interrupts are served on CPU {cores}{also}"
        return Finding(Verdict.FAIL, found, evidence, commands(fixes), commands(reverts))
    if stuck:
        found = f"{len(stuck)} interrupts on CPU {cores} are placed by the kernel, and root cannot move them"
        if stray:
            found += f"; {len(stray)} others may come"
        return Finding(Verdict.UNMOVABLE, found, evidence, commands(fixes), commands(reverts))
    if stray:
        found = f"{len(stray)} interrupts are elsewhere now, but their masks allow CPU {cores}"
        return Finding(Verdict.WARN, found, evidence, commands(fixes), commands(reverts))
    found = f"no device interrupts CPU {cores}"
    if leaving:
        found += f", but for {len(leaving)} that leave it with their next interrupt"
    return Finding(Verdict.OK, found, evidence)


@check(
    "irq-default",
    "interrupts",
    Need.RUNTIME,
    "An interrupt that a driver asks for later is placed by this mask.",
    per_core=True,
)
def irq_default(host: Host) -> Finding:
    path = "/proc/irq/default_smp_affinity"
    text = host.reader.text(path)
    here = host.on_cores(host.reader.mask(path))
    evidence = (f"{path}: {text}",)
    if not here:
        return Finding(Verdict.OK, "new interrupts land elsewhere", evidence)
    rest = format_mask(host.reader.online() - host.cores)
    found = f"new interrupts may land on CPU {format_cpus(here)}"
    return Finding(Verdict.WARN, found, evidence, f"echo {rest} > {path}", f"echo {text} > {path}")


@check(
    "irqbalance",
    "interrupts",
    Need.RUNTIME,
    "irqbalance moves interrupts every ten seconds, back to where they were taken from. A list of banned "
    "CPUs "
    "switches its own respect for isolcpus and nohz_full off: the list must name all of them.",
    per_core=True,
)
def irqbalance(host: Host) -> Finding:
    reader = host.reader
    running = reader.processes().get("irqbalance", [])
    if not running:
        return Finding(Verdict.OK, "irqbalance does not run", ("/proc/*/comm: no irqbalance",))
    evidence = [f"/proc/{running[0]}/comm: irqbalance"]
    banned: frozenset[int] | None = None
    for path in ("/etc/default/irqbalance", "/etc/sysconfig/irqbalance", "/etc/irqbalance.env"):
        text = reader.maybe(path)
        match = re.search(r"^\s*IRQBALANCE_BANNED_CPULIST=[\"']?([\d,-]*)", text or "", re.MULTILINE)
        if match is not None and match[1]:
            evidence.append(f"{path}: IRQBALANCE_BANNED_CPULIST={match[1]}")
            try:
                banned = (banned or frozenset()) | parse_cpus(match[1])
            except ValueError as error:
                raise Unreadable(path, str(error)) from None
    isolated: frozenset[int] = frozenset()
    for name in ("isolated", "nohz_full"):
        try:
            isolated |= reader.cpus(f"/sys/devices/system/cpu/{name}")
        except (Absent, Unreadable):
            continue
    needed = format_cpus(host.cores | isolated)
    fix = f"systemctl stop irqbalance, or IRQBALANCE_BANNED_CPULIST={needed} in its file and restart it"
    revert = "systemctl start irqbalance, or the file as it was and a restart"
    if banned is None:
        missing = host.cores - isolated
        if not missing:
            found = f"irqbalance runs and leaves the isolated CPUs {format_cpus(isolated)} alone by itself"
            return Finding(Verdict.OK, found, tuple(evidence))
        found = f"irqbalance runs and may put any interrupt on CPU {format_cpus(missing)}"
        return Finding(Verdict.FAIL, found, tuple(evidence), fix, revert)
    if missing := host.cores - banned:
        found = f"irqbalance runs, and its banned list lacks CPU {format_cpus(missing)}"
        return Finding(Verdict.FAIL, found, tuple(evidence), fix, revert)
    if missing := isolated - banned:
        found = (
            f"irqbalance's banned list lacks the isolated CPU {format_cpus(missing)}: having a list, it no "
            "longer "
            "leaves isolated CPUs alone by itself"
        )
        return Finding(Verdict.FAIL, found, tuple(evidence), fix, revert)
    return Finding(Verdict.OK, f"irqbalance runs and keeps off CPU {format_cpus(banned)}", tuple(evidence))


@check(
    "tuned",
    "interrupts",
    Need.RUNTIME,
    "A daemon that owns the same knobs sets them back, or is undone by what is set here.",
)
def tuned(host: Host) -> Finding:
    running = host.reader.processes().get("tuned", [])
    profile = host.reader.maybe("/etc/tuned/active_profile")
    evidence = (f"/etc/tuned/active_profile: {profile or 'none'}",)
    if running and profile:
        found = f"TuneD runs with the profile {profile}: it and tickwire tune must not set the same knobs"
        return Finding(Verdict.WARN, found, evidence, "tuned-adm off", f"tuned-adm profile {profile}")
    return Finding(Verdict.OK, "TuneD does not run", evidence)


@check(
    "watchdogs",
    "interrupts",
    Need.RUNTIME,
    "The lockup detectors wake a thread and a counter on each CPU every few seconds.",
    per_core=True,
)
def watchdogs(host: Host) -> Finding:
    base = "/proc/sys/kernel"
    values = {
        name: host.reader.maybe(f"{base}/{name}") for name in ("watchdog", "nmi_watchdog", "watchdog_cpumask")
    }
    evidence = tuple(f"{base}/{name}: {value}" for name, value in values.items() if value is not None)
    if values["watchdog"] is None and values["nmi_watchdog"] is None:
        raise Absent(f"{base}/watchdog")
    if values["watchdog"] == "0" and values["nmi_watchdog"] in ("0", None):
        return Finding(Verdict.OK, "off", evidence)
    path = f"{base}/watchdog_cpumask"
    here = host.on_cores(host.reader.cpus(path))
    if not here:
        return Finding(Verdict.OK, f"on, but not on {format_cpus(host.cores)}", evidence)
    rest = format_cpus(host.reader.online() - host.cores)
    found = f"they run on CPU {format_cpus(here)}"
    if values["nmi_watchdog"] == "1":
        found += ", the one of non-maskable interrupts too"
    revert = f"echo {values['watchdog_cpumask']} > {path}"
    return Finding(Verdict.WARN, found, evidence, f"echo {rest} > {path}", revert)


@check(
    "console",
    "interrupts",
    Need.RUNTIME,
    "The kernel prints to a serial console within whatever call caused the message, a tenth of a "
    "millisecond a "
    "character line.",
)
def console(host: Host) -> Finding:
    path = "/proc/sys/kernel/printk"
    text = host.reader.text(path)
    serial = [
        value for value in host.reader.cmdline().get("console", []) if value.startswith(("ttyS", "ttyAMA"))
    ]
    evidence = (
        f"{path}: {' '.join(text.split())}",
        f"/proc/cmdline: console: {' '.join(serial) or 'no serial'}",
    )
    level = text.split()[0] if text else ""
    if not level.isdecimal():
        raise Unreadable(path, f"expected a level, found {text[:60]!r}")
    if serial and int(level) > 4:
        found = f"messages up to level {level} go to the serial console {serial[0]}"
        return Finding(
            Verdict.WARN, found, evidence, f"echo 4 > {path}", f'echo "{" ".join(text.split())}" > {path}'
        )
    return Finding(Verdict.OK, "no chatter on a serial console", evidence)
