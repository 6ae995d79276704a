"""Standard input, output and error as a command may rely on them, whatever it was started with.

A descriptor that is closed becomes /dev/null: else the next file or socket would get its number, and what
a library prints would go there. What cannot be written, because a disk is full or nobody reads any more,
is thrown away from the first failure on, so that a run goes on and its recording is closed; `lost` says so
at the end. What an encoding does not have is replaced.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
from typing import Any, TextIO

__all__ = ["lost", "prepare"]

_OUTPUTS: dict[int, _Output] = {}


class _Output(io.RawIOBase):
    """A descriptor that never refuses."""

    def __init__(self, fd: int) -> None:
        self.error: OSError | None = None
        self._fd = fd

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        while view and self.error is None:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:  # Somebody else has made it non-blocking: a pipe that is full for now.
                select.select([], [self._fd], [], 1.0)
            except OSError as error:
                self.error = error
        return size


class _Text(io.TextIOWrapper):
    """For encodings that refuse a whole text where others replace a character."""

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except (UnicodeError, ValueError):
            plain = text.encode("ascii", "replace").decode("ascii")
            try:
                return super().write(plain)
            except (UnicodeError, ValueError):
                return len(text)


def _wrap(fd: int, before: TextIO | None, errors: str) -> TextIO:
    encoding = (before.encoding if before is not None else None) or "utf-8"
    try:
        codecs.lookup(encoding)
    except LookupError:
        encoding = "utf-8"
    if before is not None:
        before.flush()
    _OUTPUTS[fd] = output = _Output(fd)
    terminal = output.isatty()
    return _Text(
        io.BufferedWriter(output),
        encoding=encoding,
        errors=errors,
        line_buffering=terminal or fd == 2,
        write_through=fd == 2,
    )


def prepare() -> None:
    """Once, before anything is opened or printed. Leaves alone what somebody else has put in their places."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest number that is free, so this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    if sys.stdout is sys.__stdout__:
        sys.stdout = _wrap(1, sys.stdout, "replace")
    if sys.stderr is sys.__stderr__:
        sys.stderr = _wrap(2, sys.stderr, "backslashreplace")


def lost() -> OSError | None:
    """Why some of standard output could not be written, where that is so."""
    if 1 not in _OUTPUTS:
        return None
    sys.stdout.flush()
    return _OUTPUTS[1].error


def reader_left(error: OSError) -> bool:
    """Nobody wants to read more, as behind `| head`: no reason to say anything."""
    return error.errno == errno.EPIPE
