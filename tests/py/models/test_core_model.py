"""The engine's way of running a model, as Python sees it, beside ONNX Runtime's own in Python."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from needs import ROOT
from numpy.typing import NDArray

from tickwire import _core, core
from tickwire.errors import SetupError

ort = pytest.importorskip("onnxruntime")

DATA = ROOT / "tests" / "data" / "models"


def load(
    *names: str, rows: int, features: int, max_batch: int = 1, weights: tuple[float, ...] = ()
) -> _core.Model:
    return _core.Model(
        members=[str(DATA / f"{name}.onnx") for name in names],
        weights=list(weights),
        provider="cpu",
        cache_dir="",
        max_batch=max_batch,
        rows=rows,
        features=features,
        library=str(core.onnxruntime_library()),
    )


def in_python(name: str, batch: np.ndarray) -> np.ndarray:
    """Every float output of ONNX Runtime's own Python session, side by side, one line a row."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(DATA / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs() if port.type == "tensor(float)"]
    values = session.run(names, {session.get_inputs()[0].name: batch})
    return np.concatenate([np.reshape(value, (len(batch), -1)) for value in values], axis=1)


def rows_of(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(11).normal(0, 1.5, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("good_mlp_batch", (1, 5)), ("good_window", (4, 3)), ("good_trees", (1, 3)), ("good_zipmap", (1, 3))],
)
def test_batches_score_as_in_python(name: str, shape: tuple[int, int]) -> None:
    batch = rows_of(7, *(shape if shape[0] > 1 else shape[1:]))
    model = load(name, rows=shape[0], features=shape[1], max_batch=3)
    found = model.run(batch)
    assert found.dtype == np.float32
    assert found.shape == (7, len(model.score_names))
    # In batches of three, three and one.
    expected = np.concatenate([in_python(name, batch[i : i + 3]) for i in (0, 3, 6)])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    alone = load(name, rows=shape[0], features=shape[1]).run(batch)
    np.testing.assert_allclose(alone, expected, rtol=1e-5, atol=1e-6)


def test_the_same_batch_gives_the_same_bits_from_any_memory() -> None:
    batch = rows_of(5, 5)
    model = load("good_mlp_batch", rows=1, features=5, max_batch=5)
    first = model.run(batch)
    shifted = np.empty(26, np.float32)[1:].reshape(5, 5)
    shifted[:] = batch
    assert model.run(shifted).tobytes() == first.tobytes()
    assert model.run(np.asfortranarray(batch)).tobytes() == first.tobytes()
    assert model.run(batch[:0]).shape == (0, 3)


def test_ensemble_is_the_weighted_mean() -> None:
    batch = rows_of(4, 5)
    a, b = (
        load(name, rows=1, features=5).run(batch).astype(float) for name in ("good_mlp", "good_mlp_batch")
    )
    both = load("good_mlp", "good_mlp_batch", rows=1, features=5, weights=(1.0, 3.0))
    mean, _, executor = both.executor.partition(": ")
    assert mean == "weighted mean of 2 (1, 3)"
    assert executor.split()[0] in _core.EXECUTORS
    assert np.array_equal(both.run(batch), ((a + 3 * b) / 4).astype(np.float32))


def test_threads_take_turns() -> None:
    model = load("good_mlp_batch", rows=1, features=5, max_batch=4)
    batches = [rows_of(64, 5) * np.float32(scale) for scale in (0.5, 1.0, 2.0)]
    expected = [model.run(batch) for batch in batches]
    wrong: list[int] = []

    def work(i: int) -> None:
        if any(not np.array_equal(model.run(batches[i]), expected[i]) for _ in range(50)):
            wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_refuses_what_does_not_fit() -> None:
    model = load("good_window", rows=4, features=3)
    with pytest.raises(_core.SetupError, match=r"expected floats of \[n, 4, 3\], found \[2, 3, 4\]"):
        model.run(rows_of(2, 3, 4))
    with pytest.raises(_core.SetupError, match=r"found \[12\]"):
        model.run(rows_of(12))
    with pytest.raises(TypeError):
        model.run(np.zeros((1, 4, 3), np.float64))
    with pytest.raises(_core.SetupError, match="expected a free batch dimension, for batches of 2"):
        load("good_mlp", rows=1, features=5, max_batch=2)
    with pytest.raises(_core.SetupError, match="expected at least one model"):
        load(rows=1, features=5)
    with pytest.raises(_core.SetupError, match="max_batch: expected 1 or more"):
        load("good_mlp", rows=1, features=5, max_batch=0)


def test_a_run_that_fails_is_an_error() -> None:
    model = load("bad_shape_changes", rows=1, features=5)
    with pytest.raises(SetupError, match=r"bad_shape_changes\.onnx: .*shape"):
        model.run(np.array([[0, 1, 0, 1, 0]], np.float32))
