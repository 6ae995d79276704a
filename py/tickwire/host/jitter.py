"""What a core loses, and to whom: runs tickwire-jitter and adds what only a look around tells.

The program spins and says when it was stopped and by what kind of thing. Which task it was, this module
finds out: it looks every now and then who has used which CPU.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tickwire.errors import Error, SetupError
from tickwire.host.checks_cpu import isolation_kinds
from tickwire.host.finding import Probe
from tickwire.host.reader import Absent, Reader, Unreadable

__all__ = ["CoreJitter", "Jitter", "WorstGap", "measure"]

_PROGRAM = "tickwire-jitter"
_LOOK_S = 0.5
# A task that used less than this part of a CPU's time explains none of the gaps.
_LEAST_SHARE = 0.001


@dataclass(frozen=True, slots=True)
class WorstGap:
    ts: int
    """UTC nanoseconds."""
    at_s: float
    """Seconds since the start."""
    ns: int
    cause: str


@dataclass(frozen=True, slots=True)
class CoreJitter:
    core: int
    floor_ns: int
    """What one reading of the clock takes."""
    threshold_ns: int
    """From how long on a distance between two readings counts as a gap."""
    watched_ns: int
    lost_ns: int
    lost_to_tasks_ns: int
    gaps: int
    gaps_not_looked_at: int
    """They came faster than they could be taken: they are counted, but not among the worst."""
    switches: int
    faults: int
    p50_ns: int
    p99_ns: int
    p999_ns: int
    max_ns: int
    longest_quiet_ns: int
    worst_second_ns: int
    period_ns: int
    """At which the longer gaps recur; 0 where they have no rhythm."""
    steal_ticks: int
    interrupts: str
    worst: tuple[WorstGap, ...]
    kinds: tuple[str, ...] = ()
    """Of isolation."""
    tasks: Mapping[str, float] = field(default_factory=dict)
    """Who else was seen on this core, and the part of its time they used, the most first."""
    mhz: tuple[int, int] | None = None
    """The lowest and the highest frequency seen; None where this kernel does not tell."""

    @property
    def lost(self) -> float:
        return self.lost_ns / self.watched_ns if self.watched_ns else 0.0

    @property
    def rate(self) -> float:
        """Gaps a second."""
        return self.gaps / (self.watched_ns / 1e9) if self.watched_ns else 0.0

    @property
    def rhythm(self) -> str:
        """What is known to come at such a period."""
        if not self.period_ns:
            return ""
        seconds = self.period_ns / 1e9
        known = ""
        for at, what in (
            (1.0, "the fair server or a statistics timer"),
            (10.0, "irqbalance"),
            (60.0, "firmware"),
        ):
            if math.isclose(seconds, at, rel_tol=0.05):
                known = what
        for hz in (100, 250, 300, 1000):
            if math.isclose(seconds, 1 / hz, rel_tol=0.05):
                known = f"the scheduler's tick of {hz} Hz"
        text = f"{seconds:,.3g} s" if seconds >= 1 else f"{seconds * 1e3:,.3g} ms"
        return f"the longer gaps recur each {text}" + (f", as {known} does" if known else "")

    @property
    def probe(self) -> Probe:
        return Probe(self.core, self.switches, self.lost, self.max_ns)


@dataclass(frozen=True, slots=True)
class Jitter:
    seconds: float
    stat_file: Path
    aside: bool
    """Was there a core to look for causes from?"""
    cores: tuple[CoreJitter, ...]

    @property
    def hourly_seen(self) -> float:
        """How probable it was to see something that comes once an hour."""
        return 1.0 - math.exp(-self.seconds / 3600.0)


def _program() -> str:
    path = Path(sys.executable).with_name(_PROGRAM)
    if not path.is_file():
        raise SetupError(f"{path}: no such program; it is installed beside the tickwire command: make setup")
    return str(path)


def measure(
    cores: Sequence[int],
    seconds: float,
    *,
    worst: int = 10,
    threshold_ns: int = 0,
    stat_file: str | os.PathLike[str] | None = None,
) -> Jitter:
    """Spins on these cores for so long."""
    command = [_program(), "--json", "--seconds", f"{seconds:g}", "--worst", str(worst)]
    command += ["--cores", ",".join(map(str, cores))]
    if threshold_ns:
        command += ["--threshold-ns", str(threshold_ns)]
    if stat_file is not None:
        command += ["--stat-file", os.fspath(stat_file)]
    reader = Reader()
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program,
        # After it has begun: it leaves the cores that it measures by itself.
        _aside(os.sched_getaffinity(0) - set(cores)),
    ):
        try:
            seen = _watch(reader, program, cores)
            out, said = program.communicate()
        except BaseException:
            program.terminate()
            raise
    if program.returncode != 0:
        raise Error(said.strip() or f"{_PROGRAM} ended with {program.returncode}")
    return _parse(reader, json.loads(out), seen)


@contextlib.contextmanager
def _aside(others: set[int]) -> Iterator[None]:
    """Keeps our own looking around off the cores that are measured, where there are others."""
    before = os.sched_getaffinity(0)
    if others:
        os.sched_setaffinity(0, others)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a look around tells, by CPU."""

    tasks: dict[int, dict[str, float]] = field(default_factory=dict)
    """Part of the time by task."""
    mhz: dict[int, tuple[int, int]] = field(default_factory=dict)


