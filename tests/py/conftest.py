"""Lets the tests import the helpers that lie beside them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # Before a test opens the library on its own.
sys.path.insert(0, str(Path(__file__).parent))
