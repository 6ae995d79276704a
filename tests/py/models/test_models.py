"""Model files: what is written into them, what is refused, and in which words."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from needs import ROOT
from onnx import TensorProto, helper

from tickwire import core, features, models
from tickwire.errors import FingerprintMismatch, ModelError, SetupError

ort = pytest.importorskip("onnxruntime")

DATA = ROOT / "tests" / "data" / "models"
ROWS = [
    "imbalance(levels=5)",
    "microprice_offset()",
    "spread()",
    "trade_count(window='1s')",
    "mid_return(window='5s')",
]


def schema(
    rows: list[str] = ROWS, *, trigger: str = "book", clock: str = "recv", window_rows: int = 1
) -> features.Schema:
    return features.Schema(
        plan=features.compile_rows(rows),
        trigger=trigger,
        every_ns=0,
        clock=clock,
        window_rows=window_rows,
        trade_stream="trade",
    )


def bind(path: Path, to: features.Schema, out: Path | None = None) -> Path:
    return models.bind(path, to.canonical_json(), to.fingerprint(), out)


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    """A model of five features that was never bound, in a folder of its own."""
    path = tmp_path / "mlp.onnx"
    path.write_bytes((DATA / "good_mlp.onnx").read_bytes())
    return path


def scores(path: Path, row: list[float]) -> list[float]:
    session = ort.InferenceSession(path)
    name = session.get_inputs()[0].name
    return [float(v) for v in np.ravel(session.run(None, {name: np.array([row], np.float32)})[0])]


def test_library_is_the_one_in_the_wheel() -> None:
    library = core.onnxruntime_library()
    assert library.is_file()
    assert library.parent == Path(ort.__file__).parent / "capi"
    assert library.name.startswith("libonnxruntime.so")


def test_bind_then_check(mlp: Path) -> None:
    assert bind(mlp, schema()) == mlp
    assert models.check(mlp, schema()) == ("prob_0", "prob_1", "prob_2")
    models.check_fingerprint(mlp, schema())
    summary = models.inspect(mlp)
    assert summary.schema == schema().canonical_json()
    assert (
        summary.fingerprint == schema().fingerprint() == hashlib.sha256(summary.schema.encode()).hexdigest()
    )
    assert summary.fingerprint_ok is True


def test_bind_changes_nothing_else(mlp: Path) -> None:
    model = onnx.load(mlp)
    helper.set_model_props(model, {"author": "me", models.SCHEMA_KEY: "{}", models.SHA256_KEY: "0"})
    onnx.save(model, mlp)
    mlp.chmod(0o640)
    before = scores(mlp, [1, 2, 3, 4, 5])
    bind(mlp, schema())
    assert models.inspect(mlp).metadata == {"author": "me"}
    assert [p.key for p in onnx.load(mlp).metadata_props].count(models.SCHEMA_KEY) == 1
    assert scores(mlp, [1, 2, 3, 4, 5]) == before
    assert stat.S_IMODE(mlp.stat().st_mode) == 0o640
    assert sorted(file.name for file in mlp.parent.iterdir()) == ["mlp.onnx"], "no temporary file stays"
    assert models.check(mlp, schema()), "the earlier schema is replaced"


def test_bind_elsewhere_leaves_the_original(mlp: Path) -> None:
    content = mlp.read_bytes()
    out = mlp.parent / "bound.onnx"
    assert bind(mlp, schema(), out) == out
    assert mlp.read_bytes() == content
    assert models.check(out, schema())


def test_bind_follows_a_link(mlp: Path) -> None:
    link = mlp.parent / "current.onnx"
    link.symlink_to(mlp.name)
    bind(link, schema())
    assert link.is_symlink()
    assert models.check(mlp, schema())


def test_bind_that_fails_leaves_the_file(mlp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = mlp.read_bytes()

    def broken(_source: object, _target: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(SetupError, match="cannot be written: disk full"):
        bind(mlp, schema())
    assert mlp.read_bytes() == content
    assert [file.name for file in mlp.parent.iterdir()] == ["mlp.onnx"]


def test_bind_refuses_a_fingerprint_of_something_else(mlp: Path) -> None:
    with pytest.raises(ModelError, match="expected the SHA-256 of the schema, found 0000"):
        models.bind(mlp, schema().canonical_json(), "0" * 64)


SIZES = "; features.rows and features.window_rows must be what it was trained on"
EXPORT = "; give every dimension but the first its size when you export it"


@pytest.mark.parametrize(
    ("file", "to", "expected", "found"),
    [
        ("good_mlp", schema(ROWS[:4]), "one input of float32[1, 4]", f"features: float32[1, 5]{SIZES}"),
        (
            "good_mlp",
            schema(window_rows=4),
            "one input of float32[1, 4, 5]",
            f"features: float32[1, 5]{SIZES}",
        ),
        (
            "good_window",
            schema(ROWS[:3], window_rows=5),
            "one input of float32[1, 5, 3]",
            f"window: float32[n, 4, 3]{SIZES}",
        ),
        (
            "bad_two_inputs",
            schema(),
            "one input of float32[1, 5]",
            "2 inputs: a: float32[1, 5]; b: float32[1, 5]; join them into one, inside the model",
        ),
        (
            "bad_string_input",
            schema(),
            "one input of float32[1, 5]",
            "x: string[1, 5]; cast it inside the model",
        ),
        (
            "bad_double_input",
            schema(),
            "one input of float32[1, 5]",
            "x: float64[1, 5]; cast it inside the model",
        ),
        (
            "bad_one_dimension",
            schema(),
            "one input of float32[1, 5]",
            "x: float32[5]; export it with the shape [1, features] or [1, rows, features]",
        ),
        ("bad_free_features", schema(), "one input of float32[1, 5]", f"x: float32[1, F]{EXPORT}"),
        (
            "bad_free_rows",
            schema(window_rows=4),
            "one input of float32[1, 4, 5]",
            f"x: float32[N, T, 5]{EXPORT}",
        ),
        (
            "bad_batch_of_eight",
            schema(),
            "one input of float32[1, 5]",
            "x: float32[8, 5]; export it with a batch of 1, or a free one",
        ),
    ],
)
def test_bind_refuses_another_shape(
    file: str, to: features.Schema, expected: str, found: str, tmp_path: Path
) -> None:
    out = tmp_path / "out.onnx"
    with pytest.raises(ModelError) as error:
        bind(DATA / f"{file}.onnx", to, out)
    assert str(error.value) == f"{DATA / file}.onnx: expected {expected}, found {found}"
    assert not out.exists()


def test_check_refuses_an_unbound_model_and_says_how_to_bind_it(mlp: Path) -> None:
    for refuse in (models.check, models.check_fingerprint):
        with pytest.raises(ModelError) as error:
            refuse(mlp, schema())
        assert f"tickwire model bind {mlp} --config pipeline.toml" in str(error.value)
        assert not isinstance(error.value, FingerprintMismatch)


def test_mismatch_prints_the_difference(mlp: Path) -> None:
    bind(mlp, schema())
    changed = [*ROWS[:3], "trade_count(window='2s')", ROWS[4]]
    with pytest.raises(FingerprintMismatch) as error:
        models.check(mlp, schema(changed, trigger="top"))
    text = str(error.value)
    print(text)
    assert str(mlp) in text
    assert error.value.differences, "one line a difference"
    for line in error.value.differences:
        assert line in text
    named = "\n".join(error.value.differences)
    assert "trade_count" in named
    assert "2s" in named
    assert "1s" in named
    assert "trigger" in named
    assert "book" in named
    assert "top" in named
    assert "imbalance" not in named, "what is equal is not a difference"


@pytest.mark.parametrize(
    "other",
    [
        schema(ROWS[::-1]),
        schema(trigger="trade"),
        schema(clock="event"),
    ],
    ids=["order", "trigger", "clock"],
)
def test_every_part_of_the_schema_counts(mlp: Path, other: features.Schema) -> None:
    bind(mlp, schema())
    with pytest.raises(FingerprintMismatch):
        models.check_fingerprint(mlp, other)


def test_check_refuses_a_schema_changed_by_hand(mlp: Path) -> None:
    bind(mlp, schema())
    model = onnx.load(mlp)
    entry = next(p for p in model.metadata_props if p.key == models.SCHEMA_KEY)
    entry.value = entry.value.replace("book", "top")
    onnx.save(model, mlp)
    assert models.inspect(mlp).fingerprint_ok is False
    with pytest.raises(ModelError, match="the metadata was changed after binding"):
        models.check(mlp, schema())


def test_inspect_tells_what_is_in_the_file(mlp: Path) -> None:
    summary = models.inspect(mlp)
    assert summary.size_bytes == mlp.stat().st_size
    assert summary.sha256 == hashlib.sha256(mlp.read_bytes()).hexdigest()
    assert summary.producer == "tickwire tests"
    assert summary.format == "IR 8, ai.onnx 17, ai.onnx.ml 3"
    assert [str(port) for port in summary.inputs] == ["features: float32[1, 5]"]
    assert [str(port) for port in summary.outputs] == ["prob: float32[1, 3]"]
    assert summary.scores == ("prob_0", "prob_1", "prob_2")
    assert (summary.refused, summary.schema, summary.fingerprint, summary.fingerprint_ok) == (None,) * 4


def test_names_of_scores_are_those_of_the_engine() -> None:
    """cases.txt is what the C++ tests hold the engine to."""
    lines = (DATA / "cases.txt").read_text().splitlines()
    named = {
        line.split()[1]: tuple(after.split()[1:])
        for line, after in itertools.pairwise(lines)
        if line.startswith("model ")
    }
    assert len(named) >= 10
    for name, expected in named.items():
        assert models.inspect(DATA / f"{name}.onnx").scores == expected, name


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("bad_labels_only", "at least one output of float32, found label: int64[1]"),
        ("bad_many_scores", "at most 64 scores in all, found y with 65 values"),
        ("bad_empty_output", "with 0 values"),
        ("bad_unknown_operator", "Prophesy"),
        ("bad_unknown_operator", "this ONNX Runtime lacks the operator; export without it"),
        ("bad_future_opset", "999"),
        ("bad_future_opset", "; export it with an older opset, or install a newer onnxruntime"),
        ("bad_two_inputs", "found 2 inputs: a: float32[1, 5]; b: float32[1, 5]; join them"),
        (
            "bad_free_rows",
            "float32[1, features] or float32[1, rows, features], found x: float32[N, T, 5]; give every",
        ),
        ("bad_batch_of_eight", "found x: float32[8, 5]"),
    ],
)
def test_inspect_says_why_the_engine_would_refuse(file: str, found: str) -> None:
    summary = models.inspect(DATA / f"{file}.onnx")
    assert summary.scores == ()
    assert summary.refused is not None
    assert found in summary.refused


@pytest.mark.parametrize("content", [b"", b"this is not a model", b"\x00" * 64])
def test_refuses_a_file_that_is_no_model(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    for call in (models.inspect, lambda p: models.check(p, schema()), lambda p: bind(p, schema())):
        with pytest.raises(ModelError, match=r"broken\.onnx: expected an ONNX model, found"):
            call(path)


def test_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected an ONNX model, found No such file or directory"):
        models.inspect(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="expected an ONNX model, found a folder"):
        models.inspect(tmp_path)


def test_refuses_a_model_that_is_too_large_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    path.touch()
    os.truncate(path, 2**31)  # All hole.
    with pytest.raises(ModelError, match="of less than 2 GiB, found 2147483648 bytes; quantise it"):
        models.inspect(path)


def test_refuses_more_weights_than_a_file_may_hold(mlp: Path) -> None:
    """3 GiB of weights beside the model, in a file that is all hole."""
    model = onnx.load(mlp)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("length", str(3 << 30))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    mlp.write_bytes(model.SerializeToString())
    weights = mlp.parent / "weights.bin"
    weights.touch()
    os.truncate(weights, 3 << 30)
    with pytest.raises(ModelError) as error:
        models.check(mlp, schema())
    assert str(error.value) == (
        f"{mlp}: expected a model in one file, found weights in another ({tensor.name}: 3,221,225,472 bytes "
        "in weights.bin); an ONNX file ends at 2 GiB: quantise the model, or take a smaller one"
    )


def changed(path: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def too_new(model: onnx.ModelProto) -> None:
    model.ir_version = 99


def too_old(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 4


def of_nobody(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "org.nobody"
    model.opset_import.append(helper.make_opsetid("org.nobody", 1))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (too_new, "IR version: 99"),
        (too_new, "; export it with an older onnx, or install a newer onnxruntime"),
        (too_old, "Could not find an implementation for Gemm"),
        (too_old, "; export it with a newer opset or another type"),
        (of_nobody, "org.nobody:Gemm"),
        (of_nobody, "; this ONNX Runtime lacks the operator; export without it"),
    ],
)
def test_says_what_to_do_about_a_model_from_elsewhere(
    change: Callable[[onnx.ModelProto], object], found: str, mlp: Path
) -> None:
    refused = models.inspect(changed(mlp, change)).refused
    assert refused is not None
    expected = f"an ONNX model that ONNX Runtime {ort.__version__} can run"
    assert refused.startswith(f"{mlp}: expected {expected}, found ")
    assert found in refused
    assert "onnxruntime_src" not in refused, "where in its sources is nothing to a user"


def test_a_damaged_file_is_refused_wherever_it_ends(mlp: Path) -> None:
    bind(mlp, schema())
    content = mlp.read_bytes()
    for size in range(0, len(content), 29):
        mlp.write_bytes(content[:size])
        with pytest.raises(ModelError, match=re.escape(str(mlp))):
            models.check(mlp, schema())


@pytest.mark.parametrize("format", ["onnx", "ort"])
def test_optimize_keeps_scores_and_schema(format: Any, mlp: Path) -> None:
    bind(mlp, schema())
    made = models.optimize(mlp, format=format)
    assert made.path == mlp.with_suffix(f".optimized.{format}")
    assert made.size_bytes == (mlp.stat().st_size, made.path.stat().st_size)
    assert made.rows == 256
    assert made.difference == 0.0
    assert min(made.load_ms) > 0
    assert models.check(made.path, schema()) == ("prob_0", "prob_1", "prob_2")
    summary = models.inspect(made.path)
    assert summary.fingerprint == schema().fingerprint()
    assert summary.scores == ("prob_0", "prob_1", "prob_2")
    assert [str(port) for port in summary.inputs] == ["features: float32[1, 5]"]
    rows = np.random.default_rng(5).normal(0, 2, (50, 5)).astype(np.float32)
    loaded = models.load([made.path], rows=1, features=5)
    expected = [scores(mlp, [float(v) for v in row]) for row in rows]
    np.testing.assert_allclose(loaded.run(rows), expected, rtol=1e-6, atol=1e-7)
    assert sorted(file.name for file in mlp.parent.iterdir()) == ["mlp.onnx", made.path.name]
    if format == "onnx":
        kinds = [node.op_type for node in onnx.load(made.path).graph.node]
        assert len(kinds) < len(onnx.load(mlp).graph.node), f"the runtime fuses some: {kinds}"
    else:
        assert made.path.read_bytes()[4:8] == b"ORTM"


def test_optimize_leaves_a_free_batch_free(tmp_path: Path) -> None:
    made = models.optimize(DATA / "good_mlp_batch.onnx", tmp_path / "o.ort", format="ort")
    assert [str(port) for port in models.inspect(made.path).inputs] == ["features: float32[batch, 5]"]
    rows = np.random.default_rng(5).normal(0, 2, (8, 5)).astype(np.float32)
    before, after = (
        models.load([path], max_batch=8).run(rows) for path in (DATA / "good_mlp_batch.onnx", made.path)
    )
    assert before.tobytes() == after.tobytes()


def test_optimize_writes_nothing_where_scores_change(mlp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = DATA / "good_mlp_batch.onnx"

    def wrong(path: str, out: str, **_: str) -> None:
        Path(out).write_bytes(other.read_bytes())

    monkeypatch.setattr(core.extension, "optimize_model", wrong)
    with pytest.raises(ModelError, match="the optimised model to score as the original, found scores"):
        models.optimize(mlp)
    assert [file.name for file in mlp.parent.iterdir()] == ["mlp.onnx"]


def test_optimize_refuses_what_the_engine_does(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Prophesy"):
        models.optimize(DATA / "bad_unknown_operator.onnx", tmp_path / "o.onnx")
    with pytest.raises(ModelError, match="found tensorrt"):
        models.optimize(DATA / "good_mlp.onnx", tmp_path / "o.onnx", provider="tensorrt")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_of_the_runtimes_own_format_is_refused(mlp: Path) -> None:
    path = models.optimize(mlp, format="ort").path
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="make it again with this version: tickwire model optimize"):
        models.check(path, schema())
    with pytest.raises(ModelError):
        models.load([path])


def test_bind_refuses_the_runtimes_own_format(mlp: Path) -> None:
    path = models.optimize(mlp, format="ort").path
    with pytest.raises(ModelError, match=r"cannot be written again; bind the \.onnx file, then"):
        bind(path, schema())


def test_a_provider_that_is_not_there_is_refused() -> None:
    assert models.providers()[0] == "cpu"
    for provider in {"cuda", "tensorrt"} - set(models.providers()):
        with pytest.raises(ModelError, match=f"found {provider}; it comes with the package onnxruntime-gpu"):
            models.load([DATA / "good_mlp.onnx"], provider=provider)


def test_refuses_weights_in_another_file(mlp: Path) -> None:
    onnx.save(onnx.load(mlp), mlp, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(ModelError, match="expected a model in one file, found weights in another"):
        models.check(mlp, schema())


@pytest.mark.parametrize(("outputs", "names"), [(1, ("score",)), (3, ("prob_0", "prob_1", "prob_2"))])
@pytest.mark.parametrize("window_rows", [1, 4])
def test_demo_model_runs_and_is_bound(
    outputs: int, names: tuple[str, ...], window_rows: int, tmp_path: Path
) -> None:
    to = schema(window_rows=window_rows)
    path = models.make_demo_model(tmp_path / "demo.onnx", to, outputs=outputs)
    assert models.check(path, to) == names
    shape = (1, 5) if window_rows == 1 else (1, window_rows, 5)
    x = np.linspace(-1, 1, 5 * window_rows, dtype=np.float32).reshape(shape)
    found = ort.InferenceSession(path).run(None, {"features": x})[0]

    weights = {t.name: onnx.numpy_helper.to_array(t).astype(float) for t in onnx.load(path).graph.initializer}
    y = x.astype(float).reshape(1, -1)
    for i in range(3):
        y = y @ weights[f"w{i}"] + weights[f"b{i}"]
        y = np.maximum(y, 0) if i < 2 else y
    if outputs > 1:
        y = np.exp(y) / np.exp(y).sum()
    np.testing.assert_allclose(found, y, rtol=1e-5, atol=1e-6)
    assert weights["w0"].shape == (5 * window_rows, 64)


def test_demo_model_is_the_same_each_time(tmp_path: Path) -> None:
    one, two, other = (
        models.make_demo_model(tmp_path / f"{i}.onnx", schema(), seed=seed).read_bytes()
        for i, seed in enumerate([1, 1, 2])
    )
    assert one == two
    assert one != other


def test_committed_models_are_what_their_script_makes(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_models", DATA / "make_models.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.make(tmp_path)
    made = {file.name for file in tmp_path.iterdir()}
    assert made == {file.name for file in DATA.iterdir() if file.suffix in (".onnx", ".txt")}
    for name in made - {"cases.txt"}:
        # As messages, not as bytes: another protobuf may order them otherwise.
        assert onnx.load(tmp_path / name) == onnx.load(DATA / name), name
    numbers = [(tmp_path / "cases.txt"), (DATA / "cases.txt")]
    new, old = (line.split() for file in numbers for line in [file.read_text()])
    assert len(new) == len(old)
    for a, b in zip(new, old, strict=True):
        # exp and tanh differ in the last place between C libraries.
        assert a == b or float(a) == pytest.approx(float(b), rel=1e-12, abs=1e-15)


def test_old_models_list_their_weights_among_the_inputs(mlp: Path) -> None:
    model = onnx.load(mlp)
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, list(tensor.dims))
        )
    model.ir_version = 3
    model.opset_import[0].version = 8
    onnx.save(model, mlp)
    assert [port.name for port in models.inspect(mlp).inputs] == ["features"]
