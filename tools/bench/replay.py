"""Replay: events a second, how the cost of an event grows, and resident memory over ten million events.

Captures are made by the sender's own generator. The figures are of one run: each table's cases take
turns, round by round, and the medians over the rounds are shown, also of each round's ratios. A replay
keeps one core busy with reading, decoding, book and features, so its nanoseconds an event are the data
plane's whole work but for the socket; reading the file is part of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from setting import BUILD, machine, print_table

from tickwire import Config, Pipeline, models
from tickwire.core import extension
from tickwire.launch import resolve

MILLION = 1_000_000
# Where a market's ids begin: SyntheticBook in market.hpp.
_IDS_BEFORE = 4_000_000_000
_PLAIN = ["imbalance(levels=5)", "microprice_offset()", 'zscore(ofi(levels=5, window="1s"), window="10s")']


def expressions(count: int) -> list[str]:
    """As many different features, of all kinds, with windows that repeat in another length."""
    rows: list[str] = []
    for i in range(count):
        window = f'"{1 + i // 8}s"'
        rows.append(
            (
                f"imbalance(levels={1 + i // 8})",
                f"mid_return(window={window})",
                f"ofi(levels=5, window={window})",
                f"realized_vol(window={window})",
                f"zscore(ofi(levels=5, window={window}), window={window})",
                f"mean(imbalance(levels=5), window={window})",
                f"max(microprice_offset(), window={window})",
                f"ema(spread(), halflife={window})",
            )[i % 8]
        )
    return rows


@dataclass(frozen=True)
class Case:
    label: str
    levels: int = 20
    instruments: int = 1
    rows: tuple[str, ...] = tuple(_PLAIN)
    layout: str = "inline"
    model: bool = False


TABLES: dict[str, list[Case]] = {
    "layout and model": [
        Case("rows alone"),
        Case("inline, model", model=True),
        Case("threads, model", layout="threads", model=True),
    ],
    "levels a side in a message": [Case(str(n), levels=n) for n in (1, 5, 20, 50)],
    "features": [Case(str(n), levels=5, rows=tuple(expressions(n))) for n in (1, 4, 8, 16, 32)],
    "window of zscore(ofi), at 1,000 events a second": [
        Case(window, levels=5, rows=(f'zscore(ofi(levels=5, window="1s"), window="{window}")',))
        for window in ("100ms", "1s", "10s", "30s")
    ],
    "instruments": [Case(str(n), levels=5, instruments=n) for n in (1, 10, 100)],
}


class Captures:
    """Makes each capture once."""

    def __init__(self, program: Path, folder: Path, events: int) -> None:
        self._program, self._folder, self._events = program, folder, events

    def of(self, case: Case) -> Path:
        path = self._folder / f"levels{case.levels}_instruments{case.instruments}.log"
        if not path.exists():
            command = capture_command(self._program, self._events, case.levels, case.instruments)
            subprocess.run([*command, "--out", os.fspath(path)], check=True)
        return path


def capture_command(program: Path, events: int, levels: int, instruments: int = 1) -> list[str]:
    return [
        *(os.fspath(program), "capture", "--events", str(events), "--levels", str(levels)),
        # The pace is that of all instruments together.
        *("--instruments", str(instruments), "--rate", "1000"),
    ]


def config_of(case: Case, folder: Path) -> Config:
    data: dict[str, Any] = {
        "engine": {"layout": case.layout},
        "feeds": [
            {
                "venue": "binance_spot",
                "source": "file",
                "instruments": [f"BENCH{i}USDT" for i in range(case.instruments)],
                "snapshot_limit": 1000,
                "max_levels": 1024,
            }
        ],
        "features": {"rows": list(case.rows)},
    }
    config = Config.from_dict(data, base=folder)
    if not case.model:
        return config
    models.make_demo_model(folder / "model.onnx", config.schema())
    return Config.from_dict({**data, "model": {"path": "model.onnx"}}, base=folder)


async def replay(config: Config, capture: Path) -> tuple[int, float]:
    """Rows and seconds."""
    count = 0

    def see(rows: Any) -> None:
        nonlocal count
        count += len(rows)

    async with Pipeline.replay(config, [capture]) as pipeline:
        pipeline.on_rows(see)
        begin = time.perf_counter()
        await pipeline.run_until()
        seconds = time.perf_counter() - begin
    return count, seconds


def run_tables(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    captures = Captures(arguments.build / "tools/bench/tickwire-bench-sender", folder, arguments.events)
    result: dict[str, Any] = {}
    for title, cases in TABLES.items():
        times: dict[str, list[float]] = {case.label: [] for case in cases}
        for _ in range(arguments.rounds):
            for case in cases:
                rows, seconds = asyncio.run(replay(config_of(case, folder), captures.of(case)))
                # The windows of some cases take tens of thousands of events to fill.
                if not arguments.events // 4 < rows <= arguments.events:
                    raise RuntimeError(f"{title}, {case.label}: {rows} rows of {arguments.events} events")
                times[case.label].append(seconds)
        first = times[cases[0].label]
        result[title] = {
            label: {
                "ns": statistics.median(seconds) / arguments.events * 1e9,
                # Round by round: a machine that changes its speed between rounds changes both.
                "to_first": statistics.median(s / f for s, f in zip(seconds, first, strict=True)),
            }
            for label, seconds in times.items()
        }
        lines = [
            [label, f"{case['ns']:,.0f}", f"{1e9 / case['ns']:,.0f}", f"{case['to_first']:.2f}x"]
            for label, case in result[title].items()
        ]
        print(f"\n{title}")
        print_table(["", "ns an event", "events a second", "to the first"], lines)
    return result


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def memory_run(arguments: argparse.Namespace, folder: Path) -> dict[str, int]:
    """Resident memory of this process at marks of one long replay, read from a pipe: no file of gigabytes."""
    events = arguments.memory_events
    marks = [events // 10, events // 2, events]
    case = Case("memory", levels=2, model=arguments.only_memory == "scores")
    config = config_of(case, folder)
    pipe = folder / "capture"
    os.mkfifo(pipe)
    program = arguments.build / "tools/bench/tickwire-bench-sender"
    writer = subprocess.Popen([*capture_command(program, events, case.levels), "--out", os.fspath(pipe)])
    engine = extension.Engine(resolve(config, replay=True, inputs={config.feed_names[0]: [pipe]}))
    engine.start()
    seen, lost = 0, 0
    result: dict[str, int] = {}
    while True:
        finished = engine.finished
        batch = engine.poll()
        count = len(batch)
        if count:
            # A message takes two ids a level, so the last id says how many there have been.
            seen = (int(batch["sequence"][-1]) - _IDS_BEFORE) // (2 * case.levels)
            lost += int((batch["state"] != 0).sum())
        del batch
        engine.release()
        while marks and seen >= marks[0]:
            result[f"{marks.pop(0):,}"] = resident_bytes()
        if not count:
            if finished:
                break
            time.sleep(0.0005)
    engine.stop()
    writer.wait()
    if engine.failed or lost or marks:
        raise RuntimeError(f"memory run: failed {engine.failed}, {lost} invalid rows, marks left {marks}")
    return result


def print_memory(what: str, resident: dict[str, int]) -> None:
    print(f"\nresident memory of the process, {what}, after so many events of one replay")
    first = next(iter(resident.values()))
    print_table(
        ["", "MiB", "growth, KiB"],
        [
            [label, f"{size / 2**20:,.1f}", f"{(size - first) / 1024:+,.0f}"]
            for label, size in resident.items()
        ],
    )


def run_memory(kind: str, arguments: Sequence[str]) -> dict[str, int]:
    """In a process of its own: this one has replayed a great deal."""
    answer = subprocess.run(
        [sys.executable, __file__, "--only-memory", kind, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    resident: dict[str, int] = json.loads(answer.stdout)
    return resident


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--events",
        type=int,
        default=100_000,
        help="in each replay of the tables (100,000); 60,000 at least, for the longest window to fill",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--memory-events", type=int, default=10 * MILLION, help="0 leaves it out (10 million)"
    )
    parser.add_argument("--build", type=Path, default=BUILD, help="where the C++ programs are")
    parser.add_argument("--json", type=Path, help="also write everything there")
    parser.add_argument("--only-memory", choices=["rows", "scores"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="tickwire-bench-") as name:
        folder = Path(name)
        if arguments.only_memory:
            print(json.dumps(memory_run(arguments, folder)))
            return
        about = machine(arguments.build)
        print("replay")
        for key, value in about.items():
            print(f"  {key}: {value}")
        print(f"  median of {arguments.rounds} rounds of {arguments.events:,} events")
        document: dict[str, Any] = {"machine": about, "replay": run_tables(arguments, folder)}
        if arguments.memory_events:
            same = ["--memory-events", str(arguments.memory_events), "--build", str(arguments.build)]
            document["resident_bytes"] = {}
            for kind, what in (("rows", "rows alone"), ("scores", "each row scored")):
                document["resident_bytes"][kind] = resident = run_memory(kind, same)
                print_memory(what, resident)
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
