"""`tickwire doctor` and `tickwire jitter`."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tickwire.cli import output
from tickwire.config import Config
from tickwire.errors import ConfigError, Error
from tickwire.host.doctor import Report, diagnose, drift, pinned_cores, read_baseline, running_engines
from tickwire.host.finding import Finding, Profile, Verdict, Wanted
from tickwire.host.jitter import CoreJitter, Jitter, measure
from tickwire.host.reader import Reader, format_cpus
from tickwire.host.wanted import DEFAULT_ENV, from_config, with_cores, with_env
from tickwire.outputs import refuse_over
from tickwire.units import parse_duration

if TYPE_CHECKING:
    from tickwire.cli import app

__all__ = ["doctor", "jitter", "wanted_of"]

_COULD_NOT_RUN = 3
_STYLES = {
    Verdict.OK: "green",
    Verdict.WARN: "yellow",
    Verdict.FAIL: "bold red",
    Verdict.UNMOVABLE: "magenta",
    Verdict.UNKNOWN: "cyan",
    Verdict.NOT_APPLICABLE: "dim",
}


def wanted_of(arguments: app.Doctor | app.Jitter) -> tuple[Wanted, list[str]]:
    """What is asked of the host, and where that was said."""
    config, env, cores = arguments.config, arguments.env, arguments.cores
    wanted, said = Wanted(), list[str]()
    if config is not None:
        wanted = from_config(Config.from_toml(config))
        said.append(str(config))
    if env is None and config is None and cores is None and DEFAULT_ENV.exists():
        env = DEFAULT_ENV
    if env is not None:
        wanted = with_env(wanted, env)
        said.append(str(env))
    if cores is not None:
        wanted = with_cores(wanted, cores, "--cores")
        said.append(f"--cores {cores}")
    return wanted, said


def seconds_of(text: str, option: str) -> float:
    try:
        value = parse_duration(text) / 1e9
    except ValueError as error:
        raise ConfigError(f"{option}: {error}, found {text!r}") from None
    if not 0.1 <= value <= 86400.0:
        raise ConfigError(f"{option}: expected 100ms to 24h, found {text!r}")
    return value


def doctor(arguments: app.Doctor) -> int:
    """The exit code: 0 ok, 1 warnings or unknowns, 2 failures, 3 could not run."""
    profile, measure, baseline = arguments.profile, arguments.measure, arguments.baseline
    try:
        known = [each.value for each in Profile]
        if profile not in ("auto", *known):
            raise ConfigError(f"--profile: expected one of auto, {', '.join(known)}, found {profile!r}")
        earlier = read_baseline(baseline) if baseline is not None else None
        wanted, said = wanted_of(arguments)
        seconds = seconds_of(measure, "--measure") if measure is not None else 0.0
        reader = Reader(arguments.root)
        if seconds and not reader.live:
            raise ConfigError("--measure: expected this host, found --root: files of another do not move")
        report = diagnose(
            reader, wanted, profile=None if profile == "auto" else Profile(profile), measure_s=seconds
        )
    except Error as error:
        print(f"tickwire: {error}", file=sys.stderr)
        return _COULD_NOT_RUN
    out = output.console(to_stderr=arguments.json)
    _print(out, report, said, verbose=arguments.verbose)
    changed = drift(report, earlier) if earlier is not None else []
    if earlier is not None:
        out.print(f"{len(changed)} differences from {baseline}" + (":" if changed else ""), soft_wrap=True)
        for line in changed:
            out.print(f"  {line}", soft_wrap=True, markup=False)
    if arguments.json:
        output.print_json(report.as_dict() | ({"drift": changed} if earlier is not None else {}))
    return max(report.exit_code, 1 if changed else 0)


def _print(out: Console, report: Report, said: list[str], *, verbose: bool) -> None:
    named = ", ".join(map(str, report.wanted.cores)) or "none named"
    by = f" (by {', '.join(said)})" if said else " (see --config, --env and --cores)"
    out.print(f"profile {report.profile.value}: {report.why_profile}", soft_wrap=True, markup=False)
    out.print(f"the engine's cores: {named}{by}", soft_wrap=True, markup=False)
    if report.engines:
        out.print(f"an engine runs: process {', '.join(map(str, report.engines))}", soft_wrap=True)
    table = Table(show_edge=False, pad_edge=False)
    for heading in ("verdict", "check", "how it stands"):
        table.add_column(heading, no_wrap=heading != "how it stands")
    area = ""
    for finding in report.findings:
        if finding.area != area:
            area = finding.area
            table.add_section()
        style = _STYLES[finding.verdict]
        table.add_row(Text(finding.verdict.value, style), finding.check, Text(finding.found))
    out.print(table)
    shown = {Verdict.WARN, Verdict.FAIL, Verdict.UNMOVABLE, *(Verdict if verbose else ())}
    for finding in report.findings:
        if finding.verdict in shown:
            _explain(out, finding)
    counts = ", ".join(
        f"{report.count(verdict)} {verdict.value}" for verdict in Verdict if report.count(verdict)
    )
    out.print(f"\n{counts}", soft_wrap=True)
    if report.count(Verdict.FAIL) + report.count(Verdict.WARN):
        out.print(
            "what root can set while the host runs: tickwire tune plan --env host.env shows it, apply sets "
            "it, "
            "revert puts it back",
            soft_wrap=True,
        )


def _explain(out: Console, finding: Finding) -> None:
    out.print(Text.assemble("\n", (finding.verdict.value, _STYLES[finding.verdict]), f"  {finding.check}"))
    rows = [("found", finding.found), ("why", finding.why)]
    rows += [("read", line) for line in finding.evidence]
    rows += [("to do", finding.fix), ("revert", finding.revert)]
    if finding.reboot:
        rows.append(("reboot", "needed"))
    elif finding.fix:
        rows.append(("reboot", "not needed"))
    if finding.strict is not finding.verdict:
        rows.append(("profile", f"{finding.strict.value} where the host is the engine's own"))
    for name, text in rows:
        if text:
            out.print(f"  {name:8} {text}", soft_wrap=True, markup=False)


def jitter(arguments: app.Jitter) -> int:
    """The exit code: 1 where a limit was given and not kept."""
    stat_file, max_us, max_lost_ppm = arguments.stat_file, arguments.max_us, arguments.max_lost_ppm
    if stat_file is not None:
        named = [("--config", arguments.config), ("--env", arguments.env)]
        refuse_over("--stat-file", stat_file, [(what, path) for what, path in named if path is not None])
    wanted, _ = wanted_of(arguments)
    allowed = sorted(os.sched_getaffinity(0))
    spun = wanted.cores or tuple(allowed[1:] or allowed)
    reader = Reader()
    engines = running_engines(reader, frozenset(spun))
    taken = frozenset(spun) & frozenset(core for pid in engines for core in pinned_cores(reader, pid))
    if taken:
        raise Error(
            f"CPU {format_cpus(taken)}: expected a core that nobody uses, found a thread of the running "
            f"engine (process {engines[0]}), which would lose half its time; `tickwire doctor --measure` "
            "only watches"
        )
    found = measure(spun, arguments.seconds, worst=arguments.worst, stat_file=stat_file)
    out = output.console(to_stderr=arguments.json)
    _print_jitter(out, found)
    broken = []
    for core in found.cores:
        if max_us is not None and core.max_ns > max_us * 1e3:
            broken.append(
                f"CPU {core.core}: expected no gap over {max_us:g} us, found {core.max_ns / 1e3:,.1f}"
            )
        if max_lost_ppm is not None and core.lost * 1e6 > max_lost_ppm:
            broken.append(
                f"CPU {core.core}: expected at most {max_lost_ppm:g} ppm lost, found {core.lost * 1e6:,.1f}"
            )
    for line in broken:
        out.print(line, style="bold red", soft_wrap=True)
    if arguments.json:
        data = dataclasses.asdict(found) | {"stat_file": str(found.stat_file), "broken": broken}
        output.print_json(data)
    return 1 if broken else 0


def _print_jitter(out: Console, found: Jitter) -> None:
    table = Table(show_edge=False, pad_edge=False)
    for heading in ("CPU", "isolated from", "gaps/s", "p50 µs", "p99 µs", "max µs", "lost"):
        table.add_column(heading, justify="left" if heading == "isolated from" else "right")
    for core in found.cores:
        figures = (core.p50_ns, core.p99_ns, core.max_ns)
        table.add_row(
            str(core.core),
            ", ".join(core.kinds) or "nothing",
            f"{core.rate:,.1f}",
            *(f"{value / 1e3:,.1f}" for value in figures),
            f"{core.lost:.4%}",
        )
    out.print(table)
    for core in found.cores:
        _print_core(out, core)
    out.print(
        f"\n{found.seconds:.1f} s were watched: what comes once an hour is seen so with a probability of "
        f"{found.hourly_seen:.1%}.",
        soft_wrap=True,
    )
    if not found.aside:
        out.print("No core was left to look for causes from: some of the gaps are ours.", soft_wrap=True)
    out.print(f"All gaps: tickwire latency show {found.stat_file}", soft_wrap=True, markup=False)


def _print_core(out: Console, core: CoreJitter) -> None:
    def say(text: str) -> None:
        out.print(f"  {text}", soft_wrap=True, markup=False)

    out.print(f"\nCPU {core.core}", style="bold")
    say(f"floor: reading the clock takes {core.floor_ns} ns; gaps count from {core.threshold_ns} ns on")
    if not core.gaps:
        say("no gap at all")
        return
    to_tasks = core.lost_to_tasks_ns / max(core.watched_ns, 1)
    say(
        f"{core.gaps:,} gaps; {core.lost:.4%} of the time lost, {to_tasks:.4%} to other tasks in "
        f"{core.switches:,} involuntary switches, the rest to interrupts and what is below the kernel"
    )
    if core.gaps_not_looked_at:
        say(f"{core.gaps_not_looked_at:,} of them came too fast to be looked at, the worst perhaps")
    say(
        f"longest time without a gap {core.longest_quiet_ns / 1e6:,.2f} ms; worst second lost "
        f"{core.worst_second_ns / 1e3:,.1f} µs"
    )
    if core.rhythm:
        say(core.rhythm)
    if core.mhz:
        low, high = core.mhz
        say(
            f"frequency {low:,} to {high:,} MHz"
            + (": gaps of a change are among these" if low < high else "")
        )
    say(f"interrupts meanwhile: {core.interrupts or 'none that could be read'}")
    if core.tasks:
        tasks = ", ".join(f"{name} {share:.0%}" for name, share in core.tasks.items())
        say(f"who else ran here: {tasks}")
    elif core.switches:
        say("who else ran here: nobody for long enough to be seen; short tasks or the kernel's own threads")
    for gap in core.worst:
        say(f"at {gap.at_s:10.6f} s  {gap.ns / 1e3:10,.1f} µs  {gap.cause}")
