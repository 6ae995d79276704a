"""What the engine asks of the host: from a configuration, from host.env, or from a list of CPUs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tickwire.config import Config
from tickwire.errors import ConfigError
from tickwire.host.finding import Wanted, WantedLine
from tickwire.host.reader import parse_cpus

__all__ = ["DEFAULT_ENV", "from_config", "read_env", "with_cores", "with_env"]

#: Where the tuning scripts look for it too.
DEFAULT_ENV = Path("/etc/tickwire/host.env")


def from_config(config: Config) -> Wanted:
    """The cores of the feeds and the model, what the threads do there, and what the sockets of multicast
    lines ask of the kernel and the cards."""
    pinned = [(core, path) for path, core in config.wanted_cores()]
    threads = len(config.feeds)
    if config.engine.layout != "inline":
        threads += sum(model.worker_count for model in config.all_models)
    wanted = Wanted(
        cores=tuple(core for core, _ in pinned),
        names=tuple(name for _, name in pinned),
        threads=threads,
        spin=config.engine.idle == "spin",
        huge_pages=0 if config.memory.huge_pages == "off" else Wanted().huge_pages,
        lock=config.memory.lock != "off",
    )
    live = [
        (i, feed.multicast)
        for i, feed in enumerate(config.feeds)
        if feed.multicast is not None and feed.source == "multicast"
    ]
    if not live:
        return wanted
    lines = tuple(
        WantedLine(f"feeds[{i}].multicast.lines[{k}]", address, interface, source)
        for i, multicast in live
        for k, (address, interface, source) in multicast.joined().items()
    )
    return dataclasses.replace(
        wanted,
        # Each socket has one of its own, so the largest is what the host must grant.
        rmem_bytes=max(multicast.receive_buffer_bytes for _, multicast in live),
        interfaces=_once(line.interface for line in lines if line.interface),
        lines=lines,
        busy_poll_us=max(multicast.busy_poll_us for _, multicast in live),
        prefer_busy_poll=any(multicast.prefer_busy_poll for _, multicast in live),
        nic_stamps=any(multicast.nic_stamps for _, multicast in live),
    )


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def with_cores(wanted: Wanted, text: str, name: str) -> Wanted:
    """The same with the CPUs of a list besides."""
    try:
        cores = sorted(parse_cpus(text))
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None
    new = [core for core in cores if core not in wanted.cores]
    return dataclasses.replace(
        wanted, cores=(*wanted.cores, *new), names=(*wanted.names, *(name for _ in new))
    )


def read_env(path: Path) -> dict[str, str]:
    """The keys of a host.env: KEY=VALUE by line, a value may stand in quotes, nothing is expanded."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    values = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = re.fullmatch(r"\s*([A-Z][A-Z0-9_]*)=(\"[^\"]*\"|'[^']*'|[^\"']*?)\s*", line)
        if match is None:
            raise ConfigError(f"{path}:{number}: expected KEY=VALUE, found {line.strip()[:60]!r}")
        values[match[1]] = match[2].strip("\"'").strip()
    return values


def with_env(wanted: Wanted, path: Path) -> Wanted:
    """The same with what host.env says besides: cores, interfaces, huge pages, the receive buffer. Where the
    configuration names lines, its own interfaces and buffer count too: an env that gives less is wrong."""
    values: Mapping[str, str] = read_env(path)
    if "ENGINE_CPUS" in values:
        wanted = with_cores(wanted, values["ENGINE_CPUS"], f"{path}: ENGINE_CPUS")
    if values.get("INTERFACES"):
        wanted = dataclasses.replace(
            wanted, interfaces=_once((*wanted.interfaces, *values["INTERFACES"].split()))
        )
    if values.get("RECEIVE_BUFFER_BYTES"):
        bytes_ = _number(path, "RECEIVE_BUFFER_BYTES", values["RECEIVE_BUFFER_BYTES"])
        wanted = dataclasses.replace(
            wanted, rmem_bytes=max(bytes_, wanted.rmem_bytes) if wanted.lines else bytes_
        )
    if values.get("HUGE_PAGES_2M"):
        # One count for each node, or node:count,node:count. An engine lies on one node.
        counts = [part.rpartition(":")[2] for part in values["HUGE_PAGES_2M"].split(",")]
        pages = max(_number(path, "HUGE_PAGES_2M", count) for count in counts)
        wanted = dataclasses.replace(wanted, huge_pages=pages if wanted.huge_pages else 0)
    return wanted


def _number(path: Path, key: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text):
        raise ConfigError(f"{path}: {key}: expected a number, found {text!r}")
    return int(text)
