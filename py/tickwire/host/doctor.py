"""The whole examination: which profile this host is, what is compared with what, and what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tickwire.errors import Error
from tickwire.host import (
    checks_clock,
    checks_cpu,
    checks_effect,
    checks_irq,
    checks_memory,
    checks_net,
    jitter,
)
from tickwire.host.affinity import can_run_on
from tickwire.host.finding import Finding, Host, Probe, Profile, Verdict, Wanted, examine
from tickwire.host.reader import Absent, Reader, Unreadable
from tickwire.json_text import parse_json

__all__ = ["Report", "diagnose", "drift", "guess_profile", "pinned_cores", "read_baseline", "running_engines"]

# Importing them fills the registry, in the order of the report.
_MODULES = (checks_cpu, checks_irq, checks_memory, checks_clock, checks_net, checks_effect)

#: Version of the JSON that doctor prints.
SCHEMA = 1

# Everything that a check by effect compares. It is copied, because /proc cannot be read of a moment ago.
_SAMPLED = ("/proc/interrupts", "/proc/stat", "/proc/net/snmp", "/proc/net/softnet_stat")


@dataclass(frozen=True, slots=True)
class Report:
    profile: Profile
    why_profile: str
    wanted: Wanted
    findings: list[Finding]
    seconds: float
    """How long effects were measured; 0 where they were not."""
    engines: tuple[int, ...]

    def count(self, verdict: Verdict) -> int:
        return sum(finding.verdict is verdict for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """2 with a failure. 1 with a warning, or with something that nobody could see: it is no proof of
        a good host. Else 0."""
        if self.count(Verdict.FAIL):
            return 2
        return 1 if self.count(Verdict.WARN) or self.count(Verdict.UNKNOWN) else 0

    def as_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "profile": self.profile.value,
            "cores": list(self.wanted.cores),
            "measured_seconds": round(self.seconds, 3),
            "engines": list(self.engines),
            "exit_code": self.exit_code,
            "counts": {verdict.value: self.count(verdict) for verdict in Verdict},
            "findings": [finding.as_dict() for finding in self.findings],
        }


def guess_profile(reader: Reader, wanted: Wanted) -> tuple[Profile, str]:
    """The profile of a host that nobody named, and why."""
    try:
        supplies = reader.names("/sys/class/power_supply")
    except (Absent, Unreadable):
        supplies = []
    battery = next((name for name in supplies if name.startswith("BAT")), "")
    if battery:
        return Profile.LAPTOP, f"it has a battery, {battery}"
    try:
        if checks_clock.is_guest(Host(reader)):
            return Profile.VM, "its CPU says that it runs under a hypervisor"
    except (Absent, Unreadable):
        return Profile.SHARED, "what it is could not be read"
    if wanted.cores:
        return Profile.DEDICATED, "cores were named and no hypervisor is seen"
    return Profile.SHARED, "no cores were named"


def running_engines(reader: Reader, cores: frozenset[int]) -> tuple[int, ...]:
    """The processes, of any user, with data-plane threads pinned to these cores, or with none named any."""
    try:
        names = reader.names("/proc")
    except (Absent, Unreadable):
        return ()
    found = [int(name) for name in names if name.isdecimal() and _threads(reader, int(name))]
    return tuple(pid for pid in found if not cores or cores & pinned_cores(reader, pid))


def _threads(reader: Reader, pid: int) -> dict[int, str]:
    """An engine's threads; none of a process that has ended, or is hidden from us."""
    try:
        return checks_effect.engine_threads(reader, pid)
    except (Absent, Unreadable):
        return {}


def pinned_cores(reader: Reader, pid: int) -> frozenset[int]:
    """The cores that an engine's threads are pinned to."""
    cores = frozenset[int]()
    for tid in _threads(reader, pid):
        try:
            text = reader.text(f"/proc/{pid}/task/{tid}/status")
        except (Absent, Unreadable):
            continue
        match = re.search(r"^Cpus_allowed_list:\s*(\d+)$", text, re.MULTILINE)
        if match is not None:
            cores |= {int(match[1])}
    return cores


class _Frozen(Reader):
    """What a host's counters were at one moment. All else is as it is now."""

    def __init__(self, reader: Reader, texts: Mapping[str, str]) -> None:
        super().__init__(reader.root)
        self._texts = texts

    def text(self, path: str) -> str:
        return self._texts[path] if path in self._texts else super().text(path)


