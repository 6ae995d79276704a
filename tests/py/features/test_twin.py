"""The NumPy twin against numbers worked out by hand, so that it may judge the engine."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import twin

S = 1_000_000_000
MS = 1_000_000


def diff(at: float, ids: tuple[int, int, int], bids: list[Any], asks: list[Any], event_ms: int = 0) -> str:
    first, last, previous = ids
    data = {"e": "depthUpdate", "s": "X", "U": first, "u": last, "pu": previous, "b": bids, "a": asks}
    if event_ms:
        data["E"] = event_ms
    return f"{int(at * S)} {json.dumps({'stream': 'x@depth@0ms', 'data': data})}"


def trade(at: float, number: int, price: str, qty: str, seller: bool, kind: str = "MARKET") -> str:
    data = {"e": "trade", "E": 1, "s": "X", "t": number, "p": price, "q": qty, "X": kind, "m": seller}
    return f"{int(at * S)} {json.dumps({'stream': 'x@trade', 'data': data})}"


def quote(at: float) -> str:
    data = {"e": "bookTicker", "u": 999, "s": "X", "b": "1", "B": "1", "a": "2", "A": "1"}
    return f"{int(at * S)} {json.dumps({'stream': 'x@bookTicker', 'data': data})}"


def snapshot(at: float, last_id: int, bids: list[Any], asks: list[Any]) -> str:
    body = {"lastUpdateId": last_id, "bids": bids, "asks": asks}
    note = {"tickwire": "snapshot", "conn": 0, "instrument": "X", "limit": 1000, "body": body}
    return f"{int(at * S)} {json.dumps(note)}"


# Book and mid after each event, quantities behind the colon:
#   base  t=2.0  bids 100:3 99:4        asks 101:1 102:3      mid 100.5
#   e1    t=2.5  bids 100:5 99:4        asks 102:3            mid 101
#   e2    t=3.0  bids 101:2 100:5 99:4  asks 102:1            mid 101.5
#   e3    t=3.5  bids 101:2 100:5 99:4  asks 101.5:4 102:1    mid 101.25
# Trades: 2.6 sell 1 at 100, 2.8 buy 3 at 102, 3.2 one that the venue marks as no trade.
CAPTURE = [
    diff(1.0, (10, 12, 9), [["100", "3"]], []),
    snapshot(2.0, 11, [["100", "2"], ["99", "4"]], [["101", "1"], ["102", "3"]]),
    diff(2.5, (14, 15, 12), [["100", "5"]], [["101", "0"]]),
    trade(2.6, 70, "100", "1", seller=True),
    quote(2.7),
    trade(2.8, 71, "102", "3", seller=False),
    diff(3.0, (16, 17, 15), [["101", "2"]], [["102", "1"]]),
    trade(3.2, 72, "102", "50", seller=False, kind="INSURANCE_FUND"),
    diff(3.5, (20, 22, 17), [], [["101.5", "4"]]),
]


def replay(tmp_path: Path, lines: list[str], *rows: str, **options: Any) -> Any:
    path = tmp_path / "capture.log"
    path.write_text("\n".join(lines) + "\n")
    return twin.replay([path], **({"venue": "binance_usdm", "symbol": "X", "rows": rows} | options))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # Rows of e1, e2, e3: from the base on all is warm.
        ("imbalance(levels=1)", [2 / 8, 1 / 3, -2 / 6]),
        ("imbalance(levels=2)", [(9 - 3) / 12, (7 - 1) / 8, (7 - 5) / 12]),
        ("spread()", [1e4 * 2 / 101, 1e4 * 1 / 101.5, 1e4 * 0.5 / 101.25]),
        # e1: (100*3 + 102*5) / 8 = 101.25. e2: (101*1 + 102*2) / 3. e3: (101*4 + 101.5*2) / 6.
        (
            "microprice_offset()",
            [
                1e4 * 0.25 / 101,
                1e4 * (305 / 3 - 101.5) / 101.5,
                1e4 * (607 / 6 - 101.25) / 101.25,
            ],
        ),
        # Rows of e2 and e3: warm at 3.0. e2 looks back to the base at 2.0, e3 to e1 at 2.5.
        ("mid_return(window='1s')", [math.log(101.5 / 100.5), math.log(101.25 / 101)]),
        ("mid_return(window=2)", [math.log(101.5 / 100.5), math.log(101.25 / 101)]),
        # e1: bid +5 -3, ask went up: +1. e2: bid went up: +2, ask -1 +3. e3: bid +2 -2, ask went down: -4.
        ("ofi(window='1s')", [3 + 4, 4 - 4]),
        ("ofi(window=1)", [3, 4, -4]),
        # Second level. e1: bid 99 +4 -4; ask 102 -> none: +3. e2: bid 99 -> 100: +5; ask none.
        # e3: bid 100 +5 -5; ask none -> 102: -1.
        ("ofi(levels=2, window=1)", [3 + 3, 4 + 5, -4 - 1]),
        (
            "realized_vol(window='1s')",
            [
                math.hypot(math.log(101 / 100.5), math.log(101.5 / 101)),
                math.hypot(math.log(101.5 / 101), math.log(101.25 / 101.5)),
            ],
        ),
        # Both trades are in (2.0, 3.0] and in (2.5, 3.5]; (2.3, 3.0] and (2.8, 3.5] have two and none.
        ("trade_flow(window='1s')", [(3 - 1) / 4, (3 - 1) / 4]),
        ("trade_flow(window='700ms')", [(3 - 1) / 4, 0]),
        ("trade_flow(window=1)", [1, 1]),
        ("trade_count(window='1s')", [2, 2]),
        ("trade_count(window='700ms')", [2, 0]),
        # vwap = (100*1 + 102*3) / 4 = 101.5.
        ("vwap_offset(window='1s')", [0, 1e4 * 0.25 / 101.25]),
        # Samples of imbalance(1): 1/4, 1/3, -1/3.
        ("mean(imbalance(levels=1), window=2)", [(1 / 4 + 1 / 3) / 2, 0]),
        ("mean(imbalance(levels=1), window='1s')", [(1 / 4 + 1 / 3) / 2, 0]),
        ("std(imbalance(levels=1), window=2)", [(1 / 3 - 1 / 4) / 2, 1 / 3]),
        ("min(imbalance(levels=1), window=2)", [1 / 4, -1 / 3]),
        ("max(imbalance(levels=1), window=2)", [1 / 3, 1 / 3]),
        ("zscore(imbalance(levels=1), window=2)", [1, -1]),
        ("zscore(imbalance(levels=1), window=1)", [0, 0, 0]),
        ("diff(imbalance(levels=1), lag=1)", [1 / 3 - 1 / 4, -2 / 3]),
        # Half-life 250 ms, warm 1.25 s after 2.0, at e3. y: 1/4, then 2 half-lives towards 1/3: 5/16,
        # then 2 half-lives towards -1/3.
        ("ema(imbalance(levels=1), halflife='250ms')", [5 / 16 + 0.75 * (-1 / 3 - 5 / 16)]),
        # The inner is warm at 2.5 with its first sample at e1; the outer a second later.
        ("max(ofi(window='500ms'), window='1s')", [max(4, -4)]),
    ],
)
def test_value(tmp_path: Path, expression: str, expected: list[float]) -> None:
    rows = replay(tmp_path, CAPTURE, expression)
    assert list(rows.ts_recv) == [2_500 * MS, 3_000 * MS, 3_500 * MS][-len(expected) :]
    assert rows.values[:, 0] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_identity_of_rows(tmp_path: Path) -> None:
    rows = replay(tmp_path, CAPTURE, "spread()")
    assert rows.names == ["spread()"]
    assert rows.ts_event == [None, None, None]
    assert list(rows.epoch) == [1, 1, 1]
    assert list(rows.row) == [1, 2, 3]
    assert list(rows.sequence) == [15, 17, 22]


def test_trade_trigger_evicts_by_the_trade_and_names_the_book(tmp_path: Path) -> None:
    rows = replay(tmp_path, CAPTURE, "trade_count(window='100ms')", "imbalance(levels=1)", trigger="trade")
    assert list(rows.ts_recv) == [2_600 * MS, 2_800 * MS]
    assert list(rows.sequence) == [15, 15]  # Of the last event applied to the book.
    assert rows.ts_event == [MS, MS]
    assert rows.values.tolist() == [[1, 0.25], [1, 0.25]]


def test_wrapped_window_keeps_its_newest_sample(tmp_path: Path) -> None:
    # At the trade of 2.8 the sample of e1 (2.5) is older than 100 ms, and still is the value.
    rows = replay(tmp_path, CAPTURE, "mean(imbalance(levels=1), window='100ms')", trigger="trade")
    assert rows.values.tolist() == [[0.25], [0.25]]


def test_book_trigger_needs_a_change_of_the_book(tmp_path: Path) -> None:
    # Removes a level that is not there and repeats one that is: a sample, but no row.
    repeat = diff(4.0, (23, 24, 22), [["90", "0"]], [["110", "2"]])
    again = diff(4.1, (25, 26, 24), [], [["110", "2"]])
    rows = replay(tmp_path, [*CAPTURE, repeat, again, diff(4.2, (27, 28, 26), [["98", "1"]], [])], "spread()")
    assert list(rows.sequence) == [15, 17, 22, 24, 28]


def test_top_trigger_needs_a_change_of_the_best(tmp_path: Path) -> None:
    deeper = diff(4.0, (23, 24, 22), [["98", "1"]], [["110", "2"]])
    rows = replay(tmp_path, [*CAPTURE, deeper], "spread()", trigger="top")
    assert list(rows.sequence) == [15, 17, 22]


def test_every_emits_the_first_event_at_or_past_a_boundary(tmp_path: Path) -> None:
    # From 2.0 on, boundaries at 2.4, 2.8, 3.2: met by e1, by the trade on 2.8 itself, and, as the
    # unprintable trade of 3.2 is none, by e3.
    rows = replay(tmp_path, CAPTURE, "spread()", every="400ms")
    assert list(rows.sequence) == [15, 15, 22]


def test_every_uses_a_boundary_up_before_the_row_is_warm(tmp_path: Path) -> None:
    # Warm at 2.7; the events of 2.5 and 2.8 have used their boundaries, e2 meets none.
    rows = replay(tmp_path, CAPTURE, "mid_return(window='900ms')", every="400ms")
    assert list(rows.sequence) == [22]


def test_gap_ends_the_epoch_and_everything_starts_over(tmp_path: Path) -> None:
    lines = [
        *CAPTURE,
        diff(4.0, (30, 31, 29), [["100", "1"]], []),  # pu is not 22.
        diff(4.1, (32, 34, 31), [["99", "0"]], []),
        snapshot(4.2, 33, [["100", "2"], ["99", "1"]], [["103", "1"]]),
        diff(4.3, (35, 36, 34), [["100", "4"]], []),
    ]
    rows = replay(tmp_path, lines, "ofi(window=1)", "imbalance(levels=5)")
    assert list(rows.epoch) == [1, 1, 1, 2]
    assert list(rows.row) == [1, 2, 3, 1]
    assert list(rows.sequence) == [15, 17, 22, 36]
    # Base of the second epoch: the snapshot with the buffered diff 34: bids 100:2 only.
    assert rows.values[3].tolist() == [2, (4 - 1) / 5]


def test_live_event_bridges_where_no_buffered_one_does(tmp_path: Path) -> None:
    lines = [
        diff(1.0, (1, 3, 0), [["90", "1"]], []),
        snapshot(2.0, 5, [["100", "2"]], [["101", "1"]]),
        diff(2.1, (4, 4, 3), [["90", "0"]], []),  # Older than the snapshot.
        diff(2.2, (8, 9, 5), [["100", "3"]], []),  # The snapshot's id lies between two events: pu bridges.
        diff(2.3, (10, 11, 9), [["100", "7"]], []),
    ]
    rows = replay(tmp_path, lines, "ofi(window='1ms')", "imbalance(levels=1)", trigger="top")
    # The bridging event is what the epoch begins with: no row, and what the next is compared with.
    assert list(rows.sequence) == [11]
    assert rows.values[0].tolist() == [4, 6 / 8]
    assert list(replay(tmp_path, lines, "imbalance(levels=1)", trigger="top").sequence) == [11]


def test_held_snapshot_waits_for_what_the_capture_holds(tmp_path: Path) -> None:
    lines = [
        snapshot(1.0, 8, [["100", "2"]], [["101", "1"]]),
        *(diff(100.0 * n, (n, n, n - 1), [["90", str(n)]], []) for n in range(2, 8)),
        diff(901.0, (8, 9, 7), [["100", "3"]], []),
        diff(902.0, (10, 11, 9), [["100", "7"]], []),
    ]
    rows = replay(tmp_path, lines, "imbalance(levels=2)")
    assert list(rows.sequence) == [11]
    assert rows.values[0].tolist() == [6 / 8]


def test_spot_needs_no_previous_id(tmp_path: Path) -> None:
    lines = [
        diff(1.0, (1, 3, 0), [["90", "1"]], []),
        snapshot(2.0, 3, [["100", "2"]], [["101", "1"]]),
        diff(2.1, (3, 5, 0), [["100", "3"]], []),  # Bridges, though the snapshot has the first id.
        diff(2.2, (6, 6, 0), [["100", "4"]], []),
        diff(2.3, (7, 7, 0), [["100", "5"]], []),
        diff(2.4, (9, 9, 0), [["100", "6"]], []),  # 8 is missing.
    ]
    rows = replay(tmp_path, lines, "imbalance(levels=1)", venue="binance_spot")
    assert list(rows.sequence) == [6, 7]


def test_snapshot_that_fits_nothing_waits_for_another(tmp_path: Path) -> None:
    lines = [
        diff(1.0, (10, 12, 9), [["100", "3"]], []),
        snapshot(2.0, 5, [["50", "2"]], [["51", "1"]]),
        snapshot(3.0, 11, [["100", "2"]], [["101", "1"]]),
        diff(4.0, (13, 14, 12), [["100", "1"]], []),
    ]
    rows = replay(tmp_path, lines, "imbalance(levels=1)")
    assert rows.values.tolist() == [[0.0]]


def test_crossed_book_ends_the_epoch_without_a_row(tmp_path: Path) -> None:
    crossing = diff(4.0, (23, 24, 22), [["103", "1"]], [])
    after = diff(4.1, (25, 26, 24), [["103", "0"]], [])
    rows = replay(tmp_path, [*CAPTURE, crossing, after], "spread()")
    assert list(rows.sequence) == [15, 17, 22]


def test_duplicate_is_ignored_and_an_old_id_is_a_doubt(tmp_path: Path) -> None:
    lines = [
        diff(1.0, (10, 12, 9), [], []),
        snapshot(2.0, 11, [["100", "2"]], [["101", "1"]]),
        diff(2.1, (13, 14, 12), [["100", "3"]], []),
        diff(2.2, (13, 14, 12), [["100", "3"]], []),
        diff(2.3, (15, 16, 14), [["100", "4"]], []),
        diff(2.4, (5, 6, 4), [["100", "5"]], []),
        diff(2.5, (17, 18, 16), [["100", "5"]], []),  # Ends the doubt: the second epoch begins with it.
        diff(2.6, (19, 20, 18), [["100", "6"]], []),
    ]
    rows = replay(tmp_path, lines, "spread()")
    assert list(rows.sequence) == [14, 16, 20]
    assert list(rows.epoch) == [1, 1, 2]


def test_ids_that_follow_each_other_are_another_count(tmp_path: Path) -> None:
    lines = [
        diff(1.0, (10, 12, 9), [], []),
        snapshot(2.0, 11, [["100", "2"]], [["101", "1"]]),
        *(diff(2.1 + n / 10, (n, n, n - 1), [["99", str(n)]], []) for n in range(1, 5)),
        diff(2.7, (5, 5, 4), [["99", "5"]], []),
        snapshot(2.8, 5, [["90", "2"]], [["101", "1"]]),
        diff(2.9, (6, 6, 5), [["99", "6"]], []),
    ]
    rows = replay(tmp_path, lines, "imbalance(levels=1)")
    assert list(rows.sequence) == [6]


def test_no_row_looks_behind_the_horizon(tmp_path: Path) -> None:
    bids, asks = [["100", "1"], ["99", "1"], ["98", "1"]], [["101", "1"], ["102", "1"], ["103", "1"]]
    lines = [
        diff(1.0, (10, 12, 9), [], []),
        f"{2 * S} {json.dumps({'lastUpdateId': 11, 'bids': bids, 'asks': asks})}",
        diff(2.1, (13, 14, 12), [["90", "5"]], []),  # Known, since it changed, and yet behind.
        diff(2.2, (15, 16, 14), [["100", "0"]], []),
        diff(2.3, (17, 18, 16), [["99", "0"]], []),  # One is left of the two that a row needs.
        diff(2.4, (19, 20, 18), [["89", "5"]], []),
        diff(2.5, (21, 22, 20), [["100", "2"]], []),  # Back: the second epoch begins with it.
        diff(2.6, (23, 24, 22), [["100", "3"]], []),
    ]
    rows = replay(tmp_path, lines, "imbalance(levels=2)")
    assert list(rows.sequence) == [14, 16, 24]
    assert list(rows.epoch) == [1, 1, 2]
    assert rows.values[:, 0].tolist() == [0, 0, (4 - 2) / 6]


def test_event_clock_is_a_running_maximum(tmp_path: Path) -> None:
    lines = [
        diff(1.0, (10, 12, 9), [], [], event_ms=1000),
        snapshot(2.0, 11, [["100", "2"]], [["101", "1"]]),
        diff(2.5, (13, 14, 12), [["100", "3"]], [], event_ms=3000),
        diff(2.6, (15, 16, 14), [["100", "4"]], [], event_ms=2000),  # Back: the clock stays at 3 s.
        diff(2.7, (17, 18, 16), [["100", "5"]], []),  # Without a stamp.
        diff(2.8, (19, 20, 18), [["100", "6"]], [], event_ms=4000),
    ]
    rows = replay(tmp_path, lines, "ofi(window='1s')", clock="event")
    # The snapshot has no stamp: the epoch starts at 1 s. The window (3, 4] has the last event alone.
    assert rows.values[:, 0].tolist() == [1, 2, 3, 1]
    assert rows.ts_event == [3 * S, 2 * S, None, 4 * S]


def test_own_notes_of_a_capture(tmp_path: Path) -> None:
    body = {"lastUpdateId": 11, "bids": [["100", "2"]], "asks": [["101", "1"]]}
    other = {"tickwire": "snapshot", "conn": 0, "instrument": "Y", "body": body}
    mine = {"tickwire": "snapshot", "conn": 0, "instrument": "X", "body": body}
    lines = [
        f"{S} {json.dumps({'tickwire': 'open', 'conn': 0})}",
        diff(1.0, (10, 12, 9), [["100", "3"]], []),
        f"{2 * S} {json.dumps(other)}",
        f"{2 * S} {json.dumps(mine)}",
        diff(2.1, (13, 14, 12), [["100", "5"]], []),
        f"{3 * S} {json.dumps({'tickwire': 'close', 'conn': 0})}",
        diff(3.1, (15, 16, 14), [["100", "5"]], []),
    ]
    rows = replay(tmp_path, lines, "imbalance(levels=1)")
    assert list(rows.sequence) == [14]


def test_empty_side_is_not_a_number_until_it_is_back(tmp_path: Path) -> None:
    lines = [
        *CAPTURE[:2],
        diff(2.5, (14, 15, 12), [["100", "0"], ["99", "0"]], []),
        diff(2.6, (16, 17, 15), [["100", "1"]], []),
        diff(2.7, (18, 19, 17), [["100", "2"]], []),
    ]
    rows = replay(tmp_path, lines, "spread()", "max(spread(), window=2)", "imbalance(levels=1)")
    value = 1e4 * 1 / 100.5
    assert rows.values.tolist() == [
        pytest.approx([value, math.nan, 0 / 2], nan_ok=True),
        pytest.approx([value, value, 1 / 3], nan_ok=True),
    ]


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1s", S),
        ("250ms", 250 * MS),
        ("1.5s", 1500 * MS),
        ("100us", 100_000),
        ("5m", 300 * S),
        ("1h", 3600 * S),
    ],
)
def test_duration(text: str, ns: int) -> None:
    assert twin.duration(text) == ns
