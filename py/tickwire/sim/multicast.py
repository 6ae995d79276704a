"""A multicast venue, on loopback or at an address of this host: MoldUDP64 on two lines, a re-request server,
GLIMPSE snapshots.

    async with MulticastVenue(faults=LineFaults(seed=1, loss=(0.01, 0.01))) as venue:
        venue.lines, venue.rerequest, venue.glimpse     # Where they are.
        await venue.play(SyntheticItch(seed=1).messages())
        await venue.end_session()

The same datagrams go to both groups; what goes wrong on the way to a line is decided by a seed, counted, and
never touches the truth: `history` holds every message of the session, `sessions` those of each there was,
`state` what they built. The re-request server answers a request with one datagram of as many messages as fit.
GLIMPSE gives the state of the moment of the login and the number of the message that follows it.

What goes wrong by chance, as `tickwire sim --multicast --fault NAME=NUMBER` names it:

| name | chance for each | effect |
|---|---|---|
| line_a_loss, line_b_loss | datagram | not on that line |
| both_loss | datagram | on neither line |
| duplicate | datagram and line | twice |
| reorder | datagram and line | behind the next one of its line |
| burst | datagram | on neither line, and the next ones too, `burst_datagrams` (20) in all |
| line_a_silence, line_b_silence, both_silence | datagram | no datagram, no heartbeat, for `silence_s` (2) |
| new_session | datagram | the session ends behind it, and another begins with what the state is |
| answer_loss | answer | the re-request server's answer is lost |
| rerequest_down | datagram | the re-request server answers nothing for `down_s` (2) |
| glimpse_down | datagram | GLIMPSE refuses each login for `down_s` |
| glimpse_cut | snapshot | the connection ends in the middle of it |

`skew_s` is how far line B is behind line A, always.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import socket
import struct
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Self, cast

from tickwire.sim.itch import ItchState, TimedMessage

__all__ = ["LineFaults", "MulticastVenue"]

_HEADER_BYTES = 20
_END_OF_SESSION = 0xFFFF


@dataclass
class LineFaults:
    """What goes wrong at a venue, by chance or always; the table above says what each is."""

    seed: int = 0
    loss: tuple[float, float] = (0.0, 0.0)
    both_loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    skew_s: float = 0.0
    answer_loss: float = 0.0
    burst: float = 0.0
    burst_datagrams: int = 20
    silence: tuple[float, float] = (0.0, 0.0)
    both_silence: float = 0.0
    silence_s: float = 2.0
    new_session: float = 0.0
    rerequest_down: float = 0.0
    glimpse_down: float = 0.0
    glimpse_cut: float = 0.0
    down_s: float = 2.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_s") or field.name == "burst_datagrams":
                if not 0 <= value < math.inf:
                    raise ValueError(f"{field.name}: expected 0 or more, found {value}")
            elif field.name != "seed":
                for chance in value if isinstance(value, tuple) else (value,):
                    if not 0.0 <= chance <= 1.0:
                        raise ValueError(f"{field.name}: expected a probability, found {chance}")

    @classmethod
    def of(cls, seed: int, named: Mapping[str, float]) -> Self:
        """By the names of the table."""
        known = [field.name for field in fields(cls) if field.name not in ("seed", "loss", "silence")]
        values: dict[str, float | tuple[float, float]] = {}
        for name, value in named.items():
            line, _, kind = name.partition("_")[2].partition("_")
            if name.startswith("line_") and line in ("a", "b") and kind in ("loss", "silence"):
                a, b = values.get(kind, (0.0, 0.0))  # type: ignore[misc]  # These two are pairs.
                values[kind] = (value, b) if line == "a" else (a, value)
            elif name in known:
                values[name] = int(value) if name == "burst_datagrams" else value
            else:
                expected = ", ".join(f"line_{a}_{kind}" for kind in ("loss", "silence") for a in "ab")
                raise ValueError(f"fault: expected one of {expected}, {', '.join(known)}, found {name!r}")
        return cls(seed, **values)  # type: ignore[arg-type]


class MulticastVenue:
    def __init__(
        self,
        *,
        groups: tuple[str, str] = ("239.255.84.1", "239.255.84.2"),
        host: str = "127.0.0.1",
        session: str = "TICK000001",
        faults: LineFaults | None = None,
        max_datagram_bytes: int = 1400,
        heartbeat_s: float = 1.0,
        username: str = "",
        password: str = "",
    ) -> None:
        if max_datagram_bytes < _HEADER_BYTES + 2 + 64:
            raise ValueError(f"max_datagram_bytes: expected 86 or more, found {max_datagram_bytes}")
        self.faults = faults or LineFaults()
        self.session = session
        self.history: list[bytes] = []  # Of the session; number 1 is the first.
        self.sessions = {session: self.history}  # Each there was, in order.
        self.state = ItchState()
        self.counters: Counter[str] = Counter()
        self.rerequest_up = True
        self.glimpse_up = True
        self.silent = [False, False]  # A line that brings nothing, heartbeats included.
        self.lines: list[tuple[str, int]] = []
        self.rerequest = (host, 0)
        self.glimpse = (host, 0)
        self._groups = groups
        self._host = host
        self._max_bytes = max_datagram_bytes
        self._heartbeat_s = heartbeat_s
        self._login = username.encode().ljust(6) + password.encode().ljust(10)
        self._random = random.Random(f"tickwire/lines/{self.faults.seed}")
        self._held: list[bytes | None] = [None, None]
        self._delayed: deque[tuple[float, bytes]] = deque()  # Line B's, by the loop's time.
        self._pending: list[bytes] = []  # Numbered, not yet sent.
        self._last_sent = 0.0
        # By chance, until when, by the loop's time.
        self._silent_until = [0.0, 0.0]
        self._rerequest_down_until = 0.0
        self._glimpse_down_until = 0.0
        self._burst_left = 0
        self._session_due = False
        self._changing = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(self._host))
        self._out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)  # This network.
        self._out.bind((self._host, 0))
        # A port that nobody on this host listens on: both groups use it.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        self.lines = [(group, port) for group in self._groups]
        loop = asyncio.get_running_loop()
        venue = self

        class Rerequest(asyncio.DatagramProtocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                # No loop's transport is an instance of the class that describes it.
                self.transport = cast(asyncio.DatagramTransport, transport)

            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                answer = venue._answer(data)
                if answer is not None:
                    self.transport.sendto(answer, addr)

        self._rerequest_transport, _ = await loop.create_datagram_endpoint(
            Rerequest, local_addr=(self._host, 0)
        )
        self.rerequest = self._rerequest_transport.get_extra_info("sockname")[:2]
        self._server = await asyncio.start_server(self._serve_glimpse, self._host, 0)
        self.glimpse = self._server.sockets[0].getsockname()[:2]
        self._last_sent = loop.time()
        self._tasks.append(asyncio.create_task(self._beat()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._rerequest_transport.close()
        self._server.close()
        self._out.close()

    # What the venue says.

    async def play(self, messages: Iterable[TimedMessage | bytes], *, pace: float = 0.0) -> None:
        """Sends the messages, full datagrams at a time; `pace` 1 as they are due, 0 as fast as it goes."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        for sent, message in enumerate(messages, 1):
            data = message.data if isinstance(message, TimedMessage) else message
            if pace > 0 and isinstance(message, TimedMessage):
                wait = start + message.due_ns / 1e9 / pace - loop.time()
                if wait > 0.0005:
                    self.flush()
                    await asyncio.sleep(wait)
            self.publish(data)
            if self._session_due:
                self._session_due = False
                await self.new_session(f"TICK{len(self.sessions) + 1:06d}")
            if sent % 64 == 0:
                await asyncio.sleep(0)  # The servers' turn.
                self._send_delayed()
        self.flush()
        await self._drain()

    def publish(self, message: bytes) -> None:
        """One message: numbered now, sent when a datagram is full or at flush()."""
        bytes_waiting = _HEADER_BYTES + sum(2 + len(waiting) for waiting in self._pending)
        if self._pending and bytes_waiting + 2 + len(message) > self._max_bytes:
            self.flush()
        self.history.append(message)
        self.state.apply(message)
        self._pending.append(message)

    def flush(self) -> None:
        """Sends what waits, as one datagram on both lines."""
        if not self._pending:
            return
        first = len(self.history) - len(self._pending) + 1
        self._send_both(self._datagram(first, self._pending))
        self._pending = []

    def lose(self, messages: Iterable[bytes]) -> None:
        """Messages that no line brings: a burst lost on the way to both."""
        self.flush()
        for message in messages:
            self.history.append(message)
            self.state.apply(message)
            self.counters["lost_in_burst"] += 1

    async def end_session(self) -> None:
        """Announces the end on both lines; requests are still answered."""
        self.flush()
        await self._drain()
        end = self._header(len(self.history) + 1, _END_OF_SESSION)
        for line in (0, 1):
            self._send(line, end)

    async def new_session(self, session: str) -> None:
        """Ends the session and begins the next, whose first messages rebuild the state."""
        await self.end_session()
        state = self.state.snapshot()
        self.session = session
        self.history = self.sessions[session] = []
        self.state = ItchState()
        self._changing = True  # One at a time.
        try:
            await self.play(state)
        finally:
            self._changing = False

    # The lines.

    def _header(self, sequence: int, count: int) -> bytes:
        return struct.pack(">10sQH", self.session.encode().ljust(10), sequence, count)

    def _datagram(self, first: int, messages: list[bytes]) -> bytes:
        blocks = b"".join(struct.pack(">H", len(message)) + message for message in messages)
        return self._header(first, len(messages)) + blocks

    def _send_both(self, datagram: bytes) -> None:
        self.counters["datagrams"] += 1
        self._change_weather()
        lost = self._happens("both_lost", self.faults.both_loss)
        if self._burst_left:
            self._burst_left -= 1
            self.counters["lost_in_bursts"] += 1
            lost = True
        for line in (0, 1):
            if lost or self._happens(f"lost_{line}", self.faults.loss[line]):
                continue
            if self._held[line] is None and self._happens(f"reordered_{line}", self.faults.reorder):
                self._held[line] = datagram
                continue
            self._send(line, datagram)
            if self._happens(f"duplicated_{line}", self.faults.duplicate):
                self._send(line, datagram)
            self._release(line)

    def _change_weather(self) -> None:
        """What lasts for longer than a datagram."""
        faults, now = self.faults, asyncio.get_running_loop().time()
        if self._happens("bursts", faults.burst):
            self._burst_left = faults.burst_datagrams
        both = self._happens("silences", faults.both_silence)
        for line in (0, 1):
            if both or self._happens(f"silences_{line}", faults.silence[line]):
                self._silent_until[line] = now + faults.silence_s
        if self._happens("rerequest_downs", faults.rerequest_down):
            self._rerequest_down_until = now + faults.down_s
        if self._happens("glimpse_downs", faults.glimpse_down):
            self._glimpse_down_until = now + faults.down_s
        if not self._changing and self._happens("session_changes", faults.new_session):
            self._session_due = True

    def _release(self, line: int) -> None:
        held, self._held[line] = self._held[line], None
        if held is not None:
            self._send(line, held)

    def _send(self, line: int, datagram: bytes) -> None:
        if line == 1 and self.faults.skew_s > 0:
            self._delayed.append((asyncio.get_running_loop().time() + self.faults.skew_s, datagram))
            self._send_delayed()
        else:
            self._send_now(line, datagram)

    def _send_delayed(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._delayed and self._delayed[0][0] <= now:
            self._send_now(1, self._delayed.popleft()[1])

    def _send_now(self, line: int, datagram: bytes) -> None:
        self._last_sent = asyncio.get_running_loop().time()
        if self.silent[line] or self._last_sent < self._silent_until[line]:
            self.counters[f"silenced_{line}"] += 1
            return
        self._out.sendto(datagram, self.lines[line])
        self.counters[f"sent_{line}"] += 1

    async def _drain(self) -> None:
        """Until nothing is held back or delayed any more."""
        for line in (0, 1):
            self._release(line)
        while self._delayed:
            await asyncio.sleep(max(0.0, self._delayed[0][0] - asyncio.get_running_loop().time()))
            self._send_delayed()

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(max(0.001, self._last_sent + self._heartbeat_s - loop.time()))
            if not self._pending and loop.time() - self._last_sent >= self._heartbeat_s:
                for line in (0, 1):
                    self._send_now(line, self._header(len(self.history) + 1, 0))
                self.counters["heartbeats"] += 1

    def _happens(self, kind: str, chance: float) -> bool:
        if chance > 0 and self._random.random() < chance:
            self.counters[kind] += 1
            return True
        return False

    # The servers.

    def _answer(self, request: bytes) -> bytes | None:
        """One datagram from the first wanted message on, as many as were asked for and fit."""
        if len(request) != _HEADER_BYTES:
            self.counters["bad_requests"] += 1
            return None
        session, first, count = struct.unpack(">10sQH", request)
        self.counters["requests"] += 1
        up = self.rerequest_up and asyncio.get_running_loop().time() >= self._rerequest_down_until
        if not up or session != self.session.encode().ljust(10):
            return None
        if self._happens("answers_lost", self.faults.answer_loss):
            return None
        messages: list[bytes] = []
        room = self._max_bytes - _HEADER_BYTES
        for message in self.history[max(first, 1) - 1 : first - 1 + count]:
            room -= 2 + len(message)
            if room < 0:
                break
            messages.append(message)
        self.counters["answers"] += 1
        return self._datagram(first, messages)

    async def _serve_glimpse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._glimpse_session(reader, writer)
        writer.close()

    async def _glimpse_session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def packet(kind: bytes, payload: bytes = b"") -> bytes:
            return struct.pack(">H", 1 + len(payload)) + kind + payload

        size = int.from_bytes(await reader.readexactly(2), "big")
        login = await reader.readexactly(size)
        up = self.glimpse_up and asyncio.get_running_loop().time() >= self._glimpse_down_until
        if not up:
            self.counters["snapshots_refused"] += 1
            writer.write(packet(b"J", b"S"))
        elif len(login) != 47 or login[:1] != b"L" or login[1:17] != self._login:
            self.counters["snapshots_refused"] += 1
            writer.write(packet(b"J", b"A"))
        else:
            cut = self._happens("snapshots_cut", self.faults.glimpse_cut)
            self.counters["snapshots"] += not cut
            self.flush()  # What has a number has been sent.
            messages = self.state.snapshot()
            messages.append(b"G" + str(len(self.history) + 1).encode().ljust(20))
            writer.write(packet(b"A", self.session.encode().ljust(10) + b"1".rjust(20)))
            if cut:
                del messages[len(messages) // 2 :]
            for at in range(0, len(messages), 256):
                writer.write(b"".join(packet(b"S", message) for message in messages[at : at + 256]))
                await writer.drain()
            if cut:
                return
            writer.write(packet(b"Z"))
        await writer.drain()
        await reader.read()  # Until the client has gone.
