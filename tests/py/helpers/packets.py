"""Captures of packets, made byte by byte: multicast lines, and whatever else passes by."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from multicast_rig import datagrams

OPEN = 1_580_360_400_000_000_000 + 34_200 * 10**9
Endpoint = tuple[str, int]
Packet = tuple[int, Endpoint, bytes]


def frames(packets: Iterable[tuple[int, Endpoint, bytes]], *, sender: str = "10.0.0.1") -> list[bytes]:
    """Each datagram in its IPv4 packet, behind the header of a pcap record."""
    out = []
    for ts, (group, port), payload in packets:
        udp = struct.pack(">HHHH", 30000, port, 8 + len(payload), 0) + payload
        out.append(packet(ts, sender, group, 17, udp))
    return out


def packet(ts: int, source: str, destination: str, protocol: int, body: bytes) -> bytes:
    addresses = bytes(map(int, f"{source}.{destination}".split(".")))
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 1, protocol, 0) + addresses + body
    return struct.pack("<IIII", ts // 10**9, ts % 10**9, len(ip), len(ip)) + ip


def _stamp(record: bytes) -> tuple[int, ...]:
    return struct.unpack("<II", record[:8])


def capture(path: Path, records: Iterable[bytes]) -> Path:
    """Sorted by time, as a tool writes them."""
    head = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 101)
    ordered: list[bytes] = sorted(records, key=_stamp)
    path.write_bytes(head + b"".join(ordered))
    return path


def stream(
    messages: Sequence[bytes],
    *groups: Endpoint,
    session: str = "TICK000001",
    begin: int = 0,
    step: int = 100_000,
) -> list[Packet]:
    """All the lines, one behind the other by some microseconds."""
    return [
        (OPEN + begin + i * step + 7_000 * line, group, datagram)
        for i, (_, datagram) in enumerate(datagrams(messages, session=session))
        for line, group in enumerate(groups)
    ]
