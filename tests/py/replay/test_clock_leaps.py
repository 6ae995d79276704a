"""Stamps that are hours from those beside them: nothing of another time is in a window, and it is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from collecting import Collector
from configuring import one_feed
from needs import compiled

from tickwire.findings import findings
from tickwire.pipeline import Pipeline
from tickwire.records import Rows
from tickwire.stats import Stats

pytestmark = compiled

START = 1_700_000_000
HOUR = 3600


def capture(path: Path, recv: dict[int, int], event: dict[int, int] | None = None) -> Path:
    """A snapshot, then each second a trade and a change of the book. `recv` and `event`: of which second's
    change the stamp is another by so many seconds."""
    book = {"lastUpdateId": 100, "bids": [["99.00", "1.0"]], "asks": [["101.00", "1.0"]]}
    lines = [f"{START}000000000 {json.dumps(book)}"]
    for i in range(1, 61):
        at = START + i
        trade = {"e": "trade", "E": at * 1000, "s": "BTCUSDT", "t": i, "p": "100", "q": "1", "T": at * 1000}
        lines.append(f"{at}100000000 {json.dumps({**trade, 'm': False})}")
        sent = (at + (event or {}).get(i, 0)) * 1000
        diff = {"e": "depthUpdate", "E": sent, "s": "BTCUSDT", "U": 100 + i, "u": 100 + i, "a": []}
        lines.append(
            f"{at + recv.get(i, 0)}200000000 {json.dumps({**diff, 'b': [['98.00', f'{1 + i % 5}.5']]})}"
        )
    path.write_text("\n".join(lines) + "\n")
    return path


async def replayed(path: Path, clock: str = "recv") -> tuple[Rows, list[tuple[int, str]], Stats, list[str]]:
    """The rows, the notices by (row before, reason), and what is said of it."""
    config = one_feed(rows=['trade_count(window="10s")'], feed={"source": "file"}, features={"clock": clock})
    async with Pipeline.replay(config, [path]) as pipeline:
        collector = Collector(pipeline)
        await pipeline.run_until()
        layout = pipeline.layout
    stats = pipeline.stats()
    records = collector.records
    notices = [(i, layout.reason(int(r["reason"]))) for i, r in enumerate(records) if r["row"] == 0]
    return collector.rows, notices, stats, findings(stats, config)


@pytest.mark.parametrize(
    ("recv", "leaps"),
    [
        ({20: HOUR}, 2),  # One stamp ahead: the one behind it is back.
        ({20: -HOUR}, 2),
        ({20: HOUR, 21: HOUR}, 4),  # The trade between the two is right.
        (dict.fromkeys(range(20, 61), HOUR), 82 - 1),
    ],
)
async def test_a_stamp_of_another_time_is_in_no_window(
    recv: dict[int, int], leaps: int, tmp_path: Path
) -> None:
    rows, notices, stats, said = await replayed(capture(tmp_path / "c.log", recv))
    # A trade a second: never more than ten in ten seconds, whatever the stamps.
    assert rows["features"].max() == 10.0
    assert (rows["features"] == 10.0).all()
    assert stats.count("clock_leaps") == leaps
    assert notices[0][1] == "clock"
    assert any("clock_leap: binance_spot: a receive stamp is 3" in line for line in said)
    assert any(f"{leaps:,} stamps are more than ten minutes from the newest" in line for line in said)


async def test_an_epoch_goes_on_as_if_it_began_behind_the_leap(tmp_path: Path) -> None:
    rows, notices, _, _ = await replayed(capture(tmp_path / "c.log", {20: HOUR}))
    before, after = rows[rows["epoch"] == 1], rows[rows["epoch"] == 2]
    assert [reason for _, reason in notices] == ["clock"]
    assert len(before) == 19 - 1 - 9  # The first change begins the epoch, and ten seconds fill the window.
    # The trade of second 21 is the one whose stamp is back, the change of it begins the epoch.
    assert int(after["sequence"][0]) == 100 + 31
    assert after["row"].tolist() == list(range(1, len(after) + 1))
    assert int(after["sequence"][-1]) == 160


async def test_less_than_ten_minutes_is_no_leap(tmp_path: Path) -> None:
    _, notices, stats, said = await replayed(capture(tmp_path / "c.log", dict.fromkeys(range(20, 61), 590)))
    assert stats.count("clock_leaps") == 0
    assert notices == []
    assert said == []


PAUSES = {"an hour": HOUR, "a weekend": 2 * 24 * HOUR}


@pytest.mark.parametrize("clock", ["recv", "event"])
@pytest.mark.parametrize("pause", PAUSES.values(), ids=PAUSES)
async def test_a_pause_of_the_market_is_no_leap(pause: int, clock: str, tmp_path: Path) -> None:
    """From second 20 on all is later by as much, by the venue's clock as well."""
    lines = []
    for line in capture(tmp_path / "c.log", {}).read_text().splitlines():
        stamp, body = line.split(" ", 1)
        message = json.loads(body)
        if int(stamp) >= (START + 20) * 10**9:
            stamp = str(int(stamp) + pause * 10**9)
            message |= {name: message[name] + pause * 1000 for name in ("E", "T") if name in message}
        lines.append(f"{stamp} {json.dumps(message)}")
    (tmp_path / "paused.log").write_text("\n".join(lines) + "\n")
    rows, notices, stats, said = await replayed(tmp_path / "paused.log", clock)
    assert (stats.count("clock_leaps"), notices, said) == (0, [], [])
    # Trades of the last ten seconds: behind the pause the window fills again.
    assert rows["sequence"].tolist() == list(range(111, 161))
    assert rows["features"].ravel().tolist() == [10.0] * 9 + [float(min(i, 10)) for i in range(1, 42)]


