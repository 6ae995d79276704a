"""The multicast venue against plain sockets and a dict of orders."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from needs import recorded
from waiting import LONG_S

from tickwire.sim.itch import ItchState, SyntheticItch, read_messages
from tickwire.sim.multicast import LineFaults, MulticastVenue

LENGTHS = {"S": 12, "R": 39, "H": 25, "A": 36, "F": 40, "E": 31, "X": 23, "D": 19, "U": 35}


class Line:
    """One group, joined on loopback: its datagrams as (session, first number, messages)."""

    def __init__(self, group: str, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.bind((group, port))
        member = socket.inet_aton(group) + socket.inet_aton("127.0.0.1")
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        self.socket.setblocking(False)

    def read(self) -> list[tuple[str, int, list[bytes]]]:
        out: list[tuple[str, int, list[bytes]]] = []
        while True:
            try:
                data = self.socket.recv(65536)
            except BlockingIOError:
                return out
            out.append(parse(data))


def parse(data: bytes) -> tuple[str, int, list[bytes]]:
    session, first, count = struct.unpack(">10sQH", data[:20])
    messages, at = [], 20
    for _ in range(0 if count == 0xFFFF else count):
        size = int.from_bytes(data[at : at + 2], "big")
        messages.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    assert at == len(data)
    return session.decode().rstrip() + ("/end" if count == 0xFFFF else ""), first, messages


def numbered(datagrams: list[tuple[str, int, list[bytes]]]) -> dict[int, bytes]:
    return {first + i: data for _, first, messages in datagrams for i, data in enumerate(messages)}


async def request(
    venue: MulticastVenue, first: int, count: int, session: str = "", *, seconds: float = LONG_S
) -> bytes | None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        name = (session or venue.session).encode().ljust(10)
        await loop.sock_sendto(sock, struct.pack(">10sQH", name, first, count), venue.rerequest)
        try:
            return await asyncio.wait_for(loop.sock_recv(sock, 65536), seconds)
        except TimeoutError:
            return None


async def snapshot(
    venue: MulticastVenue, user: bytes = b"", password: bytes = b""
) -> list[tuple[bytes, bytes]]:
    """What GLIMPSE sends, as (type, payload)."""
    reader, writer = await asyncio.open_connection(*venue.glimpse)
    login = b"L" + user.ljust(6) + password.ljust(10) + b" " * 10 + b"1".rjust(20)
    writer.write(struct.pack(">H", len(login)) + login)
    out: list[tuple[bytes, bytes]] = []
    while not out or out[-1][0] not in b"ZJ":
        size = int.from_bytes(await reader.readexactly(2), "big")
        body = await reader.readexactly(size)
        out.append((body[:1], body[1:]))
    writer.close()
    return out


def orders_after(messages: list[bytes]) -> list[tuple[int, bytes, int, int]]:
    """Reference, side, shares, price of each live order, oldest first; written without ItchState."""
    orders: list[list[int | bytes]] = []
    for message in messages:
        kind = message[0:1]
        reference = int.from_bytes(message[11:19], "big")
        found = next((order for order in orders if order[0] == reference), None)
        if kind in b"AF":
            _, side, shares, _, price = struct.unpack(">QcI8sI", message[11:36])
            orders.append([reference, side, shares, price])
        elif kind == b"D":
            assert found is not None
            orders.remove(found)
        elif kind in b"EX":
            assert found is not None
            left = int(found[2]) - int.from_bytes(message[19:23], "big")
            assert left >= 0
            found[2] = left
            if left == 0:
                orders.remove(found)
        elif kind == b"U":
            assert found is not None
            _, new, shares, price = struct.unpack(">QQII", message[11:35])
            orders.remove(found)
            orders.append([new, found[1], shares, price])
    return [(int(a), bytes(b), int(c), int(d)) for a, b, c, d in orders]


def test_synthetic_market_is_seeded_well_formed_and_never_crossed() -> None:
    def play(seed: int) -> list[bytes]:
        return [message.data for message in SyntheticItch(instruments=2, events=1500, seed=seed).messages()]

    messages = play(3)
    assert messages == play(3)
    assert messages != play(4)
    assert {message[:1] for message in messages} == {kind.encode() for kind in LENGTHS}
    for message in messages:
        assert len(message) == LENGTHS[message[:1].decode()]
    stamps = [int.from_bytes(message[5:11], "big") for message in messages]
    assert stamps == sorted(stamps)
    for locate in (1, 2):
        mine = [message for message in messages if int.from_bytes(message[1:3], "big") == locate]
        orders = orders_after(mine)
        assert max(o[3] for o in orders if o[1] == b"B") < min(o[3] for o in orders if o[1] == b"S")


def test_both_lines_carry_every_message() -> None:
    async def run() -> None:
        async with MulticastVenue(max_datagram_bytes=300) as venue:
            lines = [Line(*line) for line in venue.lines]
            truth = [message.data for message in SyntheticItch(events=500).messages()]
            await venue.play(truth)
            await venue.end_session()
            for line in lines:
                got = line.read()
                assert numbered(got) == dict(enumerate(truth, 1))
                assert [session for session, _, _ in got] == ["TICK000001"] * (len(got) - 1) + [
                    "TICK000001/end"
                ]
                assert got[-1][1] == len(truth) + 1
                assert [first for _, first, _ in got] == sorted(first for _, first, _ in got)
                assert max(len(messages) for _, _, messages in got) > 1

    asyncio.run(run())


def test_faults_by_seed_hit_lines_and_never_the_truth() -> None:
    async def run(seed: int) -> tuple[list[list[tuple[str, int, list[bytes]]]], dict[str, int]]:
        faults = LineFaults(
            seed=seed, loss=(0.05, 0.05), both_loss=0.03, duplicate=0.05, reorder=0.05, skew_s=0.002
        )
        async with MulticastVenue(faults=faults, max_datagram_bytes=200) as venue:
            lines = [Line(*line) for line in venue.lines]
            await venue.play(SyntheticItch(events=2000).messages())
            got = [line.read() for line in lines]
            counts = dict(venue.counters)
            truth = dict(enumerate(venue.history, 1))
            for line in (0, 1):
                assert numbered(got[line]).items() <= truth.items()
                lost = counts[f"lost_{line}"] + counts["both_lost"]
                assert len(got[line]) == counts["datagrams"] - lost + counts[f"duplicated_{line}"]
                firsts = [first for _, first, _ in got[line]]
                steps_back = sum(b < a for a, b in itertools.pairwise(firsts))
                assert 0 < steps_back <= counts[f"reordered_{line}"]
                assert lost > 0
            missing = truth.keys() - numbered(got[0]).keys() - numbered(got[1]).keys()
            assert missing
            # The re-request server fills it, in as many answers as it takes.
            filled: dict[int, bytes] = {}
            for number in sorted(missing):
                if number not in filled:
                    answer = await request(venue, number, 50)
                    assert answer is not None
                    assert len(answer) <= 200
                    filled |= numbered([parse(answer)])
            assert {number: filled[number] for number in missing} == {n: truth[n] for n in missing}
            return got, counts

    first, counts = asyncio.run(run(1))
    again, counts_again = asyncio.run(run(1))
    assert first == again
    assert counts == counts_again
    assert asyncio.run(run(2))[0] != first


def test_rerequest_server_answers_only_what_it_should() -> None:
    async def run() -> None:
        async with MulticastVenue() as venue:
            truth = [message.data for message in SyntheticItch(events=20).messages()]
            await venue.play(truth)
            answer = await request(venue, 3, 2)
            assert answer is not None
            assert parse(answer) == ("TICK000001", 3, truth[2:4])
            beyond = await request(venue, len(truth), 10)
            assert beyond is not None
            assert parse(beyond)[2] == truth[-1:]
            assert await request(venue, 3, 2, session="OTHER", seconds=0.2) is None
            venue.rerequest_up = False
            assert await request(venue, 3, 2, seconds=0.2) is None

    asyncio.run(run())


def test_glimpse_gives_the_state_of_its_moment() -> None:
    async def run() -> None:
        async with MulticastVenue(username="user", password="secret") as venue:
            truth = [message.data for message in SyntheticItch(instruments=3, events=800).messages()]
            for count in (0, 5, 400, len(truth)):
                await venue.play(truth[len(venue.history) : count])
                got = await snapshot(venue, b"user", b"secret")
                assert got[0] == (b"A", b"TICK000001" + b"1".rjust(20))
                assert got[-1] == (b"Z", b"")
                assert got[-2] == (b"S", b"G" + str(count + 1).encode().ljust(20))
                state = [payload for _, payload in got[1:-2]]
                assert orders_after(state) == orders_after(truth[:count])
                directories = [m for m in truth[:count] if m[:1] == b"R"]
                assert [m for m in state if m[:1] == b"R"] == directories
            assert (await snapshot(venue, b"user", b"wrong"))[0] == (b"J", b"A")
            venue.glimpse_up = False
            assert (await snapshot(venue, b"user", b"secret"))[0] == (b"J", b"S")
            venue.glimpse_up = True
            venue.faults.glimpse_cut = 1.0
            snapshots = venue.counters["snapshots"]
            with pytest.raises(asyncio.IncompleteReadError):
                await snapshot(venue, b"user", b"secret")
            assert (venue.counters["snapshots"], venue.counters["snapshots_cut"]) == (snapshots, 1)

    asyncio.run(run())


def test_silence_burst_heartbeat_and_a_new_session() -> None:
    async def run() -> None:
        async with MulticastVenue(heartbeat_s=0.02) as venue:
            lines = [Line(*line) for line in venue.lines]
            truth = [message.data for message in SyntheticItch(events=60).messages()]
            await venue.play(truth[:20])
            venue.lose(truth[20:30])
            for _ in range(500):
                await asyncio.sleep(0.01)
                beats = [(first, messages) for _, first, messages in lines[0].read() if not messages]
                if beats:
                    break
            assert beats[0] == (31, [])  # It tells of the loss.
            venue.silent[1] = True
            lines[1].read()
            await venue.play(truth[30:40])
            assert lines[1].read() == []
            venue.silent[1] = False
            before = orders_after(truth[:40])
            lines[0].read()
            await venue.new_session("TICK000002")
            got = [datagram for datagram in lines[1].read() if datagram[2] or "/" in datagram[0]]
            assert got[0] == ("TICK000001/end", 41, [])
            assert {session for session, _, _ in got[1:]} == {"TICK000002"}
            assert got[1][1] == 1
            assert orders_after(list(numbered(got[1:]).values())) == before

    asyncio.run(run())


def test_weather_by_chance_is_told_by_its_counters() -> None:
    async def run() -> None:
        faults = LineFaults.of(
            5,
            {
                "burst": 0.01,
                "burst_datagrams": 3,
                "line_b_silence": 0.02,
                "silence_s": 0.001,
                "rerequest_down": 0.02,
                "glimpse_down": 0.02,
                "down_s": 3600.0,
                "new_session": 0.01,
            },
        )
        assert faults.silence == (0.0, 0.02)
        truth = [message.data for message in SyntheticItch(events=3000).messages()]
        async with MulticastVenue(faults=faults, max_datagram_bytes=300) as venue:
            lines = [Line(*line) for line in venue.lines]
            got: list[list[tuple[str, int, list[bytes]]]] = [[], []]
            for at in range(0, len(truth), 200):
                await venue.play(truth[at : at + 200])
                for line in (0, 1):
                    got[line] += lines[line].read()
            counts = venue.counters
            for kind in ("bursts", "silences_1", "rerequest_downs", "glimpse_downs", "session_changes"):
                assert counts[kind] > 0, kind
            assert counts["bursts"] < counts["lost_in_bursts"] <= 3 * counts["bursts"]
            assert 0 < counts["silenced_1"] < counts["sent_1"]
            assert counts["silenced_0"] == 0
            assert len(venue.sessions) == 1 + counts["session_changes"]
            assert list(venue.sessions)[:2] == ["TICK000001", "TICK000002"]
            # Each session, but for its bursts, is on line A, and begins with the state of the one before.
            for session, history in venue.sessions.items():
                mine = numbered([datagram for datagram in got[0] if datagram[0] == session])
                assert mine.items() <= dict(enumerate(history, 1)).items()
            assert sum(map(len, venue.sessions.values())) > len(truth)
            assert orders_after(venue.history) == orders_after(truth)
            # Whoever is down stays so for an hour.
            assert await request(venue, 1, 1, seconds=0.2) is None
            assert (await snapshot(venue))[0] == (b"J", b"S")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"line_c_loss": 0.1}, "fault: expected one of line_a_loss, line_b_loss, line_a_silence"),
        ({"loss": 0.1}, "found 'loss'"),
        ({"line_b_loss": 1.1}, "loss: expected a probability, found 1.1"),
        ({"skew_s": -1.0}, "skew_s: expected 0 or more, found -1.0"),
    ],
)
def test_faults_that_cannot_be(named: dict[str, float], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        LineFaults.of(1, named)


COMMAND = [sys.executable, "-m", "tickwire.sim", "--multicast"]


async def serve(*arguments: str) -> tuple[dict[str, Any], list[dict[int, bytes]], dict[str, int]]:
    """What the command says when it is ready, the messages of its lines, and what it says at its end."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LONG_S):
            ready = json.loads(await process.stdout.readline())
            lines = [Line(group, int(port)) for group, port in (line.split(":") for line in ready["lines"])]
            got: list[list[tuple[str, int, list[bytes]]]] = [[], []]
            while not any(session.endswith("/end") for session, _, _ in got[0]):
                await asyncio.sleep(0.005)
                for line in (0, 1):
                    got[line] += lines[line].read()
            end = json.loads(await process.stdout.readline())
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
    return ready, [numbered(line) for line in got], end


