"""What a message is comes from its stream's name: partial books beside changes, instead of them, and without
any name, on spot and futures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from configuring import one_feed
from market_of_levels import Market, imbalance, line, rows_in, spread, written
from needs import compiled

from tickwire.config import Config
from tickwire.findings import findings
from tickwire.replay import replay
from tickwire.stats import Stats

pytestmark = compiled

LEVELS = 3


def config(venue: str, *symbols: str, trigger: str = "book") -> Config:
    return one_feed(
        venue,
        symbols or ("BTCUSDT",),
        (f"imbalance(levels={LEVELS})", "spread()"),
        feed={"source": "file"},
        features={"trigger": trigger},
        engine={"layout": "inline"},
    )


async def run(settings: Config, path: Path, lines: list[str]) -> tuple[list[dict[str, str]], Stats]:
    out = path.with_suffix(".csv")
    stats = await replay(settings, {settings.feed_names[0]: [str(written(path, lines))]}, out)
    return rows_in(out), stats


def check(rows: list[dict[str, str]], market: Market) -> None:
    for row in rows:
        truth = market.truth[int(row["sequence"])]
        assert float(row["spread()"]) == pytest.approx(spread(truth), rel=1e-6), row
        assert float(row[f"imbalance(levels={LEVELS})"]) == pytest.approx(
            imbalance(truth, LEVELS), rel=1e-6, abs=1e-7
        )


def venue_of(futures: bool) -> str:
    return "binance_usdm" if futures else "binance_spot"


@pytest.mark.parametrize("futures", [False, True], ids=["spot", "futures"])
@pytest.mark.parametrize(
    "name", ["btcusdt@depth20@100ms", "btcusdt@depth5", "", "without a name, five levels"]
)
async def test_partial_books_alone_are_the_book(tmp_path: Path, futures: bool, name: str) -> None:
    count = 20 if "20" in name or not name else 5
    stream = name if "@" in name else ""
    market = Market(futures, seed=3)
    lines = []
    for _ in range(200):
        data = market.step()
        lines.append(line(market.now, market.partial(data, count), stream))
    rows, stats = await run(config(venue_of(futures)), tmp_path / "c.log", lines)
    # All that changed a level that a message shows, but the first.
    assert len(rows) >= (150 if count == 20 else 80)
    assert {row["state"] for row in rows} == {"valid"}
    assert {row["epoch"] for row in rows} == {"1"}
    check(rows, market)
    assert stats.counters[f"{venue_of(futures)}/partial_books"] == 200


@pytest.mark.parametrize("futures", [False, True], ids=["spot", "futures"])
@pytest.mark.parametrize("partial_first", [False, True])
async def test_partial_books_beside_changes_are_refused_by_name(
    tmp_path: Path, futures: bool, partial_first: bool
) -> None:
    market = Market(futures, seed=4)
    changes: list[str] = []
    both: list[str] = []
    name = "btcusdt@depth10@100ms"
    for i in range(120):
        data = market.step()
        change = line(market.now, data, "btcusdt@depth@100ms")
        partial = line(market.now, market.partial(data, 10), name)
        changes.append(change)
        both += [partial, change] if partial_first else [change, partial]
        if i == 2:
            snapshot = line(market.now, market.snapshot(1000))
            changes.append(snapshot)
            both.append(snapshot)
    settings = config(venue_of(futures))
    expected, _ = await run(settings, tmp_path / "changes.log", changes)
    rows, stats = await run(settings, tmp_path / "both.log", both)
    assert len(rows) > 100
    check(rows, market)
    assert [list(row.values()) for row in rows] == [list(row.values()) for row in expected]
    assert stats.counters[f"{venue_of(futures)}/partial_books_refused"] == 120
    said = findings(stats, settings)
    assert any(said_line.startswith("note: 120 partial books were not used") for said_line in said)
    assert any(name in said_line for said_line in said)


async def test_book_changes_of_another_stream_are_refused_by_name(tmp_path: Path) -> None:
    market, other = Market(True, seed=5), Market(True, seed=6)
    lines = []
    for i in range(60):
        data = market.step()
        lines.append(line(market.now, data, "btcusdt@depth@0ms"))
        lines.append(line(market.now, other.step(), "btcusdt@rpiDepth@500ms"))
        if i == 2:
            lines.append(line(market.now, market.snapshot(1000)))
    settings = config("binance_usdm")
    rows, stats = await run(settings, tmp_path / "c.log", lines)
    assert len(rows) > 40
    check(rows, market)
    assert stats.counters["binance_usdm/other_streams"] == 60
    assert any("btcusdt@rpiDepth@500ms" in said for said in findings(stats, settings))


async def test_each_instrument_is_told_by_its_own_streams(tmp_path: Path) -> None:
    """One has changes and partial books, the other partial books alone."""
    btc, eth = Market(True, seed=7), Market(True, seed=8, symbol="ETHUSDT")
    lines = []
    for i in range(100):
        data = btc.step()
        lines.append(line(btc.now, btc.partial(data, 20), "btcusdt@depth20"))
        lines.append(line(btc.now, data, "btcusdt@depth"))
        if i == 2:
            note = {"tickwire": "snapshot", "conn": 0, "instrument": "BTCUSDT", "body": btc.snapshot(1000)}
            lines.append(line(btc.now, note))
        lines.append(line(btc.now, eth.partial(eth.step(), 20), "ethusdt@depth20"))
    rows, _ = await run(config("binance_usdm", "BTCUSDT", "ETHUSDT"), tmp_path / "c.log", lines)
    for market in (btc, eth):
        mine = [row for row in rows if row["instrument"] == market.symbol]
        assert len(mine) > 80
        check(mine, market)


async def test_a_thin_side_of_partial_books_without_a_name_is_shown_whole(tmp_path: Path) -> None:
    """Three asks are all there are; a row looks at as many levels."""
    market = Market(True, seed=10)
    lines = []
    for _ in range(60):
        data = market.partial(market.step(), 10)
        data["a"] = data["a"][:3]
        market.truth[market.last_id] = (market.side("b"), market.side("a")[:3])
        lines.append(line(market.now, data))
    rows, _ = await run(config("binance_usdm"), tmp_path / "c.log", lines)
    assert len(rows) > 25
    check(rows, market)


@pytest.mark.parametrize("futures", [False, True], ids=["spot", "futures"])
async def test_changes_that_look_like_partial_books_by_chance_are_changes(
    tmp_path: Path, futures: bool
) -> None:
    """The first two name five levels a side, in order and without a zero; the rest do not."""
    market = Market(futures, seed=9)
    lines = []
    for i in range(80):
        data: dict[str, Any] = market.step()
        if i < 2:
            # What they say of these levels is what was so before.
            data |= market.levels(5)
        lines.append(line(market.now, data))
        if i == 4:
            lines.append(line(market.now, market.snapshot(1000)))
    rows, _ = await run(config(venue_of(futures)), tmp_path / "c.log", lines)
    assert len(rows) > 60
    check(rows, market)
