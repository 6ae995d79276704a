#!/usr/bin/env python3
"""Runs the tests that start engines, venues or workers again and again, beside busy processes.

    tools/under_load.py [--times 30] [--busy 4] [--beside 6] [--keep DIR] [--list] [PYTEST ARGUMENTS ...]

A test that waits for something passes on an idle machine whatever it waits for. Here every core has more to
do than it can, so that threads and processes lose their turn at any place. Each round runs all of the tests
once, several of those in Python beside each other (each in a network of its own, which takes root; one after
the other with `--beside 1`), and prints a line; what failed is listed at the end with how often, and the
whole output of a round that failed is kept in DIR. Exits with 1 where anything failed. Takes hours for all
files and 30 times: it is no part of `make test`.

PYTEST ARGUMENTS choose tests instead of all: `tests/py/pipeline/test_warm.py -k clock`. `ctest:LABEL` among
them stands for the C++ tests of a label; without arguments that is the layer `engine`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "release"

# What a test file names that starts something.
STARTS = re.compile(r"\b(Pipeline|Venue|scripted|multicast_rig|worker_storm|monitor)\b")
FAILED = re.compile(
    r"^(?:FAILED|ERROR) (\S+)|^\s*\d+ - (\S+) \((?:Failed|Timeout|SEGFAULT|Subprocess aborted)", re.M
)
SUMMARY = re.compile(r"^(?:=+ )?(\d+ (?:passed|failed).*?)(?: =+)?$|^(\d+% tests passed.*)$", re.M)


def starting_files() -> list[str]:
    files = sorted((ROOT / "tests" / "py").rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if STARTS.search(file.read_text(encoding="utf-8"))]


def commands(arguments: list[str], beside: int) -> list[list[str]]:
    """What a round runs."""
    if not arguments:
        arguments = [*starting_files(), "ctest:engine"]
    labels = [item.removeprefix("ctest:") for item in arguments if item.startswith("ctest:")]
    rest = [item for item in arguments if not item.startswith("ctest:")]
    all_of_them = [
        ["ctest", "--test-dir", str(BUILD), "-L", f"^{label}$", "--timeout", "300"] for label in labels
    ]
    if rest:
        python = ROOT / ".venv" / "bin" / "python"
        several = ["--numprocesses", str(beside), "--dist", "worksteal"] if beside > 1 else []
        all_of_them.append([str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *several, *rest])
    return all_of_them


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=30, help="rounds (30)")
    parser.add_argument("--busy", type=int, default=4, help="processes that compute beside it (4)")
    parser.add_argument("--beside", type=int, default=6, help="tests in Python beside each other (6)")
    parser.add_argument(
        "--keep", type=Path, default=BUILD / "under-load", help="where failed rounds' output goes"
    )
    parser.add_argument("--list", action="store_true", help="print what a round would run, and end")
    options, arguments = parser.parse_known_args()
    rounds = commands(arguments, options.beside)
    if options.list:
        for command in rounds:
            print(" ".join(command))
        return 0

    failures: Counter[str] = Counter()
    failed_rounds = 0
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.busy)]
    try:
        for number in range(1, options.times + 1):
            started = time.monotonic()
            output, failed, said = "", False, []
            for command in rounds:
                result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
                output += result.stdout + result.stderr
                failed = failed or result.returncode != 0
                said += ["".join(match) for match in SUMMARY.findall(result.stdout)[-1:]]
            names = sorted({"".join(match) for match in FAILED.findall(output)})
            failures.update(names or (["(the round itself)"] if failed else []))
            took = time.monotonic() - started
            print(f"round {number}/{options.times}: {'; '.join(said)} ({took:.0f} s)", flush=True)
            if failed:
                failed_rounds += 1
                options.keep.mkdir(parents=True, exist_ok=True)
                kept = options.keep / f"round-{number}.txt"
                kept.write_text(output, encoding="utf-8")
                print(f"    failed: {', '.join(names)}; all of it: {kept}", flush=True)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    for name, count in failures.most_common():
        print(f"{count:4} of {options.times}  {name}")
    passed = options.times - failed_rounds
    print(f"{passed} of {options.times} rounds passed beside {options.busy} busy processes")
    return 1 if failed_rounds else 0


if __name__ == "__main__":
    sys.exit(main())
