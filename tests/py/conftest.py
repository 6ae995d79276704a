"""Lets the tests import what lies in helpers/, and several processes run them at once."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # Before a test opens the library on its own.
sys.path.insert(0, str(Path(__file__).parent / "helpers"))

import hypothesis
import pytest
from isolation import can_isolate, isolate

# What is started under nohup ignores a hangup, and so does whatever it starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# No test is a matter of how long an example takes.
hypothesis.settings.register_profile("tickwire", deadline=None)
hypothesis.settings.load_profile("tickwire")

# Most of the tests' time is waiting: for a venue, a worker, a timer.
PROCESSES_PER_CORE = 2


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """For `-n auto`. Where processes cannot be kept apart, one runs all tests."""
    return PROCESSES_PER_CORE * len(os.sched_getaffinity(0)) if can_isolate() else 0


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        isolate()
