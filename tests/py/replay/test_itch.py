"""`tickwire replay` of ITCH day files: every row against a dictionary of orders and the NumPy twin, and what
the report says of files that are not whole."""

from __future__ import annotations

import csv
import datetime
import gzip
import zoneinfo
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import twin
from configuring import one_feed
from itch_day import OPEN_NS, Day, Stock, directory, framed, message, trading_action
from needs import compiled, recorded

from tickwire.config import Config
from tickwire.errors import ConfigError
from tickwire.launch import resolve
from tickwire.replay import replay, summary
from tickwire.venues.nasdaq_itch import NASDAQ_ITCH

DATE = "2020-01-30"
MIDNIGHT = 1_580_360_400_000_000_000


ROWS = [
    "imbalance(levels=5)",
    "queue_imbalance()",
    "spread()",
    "microprice_offset()",
    "ofi(levels=3, window='1s')",
    "mid_return(window=5)",
    "trade_flow(window='3s')",
    "trade_count(window='2s')",
    "vwap_offset(window=4)",
    "order_arrival_rate(window='1s')",
    "cancel_rate(window='700ms')",
    "zscore(order_arrival_rate('500ms'), window='2s')",
    "mean(queue_imbalance(), window=10)",
]


def config(symbols: list[str], rows: list[str] = ROWS, *, feed: str = "", features: str = "") -> Config:
    listed = ", ".join(f'"{symbol}"' for symbol in symbols)
    quoted = ", ".join(f'"{row}"' for row in rows)
    return Config.from_text(
        f'[engine]\nlayout = "inline"\n[[feeds]]\nvenue = "nasdaq_itch"\ninstruments = [{listed}]\n{feed}\n'
        f"[features]\nrows = [{quoted}]\n{features}\n"
    )


async def run(settings: Config, paths: list[Path], out: Path) -> tuple[list[dict[str, str]], Any]:
    stats = await replay(settings, {settings.feed_names[0]: [str(path) for path in paths]}, out)
    with out.open(newline="") as file:
        return list(csv.DictReader(file)), stats


def check(found: list[dict[str, str]], one: Stock, rows: list[str], **when: Any) -> int:
    truth = twin.rows_of(one.epochs, one.symbol, rows, **when)
    mine = [row for row in found if row["instrument"] == one.symbol]
    assert len(mine) == len(truth)
    for i, row in enumerate(mine):
        keys = tuple(int(row[key]) for key in ("ts_event", "ts_recv", "epoch", "row", "sequence"))
        want = (
            truth.ts_event[i],
            *(int(c[i]) for c in (truth.ts_recv, truth.epoch, truth.row, truth.sequence)),
        )
        assert keys == want, f"{one.symbol}: row {i}"
    scale = np.nanmax(np.abs(truth.values), axis=0)
    for column, name in enumerate(rows):
        values = np.array([float(row[name]) for row in mine])
        np.testing.assert_allclose(
            values, truth.values[:, column], rtol=5e-7, atol=1e-8 * scale[column], err_msg=name
        )
    return len(truth)


@compiled
@pytest.mark.parametrize(
    "when",
    [{}, {"trigger": "top"}, {"trigger": "trade"}, {"every": "100ms"}],
    ids=["book", "top", "trade", "every"],
)
async def test_rows_are_those_of_the_dictionary_of_orders(tmp_path: Path, when: dict[str, str]) -> None:
    seed = 20
    print(f"seed {seed}")
    day = Day(["AAPL", "MSFT", "OTHER"], seed=seed, midnight=MIDNIGHT)
    for one in day.stocks:
        for side in "BS" * 4:
            day.add(one, side)
        day.act(one, "T")
    for i in range(2500):
        day.step()
        if i == 1200:  # A halt ends the epoch of one of them; its orders stay.
            day.act(day.stocks[0], "H")
        if i == 1300:
            day.act(day.stocks[0], "Q")
        if i == 1400:
            day.act(day.stocks[0], "T")
    path = day.write(tmp_path / "01302020.NASDAQ_ITCH50")
    features = "\n".join(f'{key} = "{value}"' for key, value in when.items())
    settings = config(["MSFT", "AAPL"], features=features)
    found, stats = await run(settings, [path], tmp_path / "rows.csv")
    counts = [check(found, one, ROWS, **when) for one in day.stocks[:2]]
    assert min(counts) > 20
    assert {row["epoch"] for row in found if row["instrument"] == "AAPL"} == {"1", "2"}
    assert {row["instrument"] for row in found} == {"AAPL", "MSFT"}
    assert stats.count("messages") == len(day.messages)
    assert stats.notices == 1
    assert stats.count("unknown_type") == sum(text[:1] == b"Z" for text in day.messages) > 0


@compiled
async def test_each_file_is_a_session(tmp_path: Path) -> None:
    days = []
    for number, date in enumerate(("20200130", "20200131")):
        day = Day(["AAPL"], seed=30 + number, midnight=MIDNIGHT + number * 86_400 * 10**9)
        for side in "BS" * 4:
            day.add(day.stocks[0], side)
        day.act(day.stocks[0], "T")
        for _ in range(200):
            day.step()
        packed = tmp_path / f"{date}.itch.gz"
        packed.write_bytes(gzip.compress(framed(day.messages)))
        days.append((packed, day))
    rows = ["imbalance(levels=5)", "cancel_rate('1ms')"]
    found, stats = await run(config(["AAPL"], rows), [path for path, _ in days], tmp_path / "rows.csv")
    (first,), (second,) = (day.stocks[0].epochs for _, day in days)
    second.number = 2
    both = Stock("AAPL", 10, 5, epochs=[first, second])
    assert check(found, both, rows) > 200
    assert stats.notices == 1  # The first day's book ended with its file.


@compiled
async def test_recorded_messages(tmp_path: Path) -> None:
    (path,) = recorded("nasdaq_itch/aapl_20200130_first7000.itch50.gz")
    found, stats = await run(config(["AAPL"], ["spread()"]), [path], tmp_path / "rows.csv")
    # One a message that changes the book: adds, deletes, executions and cancels, all after the stock trades.
    assert len(found) == 3370 + 2890 + 528 + 4
    assert int(found[-1]["sequence"]) == 7000
    assert float(found[-1]["spread()"]) == pytest.approx(0.1 / 321.05 * 1e4)
    assert stats.count("trades") == 528 + 153
    assert stats.count("book_events") == len(found)
    assert stats.count("malformed", "unknown_type", "unknown_order", "capture_truncated") == 0


@compiled
async def test_a_cut_file_is_reported_and_not_fatal(tmp_path: Path) -> None:
    day = Day(["AAPL"], seed=4, midnight=MIDNIGHT)
    day.act(day.stocks[0], "T")
    for _ in range(100):
        day.step()
    path = tmp_path / "day"
    path.write_bytes(framed(day.messages)[:-3])
    settings = config(["AAPL"], ["imbalance(levels=1)"], feed=f'date = "{DATE}"')
    _, stats = await run(settings, [path], tmp_path / "rows.csv")
    assert stats.count("messages") == len(day.messages) - 1
    text = "\n".join(summary(stats, settings))
    assert "ends in the middle of a" in text
    assert f"message {len(day.messages)}" in text


@compiled
async def test_books_that_cannot_be_right_give_no_rows(tmp_path: Path) -> None:
    body = b"B" + (100).to_bytes(4, "big") + b"AAPL    " + (1_000_000).to_bytes(4, "big")
    messages = [directory(3, OPEN_NS, "AAPL"), trading_action(3, OPEN_NS, "AAPL", "T")]
    messages += [message(b"A", 3, OPEN_NS + i, (i + 1).to_bytes(8, "big") + body) for i in range(40)]
    path = tmp_path / f"{DATE}.itch"
    path.write_bytes(framed(messages))
    settings = config(["AAPL"], ["imbalance(levels=1)"], feed="max_orders = 16")
    found, stats = await run(settings, [path], tmp_path / "rows.csv")
    assert [int(row["sequence"]) for row in found] == list(range(3, 19))
    assert stats.notices == 1
    assert stats.count("orders_full") == 24
    assert "raise feeds[].max_orders" in "\n".join(summary(stats, settings))

    path.write_bytes(
        framed([*messages[:4], message(b"D", 3, OPEN_NS, (77).to_bytes(8, "big")), *messages[4:9]])
    )
    found, stats = await run(settings, [path], tmp_path / "rows.csv")
    assert [int(row["sequence"]) for row in found] == [3, 4]
    assert stats.gaps == 1
    assert "the input is not whole" in "\n".join(summary(stats, settings))

    path.write_bytes(framed(messages[2:]))  # Without its beginning.
    found, stats = await run(settings, [path], tmp_path / "rows.csv")
    assert found == []
    assert "no stock directory" in "\n".join(summary(stats, settings))


