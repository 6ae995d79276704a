"""Live multicast ITCH on loopback: lossy lines give the rows of a stream that lost nothing; what no server
can bring back makes books suspect and never wrong; and all of it replays, bit for bit."""

from __future__ import annotations

import asyncio
import csv
import json
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from multicast_rig import (
    BOTH,
    DATE,
    HASTY,
    OF_THE_BOOK,
    assert_same,
    check_lines,
    config_of,
    datagrams,
    day_file,
    live,
    market,
    replayed,
    storm,
    write_pcap,
)
from needs import compiled
from waiting import until

from tickwire.config import Config
from tickwire.errors import VerifyError
from tickwire.findings import findings
from tickwire.pipeline import Pipeline
from tickwire.sim import ItchState, LineFaults, MulticastVenue, SyntheticMarket, Venue
from tickwire.verify import verify

pytestmark = compiled

LAYOUTS = ["inline", "threads", "processes"]
PATIENT = {"request_attempts": 50}  # With a server that is only slow, on a machine that is busy.
ON_EVENT: dict[str, Any] = {"features": {"clock": "event"}, "feed": {"date": DATE}}
OPEN = 1_580_360_400_000_000_000 + 34_200 * 10**9  # 09:30 of that day in New York.


def captures(run: Path) -> list[Path]:
    return sorted((run / "capture" / "itch").glob("*.pcap"))


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_two_lossy_lines_give_the_rows_of_a_stream_that_lost_nothing(
    tmp_path: Path, layout: str
) -> None:
    faults = LineFaults(seed=7, loss=(0.01, 0.01), duplicate=0.01, reorder=0.02, skew_s=0.0005)
    messages = market(3000, 7)
    venue = MulticastVenue(faults=faults, max_datagram_bytes=200)
    async with (
        venue,
        live(venue, tmp_path, record=tmp_path / "run", layout=layout, multicast=PATIENT, **ON_EVENT) as rig,
    ):
        await rig.played(messages)
        config = rig.pipeline.config
        await check_lines(rig)
        assert rig.count("lost_messages") == 0
        assert rig.count("line0/line_gap") > 0
        assert rig.count("line0/line_overtaken") > 0
        assert rig.count("line1/line_duplicate") > 0
    rows = rig.rows
    assert len(rows) > 1000
    assert set(rows["epoch"]) == {1}
    loss_free = await replayed(config, day_file(tmp_path / "20200130.itch", messages))
    assert_same(rows, loss_free)
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence
    assert (result.rows, result.exact) == (len(rows), True)
    # What was recorded is a capture like any other.
    assert_same(await replayed(config, *captures(tmp_path / "run")), rows, stamps=True)


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_a_recorded_run_on_receive_times_equals_its_replay(tmp_path: Path, layout: str) -> None:
    venue = MulticastVenue(faults=LineFaults(seed=8, loss=(0.05, 0.05), both_loss=0.01, reorder=0.05))
    async with venue, live(venue, tmp_path, record=tmp_path / "run", layout=layout, multicast=PATIENT) as rig:
        made = market(1500, 8)
        for at in range(0, len(made), 100):  # For windows that fill while it runs.
            await venue.play(made[at : at + 100])
            await asyncio.sleep(0.02)
        await rig.caught_up()
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence
    assert result.exact
    assert result.rows == len(rig.rows) > 100


