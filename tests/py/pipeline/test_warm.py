"""A warm start: a second pipeline takes over from one that runs, or from what one left, and says the same.

The truth is the first pipeline: it never stopped, and is itself held to its replay. Windows are measured on
the venue's clock here, because two receivers stamp one message differently.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collecting import Collector
from configuring import at_venue, one_feed
from needs import compiled
from waiting import until

from tickwire import models
from tickwire.config import Config
from tickwire.errors import ConfigError, SetupError, VerifyError
from tickwire.pipeline import Pipeline
from tickwire.records import Rows
from tickwire.replay import replay
from tickwire.sim import Faults, SyntheticMarket, Venue
from tickwire.verify import verify
from tickwire.warm import assign_warm

pytestmark = compiled

BTC, ETH = "BTCUSDT", "ETHUSDT"
ROWS = (
    "imbalance(levels=5)",
    "spread()",
    'trade_flow(window="700ms")',
    'zscore(ofi(levels=5, window="300ms"), window="500ms")',
)


class Watched:
    """A pipeline and the records that left it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.collector = pipeline, Collector(pipeline)

    @property
    def records(self) -> Rows:
        return self.collector.records

    def rows(self, symbol: str | None = None) -> Rows:
        rows = self.collector.rows
        if symbol is not None:
            numbers = [i for i, (name, _) in enumerate(self.pipeline.layout.instruments) if name == symbol]
            rows = rows[np.isin(rows["instrument"], numbers)]
        return rows

    async def until(self, condition: Callable[[], bool]) -> None:
        await until(condition, self.state, look=self.pipeline.raise_if_failed)

    def state(self) -> str:
        stats = self.pipeline.stats()
        counters = {name: value for name, value in stats.counters.items() if value}
        return f"{self.pipeline.warm_report} {stats.errors} {counters}"

    async def more_rows(self, count: int = 100, *symbols: str) -> None:
        names = symbols or (BTC, ETH)
        wanted = {symbol: len(self.rows(symbol)) + count for symbol in names}
        await self.until(lambda: all(len(self.rows(s)) >= n for s, n in wanted.items()))

    async def joined(self) -> dict[str, str]:
        """What became of each instrument."""
        await self.until(lambda: not self.pipeline.warming_up)
        parts = [line.split(" ", 3) for line in self.pipeline.warm_report]
        assert all(part[:2] == ["warm:", "main"] for part in parts)
        return {part[2].rstrip(":"): part[3] for part in parts}

    def count(self, name: str) -> int:
        return self.pipeline.stats().counters[f"main/{name}"]


def config_of(venue: Venue, market: str, changes: dict[str, Any]) -> Config:
    feed = at_venue(
        venue,
        market,
        name="main",
        max_levels=1024,
        snapshot_limit=1000,
        snapshot_backoff="20ms",
        reconnect_min="20ms",
        reconnect_max="100ms",
    )
    if changes.pop("split", False):
        base = venue.ws_url[market].removesuffix("/ws")
        feed |= {"url": f"{base}/public/ws", "trades_url": f"{base}/market/ws"}
    features = {"trigger": "book", "rows": list(ROWS), "clock": "event", **changes.pop("features", {})}
    return Config.from_dict({"feeds": [feed], "features": features, **changes})


class Stage:
    """A venue, and the first pipeline on it, recorded."""

    def __init__(self, venue: Venue, market: str, folder: Path, changes: dict[str, Any]) -> None:
        self.venue, self.market, self.folder = venue, market, folder
        self.config = config_of(venue, market, dict(changes))
        self.run = folder / "a"

    @property
    def capture(self) -> Path:
        return self.run / "capture" / "main" / "000001.log"

    @asynccontextmanager
    async def running(self, **options: Any) -> AsyncIterator[Watched]:
        async with Pipeline(self.config, **options) as pipeline:
            yield Watched(pipeline)


@asynccontextmanager
async def stage(tmp_path: Path, market: str = "spot", *, faults: Faults | None = None, **changes: Any) -> Any:
    source = SyntheticMarket(market, instruments=2, rate=1000.0, seed=7)
    async with Venue([source], at_end="idle", faults=faults) as venue:
        yield Stage(venue, market, tmp_path, changes)


def bits(values: Any) -> Any:
    return np.ascontiguousarray(values).view(np.uint32)


