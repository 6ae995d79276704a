"""Checks of the network: where a packet waits before our read."""

from __future__ import annotations

import re

from tickwire.host.finding import Finding, Host, Need, Verdict, check
from tickwire.host.reader import Absent, Unreadable, format_cpus

__all__: list[str] = []

_CORE = "/proc/sys/net/core"


def _interfaces(host: Host) -> tuple[str, ...]:
    """Those the feed comes in by; the hardware's where nobody says."""
    for name in host.wanted.interfaces:
        if not host.reader.has(f"/sys/class/net/{name}"):
            raise Unreadable(f"/sys/class/net/{name}", "no such interface, though --config or --env names it")
    names = host.wanted.interfaces or tuple(host.reader.interfaces())
    if not names:
        raise Absent("network interface of hardware")
    return names


@check(
    "receive-buffer",
    "network",
    Need.RUNTIME,
    "A socket that asks for more than the limit is given the limit, and told nothing; a burst that does "
    "not fit is "
    "lost.",
)
def receive_buffer(host: Host) -> Finding:
    path = f"{_CORE}/rmem_max"
    try:
        limit = host.reader.number(path)
    except Absent:
        # In a network namespace of its own a kernel before 6.9 does not show it.
        return Finding(Verdict.UNKNOWN, f"{path}: not shown in this network namespace")
    wanted = host.wanted.rmem_bytes
    evidence = (f"{path}: {limit}",)
    if wanted == 0:
        return Finding(
            Verdict.OK, "multicast.receive_buffer_bytes = 0 asks for the kernel's default", evidence
        )
    if limit >= wanted:
        return Finding(Verdict.OK, f"sockets may have {limit >> 10:,} KiB", evidence)
    return Finding(
        Verdict.FAIL,
        f"sockets may have {limit >> 10:,} KiB, of {wanted >> 10:,} that "
        + ("multicast.receive_buffer_bytes asks for" if host.wanted.lines else "a burst asks for"),
        evidence,
        f"echo {wanted} > {path}",
        f"echo {limit} > {path}",
    )


@check(
    "receive-steering",
    "network",
    Need.RUNTIME,
    "Receive steering (RPS) hands packets to other CPUs by an interrupt between processors.",
    per_core=True,
)
def receive_steering(host: Host) -> Finding:
    reader = host.reader
    evidence, on, fixes, reverts = [], frozenset[int](), [], []
    for name in _interfaces(host):
        base = f"/sys/class/net/{name}/queues"
        for queue in reader.names(base):
            path = f"{base}/{queue}/{'rps_cpus' if queue.startswith('rx') else 'xps_cpus'}"
            try:
                text = reader.text(path)
                cpus = reader.mask(path)
            except Absent:
                continue
            except Unreadable:
                if queue.startswith("tx"):
                    continue  # A device of one queue has the file and no answer.
                raise
            evidence.append(f"{path}: {text}")
            if queue.startswith("rx") and host.on_cores(cpus):
                on |= host.on_cores(cpus)
                fixes.append(f"echo 0 > {path}")
                reverts.append(f"echo {text} > {path}")
    if on:
        found = f"packets may be handled on CPU {format_cpus(on)}, whatever interrupt brought them"
        return Finding(Verdict.WARN, found, tuple(evidence), "; ".join(fixes), "; ".join(reverts))
    return Finding(Verdict.OK, f"no packets are steered to CPU {format_cpus(host.cores)}", tuple(evidence))


