"""A live run under every fault of the local venue: the monitor finds nothing, and the counters say what was.

Each test hits one instrument, or one connection, of each of the three markets; the others must never notice.
"""

from __future__ import annotations

import random
from pathlib import Path

import fake_core
import numpy as np
import pytest
from monitor import MARKETS, ROWS, Monitor, Rig, storm, weather
from needs import compiled
from waiting import LONG_S

from tickwire.records import RowLayout
from tickwire.sim import Faults
from tickwire.verify import verify

pytestmark = compiled


def only_the_first_lost(rig: Rig, reason: str, losses: int = 1) -> None:
    for market, symbol in rig.keys:
        expected = losses if (market, symbol) == rig.first(market) else 0
        lost = rig.told((market, symbol)).lost()
        assert [notice.reason for notice in lost] == [reason] * expected, (market, symbol)


async def test_calm_weather_loses_nothing() -> None:
    async with weather(Faults(1)) as rig:
        await rig.all_valid()
    assert rig.checked > 100
    assert all(not told.lost() for told in rig.monitor.told.values())
    assert rig.count("snapshot_requests") == rig.count("snapshots") == len(rig.keys)


async def test_drop_is_one_gap_of_one_instrument() -> None:
    faults = Faults(1)
    async with weather(faults) as rig:
        for market in MARKETS:
            faults.arm("drop", market=market, symbol=rig.first(market)[1], stream="depth")
        for market in MARKETS:
            await rig.lost_and_back(rig.first(market))
    only_the_first_lost(rig, "gap")
    assert rig.count("gaps") == 3
    assert rig.count("snapshot_requests") == rig.count("snapshots") == len(rig.keys) + 3


async def test_duplicates_change_nothing() -> None:
    faults = Faults(1)
    async with weather(faults) as rig:
        before = await rig.settled("old_events")
        for market in MARKETS:
            faults.arm("duplicate", market=market, symbol=rig.first(market)[1], stream="depth", count=5)
        await rig.until(lambda: faults.counts["duplicate"] == 15, "all duplicates sent")
        await rig.all_valid()
    assert all(not told.lost() for told in rig.monitor.told.values())
    for market in MARKETS:
        assert rig.count("old_events", market) - before[market] == 5


async def test_reorder_is_one_gap_and_what_was_overtaken_is_old() -> None:
    faults = Faults(1)
    async with weather(faults) as rig:
        before = await rig.settled("old_events")
        for market in MARKETS:
            faults.arm("reorder", market=market, symbol=rig.first(market)[1], stream="depth")
        for market in MARKETS:
            await rig.lost_and_back(rig.first(market))
    only_the_first_lost(rig, "gap")
    assert rig.count("gaps") == 3
    for market in MARKETS:  # A snapshot that was ahead makes more of them.
        assert rig.count("old_events", market) - before[market] >= 1


async def test_message_cut_in_the_middle_costs_one_instrument_its_book() -> None:
    faults = Faults(1)
    async with weather(faults) as rig:
        for market in MARKETS:
            faults.arm("corrupt", market=market, symbol=rig.first(market)[1], stream="depth")
        for market in MARKETS:
            await rig.lost_and_back(rig.first(market))
    only_the_first_lost(rig, "malformed")
    for market in MARKETS:
        assert rig.count("malformed", market) == 1
    assert rig.count("gaps") == 0
    assert any("message_malformed" in error.text for error in rig.pipeline.stats().errors)


@pytest.mark.parametrize("kind", ["close", "reset"])
async def test_connection_that_ends_is_made_anew(kind: str) -> None:
    faults = Faults(1)
    async with weather(faults) as rig:
        for market in MARKETS:
            faults.arm(kind, market=market)
            for symbol in rig.venue.instruments[market]:
                await rig.lost_and_back((market, symbol))
    for key in rig.keys:  # Once each: the other two markets did not notice.
        assert [notice.reason for notice in rig.told(key).lost()] == ["disconnected"], key
    for market in MARKETS:
        assert (rig.count("connects", market), rig.count("disconnects", market)) == (2, 1)
    assert rig.count("gaps") == 0
    assert any("connection_closed" in error.text for error in rig.pipeline.stats().errors)


@pytest.mark.parametrize("back", [True, False], ids=["back", "ahead"])
async def test_venue_that_restarts_with_other_ids(back: bool) -> None:
    async with weather(Faults(1)) as rig:
        for market in MARKETS:
            rig.venue.restart(market, back=back)
        for key in rig.keys:
            await rig.lost_and_back(key)
    for key in rig.keys:
        assert [notice.reason for notice in rig.told(key).lost()] == ["disconnected"], key


@pytest.mark.parametrize("back", [True, False], ids=["back", "ahead"])
async def test_ids_that_go_elsewhere_on_an_open_connection(back: bool) -> None:
    async with weather(Faults(1)) as rig:
        for market in MARKETS:
            rig.venue.renumber(market, back=back)
        for key in rig.keys:
            await rig.lost_and_back(key)
    for key in rig.keys:
        assert [notice.reason for notice in rig.told(key).lost()] == ["gap"], key
    assert rig.count("connects") == 3


