"""A recorded live run against the simulator: `tickwire verify` finds no difference, market by market."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from needs import compiled

pytestmark = compiled


def tickwire(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from tickwire.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("layout", ["threads", "inline", "processes"])
@pytest.mark.parametrize("market", ["spot", "usdm", "coinm"])
def test_recorded_run_equals_its_replay(tmp_path: Path, market: str, layout: str) -> None:
    run = tmp_path / "run"
    live = tickwire(
        "demo", "--seconds", "3", "--market", market, "--layout", layout, "--record", str(run), "--json"
    )
    assert live.returncode == 0, live.stderr
    report = json.loads(live.stdout.splitlines()[-1])
    assert report["signals"] > 100

    verified = tickwire("verify", str(run))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert f"{report['rows']:,} rows" in verified.stdout
    assert "bit for bit" in verified.stdout


def test_verify_finds_one_flipped_bit_of_a_real_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert tickwire("demo", "--seconds", "2", "--record", str(run)).returncode == 0
    (rows,) = (run / "rows").glob("*/*.bin")
    raw = np.fromfile(rows, dtype=np.uint8)
    # The lowest bit of the first feature of a row in the middle of the file.
    dtype = json.loads((run / "run.json").read_text())["row_dtype"]
    raw[len(raw) // dtype["itemsize"] // 2 * dtype["itemsize"] + dtype["offsets"][-1]] ^= 1
    raw.tofile(rows)
    verified = tickwire("verify", str(run))
    assert verified.returncode == 1
    said = verified.stdout + verified.stderr
    assert "recorded" in said
    assert "replayed" in said