async def test_what_both_lines_lost_is_asked_for_and_the_rest_waits(tmp_path: Path) -> None:
    faults = LineFaults(seed=9, loss=(0.02, 0.02), both_loss=0.02, answer_loss=0.5, duplicate=0.02)
    messages = market(3000, 9)
    venue = MulticastVenue(faults=faults, max_datagram_bytes=300)
    async with venue, live(venue, tmp_path, record=tmp_path / "run", multicast=PATIENT, **ON_EVENT) as rig:
        await rig.played(messages)
        config = rig.pipeline.config
        await check_lines(rig)
        assert rig.count("lost_messages") == 0
        assert rig.count("sequence_gaps") > 0
        assert rig.count("requests") > 0
        assert rig.count("request_timeouts") > 0
        assert rig.count("rerequest/line_won") > 0
        assert rig.count("requested_messages") >= rig.count("rerequest/line_won")
        assert rig.count("snapshots") == 0
        told = [rig.told(symbol) for symbol in rig.symbols]
        assert not any(t.lost() for t in told), "nothing was missing for long"
    assert_same(rig.records, await replayed(config, day_file(tmp_path / "20200130.itch", messages)))
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_what_nobody_brings_back_ends_the_epoch_until_a_snapshot(tmp_path: Path, layout: str) -> None:
    messages = market(2400, 10)
    venue = MulticastVenue(max_datagram_bytes=300, heartbeat_s=0.05)
    options: dict[str, Any] = {"rows": OF_THE_BOOK, "layout": layout, "servers": BOTH, "multicast": HASTY}
    async with venue, live(venue, record=tmp_path / "run", **options) as rig:
        await rig.played(messages[:800])
        venue.rerequest_up = venue.glimpse_up = False
        venue.lose(messages[800:830])
        await venue.play(messages[830:1000])
        await rig.all_lost("gap")
        before = len(rig.rows)
        await venue.play(messages[1000:1300])
        refused = venue.counters["snapshots_refused"]
        await rig.until(lambda: venue.counters["snapshots_refused"] >= refused + 3, "tries for a snapshot")
        await rig.until(lambda: rig.count("snapshots_failed") >= 2, "failed snapshots")
        assert len(rig.rows) == before, "rows of a book that is not whole"
        assert rig.count("snapshots") == 0
        venue.glimpse_up = True
        await rig.until(lambda: rig.count("snapshots") == 1, "a snapshot")
        await rig.played(messages[1300:2000])
        assert [rig.told(s).epoch for s in rig.symbols] == [2, 2]
        await rig.settled()
        assert rig.count("lost_messages") > 0
        # And again, with GLIMPSE there at once.
        venue.lose(messages[2000:2001])
        await venue.play(messages[2001:2200])
        await rig.until(lambda: rig.count("snapshots") == 2, "a second snapshot")
        await rig.played(messages[2200:])
        assert [rig.told(s).epoch for s in rig.symbols] == [3, 3]
        assert [len(rig.told(s).lost("gap")) for s in rig.symbols] == [2, 2]
    assert rig.monitor.check() > 100
    epochs = [row[0] for row in rig.told("TW00001").rows]
    assert min(epochs.count(epoch) for epoch in (1, 2, 3)) > 50
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence
    assert result.rows == len(rig.rows)
    config = rig.pipeline.config
    assert_same(await replayed(config, *captures(tmp_path / "run")), rig.rows, stamps=True)


async def test_without_servers_books_stay_suspect_until_the_next_session(tmp_path: Path) -> None:
    messages = market(900, 11)
    venue = MulticastVenue(max_datagram_bytes=300)
    async with venue, live(venue, rows=OF_THE_BOOK, servers=(), record=tmp_path / "run") as rig:
        await rig.played(messages[:400])
        venue.lose(messages[400:410])
        await venue.play(messages[410:700])
        await rig.all_lost("gap")
        before = len(rig.rows)
        await venue.play(messages[700:])
        await rig.until(lambda: rig.count("messages") == len(messages) - 10, "all there is")
        assert len(rig.rows) == before
        assert rig.count("lost_messages") == 10
        await venue.new_session("TICK000002")
        await rig.caught_up()
        await rig.settled()
        assert rig.count("sessions") == 2
    assert rig.monitor.check() > 100
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence


@pytest.mark.parametrize("servers", [("rerequest",), BOTH], ids=["rerequest", "glimpse"])
async def test_sessions_end_and_begin(tmp_path: Path, servers: tuple[str, ...]) -> None:
    messages = market(1200, 12)
    venue = MulticastVenue(max_datagram_bytes=300, heartbeat_s=0.05)
    async with venue, live(venue, rows=OF_THE_BOOK, record=tmp_path / "run", servers=servers) as rig:
        await rig.played(messages[:600])
        # The end is the last chance to ask for what came before it.
        venue.lose(messages[600:610])
        await venue.end_session()
        await rig.caught_up()
        assert [rig.told(s).epoch for s in rig.symbols] == [1, 1]
        await venue.new_session("TICK000002")
        await rig.played(messages[610:])
        assert [rig.told(s).epoch for s in rig.symbols] == [2, 2]
        await rig.settled()
        assert rig.count("sessions") == 2
        assert rig.count("lost_messages") == 0
        assert rig.count("snapshots") == 0, "each session was heard from its first message on"
    assert rig.monitor.check() > 100
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence
    assert_same(await replayed(rig.pipeline.config, *captures(tmp_path / "run")), rig.rows, stamps=True)


async def test_silence_of_a_line_is_told_and_of_all_lines_ends_validity(tmp_path: Path) -> None:
    messages = market(1500, 13)
    options: dict[str, Any] = {"rows": OF_THE_BOOK, "feed": {"liveness_timeout": "1s"}}
    venue = MulticastVenue(max_datagram_bytes=300, heartbeat_s=0.05)
    async with venue, live(venue, record=tmp_path / "run", **options) as rig:
        await rig.played(messages[:500])
        venue.silent[0] = True
        silent = rig.count("lines_silent")
        await rig.until(lambda: rig.count("lines_silent") > silent, "one silent line")
        await rig.played(messages[500:700])  # The other one brings it all.
        venue.silent[1] = True
        lost = {symbol: len(rig.told(symbol).lost()) for symbol in rig.symbols}
        await rig.until(
            lambda: all(len(rig.told(s).lost()) > lost[s] and not rig.told(s).valid for s in rig.symbols),
            "all silent",
        )
        before = len(rig.rows)
        await venue.play(messages[700:900])  # That nobody hears.
        assert len(rig.rows) == before
        venue.silent[:] = [False, False]
        await rig.played(messages[900:])
        await rig.settled()
        assert rig.count("lost_messages") == 0, "the re-request server has it all"
        assert rig.rows["epoch"].max() >= 2
    assert rig.monitor.check() > 100
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence


async def test_a_session_that_began_before_us_begins_with_a_snapshot(tmp_path: Path) -> None:
    messages = market(1500, 14)
    venue = MulticastVenue(username="tick", password="sesame", max_datagram_bytes=300, heartbeat_s=0.05)
    (tmp_path / "login").write_text("tick\nsesame\n")
    (tmp_path / "login").chmod(0o600)
    table = {"credentials": str(tmp_path / "login")}
    options: dict[str, Any] = {"rows": OF_THE_BOOK, "multicast": table, "servers": BOTH}
    async with venue:
        await venue.play(messages[:900])
        async with live(venue, record=tmp_path / "run", **options) as rig:
            await rig.until(lambda: rig.count("snapshots") == 1, "the first snapshot")
            assert not len(rig.rows), "a snapshot is no event"
            await rig.played(messages[900:])
            assert rig.count("requests") == 0
    assert rig.rows["sequence"].min() > 900
    assert rig.monitor.check() > 100
    assert "sesame" not in (tmp_path / "run" / "run.json").read_text()
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence


async def test_a_snapshot_that_breaks_off_is_taken_again(tmp_path: Path) -> None:
    messages = market(1500, 17)
    faults = LineFaults(seed=17, glimpse_cut=1.0)
    venue = MulticastVenue(faults=faults, max_datagram_bytes=300, heartbeat_s=0.05)
    options: dict[str, Any] = {"rows": OF_THE_BOOK, "servers": BOTH, "multicast": HASTY}
    async with venue, live(venue, record=tmp_path / "run", **options) as rig:
        await rig.played(messages[:600])
        venue.rerequest_up = False
        venue.lose(messages[600:610])
        await venue.play(messages[610:700])
        await rig.all_lost("gap")
        before = len(rig.rows)
        await rig.until(lambda: rig.count("snapshots_failed") >= 2, "snapshots that break off")
        await venue.play(messages[700:800])
        assert len(rig.rows) == before, "rows of half a snapshot"
        faults.glimpse_cut = 0.0
        await rig.until(lambda: rig.count("snapshots") == 1, "a snapshot")
        await rig.played(messages[800:])
        assert [rig.told(s).epoch for s in rig.symbols] == [2, 2]
    assert rig.monitor.check() > 100
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence
    assert_same(await replayed(rig.pipeline.config, *captures(tmp_path / "run")), rig.rows, stamps=True)