@pytest.mark.parametrize(("kind", "count"), [("snapshot_old", 2), ("snapshot_ahead", 1)])
async def test_snapshot_that_fits_no_event_is_asked_for_again(kind: str, count: int) -> None:
    faults = Faults(1)
    async with weather(faults) as rig:
        for market in MARKETS:
            symbol = rig.first(market)[1]
            faults.arm(kind, market=market, symbol=symbol, count=count)
            faults.arm("drop", market=market, symbol=symbol, stream="depth")
        for market in MARKETS:
            await rig.lost_and_back(rig.first(market))
    only_the_first_lost(rig, "gap")
    assert faults.counts == {kind: 3 * count, "drop": 3}
    for market in MARKETS:
        assert rig.count("snapshot_requests", market) == rig.count("snapshots", market) == 3 + count
        refused, expired = rig.count("snapshots_refused", market), rig.count("snapshots_expired", market)
        # One that is ahead waits; another that was asked for beside it is nearer to the stream.
        assert (refused, expired) == ((count, 0) if kind == "snapshot_old" else (0, 0))


async def test_oversized_snapshots_are_refused_by_bytes_and_by_levels() -> None:
    faults = Faults(1, oversized_bytes=1 << 20)
    async with weather(faults) as rig:
        for market in MARKETS:
            symbol = rig.first(market)[1]
            faults.arm("snapshot_oversized", market=market, symbol=symbol)
            faults.arm("drop", market=market, symbol=symbol, stream="depth")
            await rig.lost_and_back(rig.first(market))
        faults.oversized_bytes = 9 << 20
        for market in MARKETS:
            symbol = rig.first(market)[1]
            faults.arm("snapshot_oversized", market=market, symbol=symbol)
            faults.arm("drop", market=market, symbol=symbol, stream="depth")
            await rig.lost_and_back(rig.first(market), losses=2)
    only_the_first_lost(rig, "gap", losses=2)
    for market in MARKETS:
        assert rig.count("snapshots_refused", market) == 1  # Too many levels.
        assert rig.count("snapshots_failed", market) == 1  # Too many bytes: it never came to the engine.
        assert rig.count("snapshot_requests", market) == 2 + 4
    errors = [error.text for error in rig.pipeline.stats().errors]
    assert any("snapshot_malformed" in text for text in errors), errors
    assert any("snapshot_failed" in text and "bytes" in text for text in errors), errors


async def test_rest_that_fails_and_is_slow() -> None:
    faults = Faults(1, slow_s=0.3)
    async with weather(faults) as rig:
        for market in MARKETS:
            symbol = rig.first(market)[1]
            faults.arm("rest_fail", market=market, symbol=symbol, count=2)
            faults.arm("rest_slow", market=market, symbol=symbol)
            faults.arm("drop", market=market, symbol=symbol, stream="depth")
        for market in MARKETS:
            await rig.lost_and_back(rig.first(market))
    only_the_first_lost(rig, "gap")
    assert faults.counts == {"rest_fail": 6, "rest_slow": 3, "drop": 3}
    for market in MARKETS:
        assert rig.count("snapshots_failed", market) == 2
        assert rig.count("snapshot_requests", market) == 2 + 3
    assert any("HTTP" in error.text for error in rig.pipeline.stats().errors)


async def test_answer_from_before_a_restart_is_not_taken_for_a_new_one() -> None:
    # The slow answer to the first request comes when the new connection has asked already.
    faults = Faults(1, slow_s=0.5)
    async with weather(faults) as rig:
        for market in MARKETS:
            symbol = rig.first(market)[1]
            faults.arm("rest_slow", market=market, symbol=symbol, count=2)
            faults.arm("drop", market=market, symbol=symbol, stream="depth")
        await rig.until(lambda: faults.counts["rest_slow"] == 3, "slow answers under way")
        for market in MARKETS:
            rig.venue.restart(market, back=True)
        for market in MARKETS:
            await rig.lost_and_back(rig.first(market))
    # Two books at the start, the gap of one, two behind the restart. The old answer would wait for ids that
    # do not come, until there is another request.
    assert [rig.count("snapshot_requests", market) for market in MARKETS] == [2 + 1 + 2] * 3


async def test_shutdown_notice_is_counted() -> None:
    async with weather(Faults(1)) as rig:
        for market in MARKETS:
            rig.venue.shut_down(market, grace_s=LONG_S)
        await rig.until(lambda: rig.count("connects") == 6, "a second connection a market")
        await rig.all_valid()
    for market in MARKETS:
        assert rig.count("shutdown_notices", market) == 1
    # The replacement was there before the old connection ended.
    assert all(not told.lost() for told in rig.monitor.told.values())