@check(
    "interrupt-moderation",
    "network",
    Need.RUNTIME,
    "A card that collects packets before it interrupts delays the first of them by the time it waits.",
)
def interrupt_moderation(host: Host) -> Finding:
    evidence, slow, unknown, fixes, reverts = [], [], [], [], []
    names = _interfaces(host)
    for name in names:
        try:
            text = host.reader.command("ethtool", "-c", name)
        except (Absent, Unreadable) as error:
            unknown.append(name)
            evidence.append(f"ethtool -c {name}: {error}")
            continue
        adaptive = re.search(r"Adaptive RX:\s*(\w+)", text)
        usecs = re.search(r"^rx-usecs:\s*(\d+)", text, re.MULTILINE)
        was_adaptive = adaptive[1] if adaptive else "n/a"
        was_usecs = usecs[1] if usecs else "n/a"
        evidence.append(f"ethtool -c {name}: adaptive-rx {was_adaptive}, rx-usecs {was_usecs}")
        fix, revert = [], []
        if was_adaptive == "on":
            fix.append("adaptive-rx off")
            revert.append("adaptive-rx on")
        if was_usecs not in ("0", "n/a"):
            fix.append("rx-usecs 0")
            revert.append(f"rx-usecs {was_usecs}")
        if fix:
            slow.append(name)
            fixes.append(f"ethtool -C {name} {' '.join(fix)}")
            reverts.append(f"ethtool -C {name} {' '.join(revert)}")
    if slow:
        found = f"{', '.join(slow)} waits for more packets before it interrupts"
        return Finding(Verdict.WARN, found, tuple(evidence), "; ".join(fixes), "; ".join(reverts))
    if unknown:
        return Finding(Verdict.UNKNOWN, f"{', '.join(unknown)}: cannot be asked", tuple(evidence))
    return Finding(Verdict.OK, f"{', '.join(names)} interrupts at once", tuple(evidence))


@check(
    "receive-ring",
    "network",
    Need.BASIC,
    "Packets that the card had no room for are lost before the kernel sees them.",
)
def receive_ring(host: Host) -> Finding:
    evidence: list[str] = []
    lost: dict[str, int] = {}
    for name in _interfaces(host):
        for counter in ("rx_missed_errors", "rx_fifo_errors", "rx_over_errors"):
            path = f"/sys/class/net/{name}/statistics/{counter}"
            text = host.reader.maybe(path)
            if text is not None and text.isdecimal():
                evidence.append(f"{path}: {text}")
                lost[name] = lost.get(name, 0) + int(text)
        try:
            text = host.reader.command("ethtool", "-g", name)
        except (Absent, Unreadable) as error:
            evidence.append(f"ethtool -g {name}: {error}")
            continue
        sizes = re.findall(r"^RX:\s*(\d+)", text, re.MULTILINE)
        if len(sizes) == 2:
            evidence.append(f"ethtool -g {name}: RX {sizes[1]} of at most {sizes[0]}")
    if not lost:
        raise Absent("statistics of lost packets")
    if any(lost.values()):
        worst = max(lost, key=lambda name: lost[name])
        found = f"{worst} lost {lost[worst]:,} packets since boot; --measure shows whether it still does"
        return Finding(
            Verdict.WARN, found, tuple(evidence), f"ethtool -G {worst} rx (its maximum)", "as it was before"
        )
    return Finding(Verdict.OK, "no packet lost for want of room since boot", tuple(evidence))


@check(
    "deferred-interrupts",
    "network",
    Need.RUNTIME,
    "Preferred busy polling needs both napi_defer_hard_irqs and gro_flush_timeout; one of them alone only "
    "delays.",
)
def deferred_interrupts(host: Host) -> Finding:
    evidence, half, off = [], [], []
    for name in _interfaces(host):
        base = f"/sys/class/net/{name}"
        defer = host.reader.number(f"{base}/napi_defer_hard_irqs")
        flush = host.reader.number(f"{base}/gro_flush_timeout")
        evidence += [f"{base}/napi_defer_hard_irqs: {defer}", f"{base}/gro_flush_timeout: {flush}"]
        if bool(defer) != bool(flush):
            half.append((name, defer, flush))
        elif host.wanted.prefer_busy_poll and not defer:
            off.append(name)
    if off:
        base = "/sys/class/net"
        return Finding(
            Verdict.WARN,
            f"multicast.prefer_busy_poll is asked for, and without both on {', '.join(off)} does nothing",
            tuple(evidence),
            "; ".join(
                f"echo 100 > {base}/{name}/napi_defer_hard_irqs; "
                f"echo 200000 > {base}/{name}/gro_flush_timeout"
                for name in off
            ),
            "; ".join(
                f"echo 0 > {base}/{name}/napi_defer_hard_irqs; echo 0 > {base}/{name}/gro_flush_timeout"
                for name in off
            ),
        )
    if half:
        names = ", ".join(name for name, _, _ in half)
        base = "/sys/class/net"
        fix = "; ".join(
            f"echo 0 > {base}/{name}/napi_defer_hard_irqs; echo 0 > {base}/{name}/gro_flush_timeout"
            for name, _, _ in half
        )
        revert = "; ".join(
            f"echo {defer} > {base}/{name}/napi_defer_hard_irqs; echo {flush} > "
            f"{base}/{name}/gro_flush_timeout"
            for name, defer, flush in half
        )
        return Finding(Verdict.WARN, f"only one of the two is set on {names}", tuple(evidence), fix, revert)
    return Finding(Verdict.OK, "both or neither are set", tuple(evidence))


