"""What a run says of its host when it starts: in short what doctor says at length.

The engine itself reports what it got: pages, locks, cores, clock. This adds what works against the latency
that the configuration asks for, a line each, and whose receive stamps there are.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from tickwire.config import Config
from tickwire.errors import SetupError
from tickwire.host import checks_clock, checks_cpu, checks_effect, checks_irq
from tickwire.host.finding import Host, Profile, Verdict, examine
from tickwire.host.reader import Absent, Reader, Unreadable
from tickwire.host.wanted import from_config

__all__ = ["HostReport", "kernel_stamps", "report"]

_MODULES = (checks_clock, checks_cpu, checks_irq)  # Importing them fills the registry.

# What makes figures wrong or stops threads, whatever was asked for.
_ALWAYS = ("cpu-quota", "clock-source", "invariant-tsc")
# What works against threads that have cores of their own, or spin.
_FOR_LATENCY = (
    "engine-cores",
    "isolation-domain",
    "isolation-tick",
    "smt-siblings",
    "irq-placement",
    "irqbalance",
    "governor",
    "idle-states",
)

# Linux's number on x86 and Arm; Python has no name for it.
_SO_TIMESTAMPNS = 35
# Half a second in all, where it gives none: long enough for a kernel that has other work, too.
_STAMP_TRIES, _STAMP_PAUSE_S = 50, 0.01


@dataclass(frozen=True, slots=True)
class HostReport:
    lines: tuple[str, ...]
    warnings: tuple[str, ...]

    def all(self) -> list[str]:
        out = [*self.lines, *(f"warning: {warning}" for warning in self.warnings)]
        if self.warnings:
            out.append("tickwire doctor --config CONFIG says what to do about the warnings")
        return out

    def enforce(self) -> None:
        """Makes errors of the warnings, for `engine.strict`."""
        if self.warnings:
            found = "".join(f"\n  {warning}" for warning in self.warnings)
            raise SetupError(
                "engine.strict: expected a host that works for the latency asked for, found "
                f"{len(self.warnings)} against it:{found}\n"
                "tickwire doctor --config CONFIG says what to do about each"
            )


def kernel_stamps() -> bool:
    """Does the kernel stamp what a TCP socket receives? Tried on a connection to ourselves.

    A kernel that nobody has asked for stamps begins some moments after it was asked: what comes before that
    has none, and says nothing.
    """
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(1.0)
        with socket.create_connection(server.getsockname(), 1.0) as sender:
            receiver, _ = server.accept()
            with receiver:
                receiver.settimeout(1.0)
                receiver.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
                return any(_stamped(sender, receiver) for _ in range(_STAMP_TRIES))
    return False


def _stamped(sender: socket.socket, receiver: socket.socket) -> bool:
    sender.sendall(b"?")
    _, ancillary, _, _ = receiver.recvmsg(1, 128)
    if any(kind == _SO_TIMESTAMPNS for _, kind, _ in ancillary):
        return True
    time.sleep(_STAMP_PAUSE_S)
    return False


def report(
    config: Config, reader: Reader | None = None, *, stamps: Callable[[], bool] = kernel_stamps
) -> HostReport:
    """Looks at this host, for a live run of this process, once the engine has its memory."""
    reader = reader or Reader()
    wanted = from_config(config)
    asked = bool(wanted.cores) or wanted.spin
    lines, warnings = [], []
    for core, name in zip(wanted.cores, wanted.names, strict=True):
        kinds = ", ".join(checks_cpu.isolation_kinds(reader, core)) or "nothing"
        lines.append(f"core {core} ({name}): isolated from {kinds}")
    findings = examine(Host(reader, wanted), Profile.DEDICATED, _ALWAYS + (_FOR_LATENCY if asked else ()))
    for finding in findings:
        if finding.verdict in (Verdict.WARN, Verdict.FAIL, Verdict.UNMOVABLE):
            warnings.append(f"{finding.check}: {finding.found}")
    if asked:
        warnings += _memory(config, reader, huge=wanted.huge_pages > 0)
    if stamps():
        lines.append("timestamps: the kernel's, of the receive")
    else:
        lines.append("timestamps: our own, after the read")
        warnings.append("timestamps: the kernel gives none: ts_recv misses what a packet waited for our read")
    return HostReport(tuple(lines), tuple(warnings))


def _memory(config: Config, reader: Reader, *, huge: bool) -> list[str]:
    """What the arena has not got, by the kernel's own account."""
    try:
        pages = checks_effect.ring_pages(reader, "self")
    except (Absent, Unreadable):
        return []
    out = []
    if huge and pages.small > pages.total // 10:
        out.append(f"ring-pages: {pages.small >> 10} of {pages.total >> 10} MiB are on small pages")
    if config.memory.lock != "off" and pages.locked < pages.total - 1024:
        out.append(
            f"ring-pages: {(pages.total - pages.locked) >> 10} of {pages.total >> 10} MiB are not locked"
        )
    return out
