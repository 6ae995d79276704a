#!/usr/bin/env python3
"""Lines and branches of the C++ layers that their tests run, held to floors: `make coverage`.

    tools/coverage.py BUILD_DIR [--write]

Reads with gcovr what the tests of a build with TICKWIRE_COVERAGE left, prints a line for each layer, and
fails where one is below its floor in tools/coverage_floors.json. `--write` makes what was found the floors,
in tenths of a percent, rounded down. Lines and branches are those of the source: a template's count once,
whichever instance ran them, and no branch that only an exception's way out takes.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ROOT / "tools" / "coverage_floors.json"
LAYERS = ROOT / "cpp" / "tickwire"
KINDS = ("line", "branch")

Counts = dict[str, list[int]]  # By kind: covered, all.


def measure(build: Path) -> dict[str, Counts]:
    """By layer."""
    command: list[str | Path] = [Path(sys.executable).parent / "gcovr", "--root", ROOT]
    command += ["--filter", f"{LAYERS}/", build]
    command += ["--exclude-throw-branches", "--exclude-unreachable-branches", "--merge-lines"]
    command += ["--json-summary", "-"]
    command += ["--gcov-ignore-parse-errors=suspicious_hits.warn_once_per_file"]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=build).stdout)
    layers: dict[str, Counts] = {}
    for entry in found["files"]:
        layer = (ROOT / entry["filename"]).relative_to(LAYERS).parts[0]
        counts = layers.setdefault(layer, {kind: [0, 0] for kind in KINDS})
        for kind in KINDS:
            counts[kind][0] += entry[f"{kind}_covered"]
            counts[kind][1] += entry[f"{kind}_total"]
    return layers


def percent(covered: int, there: int) -> float:
    return 100.0 * covered / there if there else 100.0


def below(found: dict[str, Counts], floors: dict[str, dict[str, float]]) -> list[str]:
    """What is wrong, a line each."""
    wrong = []
    for layer in sorted(floors):
        for kind in KINDS:
            floor = floors[layer][kind]
            share = percent(*found[layer][kind]) if layer in found else 0.0
            if share < floor:
                wrong.append(f"{layer}: expected {floor:.1f} % of its {kind} coverage, found {share:.2f} %")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description="Coverage of the C++ layers, held to floors.")
    parser.add_argument("build", type=Path)
    parser.add_argument("--write", action="store_true", help="make what is found the floors")
    arguments = parser.parse_args()
    found = measure(arguments.build.resolve())
    if not found:
        sys.exit(f"coverage: {arguments.build}: expected what tests left there, found nothing")
    print(f"{'layer':<12} {'lines':>22} {'branches':>22}")
    for layer, counts in sorted(found.items()):
        cells = (
            f"{covered} of {there} {percent(covered, there):6.2f} %" for covered, there in counts.values()
        )
        print(f"{layer:<12} " + " ".join(f"{cell:>22}" for cell in cells))
    if arguments.write:
        floors = {
            layer: {kind: math.floor(10 * percent(*counts[kind])) / 10 for kind in KINDS}
            for layer, counts in sorted(found.items())
        }
        FLOORS.write_text(json.dumps(floors, indent=2) + "\n")
        return 0
    floors = json.loads(FLOORS.read_text())
    for layer in sorted(found.keys() - floors.keys()):
        print(f"coverage: {layer}: no floor in {FLOORS.name} yet; --write makes one")
    wrong = below(found, floors)
    for line in wrong:
        print(f"coverage: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
