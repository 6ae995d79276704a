"""No valid row looks at a level that nobody has told of: what that costs and says, snapshots that cannot be
believed, and the recorded days with shorter snapshots than they had, against an independent book."""

from __future__ import annotations

import gzip
import json
import math
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest
from collecting import Collector
from configuring import one_feed
from market_of_levels import Market, imbalance, line, own_snapshot, rows_in, spread, written
from needs import compiled
from twin import Book, exact

from tickwire.config import Config
from tickwire.findings import findings
from tickwire.pipeline import Pipeline
from tickwire.replay import replay
from tickwire.stats import Stats

pytestmark = compiled


def config(
    venue: str,
    levels: int,
    *,
    symbol: str = "BTCUSDT",
    trigger: str = "book",
    beyond: str = "suspect",
    max_levels: int = 16384,
    limit: int = 1000,
) -> Config:
    return one_feed(
        venue,
        [symbol],
        [f"imbalance(levels={levels})", "spread()"],
        feed={"source": "file", "max_levels": max_levels, "snapshot_limit": limit},
        features={"trigger": trigger, "beyond_depth": beyond},
        engine={"layout": "inline"},
    )


async def run(settings: Config, path: Path) -> tuple[list[dict[str, str]], Stats]:
    out = path.with_suffix(".csv")
    stats = await replay(settings, {settings.feed_names[0]: [str(path)]}, out)
    return rows_in(out), stats


def wrong(row: dict[str, str], market: Market, levels: int) -> bool:
    truth = market.at[int(row["ts_recv"])]
    return not (
        float(row["spread()"]) == pytest.approx(spread(truth), rel=1e-6)
        and float(row[f"imbalance(levels={levels})"])
        == pytest.approx(imbalance(truth, levels), rel=1e-6, abs=1e-7)
    )


async def test_what_it_costs_is_counted_and_the_switch_named(tmp_path: Path) -> None:
    market = Market(False, seed=11, drift=-1)
    lines = [market.told(), line(market.now, market.snapshot(10))]
    lines += [market.told() for _ in range(200)]
    path = written(tmp_path / "c.log", lines)
    settings = config("binance_spot", 2)
    rows, stats = await run(settings, path)
    assert not any(wrong(row, market, 2) for row in rows)
    cost = stats.count("rows_beyond_depth")
    assert cost > 100
    (said,) = [text for text in findings(stats, settings) if "rows did not leave" in text]
    assert said.startswith(f"note: {cost:,} ")
    assert "snapshot_limit" in said
    assert 'features.beyond_depth = "accept"' in said

    taken = config("binance_spot", 2, beyond="accept")
    all_rows, stats = await run(taken, path)
    assert stats.count("rows_beyond_depth") > 100
    assert sum(wrong(row, market, 2) for row in all_rows) > 10
    assert any("rows looked at levels that no snapshot showed" in text for text in findings(stats, taken))
    # The second epoch of the strict run costs its first event.
    assert len(all_rows) >= len(rows) + cost


@pytest.mark.parametrize("futures", [False, True], ids=["spot", "futures"])
async def test_one_stamp_from_the_future_hides_no_new_count_of_ids(tmp_path: Path, futures: bool) -> None:
    market = Market(futures, seed=12)
    lines = [market.told(), line(market.now, market.snapshot(1000))]
    lines += [market.told() for _ in range(20)]
    lines.append(market.told(E=4_102_444_800_000))
    lines += [market.told() for _ in range(20)]
    until = market.now
    market.renumber(5)
    for i in range(60):
        lines.append(market.told())
        if i == 30:
            lines.append(line(market.now, market.snapshot(1000)))
        lines.append(trade(market, i))
    path = written(tmp_path / "c.log", lines)
    venue = "binance_usdm" if futures else "binance_spot"
    settings = config(venue, 2, trigger="trade")
    rows, stats = await run(settings, path)
    assert not any(wrong(row, market, 2) for row in rows)
    assert len(rows) > 20
    assert min(int(row["ts_recv"]) for row in rows) > until
    assert stats.count("ids_went_back") == 1
    assert any("the venue may count anew" in text for text in findings(stats, settings))


