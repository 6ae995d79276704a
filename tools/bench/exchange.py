"""A whole exchange's made-up day of ITCH: the rates of our stages on all of it, those of public packages on a
part of it beside ours on the same part, and all of it by multicast over this host's loopback.

Rates are messages a second of processor time, on one core. The day is made first and deleted afterwards.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from exchange_peer import BOOK, DECODE, PEERS
from setting import BUILD, machine, print_table

_HERE = Path(__file__).resolve().parent
_PARTS = {DECODE: "decode", BOOK: "book"}


def whole_messages(data: bytes, most: int) -> int:
    """The bytes of the first messages, each behind its length of two bytes: `most` of them, or all."""
    at = 0
    for _ in range(most):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if at + 2 > len(data) or end > len(data):
            break
        at = end
    return at


def rates(output: str) -> dict[str, float]:
    """What itch_bench printed: millions of messages a second, by stage."""
    found = re.findall(
        r"^(decode(?: \+ [a-z0-9]+)*(?: features)?) +([0-9.]+) M messages/s", output, re.MULTILINE
    )
    return {stage: float(rate) for stage, rate in found}


def measure_ours(programs: Path, day: Path, parts: str) -> str:
    command = [str(programs / "itch_bench"), "--day", str(day), "--parts", parts]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def measure_peer(name: str, day: Path) -> float:
    command = [sys.executable, str(_HERE / "exchange_peer.py"), name, str(day)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    found = json.loads(done.stdout.splitlines()[-1])
    if not found["count"]:
        raise RuntimeError(f"{name}: nothing came out")
    return float(found["seconds"])


def available() -> list[str]:
    modules = {"itchfeed": "itch", "itch-book": "itch_book"}
    missing = [name for name in PEERS if importlib.util.find_spec(modules.get(name, name)) is None]
    for name in missing:
        print(f"{name}: not installed, see tools/bootstrap bench", file=sys.stderr)
    return [name for name in PEERS if name not in missing]


def compare(programs: Path, part: Path, messages: int, rounds: int) -> None:
    """Peers and ours in turns: each round's ratio is of runs that stood beside each other."""
    peers = available()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for name in peers:
            stage = PEERS[name][0]
            theirs = messages / measure_peer(name, part) / 1e6
            found[name].append((theirs, rates(measure_ours(programs, part, _PARTS[stage]))[stage]))
    print(f"\nM messages/s on the first {messages:,} of the day, median of {rounds} rounds")
    table = []
    for name, pairs in found.items():
        ratios = [ours / theirs for theirs, ours in pairs]
        theirs, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
        spread = f"({min(ratios):.1f}-{max(ratios):.1f})"
        cells = [name, PEERS[name][0], f"{theirs:.2f}", f"{ours:.1f}", f"{statistics.median(ratios):.1f}x"]
        table.append([*cells, spread])
    print_table(["", "work", "theirs", "ours", "ratio", "rounds"], table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=50_000_000, help="of the day (50,000,000)")
    parser.add_argument("--instruments", type=int, default=8000)
    parser.add_argument("--part", type=int, default=2_000_000, help="of it, for the packages (2,000,000)")
    parser.add_argument("--rounds", type=int, default=3, help="of packages and ours in turns (3)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of multicast (10)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--build", type=Path, default=BUILD, help="where the C++ programs are")
    arguments = parser.parse_args()

    programs = arguments.build / "tools/bench"
    print("a whole exchange by order")
    for key, value in machine(arguments.build).items():
        print(f"  {key}: {value}")
    with tempfile.TemporaryDirectory(prefix="itch-day-", dir=arguments.build) as name:
        day = Path(name) / "day.itch"
        command = [str(programs / "tickwire-bench-itch-day"), "--out", str(day)]
        command += ["--messages", str(arguments.messages), "--instruments", str(arguments.instruments)]
        command += ["--seed", str(arguments.seed)]
        about = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        shares = ", ".join(
            f"{count / about['messages']:.1%} {kind}"
            for kind, count in about["types"].items()
            if kind not in "RH"
        )
        print(
            f"  the day: {about['messages']:,} messages of {about['instruments']:,} instruments, seed "
            f"{about['seed']}: {shares}; up to {about['most_live_orders']:,} live orders\n"
        )
        print(measure_ours(programs, day, "decode,book,features"), end="", flush=True)
        part = Path(name) / "part.itch"
        with day.open("rb") as file:
            data = file.read(64 * arguments.part)
        part.write_bytes(data[: whole_messages(data, arguments.part)])
        compare(programs, part, min(arguments.part, about["messages"]), arguments.rounds)
        print("\nby multicast over loopback", flush=True)
        command = [str(programs / "mold_bench"), "--day", str(day), "--seconds", str(arguments.seconds)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