def _parse(reader: Reader, data: dict[str, Any], seen: _Seen) -> Jitter:
    cores = []
    for each in data["cores"]:
        core = each["core"]
        tasks = sorted(seen.tasks.get(core, {}).items(), key=lambda item: -item[1])
        known = {
            name for name in CoreJitter.__dataclass_fields__ if name not in ("worst", "kinds", "tasks", "mhz")
        }
        cores.append(
            CoreJitter(
                **{name: each[name] for name in known},
                worst=tuple(WorstGap(**gap) for gap in each["worst"]),
                kinds=tuple(isolation_kinds(reader, core)),
                tasks={name: share for name, share in tasks[:5] if share >= _LEAST_SHARE},
                mhz=seen.mhz.get(core),
            )
        )
    return Jitter(data["seconds"], Path(data["stat_file"]), data["sampler_aside"], tuple(cores))


def note_frequencies(reader: Reader, cores: Sequence[int], mhz: dict[int, tuple[int, int]]) -> None:
    """Widens what was seen by what is now, where the kernel tells."""
    for core in cores:
        with contextlib.suppress(Absent, Unreadable):
            now = reader.number(f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq") // 1000
            low, high = mhz.get(core, (now, now))
            mhz[core] = (min(low, now), max(high, now))


def _watch(reader: Reader, program: subprocess.Popen[str], cores: Sequence[int]) -> _Seen:
    """Who used which CPU until the program ends, and at which frequency."""
    seen = _Seen()
    used: dict[int, dict[tuple[int, int], int]] = {}
    names: dict[int, str] = {}
    begin = time.monotonic()
    before = _task_times(reader, program.pid)
    out, ended = program.stdout, False
    assert out is not None
    while not ended:
        # What it prints fits into the pipe, or it waits there for us to read it.
        ended = bool(select.select([out], [], [], _LOOK_S)[0])
        note_frequencies(reader, cores, seen.mhz)
        now = _task_times(reader, program.pid)
        for task, (cpu, ticks) in now.items():
            spent = ticks - before.get(task, (cpu, ticks))[1]
            if spent > 0:
                on_cpu = used.setdefault(cpu, {})
                on_cpu[task] = on_cpu.get(task, 0) + spent
                if task[0] not in names:
                    names[task[0]] = _name(task[0])
        before = now
    elapsed = max(time.monotonic() - begin, 1e-9) * os.sysconf("SC_CLK_TCK")
    for cpu, tasks in used.items():
        for (pid, _), ticks in tasks.items():
            here = seen.tasks.setdefault(cpu, {})
            here[names[pid]] = here.get(names[pid], 0.0) + ticks / elapsed
    return seen


def _task_times(reader: Reader, own: int) -> dict[tuple[int, int], tuple[int, int]]:
    """By process and thread, the CPU it was last on and the ticks it has used. Not the program's own."""
    times = {}
    for pid in reader.names("/proc"):
        if not pid.isdecimal() or int(pid) == own:
            continue
        with contextlib.suppress(Absent, Unreadable):  # It has ended meanwhile.
            for tid in reader.names(f"/proc/{pid}/task"):
                with contextlib.suppress(Absent, Unreadable, IndexError):
                    fields = reader.text(f"/proc/{pid}/task/{tid}/stat").rpartition(")")[2].split()
                    times[int(pid), int(tid)] = (int(fields[36]), int(fields[11]) + int(fields[12]))
    return times


def _name(pid: int) -> str:
    """What people know a process by."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            words = process.cmdline()
            text = " ".join([os.path.basename(words[0]), *words[1:]]) if words else f"[{process.name()}]"
    except psutil.Error:
        return f"process {pid}"
    return f"{text[:60]} (process {pid})"