async def test_what_is_none_of_the_stream_is_counted_and_changes_nothing(tmp_path: Path) -> None:
    messages = market(800, 18)
    venue = MulticastVenue(max_datagram_bytes=300)
    async with venue, live(venue, record=tmp_path / "run", rows=OF_THE_BOOK) as rig:
        await rig.played(messages[:400])
        rand = random.Random(18)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            for i in range(100):
                noise = rand.randbytes(rand.randrange(60))
                out.sendto(noise, venue.lines[i % 2])
                # The stream's own header, and a count that the bytes behind it do not hold.
                out.sendto(
                    venue.session.encode() + (1).to_bytes(8, "big") + b"\x7f\x00" + noise, venue.lines[i % 2]
                )
            out.sendto(bytes(5000), venue.lines[1])
            # Of the stream, but for a number that nobody else comes near.
            out.sendto(venue.session.encode() + (10**12).to_bytes(8, "big") + b"\0\0", venue.lines[0])
        await rig.until(lambda: rig.count("malformed_datagrams") == 200, "noise")
        await rig.until(lambda: rig.count("line1/datagrams_cut") == 1, "a long datagram")
        await rig.until(lambda: rig.count("implausible_datagrams") == 1, "an impossible number")
        await rig.played(messages[400:])
        assert not any(rig.told(s).lost() for s in rig.symbols)
    assert rig.monitor.check() > 100
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence
    told = "\n".join(findings(rig.pipeline.stats(), rig.pipeline.config))
    assert "note: itch: 200 datagrams could not be read as MoldUDP64" in told
    assert "note: itch: 1 datagram was longer than multicast.max_datagram_bytes" in told


async def test_one_datagram_of_another_session_is_not_believed(tmp_path: Path) -> None:
    messages = market(800, 19)
    venue = MulticastVenue(max_datagram_bytes=300, heartbeat_s=0.05)
    async with venue, live(venue, record=tmp_path / "run", rows=OF_THE_BOOK, servers=BOTH) as rig:
        await rig.played(messages[:400])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            out.sendto(b"OTHER00001" + (77).to_bytes(8, "big") + b"\0\0", venue.lines[0])
        await asyncio.sleep(0.2)
        await rig.played(messages[400:])
    assert rig.monitor.check() > 100


@pytest.mark.parametrize("seed", range(6, 10))
async def test_a_snapshot_of_another_session_is_not_used(tmp_path: Path, seed: int) -> None:
    """GLIMPSE that is still at the session before: its number means nothing in this one."""

    class Late(MulticastVenue):
        before: MulticastVenue | None = None

        async def _glimpse_session(self, *streams: Any) -> None:
            serve = super()._glimpse_session if self.before is None else self.before._glimpse_session
            await serve(*streams)

    first, second = market(1000, 3), market(3000, seed)
    venue = Late(heartbeat_s=0.05)
    options: dict[str, Any] = {"rows": OF_THE_BOOK, "servers": BOTH, "multicast": HASTY}
    async with venue, live(venue, **options) as rig:
        await rig.played(first)
        venue.before = before = MulticastVenue()
        before.session, before.history, before.state = venue.session, venue.history, venue.state
        await venue.end_session()
        venue.rerequest_up = False
        venue.session, venue.state = "TICK000002", ItchState()
        venue.history = venue.sessions["TICK000002"] = []
        await venue.play(second[:50])
        venue.lose(second[50:60])
        await venue.play(second[60:300])
        await rig.until(lambda: before.counters["snapshots"] >= 1, "a snapshot of the session before")
        await venue.play(second[300:])
        await rig.settled()
    rig.monitor.check()