def trade(market: Market, number: int) -> str:
    data = {"e": "trade", "E": market.stamp_ms, "s": market.symbol, "t": 1 + number, "p": "1000.00", "q": "1"}
    return line(market.now, data | {"X": "MARKET", "m": False})


@pytest.mark.parametrize(
    ("spoil", "counter"),
    [
        (lambda body: body | {"bids": [], "asks": []}, "snapshots_empty"),
        (lambda body: body | {"asks": []}, "snapshots_one_sided"),
        (lambda body: body | {"bids": body["asks"], "asks": body["bids"]}, "snapshots_unsorted"),
        (lambda body: body | {"bids": [["2000.00", "1"], *body["bids"][1:]]}, "snapshots_crossed"),
        (lambda body: body | {"bids": body["bids"][::-1]}, "snapshots_unsorted"),
        (lambda body: body | {"bids": [body["bids"][0], *body["bids"][:-1]]}, "snapshots_duplicate"),
        (lambda body: body, "snapshots_too_long"),
    ],
    ids=["empty", "one side", "sides exchanged", "crossed", "unsorted", "a price twice", "too long"],
)
async def test_an_absurd_snapshot_is_refused_and_the_next_one_taken(
    tmp_path: Path, spoil: Any, counter: str
) -> None:
    market = Market(True, seed=13)
    lines = [market.told()]
    told = 10 if counter == "snapshots_too_long" else 20
    lines.append(own_snapshot(market.now, market.symbol, spoil(market.snapshot(20)), told))
    lines += [market.told() for _ in range(10)]
    begun = market.now
    lines.append(own_snapshot(market.now, market.symbol, market.snapshot(20), 20))
    lines += [market.told() for _ in range(20)]
    settings = config("binance_usdm", 2)
    rows, stats = await run(settings, written(tmp_path / "c.log", lines))
    assert stats.count(counter) == 1
    assert stats.count("snapshots_refused") == 1
    assert min(int(row["ts_recv"]) for row in rows) > begun
    assert len(rows) >= 15
    assert not any(wrong(row, market, 2) for row in rows)


# ---- recorded days with shorter snapshots than they had ----

DAYS = {
    "spot": ("binance_spot", "BTCUSDT", ["spot_btcusdt_20240808", "spot_btcusdt_20240809"]),
    "usdm": ("binance_usdm", "BTCUSDT", ["usdm_btcusdt_20240808"]),
    "coinm": ("binance_coinm", "BTCUSD_PERP", ["coinm_btcusd_perp_20240808", "coinm_btcusd_perp_20240809"]),
}
LEVELS = {10: 1, 50: 5, 100: 10, 1000: 10}
"""Of a snapshot, and how many of them a row looks at."""
REACHES = sorted(set(LEVELS.values()))


@dataclass
class Day:
    """A recording, with what the venue's book was after each event as far as it showed it."""

    lines: list[str] = field(default_factory=list)  # Changes, and the snapshot.
    ids: list[int] = field(default_factory=list)
    rows: dict[int, list[tuple[float, float]]] = field(default_factory=lambda: {n: [] for n in REACHES})
    """By how many levels a row looks at, its imbalance and spread; NaN where nobody knows."""
    off_the_ticker: int = 0  # Events after which the venue's ticker of best prices said something else.


