"""Which cores a thread of ours may run on."""

from __future__ import annotations

import os

__all__ = ["can_run_on"]


def can_run_on(core: int) -> bool:
    """Whether a thread of ours may go there, although we are not there now: a boot line that isolates the
    core, or a service that keeps us off it, leaves it out of our own set and does not forbid it."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {core})
    except (OSError, OverflowError, ValueError):
        return False
    try:
        return os.sched_getaffinity(0) == {core}
    finally:
        os.sched_setaffinity(0, before)