async def test_a_run_that_heard_nothing_has_nothing_to_verify(tmp_path: Path) -> None:
    venue = MulticastVenue()
    async with venue, live(venue, record=tmp_path / "run") as rig:
        await asyncio.sleep(0.1)
        assert rig.count("messages") == 0
    with pytest.raises(VerifyError, match="nothing to compare"):
        await verify(tmp_path / "run")
    assert not len(await replayed(rig.pipeline.config, *captures(tmp_path / "run")))


async def test_beside_a_websocket_feed_each_keeps_its_own(tmp_path: Path) -> None:
    venue = MulticastVenue(faults=LineFaults(seed=17, loss=(0.02, 0.02)))
    spot = SyntheticMarket("spot", rate=500.0, seed=17)
    async with venue, Venue([spot], at_end="idle") as other:
        itch = config_of([f"{group}:{port}" for group, port in venue.lines], rows=["spread()"])
        feed = {
            "name": "spot",
            "venue": "binance_spot",
            "url": other.ws_url["spot"],
            "rest_url": other.rest_url["spot"],
            "instruments": ["BTCUSDT"],
            "stale_after": "20ms",
        }
        data = itch.model_dump()
        config = Config.from_dict({**data, "feeds": [*data["feeds"], feed]})
        rows = []
        async with Pipeline(config, record_dir=tmp_path / "run") as pipeline:
            pipeline.on_rows(lambda some: rows.append(some.copy()))
            await venue.play(market(600, 17))

            def enough() -> bool:
                counters = pipeline.stats().counters
                return counters["spot/data_stale"] > 0 and counters["spot/BTCUSDT/rows"] > 100

            await until(enough, lambda: pipeline.stats())
            errors = [entry.text for entry in pipeline.stats().errors]
    assert "data_stale: BTCUSDT" in errors
    assert set(np.concatenate(rows)["instrument"]) == {0, 1, 2}
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence


# In a process of its own, which may have a gigabyte more than it has: the books alone want four.
_SHORT_OF_MEMORY = """
import asyncio, resource, sys
from pathlib import Path
from tickwire.config import Config
from tickwire.pipeline import Pipeline
from tickwire.errors import SetupError

async def main():
    await asyncio.to_thread(int)  # The thread in which an engine is built.
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (1 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        async with Pipeline(Config.from_toml(sys.argv[1])):
            print("started")
    except SetupError as error:
        print(error)

asyncio.run(main())
"""


