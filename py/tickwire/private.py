"""What is this user's alone: files with secrets, and sockets of our own engines."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["check_socket", "private_opener", "read_secret"]

_MOST_SECRET = 1 << 16


def read_secret(path: Path) -> bytes:
    """The content of a file that nobody else can read. `ValueError` says what is wrong, and nothing of what
    is in it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise ValueError(f"expected a file that can be read ({error.strerror})") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("expected a regular file")
        mode = stat.S_IMODE(status.st_mode)
        if status.st_uid not in (os.geteuid(), 0):
            raise ValueError(f"expected a file of this user's, found one of user {status.st_uid}")
        # A service manager lends root's files to us by an access list, which shows as rights of the group.
        others = 0o007 if status.st_uid == 0 and os.geteuid() != 0 else 0o077
        if mode & others:
            raise ValueError(f"expected a file that only its user can read, found mode {mode:04o}: chmod 600")
        return os.read(descriptor, _MOST_SECRET)
    finally:
        os.close(descriptor)


def check_socket(path: Path) -> str:
    """Why a command must not be sent there; empty where it is a socket of this user's, or nothing at all."""
    try:
        status = os.lstat(path)
    except OSError:
        return ""  # Who connects says it.
    if not stat.S_ISSOCK(status.st_mode):
        return "expected a socket, found something else"
    if status.st_uid != os.geteuid():
        return f"expected a socket of this user's, found one of user {status.st_uid}"
    return ""


def private_opener(path: str, flags: int) -> int:
    """For `open(…, opener=private_opener)`: what is made is its user's alone, and no link is followed."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
