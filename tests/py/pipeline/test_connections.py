"""Connections that come and go: split, replaced before they end, lost, silent. Every run is recorded and
must replay to the same bits."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collecting import Collector
from configuring import at_venue
from needs import compiled
from waiting import until

from tickwire.config import Config
from tickwire.pipeline import Pipeline
from tickwire.sim import Faults, SyntheticMarket, Venue
from tickwire.stats import Stats
from tickwire.verify import verify

pytestmark = compiled

ROWS = ("imbalance(levels=5)", "spread()", 'trade_flow(window="200ms")')


class Run(Collector):
    """A recorded pipeline at a venue of ours, and what left it."""

    def __init__(self, venue: Venue, pipeline: Pipeline, market: str, folder: Path) -> None:
        super().__init__(pipeline)
        self.venue, self.market, self.folder = venue, market, folder

    def reasons(self) -> list[str]:
        notices = self.records[self.records["row"] == 0]
        return [self.pipeline.layout.reason(int(code)) for code in notices["reason"]]

    def count(self, name: str) -> int:
        return self.stats.counters[f"binance_{self.market}/{name}"]

    @property
    def stats(self) -> Stats:
        return self.pipeline.stats()

    def epochs(self) -> dict[int, int]:
        """By instrument, the newest epoch that has a row."""
        newest: dict[int, int] = {}
        for row in self.rows:
            newest[int(row["instrument"])] = int(row["epoch"])
        return newest

    async def until(self, condition: Any) -> None:
        await until(condition, look=self.pipeline.raise_if_failed)

    async def all_in_epoch(self, epoch: int, instruments: int = 2) -> None:
        await self.until(lambda: len(self.epochs()) == instruments and min(self.epochs().values()) >= epoch)

    def capture(self) -> list[tuple[int, dict[str, Any]]]:
        (folder,) = (self.folder / "capture").iterdir()
        lines: list[tuple[int, dict[str, Any]]] = []
        for file in sorted(folder.iterdir()):
            for line in file.read_text().splitlines():
                stamp, _, message = line.partition(" ")
                with contextlib.suppress(ValueError):  # Cut in the middle by a fault.
                    lines.append((int(stamp), json.loads(message)))
        return lines


def feed_of(venue: Venue, market: str, **options: Any) -> dict[str, Any]:
    hasty = {"snapshot_backoff": "20ms", "reconnect_min": "20ms", "reconnect_max": "100ms"}
    return at_venue(venue, market, **hasty | options)


@asynccontextmanager
async def running(
    tmp_path: Path,
    market: str = "usdm",
    *,
    faults: Faults | None = None,
    split: bool = False,
    rate: float = 1500.0,
    instruments: int = 2,
    trigger: str = "book",
    **options: Any,
) -> AsyncIterator[Run]:
    source = SyntheticMarket(market, instruments=instruments, rate=rate, seed=5)
    async with Venue([source], faults=faults) as venue:
        if split:
            base = venue.ws_url[market].removesuffix("/ws")
            options |= {"url": f"{base}/public/ws", "trades_url": f"{base}/market/ws"}
        config = Config.from_dict(
            {
                "feeds": [feed_of(venue, market, **options)],
                "features": {"trigger": trigger, "rows": list(ROWS), "max_age": "0s"},
            }
        )
        folder = tmp_path / "run"
        async with Pipeline(config, record_dir=folder) as pipeline:
            run = Run(venue, pipeline, market, folder)
            yield run
    if len(run.rows) == 0:
        return  # Nothing to compare.
    result = await verify(folder)
    assert result.same, result.divergence
    assert result.exact
    assert result.rows == len(run.rows)


def trades_of(run: Run) -> dict[str, list[int]]:
    """Trade ids by symbol, as they were processed."""
    ids: dict[str, list[int]] = {}
    for _, message in run.capture():
        if message.get("e") == "trade":
            ids.setdefault(message["s"], []).append(message["t"])
    return ids


async def test_a_split_endpoint_is_one_feed(tmp_path: Path) -> None:
    async with running(tmp_path, split=True) as run:
        await run.until(lambda: len(run.rows) > 500)
        assert run.venue.counters["connections"] == 2
    assert run.count("trades") > 100
    assert np.abs(run.rows["features"][:, 2]).max() > 0
    assert run.reasons().count("disconnected") == 0
    opened = [(m["tickwire"], m["conn"]) for _, m in run.capture() if m.get("tickwire") in ("open", "close")]
    # No book may be valid before the trades come, in a replay neither.
    assert opened[0] == ("close", 1)
    assert sorted(opened[1:]) == [("open", 0), ("open", 1)]


async def test_no_book_is_valid_while_the_trades_are_lost(tmp_path: Path) -> None:
    faults = Faults(1)
    async with running(
        tmp_path, split=True, faults=faults, reconnect_min="400ms", reconnect_max="400ms"
    ) as run:
        await run.until(lambda: len(run.rows) > 200)
        snapshots = run.venue.counters["snapshots"]
        faults.arm("close", stream="trade")
        await run.until(lambda: run.reasons().count("disconnected") == 2)
        await run.all_in_epoch(2)
        # The books were followed meanwhile: no snapshot was needed.
        assert run.venue.counters["snapshots"] == snapshots
        assert run.venue.counters["connections"] == 3
    assert run.count("gaps") == 0
    stamps = [(t, m["tickwire"]) for t, m in run.capture() if m.get("conn") == 1 and "instrument" not in m]
    assert [kind for _, kind in stamps] == ["close", "open", "close", "open"]
    down, up = stamps[2][0], stamps[3][0]
    times = run.rows["ts_recv"]
    assert not ((times > down) & (times < up)).any()


async def test_losing_the_books_connection_costs_the_epoch_and_not_the_trades(tmp_path: Path) -> None:
    faults = Faults(1)
    async with running(tmp_path, split=True, faults=faults) as run:
        await run.until(lambda: len(run.rows) > 200)
        faults.arm("reset", stream="depth")
        await run.all_in_epoch(2)
    assert run.reasons() == ["disconnected"] * 2 + ["stopped"] * 2
    assert [m["conn"] for _, m in run.capture() if m.get("tickwire") == "close"] == [1, 0]


@pytest.mark.parametrize("split", [False, True], ids=["one", "split"])
@pytest.mark.parametrize("market", ["spot", "usdm"])
async def test_an_old_connection_is_replaced_without_a_gap(tmp_path: Path, market: str, split: bool) -> None:
    async with running(tmp_path, market, split=split, max_connection_age="500ms") as run:
        await run.until(lambda: run.count("handovers") >= (8 if split else 4))
    assert run.reasons() == ["stopped"] * 2
    assert set(run.epochs().values()) == {1}
    assert run.count("gaps") == 0
    # Every trade came once: the ids of this venue have no holes.
    trades = trades_of(run)
    assert len(trades) == 2
    for ids in trades.values():
        assert ids == list(range(ids[0], ids[0] + len(ids)))
    # And every diff, from the first row on.
    for symbol in trades:
        diffs = [m for _, m in run.capture() if m.get("e") == "depthUpdate" and m["s"] == symbol]
        for before, after in itertools.pairwise(diffs):
            follows = after["U"] == before["u"] + 1 if market == "spot" else after["pu"] == before["u"]
            assert follows, (before["u"], after)
    lines = [m for _, m in run.capture() if m.get("tickwire") == "open"]
    assert len(lines) == (2 if split else 1)


async def test_a_shutdown_notice_is_met_by_opening_the_replacement_first(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        await run.until(lambda: len(run.rows) > 200)
        run.venue.shut_down("usdm", grace_s=6.0)
        await run.until(lambda: run.count("handovers") == 1)
        before = len(run.rows)
        await asyncio.sleep(6.2)  # The venue has closed the old connection, had it still been there.
        await run.until(lambda: len(run.rows) > before + 100)
        assert run.count("connects") == 2
    assert run.count("shutdown_notices") == 1
    assert run.reasons() == ["stopped"] * 2
    for ids in trades_of(run).values():
        assert ids == list(range(ids[0], ids[0] + len(ids)))


async def test_a_shutdown_without_time_is_a_loss_and_says_so(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        await run.until(lambda: len(run.rows) > 200)
        run.venue.shut_down("usdm", grace_s=0.0)
        await run.all_in_epoch(2)
    assert run.reasons() == ["disconnected"] * 2 + ["stopped"] * 2


async def test_faults_during_hand_overs_never_double_a_trade(tmp_path: Path) -> None:
    rates = {"drop": 0.001, "duplicate": 0.002, "reorder": 0.002, "corrupt": 0.0005, "reset": 0.001}
    faults = Faults(11, rates, streams={"depth"})
    async with running(tmp_path, faults=faults, max_connection_age="300ms") as run:
        await run.until(lambda: run.count("handovers") >= 5 and run.count("disconnects") >= 8)
        faults.disarm()
        epochs = run.epochs()
        await run.until(lambda: len(run.rows) > 500)
        assert epochs
    for ids in trades_of(run).values():
        assert ids == sorted(set(ids))


async def test_a_silent_connection_is_given_up_and_the_log_says_which_signal(tmp_path: Path) -> None:
    faults = Faults(1, stall_s=60.0)
    async with running(tmp_path, faults=faults, liveness_timeout="2s") as run:
        await run.until(lambda: len(run.rows) > 200)
        faults.arm("stall")
        await run.all_in_epoch(2)
        (entry,) = (e for e in run.stats.errors if e.text.startswith("connection_silent"))
        assert entry.count == 1
        assert re.fullmatch(r"connection_silent: ws://127\.0\.0\.1:\d+/usdm/ws", entry.text)
        assert not any(e.text.startswith("data_stale") for e in run.stats.errors)
    assert run.count("connections_silent") == 1
    assert run.reasons()[:2] == ["disconnected"] * 2


async def test_a_quiet_market_is_no_silent_connection(tmp_path: Path) -> None:
    async with running(tmp_path, rate=0.02, liveness_timeout="2s") as run:
        await run.until(lambda: run.count("connects") == 1)
        # Pauses of several seconds are usual here: the pongs alone keep the connection.
        await asyncio.sleep(6)
        assert run.count("connections_silent") == 0
        assert run.venue.counters["connections"] == 1


async def test_a_book_without_news_is_stale_until_the_next_event(tmp_path: Path) -> None:
    # About four changes a second and book: some pauses are longer than 300 ms, most are not.
    async with running(tmp_path, rate=10.0, stale_after="300ms", liveness_timeout="10s") as run:
        await run.until(lambda: run.reasons().count("stale") >= 4)
        await run.until(lambda: len(run.rows) > 10)
        (entry,) = (e for e in run.stats.errors if e.text.startswith("data_stale"))
        assert entry.text in ("data_stale: BTCUSDT", "data_stale: ETHUSDT")
        assert not any(e.text.startswith("connection_silent") for e in run.stats.errors)
        snapshots = run.venue.counters["snapshots"]
    assert snapshots == 2  # The book is whole: staying away does not make it wrong.
    assert run.count("connects") == 1
    assert run.count("data_stale") == run.reasons().count("stale")
    notices = run.records[run.records["row"] == 0]
    assert {run.pipeline.layout.state(int(code)) for code in notices["state"]} <= {"stale", "empty"}
    lines = [m for _, m in run.capture() if m.get("tickwire") == "stale"]
    assert 0 < len(lines) <= run.count("data_stale")
    # Within an epoch no two changes are further apart.
    for instrument in (0, 1):
        rows = run.rows[run.rows["instrument"] == instrument]
        for before, after in itertools.pairwise(rows):
            if before["epoch"] == after["epoch"]:
                assert after["ts_recv"] - before["ts_recv"] <= 300_000_000