@check(
    "reverse-path",
    "network",
    Need.BASIC,
    "On a host with several networks strict filtering drops multicast whose sender is reached by another "
    "one, in "
    "silence.",
)
def reverse_path(host: Host) -> Finding:
    reader = host.reader
    # Those of software, as a bond or a VLAN, too where a line comes in on one.
    named = [name for name in host.wanted.interfaces if reader.has(f"/proc/sys/net/ipv4/conf/{name}")]
    names = [*dict.fromkeys((*reader.interfaces(), *named))]
    base = "/proc/sys/net/ipv4/conf"
    values = {name: reader.number(f"{base}/{name}/rp_filter") for name in ("all", *names)}
    evidence = tuple(f"{base}/{name}/rp_filter: {value}" for name, value in values.items())
    strict = [name for name in names if max(values["all"], values[name]) == 1]
    if len(names) > 1 and strict:
        fix = "; ".join(f"echo 2 > {base}/{name}/rp_filter" for name in strict)
        revert = "; ".join(f"echo {values[name]} > {base}/{name}/rp_filter" for name in strict)
        return Finding(Verdict.WARN, f"{', '.join(strict)} filter strictly", evidence, fix, revert)
    return Finding(Verdict.OK, "one network" if len(names) <= 1 else "not strict", evidence)


_UP, _MULTICAST = 0x1, 0x1000
_CAP_NET_ADMIN = 12
_NO_LINES = "no line of a multicast feed was named: see --config"


@check(
    "feed-interfaces",
    "network",
    Need.BASIC,
    "A group that is joined on another card than the one it comes in on is silent, and no error says so.",
)
def feed_interfaces(host: Host) -> Finding:
    lines = host.wanted.lines
    if not lines:
        return Finding(Verdict.NOT_APPLICABLE, _NO_LINES)
    reader = host.reader
    evidence = [
        f"{line.key}: {line.address} on {line.interface or 'the card of the route'}" for line in lines
    ]
    wrong, fixes, reverts = [], [], []
    for name in dict.fromkeys(line.interface for line in lines if line.interface):
        base = f"/sys/class/net/{name}"
        key = next(line.key for line in lines if line.interface == name)
        if not reader.has(base):
            wrong.append(f"{name} is not there, which {key} names")
            continue
        text = reader.text(f"{base}/flags")
        evidence.append(f"{base}/flags: {text}")
        try:
            flags = int(text, 16)
        except ValueError:
            raise Unreadable(f"{base}/flags", f"expected a hexadecimal number, found {text!r}") from None
        if not flags & _UP:
            wrong.append(f"{name} is down, which {key} names")
            fixes.append(f"ip link set {name} up")
            reverts.append(f"ip link set {name} down")
        elif not flags & _MULTICAST and name != "lo":  # Loopback carries groups without it.
            wrong.append(f"{name} takes no multicast, though {key} names it")
            fixes.append(f"ip link set {name} multicast on")
            reverts.append(f"ip link set {name} multicast off")
    if wrong:
        fix = "; ".join(fixes) or "multicast.interface in the configuration"
        return Finding(Verdict.FAIL, "; ".join(wrong), tuple(evidence), fix, "; ".join(reverts))
    hardware = reader.interfaces()
    unnamed = [line.key for line in lines if not line.interface]
    if unnamed and len(hardware) > 1:
        found = f"{', '.join(unnamed)}: no interface is named, and routes choose among {', '.join(hardware)}"
        return Finding(Verdict.WARN, found, tuple(evidence), "multicast.interface in the configuration")
    found = ", ".join(dict.fromkeys(line.interface for line in lines if line.interface)) or "the only network"
    return Finding(Verdict.OK, f"lines come in on {found}", tuple(evidence))


