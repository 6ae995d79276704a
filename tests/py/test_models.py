"""Model files: what is written into them, what is refused, and in which words."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import os
import stat
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tickwire import features, models
from tickwire.errors import FingerprintMismatch, ModelError

ort = pytest.importorskip("onnxruntime")

DATA = Path(__file__).parent.parent / "data" / "models"
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
    library = models.onnxruntime_library()
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
    with pytest.raises(OSError, match="disk full"):
        bind(mlp, schema())
    assert mlp.read_bytes() == content
    assert [file.name for file in mlp.parent.iterdir()] == ["mlp.onnx"]


def test_bind_refuses_a_fingerprint_of_something_else(mlp: Path) -> None:
    with pytest.raises(ModelError, match="expected the SHA-256 of the schema, found 0000"):
        models.bind(mlp, schema().canonical_json(), "0" * 64)


@pytest.mark.parametrize(
    ("file", "to", "expected", "found"),
    [
        ("good_mlp", schema(ROWS[:4]), "one input of float32[1, 4]", "features: float32[1, 5]"),
        ("good_mlp", schema(window_rows=4), "one input of float32[1, 4, 5]", "features: float32[1, 5]"),
        (
            "good_window",
            schema(ROWS[:3], window_rows=5),
            "one input of float32[1, 5, 3]",
            "window: float32[n, 4, 3]",
        ),
        (
            "bad_two_inputs",
            schema(),
            "one input of float32[1, 5]",
            "2 inputs: a: float32[1, 5]; b: float32[1, 5]",
        ),
        ("bad_string_input", schema(), "one input of float32[1, 5]", "x: string[1, 5]"),
        ("bad_double_input", schema(), "one input of float32[1, 5]", "x: float64[1, 5]"),
        ("bad_one_dimension", schema(), "one input of float32[1, 5]", "x: float32[5]"),
        ("bad_free_features", schema(), "one input of float32[1, 5]", "x: float32[1, F]"),
        ("bad_free_rows", schema(window_rows=4), "one input of float32[1, 4, 5]", "x: float32[N, T, 5]"),
        ("bad_batch_of_eight", schema(), "one input of float32[1, 5]", "x: float32[8, 5]"),
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
    assert summary.opsets == {"ai.onnx": 17, "ai.onnx.ml": 3}
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
        ("bad_many_scores", "1 to 64 scores in all, found y: float32[1, 65] with 65 values"),
        ("bad_empty_output", "with 0 values"),
        ("bad_unknown_operator", "Prophesy"),
        ("bad_future_opset", "999"),
        ("bad_two_inputs", "found a: float32[1, 5]; b: float32[1, 5]"),
        ("bad_free_rows", "every dimension but the first to be fixed, found x: float32[N, T, 5]"),
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
    with pytest.raises(ModelError, match="expected an ONNX model, found Is a directory"):
        models.inspect(tmp_path)


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