@compiled
def test_midnight_in_new_york() -> None:
    try:
        zone = zoneinfo.ZoneInfo("America/New_York")
    except zoneinfo.ZoneInfoNotFoundError:
        pytest.skip("no table of time zones here")
    day = datetime.date(2010, 1, 1)
    while day.year < 2031:
        midnight = datetime.datetime(day.year, day.month, day.day, tzinfo=zone)
        assert NASDAQ_ITCH.midnight_ns(day) == int(midnight.timestamp()) * 10**9, day
        day += datetime.timedelta(days=1)


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("01302020.NASDAQ_ITCH50.gz", (2020, 1, 30)),
        ("S013020-v50.txt.gz", (2020, 1, 30)),
        ("aapl_20200130_first7000.itch50.gz", (2020, 1, 30)),
        ("day-2020-01-30.itch", (2020, 1, 30)),
        ("20201301", None),
        ("day.itch", None),
    ],
)
def test_day_in_a_file_name(name: str, day: tuple[int, int, int] | None) -> None:
    assert NASDAQ_ITCH.date_of(name) == (datetime.date(*day) if day else None)


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ('source = "websocket"', 'feeds[0].source: expected "multicast" or "file" for nasdaq_itch'),
        ('source = "multicast"', 'feeds[0].multicast: required with source = "multicast"'),
        ('url = "wss://x"', "feeds[0].url: expected none for nasdaq_itch, found 'wss://x'"),
        ('date = "30 January"', 'feeds[0].date: expected a day like "2020-01-30"'),
        ("max_orders = 3", "feeds[0].max_orders: expected"),
        ('stale_after = "1s"', "feeds[0].stale_after: expected none for nasdaq_itch"),
    ],
)
def test_feed_says_what_is_wrong(feed: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(["AAPL"], feed=feed)
    assert message in str(caught.value)


def test_instruments_have_the_venues_decimals() -> None:
    settings = config(["AAPL"])
    assert (
        settings.feeds[0].instruments[0].price_decimals,
        settings.feeds[0].instruments[0].qty_decimals,
    ) == (4, 0)
    # What it effectively is can be read again.
    assert Config.from_text(settings.to_toml()).feeds == settings.feeds
    with pytest.raises(ConfigError, match="expected none, or the venue's 4"):
        Config.from_text(settings.to_toml().replace("price_decimals = 4", "price_decimals = 2"))


@compiled
def test_files_that_do_not_name_their_day_need_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected the day of x\.itch"):
        resolve(config(["AAPL"]), replay=True, inputs={"nasdaq_itch": ["x.itch"]})


def test_order_rates_need_a_feed_by_order() -> None:
    with pytest.raises(ConfigError, match="expected a venue that tells of every order, for cancel_rate"):
        one_feed(rows=["cancel_rate('1s')"])


@compiled
async def test_beside_another_feed_each_speaks_of_its_own_instruments(tmp_path: Path) -> None:
    start = MIDNIGHT + OPEN_NS
    stocks = [message for i, s in enumerate(("AAPL", "MSFT")) for message in (directory(i + 1, OPEN_NS, s),)]
    (tmp_path / "20200130.itch").write_bytes(framed(stocks))

    def diff(number: int, ts: int) -> str:
        body = (
            f'{{"e":"depthUpdate","E":{ts // 10**6},"s":"BTCUSDT","U":{number},"u":{number},'
            f'"b":[["100.00","{number}.0"]],"a":[]}}'
        )
        return f'{ts} {{"stream":"btcusdt@depth@100ms","data":{body}}}\n'

    snapshot = '{"lastUpdateId":1,"bids":[["100.00","1.0"]],"asks":[["101.00","1.0"]]}'
    (tmp_path / "spot.log").write_text(
        f'{start} {{"tickwire":"snapshot","conn":0,"instrument":"BTCUSDT","body":{snapshot}}}\n'
        + diff(2, start + 1)
        + diff(3, start + 10**10)  # Too long after the one before it.
        + diff(4, start + 10**10 + 1)
    )
    settings = Config.from_text(
        '[engine]\nlayout = "inline"\n[[feeds]]\nname = "itch"\nvenue = "nasdaq_itch"\n'
        'instruments = ["AAPL", "MSFT"]\n[[feeds]]\nname = "spot"\nvenue = "binance_spot"\nsource = "file"\n'
        'instruments = ["BTCUSDT"]\nstale_after = "1s"\n[features]\nrows = ["spread()"]\n'
    )
    inputs = {"itch": [str(tmp_path / "20200130.itch")], "spot": [str(tmp_path / "spot.log")]}
    stats = await replay(settings, inputs, tmp_path / "rows.csv")
    assert [entry.text for entry in stats.errors] == ["data_stale: BTCUSDT"]