async def test_a_capture_after_another_ends_the_epoch_for_what_is_missing(tmp_path: Path) -> None:
    first = capture(tmp_path / "c.log", {}).read_text()
    second = capture(tmp_path / "d.log", {}).read_text()
    for old, new in ((START, START + 5 * HOUR), (START + 60, START + 60 + 5 * HOUR)):
        second = second.replace(str(old)[:7], str(new)[:7])
    second = second.replace('"u": 1', '"u": 9').replace('"U": 1', '"U": 9').replace(": 100", ": 900")
    (tmp_path / "both.log").write_text(first + second)
    _, notices, stats, said = await replayed(tmp_path / "both.log")
    assert stats.count("clock_leaps") == 0
    assert [reason for _, reason in notices] == ["gap"]
    assert not any("clock" in line for line in said)


def partial_books(path: Path, pause: int, between: str = "") -> Path:
    """The spot market's partial books, which have no stamp of the venue; a pause before the thirtieth."""
    lines = []
    for i in range(1, 61):
        at = START + i + (pause if i >= 30 else 0)
        book = {"lastUpdateId": 100 + i, "bids": [["99", f"{1 + i % 5}"]], "asks": [["101", "1"]]}
        if i == 30 and between:
            lines.append(f"{at}000000000 {between}")
        lines.append(f"{at}000000000 {json.dumps({'stream': 'btcusdt@depth5', 'data': book})}")
    path.write_text("\n".join(lines) + "\n")
    return path


async def test_without_a_stamp_of_the_venue_the_recording_says_whether_it_was_a_silence(
    tmp_path: Path,
) -> None:
    """Live, the monotonic clock measures it; in anybody's capture nobody knows."""
    quiet = '{"tickwire":"quiet","conn":0}'
    for pause, between, reasons in ((HOUR, "", ["clock"]), (HOUR, quiet, []), (-HOUR, quiet, ["clock"])):
        path = partial_books(tmp_path / "c.log", pause, between)
        _, notices, stats, _ = await replayed(path)
        assert [reason for _, reason in notices] == reasons
        assert stats.count("clock_leaps") == len(reasons)


async def test_a_quote_moves_no_window_and_is_held_against_no_clock(tmp_path: Path) -> None:
    lines = capture(tmp_path / "c.log", {}).read_text().splitlines()
    quote = {"u": 5, "s": "BTCUSDT", "b": "99.00", "B": "1.0", "a": "101.00", "A": "1.0"}
    lines.insert(60, f"{START + HOUR}000000000 {json.dumps(quote)}")
    (tmp_path / "quoted.log").write_text("\n".join(lines) + "\n")
    _, notices, stats, said = await replayed(tmp_path / "quoted.log")
    assert (stats.count("quotes"), stats.count("clock_leaps"), notices, said) == (1, 0, [], [])


async def test_the_venues_clock_decides_where_windows_go_by_it(tmp_path: Path) -> None:
    path = capture(tmp_path / "c.log", {}, {20: HOUR})
    rows, notices, stats, said = await replayed(path, "event")
    assert stats.count("clock_leaps") == 2
    assert (rows["features"] == 10.0).all()
    # The notes name the last of them.
    assert any("clock_leap: binance_spot: a stamp of the venue is 36" in line for line in said)
    assert any(" s behind the newest before it: the books are suspect" in line for line in said)
    rows, notices, stats, said = await replayed(path, "recv")
    assert (stats.count("clock_leaps"), notices, said) == (0, [], [])


async def test_the_time_between_two_connections_is_no_leap(tmp_path: Path) -> None:
    first = capture(tmp_path / "c.log", {}).read_text()
    later = capture(tmp_path / "d.log", dict.fromkeys(range(1, 61), HOUR)).read_text()
    again = [line for line in later.splitlines() if '"trade"' not in line]
    again[0] = again[0].replace(str(START), str(START + HOUR))
    close = [
        f'{START + HOUR - 2}000000000 {{"tickwire":"close","conn":0}}',
        f'{START + HOUR - 1}000000000 {{"tickwire":"open","conn":0}}',
    ]
    (tmp_path / "both.log").write_text(first + "\n".join([*close, *again]) + "\n")
    _, notices, stats, _ = await replayed(tmp_path / "both.log")
    assert stats.count("clock_leaps") == 0
    assert [reason for _, reason in notices] == ["disconnected"]