async def test_stall_is_a_gap_of_everything_on_the_connection() -> None:
    faults = Faults(1, stall_s=0.3)
    async with weather(faults) as rig:
        for market in MARKETS:
            faults.arm("stall", market=market)
        for key in rig.keys:
            await rig.lost_and_back(key)
    for key in rig.keys:
        assert [notice.reason for notice in rig.told(key).lost()] == ["gap"], key
    assert rig.count("connects") == 3


async def test_further_snapshots_join_books_that_run_out_of_depth(tmp_path: Path) -> None:
    # Twenty levels, where a row looks at five of a market that walks.
    run = tmp_path / "run"
    async with weather(
        Faults(1),
        instruments=1,
        rate=600.0,
        feed={"snapshot_limit": 20},
        pipeline_options={"record_dir": run},
    ) as rig:
        await rig.until(lambda: rig.count("snapshots_merged") >= 4, "snapshots merged")
    assert rig.checked > 300
    assert rig.count("snapshots_contradicted") == rig.count("gaps") == 0
    for told in rig.monitor.told.values():
        assert {notice.reason for notice in told.lost()} <= {"depth"}
    result = await verify(run)
    assert result.same, result.divergence
    assert result.rows == rig.checked


@pytest.mark.parametrize("layout", ["threads", "inline"])
async def test_random_mix(layout: str, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    done = await storm(seed, seconds=9.0, layout=layout, folder=tmp_path)
    assert done.checked > 500
    assert sum(done.faults.counts.values()) > 30


async def test_monitor_sees_what_is_wrong() -> None:
    async with weather(Faults(1), markets=("usdm",)) as rig:
        pass
    told = rig.told(rig.first("usdm"))
    epoch, row, sequence, ts_recv, features = told.rows[5]
    other = next(told_row[2] for told_row in told.rows[6:] if told_row[4] != features)
    wrong = np.nextafter(np.nextafter(np.float32(features[1]), np.float32(9)), np.float32(9))
    for forged, expected in (
        ((epoch, row, sequence, ts_recv, (features[0], float(wrong), features[2])), "the true book"),
        ((epoch, row, other, ts_recv + 10**9, features), "the true book"),
        ((epoch, row, sequence + 1, ts_recv, features), "which the venue never was at"),
    ):
        told.rows[5] = forged
        with pytest.raises(AssertionError, match=expected):
            rig.monitor.check()
    told.rows[5] = (epoch, row, sequence, ts_recv, features)
    rig.monitor.check()


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([(1, 1), (1, 3)], "row 1/3 came after 1/1"),
        ([(1, 2)], "row 1/2 came after 1/0"),
        ([(1, 1), (1, 0), (1, 2)], "row 1/2 came after epoch 1 had ended"),
        ([(1, 1), (2, 1)], "nothing said that 1 had ended"),
        ([(2, 1), (2, 0), (1, 1)], "row 1/1 came after epoch 2 had ended"),
        ([(1, 1), (1, 0), (1, 0)], "a second notice for epoch 1"),
    ],
)
def test_monitor_sees_records_out_of_order(records: list[tuple[int, int]], expected: str) -> None:
    monitor = Monitor()
    monitor.watch(
        RowLayout(
            fake_core.row_dtype(len(ROWS)),
            stages=fake_core.STAGES,
            states=fake_core.STATES,
            reasons=fake_core.REASONS,
            instruments=[("BTCUSDT", "binance_spot")],
            features=ROWS,
        )
    )
    rows = np.zeros(len(records), dtype=fake_core.row_dtype(len(ROWS)))
    for record, (epoch, row) in zip(rows, records, strict=True):
        record["epoch"], record["row"], record["state"] = epoch, row, 0 if row else 1
    monitor.on_rows(rows)
    assert expected in monitor.violations[0]


async def test_stream_that_falls_silent_is_stale_where_asked() -> None:
    # The connection stays open, and its other end alive as far as TCP can tell.
    faults = Faults(1, stall_s=4.0)
    async with weather(faults, feed={"stale_after": "2s"}) as rig:
        for market in ("spot", "usdm"):
            faults.arm("stall", market=market)
        for key in rig.keys:
            if key[0] != "coinm":
                await rig.lost_and_back(key)
    for market, symbol in rig.keys:
        told = rig.told((market, symbol))
        # What was swallowed is a gap, but the book had been left before that could show. A busy machine may
        # be silent for as long by itself.
        reasons = [notice.reason for notice in told.lost()]
        assert set(reasons) <= {"stale"}, (market, symbol)
        assert reasons or market == "coinm", (market, symbol)
    for market in ("spot", "usdm", "coinm"):
        stale = sum(len(rig.told(key).lost()) for key in rig.keys if key[0] == market)
        assert (rig.count("data_stale", market), rig.count("connections_silent", market)) == (stale, 0)
    assert rig.count("connects") == 3
    assert any("data_stale" in error.text for error in rig.pipeline.stats().errors)
