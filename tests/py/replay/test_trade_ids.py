"""Each message counts once, by the venue's id; trades that never came are counted and said in the rows."""

from __future__ import annotations

import asyncio
import csv
import json
import random
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from needs import compiled
from scripted import BTC, Run, ScriptedVenue, config_of
from trade_lines import MS, SECOND, START_NS, Line, diff, quote, snapshot, trade, write

from tickwire.config import Config
from tickwire.findings import findings
from tickwire.pipeline import Pipeline
from tickwire.replay import replay
from tickwire.stats import Stats
from tickwire.verify import verify

pytestmark = compiled


CONFIG = """
[[feeds]]
venue = "binance_spot"
instruments = ["BTCUSDT"]
[features]
rows = ["trade_count(window='1s')"]
trade_gaps = "{trade_gaps}"
"""


def market(seconds: int, seed: int, *, first_trade: int = 700, first_diff: int = 101) -> list[Line]:
    """A change of the book every 20 ms and a trade every 7 ms or so."""
    rng = random.Random(seed)
    lines = [snapshot(START_NS, first_diff - 1)]
    ids = {"diff": first_diff, "trade": first_trade}
    for ms in range(1, seconds * 1000):
        ts = START_NS + ms * MS
        if ms % 20 == 0:
            lines.append(diff(ts, ids["diff"]))
            ids["diff"] += 1
        if rng.random() < 1 / 7:
            lines.append(trade(ts + MS // 2, ids["trade"], price=f"{100 + rng.randrange(3)}.00"))
            ids["trade"] += 1
    return lines


async def replayed(
    tmp_path: Path, lines: Sequence[Line], *, trade_gaps: str = "count", config: str = CONFIG
) -> tuple[list[dict[str, str]], Stats, list[str]]:
    settings = Config.from_text(config.format(trade_gaps=trade_gaps), base=tmp_path)
    out = tmp_path / "out.csv"
    stats = await replay(settings, {settings.feed_names[0]: [str(write(tmp_path / "in.log", lines))]}, out)
    with out.open(newline="") as file:
        return list(csv.DictReader(file)), stats, findings(stats, settings)


def count_of(stats: Stats, name: str) -> int:
    return stats.counters[f"binance_spot/{name}"]


COUNT = "trade_count(window='1s')"


def first_times(lines: Sequence[Line]) -> dict[int, int]:
    """When each trade first came."""
    came: dict[int, int] = {}
    for line in lines:
        if line.kind == "trade":
            came.setdefault(line.id, line.ts)
    return came


def check_counts(rows: Sequence[dict[str, str]], came: dict[int, int]) -> None:
    """Of each row: as many trades as there are ids that first came within the second before it."""
    assert len(rows) > 50
    for row in rows:
        now = int(row["ts_recv"])
        assert float(row[COUNT]) == sum(now - SECOND < ts <= now for ts in came.values()), row


@pytest.mark.parametrize("twice", ["trade", "diff", "both"])
async def test_a_capture_whose_messages_stand_twice_gives_the_rows_of_one(tmp_path: Path, twice: str) -> None:
    once = market(4, 1)
    doubled = [
        copy
        for line in once
        for copy in ([line] * 2 if line.kind != "snapshot" and twice in (line.kind, "both") else [line])
    ]
    expected, _, said = await replayed(tmp_path, once)
    assert said == []
    check_counts(expected, first_times(once))
    rows, stats, said = await replayed(tmp_path, doubled)
    assert rows == expected
    trades = sum(line.kind == "trade" for line in once) if twice != "diff" else 0
    diffs = sum(line.kind == "diff" for line in once) if twice != "trade" else 0
    assert (count_of(stats, "old_trades"), count_of(stats, "old_events")) == (trades, diffs)
    assert [line for line in said if "trades came again" in line] == (
        [f"note: {trades:,} trades came again and were counted once"] if trades else []
    )
    assert count_of(stats, "trade_gaps") == 0


async def test_quotes_that_came_again_are_counted_and_change_nothing(tmp_path: Path) -> None:
    once = market(4, 1)
    expected, _, _ = await replayed(tmp_path, once)
    rng = random.Random(4)
    quotes = [quote(line.ts + 1, line.id) for line in once if line.kind == "diff"]
    again = [rng.choice(quotes[: i + 1]).id for i in range(len(quotes))]
    more = [quote(one.ts + 2, id) for one, id in zip(quotes, again, strict=True)]
    rows, stats, _ = await replayed(tmp_path, sorted([*once, *quotes, *more], key=lambda line: line.ts))
    assert rows == expected
    assert (count_of(stats, "quotes"), count_of(stats, "old_quotes")) == (2 * len(quotes), len(quotes))


@pytest.mark.parametrize("lag_ms", [0, 40, 700])
async def test_two_captures_merged_are_one_stream_whatever_each_lost(tmp_path: Path, lag_ms: int) -> None:
    once = market(5, 2)
    rng = random.Random(3)
    one = [line for line in once if line.kind != "trade" or rng.random() > 0.1]
    two = [
        line.later(lag_ms * MS + rng.randrange(MS))
        for line in once
        if line.kind != "snapshot" and (line.kind != "trade" or rng.random() > 0.1)
    ]
    merged = sorted(one + two, key=lambda line: line.ts)
    rows, stats, _ = await replayed(tmp_path, merged)
    came = first_times(merged)
    check_counts(rows, came)
    first = next(line.id for line in merged if line.kind == "trade")
    missing = set(range(first, max(came) + 1)) - set(came)
    assert count_of(stats, "missing_trades") == len(missing)
    assert count_of(stats, "old_trades") == sum(line.kind == "trade" for line in merged) - len(came)
    # What a row says is missing is what had not come by then.
    begun = next(line.ts for line in merged if line.kind == "diff")
    for row in rows:
        now = int(row["ts_recv"])
        seen = {number for number, ts in came.items() if ts <= now}
        since = max((number for number, ts in came.items() if ts <= begun), default=first)
        assert int(row["missing_trades"]) == len(set(range(since, max(seen))) - seen)


@pytest.mark.parametrize("stream", ["trade", "aggTrade"])
async def test_a_capture_of_both_trade_streams_counts_one(tmp_path: Path, stream: str) -> None:
    once = market(4, 4)
    both = []
    for line in once:
        both.append(line)
        if line.kind == "trade":
            message = json.loads(line.text)
            message.update(e="aggTrade", a=message.pop("t") // 3)
            if message["a"] * 3 == line.id:
                both.append(Line(line.ts, "aggTrade", message["a"], json.dumps(message)))
    config = CONFIG.replace("[features]", f'trades = "{stream}"\n[features]')
    rows, stats, _ = await replayed(tmp_path, both, config=config)
    check_counts(rows, {line.id: line.ts for line in both if line.kind == stream})
    assert count_of(stats, "old_trades") == count_of(stats, "trade_gaps") == 0


async def test_missing_trades_are_counted_said_and_shown_in_the_rows(tmp_path: Path) -> None:
    once = market(6, 5)
    trades = [line for line in once if line.kind == "trade"]
    holes = [trades[300], *trades[500:520]]
    rows, stats, said = await replayed(tmp_path, [line for line in once if line not in holes])
    assert (count_of(stats, "trade_gaps"), count_of(stats, "missing_trades")) == (2, 21)
    assert any(f"trades_missing: BTCUSDT: id {holes[0].id}" in line for line in said)
    assert any("21 trades never came, at 2 places in their ids" in line for line in said)
    after = {line.id: next(t.ts for t in trades if t.id > line.id and t not in holes) for line in holes}
    for row in rows:
        shown = sum(int(row["ts_recv"]) >= ts for ts in after.values())
        assert int(row["missing_trades"]) == shown, row


async def test_missing_trades_are_nothing_to_rows_that_need_none(tmp_path: Path) -> None:
    once = market(3, 6)
    lost = [line for line in once if line.kind != "trade" or line.id % 10]
    config = CONFIG.replace(COUNT, "spread()")
    expected, _, _ = await replayed(tmp_path, once, trade_gaps="suspect", config=config)
    rows, stats, _ = await replayed(tmp_path, lost, trade_gaps="suspect", config=config)
    assert rows == expected
    assert count_of(stats, "trade_gaps") > 30
    assert stats.invalid == 0


async def test_with_suspect_the_epoch_ends_at_the_hole_and_the_next_change_begins_another(
    tmp_path: Path,
) -> None:
    once = market(6, 7)
    trades = [line for line in once if line.kind == "trade"]
    hole, behind = trades[400], trades[401]
    lines = [line for line in once if line is not hole]
    rows, stats, said = await replayed(tmp_path, lines, trade_gaps="suspect")
    assert stats.invalid == 1
    assert any("epochs whose features need trades ended there" in line for line in said)
    # The trade might come late. While it might, no row leaves; a second later it is missing.
    assert not any(behind.ts <= int(row["ts_recv"]) <= behind.ts + SECOND for row in rows)
    waited = sum(line.kind == "diff" and behind.ts <= line.ts <= behind.ts + SECOND for line in lines)
    assert any(f"{waited} rows did not leave, because a trade before them" in line for line in said), said
    begun = next(line.ts for line in lines if line.kind == "diff" and line.ts > behind.ts + SECOND)
    for row in rows:
        now = int(row["ts_recv"])
        assert row["epoch"] == ("1" if now < behind.ts else "2")
        assert row["missing_trades"] == "0"
        # Warm anew: no window looks across the hole.
        assert row["epoch"] == "1" or now >= begun + SECOND
        counted = [line for line in trades if line is not hole and now - SECOND < line.ts <= now]
        assert float(row[COUNT]) == len(counted)
    assert {row["epoch"] for row in rows} == {"1", "2"}


def swapped(lines: Sequence[Line], ids: Sequence[int], by: int = 1) -> list[Line]:
    """These trades each come behind so many with greater ids, at those places and times."""
    out = list(lines)
    for number in ids:
        places = [i for i, line in enumerate(out) if line.kind == "trade"]
        at = next(k for k, i in enumerate(places) if out[i].id == number)
        moved = places[at : at + by + 1]
        trades = [out[i] for i in moved]
        for i, trade_line in zip(moved, [*trades[1:], trades[0]], strict=True):
            out[i] = Line(out[i].ts, "trade", trade_line.id, trade_line.text)
    return out


@pytest.mark.parametrize("trade_gaps", ["count", "suspect"])
@pytest.mark.parametrize("by", [1, 5])
async def test_trades_in_another_order_are_late_and_not_missing(
    tmp_path: Path, trade_gaps: str, by: int
) -> None:
    once = market(6, 8)
    trades = [line for line in once if line.kind == "trade"]
    late = [trades[k].id for k in (200, 260, 261 + by, 500)]
    lines = swapped(once, late, by)
    rows, stats, said = await replayed(tmp_path, lines, trade_gaps=trade_gaps)
    check_counts(rows, first_times(lines))
    assert {row["epoch"] for row in rows} == {"1"}
    assert stats.invalid == count_of(stats, "missing_trades") == count_of(stats, "trade_gaps") == 0
    assert count_of(stats, "late_trades") == len(late)
    assert not any("never came" in line or "trades_missing" in line for line in said), said
    assert any(
        "4 trades came late, behind trades with greater ids: each counts from" in line for line in said
    )
    # What a row is short of is what had not come by then, and with suspect such a row does not leave.
    came = first_times(lines)

    def short(now: int) -> int:
        seen = {number for number, ts in came.items() if ts <= now}
        return max(seen) - min(seen) + 1 - len(seen)

    begun = next(line.ts for line in once if line.kind == "diff")
    due = [line.ts for line in lines if line.kind == "diff" and line.ts >= begun + SECOND]
    if trade_gaps == "count":
        assert [int(row["ts_recv"]) for row in rows] == due
        assert [int(row["missing_trades"]) for row in rows] == [short(ts) for ts in due]
        return
    assert [int(row["ts_recv"]) for row in rows] == [ts for ts in due if short(ts) == 0]
    waited = len(due) - len(rows)
    assert any(f"{waited} row{'s' * (waited != 1)} did not leave" in line for line in said) == (waited != 0)
    assert by == 1 or waited


async def test_a_trade_that_comes_later_than_a_late_one_ends_the_epoch_once(tmp_path: Path) -> None:
    once = market(6, 9)
    trades = [line for line in once if line.kind == "trade"]
    moved = trades[300]
    behind = trades[301]
    lines = [line for line in once if line is not moved]
    lines.append(moved.later(behind.ts + SECOND + 30 * MS - moved.ts))
    lines.sort(key=lambda line: line.ts)
    rows, stats, said = await replayed(tmp_path, lines, trade_gaps="suspect")
    assert (stats.invalid, count_of(stats, "late_trades"), count_of(stats, "missing_trades")) == (1, 1, 0)
    assert {row["epoch"] for row in rows} == {"1", "2"}
    assert any(f"trades_missing: BTCUSDT: id {moved.id}" in line for line in said), said
    # It is of what was before the second epoch: no row of that waits for anything.
    begun = next(line.ts for line in lines if line.kind == "diff" and line.ts > behind.ts + SECOND)
    second = [int(row["ts_recv"]) for row in rows if row["epoch"] == "2"]
    assert second == [line.ts for line in lines if line.kind == "diff" and line.ts >= begun + SECOND]


@pytest.mark.parametrize("how", ["other prices", "same content", "no stamps", "clock set back"])
async def test_ids_that_begin_anew_lose_no_trade(tmp_path: Path, how: str) -> None:
    """A venue whose trades begin again with 1: windows hold all of them, at the latest once that is sure."""
    lines = [snapshot(START_NS, 100)]
    ids = iter([*range(1, 1400), *range(1, 4000)])
    trades: list[Line] = []
    anew_ts = 0
    for ms in range(1, 30_000):
        ts = START_NS + ms * MS
        if ms % 50 == 0:
            lines.append(diff(ts, 100 + ms // 50))
        if ms % 10 == 0:
            number = next(ids)
            if number == 1 and trades:
                anew_ts = ts
            price = "100.00" if how != "other prices" or not anew_ts else "105.00"
            ts += MS // 2
            line = trade(ts, number, price=price, stamps=how != "no stamps")
            if how == "clock set back" and anew_ts:
                message = json.loads(line.text)
                message.update(E=message["E"] - 3_600_000, T=message["T"] - 3_600_000)
                line = Line(ts, "trade", number, json.dumps(message))
            lines.append(line)
            trades.append(line)
    rows, stats, said = await replayed(tmp_path, lines)
    assert count_of(stats, "trade_gaps") == 1
    assert any("the venue's numbers begin anew" in line for line in said)
    sure_ts = anew_ts if how != "no stamps" else anew_ts + 11 * SECOND
    checked = 0
    for row in rows:
        now = int(row["ts_recv"])
        if now < anew_ts or now >= sure_ts + SECOND:
            assert float(row[COUNT]) == sum(now - SECOND < line.ts <= now for line in trades), row
            checked += now >= anew_ts
    assert checked > 50
    if how != "no stamps":
        assert count_of(stats, "old_trades") == 0


@pytest.mark.parametrize("trade_gaps", ["count", "suspect"])
async def test_a_live_run_counts_each_trade_once_and_agrees_with_its_replay(
    tmp_path: Path, trade_gaps: str
) -> None:
    venue = ScriptedVenue()
    folder = tmp_path / "run"
    async with venue.serve():
        data = config_of(venue)
        data["features"] = {"rows": ["trade_count(window='50ms')"], "trade_gaps": trade_gaps}
        config = Config.from_dict(data, where="test")
        async with Pipeline(config, record_dir=folder) as pipeline:
            run = Run(venue, pipeline)
            pipeline.on_rows(run.on_rows)
            stop = asyncio.Event()
            chatter = asyncio.create_task(venue.chatter(stop))
            try:
                await run.goes_on(BTC)
                for number in [*range(1, 30), *range(40, 50)]:
                    line = trade(START_NS + number * MS, number)
                    await venue.say(line.text)
                    await venue.say(line.text)
                await run.until(lambda: run.count("old_trades") == 39, "what came twice")
                await run.goes_on(BTC)
            finally:
                stop.set()
                await chatter
            assert run.count("missing_trades") == 10
        # Said a second behind the hole, or at the end.
        assert "trades_missing: BTCUSDT: ids 30 to 39" in run.errors()
        assert run.lost(BTC) == (["trade_gap"] if trade_gaps == "suspect" else [])
    result = await verify(folder)
    assert result.same, result.divergence
    assert result.rows > 5
    assert (
        tomllib.loads((json.loads((folder / "run.json").read_text()))["config"])["features"]["trade_gaps"]
        == trade_gaps
    )


@pytest.mark.parametrize("trade_gaps", ["count", "suspect"])
async def test_trades_that_come_swapped_live_are_late_and_the_replay_agrees(
    tmp_path: Path, trade_gaps: str
) -> None:
    venue = ScriptedVenue()
    folder = tmp_path / "run"
    async with venue.serve():
        data = config_of(venue)
        data["features"] = {
            "trigger": "trade",
            "rows": ["trade_count(window='1ms')"],
            "trade_gaps": trade_gaps,
        }
        config = Config.from_dict(data, where="test")
        async with Pipeline(config, record_dir=folder) as pipeline:
            run = Run(venue, pipeline)
            pipeline.on_rows(run.on_rows)
            stop = asyncio.Event()
            chatter = asyncio.create_task(venue.chatter(stop))
            try:
                await run.until(lambda: run.count("became_valid") == 2, "valid books")
                await asyncio.sleep(0.05)  # Windows are full.
                order = list(range(1, 61))
                for first in (10, 20, 33, 47):  # Each of these comes behind the one after it.
                    at = order.index(first)
                    order[at : at + 2] = [first + 1, first]
                for number in order:
                    await venue.say(trade(START_NS + number * MS, number).text)
                await run.until(lambda: run.count("trades") == 60, "all trades")
                assert run.count("late_trades") == 4
                assert run.count("missing_trades") == run.count("trade_gaps") == run.count("old_trades") == 0
            finally:
                stop.set()
                await chatter
        assert "trades_missing" not in run.errors()
        assert run.lost(BTC) == []
    result = await verify(folder)
    assert result.same, result.divergence
    # Each trade is a row, but with suspect where the one before it may still come.
    assert result.rows == 60 - (4 if trade_gaps == "suspect" else 0)
    lines = (folder / "capture" / "main" / "000001.log").read_text().splitlines()
    messages = [json.loads(line.partition(" ")[2]) for line in lines]
    assert [m["t"] for m in messages if m.get("e") == "trade"] == order