def same_rows(one: Rows, two: Rows, *, scores: bool = False, numbers: bool = True) -> int:
    """Holds the rows that both have to each other; how many there are. Without `numbers` they are those of
    the same event, whatever their numbers in the epoch."""

    def key(rows: Rows) -> np.ndarray:
        return rows["epoch"] * 10**9 + rows["row"] if numbers else rows["sequence"]

    _, here, there = np.intersect1d(key(one), key(two), return_indices=True)
    one, two = one[here], two[there]
    for name in ("epoch", "sequence", "ts_event"):
        assert (one[name] == two[name]).all(), name
    assert (bits(one["features"]) == bits(two["features"])).all()
    if scores:
        assert (one["scored"] == 1).all()
        assert (two["scored"] == 1).all()
        differ = (bits(one["scores"]) != bits(two["scores"])).any(axis=-1)
        assert not differ.any(), f"{differ.sum()} of {len(one)} scores, rows {one['row'][differ]}"
    return len(one)


async def agrees_with_its_replay(folder: Path, rows: int) -> None:
    result = await verify(folder)
    assert result.same, result.divergence
    assert result.exact
    assert result.rows == rows


@pytest.mark.parametrize(("market", "split"), [("spot", False), ("usdm", False), ("usdm", True)])
async def test_a_second_process_takes_over_from_a_running_one(
    tmp_path: Path, market: str, split: bool
) -> None:
    async with stage(tmp_path, market, split=split) as s:
        async with s.running(record_dir=s.run) as a:
            await a.more_rows(300)
            async with s.running(warm=[s.run], record_dir=tmp_path / "b") as b:
                said = await b.joined()
                for text in said.values():
                    assert text.startswith("continues the capture at id"), said
                    assert "in epoch 1 after row" in text
                await b.more_rows(300)
                for symbol in (BTC, ETH):
                    first = b.rows(symbol)[0]
                    assert first["epoch"] == 1
                    assert first["row"] > 300
                    rows = b.rows(symbol)["row"]
                    assert (np.diff(rows) == 1).all()
                    await a.until(lambda rows=rows, symbol=symbol: a.rows(symbol)["row"][-1] > rows[-1])
                assert b.count("snapshot_requests") == 0
                assert b.count("gaps") == 0
                assert b.count("warm_messages") > 0
                assert b.count("messages") < a.count("messages")
        # With split trades the order between the connections is each receiver's own.
        if not split:
            for symbol in (BTC, ETH):
                assert same_rows(a.rows(symbol), b.rows(symbol)) > 250
        reasons = [b.pipeline.layout.reason(int(r["reason"])) for r in b.records if r["row"] == 0]
        assert reasons == ["stopped"] * 2
    await agrees_with_its_replay(s.run, len(a.rows()))
    await agrees_with_its_replay(tmp_path / "b", len(b.rows()))
    manifest = json.loads((tmp_path / "b" / "run.json").read_text())
    assert manifest["warm"]["inputs"] == {"main": [str(s.capture)]}
    assert len(manifest["warm"]["report"]) == 2


@pytest.mark.parametrize("layout", ["threads", "inline"])
async def test_a_sequence_model_goes_on_with_a_full_window(tmp_path: Path, layout: str) -> None:
    model = tmp_path / "model.onnx"
    changes: dict[str, Any] = {
        "engine": {"layout": layout, "output_slots": 65536},
        "features": {"window_rows": 40},
    }
    async with stage(tmp_path, **changes) as plain:
        models.make_demo_model(model, plain.config.schema())
        s = Stage(plain.venue, "spot", tmp_path, {**changes, "model": {"path": str(model)}})
        async with s.running(record_dir=s.run) as a:
            await a.more_rows(200)
            async with s.running(warm=[s.run], record_dir=tmp_path / "b") as b:
                await b.joined()
                await b.more_rows(100)
                last = {symbol: b.rows(symbol)["row"][-1] for symbol in (BTC, ETH)}
                await a.until(lambda: all(a.rows(s)["row"][-1] > n for s, n in last.items()))
                assert b.pipeline.stats().warming == 0
        for symbol in (BTC, ETH):
            assert same_rows(a.rows(symbol), b.rows(symbol), scores=True) >= 100
    await agrees_with_its_replay(tmp_path / "b", len(b.rows()))


async def test_the_third_process_continues_the_second(tmp_path: Path) -> None:
    async with stage(tmp_path) as s, s.running(record_dir=s.run) as a:
        await a.more_rows(200)
        async with s.running(warm=[s.run], record_dir=tmp_path / "b") as b:
            await b.joined()
            await b.more_rows(50)
            async with s.running(warm=[tmp_path / "b"], record_dir=tmp_path / "c") as c:
                said = await c.joined()
                assert all(text.startswith("continues") for text in said.values()), said
                await c.more_rows(100)
                last = {symbol: c.rows(symbol)["row"][-1] for symbol in (BTC, ETH)}
                await a.until(lambda: all(a.rows(s)["row"][-1] > n for s, n in last.items()))
        for symbol in (BTC, ETH):
            assert same_rows(a.rows(symbol), c.rows(symbol)) >= 100
    await agrees_with_its_replay(tmp_path / "c", len(c.rows()))


