"""What the engine asks of the host: from a configuration, from host.env, or from a list of CPUs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from tickwire.config import Config
from tickwire.errors import ConfigError
from tickwire.host.finding import Wanted
from tickwire.host.reader import parse_cpus

__all__ = ["DEFAULT_ENV", "from_config", "read_env", "with_cores", "with_env"]

#: Where the tuning scripts look for it too.
DEFAULT_ENV = Path("/etc/tickwire/host.env")


def from_config(config: Config) -> Wanted:
    """The cores of the feeds and the model, and what the threads do there."""
    pinned = [(core, path) for path, core in config.wanted_cores()]
    threads = len(config.feeds)
    if config.engine.layout != "inline":
        threads += sum(model.worker_count for model in config.all_models)
    return Wanted(
        cores=tuple(core for core, _ in pinned),
        names=tuple(name for _, name in pinned),
        threads=threads,
        spin=config.engine.idle == "spin",
        huge_pages=0 if config.memory.huge_pages == "off" else Wanted().huge_pages,
    )


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
    """The same with what host.env says: cores, interfaces, the receive buffer, huge pages."""
    values: Mapping[str, str] = read_env(path)
    if "ENGINE_CPUS" in values:
        wanted = with_cores(wanted, values["ENGINE_CPUS"], f"{path}: ENGINE_CPUS")
    if values.get("INTERFACES"):
        wanted = dataclasses.replace(wanted, interfaces=tuple(values["INTERFACES"].split()))
    if values.get("RECEIVE_BUFFER_BYTES"):
        bytes_ = _number(path, "RECEIVE_BUFFER_BYTES", values["RECEIVE_BUFFER_BYTES"])
        wanted = dataclasses.replace(wanted, rmem_bytes=bytes_)
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
