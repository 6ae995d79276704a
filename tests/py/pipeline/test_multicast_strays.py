"""Datagrams that anybody on the network can send to a group: other sessions, numbers far ahead. None of them
takes a feed over, costs it a book or keeps it looking alive, and each is counted and told. What the venue
itself does, a session that ends or begins, is believed by its proof, with every message from 1 on.

And orders that do not fit: what a snapshot server is asked for then."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from multicast_rig import BOTH, OF_THE_BOOK, Live, live, market
from needs import compiled

from tickwire.findings import findings
from tickwire.sim import MulticastVenue
from tickwire.verify import verify

pytestmark = compiled

STRANGER = "EVIL000001"
VALID = 2  # As a book's counter has it.


class Stranger:
    """A process on the same network."""

    def __init__(self, venue: MulticastVenue) -> None:
        self.venue = venue
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))

    def __enter__(self) -> Stranger:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(
        self,
        number: int,
        messages: Sequence[bytes] = (),
        *,
        session: str = STRANGER,
        end: bool = False,
    ) -> None:
        """On both lines; with no message a heartbeat."""
        blocks = b"".join(struct.pack(">H", len(message)) + message for message in messages)
        count = 0xFFFF if end else len(messages)
        head = struct.pack(">10sQH", session.encode().ljust(10), number, count)
        for line in self.venue.lines:
            self.socket.sendto(head + blocks, line)

    def everything(self, number: int, *, session: str = STRANGER) -> None:
        """Messages, a heartbeat and an end."""
        self.send(number, [b"S" + bytes(11), b"D" + bytes(18)], session=session)
        self.send(number + 2, session=session)
        self.send(number + 2, session=session, end=True)


def venue_of(**options: Any) -> MulticastVenue:
    return MulticastVenue(max_datagram_bytes=300, heartbeat_s=0.05, **options)


def errors(rig: Live) -> str:
    return "\n".join(entry.text for entry in rig.pipeline.stats().errors)


async def assert_verified(rig: Live, run: Path) -> None:
    assert rig.monitor.check() > 100
    result = await verify(run)
    assert result.same, result.divergence


@pytest.mark.parametrize("servers", [(), ("rerequest",), BOTH], ids=["alone", "rerequest", "glimpse"])
async def test_other_sessions_do_not_take_a_feed_over(
    tmp_path: Path, servers: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    messages = market(800, 41)
    venue = venue_of()
    options: dict[str, Any] = {"rows": OF_THE_BOOK, "servers": servers, "record": tmp_path / "run"}
    with Stranger(venue) as stranger:
        async with venue, live(venue, **options) as rig:
            await rig.played(messages[:400])
            for i in range(20):
                stranger.everything(1 + 3 * i)
                stranger.everything(7, session=f"EVIL{i:06d}")
            await rig.played(messages[400:600])
            stranger.everything(1000)
            await rig.played(messages[600:])
            await rig.settled()
            assert not any(rig.told(s).lost() for s in rig.symbols)
            assert rig.count("sessions") == 1
            assert rig.count("other_session") == 41 * 3 * 2
            # On a busy machine our own session is told of first: the server is still being asked about it.
            assert 'is not believed, because "TICK000001" goes on' in caplog.text
            assert "multicast.source_address keeps strangers away" in errors(rig)
            assert 'session_refused: itch: session "EVIL' in caplog.text, "told while it lasts"
            told = "\n".join(findings(rig.pipeline.stats(), rig.pipeline.config))
            assert "246 datagrams of another session than the one that goes on were not believed" in told
    await assert_verified(rig, tmp_path / "run")


async def test_the_first_session_that_is_heard_is_asked_about(tmp_path: Path) -> None:
    """A stranger speaks first, and more. The re-request server knows which session it is at."""
    messages = market(400, 42)
    venue = venue_of()
    venue.silent[:] = [True, True]
    with Stranger(venue) as stranger:
        async with venue, live(venue, rows=OF_THE_BOOK, record=tmp_path / "run") as rig:
            for number in range(1, 20):
                stranger.send(number, [b"S" + bytes(11)])
            await asyncio.sleep(0.1)
            venue.silent[:] = [False, False]
            await rig.played(messages)
            await rig.settled()
            assert rig.count("sessions") == 1
    await assert_verified(rig, tmp_path / "run")


async def test_a_snapshot_server_names_the_session_where_nobody_else_can_be_asked(tmp_path: Path) -> None:
    messages = market(800, 43)
    venue = venue_of()
    with Stranger(venue) as stranger:
        async with venue:
            await venue.play(messages[:400])
            async with live(venue, rows=OF_THE_BOOK, servers=("glimpse",), record=tmp_path / "run") as rig:
                for number in range(1, 20):
                    stranger.send(number, [b"S" + bytes(11)])
                await rig.until(lambda: rig.count("snapshots") == 1, "a snapshot")
                await rig.played(messages[400:])
                await rig.settled()
                assert rig.count("sessions") == 1
                assert rig.count("snapshots") == 1
    await assert_verified(rig, tmp_path / "run")


async def test_the_next_session_is_whole_from_its_first_message_on(tmp_path: Path) -> None:
    """Nobody can be asked: the end, and the silence behind it, prove it."""
    messages = market(900, 44)
    venue = venue_of()
    options: dict[str, Any] = {"rows": OF_THE_BOOK, "servers": (), "feed": {"liveness_timeout": "1s"}}
    async with venue, live(venue, record=tmp_path / "run", **options) as rig:
        await rig.played(messages[:400])
        await venue.new_session("TICK000002")
        await rig.played(messages[400:])
        await rig.settled()
        assert rig.count("sessions") == 2
        assert rig.count("lost_messages") == 0
        assert rig.count("other_session") == 0, "they were believed in the end"
        assert [rig.told(s).epoch for s in rig.symbols] == [2, 2]
    await assert_verified(rig, tmp_path / "run")


async def test_numbers_far_ahead_cost_no_book_and_no_snapshot(tmp_path: Path) -> None:
    messages = market(800, 45)
    venue = venue_of()
    with Stranger(venue) as stranger:
        async with venue, live(venue, rows=OF_THE_BOOK, servers=BOTH, record=tmp_path / "run") as rig:
            await rig.played(messages[:400])
            for ahead in (20_000, 1_000_000, 9_000_000, 10**15):
                for i in range(5):
                    stranger.everything(400 + ahead + 3 * i, session=venue.session)
            await rig.played(messages[400:600])
            await asyncio.sleep(0.5)
            await rig.played(messages[600:])
            await rig.settled()
            assert not any(rig.told(s).lost() for s in rig.symbols)
            assert rig.count("snapshots") == rig.count("lost_messages") == 0
            assert rig.count("implausible_datagrams") == 4 * 5 * 3 * 2
            assert "is not believed, because the stream is at" in errors(rig)
    await assert_verified(rig, tmp_path / "run")


async def test_numbers_within_reach_cost_one_snapshot_at_most(tmp_path: Path) -> None:
    """In a stream that is quiet, where nothing shows that they were made up but the servers."""
    messages = market(800, 46)
    venue = venue_of()
    hasty = {"request_timeout": "15ms", "request_attempts": 2}
    options: dict[str, Any] = {"rows": OF_THE_BOOK, "servers": BOTH, "multicast": hasty}
    with Stranger(venue) as stranger:
        async with venue, live(venue, record=tmp_path / "run", **options) as rig:
            await rig.played(messages[:400])
            for i in range(5):
                stranger.send(5000 + i, [b"S" + bytes(11)], session=venue.session)
            await rig.until(lambda: rig.count("snapshots") == 1, "a snapshot")
            await asyncio.sleep(1.5)
            assert rig.count("snapshots") == 1
            assert rig.count("implausible_datagrams") == 1
            await rig.played(messages[400:])
    await assert_verified(rig, tmp_path / "run")


async def test_strays_are_no_sign_of_life(tmp_path: Path) -> None:
    messages = market(600, 47)
    venue = venue_of()
    options: dict[str, Any] = {
        "rows": OF_THE_BOOK,
        "feed": {"liveness_timeout": "1s"},
        "record": tmp_path / "run",
    }
    with Stranger(venue) as stranger:
        async with venue, live(venue, **options) as rig:
            await rig.played(messages[:400])
            lost = {symbol: len(rig.told(symbol).lost()) for symbol in rig.symbols}
            venue.silent[:] = [True, True]

            def is_lost() -> bool:
                stranger.everything(5)
                return all(len(rig.told(s).lost()) > lost[s] and not rig.told(s).valid for s in rig.symbols)

            await rig.until(is_lost, "books without a stream")
            # The venue comes back, the stranger goes on: whom the server knows is the one.
            venue.silent[:] = [False, False]
            for _ in range(5):
                stranger.everything(5)
                await asyncio.sleep(0.02)
            # A session that returns begins anew for us: its first messages are asked for again.
            await rig.played(messages[400:])
    assert rig.monitor.check() > 100
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence


# Orders that do not fit.


def misfit(venue: MulticastVenue, symbol: str) -> None:
    """The deletion of an order that nobody added; for the truth it is nothing."""
    locate = int(symbol.removeprefix("TW"))
    head = b"D" + struct.pack(">HH", locate, 0)
    now = venue.history[-1][5:11]
    venue.publish(head + now + (1 << 60).to_bytes(8, "big"))
    venue.flush()
    venue.history[-1] = b"Y" + head[1:] + now + symbol.ljust(8).encode() + b"0"


@pytest.mark.parametrize("layout", ["inline", "threads"])
async def test_an_order_that_does_not_fit_is_mended_by_a_snapshot(tmp_path: Path, layout: str) -> None:
    messages = market(900, 48)
    venue = venue_of()
    options: dict[str, Any] = {"rows": OF_THE_BOOK, "servers": BOTH, "layout": layout}
    async with venue, live(venue, record=tmp_path / "run", **options) as rig:
        await rig.played(messages[:400])
        misfit(venue, "TW00001")
        await rig.until(lambda: rig.count("snapshots") == 1, "a snapshot")
        await rig.settled()
        assert rig.count("lost_messages") == 0
        assert rig.count("unknown_order") == 1
        number = len(venue.history)
        assert f"order_misfit: itch: message {number} is about an order that is not there" in errors(rig)
        assert "suspect until a snapshot, which is asked for: TW00001" in errors(rig)
        await rig.played(messages[400:])
        assert all(rig.told(s).epoch > 1 for s in rig.symbols), "a snapshot is of all books"
    await assert_verified(rig, tmp_path / "run")


async def test_snapshots_for_orders_that_do_not_fit_are_backed_off(tmp_path: Path) -> None:
    messages = market(900, 49)
    venue = venue_of()
    options: dict[str, Any] = {"rows": OF_THE_BOOK, "servers": BOTH, "multicast": {"glimpse_retry": "200ms"}}
    async with venue, live(venue, record=tmp_path / "run", **options) as rig:
        await rig.played(messages[:400])
        begin = time.monotonic()
        for i in range(60):  # Each as soon as there is a right book to spoil.
            misfit(venue, "TW00001")
            await venue.play(messages[400 + i : 401 + i])
            await asyncio.sleep(0.02)
        await rig.settled()
        # At 0, 0.2, 0.6, 1.4, 3.0 s and so on, and another one for each that came to nothing.
        most = 2 + math.log2(1 + (time.monotonic() - begin) / 0.2)
        assert 2 <= rig.count("snapshots") <= most + rig.count("snapshots_failed")
        await rig.until(lambda: rig.count("TW00001/book_state") == VALID, "a valid book")
        await rig.played(messages[460:])
    await assert_verified(rig, tmp_path / "run")


async def test_without_a_snapshot_server_it_is_said_that_nobody_is_asked(tmp_path: Path) -> None:
    messages = market(500, 50)
    venue = venue_of()
    async with venue, live(venue, rows=OF_THE_BOOK, record=tmp_path / "run") as rig:
        await rig.played(messages[:400])
        misfit(venue, "TW00001")
        await venue.play(messages[400:])
        await rig.until(lambda: not rig.told("TW00001").valid, "a suspect book")
        assert "suspect until the next session or start of day: TW00001" in errors(rig)
        assert rig.told("TW00002").valid
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence
