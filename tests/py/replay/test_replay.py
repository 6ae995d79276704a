"""Replay to files: the columns, the exactness of their text, and the summary."""

from __future__ import annotations

import csv
import struct
import sys
from pathlib import Path
from typing import Any

import fake_core
import numpy as np
import pytest
from fake_core import make_rows, notice

from tickwire.config import Config
from tickwire.errors import ConfigError, Error, MissingExtra
from tickwire.records import ModelInfo, RowLayout
from tickwire.replay import assign_inputs, replay, summary
from tickwire.stat_file import BUCKET_COUNT, Histogram
from tickwire.stats import Stats
from tickwire.table import CsvWriter, Joiner, column_names, open_writer

FEATURES = [
    "imbalance(levels=5)",
    "zscore(ofi(levels=5, window='1s'), window='30s')",
    'mean(spread(), window="1s")',
]


def layout_of(rows: Any, *outputs: str) -> RowLayout:
    return RowLayout(
        rows.dtype,
        stages=fake_core.STAGES,
        states=fake_core.STATES,
        reasons=fake_core.REASONS,
        instruments=[("BTCUSDT", "binance_spot"), ("币安", "binance_spot"), ('A"B,C', "binance_spot")],
        features=FEATURES,
        feeds=["main"] * 3,
        models=[
            ModelInfo("m", 77, outputs or tuple(f"score_{i}" for i in range(rows.dtype["scores"].shape[0])))
        ]
        if "scores" in rows.dtype.names
        else [],
    )


