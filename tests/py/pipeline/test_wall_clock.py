"""The wall clock is set while an engine is live: timers go on by the clock that nobody sets, no stamp is
later than its reading, and what was recorded replays to the same rows.

The clock of the machine stays what it is: `wall_clock.c` sets that of the engine's process alone.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from multicast_rig import OF_THE_BOOK, market
from needs import ROOT, compiled
from scripted import BTC, ScriptedVenue, config_of

from tickwire.sim import MulticastVenue
from tickwire.verify import verify

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
pytestmark = [
    compiled,
    pytest.mark.skipif(COMPILER is None, reason="no C compiler for the library that sets the clock"),
]

HOUR = 3600
NS = 10**9

PROGRAM = """
import asyncio, json, sys
from tickwire.config import Config
from tickwire.pipeline import Pipeline

async def main():
    config = Config.from_dict(json.loads(sys.argv[1]), where="test")
    async with Pipeline(config, record_dir=sys.argv[2]) as pipeline:
        loop, asked = asyncio.get_running_loop(), asyncio.Queue()
        loop.add_reader(0, lambda: asked.put_nowait(sys.stdin.readline()))
        rows, reasons = [0], []
        def on_rows(batch):
            for record in batch:
                if record["row"]:
                    rows[0] += 1
                else:
                    reasons.append(pipeline.layout.reason(int(record["reason"])))
        pipeline.on_rows(on_rows)
        while await asked.get():
            pipeline.raise_if_failed()
            counters = {name: count for name, count in pipeline.stats().counters.items() if count}
            print(json.dumps({"rows": rows[0], "reasons": reasons, "counters": counters}), flush=True)

asyncio.run(main())
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wall") / "wall_clock.so"
    source = ROOT / "tests" / "py" / "helpers" / "wall_clock.c"
    assert COMPILER is not None
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", out, source, "-ldl"], check=True)
    return out