def freeze(reader: Reader, wanted: Wanted, engines: Sequence[int]) -> Reader:
    """Copies the counters that effects are told by."""
    paths = list(_SAMPLED)
    for cpu in wanted.cores:
        base = f"/sys/devices/system/cpu/cpu{cpu}"
        paths.append(f"{base}/cpufreq/scaling_cur_freq")
        with contextlib.suppress(Absent, Unreadable):
            paths += [f"{base}/cpuidle/{state}/time" for state in reader.names(f"{base}/cpuidle")]
    try:
        names = reader.interfaces()
    except (Absent, Unreadable):
        names = []
    for name in names:
        paths += [
            f"/sys/class/net/{name}/statistics/{counter}"
            for counter in ("rx_missed_errors", "rx_fifo_errors", "rx_dropped")
        ]
    for pid in engines:
        for tid in _threads(reader, pid):
            paths += [f"/proc/{pid}/task/{tid}/{name}" for name in ("status", "stat")]
    texts = {}
    for path in paths:
        try:
            texts[path] = reader.text(path)
        except (Absent, Unreadable):
            continue
    return _Frozen(reader, texts)


def _granted(wanted: int) -> int:
    """What the kernel shows of a receive buffer that was asked for; 0 where no socket can be had."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, min(wanted, (1 << 30) - 1))
            return probe.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    except OSError:
        return 0


def diagnose(
    reader: Reader, wanted: Wanted, *, profile: Profile | None = None, measure_s: float = 0.0
) -> Report:
    """Runs every check. `measure_s`: also watch the host for so long and judge by what happened.

    Beside a running engine it only watches. Where none runs, a thread of ours spins on each of the engine's
    cores meanwhile: an idle core has no tick to be seen.
    """
    guessed, why = guess_profile(reader, wanted)
    if profile is not None and profile is not guessed:
        why = f"asked for; this host looks like {guessed.value}: {why}"
    host = Host(reader, wanted, engines=running_engines(reader, frozenset(wanted.cores)))
    if measure_s > 0.0:
        host = _measured(host, measure_s)
    chosen = profile or guessed
    return Report(chosen, why, wanted, examine(host, chosen), host.seconds, host.engines)


def _measured(host: Host, seconds: float) -> Host:
    before = freeze(host.reader, host.wanted, host.engines)
    begin = time.monotonic()
    probes: tuple[Probe, ...] = ()
    # Not those of our own list alone: isolated cores are not on it.
    usable = [] if host.engines else [core for core in sorted(host.cores) if can_run_on(core)]
    if usable:
        probes = tuple(core.probe for core in jitter.measure(usable, seconds).cores)
    else:
        time.sleep(seconds)
    return dataclasses.replace(
        host,
        before=before,
        seconds=time.monotonic() - begin,
        probes=probes,
        granted_bytes=_granted(host.wanted.rmem_bytes),
    )


def read_baseline(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """The findings of an earlier `doctor --json`, by check."""
    try:
        data = parse_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Error(f"{path}: expected what doctor --json printed, found: {error}") from None
    if (
        not isinstance(data, dict)
        or data.get("schema") != SCHEMA
        or not isinstance(data.get("findings"), list)
    ):
        raise Error(f"{path}: expected what doctor --json printed, schema {SCHEMA}")
    try:
        return {finding["check"]: finding for finding in data["findings"]}
    except (TypeError, KeyError):
        raise Error(f"{path}: expected findings with a check each") from None


def drift(report: Report, baseline: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What stands otherwise than in an earlier report, a line each. Verdicts are compared as before any
    profile, and settings by what was read; figures that were measured differ each time, so of those only
    the verdict counts."""
    lines = []
    now = {finding.check: finding for finding in report.findings}
    for name, finding in now.items():
        if name not in baseline:
            lines.append(f"{name}: new: {finding.strict.value}, {finding.found}")
            continue
        then = baseline[name]
        measured = finding.area == "effects" or name in (
            "stolen-time",
            "irq-placement",
            "receive-ring",
            "clock-sync",
        )
        same_text = measured or then.get("found") == finding.found
        if then.get("strict") != finding.strict.value or not same_text:
            lines.append(
                f"{name}: was {then.get('strict')}, {then.get('found')}; is {finding.strict.value}, "
                f"{finding.found}"
            )
    lines += [f"{name}: no longer examined" for name in baseline if name not in now]
    return lines
