"""What a newcomer gets wrong, and what is said of each: tables to read.

What is said names the place, what was found, what was expected and what to do. Left what is wrong, right a
part of the answer; a `*` stands for what does not matter here.
"""

# ruff: noqa: E501 (a table's line is as long as it is)

from __future__ import annotations

import fnmatch
import gzip
import json
import logging
import os
import pickle
import re
import struct
import sys
import zlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from aiohttp import web
from multicast_rig import market
from needs import compiled
from onnx import TensorProto, helper
from packets import OPEN, capture, frames, packet, stream
from scripted import ScriptedVenue, config_of
from spot_lines import SNAPSHOT, START, STEP, diff, lines, tarred, text_of, trade, zipped
from waiting import until

from tickwire import models
from tickwire.cli import main
from tickwire.config import Config
from tickwire.pipeline import Pipeline

pytestmark = compiled

# --- Configurations: lines that take the place of those below, by key --------------------------------------

PIPELINE = {
    "engine": 'layout = "inline"',
    "venue": 'venue = "binance_spot"',
    "source": 'source = "file"',
    "instruments": 'instruments = ["BTCUSDT"]',
    "rows": 'rows = ["spread()"]',
    "features": "",
    "end": "",
}


def pipeline(**changes: str) -> str:
    lines = {**PIPELINE, **changes}
    feed = "\n".join(lines[key] for key in ("venue", "source", "instruments"))
    features = f"[features]\n{lines['rows']}\n{lines['features']}"
    return f"[engine]\n{lines['engine']}\n[[feeds]]\n{feed}\n{features}\n{lines['end']}\n"


CONFIGURATIONS = [
    ({"instruments": 'instruments = ["ETH/USDT"]'}, "expected the venue's own symbol, as 'ETHUSDT', found 'ETH/USDT'"),
    ({"instruments": 'instruments = ["btcusdt"]'}, "expected the venue's upper-case symbol, as 'BTCUSDT', found 'btcusdt'"),
    ({"instruments": 'instruments = "BTCUSDT"'}, "feeds[0].instruments: expected a list, found 'BTCUSDT'"),
    ({"instruments": "instruments = []"}, "feeds[0].instruments: expected at least one, found []"),
    ({"instruments": 'instruments = ["BTCUSDT", "BTCUSDT"]'}, "expected each instrument of binance_spot once*"),
    ({"venue": 'venue = "binance"'}, 'feeds[0].venue: expected one of "binance_spot"*nearest known: binance_spot*'),
    ({"venue": 'venue = "nyse"'}, 'feeds[0].venue: expected one of "binance_spot"*found \'nyse\''),
    ({"venue": ""}, "feeds[0].venue: required"),
    ({"venue": 'venu = "binance_spot"'}, "feeds[0].venu: unknown key, found 'binance_spot'; nearest known key: venue"),
    ({"rows": 'rows = ["mid()"]'}, "features.rows[0]: unknown kernel 'mid' at column 1, did you mean 'mid_return'?"),
    ({"rows": 'rows = ["price()"]'}, "features.rows[0]: unknown kernel 'price' at column 1, known: imbalance, *"),
    ({"rows": 'rows = ["imbalance(level=5)"]'}, "'imbalance' has no parameter 'level'*did you mean 'levels'?"),
    ({"rows": 'rows = ["zscore(spread(), 30)", "ofi(5, 1s)"]'}, "features.rows[1]: *"),
    ({"rows": 'rows = ["spread"]'}, "features.rows[0]: expected '(' after 'spread', found the end at column 7"),
    ({"rows": 'rows = ["order_arrival_rate(\'1s\')"]'}, "feeds[0].venue: expected a venue that tells of every order, for order_arrival_rate(), found 'binance_spot'"),
    ({"rows": "rows = []"}, "features.rows: expected at least one, found []"),
    ({"features": 'every = "100"'}, "features.every: expected a duration like \"250ms\", \"1s\" or \"23h50m\", found '100'"),
    ({"features": "every = 100"}, 'features.every: expected a duration like "250ms", "1s" or "23h50m", found 100'),
    ({"features": 'trigger = "books"'}, 'features.trigger: expected one of "book", "top", "trade"; nearest known: book*'),
    ({"engine": 'layout = "thread"'}, 'engine.layout: expected one of "inline", "threads", "processes"; nearest known: threads*'),
    ({"engine": 'layout = "inline'}, "pipeline.toml: not TOML: *line 2*"),
    ({"end": '[model]\npath = "none.onnx"'}, "none.onnx: expected an ONNX model, found No such file or directory; name a file that"),
    ({"end": '[[sinks]]\ntype = "kafka"'}, "sinks[0].type: expected one of *found 'kafka'"),
    ({"end": "[modell]\npath = 1"}, "modell: unknown key, found {'path': 1}; nearest known key: model"),
]  # fmt: skip


def says(text: str, expected: str) -> bool:
    """Is `expected`, in which * stands for anything, a part of the text? However its lines are broken."""
    flat = " ".join(text.split())
    pattern = "*" + re.sub(r"([\[\]?])", r"[\1]", expected) + "*"
    return fnmatch.fnmatchcase(flat, pattern)


