"""A model file is read once; what was read cannot change any more."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tickwire.errors import ModelError
from tickwire.held import HeldModel, held_file, model_id


def test_holds_the_bytes_of_that_moment(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    content = os.urandom(3 * (1 << 20) + 17)  # Several chunks and a rest.
    path.write_bytes(content)
    held = held_file(path)
    path.write_bytes(b"another file")
    path.unlink()
    assert held.content() == content
    assert (held.size, held.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    for attempt in (
        lambda: os.pwrite(held.descriptor, b"x", 0),
        lambda: os.ftruncate(held.descriptor, 0),
        lambda: os.ftruncate(held.descriptor, len(content) + 1),
    ):
        with pytest.raises(PermissionError):
            attempt()
    held.copy_to(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        held.copy_to(tmp_path / "copy")
    descriptor = held.descriptor
    held.close()
    held.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0], [3.0, 1.0]])
def test_a_model_s_number_is_that_of_its_files_and_weights(tmp_path: Path, weights: list[float]) -> None:
    files = [tmp_path / f"{i}.onnx" for i in range(len(weights))]
    for i, file in enumerate(files):
        file.write_bytes(b"model %d" % i)
    with HeldModel(files, weights) as held:
        assert held.number == model_id(files, weights)
        assert [(name, weight) for name, weight, _ in held.members] == [
            (str(file), weight) for file, weight in zip(files, weights, strict=True)
        ]
        descriptors = [descriptor for _, _, descriptor in held.members]
        assert [os.pread(fd, 99, 0) for fd in descriptors] == [file.read_bytes() for file in files]
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_a_file_that_is_not_there_leaves_no_other_open(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ModelError, match="b: expected an ONNX model, found No such file"):
        HeldModel([tmp_path / "a", tmp_path / "b"], [1.0, 1.0])
    with pytest.raises(ModelError, match="found a folder"):
        held_file(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
