"""Model files as they were at one moment.

A start, or an exchange, looks at a model several times: its identity, its features, a load to try it, the
loads of the engine, the copy of a recording. So the file is read once, into memory that nobody can write to
any more, and everything looks there: what was checked is what runs, whatever becomes of the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tickwire.errors import ModelError
from tickwire.limits import Expired, Limit

__all__ = ["HeldFile", "HeldModel", "held_file", "model_id", "model_number"]

#: Protocol buffers end at 2 GiB, and so does an ONNX file.
MAX_BYTES = 2**31 - 1
_CHUNK = 1 << 20
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class HeldFile:
    """The bytes of one file, in sealed memory, until `close`."""

    def __init__(self, path: Path, descriptor: int, size: int, sha256: str) -> None:
        self.path = path
        """Where they were read from: its name in messages."""
        self.descriptor = descriptor
        self.size = size
        self.sha256 = sha256

    def content(self) -> bytes:
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        at = 0
        while at < self.size:
            chunk = os.pread(self.descriptor, _CHUNK, at)
            at += len(chunk)
            yield chunk

    def copy_to(self, path: Path) -> None:
        """Writes them to a new file that its user alone can read."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for chunk in self.chunks():
                file.write(chunk)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


#: Seconds in which a model must have been read, where no configuration says otherwise.
READ_S = 60.0


def held_file(path: Path, limit: Limit | None = None) -> HeldFile:
    """Reads a file once. `ModelError` where that cannot be done, or does not end within the limit."""
    limit = limit or Limit(READ_S)
    try:
        # A disk that is not there any more may hold whoever reads from it for ever.
        return limit.wait(lambda: _read_once(path))
    except Expired:
        found = "one that nobody waits for any more" if limit.given_up else "none"
        raise ModelError(
            f"{path}: expected an ONNX model that can be read within {limit.seconds:g} s, found {found}; "
            "copy it to a disk of this machine"
        ) from None


def _read_once(path: Path) -> HeldFile:
    def refuse(found: str) -> ModelError:
        return ModelError(
            f"{path}: expected an ONNX model, found {found}; name a file that `tickwire model inspect` can "
            "describe"
        )

    try:
        # A pipe's open would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise refuse(_KINDS.get(stat.S_IFMT(status.st_mode), "no file"))
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            if (size := status.st_size) > MAX_BYTES:
                raise ModelError(
                    f"{path}: expected an ONNX model of less than 2 GiB, found {size} bytes; quantise it, or "
                    "take a smaller one"
                )
            memory = os.memfd_create("tickwire-model", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                size, digest = 0, hashlib.sha256()
                while chunk := file.read(_CHUNK):
                    size += len(chunk)
                    if size > MAX_BYTES:
                        raise refuse("more than 2 GiB that have no end yet")
                    digest.update(chunk)
                    _write_all(memory, chunk)
                fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
            except BaseException:
                os.close(memory)
                raise
    except OSError as error:
        raise refuse(error.strerror or str(error)) from None
    return HeldFile(path, memory, size, digest.hexdigest())


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class HeldModel:
    """The files of one model, an ensemble's all of them. A context manager, or `close`."""

    def __init__(self, files: Sequence[Path], weights: Sequence[float], limit: Limit | None = None) -> None:
        """Reads them; `ModelError` where one cannot be read, or not within the limit."""
        self.files: list[HeldFile] = []
        self.weights = list(weights)
        try:
            for path in files:
                self.files.append(held_file(path, limit))
        except BaseException:
            self.close()
            raise
        self.number = model_number([file.sha256 for file in self.files], self.weights)
        """What signals carry to name the model."""

    @property
    def members(self) -> list[tuple[str, float, int]]:
        """As the engine takes them: name, weight, and the descriptor that holds the bytes."""
        return [
            (str(file.path), weight, file.descriptor)
            for file, weight in zip(self.files, self.weights, strict=True)
        ]

    def close(self) -> None:
        for file in self.files:
            with contextlib.suppress(OSError):
                file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def model_number(digests: Sequence[str], weights: Sequence[float]) -> int:
    """The first four bytes of the file's SHA-256, or of one over the files' and their weights."""
    digest = digests[0]
    if len(digests) > 1:
        text = json.dumps([[one, weight] for one, weight in zip(digests, weights, strict=True)])
        digest = hashlib.sha256(text.encode()).hexdigest()
    return int(digest[:8], 16)


def model_id(files: Sequence[Path], weights: Sequence[float]) -> int:
    """What signals carry to name their model: the first four bytes of the file's SHA-256, or of one over
    the files' and their weights. `OSError` where a file cannot be read."""
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return model_number(digests, weights)
