#!/usr/bin/env python3
"""Do two versions give the same rows and scores of the same recordings, bit for bit?

    tools/same_rows.py make SUMS.json [--tree DIR] [--data DIR]
    tools/same_rows.py compare BEFORE.json AFTER.json

`make` replays each recording of `--data` (else TICKWIRE_DATA, else ../shared/data) with the tickwire that is
set up in `--tree` (else this one), in every layout, with every kernel and a model that looks at each of them,
and writes the SHA-256 of each column but those of our own clock. Without recordings it takes synthetic ones,
which the tree's simulator makes and which are the same each time. `compare` names what differs and exits with
1. Run `make` with the version before a change, and with the one after it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.compute as pc
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("TICKWIRE_DATA", ROOT.parent / "shared" / "data"))
LAYOUTS = ("inline", "threads", "processes")

# Of our own clock: what a run took.
OURS = ("ts_out", "stages")

PRICE_ROWS = [
    "imbalance(levels=5)",
    "spread()",
    "microprice_offset()",
    "mid_return(window='1s')",
    "ofi(levels=5, window='1s')",
    "ofi(levels=3, window=50)",
    "trade_flow(window='5s')",
    "trade_count(window='1s')",
    "vwap_offset(window='2s')",
    "realized_vol(window=100)",
    "mean(spread(), window='3s')",
    "std(microprice_offset(), window=64)",
    "min(ofi(levels=2, window='250ms'), window='2s')",
    "max(spread(), window=50)",
    "zscore(ofi(levels=5, window='1s'), window='5s')",
    "ema(microprice_offset(), halflife='500ms')",
    "diff(imbalance(levels=1), lag=3)",
]
ORDER_ROWS = [
    "queue_imbalance()",
    "order_arrival_rate(window='1s')",
    "cancel_rate(window='1s')",
    "imbalance(levels=2)",
    "ofi(levels=2, window=20)",
    "trade_flow(window=20)",
    "zscore(spread(), window=50)",
]


@dataclass
class Recording:
    name: str
    venue: str
    instrument: str
    files: list[Path]
    feed: dict[str, Any] = field(default_factory=dict)
    trigger: str = "book"


def recordings(data: Path) -> list[Recording]:
    binance = data / "binance"
    found = [
        Recording(name, f"binance_{market}", symbol, sorted(binance.glob(f"{name}_*.log.gz")), {}, trigger)
        for name, market, symbol in (
            ("spot_btcusdt", "spot", "BTCUSDT"),
            ("usdm_btcusdt", "usdm", "BTCUSDT"),
            ("coinm_btcusd_perp", "coinm", "BTCUSD_PERP"),
        )
        for trigger in ("book", "trade", "top")
    ]
    day = data / "nasdaq_itch" / "aapl_20200130_first7000.itch50.gz"
    found.append(Recording("aapl", "nasdaq_itch", "AAPL", [day], {"max_orders": 10_000}))
    return [each for each in found if each.files and all(file.is_file() for file in each.files)]


def synthetic(python: Path, folder: Path) -> list[Recording]:
    """Where there are no recordings."""
    program = (
        "import sys\n"
        "from tickwire.sim import SyntheticMarket, write_capture\n"
        "with open(sys.argv[1], 'wb') as file:\n"
        "    write_capture(SyntheticMarket(sys.argv[2], rate=500, seed=7, seconds=20), file)\n"
    )
    found = []
    for product, symbol in (("spot", "BTCUSDT"), ("usdm", "BTCUSDT"), ("coinm", "BTCUSD_PERP")):
        path = folder / f"{product}.log"
        subprocess.run([python, "-c", program, path, product], check=True)
        found.append(Recording(f"synthetic_{product}", f"binance_{product}", symbol, [path]))
    return found


def document(recording: Recording, layout: str, model: str | None) -> str:
    """The configuration as TOML."""
    rows = ORDER_ROWS if recording.venue == "nasdaq_itch" else PRICE_ROWS
    tables: list[tuple[str, dict[str, Any]]] = [
        ("[engine]", {"layout": layout}),
        (
            "[[feeds]]",
            {
                "name": "feed",
                "venue": recording.venue,
                "source": "file",
                "instruments": [recording.instrument],
            }
            | recording.feed,
        ),
        ("[features]", {"trigger": recording.trigger, "rows": rows}),
    ]
    if model:
        tables.append(("[model]", {"path": model}))
    text = "".join(
        f"{head}\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for head, table in tables
    )
    tomllib.loads(text)
    return text


def write_model(path: Path, cells: int) -> None:
    """Two dense layers with fixed weights, so that a score depends on each cell of its row."""
    rng = np.random.default_rng(11)
    weights = {
        "w1": rng.normal(size=(cells, 16)).astype(np.float32),
        "b1": rng.normal(size=16).astype(np.float32),
        "w2": rng.normal(size=(16, 3)).astype(np.float32),
        "b2": rng.normal(size=3).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["features", "w1", "b1"], ["h1"]),
            helper.make_node("Tanh", ["h1"], ["h2"]),
            helper.make_node("Gemm", ["h2", "w2", "b2"], ["score"]),
        ],
        "same_rows",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, cells])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def column_sums(path: Path) -> Iterator[tuple[str, str]]:
    table = pq.read_table(path)
    keys = [(key, "ascending") for key in ("instrument", "epoch", "row") if key in table.column_names]
    table = table.take(pc.sort_indices(table, keys))
    yield "rows", str(table.num_rows)
    for name in table.column_names:
        if name.startswith(OURS):
            continue
        values = table[name].combine_chunks().to_numpy(zero_copy_only=False)
        content = json.dumps(values.tolist()).encode() if values.dtype == object else values.tobytes()
        yield name, hashlib.sha256(content).hexdigest()


def sums_of(program: Path, recording: Recording, layout: str, folder: Path) -> dict[str, str]:
    config, model, out = folder / "same.toml", folder / "same.onnx", folder / "same.parquet"
    rows = ORDER_ROWS if recording.venue == "nasdaq_itch" else PRICE_ROWS
    write_model(model, len(rows))
    config.write_text(document(recording, layout, None), encoding="utf-8")
    subprocess.run(
        [program, "model", "bind", model, "--config", config], check=True, stdout=subprocess.DEVNULL
    )
    config.write_text(document(recording, layout, model.name), encoding="utf-8")
    out.unlink(missing_ok=True)
    inputs = [word for file in recording.files for word in ("--input", str(file))]
    subprocess.run(
        [program, "replay", config, *inputs, "--out", out],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return dict(column_sums(out))


def make(options: argparse.Namespace) -> int:
    python = options.tree.resolve() / ".venv" / "bin" / "python"
    program = python.with_name("tickwire")
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory(prefix="same_rows.") as name:
        folder = Path(name)
        of = recordings(options.data) or synthetic(python, folder)
        for recording in of:
            for layout in LAYOUTS:
                label = f"{recording.name}, {recording.trigger}, {layout}"
                found[label] = sums_of(program, recording, layout, folder)
                print(f"{label}: {found[label]['rows']} rows", flush=True)
    options.sums.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


def compare(options: argparse.Namespace) -> int:
    before = json.loads(options.before.read_text(encoding="utf-8"))
    after = json.loads(options.after.read_text(encoding="utf-8"))
    wrong = [f"{label}: only in one of the two" for label in sorted(before.keys() ^ after.keys())]
    for label in sorted(before.keys() & after.keys()):
        wrong += [
            f"{label}: {column} differs"
            for column in sorted(before[label].keys() | after[label].keys())
            if before[label].get(column) != after[label].get(column)
        ]
    for line in wrong:
        print(line)
    rows = sum(int(after[label]["rows"]) for label in after)
    print(f"{len(after)} replays, {rows} rows: {f'{len(wrong)} differences' if wrong else 'the same bits'}")
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("make")
    command.add_argument("sums", type=Path)
    command.add_argument("--tree", type=Path, default=ROOT)
    command.add_argument("--data", type=Path, default=DATA)
    command.set_defaults(run=make)
    command = commands.add_parser("compare")
    command.add_argument("before", type=Path)
    command.add_argument("after", type=Path)
    command.set_defaults(run=compare)
    options = parser.parse_args()
    result: int = options.run(options)
    return result


if __name__ == "__main__":
    sys.exit(main())