def command(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    """The exit code."""
    monkeypatch.setattr(sys, "argv", ["tickwire", *map(str, words)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize(("changes", "expected"), CONFIGURATIONS, ids=[repr(c) for c, _ in CONFIGURATIONS])
def test_configuration(
    changes: dict[str, str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text(pipeline(**changes))
    capture = tmp_path / "c.log"
    capture.write_text("")
    code = command(monkeypatch, "replay", file, "--input", capture)
    found = capsys.readouterr()
    assert code == 2, found
    assert found.out == ""
    assert says(found.err, expected), found.err
    assert found.err.startswith(f"tickwire: {tmp_path}")


# --- Models: what makes the file, and what bind says --------------------------------------------------------


def graph(
    nodes: list[onnx.NodeProto],
    outputs: list[onnx.ValueInfoProto] | None = None,
    inputs: list[onnx.ValueInfoProto] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    made = helper.make_graph(nodes, "g", inputs or [tensor("x", [1, 1])], outputs or [tensor("y", [1, 1])])
    model = helper.make_model(made, opset_imports=opsets)
    model.ir_version = 8
    return model


def tensor(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, outputs, **attributes)


def cast(kind: int) -> Callable[[Path], object]:
    return saved(graph([node("Cast", ["x"], ["y"], to=kind)], [tensor("y", [1, 1], kind)]))


def saved(model: onnx.ModelProto) -> Callable[[Path], object]:
    return lambda path: onnx.save(model, path)


def zipmap() -> onnx.ModelProto:
    classes = helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0])
    kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    output = helper.make_value_info("y", helper.make_sequence_type_proto(kind))
    return graph([classes], [output])


def outside(path: Path) -> None:
    model = graph([node("Add", ["x", "w"], ["y"])])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 1), np.float32), "w"))
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
        convert_attribute=False,
    )


def demo(path: Path) -> None:
    settings = Config.from_text(pipeline(rows='rows = ["imbalance(5)", "spread()"]'))
    models.make_demo_model(path, settings.schema())


