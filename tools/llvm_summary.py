"""Prints lines and branches of each file of `llvm-cov export --summary-only`, read from standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

for entry in json.load(sys.stdin)["data"][0]["files"]:
    shares = []
    for what in ("lines", "branches"):
        share = entry["summary"][what]
        shares.append(f"{what} {share['covered']} of {share['count']}, {share['percent']:.1f}%")
    print(f"  {Path(entry['filename']).name:<24} {'  '.join(shares)}")
