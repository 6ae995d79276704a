"""A check, what it finds, and what a profile makes of it.

A check is a function from a `Host` to a `Finding`, in one registry. It judges as if the host were the
engine's own; the profile then says how much of that this host is asked for.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tickwire.host.reader import Absent, Reader, Unreadable

__all__ = [
    "CHECKS",
    "Check",
    "Finding",
    "Host",
    "Need",
    "Probe",
    "Profile",
    "Verdict",
    "Wanted",
    "WantedLine",
    "check",
    "examine",
]


class Verdict(enum.StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNMOVABLE = "unmovable"
    """It is in the way, and neither root nor a reboot takes it away: the kernel decides over it."""
    UNKNOWN = "unknown"
    """It could not be read. Nothing is claimed."""
    NOT_APPLICABLE = "not applicable"


class Profile(enum.StrEnum):
    LAPTOP = "laptop"
    """For development: only what makes a run wrong matters, and no more than a warning."""
    VM = "vm"
    """A guest: what its own root can set must be right; what the boot line and the host give is advice."""
    SHARED = "shared"
    """A machine with other tenants: nothing that takes from them is asked for, only told."""
    DEDICATED = "dedicated"
    """The engine's own machine: everything."""


class Need(enum.Enum):
    """What kind of thing a check asks for; profiles differ in these."""

    BASIC = "basic"
    """Wrong figures or a broken run."""
    RUNTIME = "runtime"
    """What root can set, and take back, while the host runs."""
    BOOT = "boot"
    """What needs the boot line, the firmware, or another machine."""


_ORDER = (Verdict.OK, Verdict.WARN, Verdict.FAIL)

# The most that a profile makes of a check's finding.
_CAPS: dict[Profile, dict[Need, Verdict]] = {
    Profile.LAPTOP: {Need.BASIC: Verdict.WARN, Need.RUNTIME: Verdict.OK, Need.BOOT: Verdict.OK},
    Profile.VM: {Need.BASIC: Verdict.FAIL, Need.RUNTIME: Verdict.FAIL, Need.BOOT: Verdict.WARN},
    Profile.SHARED: {Need.BASIC: Verdict.FAIL, Need.RUNTIME: Verdict.WARN, Need.BOOT: Verdict.OK},
    Profile.DEDICATED: {Need.BASIC: Verdict.FAIL, Need.RUNTIME: Verdict.FAIL, Need.BOOT: Verdict.FAIL},
}


@dataclass(frozen=True, slots=True)
class Finding:
    verdict: Verdict
    found: str
    """One line: how it stands."""
    evidence: tuple[str, ...] = ()
    """What was read where."""
    fix: str = ""
    """The command, to be run by root."""
    revert: str = ""
    """What puts back the value that was read."""
    reboot: bool = False
    check: str = ""
    area: str = ""
    why: str = ""
    strict: Verdict = Verdict.OK
    """The verdict before the profile."""

    def as_dict(self) -> dict[str, object]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)} | {
            "evidence": list(self.evidence)
        }


@dataclass(frozen=True, slots=True)
class WantedLine:
    """A multicast line that a feed joins."""

    key: str
    """Of the configuration."""
    address: str
    """The group and its port."""
    interface: str
    """Empty: the host's routes decide."""
    source_address: str
    """Empty: any sender."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the engine asks of the host."""

    cores: tuple[int, ...] = ()
    """Those that its threads are pinned to."""
    names: tuple[str, ...] = ()
    """Where each core was asked for: a key of the configuration, --cores or host.env."""
    threads: int = 0
    """Data-plane threads; 0 where no configuration was given."""
    spin: bool = False
    """Do idle threads keep their core?"""
    huge_pages: int = 32
    """2 MiB pages that the arena may want: an engine of some instruments takes 20 to 40."""
    lock: bool = True
    """Is memory to be locked?"""
    rmem_bytes: int = 8 << 20
    """Receive buffer that a burst of datagrams asks for; 0 where the kernel's default will do."""
    interfaces: tuple[str, ...] = ()
    """That the feed comes in by; all of the hardware's where nobody says."""
    lines: tuple[WantedLine, ...] = ()
    busy_poll_us: int = 0
    """That the kernel is to poll in a receive; 0 where it is not asked to."""
    prefer_busy_poll: bool = False
    nic_stamps: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """A thread that did nothing but read the clock on one core."""

    core: int
    involuntary: int
    """Times that another task took the core from it."""
    lost: float
    """Part of the time that it did not run, of 1."""
    max_ns: int


@dataclass(frozen=True, slots=True)
class Host:
    """What a check may look at."""

    reader: Reader
    wanted: Wanted = Wanted()
    before: Reader | None = None
    """The same host a while ago, where effects are to be judged."""
    seconds: float = 0.0
    """How long ago."""
    engines: tuple[int, ...] = ()
    """The processes of running engines on these cores, their workers' too."""
    granted_bytes: int = 0
    """Receive buffer that a socket was given when asked for `wanted.rmem_bytes`, twice it where all was
    granted; 0 where not tried."""
    probes: tuple[Probe, ...] = ()
    """What a thread of ours saw that spun on each of the engine's cores meanwhile; none beside an engine."""

    @property
    def cores(self) -> frozenset[int]:
        return frozenset(self.wanted.cores)

    def on_cores(self, cpus: frozenset[int]) -> frozenset[int]:
        """Those of `cpus` that are the engine's."""
        return cpus & self.cores


CheckFunction = Callable[[Host], Finding]


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    area: str
    need: Need
    why: str
    function: CheckFunction
    per_core: bool
    measured: bool

    def run(self, host: Host, profile: Profile) -> Finding:
        finding = self._judge(host)
        cap = _CAPS[profile][self.need]
        verdict = finding.verdict
        if verdict in _ORDER:
            verdict = min(verdict, cap, key=_ORDER.index)
        return dataclasses.replace(
            finding, verdict=verdict, strict=finding.verdict, check=self.name, area=self.area, why=self.why
        )

    def _judge(self, host: Host) -> Finding:
        if self.per_core and not host.cores:
            return Finding(Verdict.NOT_APPLICABLE, "no core is the engine's: see --config, --env and --cores")
        try:
            return self.function(host)
        except Absent as error:
            return Finding(Verdict.NOT_APPLICABLE, f"this kernel or machine has no {error.where}")
        except Unreadable as error:
            return Finding(Verdict.UNKNOWN, str(error))


CHECKS: dict[str, Check] = {}

#: In the order of the report.
AREAS = ("cores", "interrupts", "memory", "power", "clocks", "network", "effects")


def check(
    name: str, area: str, need: Need, why: str, *, per_core: bool = False, measured: bool = False
) -> Callable[[CheckFunction], CheckFunction]:
    """Puts a function into the registry. `per_core`: about the engine's cores, so without any not
    applicable. `measured`: compares `host.before` with `host.reader`."""

    def register(function: CheckFunction) -> CheckFunction:
        assert name not in CHECKS
        assert area in AREAS
        CHECKS[name] = Check(name, area, need, why, function, per_core, measured)
        return function

    return register


def examine(host: Host, profile: Profile, names: Sequence[str] | None = None) -> list[Finding]:
    """Runs the checks, all that apply or those named, area by area."""
    return [
        one.run(host, profile)
        for one in sorted(CHECKS.values(), key=lambda one: AREAS.index(one.area))
        if (names is None or one.name in names) and not (one.measured and host.before is None)
    ]