@check(
    "feed-senders",
    "network",
    Need.RUNTIME,
    "Who joins a group for any sender hears what anybody on the network sends to it; source_address is the "
    "first defence: the network and the kernel keep that away.",
)
def feed_senders(host: Host) -> Finding:
    lines = host.wanted.lines
    if not lines:
        return Finding(Verdict.NOT_APPLICABLE, _NO_LINES)
    evidence = tuple(f"{line.key}: {line.address} of {line.source_address or 'any sender'}" for line in lines)
    open_ = [line.key for line in lines if not line.source_address]
    if open_:
        found = f"{', '.join(open_)} takes datagrams of any sender"
        return Finding(Verdict.WARN, found, evidence, "multicast.source_address in the configuration")
    return Finding(Verdict.OK, "each line is joined for its sender alone", evidence)


@check(
    "busy-polling",
    "network",
    Need.RUNTIME,
    "A kernel that refuses busy polling leaves the socket to interrupts; the start-up report alone says so.",
)
def busy_polling(host: Host) -> Finding:
    wanted = host.wanted
    if not wanted.busy_poll_us and not wanted.prefer_busy_poll:
        return Finding(Verdict.NOT_APPLICABLE, "no busy polling is asked for")
    reader = host.reader
    if wanted.prefer_busy_poll and reader.kernel() < (5, 11):
        found = "multicast.prefer_busy_poll needs Linux 5.11 or newer"
        release = f"/proc/sys/kernel/osrelease: {reader.text('/proc/sys/kernel/osrelease')}"
        return Finding(Verdict.FAIL, found, (release,), "multicast.prefer_busy_poll = false")
    text = reader.text("/proc/self/status")
    status = re.search(r"^CapEff:\s*([0-9a-fA-F]+)", text, re.MULTILINE)
    if status is None:
        raise Unreadable("/proc/self/status", "expected CapEff")
    allowed = reader.number(f"{_CORE}/busy_read") if not wanted.prefer_busy_poll else 0
    evidence = (f"/proc/self/status: CapEff {status[1]}", f"{_CORE}/busy_read: {allowed}")
    if int(status[1], 16) >> _CAP_NET_ADMIN & 1:
        found = "this process may (CAP_NET_ADMIN); run doctor as the engine's user to see whether it may"
        return Finding(Verdict.OK, found, evidence)
    if not wanted.prefer_busy_poll and wanted.busy_poll_us <= allowed:
        return Finding(Verdict.OK, f"sockets poll for {allowed} us without asking", evidence)
    key = "prefer_busy_poll" if wanted.prefer_busy_poll else f"busy_poll_us = {wanted.busy_poll_us}"
    return Finding(
        Verdict.FAIL,
        f"multicast.{key} needs CAP_NET_ADMIN, which this process has not",
        evidence,
        "AmbientCapabilities=CAP_NET_ADMIN in the service's unit",
        "take the line out again",
    )


@check(
    "nic-stamps",
    "network",
    Need.RUNTIME,
    "A card without receive stamps leaves them to the kernel, and multicast.nic_stamps without effect.",
)
def nic_stamps(host: Host) -> Finding:
    if not host.wanted.nic_stamps:
        return Finding(Verdict.NOT_APPLICABLE, "no stamps of a card are asked for")
    evidence, without, unknown = [], [], []
    names = _interfaces(host)
    for name in names:
        try:
            text = host.reader.command("ethtool", "-T", name)
        except (Absent, Unreadable) as error:
            unknown.append(name)
            evidence.append(f"ethtool -T {name}: {error}")
            continue
        has = re.search(r"\bhardware-receive\b", text) is not None
        evidence.append(f"ethtool -T {name}: {'' if has else 'no '}hardware-receive")
        if not has:
            without.append(name)
    if without:
        found = f"{', '.join(without)} stamps nothing on receipt: multicast.nic_stamps has no effect"
        return Finding(Verdict.FAIL, found, tuple(evidence), "multicast.nic_stamps = false")
    if unknown:
        return Finding(Verdict.UNKNOWN, f"{', '.join(unknown)}: cannot be asked", tuple(evidence))
    return Finding(Verdict.OK, f"{', '.join(names)} stamps what it receives", tuple(evidence))
