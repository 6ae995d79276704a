"""An output is never one of the inputs, by whatever name it goes, and has its name once it is whole.

Every command that writes a file asks here first, before it opens anything: what is opened for writing is
empty from then on, and it may be the only copy.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from tickwire.errors import ConfigError, Error

__all__ = ["PendingFile", "refuse_over"]

StrPath = str | os.PathLike[str]


def refuse_over(option: str, out: StrPath, inputs: Iterable[tuple[str, StrPath]]) -> None:
    """Refuses an output that is an input: the same path, another path to it, a symbolic or a hard link.

    `option` names the output in the message. `inputs`: what each file is, and its path; one that is not there
    is compared by its path.
    """
    for what, path in inputs:
        if _same(out, path):
            raise ConfigError(
                f"{option}: expected a file of its own, found {os.fspath(out)!r}, which is {what} "
                f"{os.fspath(path)!r} and would be written over; name another file"
            )


def _same(one: StrPath, other: StrPath) -> bool:
    try:
        first, second = os.stat(one), os.stat(other)
    except (OSError, ValueError):
        return os.path.realpath(one) == os.path.realpath(other)
    # A terminal or /dev/null may be read and written at once.
    return os.path.samestat(first, second) and (Path(one).is_file() or Path(one).is_dir())


class PendingFile:
    """A file that gets its name when it is whole: until then what is there stays, and an end before that
    leaves nothing, a kill included: it has no name at all, where the file system has such files. Elsewhere a
    kill leaves `.NAME.PID.partial` beside it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        target = Path(os.path.realpath(self.path))
        self._target: Path | None = None
        self._fd = -1
        self.partial = self.path  # A pipe or a device takes what comes, as it comes.
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(target.stat().st_mode):
                return
        self._target = target
        self._named = target.with_name(f".{target.stem}.{os.getpid()}.partial{self.path.suffix}")
        self.partial = self._named
        with contextlib.suppress(OSError):
            self._fd = os.open(target.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
            nameless = Path(f"/proc/self/fd/{self._fd}")
            if nameless.exists():
                self.partial = nameless

    def renamed(self, error: Error) -> Error:
        return type(error)(str(error).replace(os.fspath(self.partial), os.fspath(self.path)))

    def commit(self) -> None:
        if self._target is None:
            return
        try:
            if self.partial != self._named:
                # With a descriptor of a folder, which an absolute path has no use for, links are followed.
                os.link(self.partial, self._named, src_dir_fd=self._fd, follow_symlinks=True)
            os.replace(self._named, self._target)
        except OSError as error:
            self.discard()
            raise Error(f"{self.path}: cannot be written: {error.strerror}") from None

    def discard(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._target is not None:
            with contextlib.suppress(OSError):
                self._named.unlink(missing_ok=True)
