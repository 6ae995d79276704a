"""What all designs of the comparison share: the features, the model, the sender, the machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Windows that are full within the settling time of a short round.
# Of what is measured here, and of the processes that it starts: ONNX Runtime reports nothing to anybody.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

WINDOW_NS = 200_000_000
SCORE_WINDOW_NS = 1_000_000_000
ROWS = [
    "imbalance(levels=1)",
    "imbalance(levels=5)",
    "imbalance(levels=10)",
    "spread()",
    "microprice_offset()",
    'mid_return(window="200ms")',
    'ofi(levels=5, window="200ms")',
    'zscore(ofi(levels=5, window="200ms"), window="1s")',
]
# The first columns depend on the book alone and not on when a message was received, so every design must
# give the same numbers there.
TIMELESS_COLUMNS = 5
SYMBOL = "BTCUSDT"

STAMP_DTYPE = np.dtype([("id", "<i8"), ("due_ns", "<i8"), ("sent_ns", "<i8")])


@dataclass(frozen=True)
class Venue:
    """A sender that listens."""

    process: subprocess.Popen[str]
    ws_url: str
    rest_url: str
    first_id: int
    last_id: int
    frame_bytes: int
    stamps: Path

    def finish(self) -> NDArray[np.void]:
        """Waits for its end; when each frame was sent."""
        _, errors = self.process.communicate(timeout=30)
        if self.process.returncode != 0:
            raise RuntimeError(f"the sender failed: {errors.strip()}")
        return np.fromfile(self.stamps, dtype=STAMP_DTYPE)


def start_venue(program: Path, stamps: Path, options: Sequence[str]) -> Venue:
    process = subprocess.Popen(
        [os.fspath(program), "serve", "--symbol", SYMBOL, "--stamps", os.fspath(stamps), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the sender did not start: {process.communicate()[1].strip()}")
    said = json.loads(line)
    return Venue(
        process,
        f"ws://127.0.0.1:{said['ws_port']}/ws",
        f"http://127.0.0.1:{said['rest_port']}/depth",
        said["first_id"],
        said["last_id"],
        said["frame_bytes"],
        stamps,
    )


# Where `make bench` builds the C++ programs.
BUILD = Path(__file__).resolve().parents[2] / "build" / "bench"


def pipeline_config(
    *, market: str, layout: str, idle: str, ws_url: str, rest_url: str, cores: Sequence[int]
) -> dict[str, Any]:
    """The pipeline of the comparison, without its model. `cores`: of ingest and inference, none to float."""
    feed: dict[str, Any] = {
        "venue": f"binance_{market}",
        "url": ws_url,
        "rest_url": rest_url,
        "instruments": [SYMBOL],
    }
    if cores:
        feed["core"] = cores[0]
    return {
        "engine": {"layout": layout, "idle": idle},
        "feeds": [feed],
        # Sized for the fastest pace with room for bursts.
        "features": {"trigger": "book", "rows": list(ROWS), "max_event_rate": 20_000},
    }


# What a host is tuned with; the rest of the command line says where it boots from.
_TUNING = (
    *("isolcpus", "nohz", "rcu_nocb", "irqaffinity", "mitigations", "idle", "hugepage", "preempt"),
    *("max_cstate", "pstate", "nosmt", "skew_tick", "tsc", "threadirqs"),
)


def _tuning_of(command_line: str) -> list[str]:
    return [word for word in command_line.split() if any(name in word.partition("=")[0] for name in _TUNING)]


def machine(build_folder: Path) -> dict[str, str]:
    """What a figure must not travel without."""
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cache = build_folder / "CMakeCache.txt"
    build = compiler = "unknown"
    if cache.exists():
        entries = dict(
            line.partition("=")[::2]
            for line in cache.read_text().splitlines()
            if "=" in line and line[0] not in "#/"
        )
        build = entries.get("CMAKE_BUILD_TYPE:STRING") or "Release"
        program = entries.get("CMAKE_CXX_COMPILER:FILEPATH") or entries.get(
            "CMAKE_CXX_COMPILER:STRING", "c++"
        )
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        compiler = answer.stdout.splitlines()[0] if answer.stdout else program
    return {
        "cpu": f"{model}, {os.cpu_count()} cores, {len(os.sched_getaffinity(0))} usable",
        "kernel": platform.release(),
        "kernel command line": " ".join(_tuning_of(Path("/proc/cmdline").read_text()))
        or "nothing that tunes",
        "compiler": f"{compiler}, {build}",
        "python": platform.python_version(),
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be; the first to the left, numbers to the right."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    for line in [header, ["-" * width for width in widths], *rows]:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        print("  ".join(cells).rstrip())
