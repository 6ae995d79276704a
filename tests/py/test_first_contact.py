"""What a newcomer gets wrong, and what is said of each: tables to read.

What is said names the place, what was found, what was expected and what to do. Left what is wrong, right a
part of the answer; a `*` stands for what does not matter here.
"""

# ruff: noqa: E501 (a table's line is as long as it is)

from __future__ import annotations

import fnmatch
import gzip
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tickwire import models
from tickwire.cli import main
from tickwire.config import Config

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


# --- Captures: what the file holds, and what a replay says ---------------------------------------------------

AT = 1_700_000_000_000_000_000


def lines(*messages: dict[str, Any], first: int = AT, step: int = 10**7) -> bytes:
    return "".join(
        f"{first + i * step} {json.dumps(message)}\n" for i, message in enumerate(messages)
    ).encode()


def diff(number: int, symbol: str = "BTCUSDT", **more: Any) -> dict[str, Any]:
    bids, asks = [[f"{100 + number % 2}.0", "1"]], [["103.0", f"{number}"]]
    own = {"e": "depthUpdate", "E": AT // 10**6, "s": symbol, "U": number, "u": number, "b": bids, "a": asks}
    return own | more


def snapshot(number: int, symbol: str = "BTCUSDT") -> dict[str, Any]:
    body = {"lastUpdateId": number, "bids": [["99.0", "1"]], "asks": [["104.0", "1"]]}
    return {"tickwire": "snapshot", "conn": 0, "instrument": symbol, "body": body}


GOOD = [diff(1), snapshot(1), *(diff(n) for n in range(2, 12))]

CAPTURES: list[tuple[str, str, bytes | None, int, str]] = [
    ("a file that is not there", "c.log", None, 2, "--input: */c.log: no such file"),
    ("nothing", "c.log", b"", 0, "BTCUSDT never became valid: no message came"),
    ("no snapshot", "c.log", lines(*(diff(n) for n in range(1, 12))), 0, "BTCUSDT never became valid: no snapshot came"),
    ("another instrument", "c.log", lines(*(diff(n, "ETHUSDT") for n in range(1, 12))), 0, "11 messages of instruments that the configuration does not name were skipped"),
    ("a text", "c.log", b"hello\nworld\n", 0, "c.log:1: not a capture line: expected TIME, a space and a message"),
    ("cut in the middle of its compression", "c.log.gz", gzip.compress(lines(*GOOD))[:-40], 0, "an input ends in the middle of a line or of its compressed stream, or is damaged"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "code", "expected"),
    [case[1:] for case in CAPTURES],
    ids=[case[0] for case in CAPTURES],
)
def test_capture(
    name: str,
    content: bytes | None,
    code: int,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, capture = tmp_path / "pipeline.toml", tmp_path / name
    file.write_text(pipeline())
    if content is not None:
        capture.write_bytes(content)
    found_code = command(monkeypatch, "replay", file, "--input", capture)
    found = capsys.readouterr()
    assert found_code == code, found
    assert says(found.out + found.err, expected), found


# --- Environments: what is asked of which machine, and the answer ---------------------------------------------

ENVIRONMENTS: list[tuple[str, list[str], dict[str, str], str]] = [
    ("no host.env", ["tune", "plan", "--env", "none.env"], {}, "no file none.env to read: write one with `tickwire tune example` (or copy host.env.example) and edit it, or name yours with --env FILE"),
    ("an unknown key in it", ["tune", "plan", "--env", "odd.env"], {}, "unknown key ENGIN_CPUS; `tickwire tune example` lists them"),
    ("no engine to ask", ["model", "swap", "m.onnx"], {}, "expected a running engine of this user, found none; name one's statistics file with --engine"),
    ("no recording", ["verify", "none"], {}, "none: not a recorded run: run.json: No such file or directory"),
    ("no statistics", ["latency", "show", "none.stat"], {}, "none.stat: expected a stat file, found: No such file or directory"),
    ("no configuration", ["run", "none.toml"], {}, "none.toml: cannot be read: No such file or directory"),
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
    code = command(monkeypatch, *words)
    found = capfd.readouterr()
    assert code == 2, found
    assert says(found.err, expected), found.err