async def test_a_capture_that_ended_too_early_starts_cold_and_says_by_how_much(tmp_path: Path) -> None:
    async with stage(tmp_path, "usdm") as s, s.running(record_dir=s.run) as a:
        await a.more_rows(100)
        await a.pipeline.stop()
        await asyncio.sleep(0.3)
        async with s.running(warm=[s.run], record_dir=tmp_path / "b") as b:
            said = await b.joined()
            for text in said.values():
                assert "before the feed's first, which follows id" in text
                assert text.endswith("; not contiguous, starts cold")
            await b.more_rows(50)
            assert set(b.rows()["epoch"]) == {2}
            assert b.rows(BTC)["row"][0] == 1
            assert b.count("snapshot_requests") == 2
    await agrees_with_its_replay(tmp_path / "b", len(b.rows()))


async def follow(source: Path, target: Path, keep: Callable[[dict[str, Any], int], bool], **how: Any) -> None:
    """A recorder beside the first pipeline: copies its capture, without the lines that `keep` leaves out."""
    writer: Any = (gzip.open if target.suffix == ".gz" else open)(target, "wb")
    stamps = how.get("stamps", lambda stamp, number: stamp)
    number, text = 0, b""
    with writer, source.open("rb") as reader:
        rest = b""
        while True:
            rest += reader.read()
            *lines, rest = rest.split(b"\n")
            for line in lines:
                number += 1
                if number == how.get("damage_at"):
                    text += b"\x00no line at all\n17\n"
                stamp, _, message = line.partition(b" ")
                if keep(json.loads(message), number):
                    text += b"%d %b\n" % (stamps(int(stamp), number), message)
                for insert, added in how.get("add", ()):
                    text += b"%b %b\n" % (stamp, added) if insert == number else b""
            # What is in the file ends in the middle of a line, nearly always.
            writer.write(text[:-7])
            text = text[-7:]
            writer.flush()
            await asyncio.sleep(0.01)