def read(path: Path) -> tuple[list[str], list[list[str]]]:
    with path.open(encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    return header, lines


def written(tmp_path: Path, rows: Any, *outputs: str) -> tuple[list[str], list[list[str]]]:
    path = tmp_path / "rows.csv"
    writer = CsvWriter(path, layout_of(rows, *outputs))
    for start in range(0, len(rows), 3):
        writer.write(rows[start : start + 3])
    writer.close()
    return read(path)


def test_columns_are_the_keys_the_expressions_and_the_outputs(tmp_path: Path) -> None:
    rows = make_rows(4, 3, 2)
    rows["ts_event"][1] = fake_core.NO_TIME
    rows["instrument"] = [0, 1, 2, 0]
    rows["state"][3] = fake_core.STATES.index("nonfinite")
    rows["scored"][3] = 0
    rows["missing_trades"] = [0, 0, 7, 2**32 - 1]
    header, lines = written(tmp_path, rows, "p_up", "p_down")
    assert header == [
        "ts_event",
        "ts_recv",
        "feed",
        "venue",
        "instrument",
        "epoch",
        "row",
        "sequence",
        "state",
        "missing_trades",
        *FEATURES,
        "m.p_up",
        "m.p_down",
    ]
    assert [line[0] for line in lines] == [str(rows["ts_event"][0]), "", *map(str, rows["ts_event"][2:])]
    assert [line[1] for line in lines] == [str(x) for x in rows["ts_recv"]]
    assert [line[2:4] for line in lines] == [["main", "binance_spot"]] * 4
    assert [line[4] for line in lines] == ["BTCUSDT", "币安", 'A"B,C', "BTCUSDT"]
    assert [line[5:8] for line in lines] == [["1", str(i), str(1000 + i)] for i in range(1, 5)]
    assert [line[8] for line in lines] == ["valid", "valid", "valid", "nonfinite"]
    assert [line[9] for line in lines] == ["0", "0", "7", "4294967295"]
    assert [line[13:] for line in lines][3] == ["", ""]
    assert np.float32(lines[0][13]) == rows["scores"][0, 0]


def test_notices_are_no_rows(tmp_path: Path) -> None:
    rows = make_rows(3, 3)
    _, lines = written(tmp_path, np.concatenate([rows[:1], notice(like=rows), rows[1:]]))
    assert [line[6] for line in lines] == ["1", "2", "3"]


def test_floats_are_the_shortest_text_of_the_same_float32(tmp_path: Path) -> None:
    random = np.random.default_rng(20240808)
    count = 20_000
    rows = make_rows(count, 3)
    bits = random.integers(0, 2**32, (count, 3), dtype=np.uint32)
    bits[bits & 0x7F800000 == 0x7F800000] &= 0x7F7FFFFF  # Finite: what a row may hold.
    rows["features"] = bits.view(np.float32)
    tiny = struct.unpack("<f", b"\x01\0\0\0")[0]
    rows["features"][:6, 0] = [0.1, -0.0, 1e-5, 16777216.0, 3.4028235e38, tiny]
    _, lines = written(tmp_path, rows)
    texts = [line[10:13] for line in lines]
    again = np.array(texts).astype(np.float32)
    np.testing.assert_array_equal(again.view(np.uint32), rows["features"].view(np.uint32))
    assert texts[0][0] == "0.1"
    for text, value in zip(
        np.ravel(texts).tolist()[:3000], rows["features"].ravel()[:3000].tolist(), strict=True
    ):
        mantissa = text.partition("e")[0].replace("-", "").replace(".", "").strip("0")
        # One digit fewer would be another float32.
        if len(mantissa) > 1:
            shorter = f"{value:.{len(mantissa) - 2}e}"
            assert np.float32(shorter) != np.float32(value), text


def test_integers_keep_every_digit(tmp_path: Path) -> None:
    rows = make_rows(1, 3)
    rows["sequence"] = 2**64 - 1
    rows["ts_event"] = -(2**63) + 1
    _, lines = written(tmp_path, rows)
    assert lines[0][0] == "-9223372036854775807"
    assert lines[0][7] == "18446744073709551615"


def test_no_two_columns_have_one_name() -> None:
    rows = make_rows(1, 3, 2)
    assert column_names(layout_of(rows, "state", "score"))[-2:] == ["m.state", "m.score"]
    assert column_names(layout_of(rows, "up", "up"))[-2:] == ["m.up", "m.up_2"]


def of_three_models() -> tuple[RowLayout, Any]:
    """Two feeds with an instrument of one name; three models, of which the one with the most outputs is a
    shadow and has not answered the last row yet."""
    layout = RowLayout(
        make_rows(1, 3, 4).dtype,
        stages=fake_core.STAGES,
        states=fake_core.STATES,
        reasons=fake_core.REASONS,
        instruments=[("BTCUSDT", "binance_spot"), ("BTCUSDT", "binance_usdm")],
        features=FEATURES,
        feeds=["cash", "perp"],
        models=[
            ModelInfo("wide", 1, ("a", "b", "c", "d"), shadow=True),
            ModelInfo("one", 2, ("a",)),
            ModelInfo("two", 3, ("x", "y")),
        ],
    )
    rows = np.repeat(make_rows(4, 3, 4), 3)
    rows["instrument"] = np.repeat([0, 1, 1, 0], 3)
    rows["model_id"] = np.tile([1, 2, 3], 4)
    rows["scores"] += (rows["model_id"] * 1000)[:, None]
    rows["scores"][rows["model_id"] == 2, 1:] = np.nan
    rows["scores"][rows["model_id"] == 3, 2:] = np.nan
    rows["state"][3] = fake_core.STATES.index("model_error")  # The shadow's: it is not the row's.
    rows["scored"][3], rows["scores"][3] = 0, np.nan
    return layout, np.delete(rows, 9)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_table_has_every_models_scores_and_tells_feeds_apart(tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="the parquet extra is not installed")
        import pyarrow.parquet as parquet
    layout, rows = of_three_models()
    path = tmp_path / f"rows.{ending}"
    writer = open_writer(path, layout)
    joiner = Joiner(layout, writer.write)
    for start in range(0, len(rows), 2):
        joiner.write(rows[start : start + 2])
    joiner.close()
    writer.close()
    if ending == "csv":
        header, lines = read(path)
    else:
        table = parquet.read_table(path)
        header = table.column_names
        lines = [
            ["" if cell is None else str(cell) for cell in line]
            for line in zip(*(column.to_pylist() for column in table.columns), strict=True)
        ]
    scores = ["wide.a", "wide.b", "wide.c", "wide.d", "one.a", "two.x", "two.y"]
    assert header == column_names(layout)
    assert header[2:5] == ["feed", "venue", "instrument"]
    assert header[-7:] == scores
    assert [line[2:5] for line in lines] == [
        ["cash", "binance_spot", "BTCUSDT"],
        ["perp", "binance_usdm", "BTCUSDT"],
        ["perp", "binance_usdm", "BTCUSDT"],
        ["cash", "binance_spot", "BTCUSDT"],
    ]
    assert [line[8] for line in lines] == ["valid"] * 4
    for number, line in enumerate(lines, start=1):
        first = np.float32(number / 7)
        expected = [
            np.float32(first + i) + model * 1000 for model, n in ((1, 4), (2, 1), (3, 2)) for i in range(n)
        ]
        for i, cell in enumerate(line[-7:]):
            gone = i < 4 and number in (2, 4)
            assert (cell == "") == gone
            assert gone or np.float32(cell) == np.float32(expected[i])


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    layout = layout_of(make_rows(1, 3))
    with pytest.raises(Error, match="cannot be written: No such file"):
        CsvWriter(tmp_path / "none" / "rows.csv", layout)
    with pytest.raises(ConfigError, match=r"--out: expected a file that ends in \.csv or \.parquet"):
        open_writer(tmp_path / "rows.txt", layout)


def test_parquet_without_its_extra_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"tickwire\[parquet\]"):
        open_writer(tmp_path / "rows.parquet", layout_of(make_rows(1, 3)))


