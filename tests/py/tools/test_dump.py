"""tickwire-dump: the book of an instrument after each of its messages, valid only where a feed's would be."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from packets import OPEN, capture, packet

from tickwire.sim.itch import add_order, cancelled, directory, trading_action

DUMP = Path(sys.executable).with_name("tickwire-dump")
SESSION = b"TICK000001"
OF_NO_SESSION = b"\xff" * 10  # A recording's snapshot is of none.

pytestmark = pytest.mark.skipif(not DUMP.exists(), reason="tickwire-dump is not installed")


def note(text: str) -> tuple[int, bytes]:
    """A line of our recorder, from port 0 to port 0."""
    return 0, f'{{"tickwire":{text}}}'.encode()


def messages(first: int, *blocks: bytes, session: bytes = SESSION) -> tuple[int, bytes]:
    payload = struct.pack(">10sQH", session, first, len(blocks))
    return 26400, payload + b"".join(struct.pack(">H", len(block)) + block for block in blocks)


def recording(path: Path, datagrams: Iterable[tuple[int, bytes]]) -> Path:
    """As our recorder writes it."""
    records = []
    for i, (port, payload) in enumerate([note('"stream"'), *datagrams]):
        udp = struct.pack(">HHHH", 0 if port == 0 else 30000, port, 8 + len(payload), 0) + payload
        records.append(packet(OPEN + i * 1000, "10.0.0.1", "239.1.1.1", 17, udp))
    return capture(path, records)


def dumped(path: Path) -> list[str]:
    """Each line as NUMBER TYPE STATE ASK:QTY BID:QTY."""
    ended = subprocess.run([DUMP, "AAPL", "1", path], capture_output=True, text=True, check=True)
    out = []
    for line in ended.stdout.splitlines():
        number, kind, _ts, state, ask, ask_qty, bid, bid_qty = line.split(",")
        out.append(f"{number} {kind} {state} {ask}:{ask_qty} {bid}:{bid_qty}")
    return out


BEGIN = (directory(1, 1, "AAPL"), trading_action(1, 2, "AAPL", "T"))


def bid(reference: int, shares: int) -> bytes:
    return add_order(1, 3, reference, "B", shares, "AAPL", 1_000_000)


def ask(reference: int, shares: int) -> bytes:
    return add_order(1, 3, reference, "S", shares, "AAPL", 1_010_000)


def test_a_book_is_valid_only_once_its_snapshot_is_whole(tmp_path: Path) -> None:
    path = recording(
        tmp_path / "run.pcap",
        [
            note('"session"'),
            messages(1, *BEGIN, bid(10, 5), ask(11, 7)),
            note('"lost","first":5,"count":2'),
            messages(7, cancelled(1, 4, 10, 1)),
            note('"snapshot"'),
            messages(1, *BEGIN, bid(20, 3), session=OF_NO_SESSION),
            messages(4, ask(21, 2), session=OF_NO_SESSION),
            note('"snapshot_end","first":8'),
            messages(8, cancelled(1, 5, 20, 1)),
        ],
    )
    assert dumped(path) == [
        "1 R halted : :",
        "2 H valid : :",
        "3 A valid : 1000000:5",
        "4 A valid 1010000:7 1000000:5",
        "7 X suspect 1010000:7 1000000:4",
        "0 R suspect : :",
        "0 H suspect : :",
        "0 A suspect : 1000000:3",
        "0 A suspect 1010000:2 1000000:3",
        "8 X valid 1010000:2 1000000:2",
    ]


def test_a_snapshot_that_failed_leaves_nothing_valid_before_the_next_session(tmp_path: Path) -> None:
    path = recording(
        tmp_path / "run.pcap",
        [
            note('"session"'),
            messages(1, *BEGIN, bid(10, 5)),
            note('"snapshot"'),
            messages(1, *BEGIN, bid(20, 3), session=OF_NO_SESSION),
            note('"snapshot_failed"'),
            messages(4, *BEGIN, bid(30, 4)),
            note('"session"'),
            messages(1, *BEGIN, bid(40, 6)),
        ],
    )
    assert dumped(path) == [
        "1 R halted : :",
        "2 H valid : :",
        "3 A valid : 1000000:5",
        "0 R suspect : :",
        "0 H suspect : :",
        "0 A suspect : 1000000:3",
        "4 R suspect : :",
        "5 H suspect : :",
        "6 A suspect : 1000000:4",
        "1 R halted : :",
        "2 H valid : :",
        "3 A valid : 1000000:6",
    ]


def test_a_book_is_not_known_while_no_line_is_heard(tmp_path: Path) -> None:
    path = recording(
        tmp_path / "run.pcap",
        [
            note('"session"'),
            messages(1, *BEGIN, bid(10, 5)),
            note('"close"'),
            messages(4, ask(11, 7)),  # From what a server was asked for.
            note('"open"'),
            messages(5, cancelled(1, 4, 11, 1)),
        ],
    )
    assert dumped(path)[2:] == [
        "3 A valid : 1000000:5",
        "4 A empty 1010000:7 1000000:5",
        "5 X valid 1010000:6 1000000:5",
    ]
