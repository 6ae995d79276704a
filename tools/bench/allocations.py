"""Heap allocations a row, once the data plane runs: ours, ONNX Runtime's and OpenSSL's apart.

The counting stands in front of malloc and operator new in the program of the allocation tests, which
also proves that the work was done; this shows its counts by row.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from setting import print_table

_CASE = re.compile(r"\[ RUN +\] AllocTest\.(\w+)")
_COUNTS = re.compile(r"rows (\d+), scored \d+; allocations: ours (\d+), ONNX Runtime (\d+), OpenSSL (\d+)")
_NAMES = {
    "ReplayInlineWithoutAModel": "replay, inline, no model",
    "ReplayInThreadsWithoutAModel": "replay, threads, no model",
    "ReplayInlineWithAModel": "replay, inline",
    "ReplayInThreadsWithAModel": "replay, threads",
    "LiveInline": "live, inline",
    "LiveInThreads": "live, threads",
    "LiveOverTls": "live over TLS, inline",
    "LiveMulticastInline": "live multicast, inline",
    "LiveMulticastInThreads": "live multicast, threads",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=Path, help="alloc_test")
    arguments = parser.parse_args()
    command = [arguments.program.resolve(), "--gtest_filter=" + ":".join(f"AllocTest.{n}" for n in _NAMES)]
    result = subprocess.run(command, capture_output=True, text=True)
    rows = []
    case = ""
    for line in result.stdout.splitlines():
        if found := _CASE.match(line):
            case = found[1]
        elif found := _COUNTS.match(line):
            count, *allocations = map(int, found.groups())
            rows.append([_NAMES[case], f"{count:,}", *(f"{n / count:.2f}" for n in allocations)])
    print("\nheap allocations a row, after the start")
    print_table(["", "rows", "ours", "ONNX Runtime's", "OpenSSL's"], rows)
    if result.returncode != 0 or len(rows) != len(_NAMES):
        sys.exit(f"the allocation tests failed:\n{result.stdout}{result.stderr}")


if __name__ == "__main__":
    main()