@asynccontextmanager
async def recorder(*arguments: Any, **how: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(follow(*arguments, **how))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_gzip_file_under_way_with_damaged_lines_is_continued(tmp_path: Path) -> None:
    target = tmp_path / "feed.log.gz"
    async with stage(tmp_path) as s, s.running(record_dir=s.run) as a:
        await a.more_rows(200)
        async with recorder(s.capture, target, lambda message, number: True, damage_at=100):
            await a.more_rows(50)
            async with s.running(warm=[target], record_dir=tmp_path / "b") as b:
                said = await b.joined()
                assert all(text.startswith("continues") for text in said.values()), said
                assert b.count("capture_lines_skipped") == 2
                await b.more_rows(100)
                last = {symbol: b.rows(symbol)["row"][-1] for symbol in (BTC, ETH)}
                await a.until(lambda: all(a.rows(s)["row"][-1] > n for s, n in last.items()))
        for symbol in (BTC, ETH):
            assert same_rows(a.rows(symbol), b.rows(symbol)) >= 100
    await agrees_with_its_replay(tmp_path / "b", len(b.rows()))


async def write_as_another(source: Path, target: Path) -> None:
    """Goes on writing a recording as somebody else's tool does: in whole microseconds, snapshots in the
    wrapper of a stream, and nothing else of ours."""
    with source.open("rb") as recorded, target.open("wb", buffering=0) as out:
        rest = b""
        while True:
            rest += recorded.read()
            *lines, rest = rest.split(b"\n")
            for line in lines:
                stamp, _, text = line.partition(b" ")
                if text.startswith(b'{"tickwire"'):
                    own = json.loads(text)
                    if own["tickwire"] != "snapshot":
                        continue
                    stream = own["instrument"].lower() + "@depthSnapshot"
                    text = json.dumps({"stream": stream, "data": own["body"]}).encode()
                out.write(b"%d %s\n" % (int(stamp) // 1000, text))
            await asyncio.sleep(0.01)


async def test_a_growing_capture_of_another_recorder_in_microseconds_is_continued(tmp_path: Path) -> None:
    target = tmp_path / "feed.log"
    async with stage(tmp_path, features={"clock": "recv"}) as s, s.running(record_dir=s.run) as a:
        await a.more_rows(100)
        writer = asyncio.create_task(write_as_another(s.capture, target))
        await a.more_rows(50)
        async with s.running(warm=[target], record_dir=tmp_path / "b") as b:
            said = await b.joined()
            assert said.pop(str(target)) == "receive stamps are microseconds"
            assert len(said) == 2, said
            assert all(text.startswith("continues") for text in said.values()), said
            await b.more_rows(50)
            seen = b.rows()
            assert (np.abs(seen["ts_recv"] - seen["ts_event"]) < 3600 * 10**9).all()
        writer.cancel()
    await agrees_with_its_replay(tmp_path / "b", len(b.rows()))


async def test_a_warm_capture_whose_messages_stand_twice_gives_the_windows_of_one(tmp_path: Path) -> None:
    """As of two connections in one file: what both processes made of the same events is the same."""
    target = tmp_path / "feed.log"
    async with stage(tmp_path) as s, s.running(record_dir=s.run) as a:
        await a.more_rows(100)

        async def write() -> None:
            with s.capture.open("rb") as source, target.open("ab", buffering=0) as out:
                while True:
                    while line := source.readline():
                        own = b'"tickwire"' in line
                        out.write(line if own else line * 2)
                    await asyncio.sleep(0.01)

        writer = asyncio.create_task(write())
        await a.more_rows(50)
        async with s.running(warm=[target], record_dir=tmp_path / "b") as b:
            said = await b.joined()
            assert all(text.startswith("continues") for text in said.values()), said
            await b.more_rows(100)
            # All stand twice, but for the snapshots and for what a book took only after its snapshot.
            assert 0.99 < 2 * b.count("warm_repeats") / b.count("warm_messages") <= 1
            assert b.count("warm_repeats") > 50
            for symbol in (BTC, ETH):
                last = b.rows(symbol)["row"][-1]
                await a.until(lambda last=last, symbol=symbol: a.rows(symbol)["row"][-1] > last)
                assert same_rows(a.rows(symbol), b.rows(symbol)) > 50
        writer.cancel()
    await agrees_with_its_replay(tmp_path / "b", len(b.rows()))


@pytest.mark.parametrize("kind", ["depthUpdate", "trade"])
async def test_only_the_instrument_whose_events_are_missing_starts_cold(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "feed.log"
    async with stage(tmp_path) as s, s.running(record_dir=s.run) as a:
        await a.more_rows(200)
        lost_from = len(s.capture.read_bytes().splitlines())

        def keep(message: dict[str, Any], number: int) -> bool:
            return number < lost_from or (message.get("e"), message.get("s")) != (kind, ETH)

        async with recorder(s.capture, target, keep):
            await a.more_rows(50)
            async with s.running(warm={"main": [target]}, record_dir=tmp_path / "b") as b:
                said = await b.joined()
                assert said[BTC].startswith("continues")
                assert said[ETH].endswith("not contiguous, starts cold")
                assert ("the capture's last trade is" in said[ETH]) == (kind == "trade")
                await b.more_rows(100)
                last = b.rows(BTC)["row"][-1]
                await a.until(lambda: a.rows(BTC)["row"][-1] > last)
                assert b.count("snapshot_requests") == 1
        assert same_rows(a.rows(BTC), b.rows(BTC)) >= 100
        assert set(b.rows(ETH)["epoch"]) == {2}
        assert b.rows(ETH)["row"][0] == 1
    await agrees_with_its_replay(tmp_path / "b", len(b.rows()))


HOUR_NS = 3600 * 10**9


def changed_stamps(kind: str, at: int) -> Callable[[int, int], int]:
    """Receive times as a recorder with a wrong clock writes them, or one that slips once, at a line."""
    if kind == "ahead":
        return lambda stamp, number: stamp + HOUR_NS
    if kind == "behind":
        return lambda stamp, number: stamp - HOUR_NS
    return lambda stamp, number: stamp + (365 * 24 * HOUR_NS if number == at else 0)


@pytest.mark.parametrize("kind", ["ahead", "behind", "one line"])
async def test_windows_do_not_go_by_a_clock_that_is_not_ours(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "feed.log"
    async with stage(tmp_path, features={"clock": "recv"}) as s, s.running(record_dir=s.run) as a:
        await a.more_rows(200)
        lines = s.capture.read_bytes().splitlines()
        at = max(n for n, line in enumerate(lines, 1) if b'"depthUpdate"' in line and b'"ETHUSDT"' in line)
        async with recorder(s.capture, target, lambda message, number: True, stamps=changed_stamps(kind, at)):
            await a.more_rows(50)
            async with s.running(warm=[target], record_dir=tmp_path / "b") as b:
                said = await b.joined()
                for text in said.values():
                    if kind == "one line":
                        # What was before it and what is behind it are not gone by together.
                        assert re.fullmatch(
                            r"continues the capture at id .*, in epoch 2 after row [\d,]+", text
                        ), said
                        continue
                    way = "behind" if kind == "behind" else "ahead of"
                    assert re.fullmatch(
                        rf"the capture's clock is 3,(600|599|601)\.\d{{3}} s {way} ours, starts cold", text
                    ), said
                await b.more_rows(50)
                for symbol in (BTC, ETH):
                    assert set(b.rows(symbol)["epoch"]) == {2}
                    assert b.rows(symbol)["row"][0] == 1 or kind == "one line"
    await agrees_with_its_replay(tmp_path / "b", len(b.rows()))


async def test_a_clock_that_decides_nothing_may_be_wrong(tmp_path: Path) -> None:
    target = tmp_path / "feed.log"
    async with stage(tmp_path) as s, s.running(record_dir=s.run) as a:
        await a.more_rows(100)
        async with recorder(
            s.capture, target, lambda message, number: True, stamps=changed_stamps("ahead", 0)
        ):
            await a.more_rows(50)
            async with s.running(warm=[target]) as b:
                said = await b.joined()
                assert all(text.startswith("continues") for text in said.values()), said


@pytest.mark.parametrize("epoch_behind_it", [False, True])
async def test_trades_missing_within_a_capture_count_until_an_epoch_begins(
    tmp_path: Path, epoch_behind_it: bool
) -> None:
    target = tmp_path / "feed.log"
    async with stage(tmp_path) as s, s.running(record_dir=s.run) as a:
        await a.more_rows(300)
        trades = [
            (number, message["t"])
            for number, line in enumerate(s.capture.read_bytes().splitlines(), 1)
            if (message := json.loads(line.partition(b" ")[2])).get("e") == "trade" and message["s"] == ETH
        ]
        lost = dict(trades[-20:-17])
        # Behind the next trade, which shows what is missing.
        add = (
            [(trades[-15][0], b'{"tickwire":"stale","conn":0,"instrument":"ETHUSDT"}')]
            if epoch_behind_it
            else []
        )
        async with recorder(s.capture, target, lambda message, number: number not in lost, add=add):
            await a.more_rows(50)
            async with s.running(warm=[target], record_dir=tmp_path / "b") as b:
                said = await b.joined()
                assert said[BTC].startswith("continues"), said
                ids = sorted(lost.values())
                assert ids == list(range(ids[0], ids[0] + 3))
                if epoch_behind_it:
                    assert said[ETH].startswith("continues"), said
                    assert "in epoch 2" in said[ETH]
                else:
                    assert said[ETH] == (
                        f"the capture lacks trades {ids[0]:,} to {ids[-1]:,}; not contiguous, starts cold"
                    )
                await b.more_rows(50)
    await agrees_with_its_replay(tmp_path / "b", len(b.rows()))


async def test_a_run_that_began_with_another_one_is_not_read_twice(tmp_path: Path) -> None:
    async with stage(tmp_path) as s, s.running(record_dir=s.run) as a:
        await a.more_rows(200)
        async with s.running(warm=[s.run], record_dir=tmp_path / "b") as b:
            await b.joined()
            await b.more_rows(50)
            async with s.running(warm=[s.run, tmp_path / "b"], record_dir=tmp_path / "c") as c:
                said = await c.joined()
                assert all("in epoch 1 after row" in text for text in said.values()), said
                await c.more_rows(100)
                last = {symbol: c.rows(symbol)["row"][-1] for symbol in (BTC, ETH)}
                await a.until(lambda: all(a.rows(s)["row"][-1] > n for s, n in last.items()))
        for symbol in (BTC, ETH):
            assert same_rows(a.rows(symbol), c.rows(symbol)) >= 100
    await agrees_with_its_replay(tmp_path / "c", len(c.rows()))


async def test_why_there_is_no_book_to_continue_is_said(tmp_path: Path) -> None:
    async with stage(tmp_path) as s, s.running(record_dir=s.run) as a:
        await a.more_rows(50)
        lines = s.capture.read_bytes().splitlines(keepends=True)
        close = b'%d {"tickwire":"close","conn":0}\n' % int(lines[-1].split()[0])
        ends = {
            "never names it": [line for line in lines if b"BTC" not in line],
            "has no snapshot of its book": [line for line in lines if b'"snapshot"' not in line],
            "ends with its connection down": [*lines, close],
            "ends while its book is suspect and waits for a snapshot": [
                line
                for number, line in enumerate(lines)
                if number < len(lines) - 100 or number > len(lines) - 50 or b"depthUpdate" not in line
            ],
        }
        for number, (expected, kept) in enumerate(ends.items()):
            path = tmp_path / f"{number}.log"
            path.write_bytes(b"".join(kept))
            async with s.running(warm=[path]) as b:
                said = await b.joined()
                assert said[BTC].startswith(f"the capture {expected}"), said
                assert said[BTC].endswith(", starts cold")


async def test_a_feed_that_cannot_be_reached_is_said_once(tmp_path: Path) -> None:
    async with stage(tmp_path) as s, s.running(record_dir=s.run) as a:
        await a.more_rows(20)
    async with Pipeline(s.config, warm=[s.run]) as pipeline:
        b = Watched(pipeline)
        await b.until(lambda: len(pipeline.warm_report) > 0)
        assert pipeline.warm_report == ["warm: main: waits for the feed"]
        assert pipeline.warming_up


async def test_trades_that_no_row_needs_may_be_missing(tmp_path: Path) -> None:
    target = tmp_path / "feed.log"
    features = {"rows": ['ofi(levels=5, window="300ms")']}
    async with stage(tmp_path, features=features) as s, s.running(record_dir=s.run) as a:
        await a.more_rows(100)
        async with recorder(s.capture, target, lambda message, number: message.get("e") != "trade"):
            await a.more_rows(50)
            async with s.running(warm=[target]) as b:
                said = await b.joined()
                assert all(text.startswith("continues") for text in said.values()), said
                await b.more_rows(50)
                last = b.rows(BTC)["row"][-1]
                await a.until(lambda: a.rows(BTC)["row"][-1] > last)
        # A trade before the first row says what time it is, too: where it is missing, windows may begin a
        # little earlier, and rows with them.
        assert same_rows(a.rows(BTC), b.rows(BTC), numbers=False) >= 50


async def test_ids_far_ahead_of_the_feed_are_another_count(tmp_path: Path) -> None:
    ahead = tmp_path / "ahead.log"
    async with stage(tmp_path) as s, s.running(record_dir=s.run) as a:
        await a.more_rows(50)
        lines = []
        for line in s.capture.read_text().splitlines():
            stamp, _, text = line.partition(" ")
            message = json.loads(text)
            body = message.get("body", message)
            for key in ("U", "u", "lastUpdateId"):
                if key in body:
                    body[key] += 10**12
            lines.append(f"{stamp} {json.dumps(message, separators=(',', ':'))}")
        ahead.write_text("\n".join(lines) + "\n")
        async with s.running(warm=[ahead]) as b:
            said = await b.joined()
            assert all(text.endswith("not contiguous, starts cold") for text in said.values()), said
            await b.more_rows(20)
            assert set(b.rows()["epoch"]) == {2}


async def test_the_recorded_run_replays_to_its_own_rows_alone(tmp_path: Path) -> None:
    # On our own clock, which is also not the first process's.
    async with stage(tmp_path, features={"clock": "recv"}) as s, s.running(record_dir=s.run) as a:
        await a.more_rows(100)
        async with s.running(warm=[s.run], record_dir=tmp_path / "b") as b:
            await b.joined()
            await b.more_rows(50)
    await agrees_with_its_replay(tmp_path / "b", len(b.rows()))
    files = sorted(map(str, (tmp_path / "b" / "capture" / "main").iterdir()))
    stats = await replay(s.config, {"main": files})
    assert stats.rows == len(b.rows())
    lines = (tmp_path / "b" / "capture" / "main" / "000001.log").read_text().splitlines()
    kinds = [json.loads(line.partition(" ")[2]).get("tickwire") for line in lines]
    assert kinds[0] == "warm"
    assert kinds.count("live") == 1
    assert "cold" not in kinds


@pytest.mark.parametrize("kind", ["reset", "close", "restart"])
@pytest.mark.parametrize("count", [1, 2])
async def test_connections_that_are_lost_while_it_joins_cost_rows_but_no_truth(
    tmp_path: Path, kind: str, count: int
) -> None:
    # The first hits the writer of the capture, the second whichever of the two speaks next.
    faults = Faults()
    async with stage(tmp_path, faults=faults) as s, s.running(record_dir=s.run) as a:
        await a.more_rows(200)
        async with s.running(warm=[s.run], record_dir=tmp_path / "b") as b:
            faults.arm(kind, count=count)
            said = await b.joined()
            await b.until(lambda: faults.counts[kind] == count)
            await b.more_rows(100)
            await a.more_rows(100)
    assert set(said) == {BTC, ETH}
    for symbol, text in said.items():
        continued = re.fullmatch(r"continues the capture at id \S+, in epoch (\d+) after row (\S+)", text)
        assert continued or text.endswith("starts cold"), said
        if continued:
            epoch, row = int(continued[1]), int(continued[2].replace(",", ""))
            mine, theirs = (x.rows(symbol)[x.rows(symbol)["epoch"] == epoch] for x in (b, a))
            assert len(mine) == 0 or mine["row"][0] <= row + 1
            same_rows(theirs, mine)
    await agrees_with_its_replay(s.run, len(a.rows()))
    await agrees_with_its_replay(tmp_path / "b", len(b.rows()))


async def test_a_recorder_that_begins_its_next_file_is_followed(tmp_path: Path) -> None:
    first, second = tmp_path / "000001.log", tmp_path / "000002.log"
    async with stage(tmp_path) as s, s.running(record_dir=s.run) as a:
        await a.more_rows(200)
        at = len(s.capture.read_bytes().splitlines())
        await a.more_rows(50)
        first.write_bytes(b"".join(s.capture.read_bytes().splitlines(keepends=True)[:at]))
        async with (
            recorder(s.capture, second, lambda message, number: number > at),
            s.running(warm=[first], record_dir=tmp_path / "b") as b,
        ):
            said = await b.joined()
            assert all(text.startswith("continues") for text in said.values()), said
            await b.more_rows(100)
            last = {symbol: b.rows(symbol)["row"][-1] for symbol in (BTC, ETH)}
            await a.until(lambda: all(a.rows(s)["row"][-1] > n for s, n in last.items()))
        for symbol in (BTC, ETH):
            assert same_rows(a.rows(symbol), b.rows(symbol)) >= 100
    await agrees_with_its_replay(tmp_path / "b", len(b.rows()))


async def test_two_feeds_begin_warm(tmp_path: Path) -> None:
    markets = ("spot", "usdm")
    sources = [SyntheticMarket(market, rate=500.0, seed=9) for market in markets]
    async with Venue(sources, at_end="idle") as venue:
        feeds = [config_of(venue, name, {}).feeds[0].model_dump() | {"name": name} for name in markets]
        config = Config.from_dict(
            {"feeds": feeds, "features": {"rows": ["imbalance(levels=5)"], "clock": "event"}}
        )
        async with Pipeline(config, record_dir=tmp_path / "a") as one:
            a = Watched(one)
            await a.until(lambda: len(a.rows()) > 400)
            async with Pipeline(config, warm=[tmp_path / "a"], record_dir=tmp_path / "b") as two:
                b = Watched(two)
                await b.until(lambda: not two.warming_up)
                said = sorted(two.warm_report)
                assert [line.split()[1] for line in said] == list(markets)
                assert all("continues the capture at id" in line for line in said), said
                await b.until(lambda: {0, 1} <= set(b.rows()["instrument"]) and len(b.rows()) > 200)
                count = len(a.rows()) + 400
                await a.until(lambda: len(a.rows()) > count)
    for instrument in (0, 1):
        theirs, mine = (x.rows()[x.rows()["instrument"] == instrument] for x in (a, b))
        assert mine["row"][0] > 1
        assert same_rows(theirs, mine) > 50
    await agrees_with_its_replay(tmp_path / "b", len(b.rows()))


async def test_one_feed_may_begin_warm_and_another_cold(tmp_path: Path) -> None:
    markets = ("spot", "usdm")
    sources = [SyntheticMarket(market, rate=500.0, seed=9) for market in markets]
    async with Venue(sources, at_end="idle") as venue:
        both, one = (
            Config.from_dict(
                {
                    "feeds": [
                        feed.model_dump() | {"name": market}
                        for market in names
                        for feed in config_of(venue, market, {}).feeds
                    ],
                    "features": {"rows": ["imbalance(levels=5)"], "clock": "event"},
                }
            )
            for names in (markets, ("spot",))
        )
        with pytest.raises(
            ConfigError, match=r"expected feed=FILE with a feed of spot, usdm, or a run folder"
        ):
            Pipeline(both, warm=[tmp_path / "some.log"])
        async with Pipeline(one, record_dir=tmp_path / "a") as pipeline:
            a = Watched(pipeline)
            await a.more_rows(100, BTC)
            async with Pipeline(both, warm=[tmp_path / "a"], record_dir=tmp_path / "b") as pipeline:
                b = Watched(pipeline)
                await b.until(lambda: len(b.pipeline.warm_report) == 1)
                assert b.pipeline.warm_report[0].startswith("warm: spot BTCUSDT: continues the capture at id")
                await b.until(lambda: set(b.rows()["instrument"]) == {0, 1})
                await b.more_rows(50, BTC)
    firsts = {int(row["instrument"]): int(row["row"]) for row in reversed(b.rows())}
    assert firsts[0] > 100
    assert firsts[1] == 1
    await agrees_with_its_replay(tmp_path / "b", len(b.rows()))


async def test_a_stop_before_the_feed_is_reached_is_an_ordinary_stop(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        async with s.running(record_dir=s.run) as a:
            await a.more_rows(20)
        async with s.running(warm=[s.run], record_dir=tmp_path / "b") as b:
            await b.until(lambda: b.count("connects") == 1)
        assert not len(b.records)
        assert b.pipeline.warm_report == ["warm: main: the run ended before its feed was reached"]
    with pytest.raises(VerifyError, match="nothing to compare"):
        await verify(tmp_path / "b")


async def test_what_cannot_be_a_capture_of_the_feed_is_refused_before_the_start(tmp_path: Path) -> None:
    async with stage(tmp_path) as s:
        async with s.running(record_dir=s.run) as a:
            await a.more_rows(20)
        text = s.capture.read_text()

        async def refused(
            warm: Any, error: type[Exception], expected: str, config: Config = s.config
        ) -> None:
            with pytest.raises(error, match=expected):
                async with Pipeline(config, warm=warm, record_dir=tmp_path / "no"):
                    pass
            assert not (tmp_path / "no").exists()

        empty, other, noise = (tmp_path / name for name in ("empty.log", "other.log", "noise.log"))
        empty.write_text("")
        other.write_text(text.replace("BTC", "DOGE").replace("ETH", "XRP"))
        noise.write_text("nothing\nof ours\n")
        (tmp_path / "folder").mkdir()
        await refused([tmp_path / "none.log"], ConfigError, "--warm: .*none.log: no such file")
        await refused([empty], ConfigError, "expected a capture, found an empty file")
        await refused([tmp_path / "folder"], ConfigError, "found no run.json of a run in it")
        await refused({"else": [other]}, ConfigError, "no feed is named 'else'; feeds: main")
        wanted = "expected book changes of the instruments of the feed main, found"
        await refused(
            [other], SetupError, rf"other.log: {wanted} none in \S+ messages; \S+ are of other instr"
        )
        await refused([noise], SetupError, rf"noise.log: {wanted} no message")
        # One good file of several does not vouch for the others.
        await refused([s.capture, other], SetupError, rf"other.log: {wanted} none")
        await refused([noise, s.capture], SetupError, rf"noise.log: {wanted} no message")
        feed = json.loads(json.dumps(s.config.model_dump()["feeds"][0])) | {"venue": "binance_usdm"}
        futures = Config.from_dict(
            {"feeds": [feed | {"depth_interval": ""}], "features": {"rows": ["spread()"]}}
        )
        await refused(
            [s.capture], SetupError, "expected a futures market's messages, found the spot market's", futures
        )
        # The same symbols, as spot and USD-M have them.
        async with stage(tmp_path / "usdm", "usdm") as u, u.running(record_dir=u.run) as a:
            await a.more_rows(20)
        await refused(
            [u.capture], SetupError, "expected the spot market's messages, found a futures market's"
        )
        files = one_feed(instruments=[BTC], feed={"source": "file"})
        await refused([s.capture], ConfigError, 'expected "websocket" for a live run', files)


def test_multicast_begins_with_what_the_venue_says(tmp_path: Path) -> None:
    itch = {
        "venue": "nasdaq_itch",
        "instruments": ["AAPL"],
        "multicast": {"lines": ["233.1.1.1:7"]},
    }
    spot = {"name": "spot", "venue": "binance_spot", "instruments": [BTC]}
    features = {"rows": ["spread()"]}
    alone = Config.from_dict({"feeds": [itch], "features": features})
    both = Config.from_dict({"feeds": [itch, spot], "features": features})
    for config, warm in ((alone, [tmp_path]), (both, ["nasdaq_itch=000001.pcap"]), (alone, ["000001.pcap"])):
        with pytest.raises(
            ConfigError, match="--warm: nasdaq_itch: expected a feed that can begin warm, and mu"
        ):
            Pipeline(config, warm=warm)
    (tmp_path / "run.json").write_text('{"feeds": ["nasdaq_itch", "spot"]}')
    for feed, name in (("nasdaq_itch", "000001.pcap"), ("spot", "000001.log")):
        (tmp_path / "capture" / feed).mkdir(parents=True)
        (tmp_path / "capture" / feed / name).write_text("something")
    assert assign_warm(both, [tmp_path]) == {"spot": [str(tmp_path / "capture" / "spot" / "000001.log")]}
