"""What a test needs that may not be there, and skips without."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
"""The tree that this test is of."""

RECORDED = Path(os.environ.get("TICKWIRE_DATA", ROOT.parent / "shared" / "data"))
"""Where recorded days are."""

compiled = pytest.mark.skipif(
    importlib.util.find_spec("tickwire._core") is None, reason="the compiled engine is not built"
)


def recorded(*names: str) -> list[Path]:
    """Files of recorded data; the test is skipped where one is not there."""
    files = [RECORDED / name for name in names]
    for file in files:
        if not file.exists():
            pytest.skip(f"recorded data is not there: {file}")
    return files