def test_memory_that_cannot_be_had_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    config = config_of(["239.255.84.3:9"], feed={"max_orders": 1 << 26})
    (tmp_path / "p.toml").write_text(config.to_toml(), encoding="utf-8")
    command = [sys.executable, "-c", _SHORT_OF_MEMORY, str(tmp_path / "p.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "memory: there is not as much as the configuration asks for" in done.stdout, done.stderr


def two_lines(path: Path, messages: list[bytes], groups: list[tuple[str, int]]) -> Path:
    """A capture of both lines, which each lost some and never the same, with B behind A."""
    rand = random.Random(15)
    packets = []
    for i, (_, datagram) in enumerate(datagrams(messages)):
        lost = rand.choices((None, 0, 1), (0.9, 0.05, 0.05))[0]
        for line, group in enumerate(groups):
            if line != lost:
                packets.append((OPEN + i * 100_000 + line * 30_000, group, datagram))
    # Nothing of ours.
    packets.append((OPEN + 5, ("239.1.1.1", 9), b"another group's"))
    return write_pcap(path, sorted(packets, key=lambda packet: packet[0]))


async def test_a_capture_of_both_lines_is_arbitrated_in_the_replay(tmp_path: Path) -> None:
    messages = market(2000, 15)
    groups = [("239.255.84.1", 26477), ("239.255.84.2", 26478)]
    lines = [f"{group}:{port}" for group, port in groups]
    capture = two_lines(tmp_path / "lines.pcap", messages, groups)
    without: dict[str, Any] = {"features": {"clock": "event"}}
    for options in (ON_EVENT, without):  # The day is the packets', too.
        config = config_of(lines, tmp_path, **options)
        day = day_file(tmp_path / "20200130.itch", messages)
        assert_same(await replayed(config, capture), await replayed(config, day))


async def test_packets_that_were_cut_are_counted(tmp_path: Path) -> None:
    groups = [("239.255.84.1", 26477), ("239.255.84.2", 26478)]
    capture = two_lines(tmp_path / "lines.pcap", market(300, 18), groups)
    raw = bytearray(capture.read_bytes())
    recorded = int.from_bytes(raw[32:36], "little") - 1  # Of the first packet …
    raw[32:36] = recorded.to_bytes(4, "little")
    del raw[40 + recorded]  # … which loses its last byte.
    capture.write_bytes(raw)
    config = config_of([f"{group}:{port}" for group, port in groups], rows=OF_THE_BOOK)
    async with Pipeline.replay(config, [capture]) as pipeline:
        await pipeline.run_until()
        counters = pipeline.stats().counters
    assert counters["itch/packets_cut"] == 1


def test_a_recorded_capture_replays_from_the_command_line(tmp_path: Path) -> None:
    messages = market(1200, 16)
    venue = MulticastVenue(faults=LineFaults(seed=16, loss=(0.05, 0.05), both_loss=0.01))

    async def run() -> tuple[Config, np.ndarray]:
        async with venue, live(venue, record=tmp_path / "run", rows=OF_THE_BOOK) as rig:
            await rig.played(messages)
        return rig.pipeline.config, rig.rows

    config, rows = asyncio.run(run())
    (tmp_path / "itch.toml").write_text(config.to_toml())
    command = [sys.executable, "-c", "from tickwire.cli import main; main()"]
    files = [word for path in captures(tmp_path / "run") for word in ("--input", str(path))]
    out = tmp_path / "rows.csv"
    done = subprocess.run(
        [*command, "replay", str(tmp_path / "itch.toml"), *files, "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with out.open(newline="") as file:
        found = list(csv.DictReader(file))
    found.sort(key=lambda row: (row["instrument"], int(row["epoch"]), int(row["row"])))
    assert len(found) == len(rows)
    for row, record in zip(found, rows, strict=True):
        for name in ("ts_event", "ts_recv", "epoch", "row", "sequence"):
            assert int(row[name]) == record[name]
        again = np.array([row[name] for name in OF_THE_BOOK], np.float32)
        np.testing.assert_array_equal(again, record["features"])


@pytest.mark.parametrize(("layout", "seed"), [("threads", 21), ("inline", 22)])
async def test_storm(tmp_path: Path, layout: str, seed: int) -> None:
    print(f"seed {seed}")
    rig, checked = await storm(seed, seconds=3.0, layout=layout, folder=tmp_path)
    assert checked > 500
    assert sum(rig.venue.counters[f"lost_{line}"] for line in (0, 1)) > 0, "no storm"


def test_demo_shows_lines_and_its_recording_verifies(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from tickwire.cli import main; main()"]
    run_dir = tmp_path / "run"
    demo = ["demo", "--feed", "itch", "--seconds", "4", "--json", "--record", str(run_dir)]
    done = subprocess.run([*command, *demo], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["rows"] > 100
    assert 0 < report["signals"] <= report["rows"]
    lines = report["multicast"]["nasdaq_itch"]["lines"]
    assert list(lines) == ["line0", "line1", "rerequest"]
    for line in ("line0", "line1"):
        assert lines[line]["received"] > 100
        assert lines[line]["gap"] > 0
    assert "Lines of nasdaq_itch, in messages" in done.stderr
    done = subprocess.run(
        [*command, "verify", str(run_dir)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "bit for bit" in done.stdout