def test_parquet_has_the_same_columns_typed(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the parquet extra is not installed")
    import pyarrow.parquet as parquet

    rows = make_rows(5, 3, 2)
    rows["ts_event"][1] = fake_core.NO_TIME
    rows["scored"][2] = 0
    path = tmp_path / "rows.parquet"
    writer = open_writer(path, layout_of(rows, "up", "down"))
    writer.write(rows[:3])
    writer.write(rows[3:])
    writer.close()
    table = parquet.read_table(path)
    assert table.column_names == column_names(layout_of(rows, "up", "down"))
    assert table["ts_event"].to_pylist()[1] is None
    assert table["row"].to_pylist() == [1, 2, 3, 4, 5]
    assert table["m.up"].to_pylist()[2] is None
    np.testing.assert_array_equal(table[FEATURES[0]].to_numpy(), rows["features"][:, 0])


def config(feeds: int = 1) -> Config:
    names = ["spot", "usdm"][:feeds]
    return Config.from_dict(
        {
            "feeds": [
                {"name": name, "venue": f"binance_{name}", "source": "file", "instruments": ["BTCUSDT"]}
                for name in names
            ],
            "features": {"rows": FEATURES},
        }
    )


def test_inputs_are_assigned_to_feeds_in_order(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("a.log", "b.log", "spot=c.log")]
    for file in files:
        Path(file).write_text("")
    assert assign_inputs(config(), files) == {"spot": files}
    assert assign_inputs(config(), [f"spot={files[0]}"]) == {"spot": [files[0]]}
    assigned = assign_inputs(config(2), [f"usdm={files[0]}", f"spot={files[1]}", f"usdm={files[2]}"])
    assert assigned == {"usdm": [files[0], files[2]], "spot": [files[1]]}
    with pytest.raises(ConfigError, match="expected feed=FILE with a feed of spot, usdm"):
        assign_inputs(config(2), files[:1])
    with pytest.raises(ConfigError, match="found none for usdm"):
        assign_inputs(config(2), [f"spot={files[0]}"])
    with pytest.raises(ConfigError, match=r"gone\.log: no such file"):
        assign_inputs(config(), [str(tmp_path / "gone.log")])


async def test_replay_writes_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickwire.core.extension", fake_core)
    rows = make_rows(1000, 3)
    monkeypatch.setattr(fake_core.Engine, "script", lambda engine: engine.push(rows))
    capture = tmp_path / "capture.log"
    capture.write_text("")
    seen: list[int] = []
    stats = await replay(
        config(),
        {"spot": [str(capture)]},
        tmp_path / "rows.csv",
        progress=lambda stats: seen.append(stats.rows),
    )
    _, lines = read(tmp_path / "rows.csv")
    assert [int(line[6]) for line in lines] == list(range(1, 1001))
    assert stats.rows == 1000
    assert seen


async def test_full_disk_ends_a_replay_with_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickwire.core.extension", fake_core)
    rows = make_rows(40_000, 3)
    monkeypatch.setattr(fake_core.Engine, "script", lambda engine: engine.push(rows))
    monkeypatch.setattr(fake_core.Engine, "slots", 4096)
    capture = tmp_path / "capture.log"
    capture.write_text("")
    out = tmp_path / "rows.csv"
    out.symlink_to("/dev/full")
    with pytest.raises(Error, match=r"rows\.csv: cannot be written: No space left"):
        await replay(config(), {"spot": [str(capture)]}, out)


def stats(**counters: int) -> Stats:
    empty = Histogram(np.zeros(BUCKET_COUNT, np.uint64))
    return Stats(
        seconds=2.0,
        rows=10,
        signals=10,
        notices=1,
        warming=0,
        late=0,
        latency=empty,
        stages={},
        counters={f"spot/{name}": value for name, value in counters.items()},
        histograms={},
        errors=[],
        sinks={},
        snapshots={},
        cpu_share={},
    )


def test_summary_tells_what_was_wrong() -> None:
    lines = summary(
        stats(messages=100, gaps=2, capture_lines_skipped=3, capture_truncated=1, bad_number=4, trades=5),
        config(),
    )
    assert lines[0] == (
        "100 messages, 10 rows, 2 gaps, 1 invalid, 3 malformed lines in 2.00 s, 50 messages a second"
    )
    assert "4 venue messages could not be used" in lines[1]
    assert "ends in the middle of a line" in lines[2]
    assert len(lines) == 3


def test_summary_hints_at_the_other_trade_stream() -> None:
    lines = summary(stats(messages=100, trades=0, other_trade_stream=12), config())
    assert lines[-1] == 'hint: feed spot has no trade messages but 12 of aggTrade: set trades = "aggTrade"'
    assert len(summary(stats(messages=100, trades=1, other_trade_stream=12), config())) == 1
