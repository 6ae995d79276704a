"""A network and a /dev/shm of one's own, so that tests which run beside each other do not meet.

Engines, venues and workers are found by what lies in /dev/shm, and multicast reaches whoever listens: of two
tests that count engines, or send to the same group, each sees the other's. Linux gives a process both for
itself, where it may ask for them (as root).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def isolate() -> None:
    """Gives this thread, and every process and thread that it starts, a network with only a loopback
    interface and an empty /dev/shm.

    Raises OSError where that is not allowed.
    """
    _checked(_libc.unshare(CLONE_NEWNS | CLONE_NEWNET), "unshare")
    _checked(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount / private")
    _checked(_libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"mode=1777"), "mount /dev/shm")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))


def can_isolate() -> bool:
    """Whether `isolate` works here; tried in a process of its own."""
    child = os.fork()
    if child == 0:
        try:
            isolate()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0