class Engine:
    """A live engine in a process of its own, with a wall clock of its own."""

    def __init__(self, process: asyncio.subprocess.Process, clock: mmap.mmap) -> None:
        self._process, self._clock = process, clock
        self.told: dict[str, Any] = {}

    def set_clock(self, seconds: int, *, stamps: int | None = None) -> None:
        """From now on by so much from the machine's; the stamps of what comes, too, or by another."""
        self._clock[:16] = struct.pack("<qq", seconds * NS, (seconds if stamps is None else stamps) * NS)

    def wait(self, seconds: int) -> None:
        """So much time has passed, by every clock of the engine."""
        self._clock[:32] = struct.pack("<qqqq", seconds * NS, seconds * NS, 0, seconds * NS)

    def hold_up(self, ns: int) -> None:
        """The next receive that finds nothing takes so long to say so."""
        self._clock[16:24] = struct.pack("<q", ns)

    async def look(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        await self._process.stdin.drain()
        self.told = json.loads(await self._process.stdout.readline())
        return self.told

    def count(self, name: str, feed: str = "main") -> int:
        return int(self.told["counters"].get(f"{feed}/{name}", 0))

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Within a time that is much longer than any of the timers, and much shorter than an hour."""
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, f"{what}: {self.told}"
            await asyncio.sleep(0.02)
            await self.look()

    async def goes_on(self, rows: int = 20) -> None:
        before = (await self.look())["rows"]
        await self.until(lambda: self.told["rows"] > before + rows, "rows")


@asynccontextmanager
async def engine(
    data: dict[str, Any], folder: Path, library: Path, **environment: str
) -> AsyncIterator[Engine]:
    path = folder.parent / "clock"
    path.write_bytes(bytes(4096))
    with path.open("r+b") as file:
        clock = mmap.mmap(file.fileno(), 4096)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, json.dumps(data), str(folder)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "LD_PRELOAD": str(library), "WALL_CLOCK_FILE": str(path), **environment},
    )
    try:
        yield Engine(process, clock)
        assert process.stdin is not None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def receive_stamps(folder: Path) -> list[int]:
    lines = (folder / "capture" / "main" / "000001.log").read_text().splitlines()
    return [int(line.split(" ", 1)[0]) for line in lines]


@pytest.mark.parametrize("hours", [-1, 1])
async def test_timers_go_on_whatever_the_wall_clock_does(hours: int, tmp_path: Path, library: Path) -> None:
    venue = ScriptedVenue()
    venue.answers_pings = False  # So that the venue is silent where it says nothing.
    async with venue.serve():
        data = config_of(venue, {"stale_after": "1s", "liveness_timeout": "2s"})
        data["feeds"] = data["feeds"][:1]
        stop = asyncio.Event()
        chatter = asyncio.create_task(venue.chatter(stop))
        async with engine(data, tmp_path / "run", library) as run:
            await run.goes_on()
            assert run.told["reasons"] == []
            run.set_clock(hours * HOUR)
            await run.until(lambda: run.count("clock_leaps") > 0, "the clock is doubted")
            await run.goes_on(100)
            # One leap, an epoch of each book, and nothing else.
            assert run.count("clock_leaps") == 1
            assert set(run.told["reasons"]) == {"clock"}
            assert run.count("data_stale") + run.count("connections_silent") == 0
            assert run.count("snapshots_expired") == 0

            # A snapshot, one that is refused, and the next try.
            asked = venue.rest_requests
            venue.rest.append(venue.snapshot(BTC, bids=[], asks=[]))
            venue.ids[BTC] += 5
            await run.until(lambda: run.count("snapshots_refused") == 1, "an empty snapshot")
            await run.until(lambda: venue.rest_requests >= asked + 2, "the next try")
            await run.goes_on()

            # Silence: no book is valid, then the connection is given up, and another one is tried for.
            connections = len(venue.sockets)
            stop.set()
            await chatter
            await run.until(lambda: run.count("data_stale") >= 1, "stale books")
            await run.until(lambda: run.count("connections_silent") >= 1, "a silent connection")
            await run.until(lambda: len(venue.sockets) > connections, "a new connection")
            stop.clear()
            chatter = asyncio.create_task(venue.chatter(stop))
            await run.goes_on()

            # It is lost, and the pause before the next one is the monotonic clock's, too.
            connections = len(venue.sockets)
            for transport in venue.transports:
                transport.abort()
            await run.until(lambda: len(venue.sockets) > connections, "a new connection")
            await run.goes_on()

            run.set_clock(0)  # And put right.
            await run.until(lambda: run.count("clock_leaps") == 2, "the clock is doubted again")
            await run.goes_on()
        stop.set()
        await chatter
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence


async def test_no_stamp_is_later_than_its_reading(tmp_path: Path, library: Path) -> None:
    """The kernel's clock was set, and the one that stamps are read from has not heard of it yet."""
    venue = ScriptedVenue()
    async with venue.serve():
        data = config_of(venue)
        data["feeds"] = data["feeds"][:1]
        stop = asyncio.Event()
        chatter = asyncio.create_task(venue.chatter(stop))
        begin = time.time_ns()
        async with engine(data, tmp_path / "run", library) as run:
            await run.goes_on()
            run.set_clock(0, stamps=HOUR)
            await run.until(lambda: run.count("stamps_capped") > 20, "stamps that are capped")
            await run.goes_on()
            assert (run.count("clock_leaps"), run.told["reasons"]) == (0, [])
        stop.set()
        await chatter
    stamps = receive_stamps(tmp_path / "run")
    assert len(stamps) > 40
    assert begin <= min(stamps)
    assert max(stamps) <= time.time_ns()
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence


@pytest.mark.parametrize("hours", [-1, 1])
async def test_lines_are_watched_by_the_monotonic_clock(hours: int, tmp_path: Path, library: Path) -> None:
    messages = market(3000, 5)
    async with MulticastVenue(max_datagram_bytes=300, heartbeat_s=0.05) as venue:
        feed = {"venue": "nasdaq_itch", "name": "main", "instruments": ["TW00001", "TW00002"]}
        table: dict[str, Any] = {"lines": [f"{group}:{port}" for group, port in venue.lines]}
        table |= {"rerequest": "{}:{}".format(*venue.rerequest), "request_timeout": "50ms"}
        table |= {"request_attempts": 200, "reorder_window": "5ms", "interface": "lo"}
        data = {
            "feeds": [{**feed, "max_orders": 1 << 16, "liveness_timeout": "5s", "multicast": table}],
            "features": {"rows": OF_THE_BOOK, "max_age": "0s"},
        }
        async with engine(data, tmp_path / "run", library) as run:
            await run.look()
            await venue.play(messages[:500])
            await run.until(lambda: run.told["rows"] > 20, "rows")
            run.set_clock(hours * HOUR)
            await asyncio.sleep(0.3)  # Until it is looked at again.
            await venue.play(messages[500:1000])
            await run.until(lambda: run.count("clock_leaps") == 1, "the clock is doubted")
            before = run.told["rows"]
            await venue.play(messages[1000:1500])
            await run.until(lambda: run.told["rows"] > before, "rows")
            assert set(run.told["reasons"]) == {"clock"}
            assert run.count("lines_silent") == 0

            # A request that nobody answered is made again.
            requests = run.count("requests")
            venue.silent[:] = [True, True]
            await venue.play(messages[1500:1600])
            await run.until(lambda: run.count("lines_silent") >= 2, "two silent lines")
            await run.until(lambda: "disconnected" in run.told["reasons"], "no book is valid")
            venue.silent[:] = [False, False]
            before = run.told["rows"]
            await venue.play(messages[1600:])
            await run.until(lambda: run.told["rows"] > before and run.count("requests") > requests, "rows")
            assert run.count("lost_messages") == 0

            # Stamps of an hour ahead are those of the reading.
            run.set_clock(hours * HOUR, stamps=(hours + 1) * HOUR)
            await run.until(lambda: run.count("stamps_capped") > 2, "stamps that are capped")
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence


async def test_what_came_behind_a_slow_receive_is_old(tmp_path: Path, library: Path) -> None:
    """A process that is stopped stands at the end of a call most of all: nobody looked since it began."""
    venue = ScriptedVenue()
    async with venue.serve():
        data = config_of(venue)
        data["feeds"] = data["feeds"][:1]
        data["features"]["max_age"] = "300ms"
        stop = asyncio.Event()
        chatter = asyncio.create_task(venue.chatter(stop))
        async with engine(data, tmp_path / "run", library) as run:
            await run.goes_on()
            assert run.count("rows_stale", "ingest0") == 0
            run.hold_up(NS)
            await run.until(lambda: run.count("rows_stale", "ingest0") > 20, "rows that are too old")
            await run.goes_on()
        stop.set()
        await chatter
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence


class TimedVenue(ScriptedVenue):
    """Its stamps are of a clock that the test moves."""

    ahead_s = 0

    def diff(self, symbol: str, **fields: Any) -> str:
        message = json.loads(super().diff(symbol, **fields))
        message["E"] += self.ahead_s * 1000
        return json.dumps(message, separators=(",", ":"))


@pytest.mark.parametrize("venues_clock", ["moves on", "stands still"])
async def test_an_hour_of_silence_is_no_leap_and_the_recording_says_who_knew_it(
    venues_clock: str, tmp_path: Path, library: Path
) -> None:
    """Where the venue's stamps do not say that the time has passed, ours that nobody sets does: a line."""
    venue = TimedVenue()
    async with venue.serve():
        data = config_of(venue, {"liveness_timeout": "0s"})
        data["feeds"] = data["feeds"][:1]
        stop = asyncio.Event()
        chatter = asyncio.create_task(venue.chatter(stop))
        async with engine(data, tmp_path / "run", library, WALL_CLOCK_ALONE="1") as run:
            await run.goes_on()
            stop.set()
            await chatter
            before = await run.look()
            run.wait(HOUR)
            if venues_clock == "moves on":
                venue.ahead_s = HOUR
            await asyncio.sleep(0.3)  # It looks at its socket, where there is nothing.
            stop.clear()
            chatter = asyncio.create_task(venue.chatter(stop))
            await run.goes_on(100)
            assert run.told["reasons"] == before["reasons"] == []
            assert run.count("clock_leaps") == 0
            assert run.count("rows_stale", "ingest0") == 0
        stop.set()
        await chatter
    capture = (tmp_path / "run" / "capture" / "main" / "000001.log").read_text().splitlines()
    quiet = [i for i, line in enumerate(capture) if line.endswith('{"tickwire":"quiet","conn":0}')]
    stamps = receive_stamps(tmp_path / "run")
    after = next(i for i in range(1, len(stamps)) if stamps[i] - stamps[i - 1] > HOUR * NS)
    # It stands before the message that it is said of, with its stamp.
    assert quiet == ([] if venues_clock == "moves on" else [after])
    assert not quiet or stamps[after] == stamps[after + 1]
    result = await verify(tmp_path / "run")
    assert result.same, result.divergence
    assert result.rows > 100