MODELS = [
    ("nothing", lambda path: None, "expected an ONNX model, found No such file or directory"),
    ("a folder", Path.mkdir, "expected an ONNX model, found a folder"),
    ("an empty file", Path.touch, "expected an ONNX model, found an empty file; export the model again"),
    ("a text", lambda path: path.write_text("hello"), "found a file that is none or is damaged*export the model again"),
    ("endless zeros", lambda path: path.symlink_to("/dev/zero"), "expected an ONNX model, found a device"),
    ("a classifier as converted", saved(zipmap()), "convert it with options={'zipmap': False} (skl2onnx) or zipmap=False"),
    ("doubles", cast(TensorProto.DOUBLE), "found y: float64[1, 1]; y: cast it to float32 inside the model"),
    ("halves", cast(TensorProto.FLOAT16), "found y: float16[1, 1]; y: cast it to float32 inside the model"),
    ("labels alone", cast(TensorProto.INT64), "found y: int64[1, 1]; export what it is computed from, scores or"),
    ("double inputs", saved(graph([node("Cast", ["x"], ["y"], to=1)], None, [tensor("x", [1, 1], 11)])), "found x: float64[1, 1]; cast it inside the model"),
    ("another width", saved(graph([node("ReduceSum", ["x"], ["y"])], None, [tensor("x", [1, 7])])), "expected one input of float32[1, 1], found x: float32[1, 7]; features.rows and features.window_rows must"),
    ("weights elsewhere", outside, "found weights in another*save it with torch.onnx.export(…, external_data=False)"),
    ("random numbers", saved(graph([node("RandomNormalLike", ["x"], ["y"])])), "found the operator RandomNormalLike, which draws random numbers; export the model for inference"),
    ("an unknown operator", saved(graph([node("Frobnicate", ["x"], ["y"])])), "this ONNX Runtime lacks the operator; export without it"),
    ("a future opset", saved(graph([node("Relu", ["x"], ["y"])], opset=99)), "export it with an older opset, or install a newer onnxruntime"),
    ("two inputs", saved(graph([node("Add", ["x", "z"], ["y"])], None, [tensor("x", [1, 1]), tensor("z", [1, 1])])), "found 2 inputs: *; join them into one, inside the model"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "expected"), [case[1:] for case in MODELS], ids=[case[0] for case in MODELS]
)
def test_model(
    make: Callable[[Path], object],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, file = tmp_path / "m.onnx", tmp_path / "pipeline.toml"
    file.write_text(pipeline())
    make(path)
    code = command(monkeypatch, "model", "bind", path, "--config", file)
    found = capsys.readouterr()
    assert code == 2, found
    assert found.out == ""
    assert says(found.err, expected), found.err
    assert found.err.startswith(f"tickwire: {path}")


# --- Captures: what the file holds, what is configured otherwise, and what a replay says ---------------------

WHOLE = text_of(lines())
TORN = WHOLE.replace(b'"u":110,"b"', b'"u":110,"b')
SPACES = WHOLE.replace(b" {", b"   {")
POLLED = [
    (START + i * STEP, {"stream": "btcusdt@depthSnapshot", "data": SNAPSHOT | {"lastUpdateId": 15 + i}})
    for i in range(9)
]
BITMEX = {"table": "orderBookL2", "action": "update", "data": [{"symbol": "XBTUSD", "id": 8, "side": "Buy"}]}
GATE = {
    "channel": "spot.order_book_update",
    "event": "update",
    "result": {"e": "depthUpdate", "s": "BTC_USDT", "U": 1, "u": 2, "b": [], "a": []},
}
UPBIT = {"type": "orderbook", "code": "KRW-BTC", "orderbook_units": [{"ask_price": 2, "bid_price": 1}]}
BITFINEX: Any = [17082, [2500.1, 1, 0.3]]
BYBIT = {"topic": "orderbook.50.BTCUSDT", "type": "delta", "data": {"s": "BTCUSDT", "b": [], "a": []}}
MICRO = text_of(lines(), lambda at: str(at // 1000)).splitlines(keepends=True)
MIXED = b"".join(
    pair[i % 2] for i, pair in enumerate(zip(WHOLE.splitlines(keepends=True), MICRO, strict=True))
)


def replaced(number: int, **changes: Any) -> bytes:
    """The usual capture, but for one of its diffs."""
    return text_of(
        [
            (at, diff(number, **changes) if message.get("data", {}).get("u") == 10 * number + 10 else message)
            for at, message in lines()
        ]
    )


def without(number: int) -> bytes:
    return text_of([line for line in lines() if line[1].get("data", {}).get("u") != 10 * number + 10])


def replaced_trades(one: int, other: int) -> bytes:
    """These two swap their places."""
    ids = {one: other, other: one}
    return text_of(
        [
            (at, trade(ids[n]) if (n := message.get("data", {}).get("t")) in ids else message)
            for at, message in lines()
        ]
    )


def two_books() -> list[Any]:
    """The usual capture beside that of another instrument, which does not trade."""
    out = []
    for at, message in lines():
        if "lastUpdateId" in message:
            for symbol in ("btcusdt", "ethusdt"):
                out.append((at, {"stream": f"{symbol}@snapshot", "data": message}))
            continue
        out.append((at, message))
        if (last := message["data"].get("u")) is not None:
            out.append((at, diff(last // 10 - 1, symbol="ETHUSDT")))
    return out


def snapshot_of(**changes: Any) -> bytes:
    return text_of(
        [(at, message | changes if "lastUpdateId" in message else message) for at, message in lines()]
    )


def levels(count: int, depth: int) -> list[dict[str, Any]]:
    """Partial books of so many levels, as their stream sends them."""
    side = [[f"{100 - i}.0", "1.0"] for i in range(depth)], [[f"{101 + i}.0", "1.0"] for i in range(depth)]
    return [
        {"stream": f"btcusdt@depth{depth}", "data": {"lastUpdateId": i, "bids": side[0], "asks": side[1]}}
        for i in range(1, count)
    ]


TRADES = {"rows": 'rows = [\'trade_count(window="1s")\', "spread()"]'}


def bare(count: int, depth: int, *, beside: bool = True, every: int = STEP) -> bytes:
    """Partial books as their stream sends them without its wrapper, beside the usual capture."""
    some = [(START + 10 + i * every, message["data"]) for i, message in enumerate(levels(count, depth))]
    return text_of(sorted([*(lines() if beside else []), *some], key=lambda line: line[0]))


def futures_partial(number: int) -> dict[str, Any]:
    side = [[f"{100 - i}.0", "1.0"] for i in range(5)], [[f"{101 + i}.0", "1.0"] for i in range(5)]
    data: dict[str, Any] = diff(number, pu=10 * number, b=side[0], a=side[1])["data"]
    return data


# Raw messages of a futures market: each change is followed by the partial book of the same moment.
FUTURES_BESIDE = text_of(
    [
        *((START + i * STEP, diff(i, pu=10 * i)["data"]) for i in range(9)),
        (START + STEP + 1, SNAPSHOT | {"lastUpdateId": 20}),
        *((START + i * STEP + 2, futures_partial(i)) for i in range(9)),
    ]
)
FUTURES_BESIDE = b"".join(sorted(FUTURES_BESIDE.splitlines(keepends=True)))
OTHERS = {"stream": "ethusdt@depth@100ms"}
BESIDE = text_of([*lines(), *((START + i, message) for i, message in enumerate(levels(4, 5)))])
FUTURES = text_of([(START + i, diff(i, pu=10 * i)) for i in range(9)])
ITCH_FEED = {"venue": 'venue = "nasdaq_itch"', "instruments": 'instruments = ["TW00001"]'}

CAPTURES: list[tuple[str, str, bytes | None, dict[str, str], int, str]] = [
    ("a file that is not there", "c.log", None, {}, 2, "--input: */c.log: no such file"),
    ("nothing", "c.log", b"", {}, 0, "binance_spot BTCUSDT never became valid: no message came"),
    ("a text", "c.log", b"hello\nworld\n", {}, 0, "c.log:1: not a capture line: expected TIME, a space and a message*(2 times)*never became valid: none of its 2 lines could be read"),
    ("a line of text", "c.log", b"hello\n", {}, 0, "c.log:1: not a capture line*(1 time)*never became valid: its only line could not be read"),
    ("a long text that is cut", "c.log", b"hello\n" * 800 + WHOLE[:30], {}, 0, "the file ends in the middle of a line (1 time)*c.log:1: not a capture line*(800 times)*none of its 800 lines could be read"),
    ("trades alone", "c.log", text_of([line for line in lines(snapshot=False) if "t" in line[1]["data"]]), {}, 0, "none of its 7 messages changes a book (7 trades): the stream of its changes (depth) is missing"),
    ("an answer alone", "c.log", text_of([(START, {"result": None, "id": 1})]), {}, 0, "its only message changes no book (1 answer or message of other streams)"),
    ("UTF-16", "c.log", WHOLE.decode().encode("utf-16"), {}, 2, "*/c.log: *UTF-16 text; convert it"),
    ("packets for a venue of lines", "c.pcap", b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00" + bytes(32), {}, 2, "*/c.pcap: *a capture of packets (pcap)"),
    ("a day file for a venue of lines", "c.itch", b"\x00\x0cS" + bytes(11), {}, 2, "*/c.itch: *a day file of NASDAQ ITCH"),
    ("UTF-32", "c.log", WHOLE.decode().encode("utf-32"), {}, 2, "*/c.log: *UTF-32 text; convert it"),
    ("zlib", "c.z", zlib.compress(WHOLE), {}, 2, "*/c.z: *a zlib stream; unpack it: pigz -dz"),
    ("zlib, quickly", "c.z", zlib.compress(WHOLE, 1), {}, 2, "*/c.z: *a zlib stream; unpack it: pigz -dz"),
    ("zlib, well", "c.z", zlib.compress(WHOLE, 9), {}, 2, "*/c.z: *a zlib stream; unpack it: pigz -dz"),
    ("lz4", "c.lz4", b"\x04\x22\x4d\x18" + bytes(40), {}, 2, "*/c.lz4: *an lz4 file; unpack it: lz4 -d"),
    ("snappy", "c.sz", b"\xff\x06\x00\x00sNaPpY" + bytes(40), {}, 2, "*/c.sz: *a snappy file; unpack it"),
    ("lzip", "c.lz", b"LZIP\x01" + bytes(40), {}, 2, "*/c.lz: *an lzip file; unpack it: lzip -d"),
    ("tar", "c.tar", tarred(WHOLE), {}, 2, "*/c.tar: *a tar archive; unpack it"),
    ("tar in gzip", "c.tar.gz", gzip.compress(tarred(WHOLE)), {}, 2, "*/c.tar.gz: *a tar archive; unpack it"),
    ("SQLite", "c.db", b"SQLite format 3\x00" + bytes(40), {}, 2, "*/c.db: *an SQLite database"),
    ("DuckDB", "c.db", bytes(8) + b"DUCK" + bytes(40), {}, 2, "*/c.db: *a DuckDB database"),
    ("HDF5", "c.h5", b"\x89HDF\r\n\x1a\n" + bytes(40), {}, 2, "*/c.h5: *an HDF5 file"),
    ("Arrow", "c.arrow", b"ARROW1\x00\x00" + bytes(40), {}, 2, "*/c.arrow: *an Arrow file (Feather)"),
    ("Arrow's stream", "c.arrows", b"\xff\xff\xff\xff" + bytes(40), {}, 2, "*/c.arrows: *an Arrow stream"),
    ("Feather", "c.feather", b"FEA1" + bytes(40), {}, 2, "*/c.feather: *a Feather file"),
    ("ORC", "c.orc", b"ORC" + bytes(40), {}, 2, "*/c.orc: *an ORC file"),
    ("a pickle", "c.pkl", pickle.dumps(lines()), {}, 2, "*/c.pkl: *a pickle of Python"),
    ("NumPy", "c.npy", b"\x93NUMPY\x01\x00" + bytes(40), {}, 2, "*/c.npy: *a NumPy file"),
    ("NumPy in a zip", "c.npz", zipped(b"\x93NUMPY\x01\x00" + bytes(40)), {}, 2, "*/c.npz: *a NumPy file"),
    ("Parquet", "c.parquet", b"PAR1" + bytes(40), {}, 2, "*/c.parquet: *a Parquet file"),
    ("7z", "c.7z", b"7z\xbc\xaf\x27\x1c" + bytes(40), {}, 2, "*/c.7z: *a 7z archive; unpack it"),
    ("two files in a zip", "c.zip", zipped(WHOLE, WHOLE), {}, 2, "*/c.zip: *a zip archive of 2 files"),
    ("compressed twice", "c.gz", gzip.compress(gzip.compress(WHOLE)), {}, 2, "*/c.gz: *compressed twice"),
    ("cut in the middle of its compression", "c.log.gz", gzip.compress(WHOLE)[:-40], {}, 0, "an input ends in the middle of a line or of its compressed stream, or is damaged"),
    ("stamps of two units", "c.log", MIXED, {}, 2, "c.log: expected receive stamps of one unit *: nanoseconds and microseconds"),
    ("stamps of another unit further on", "c.log", WHOLE + MICRO[-1], {}, 0, "c.log:29: a mixture of units: a receive stamp in microseconds in a file of nanoseconds"),
    ("stamps that count from the start", "c.log", text_of(lines(), lambda at: str((at - START) // 10**6 + 5)), {}, 0, 'a receive stamp that is plausible in no unit*found "5 {'),
    ("stamps of 22 digits", "c.log", text_of(lines(), lambda at: f"{at}000"), {}, 0, 'a receive stamp that is plausible in no unit: expected a time between 2000 and 2100, found "1723161253937085768000 {'),
    ("stamps of 60 digits", "c.log", text_of(lines(), lambda at: f"{at:060d}1"), {}, 0, 'a receive stamp that is plausible in no unit: expected a time between 2000 and 2100, found "0000'),
    ("stamps before 1970", "c.log", text_of(lines(), lambda at: str(-at)), {}, 0, 'a receive stamp that is plausible in no unit: expected a time between 2000 and 2100, found "-1723161253937085768 {'),
    ("fractions before 1970", "c.log", text_of(lines(), lambda at: f"-{at / 1e9:.3f}"), {}, 0, 'a receive stamp that is plausible in no unit: expected a time between 2000 and 2100, found "-1723161253.937 {'),
    ("a stamp too large for a number", "c.log", text_of(lines(), lambda at: f"{at}e40"), {}, 0, 'a receive stamp that is plausible in no unit: expected a time between 2000 and 2100, found "1723161253937085768e40 {'),
    ("seconds under shorter windows", "c.log", text_of(lines(), lambda at: str(at // 10**9)), {"rows": "rows = ['ofi(window=\"100ms\")', 'mid_return(window=\"2s\")']"}, 0, 'the receive stamps resolve 1 s, and ofi(window="100ms") looks at less: events that are less than 1 s apart have one time'),
    ("milliseconds under shorter windows", "c.log", text_of(lines(), lambda at: str(at // 10**6)), {"rows": "rows = ['ofi(window=\"100us\")']"}, 0, 'the receive stamps resolve 1 ms, and ofi(window="100us") looks at less'),
    ("nanoseconds that are whole milliseconds", "c.log", text_of(lines(), lambda at: f"{at // 10**6}000000"), {"rows": "rows = ['ofi(window=\"100us\")']"}, 0, 'the receive stamps resolve 1 ms, and ofi(window="100us") looks at less'),
    ("rows more often than stamps", "c.log", text_of(lines(), lambda at: str(at // 10**9)), {"features": 'every = "100ms"'}, 0, "the receive stamps resolve 1 s, and features.every looks at less"),
    ("windows shorter than the venue's stamps", "c.log", WHOLE, {"rows": "rows = ['ofi(window=\"100us\")']", "features": 'clock = "event"'}, 0, "the venue's stamps resolve 1 ms, and ofi"),
    ("lines without a time", "c.log", b"".join(json.dumps(message).encode() + b"\n" for _, message in lines()), {}, 0, "a message without its receive time: expected TIME, a space and a message"),
    ("no snapshot", "c.log", text_of(lines(snapshot=False)), {}, 0, "binance_spot BTCUSDT never became valid: no snapshot came"),
    ("an empty snapshot", "c.log", snapshot_of(bids=[], asks=[]), {}, 0, "BTCUSDT never became valid: its only snapshot could not be believed: 1 empty"),
    ("a crossed snapshot", "c.log", snapshot_of(bids=[["102.00", "1"]]), {}, 0, "BTCUSDT never became valid: its only snapshot could not be believed: 1 crossed"),
    ("a snapshot in the wrong order", "c.log", snapshot_of(asks=[["103.00", "1"], ["102.00", "1"]]), {}, 0, "BTCUSDT never became valid: its only snapshot could not be believed: 1 not in the order of their prices"),
    ("a snapshot that names a price twice", "c.log", snapshot_of(asks=[["102.00", "1"], ["102.00", "2"]]), {}, 0, "BTCUSDT never became valid: its only snapshot could not be believed: 1 with a price twice"),
    ("a snapshot of later", "c.log", snapshot_of(lastUpdateId=10**6), {}, 0, "BTCUSDT never became valid: its snapshot is newer than all of the 20 book events"),
    ("another venue", "c.log", text_of([(START + i, BYBIT) for i in range(9)]), {}, 0, 'never became valid: its messages look like Bybit\'s, and venue = "binance_spot" is configured'),
    *[
        (f"another venue: {venue}", "c.log", text_of([(START + i, message) for i in range(9)]), {}, 0, f"never became valid: its messages look like {venue}'s")
        for venue, message in (("BitMEX", BITMEX), ("Gate.io", GATE), ("Upbit", UPBIT), ("Bitfinex", BITFINEX))
    ],
    ("partial books of another instrument", "c.log", text_of([(START + i * STEP, message) for i, message in enumerate(levels(9, 5))]), {"instruments": 'instruments = ["ETHUSDT"]'}, 0, "ETHUSDT never became valid: its messages are of other instruments: BTCUSDT"),
    ("partial books of too few levels", "c.log", text_of([(START + i * STEP, message) for i, message in enumerate(levels(9, 5))]), {"rows": 'rows = ["imbalance(levels=10)"]'}, 0, "BTCUSDT never became valid: the partial books show fewer levels than the features look at"),
    ("snapshots alone", "c.log", text_of(POLLED), {}, 0, "BTCUSDT never became valid: 9 snapshots came and no message: the stream of changes (depth) is missing"),
    ("futures for spot", "c.log", FUTURES, {}, 0, 'its messages look like Binance USD-M futures\'s, and venue = "binance_spot" is configured'),
    ("spot for futures", "c.log", WHOLE, {"venue": 'venue = "binance_usdm"'}, 0, 'its messages look like Binance spot\'s, and venue = "binance_usdm" is configured'),
    ("lines for a venue of packets", "c.log", WHOLE, ITCH_FEED, 2, 'expected a day file: messages of ITCH 5.0, each behind its length*text, which begins "1723161253937085768 {"'),
    ("other instruments", "c.log", WHOLE, {"instruments": 'instruments = ["ETHUSDT"]'}, 0, "ETHUSDT never became valid: its messages are of other instruments: BTCUSDT"),
    ("an instrument that has no message", "c.log", WHOLE, {"instruments": 'instruments = ["BTCUSDT", "ETHUSDT"]'}, 0, "snapshot_without_instrument: a bare REST snapshot line is accepted in a feed of one instrument*ETHUSDT never became valid: its only snapshot could not be read, or does not tell which instrument it is of"),
    ("windows that never fill", "c.log", WHOLE, {"rows": "rows = ['mean(spread(), window=\"9s\")']"}, 0, 'BTCUSDT gave no row: mean(spread(), window="9s") was not warm before the end of the input, it needed'),
    ("counts that never fill", "c.log", WHOLE, {"rows": 'rows = ["mean(spread(), window=100)"]'}, 0, "mean(spread(), window=100) was not warm before the end of the input, it needed more events"),
    ("a message is missing", "c.log", without(10), {}, 0, "BTCUSDT had no valid book from */c.log:16 (2024-08-08 23:54:16.687 UTC) to the end of the input: an event is missing before it"),
    ("a torn message", "c.log", TORN, {}, 0, "to the end of the input: a message of it could not be read, and no snapshot"),
    ("what became of a torn message's book", "c.log", TORN, {}, 0, "1 venue message could not be used; the book that it was of did not become valid again"),
    ("a book that crosses", "c.log", replaced(10, b=[["105.00", "1"]]), {}, 0, "to the end of the input: its best bid is at or above its best ask"),
    ("a price finer than its unit", "c.log", replaced(10, b=[["100.123456789", "1"]]), {}, 0, 'message_bad_number: BTCUSDT: a price or quantity that does not fit price_decimals = 8, qty_decimals = 8: b = "100.123456789" (*c.log:16)'),
    ("a price that is a word", "c.log", replaced(10, b=[["dear", "1"]]), {}, 0, 'message_bad_number: BTCUSDT: a price or quantity that is no number: b = "dear"'),
    ("a price below zero", "c.log", replaced(10, b=[["-1.5", "1"]]), {}, 0, 'message_bad_number: BTCUSDT: a price or quantity that is below zero: b = "-1.5" (*c.log:16)'),
    ("an id that is no whole number", "c.log", replaced(10, u=1.5), {}, 0, 'message_malformed: BTCUSDT: malformed: u = "1.5" (*c.log:16)'),
    ("no trade", "c.log", text_of([line for line in lines() if "t" not in line[1].get("data", {})]), TRADES, 0, 'BTCUSDT: no trade of it came: trade_count(window="1s") had none to look at'),
    ("no trade for a trigger", "c.log", text_of([line for line in lines() if "t" not in line[1].get("data", {})]), {"features": 'trigger = "trade"'}, 0, 'BTCUSDT: no trade of it came: the trigger "trade" had none to fire at'),
    ("no trade of one of two", "c.log", text_of(two_books()), TRADES | {"instruments": 'instruments = ["BTCUSDT", "ETHUSDT"]'}, 0, 'ETHUSDT: no trade of it came: trade_count(window="1s") had none to look at'),
    ("trades in another order", "c.log", replaced_trades(2, 3), {}, 0, "1 trade came late, behind trades with greater ids: it counts from when it came"),
    ("bare partial books beside changes", "c.log", bare(9, 5), {}, 0, "8 partial books were not used, because their instrument has a stream of changes*stream_refused: BTCUSDT: partial books without their stream's name, beside a stream of changes, are not used"),
    ("partial books of futures beside raw changes", "c.log", FUTURES_BESIDE, {"venue": 'venue = "binance_usdm"'}, 0, "9 partial books were not used, because their instrument has a stream of changes"),
    ("changes in another's stream", "c.log", text_of([(at, message | OTHERS if message.get("data", {}).get("u") == 110 else message) for at, message in lines()]), {}, 0, "1 message of a stream that is, by its name, another instrument's was not used*stream_refused: ethusdt@depth@100ms: a message of BTCUSDT is not used (*c.log:16)"),
    ("a trade in another's stream", "c.log", text_of([(at, message | {"stream": "ethusdt@trade"} if message.get("data", {}).get("t") == 3 else message) for at, message in lines()]), {}, 0, "stream_refused: ethusdt@trade: a message of BTCUSDT is not used"),
    ("trades that never came", "c.log", text_of([line for line in lines() if line[1].get("data", {}).get("t") != 3]), {}, 0, "1 trade never came, at 1 place in their ids"),
    ("messages that came twice", "c.log", text_of(sorted([*lines(), *lines()], key=lambda line: line[0])), {}, 0, "7 trades came again and were counted once"),
    ("partial books beside changes", "c.log", BESIDE, {}, 0, "3 partial books were not used, because their instrument has a stream of changes"),
]  # fmt: skip


def replay_says(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: Path,
    given: Path,
    code: int,
    expected: str,
) -> None:
    """What is read as far as it goes ends with 0, and with 1 where `--strict` asks for a capture without a fault."""
    for options, end in ((), code), (("--strict",), code or 1):
        found_code = command(monkeypatch, "replay", file, "--input", given, *options)
        found = capsys.readouterr()
        assert found_code == end, found
        assert says(found.out + found.err, expected), found


@pytest.mark.parametrize(
    ("name", "content", "changes", "code", "expected"),
    [case[1:] for case in CAPTURES],
    ids=[case[0] for case in CAPTURES],
)
def test_capture(
    name: str,
    content: bytes | None,
    changes: dict[str, str],
    code: int,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, given = tmp_path / "pipeline.toml", tmp_path / name
    file.write_text(pipeline(**changes))
    if content is not None:
        given.write_bytes(content)
    replay_says(monkeypatch, capsys, file, given, code, expected)


# --- Packets and day files: what is made of a market's messages, the lines configured, and the answer -----------

A, B, OTHER = ("239.255.84.1", 26477), ("239.255.84.2", 26478), ("239.255.85.1", 25475)
MESSAGES = market(300, 31)
SECOND = market(200, 32)
SIZES = b"".join(struct.pack(">H", len(message)) + message for message in MESSAGES)
LINES = 'multicast = { lines = ["239.255.84.1:26477"] }'


def pcap(*records: list[bytes]) -> Callable[[Path], object]:
    return lambda path: capture(path, [record for some in records for record in some])


def raw(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def sent(payload: Callable[[int], bytes]) -> list[bytes]:
    """Forty datagrams of another protocol."""
    return frames((OPEN + i, A, payload(i)) for i in range(40))


def iex(i: int) -> bytes:
    return struct.pack("<BBHIIHHqqq", 1, 0, 0x8004, 1, 1, i, 1, 0, i, OPEN) + bytes(i)


def cme(i: int) -> bytes:
    return struct.pack("<IQHHHHH", i, OPEN, 30, 20, 32, 1, 9) + bytes(20)


PRODUCT = frames(stream(MESSAGES, A))
PRODUCT_B = frames(stream(SECOND, OTHER, session="BX00000001", begin=3_000))
SENDERS = frames(stream(SECOND, A, session="BX00000001", begin=3_000), sender="10.0.0.2")
TCP = [packet(OPEN + i, "10.0.0.3", "10.0.0.4", 6, bytes(20)) for i in range(7)]

BY_ORDER: list[tuple[str, str, Callable[[Path], object], str, int, str]] = [
    ("two products", "two.pcap", pcap(PRODUCT, PRODUCT_B), "", 2, 'two.pcap holds 2 of MoldUDP64: session "TICK000001" on 239.255.84.1:26477 (* datagrams); session "BX00000001" on 239.255.85.1:25475 (* datagrams). Name one stream\'s, as in lines = ["239.255.84.1:26477"]'),
    ("two senders on a group", "two.pcap", pcap(PRODUCT, SENDERS), LINES, 2, 'They share a group: name a line\'s sender too*source_address = "10.0.0.1"'),
    ("another group than configured", "a.pcap", pcap(PRODUCT_B), LINES, 2, "to 239.255.84.1:26477, as multicast.lines says*to 239.255.85.1:25475 (* of them MoldUDP64)"),
    ("packets of IEX", "iex.pcap", pcap(sent(iex)), "", 2, "expected datagrams of MoldUDP64*found none in 40: 40 to 239.255.84.1:26477 (they look like IEX-TP)"),
    ("packets of CME", "cme.pcap", pcap(sent(cme)), "", 2, "found none in 40: 40 to 239.255.84.1:26477 (they look like CME MDP 3.0)"),
    ("packets of text", "text.pcap", pcap(sent(lambda i: b"price=%d\n" % i)), "", 2, "found none in 40: 40 to 239.255.84.1:26477 (they look like text)"),
    ("packets of TCP", "tcp.pcap", pcap(TCP), "", 2, "found no datagram; 7 packets are of TCP, as of SoupBinTCP"),
    ("no packet", "none.pcap", pcap(), "", 2, "found no packet"),
    ("an empty file", "day.itch", raw(b""), "", 2, "found an empty file"),
    ("packets of SoupBinTCP in a file", "day.itch", raw(b"".join(struct.pack(">H", 1 + len(m)) + b"S" + m for m in MESSAGES)), "", 2, "expected a day file: messages of ITCH 5.0, each behind its length*packets of SoupBinTCP"),
    ("messages without lengths", "day.itch", raw(b"".join(MESSAGES)), "", 2, "expected a day file: messages of ITCH 5.0, each behind its length"),
    ("a length of zero at the beginning", "day.itch", raw(bytes(100)), "", 2, "message 1, at byte 0: a length of zero, expected 1 to 65535"),
    ("a length of zero further on", "day.itch", raw(SIZES + bytes(2) + SIZES), "", 0, f"day.itch: message {len(MESSAGES) + 1}, at byte {len(SIZES)}: a length of zero"),
    ("a day file that is cut", "day.itch", raw(SIZES[:-3]), "", 0, "day.itch: message *: the file ends in the middle of a message"),
    ("a capture that is cut", "cut.pcap", lambda path: path.write_bytes(capture(path, PRODUCT).read_bytes()[:-9]), "", 0, "cut.pcap: after packet"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "make", "lines_of", "code", "expected"),
    [case[1:] for case in BY_ORDER],
    ids=[case[0] for case in BY_ORDER],
)
def test_capture_by_order(
    name: str,
    make: Callable[[Path], object],
    lines_of: str,
    code: int,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, given = tmp_path / "pipeline.toml", tmp_path / name
    source = f"max_orders = 65536\ndate = 2020-01-30\n{lines_of}"
    file.write_text(pipeline(**ITCH_FEED, source=source))
    make(given)
    replay_says(monkeypatch, capsys, file, given, code, expected)


# --- Venues: what a running engine is told by whom it calls, and what it says while it runs ----------------------

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def error(status: int, **body: Any) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status)

    return answer


def talks(said: Callable[[web.WebSocketResponse], Awaitable[object]]) -> Answer:
    """Takes the connection, and says this to the first message."""

    async def answer(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        await ws.receive()
        await said(ws)
        async for _ in ws:
            pass
        return ws

    return answer


UNKNOWN = error(400, code=-1121, msg="Invalid symbol.")
LOCATION = error(451, code=0, msg="restricted location")
BANNED = error(418, code=-1003, msg="Way too many requests; IP banned")
REFUSED = talks(
    lambda ws: ws.send_json({"error": {"code": 2, "msg": "Invalid request: unknown stream"}, "id": 1})
)
CLOSED = talks(lambda ws: ws.close(code=1008, message=b"Too many requests"))

VENUES: list[tuple[str, dict[str, Any], str]] = [
    ("nobody there", {"gone": True}, "main: connection_refused: connect to 127.0.0.1:*: Connection refused"),
    ("another path", {"handshake": error(404)}, "main: connection_handshake: handshake: expected HTTP 101, found 404"),
    ("a restricted location", {"handshake": LOCATION}, "main: connection_handshake: handshake: expected HTTP 101, found 451*: restricted location"),
    ("a refused subscription", {"handshake": REFUSED}, "main: subscribe_refused: main: Invalid request: unknown stream (code 2)"),
    ("closed at once", {"handshake": CLOSED}, "main: connection_closed: *: Too many requests (code 1008)"),
    ("an unknown symbol", {"rest": UNKNOWN}, "main: snapshot_failed: BTCUSDT: HTTP 400 Bad Request: Invalid symbol. (code -1121)"),
    ("snapshots for some locations", {"rest": LOCATION}, "main: snapshot_failed: BTCUSDT: HTTP 451 *: restricted location"),
    ("banned", {"rest": BANNED}, "main: snapshot_failed: BTCUSDT: HTTP 418 I'm a Teapot: Way too many requests; IP banned (code -1003)*not for how long, so it is left alone for a minute"),
    ("a page instead of a snapshot", {"rest": error(200, hello="world")}, "main: snapshot_malformed: BTCUSDT: it reads {\"hello\": \"world\"}"),
    ("silence", {}, "main: ETHUSDT is not valid since *no message of ETHUSDT has come: check the symbol"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("oddities", "expected"), [case[1:] for case in VENUES], ids=[case[0] for case in VENUES]
)
async def test_venue(oddities: dict[str, Any], expected: str, caplog: pytest.LogCaptureFixture) -> None:
    venue = ScriptedVenue()
    venue.handshake = oddities.get("handshake")
    venue.rest = [oddities["rest"]] * 1000 if "rest" in oddities else []
    with caplog.at_level(logging.WARNING, "tickwire"):
        async with AsyncExitStack() as stack:
            serving = venue.serve()
            await serving.__aenter__()
            if oddities.get("gone"):
                await serving.__aexit__(None, None, None)
            else:
                stack.push_async_exit(serving)
            settings = Config.from_dict(config_of(venue), where="test")
            pipeline = await stack.enter_async_context(Pipeline(settings))
            await until(lambda: says(caplog.text, expected), expected, look=pipeline.raise_if_failed)
            assert pipeline.stats().count("rows") == 0


# --- Environments: what is asked of which machine, and the answer ---------------------------------------------

ENVIRONMENTS: list[tuple[str, list[str], dict[str, str], str]] = [
    ("no host.env", ["tune", "plan", "--env", "none.env"], {}, "no file none.env to read: write one with `tickwire tune example` (or copy host.env.example) and edit it, or name yours with --env FILE"),
    ("an unknown key in it", ["tune", "plan", "--env", "odd.env"], {}, "unknown key ENGIN_CPUS; `tickwire tune example` lists them"),
    ("no engine to ask", ["model", "swap", "m.onnx"], {}, "expected a running engine of this user, found none; name one's statistics file with --engine"),
    ("no recording", ["verify", "none"], {}, "none: not a recorded run: run.json: No such file or directory"),
    ("no statistics", ["latency", "show", "none.stat"], {}, "none.stat: expected a stat file, found: No such file or directory"),
    ("no configuration", ["run", "none.toml"], {}, "none.toml: cannot be read: No such file or directory"),
    ("a folder for a capture", ["replay", "core.toml", "--input", "."], {}, "--input: .: a folder; name the files in it"),
    ("a device for a capture", ["replay", "core.toml", "--input", "/dev/null"], {}, "--input: /dev/null: a pipe or a device, which cannot be looked at twice; save it to a file first"),
    ("a model bound to a pipe", ["model", "bind", "m.onnx", "--config", "core.toml", "--out", "pipe.onnx"], {}, "pipe.onnx: expected a file to write the model to, found a pipe or a device; name another one"),
    ("a model bound to a folder", ["model", "bind", "m.onnx", "--config", "core.toml", "--out", "folder"], {}, "folder: expected a file to write the model to, found a folder; name another one"),
    ("a model bound where no folder is", ["model", "bind", "m.onnx", "--config", "core.toml", "--out", "none/m.onnx"], {}, "none/m.onnx: the model cannot be written: No such file or directory"),
    ("a core that is not there", ["run", "core.toml"], {}, "feeds[0].core: expected a core that this process may use (*), found 4000"),
    ("no worker program", ["run", "workers.toml"], {"TICKWIRE_WORKER": "none"}, 'engine.layout: "processes" needs the program tickwire-worker*expected it at none; install tickwire again, or name its place in TICKWIRE_WORKER'),
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "variables", "expected"), [case[1:] for case in ENVIRONMENTS], ids=[c[0] for c in ENVIRONMENTS]
)
def test_environment(
    words: list[str],
    variables: dict[str, str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, setting in variables.items():
        monkeypatch.setenv(name, setting)
    live_source = 'url = "ws://127.0.0.1:9"\nrest_url = "http://127.0.0.1:9"'
    live = pipeline(source=live_source + "\ncore = 4000")
    Path("core.toml").write_text(live)
    workers = pipeline(engine='layout = "processes"', source=live_source, end='[model]\npath = "m.onnx"')
    Path("workers.toml").write_text(workers)
    settings = Config.from_text(pipeline())
    models.make_demo_model("m.onnx", settings.schema())
    Path("odd.env").write_text("ENGIN_CPUS=1\n")
    os.mkfifo("pipe.onnx")
    Path("folder").mkdir()
    code = command(monkeypatch, *words)
    found = capfd.readouterr()
    assert code == 2, found
    assert says(found.err, expected), found.err


def test_spaces_before_a_message_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind more than one space a snapshot is one, as a change is a change."""
    file = tmp_path / "pipeline.toml"
    file.write_text(pipeline())
    rows = []
    for name, content in ("usual", WHOLE), ("spaces", SPACES):
        given, out = tmp_path / f"{name}.log", tmp_path / f"{name}.csv"
        given.write_bytes(content)
        assert command(monkeypatch, "replay", file, "--input", given, "--out", out) == 0
        rows.append([line.split(",")[:11] for line in out.read_text().splitlines()])
    capsys.readouterr()
    assert len(rows[0]) > 10
    assert rows[1] == rows[0]
