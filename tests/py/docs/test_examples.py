"""Every example runs, offline, as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from needs import ROOT, compiled

EXAMPLES = sorted((ROOT / "py" / "examples").glob("*.py"))

pytestmark = compiled

# What each says when it works.
EXPECTED = {"01_replay_to_features": "rows; the last: [", "02_live_signals": " us\n"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example: Path) -> None:
    done = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert EXPECTED[example.stem] in done.stdout
