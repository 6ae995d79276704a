"""`tickwire replay` against the NumPy twin: every row of every recording, and of synthetic captures."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import twin
from needs import compiled, recorded

from tickwire.sim import SyntheticMarket, write_capture

pytestmark = compiled

# Every kernel, alone and wrapped, with windows of time and of counts.
ROWS = [
    "imbalance(levels=1)",
    "imbalance(levels=5)",
    "spread()",
    "microprice_offset()",
    "mid_return(window='1s')",
    "mid_return(window=20)",
    "ofi(window='500ms')",
    "ofi(levels=5, window='1s')",
    "ofi(levels=3, window=50)",
    "trade_flow(window='5s')",
    "trade_flow(window=20)",
    "trade_count(window='1s')",
    "vwap_offset(window='2s')",
    "vwap_offset(window=10)",
    "realized_vol(window='2s')",
    "realized_vol(window=100)",
    "mean(spread(), window='3s')",
    "std(imbalance(levels=3), window='1s')",
    "std(microprice_offset(), window=64)",
    "min(ofi(levels=2, window='250ms'), window='2s')",
    "max(spread(), window=50)",
    "zscore(ofi(levels=5, window='1s'), window='5s')",
    "zscore(imbalance(levels=5), window=200)",
    "ema(microprice_offset(), halflife='500ms')",
    "ema(trade_flow(window='1s'), halflife='1s')",
    "diff(imbalance(levels=1), lag=3)",
    "mean(diff(mean(microprice_offset(), window='200ms'), lag=1), window='1s')",
]


def engine_rows(tmp_path: Path, inputs: list[Path], venue: str, symbols: list[str], features: str) -> Any:
    """Rows of the command, by instrument: (keys, values)."""
    config = tmp_path / "pipeline.toml"
    instruments = ", ".join(f'"{symbol}"' for symbol in symbols)
    config.write_text(
        f'[engine]\nlayout = "inline"\n\n[[feeds]]\nvenue = "{venue}"\nsource = "file"\n'
        f"instruments = [{instruments}]\n\n[features]\n{features}\n"
    )
    out = tmp_path / "rows.csv"
    command = [sys.executable, "-c", "from tickwire.cli import main; main()", "replay", str(config)]
    command += [part for path in inputs for part in ("--input", str(path))]
    done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    by_symbol: dict[str, tuple[list[tuple[Any, ...]], list[list[float]]]] = {s: ([], []) for s in symbols}
    with out.open(newline="") as file:
        reader = csv.reader(file)
        header = next(reader)
        names = ["ts_event", "ts_recv", "feed", "venue", "instrument", "epoch", "row", "sequence"]
        names += ["state", "missing_trades"]
        assert header[: len(names)] == names
        for ts_event, ts_recv, _feed, of, symbol, epoch, row, sequence, state, missing, *values in reader:
            assert of == venue
            assert (state, missing) == ("valid", "0")
            keys, cells = by_symbol[symbol]
            event = int(ts_event) if ts_event else None
            keys.append((event, int(ts_recv), int(epoch), int(row), int(sequence)))
            cells.append([float(value) for value in values])
    return header[len(names) :], by_symbol


def compare(
    tmp_path: Path,
    inputs: list[Path],
    venue: str,
    symbols: list[str],
    rows: list[str] = ROWS,
    *,
    trigger: str = "book",
    every: str | None = None,
    clock: str = "recv",
) -> dict[str, Any]:
    quoted = ", ".join(f'"{row}"' for row in rows)
    when = f'every = "{every}"' if every else f'trigger = "{trigger}"'
    features = f'{when}\nclock = "{clock}"\nmax_event_rate = 20000\nrows = [{quoted}]'
    names, engine = engine_rows(tmp_path, inputs, venue, symbols, features)
    # A column's name is the canonical text of the expression.
    assert [twin.parse(name) for name in names] == [twin.parse(row) for row in rows]
    expected = {}
    for symbol in symbols:
        truth = twin.replay(
            inputs, venue=venue, symbol=symbol, rows=rows, trigger=trigger, every=every, clock=clock
        )
        columns = (truth.ts_recv, truth.epoch, truth.row, truth.sequence)
        keys = list(zip(truth.ts_event, *(column.tolist() for column in columns), strict=True))
        assert len(keys) > 0
        found, values = engine[symbol]
        assert len(found) == len(keys)
        for index, (one, other) in enumerate(zip(found, keys, strict=True)):
            assert one == other, f"{symbol}: row {index}"
        # A cell is the double rounded to float32; the two may add in another order before that.
        scale = np.nanmax(np.abs(truth.values), axis=0)
        for column, name in enumerate(rows):
            np.testing.assert_allclose(
                np.array(values)[:, column],
                truth.values[:, column],
                rtol=5e-7,
                atol=1e-8 * scale[column],
                err_msg=f"{symbol}: {name}",
            )
        expected[symbol] = truth
    return expected


def capture(tmp_path: Path, market: str, **options: Any) -> Path:
    path = tmp_path / f"{market}.log"
    with path.open("wb") as file:
        write_capture(SyntheticMarket(market, **options), file)
    return path


def lose_some(path: Path, symbol: str, at: int, count: int) -> None:
    """Takes diffs out of a capture, and puts a snapshot in, ten diffs later."""
    kept: list[bytes] = []
    bids: dict[str, str] = {}
    asks: dict[str, str] = {}
    seen = 0
    for line in path.read_bytes().splitlines(keepends=True):
        stamp, message = line.split(b" ", 1)
        data = json.loads(message)
        if data.get("tickwire") == "snapshot" and data["instrument"] == symbol:
            bids, asks = (dict(data["body"][side]) for side in ("bids", "asks"))
        is_diff = data.get("data", {}).get("e") == "depthUpdate" and data["data"]["s"] == symbol
        if is_diff:
            seen += 1
            for side, changes in ((bids, data["data"]["b"]), (asks, data["data"]["a"])):
                side.update(changes)
        if not (is_diff and at <= seen < at + count):
            kept.append(line)
        if is_diff and seen == at + count + 10:
            levels = [
                sorted(([p, q] for p, q in side.items() if float(q)), key=lambda x: float(x[0]), reverse=down)
                for side, down in ((bids, True), (asks, False))
            ]
            body = {"lastUpdateId": data["data"]["u"], "bids": levels[0], "asks": levels[1]}
            note = {"tickwire": "snapshot", "conn": 0, "instrument": symbol, "limit": 5000, "body": body}
            kept.append(stamp + b" " + json.dumps(note, separators=(",", ":")).encode() + b"\n")
    path.write_bytes(b"".join(kept))


@pytest.mark.parametrize("market", ["spot", "usdm", "coinm"])
@pytest.mark.parametrize(
    "when",
    [{}, {"trigger": "top"}, {"trigger": "trade"}, {"every": "100ms"}, {"clock": "event"}],
    ids=["book", "top", "trade", "every", "event-clock"],
)
def test_synthetic_capture(tmp_path: Path, market: str, when: dict[str, Any]) -> None:
    path = capture(tmp_path, market, instruments=2, rate=200, seconds=20, seed=5)
    symbols = list(SyntheticMarket(market, instruments=2).instruments)
    compare(tmp_path, [path], f"binance_{market}", symbols, **when)


@pytest.mark.parametrize("row", ROWS)
def test_warm_up_of_an_expression_alone(tmp_path: Path, row: str) -> None:
    # In a row of many, the longest warm-up hides all others.
    path = capture(tmp_path, "spot", rate=300, seconds=9, seed=8)
    compare(tmp_path, [path], "binance_spot", ["BTCUSDT"], [row])


def test_boundary_after_the_start_of_an_epoch(tmp_path: Path) -> None:
    path = capture(tmp_path, "spot", rate=100, seconds=3, seed=8)
    rows = compare(tmp_path, [path], "binance_spot", ["BTCUSDT"], ["spread()"], every="250ms")
    assert 10 <= len(rows["BTCUSDT"]) <= 13


@pytest.mark.parametrize("market", ["spot", "usdm", "coinm"])
def test_gap_starts_another_epoch_of_one_instrument(tmp_path: Path, market: str) -> None:
    path = capture(tmp_path, market, instruments=2, rate=200, seconds=25, seed=6)
    symbols = list(SyntheticMarket(market, instruments=2).instruments)
    lose_some(path, symbols[0], at=1000, count=5)
    rows = compare(tmp_path, [path], f"binance_{market}", symbols)
    assert set(rows[symbols[0]].epoch) == {1, 2}
    assert set(rows[symbols[1]].epoch) == {1}


def test_window_of_equal_values(tmp_path: Path) -> None:
    # Each of these is the same number at every event, made of other quantities, other prices or both.
    symbol, price = "SOLUSDT", 151.27
    stamp, lines = 1_722_470_400 * 10**9, list[str]()
    bids, asks = dict[str, str](), dict[str, str]()

    def add(message: dict[str, Any]) -> None:
        nonlocal stamp
        stamp += 10_000_000
        lines.append(f"{stamp} {json.dumps(message)}")

    def levels(event: int) -> tuple[dict[str, str], dict[str, str]]:
        scale = 1 + event * 7 % 11
        qty = 0.013 * (1 + event * event % 17)

        def price_of(ticks: int) -> str:
            return f"{price * ticks * scale / 1000:.8f}"

        return (
            {price_of(999): f"{qty * 3:.8f}", price_of(998): f"{qty * 5:.8f}"},
            {price_of(1001): f"{qty:.8f}", price_of(1002): f"{qty * 7:.8f}"},
        )

    def changes(before: dict[str, str], after: dict[str, str]) -> list[list[str]]:
        return [[p, "0"] for p in before if p not in after] + [[p, q] for p, q in after.items()]

    add({"e": "depthUpdate", "E": stamp // 10**6, "s": symbol, "U": 1, "u": 2, "b": [], "a": []})
    bids, asks = levels(0)
    body = {"lastUpdateId": 2, "bids": list(bids.items()), "asks": list(asks.items())}
    add({"tickwire": "snapshot", "conn": 0, "instrument": symbol, "limit": 100, "body": body})
    for event in range(1, 80):
        for k in range(2):
            side = k == 0
            scale = 1 + event * 7 % 11
            at = f"{price * 1.001 * scale:.8f}"
            qty = f"{0.0017 * (2 if side else 1) * (1 + event * 13 % 29):.8f}"
            trade = {"e": "trade", "E": stamp // 10**6, "s": symbol, "t": 2 * event + k, "p": at, "q": qty}
            add(trade | {"T": stamp // 10**6, "m": not side, "M": True})
        new_bids, new_asks = levels(event)
        update = {"e": "depthUpdate", "E": stamp // 10**6, "s": symbol, "U": event + 2, "u": event + 2}
        add(update | {"b": changes(bids, new_bids), "a": changes(asks, new_asks)})
        bids, asks = new_bids, new_asks
    path = tmp_path / "equal.log"
    path.write_text("\n".join(lines) + "\n")
    inner = [
        "imbalance(levels=1)",
        "imbalance(levels=2)",
        "queue_imbalance()",
        "spread()",
        "microprice_offset()",
    ]
    inner += [
        "trade_flow(window=2)",
        "vwap_offset(window=2)",
        "mean(spread(), window=4)",
        "max(microprice_offset(), window='30ms')",
    ]
    rows = [
        f"{outer}({x}, window={window})"
        for x in inner
        for outer, window in (("zscore", 5), ("std", "'90ms'"))
    ]
    found = compare(tmp_path, [path], "binance_spot", [symbol], rows)
    assert len(found[symbol]) > 60
    assert not found[symbol].values.any()
    # The engine's, which `compare` allows a tolerance.
    quoted = ", ".join(f'"{row}"' for row in rows)
    _, by_symbol = engine_rows(tmp_path, [path], "binance_spot", [symbol], f"rows = [{quoted}]")
    assert not np.array(by_symbol[symbol][1]).any()


RECORDINGS = {
    "spot": ("BTCUSDT", ["spot_btcusdt_20240808", "spot_btcusdt_20240809"]),
    "usdm": ("BTCUSDT", ["usdm_btcusdt_20240808"]),
    "coinm": ("BTCUSD_PERP", ["coinm_btcusd_perp_20240808", "coinm_btcusd_perp_20240809"]),
}


@pytest.mark.parametrize(
    ("market", "when"),
    [
        ("spot", {}),
        ("usdm", {}),
        ("coinm", {}),
        ("spot", {"trigger": "trade"}),
        ("usdm", {"every": "100ms", "clock": "event"}),
    ],
    ids=["spot", "usdm", "coinm", "spot-trade", "usdm-every-event-clock"],
)
def test_recording(tmp_path: Path, market: str, when: dict[str, Any]) -> None:
    symbol, names = RECORDINGS[market]
    inputs = recorded(*(f"binance/{name}.log.gz" for name in names))
    # Epochs, too: they end where the market moves beyond what the snapshot showed.
    rows = compare(tmp_path, inputs, f"binance_{market}", [symbol], **when)
    if market == "coinm":
        assert set(rows[symbol].epoch) == {1}  # No gap, and the market stays within it.