def recorded(sources: list[Path]) -> Day:
    day = Day()
    book = Book()
    tops: list[tuple[tuple[int, int], ...] | None] = []
    waiting: list[dict[str, Any]] | None = []
    ticks: dict[int, tuple[str, ...]] = {}
    for source in sources:
        with gzip.open(source, "rt") as file:
            for text in file:
                message = json.loads(text.partition(" ")[2])
                data = message.get("data", message)
                if "lastUpdateId" in data:
                    assert waiting is not None
                    book.load(data["bids"], data["asks"], None)
                    events = [event for event in waiting if event["u"] > data["lastUpdateId"]]
                    waiting = None
                elif data.get("e") == "depthUpdate":
                    events = [data]
                    if waiting is not None:
                        waiting.append(data)
                        events = []
                else:
                    if "A" in data and "u" in data:
                        ticks[data["u"]] = tuple(data[name] for name in "bBaA")
                    continue
                day.lines.append(text)
                for event in events:
                    book.set(event["b"], event["a"])
                    day.ids.append(event["u"])
                    tops.append(book.top(1) if book.knows(1) else None)
                    for n, rows in day.rows.items():
                        rows.append(row_of(book.top(n)) if book.knows(n) else (math.nan, math.nan))
    told = sorted(ticks)
    for last_id, top in zip(day.ids, tops, strict=True):
        at = bisect_right(told, last_id)
        if at > 0 and top is not None:
            day.off_the_ticker += tuple(map(exact, ticks[told[at - 1]])) != (*top[0], *top[1])
    return day


def row_of(top: tuple[tuple[int, int], ...]) -> tuple[float, float]:
    half = len(top) // 2
    bid, ask = top[0][0], top[half][0]
    bids, asks = (sum(qty for _, qty in side) for side in (top[:half], top[half:]))
    return (bids - asks) / (bids + asks), 2e4 * (ask - bid) / (ask + bid)


async def rows_of(settings: Config, path: Path) -> tuple[Any, Stats]:
    """The records of a replay, without those that are news."""
    async with Pipeline.replay(settings, [path]) as pipeline:
        collector = Collector(pipeline)
        await pipeline.run_until()
    return collector.rows, pipeline.stats()


def with_snapshots_of(day: Day, path: Path, levels: int) -> Path:
    with path.open("w") as out:
        for text in day.lines:
            stamp, _, message = text.partition(" ")
            if '"lastUpdateId"' in message:
                body = json.loads(message)
                body["bids"], body["asks"] = body["bids"][:levels], body["asks"][:levels]
                text = f"{stamp} {json.dumps(body)}\n"
            out.write(text)
    return path


@pytest.mark.parametrize("name", DAYS)
async def test_recorded_days_with_shorter_snapshots(tmp_path: Path, name: str) -> None:
    venue, symbol, names = DAYS[name]
    sources = needs.recorded(*(f"binance/{file}.log.gz" for file in names))
    day = recorded(sources)
    # Of two events of the spot days the venue sent no ticker.
    assert day.off_the_ticker <= (2 if name == "spot" else 0)
    for limit, levels in LEVELS.items():
        path = with_snapshots_of(day, tmp_path / f"{limit}.log", limit)
        truth = np.array(day.rows[levels])

        def judged(rows: Any, truth: Any = truth) -> tuple[int, int]:
            """How many are wrong, and of how many nobody knows."""
            right = truth[np.searchsorted(day.ids, rows["sequence"].astype(np.int64))]
            unknown = np.isnan(right[:, 0])
            same = np.isclose(rows["features"], right, rtol=1e-6, atol=1e-7).all(axis=1)
            return int((~same & ~unknown).sum()), int(unknown.sum())

        rows, stats = await rows_of(config(venue, levels, symbol=symbol), path)
        taken, more = await rows_of(config(venue, levels, symbol=symbol, beyond="accept"), path)
        off, unknown = judged(taken)
        beyond = stats.count("rows_beyond_depth")
        print(
            f"{name}: snapshot of {limit}, rows of {levels} levels, {len(day.ids)} events: {len(rows)} valid "
            f"rows, {judged(rows)[0]} wrong, {beyond} did not leave; accept: {len(taken)} rows, {off} wrong, "
            f"{unknown} of which nobody knows"
        )
        # Nor is one valid that looks behind what 1,000 levels showed.
        assert judged(rows) == (0, 0)
        assert off <= more.count("rows_beyond_depth") == beyond
        # The event that begins another epoch gives no row.
        assert len(rows) + beyond + stats.count("became_valid") - 1 == len(taken)
