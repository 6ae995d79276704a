"""What a replay makes of inputs that hold more than one stream, another protocol, or less than they should:
the one stream that is meant, or a refusal that says what was found and what was expected."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from collecting import Collector
from configuring import one_feed
from multicast_rig import (
    OF_THE_BOOK,
    assert_same,
    config_of,
    datagrams,
    day_file,
    market,
    replayed,
)
from needs import compiled
from packets import OPEN, capture, frames, packet, stream

from tickwire.config import Config
from tickwire.errors import Error
from tickwire.findings import findings
from tickwire.pipeline import Pipeline
from tickwire.records import Rows

pytestmark = compiled

A, B, COPY = ("239.255.84.1", 26477), ("239.255.84.2", 26478), ("10.9.8.7", 40001)
OTHER = ("239.255.85.1", 25475)


def without_lines(**options: Any) -> Config:
    feed = {"name": "itch", "max_orders": 65536, **options}
    symbols = ("TW00001", "TW00002")
    return one_feed("nasdaq_itch", symbols, OF_THE_BOOK, feed=feed, features={"clock": "event"})


def with_lines(*lines: Any) -> Config:
    return config_of(lines, rows=OF_THE_BOOK, features={"clock": "event"}, multicast={"interface": ""})


async def told(config: Config, *files: Path) -> tuple[Rows, dict[str, int], str]:
    """Rows, counters and what a user reads."""
    async with Pipeline.replay(config, list(files)) as pipeline:
        collector = Collector(pipeline)
        await pipeline.run_until()
        stats = pipeline.stats()
    return collector.records, dict(stats.counters), "\n".join(findings(stats, config))


async def refused(config: Config, *files: Path) -> str:
    with pytest.raises(Error) as error:
        await replayed(config, *files)
    return str(error.value)


@pytest.fixture(scope="module")
def made() -> list[bytes]:
    return market(900, 31)


@pytest.fixture(scope="module")
def other() -> list[bytes]:
    return market(700, 32)


async def truth(made: list[bytes], folder: Path) -> Rows:
    rows = await replayed(without_lines(), day_file(folder / "20200130.itch", made))
    assert len(rows) > 300
    return rows


async def test_lines_and_copies_of_one_session_are_one_stream(tmp_path: Path, made: list[bytes]) -> None:
    """On other groups and ports, to a host of its own, and each line with losses of its own."""
    rand = random.Random(5)
    packets = [p for p in stream(made, A, B, COPY) if p[1] == COPY or rand.random() < 0.8]
    file = capture(tmp_path / "three.pcap", frames(packets))
    rows, counters, _ = await told(without_lines(), file)
    assert_same(rows, await truth(made, tmp_path))
    assert counters["itch/line1/line_datagrams"] > 0
    assert counters["itch/lost_messages"] == 0


async def test_several_products_are_refused_by_name_and_one_is_taken_where_it_is_named(
    tmp_path: Path, made: list[bytes], other: list[bytes]
) -> None:
    third = market(300, 33)
    packets = [
        *stream(made, A, B),
        *stream(other, OTHER, session="BX00000001", begin=3_000),
        *stream(third, ("239.255.86.1", 25476), session="PSX0000001", begin=5_000),
    ]
    file = capture(tmp_path / "three.pcap", frames(packets))
    count = len(datagrams(made))
    text = await refused(without_lines(), file)
    assert "holds 3 of MoldUDP64" in text
    assert f'session "TICK000001" on 239.255.84.1:26477, 239.255.84.2:26478 ({2 * count} datagrams)' in text
    assert f'session "BX00000001" on 239.255.85.1:25475 ({len(datagrams(other))} datagrams)' in text
    assert 'session "PSX0000001" on 239.255.86.1:25476' in text
    assert 'lines = ["239.255.84.1:26477"]' in text

    rows, counters, report = await told(with_lines("239.255.84.1:26477", "239.255.84.2:26478"), file)
    assert_same(rows, await truth(made, tmp_path))
    left = len(datagrams(other)) + len(datagrams(third))
    assert counters["itch/other_groups"] == left
    assert f"{left} datagrams of groups that do not carry the stream" in report
    # Lines that are not of one stream are a mistake of the configuration.
    text = await refused(with_lines("239.255.84.1:26477", "239.255.85.1:25475"), file)
    assert "holds 2 of MoldUDP64 on them" in text


async def test_one_name_of_two_numberings_is_two_streams(
    tmp_path: Path, made: list[bytes], other: list[bytes]
) -> None:
    packets = [*stream(made, A), *stream(other, OTHER, begin=3_000)]
    text = await refused(without_lines(), capture(tmp_path / "same.pcap", frames(packets)))
    assert "holds 2 of MoldUDP64" in text
    assert "239.255.84.1:26477" in text
    assert "239.255.85.1:25475" in text


async def test_two_senders_on_one_group_are_told_apart_by_their_address(
    tmp_path: Path, made: list[bytes], other: list[bytes]
) -> None:
    records = frames(stream(made, A)) + frames(
        stream(other, A, session="BX00000001", begin=3_000), sender="10.0.0.2"
    )
    file = capture(tmp_path / "one_group.pcap", records)
    for config in (without_lines(), with_lines("239.255.84.1:26477")):
        text = await refused(config, file)
        assert "They share a group: name a line's sender too" in text
        assert 'source_address = "10.0.0.1"' in text
    line = {"address": "239.255.84.1:26477", "source_address": "10.0.0.1"}
    rows, counters, _ = await told(with_lines(line), file)
    assert_same(rows, await truth(made, tmp_path))
    assert counters["itch/other_groups"] == len(datagrams(other))


async def test_sessions_that_follow_each_other_are_one_stream(
    tmp_path: Path, made: list[bytes], other: list[bytes]
) -> None:
    day = 86_400 * 10**9
    packets = [*stream(made, A, B), *stream(other, A, B, session="TICK000002", begin=day)]
    file = capture(tmp_path / "days.pcap", frames(packets))
    rows, counters, _ = await told(without_lines(), file)
    assert counters["itch/sessions"] == 2
    assert counters["itch/messages"] == len(made) + len(other)
    files = [day_file(tmp_path / name, day) for name, day in (("20200130", made), ("20200131", other))]
    assert_same(rows, await replayed(without_lines(), *files))


async def test_strays_of_another_session_are_counted_and_not_taken(tmp_path: Path, made: list[bytes]) -> None:
    strays = [
        (OPEN + at, A, struct.pack(">10sQHH4s", b"EVIL000001", 77, 1, 4, b"evil"))
        for at in (-50, 1_050_000, 2_050_000, 3_050_000)
    ]
    file = capture(tmp_path / "strays.pcap", frames([*stream(made, A, B), *strays]))
    rows, counters, report = await told(without_lines(), file)
    assert_same(rows, await truth(made, tmp_path))
    assert counters["itch/other_session"] == len(strays)
    assert f"{len(strays)} datagrams of another session than the one that goes on were not believed" in report


async def test_what_else_came_by_is_no_line(tmp_path: Path, made: list[bytes]) -> None:
    """More other addresses than lines could be, one that is idle, and packets of TCP."""
    rand = random.Random(6)
    noise = []
    for i in range(400):
        to = (f"10.1.{i % 7}.{i % 200}", 53)
        noise.append((OPEN + 1_000 * i, to, rand.randbytes(rand.randrange(1, 90))))
    idle = [(OPEN + i, OTHER, struct.pack(">10sQH", b"IDLE000001", 1, 0)) for i in range(5)]
    records = frames([*stream(made, A, B), *noise, *idle])
    records += [packet(OPEN + i, "10.0.0.3", "10.0.0.4", 6, bytes(20)) for i in range(9)]
    rows, counters, _ = await told(without_lines(), capture(tmp_path / "noise.pcap", records))
    assert_same(rows, await truth(made, tmp_path))
    assert counters["itch/other_groups"] == len(noise) + len(idle)
    assert counters["itch/malformed_datagrams"] == 0


def _iex(i: int) -> bytes:
    body = bytes(i % 40)
    return struct.pack("<BBHIIHHqqq", 1, 0, 0x8004, 1, 1, len(body), 1, 0, i, OPEN) + body


def _cme(i: int) -> bytes:
    return struct.pack("<IQHHHHH", i, OPEN, 30, 20, 32, 1, 9) + bytes(20)


@pytest.mark.parametrize(
    ("payload", "looks"),
    [
        (_iex, " (they look like IEX-TP)"),
        (_cme, " (they look like CME MDP 3.0)"),
        (lambda i: b"price=%d\n" % i, " (they look like text)"),
        (lambda i: bytes([200]) * (1 + i % 60), ""),
        # The framing, and what no venue calls a session; and a message that is numbered 0.
        (lambda i: struct.pack(">10sQH", b"\x81" * 10, i, 0), ""),
        (lambda i: struct.pack(">10sQHHc", b"TICK000001", 0, 1, 1, b"x"), ""),
    ],
)
async def test_another_protocol_is_refused_with_how_much_of_it_there_was(
    tmp_path: Path, payload: Any, looks: str
) -> None:
    packets = [(OPEN + i, (A, B)[i % 3 == 0], payload(i)) for i in range(1200)]
    file = capture(tmp_path / "other.pcap", frames(packets))
    text = await refused(without_lines(), file)
    assert text.startswith(f"input {file}: expected datagrams of MoldUDP64")
    assert f"found none in 1,200: 800 to 239.255.84.1:26477{looks}, 400 to 239.255.84.2:26478{looks}" in text
    assert "as multicast.lines says" in await refused(with_lines("239.255.84.1:26477"), file)


async def test_a_capture_without_the_configured_lines_says_what_it_has(
    tmp_path: Path, made: list[bytes]
) -> None:
    file = capture(tmp_path / "a.pcap", frames(stream(made, A)))
    text = await refused(with_lines("239.1.1.1:9"), file)
    count = len(datagrams(made))
    assert "to 239.1.1.1:9, as multicast.lines says" in text
    assert f"found none in {count}: {count} to 239.255.84.1:26477 ({count} of them MoldUDP64)" in text


async def test_packets_without_datagrams_are_refused_as_what_they_are(tmp_path: Path) -> None:
    tcp = [packet(OPEN + i, "10.0.0.3", "10.0.0.4", 6, bytes(20)) for i in range(7)]
    text = await refused(without_lines(), capture(tmp_path / "tcp.pcap", tcp))
    assert "found no datagram; 7 packets are of TCP, as of SoupBinTCP" in text
    icmp = [packet(OPEN + i, "10.0.0.3", "10.0.0.4", 1, bytes(20)) for i in range(3)]
    text = await refused(without_lines(), capture(tmp_path / "icmp.pcap", icmp))
    assert "found no datagram; 3 packets are no UDP over IP" in text
    assert "found no packet" in await refused(without_lines(), capture(tmp_path / "none.pcap", []))


async def test_empty_files_are_said_to_be_empty(tmp_path: Path, made: list[bytes]) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    assert f"input {empty}" in (text := await refused(without_lines(), empty))
    assert "found an empty file" in text
    file = day_file(tmp_path / "20200130.itch", made)
    rows, counters, report = await told(without_lines(date="2020-01-30"), empty, file)
    assert_same(rows, await truth(made, tmp_path))
    assert counters["itch/capture_truncated"] == 1
    assert f"{empty}: the file is empty" in report


async def test_a_capture_that_is_cut_gives_what_is_whole(tmp_path: Path, made: list[bytes]) -> None:
    file = capture(tmp_path / "cut.pcap", frames(stream(made, A)))
    file.write_bytes(file.read_bytes()[:-30])
    rows, counters, report = await told(without_lines(), file)
    whole = datagrams(made)[-1][0] - 1
    assert counters["itch/messages"] == whole
    assert f"{file}: after packet {len(datagrams(made)) - 1}" in report
    assert_same(rows, await replayed(without_lines(), day_file(tmp_path / "20200130.itch", made[:whole])))


# Day files.


def _soup(messages: Iterable[bytes]) -> bytes:
    return b"".join(struct.pack(">H", len(message) + 1) + b"S" + message for message in messages)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (_soup, "packets of SoupBinTCP"),
        (lambda made: b"".join(made), "none of "),
        (lambda _: b'1580360400000000000 {"e":"trade"}\n' * 40, 'text, which begins "1580360400000000000 {"'),
        (lambda _: bytes(100), "message 1, at byte 0: a length of zero, expected 1 to 65535"),
        (
            lambda made: struct.pack(">H", len(made[0])) + made[0][:-1],
            "the file ends in the middle of a message",
        ),
        (lambda _: random.Random(7).randbytes(5000), ""),
    ],
)
async def test_a_day_file_of_another_framing_is_refused(
    tmp_path: Path, made: list[bytes], content: Any, found: str
) -> None:
    for name in ("20200130.itch", "nameless"):
        file = tmp_path / name
        file.write_bytes(content(made))
        text = await refused(without_lines(), file)
        assert f"input {file}: expected a day file: messages of ITCH 5.0, each behind its length" in text
        assert found in text


async def test_a_length_of_zero_is_an_error_with_its_place(tmp_path: Path, made: list[bytes]) -> None:
    file = day_file(tmp_path / "20200130.itch", [*made[:500], b"", *made[500:]])
    at = sum(2 + len(message) for message in made[:500])
    rows, counters, report = await told(without_lines(), file)
    assert f"{file}: message 501, at byte {at}: a length of zero" in report
    assert counters["itch/messages"] == 500
    assert_same(rows, await replayed(without_lines(), day_file(tmp_path / "20200130.half", made[:500])))


async def test_a_file_that_is_damaged_in_its_middle_ends_there(tmp_path: Path, made: list[bytes]) -> None:
    raw = day_file(tmp_path / "20200130.itch", made).read_bytes()
    at = sum(2 + len(message) for message in made[:500])
    file = tmp_path / "20200130.damaged"
    # Seven bytes have gone: what follows is read from the middle of messages.
    file.write_bytes(raw[:at] + raw[at + 7 :])
    rows, counters, report = await told(without_lines(), file)
    assert counters["itch/capture_truncated"] == 1
    assert f"{file}: " in report
    assert counters["itch/messages"] < 540
    whole = await replayed(without_lines(), day_file(tmp_path / "20200130.half", made[:500]))
    assert_same(rows[rows["sequence"] <= 500], whole)


async def test_a_new_type_that_comes_often_is_no_damage(tmp_path: Path, made: list[bytes]) -> None:
    new = [b"z" + bytes(30)] * 40
    file = day_file(tmp_path / "20200130.itch", [*made[:300], *new, *made[300:]])
    rows, counters, _ = await told(without_lines(), file)
    assert counters["itch/unknown_type"] == 40
    assert counters["itch/capture_truncated"] == 0
    assert len(rows[rows["row"] != 0]) == len(await truth(made, tmp_path))


# An input that gives no row says why.


@pytest.mark.parametrize("kind", ["day file", "pcap"])
async def test_other_instruments_are_named(tmp_path: Path, made: list[bytes], kind: str) -> None:
    if kind == "pcap":
        file = capture(tmp_path / "one.pcap", frames(stream(made, A)))
    else:
        file = day_file(tmp_path / "20200130.itch", made)
    rows, _, text = await told(without_lines(instruments=["AAPL"]), file)
    assert len(rows) == 0
    why = "the input has no stock directory (R) of it, but those of TW00001, TW00002, TW00003"
    assert f"note: itch AAPL never became valid: {why}" in text
    rows, _, text = await told(without_lines(instruments=["TW00002", "AAPL"]), file)
    assert len(rows) > 100
    assert "AAPL never became valid: the input has no stock directory (R) of it, but those of TW00001" in text


async def test_a_stock_that_never_trades_is_said_to(tmp_path: Path, made: list[bytes]) -> None:
    halted = [message for message in made if message[:1] != b"H" or message[11:18] != b"TW00002"]
    rows, _, text = await told(without_lines(), day_file(tmp_path / "20200130.itch", halted))
    assert "TW00002 never became valid: the venue never said that it trades (H)" in text
    assert "TW00001" not in text
    assert len(rows) > 100


async def test_windows_that_had_no_time_are_said_to_be_cold(tmp_path: Path, made: list[bytes]) -> None:
    """Also where the day ends with every stock halted, as each does."""
    feature = 'mean(spread(), window="900s")'
    closed = [*made, b"S" + struct.pack(">HH", 0, 0) + made[-1][5:11] + b"E"]
    for messages in (made, closed):
        config = one_feed(
            "nasdaq_itch", ["TW00001"], [feature], feed={"name": "itch"}, features={"clock": "event"}
        )
        _, _, text = await told(config, day_file(tmp_path / "20200130.itch", messages))
        assert f"note: itch TW00001 gave no row: {feature} was not warm before the end" in text
        assert ", it needed 899." in text
        assert "matched the trigger" not in text


async def test_a_book_that_was_lost_for_good_says_where_and_why(tmp_path: Path, made: list[bytes]) -> None:
    locate = 1
    stray = b"D" + struct.pack(">HH", locate, 0) + made[500][5:11] + (1 << 60).to_bytes(8, "big")
    file = day_file(tmp_path / "20200130.itch", [*made[:500], stray, *made[500:]])
    rows, counters, text = await told(without_lines(), file)
    assert counters["itch/unknown_order"] == 1
    assert "itch: message 501 is about an order that is not there" in text
    place = f"{tmp_path}/20200130.itch: message 501 (2020-01-30 14:30:00"
    assert f"note: itch TW00001 had no valid book from {place}" in text
    assert "an event is missing before it, and no snapshot followed" in text
    assert set(rows["instrument"][rows["sequence"] > 501]) == {1}
