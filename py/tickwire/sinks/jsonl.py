"""One line of JSON a signal, to a file or to standard output."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tickwire.errors import SetupError
from tickwire.sinks.base import encode
from tickwire.sinks.table import SinkTable

if TYPE_CHECKING:
    from tickwire.records import Signal

__all__ = ["JsonlSink", "JsonlTable"]

_log = logging.getLogger("tickwire.sinks")

# How long a batch waits for the reader of a named pipe.
_PIPE_WAIT_S = 1.0


class JsonlTable(SinkTable):
    """`[[sinks]] type = "jsonl"`: one line of JSON a signal."""

    type: Literal["jsonl"]
    path: Annotated[str, Field(min_length=1)]
    """File to append to; `"-"` is standard output."""

    queue: Annotated[int, Field(ge=1, le=1 << 22)] = 8192
    """Signals that may wait for the disk. Beyond it the newest are dropped and counted."""

    @property
    def waiting(self) -> int:
        return self.queue

    @property
    def to_stdout(self) -> bool:
        return self.path == "-"

    def files(self) -> dict[str, str]:
        return {} if self.to_stdout else {"path": self.path}

    def make(self, path_of: Callable[[str], Path]) -> JsonlSink:
        return JsonlSink(self.path if self.to_stdout else str(path_of(self.path)))


class JsonlSink:
    """Appends to a file. Writes happen in the loop's executor, a batch at a time.

    A disk that is full, or an output that went away, is said once and counted; writing goes on being
    tried, and the file never keeps half a line. A named pipe that nobody reads is no reason to wait with the
    start: what is written until somebody does is lost, said and counted in the same way.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.lines = 0
        self.lost = 0
        self.write_errors = 0
        self._fd = -1
        self._failing = False
        self._cut = False
        self._pipe = False

    async def open(self) -> None:
        if self.path == "-":
            self._fd = os.dup(1)
            return
        try:
            self._pipe = stat.S_ISFIFO(os.stat(self.path).st_mode)
        except OSError:
            self._pipe = False
        error = self._open()
        if error is not None and not (self._pipe and error.errno == errno.ENXIO):  # Nobody reads yet.
            raise SetupError(f"sinks: jsonl: {self.path}: cannot be opened: {error.strerror}") from None

    def _open(self) -> OSError | None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            self._fd = os.open(self.path, flags | (os.O_NONBLOCK if self._pipe else 0), 0o644)
        except OSError as error:
            return error
        return None

    async def write(self, signals: Sequence[Signal]) -> None:
        text = "".join(encode(signal) + "\n" for signal in signals).encode()
        error = await asyncio.get_running_loop().run_in_executor(None, self._write, text)
        if error is None:
            self.lines += len(signals)
            if self._failing:
                self._failing = False
                _log.warning("sink jsonl %s: writing again; %d signals are missing", self.path, self.lost)
            return
        self.lost += len(signals)
        self.write_errors += 1
        if not self._failing:
            self._failing = True
            _log.warning(
                "sink jsonl %s: %s; signals are lost and counted until it can be written",
                self.path,
                error.strerror,
            )

    async def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def counters(self) -> dict[str, int]:
        return {"lines": self.lines, "lost": self.lost, "write_errors": self.write_errors}

    def _write(self, data: bytes) -> OSError | None:
        """The whole batch or, as far as the file allows, none of it. Runs in the executor."""
        if self._fd < 0 and (error := self._open()) is not None:
            return error
        if self._cut:
            data = b"\n" + data
        view = memoryview(data)
        written = 0
        try:
            while written < len(view):
                if self._pipe and not select.select([], [self._fd], [], _PIPE_WAIT_S)[1]:
                    raise TimeoutError(errno.ETIMEDOUT, "its reader does not read")
                written += os.write(self._fd, view[written:])
        except OSError as error:
            if written:
                self._take_back(written)
            if self._pipe and error.errno == errno.EPIPE:  # The next reader gets whole lines.
                os.close(self._fd)
                self._fd, self._cut = -1, False
            return error
        self._cut = False
        return None

    def _take_back(self, count: int) -> None:
        try:
            status = os.fstat(self._fd)
            if stat.S_ISREG(status.st_mode):
                os.ftruncate(self._fd, status.st_size - count)
                return
        except OSError:
            pass
        self._cut = True  # A pipe cannot take it back: the next batch begins on a line of its own.
