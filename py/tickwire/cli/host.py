"""`tickwire doctor`."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tickwire.cli import output
from tickwire.config import Config, parse_duration
from tickwire.errors import ConfigError, Error
from tickwire.host import Finding, Profile, Reader, Report, Verdict, Wanted, diagnose
from tickwire.host.doctor import drift, read_baseline
from tickwire.host.wanted import DEFAULT_ENV, from_config, with_cores, with_env

__all__ = ["doctor", "wanted_of"]

_COULD_NOT_RUN = 3
_STYLES = {
    Verdict.OK: "green",
    Verdict.WARN: "yellow",
    Verdict.FAIL: "bold red",
    Verdict.UNMOVABLE: "magenta",
    Verdict.UNKNOWN: "cyan",
    Verdict.NOT_APPLICABLE: "dim",
}


def wanted_of(config: Path | None, env: Path | None, cores: str | None) -> tuple[Wanted, list[str]]:
    """What is asked of the host, and where that was said."""
    wanted, said = Wanted(), []
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


def doctor(
    *,
    config: Path | None,
    env: Path | None,
    cores: str | None,
    profile: str,
    measure: str | None,
    baseline: Path | None,
    as_json: bool,
    verbose: bool,
    root: Path,
) -> int:
    """The exit code: 0 ok, 1 warnings or unknowns, 2 failures, 3 could not run."""
    try:
        known = [each.value for each in Profile]
        if profile not in ("auto", *known):
            raise ConfigError(f"--profile: expected one of auto, {', '.join(known)}, found {profile!r}")
        earlier = read_baseline(baseline) if baseline is not None else None
        wanted, said = wanted_of(config, env, cores)
        seconds = seconds_of(measure, "--measure") if measure is not None else 0.0
        reader = Reader(root)
        if seconds and not reader.live:
            raise ConfigError("--measure: expected this host, found --root: files of another do not move")
        report = diagnose(
            reader, wanted, profile=None if profile == "auto" else Profile(profile), measure_s=seconds
        )
    except Error as error:
        print(f"tickwire: {error}", file=sys.stderr)
        return _COULD_NOT_RUN
    out = output.console(to_stderr=as_json)
    _print(out, report, said, verbose=verbose)
    changed = drift(report, earlier) if earlier is not None else []
    if earlier is not None:
        out.print(f"{len(changed)} differences from {baseline}" + (":" if changed else ""), soft_wrap=True)
        for line in changed:
            out.print(f"  {line}", soft_wrap=True, markup=False)
    if as_json:
        output.print_json(report.as_dict() | ({"drift": changed} if earlier is not None else {}))
    return max(report.exit_code, 1 if changed else 0)


def _print(out: Console, report: Report, said: list[str], *, verbose: bool) -> None:
    named = ", ".join(map(str, report.wanted.cores)) or "none named"
    by = f" (by {', '.join(said)})" if said else " (see --config, --env and --cores)"
    out.print(f"profile {report.profile.value}: {report.why_profile}", soft_wrap=True, markup=False)
    out.print(f"the engine's cores: {named}{by}", soft_wrap=True, markup=False)
    if report.engine:
        out.print(f"an engine runs: process {report.engine}", soft_wrap=True)
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
    rows += [("command", finding.fix), ("revert", finding.revert)]
    if finding.reboot:
        rows.append(("reboot", "needed"))
    elif finding.fix:
        rows.append(("reboot", "not needed"))
    if finding.strict is not finding.verdict:
        rows.append(("profile", f"{finding.strict.value} where the host is the engine's own"))
    for name, text in rows:
        if text:
            out.print(f"  {name:8} {text}", soft_wrap=True, markup=False)
