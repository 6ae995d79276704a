"""The command: what it prints, where, and with which exit code."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_core
import numpy as np
import onnx
import pytest
from fake_core import make_rows
from needs import ROOT

from tickwire import _core, cli, models
from tickwire.cli.options import words
from tickwire.cli.tune import Revert, Services
from tickwire.config import Config

PACKAGE = ROOT / "py"

CONFIG = """
[engine]
layout = "inline"

[[feeds]]
venue = "binance_usdm"
source = "file"
instruments = ["BTCUSDT"]

[features]
trigger = "book"
rows = ["imbalance(levels=5)", "spread()"]
"""


class Command:
    """Runs `tickwire ARGUMENTS` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["tickwire", *map(str, arguments)])
        self._capsys.readouterr()
        try:
            cli.main()
            code: Any = 0
        except SystemExit as exit_:
            code = exit_.code
        out, err = self._capsys.readouterr()
        return int(code or 0), out, err


@pytest.fixture
def tickwire(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr("tickwire.core.extension", fake_core)
    monkeypatch.setattr(fake_core.Engine, "script", None)
    yield fake_core.Engine
    fake_core.Engine.last = None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.toml").write_text(CONFIG)
    # The rows of the stand-in are from long ago.
    (tmp_path / "live.toml").write_text(CONFIG.replace('source = "file"', "") + 'max_age = "0s"\n')
    (tmp_path / "capture.log").write_text("")
    return tmp_path


def test_version_and_help(tickwire: Command) -> None:
    code, out, _ = tickwire("--version")
    assert code == 0
    assert out.startswith("tickwire ")
    code, out, _ = tickwire("--help")
    assert code == 0
    for command in ("run", "replay", "verify", "demo", "sim", "model", "latency", "doctor"):
        assert command in out


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--help"], {"numpy", "pydantic", "aiohttp", "onnx", "uvloop", "tickwire.pipeline"}),
        (["replay", "pipeline.toml", "--input", "capture.log"], {"aiohttp", "onnx", "onnxruntime"}),
    ],
)
def test_a_command_loads_nothing_heavy_that_it_has_no_use_for(
    arguments: list[str], heavy: set[str], folder: Path
) -> None:
    script = (
        f"import sys; sys.argv = {['tickwire', *arguments]}\n"
        "from tickwire.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"heavy = {heavy} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr


def test_each_command_names_a_function_that_takes_what_it_was_given() -> None:
    folder = PACKAGE / "tickwire" / "cli"
    text = "".join((folder / name).read_text(encoding="utf-8") for name in ("app.py", "tune.py"))
    form = r'@command\(\w+, "([\w.]+):(\w+)".*\)\n@dataclass\(frozen=True\)\nclass (\w+)'
    declared = re.findall(form, text)
    assert ("tickwire.cli.live", "run", "Run") in declared
    assert len(declared) == text.count("@command(")
    for module, function, kind in declared:
        parameters = inspect.signature(getattr(importlib.import_module(module), function)).parameters
        assert list(parameters) == ["arguments"], (module, function)
        kinds = str(parameters["arguments"].annotation)
        assert kinds == ("_Script" if module == "tickwire.cli.tune" else f"app.{kind}")


def test_a_script_gets_the_options_that_were_given() -> None:
    assert words(Revert()) == []
    assert words(Revert(state=Path("s"), forget=True)) == ["--state", "s", "--forget"]
    assert words(Services(env=Path("e"), install=True)) == ["--env", "e", "--with", "systemd", "--install"]


def test_a_configuration_loads_nothing_that_only_a_run_needs() -> None:
    script = (
        "import sys, tickwire, tickwire.sinks.registry as registry\n"
        "sinks = [{'type': 'jsonl', 'path': '-'}, {'type': 'websocket'}]\n"
        "assert {sink['type'] for sink in sinks} == set(registry.SINKS)\n"
        "feed = {'venue': 'binance_spot', 'instruments': ['BTCUSDT']}\n"
        "tickwire.Config.from_dict({'feeds': [feed], 'features': {'rows': ['spread()']}, 'sinks': sinks})\n"
        "sys.exit(str({'numpy', 'aiohttp', 'onnx', 'onnxruntime'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_mistake_is_one_message_on_stderr_and_exit_2(tickwire: Command, folder: Path) -> None:
    (folder / "bad.toml").write_text(CONFIG.replace("venue", "venu"))
    code, out, err = tickwire("replay", folder / "bad.toml", "--input", folder / "capture.log")
    assert (code, out) == (2, "")
    assert err.startswith(f"tickwire: {folder}/bad.toml: feeds[0].venu")
    assert "nearest known key: venue" in err
    assert "Traceback" not in err


def test_missing_option_is_exit_2(tickwire: Command, folder: Path) -> None:
    code, _, err = tickwire("replay", folder / "pipeline.toml")
    assert code == 2
    assert "--input" in err


def test_replay_writes_rows_and_prints_a_summary(tickwire: Command, folder: Path, engine: Any) -> None:
    engine.script = lambda self: self.push(make_rows(300, 2))
    out_file = folder / "rows.csv"
    code, out, err = tickwire(
        "replay", folder / "pipeline.toml", "--input", folder / "capture.log", "--out", out_file
    )
    assert code == 0, err
    lines = out_file.read_text().splitlines()
    keys = "ts_event,ts_recv,feed,venue,instrument,epoch,row,sequence,state,missing_trades"
    assert lines[0] == f"{keys},imbalance(levels=5),spread()"
    assert len(lines) == 301
    assert lines[5].startswith(
        "1700000000005000000,1700000000005000500,binance_usdm,binance_usdm,BTCUSDT,1,5,1005,valid,0,5.0,5.1"
    )
    assert "300 rows, 0 gaps, 0 invalid, 0 malformed lines" in out


def test_replay_without_out_prints_the_summary_alone(tickwire: Command, folder: Path, engine: Any) -> None:
    engine.script = lambda self: self.push(make_rows(3, 2))
    code, out, _ = tickwire("replay", folder / "pipeline.toml", "--input", folder / "capture.log")
    assert code == 0
    assert "3 rows" in out
    assert sorted(path.name for path in folder.iterdir()) == ["capture.log", "live.toml", "pipeline.toml"]


def test_replay_refuses_an_output_it_does_not_know(tickwire: Command, folder: Path, engine: Any) -> None:
    arguments = ("--input", folder / "capture.log", "--out", folder / "rows.xlsx")
    code, _, err = tickwire("replay", folder / "pipeline.toml", *arguments)
    assert code == 2
    assert "expected a file that ends in .csv or .parquet" in err


def test_run_reports_and_ends_with_json(tickwire: Command, folder: Path, engine: Any) -> None:
    engine.script = lambda self: self.push(make_rows(30, 2))
    code, out, err = tickwire("run", folder / "live.toml", "--seconds", "0.3", "--json")
    assert code == 0, err
    report = json.loads(out.splitlines()[-1])
    assert len(out.splitlines()) == 1
    assert (report["signals"], report["rows"], report["gaps"], report["dropped"], report["invalid"]) == (
        30,
        30,
        0,
        0,
        0,
    )
    assert report["latency_us"] == {"p50": 28.0, "p99": 28.0, "p999": 28.0, "max": 28.0}
    assert list(report["stages_us"]) == list(fake_core.STAGES)
    assert report["stages_us"]["book"]["p50"] == 3.0
    assert list(report["cpu_share"]) == ["python"], "the one thread that a stand-in has"
    assert "Stage latencies" in err


def test_run_without_json_reports_on_standard_output(tickwire: Command, folder: Path, engine: Any) -> None:
    code, out, _ = tickwire("run", folder / "live.toml", "--seconds", "0.1")
    assert code == 0
    assert "Stage latencies" in out
    assert "0 rows" in out


class Statistics:
    """In the place of the engine's statistics file, which the fake does not write."""

    def counters(self) -> dict[str, int]:
        return {"binance_usdm/capture_lost": 0}

    def histograms(self) -> dict[str, Any]:
        return {}

    def errors(self) -> list[Any]:
        return []


def test_run_records_what_verify_then_compares(
    tickwire: Command, folder: Path, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickwire.pipeline._open_stat_file", lambda path: Statistics())
    rows = make_rows(40, 2)
    run_dir = folder / "run"

    def live(self: Any) -> None:
        # What the engine's recorder writes.
        (run_dir / "capture" / "binance_usdm").mkdir(parents=True)
        (run_dir / "capture" / "binance_usdm" / "000001.log").write_text("")
        (run_dir / "rows" / "ingest0").mkdir(parents=True)
        (run_dir / "rows" / "ingest0" / "000001.bin").write_bytes(rows.tobytes())
        self.push(rows)

    engine.script = live
    code, out, err = tickwire("run", folder / "live.toml", "--seconds", "0.3", "--record", run_dir)
    assert code == 0, err
    assert f"tickwire verify {run_dir}" in out.replace("\n", "")
    assert json.loads((run_dir / "run.json").read_text())["complete"] is True

    engine.script = lambda self: self.push(rows)
    code, out, _ = tickwire("verify", run_dir)
    assert code == 0
    assert out.startswith("live = replay: 40 rows")

    other = rows.copy()
    other["features"][4, 1] = 0.25
    engine.script = lambda self: self.push(other)
    code, out, err = tickwire("verify", run_dir)
    assert (code, out) == (1, "")
    assert err.startswith("first divergence: binance_usdm BTCUSDT, epoch 1, row 5")
    assert "spread()" in err


def test_run_without_readable_counters_claims_no_whole_recording(
    tickwire: Command, folder: Path, engine: Any
) -> None:
    run_dir = folder / "run"
    code, out, err = tickwire("run", folder / "live.toml", "--seconds", "0.1", "--record", run_dir)
    assert code == 0, err
    assert "recorded in" not in out
    assert "not recorded whole: what the recorder lost is not known" in out.replace("\n", " ")
    code, _, err = tickwire("verify", run_dir)
    assert code == 2
    assert "what the recorder lost is not known" in err


def test_verify_of_a_run_without_rows_is_exit_2(
    tickwire: Command, folder: Path, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickwire.pipeline._open_stat_file", lambda path: Statistics())
    engine.script = lambda self: None
    run_dir = folder / "run"
    assert tickwire("run", folder / "live.toml", "--seconds", "0.1", "--record", run_dir)[0] == 0
    (run_dir / "capture" / "binance_usdm").mkdir(parents=True)
    (run_dir / "capture" / "binance_usdm" / "000001.log").write_text("")
    (run_dir / "rows").mkdir()
    code, out, err = tickwire("verify", run_dir)
    assert (code, out) == (2, "")
    assert "nothing to compare" in err


def test_verify_refuses_with_exit_2(tickwire: Command, tmp_path: Path) -> None:
    code, _, err = tickwire("verify", tmp_path)
    assert code == 2
    assert "not a recorded run" in err


def test_dead_engine_is_one_message(tickwire: Command, folder: Path, engine: Any) -> None:
    def die(self: Any) -> None:
        self.failed = "ingest0: something broke"

    engine.script = die
    code, _, err = tickwire("run", folder / "live.toml", "--seconds", "5")
    assert code == 2
    assert "ingest0: something broke" in err
    assert "Traceback" not in err


def test_demo_refuses_what_it_does_not_know(tickwire: Command) -> None:
    code, _, err = tickwire("demo", "--feed", "itch", "--market", "spot")
    assert (code, err) == (2, "tickwire: --market: expected none with --feed itch, found 'spot'\n")
    code, _, err = tickwire("demo", "--feed", "moon")
    assert (code, err) == (2, "tickwire: --feed: expected one of binance, itch, found 'moon'\n")
    code, _, err = tickwire("demo", "--market", "moon")
    assert code == 2
    assert "--market: expected one of spot, usdm, coinm, found 'moon'" in err


def test_model_bind_and_inspect(tickwire: Command, folder: Path) -> None:
    other = Config.from_text(CONFIG.replace('trigger = "book"', 'trigger = "top"')).schema()
    model = models.make_demo_model(folder / "m.onnx", other)
    bound = folder / "bound.onnx"
    code, out, err = tickwire("model", "bind", model, "--config", folder / "pipeline.toml", "--out", bound)
    assert code == 0, err
    fingerprint = Config.from_toml(folder / "pipeline.toml").schema().fingerprint()
    assert fingerprint in out
    code, out, _ = tickwire("model", "inspect", bound)
    assert code == 0
    assert fingerprint in out
    assert "prob_0, prob_1, prob_2" in out
    assert '"trigger": "book"' in out
    code, _, err = tickwire("model", "inspect", folder / "pipeline.toml")
    assert code == 2


def test_model_check_says_what_a_start_would_refuse(tickwire: Command, folder: Path) -> None:
    pipeline = folder / "pipeline.toml"
    model = models.make_demo_model(folder / "m.onnx", Config.from_toml(pipeline).schema())
    code, out, err = tickwire("model", "check", model, "--config", pipeline)
    assert (code, err) == (0, "")
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["ok", "file"],
        ["ok", "features"],
        ["ok", "run"],
    ]
    assert "scores prob_0, prob_1, prob_2; 200 warm-up runs" in out
    other = models.make_demo_model(
        folder / "other.onnx",
        Config.from_text(CONFIG.replace('trigger = "book"', 'trigger = "top"')).schema(),
    )
    # Two reasons at once: both are said.
    code, out, _ = tickwire("model", "check", other, "--config", pipeline, "--max-batch", "4")
    assert code == 1
    assert [line.split()[:2] for line in out.splitlines() if line.startswith(("ok", "refused"))] == [
        ["ok", "file"],
        ["refused", "features"],
        ["refused", "run"],
    ]
    assert "trigger" in out
    assert "expected a free batch dimension, for batches of 4" in out
    # What the pipeline says of its own model is what a start would take.
    batched = folder / "batched.toml"
    threads = CONFIG.replace('layout = "inline"', 'layout = "threads"')
    batched.write_text(threads + '[model]\npath = "m.onnx"\nmax_batch = 4\n')
    code, out, err = tickwire("model", "check", model, "--config", batched)
    assert code == 1, err
    assert "expected a free batch dimension, for batches of 4" in out
    assert tickwire("model", "check", model, "--config", batched, "--max-batch", "1")[0] == 0
    code, out, _ = tickwire("model", "check", other)
    assert code == 0, "without a configuration there is nothing to compare it with"
    code, out, _ = tickwire("model", "check", pipeline)
    assert code == 1
    assert out.startswith("refused  file")
    assert len(out.splitlines()) == 1


def test_model_optimize_says_what_it_saved(tickwire: Command, folder: Path) -> None:
    model = models.make_demo_model(folder / "m.onnx", Config.from_text(CONFIG).schema())
    code, out, err = tickwire("model", "optimize", model, "--format", "ort")
    assert code == 0, err
    made = folder / "m.optimized.ort"
    assert out.startswith(f"{made}: for this machine, cpu\n")
    assert f"{model.stat().st_size:,} bytes before, {made.stat().st_size:,} after" in out
    assert "ms before" in out
    assert "the same bit for bit on 256 made-up rows" in out
    code, _, err = tickwire("model", "optimize", folder / "pipeline.toml")
    assert code == 2
    assert "expected an ONNX model" in err
    for arguments in (("--provider", "tensorrt"), ("--cache-dir", folder)):
        code, _, err = tickwire("model", "optimize", model, *arguments)
        assert code == 2
        assert "--cache-dir: expected with --provider tensorrt" in err
    if "tensorrt" not in models.providers():
        of_engines = ("--provider", "tensorrt", "--cache-dir", folder / "engines")
        code, _, err = tickwire("model", "optimize", model, *of_engines)
        assert code == 2
        assert "provider: expected cpu" in err


def test_model_bench_shows_each_load(tickwire: Command, folder: Path) -> None:
    model = models.make_demo_model(folder / "m.onnx", Config.from_text(CONFIG).schema())
    arguments = ("--seconds", "0.02", "--provider", "cpu", "--rate", "2000", "--burst", "5")
    code, out, err = tickwire("model", "bench", model, *arguments, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [(entry["load"], entry["caches"]) for entry in found["results"]] == [
        (load, caches) for load in ("idle", "paced", "burst") for caches in ("warm", "cold")
    ]
    for entry in found["results"]:
        assert list(entry["us"]) == ["p50", "p90", "p99", "p99.9", "max"]
        assert list(entry["us"].values()) == sorted(entry["us"].values())
        assert entry["us"]["p50"] > 0
        executor = entry["executor"]
        assert executor.split()[0] in _core.EXECUTORS
        assert executor.endswith(" cpu")
    rows = {(entry["load"], entry["caches"]): entry["rows"] for entry in found["results"]}
    assert 1 <= rows["paced", "warm"] <= 40
    assert rows["burst", "warm"] % 5 == 0
    assert {"thread", "governor", "cpu"} <= found["conditions"].keys()
    code, out, _ = tickwire("model", "bench", model, *arguments)
    assert code == 0
    assert "p99.9" in out
    assert "thread: not pinned" in out
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    code, out, _ = tickwire("model", "bench", model, *arguments, "--core", core)
    assert code == 0
    assert f"thread: pinned to core {core}" in out
    assert os.sched_getaffinity(0) == before
    code, _, err = tickwire("model", "bench", model, *arguments, "--core", 4095)
    assert code == 2
    assert "which this process may use, found 4095" in err


def test_model_of_other_features_is_refused_with_the_difference(
    tickwire: Command, folder: Path, engine: Any
) -> None:
    other = Config.from_text(CONFIG.replace('trigger = "book"', 'trigger = "top"')).schema()
    models.make_demo_model(folder / "m.onnx", other)
    (folder / "scored.toml").write_text(CONFIG + '[model]\npath = "m.onnx"\n')
    code, _, err = tickwire("replay", folder / "scored.toml", "--input", folder / "capture.log")
    assert code == 2
    assert "trigger" in err


def free_features(model: onnx.ModelProto) -> None:
    model.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("features", 1, [1, "F"]))


def of_a_window(model: onnx.ModelProto) -> None:
    model.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("window", 1, [1, 3, 2]))
    mean = onnx.helper.make_node("ReduceMean", ["window"], ["features"], axes=[1], keepdims=0)
    model.graph.node.insert(0, mean)


def second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("more", 1, [1, 2]))


def of_strings(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.STRING
    del model.graph.node[:-1]  # Nothing computes with them.
    model.graph.node[0].CopyFrom(onnx.helper.make_node("Shape", ["features"], ["prob"]))
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("prob", 7, [2]))


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Prophesy"


def future_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


def beyond_two_gib(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("length", str(3 << 30))):
        tensor.external_data.add(key=key, value=value)


@pytest.mark.parametrize(
    ("change", "expected", "what_to_do"),
    [
        (unknown_operator, "Prophesy", "export without it"),
        (future_opset, "Opset 999", "export it with an older opset"),
        (second_input, "2 inputs", "join them into one"),
        (of_strings, "features: string[1, 2]", "cast it inside"),
        (free_features, "features: float32[1, F]", "give every dimension but the first its size"),
        (of_a_window, "window: float32[1, 3, 2]", "features.window_rows must be"),
        (beyond_two_gib, "3,221,225,472 bytes in weights.bin", "an ONNX file ends at 2 GiB"),
        (b"", "found an empty file", "export the model again"),
        (b"this is a text\n", "found a file that is none or is damaged", "export the model again"),
        (None, "found a folder", "name a file"),
    ],
)
def test_a_bad_model_is_refused_before_an_engine_is_made(
    change: Callable[[onnx.ModelProto], None] | bytes | None,
    expected: str,
    what_to_do: str,
    tickwire: Command,
    folder: Path,
    engine: Any,
) -> None:
    path = models.make_demo_model(folder / "m.onnx", Config.from_text(CONFIG).schema())
    if change is None:
        path.unlink()
        path.mkdir()
    elif isinstance(change, bytes):
        path.write_bytes(change)
    else:
        model = onnx.load(path)
        change(model)
        path.write_bytes(model.SerializeToString())
    (folder / "scored.toml").write_text(CONFIG + '[model]\npath = "m.onnx"\n')
    code, _, err = tickwire("replay", folder / "scored.toml", "--input", folder / "capture.log")
    assert code == 2
    assert str(path) in err
    assert expected in err
    assert what_to_do in err
    assert "Traceback" not in err
    assert engine.last is None


def test_replay_with_a_model_names_its_outputs(tickwire: Command, folder: Path, engine: Any) -> None:
    models.make_demo_model(folder / "m.onnx", Config.from_text(CONFIG).schema())
    (folder / "scored.toml").write_text(CONFIG + '[model]\npath = "m.onnx"\n')
    rows = make_rows(3, 2, 3)
    engine.script = lambda self: self.push(rows)
    out_file = folder / "rows.csv"
    arguments = ("--input", folder / "capture.log", "--out", out_file)
    code, _, err = tickwire("replay", folder / "scored.toml", *arguments)
    assert code == 0, err
    header, *lines = out_file.read_text().splitlines()
    assert header.endswith("spread(),m.prob_0,m.prob_1,m.prob_2")
    cells = np.array([line.split(",")[12:] for line in lines]).astype(np.float32)
    np.testing.assert_array_equal(cells, rows["scores"])
    assert engine.last.config["models"][0]["id"] == int(
        __import__("hashlib").sha256((folder / "m.onnx").read_bytes()).hexdigest()[:8], 16
    )


def test_latency_of_what_is_no_stat_file(tickwire: Command, folder: Path) -> None:
    code, _, err = tickwire("latency", "show", folder / "pipeline.toml")
    assert code == 2
    assert "expected a stat file" in err


def test_sim_help_is_the_simulators(tickwire: Command) -> None:
    code, out, _ = tickwire("sim", "--help")
    assert code == 0
    assert "--synthetic" in out