async def test_command_serves_a_synthetic_market() -> None:
    ready, lines, end = await serve(
        *("--synthetic", "--instruments", "2", "--seed", "5", "--rate", "2000", "--seconds", "0.5"),
        *("--fault", "line_a_loss=0.2", "--fault", "line_b_loss=0.3", "--start-after", "0.3"),
    )
    assert ready["instruments"] == ["TW00001", "TW00002"]
    assert ready["interface"] == "lo"
    for server in ("rerequest", "glimpse"):
        assert ready[server].startswith("127.0.0.1:")
    market = SyntheticItch(instruments=2, events=1000, rate=2000, seed=5)
    truth = dict(enumerate((message.data for message in market.messages()), 1))
    for got in lines:
        assert 0 < len(got) < len(truth)
        assert got.items() <= truth.items()
    assert end["messages"] == len(truth)
    assert end["sessions"] == 1
    for line in (0, 1):
        assert end[f"lost_{line}"] > 0


async def test_command_plays_a_day(tmp_path: Path) -> None:
    truth = [message.data for message in SyntheticItch(instruments=2, events=300, rate=1000).messages()]
    path = tmp_path / "day.itch"
    path.write_bytes(b"".join(struct.pack(">H", len(message)) + message for message in truth))
    ready, lines, end = await serve("--day", str(path), "--pace", "10", "--start-after", "0.3")
    assert ready["instruments"] == ["TW00001", "TW00002"]
    for got in lines:
        # All of it, from where we began to listen.
        assert got == {n: message for n, message in enumerate(truth, 1) if n >= min(got)}
    assert end["messages"] == len(truth)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--synthetic", "--tls"], "--tls: expected none with --multicast"),
        (["--capture", "a.log"], "--capture: expected none with --multicast"),
        (["--synthetic", "--fault", "drop=0.1"], "fault: expected one of line_a_loss"),
        (["--day", "none.itch"], "none.itch"),
    ],
)
def test_command_says_what_is_wrong(arguments: list[str], expected: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_day_file_leaves_the_documented_orders() -> None:
    (path,) = recorded("nasdaq_itch/aapl_20200130_first7000.itch50.gz")
    state = ItchState()
    count = 0
    for message in read_messages(path):
        state.apply(message)
        count += 1
    assert count == 7000
    assert len(state.orders) == 187
    prices = {
        side: [int.from_bytes(o[32:36], "big") for o in state.orders.values() if bytes(o[19:20]) == side]
        for side in (b"B", b"S")
    }
    assert max(prices[b"B"]) == 321_0000
    assert min(prices[b"S"]) == 321_1000
