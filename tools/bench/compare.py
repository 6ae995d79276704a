"""Tick to signal: Tickwire beside the usual Python design, in one run.

Each round starts the sender and one design after another, on the same seeded frames, the same model
and the same fixed pace; the rounds rotate the order. A signal is matched with its frame by the venue's
id. The tables show the median over the rounds of each round's percentiles, in microseconds, and how
many times longer the Python design took, with the range over the rounds. Below them stands what each goal
allows, and what the loopback, the decoder and the model alone take of that on this machine.

    sender to signal     from before the sender's send() to the published signal
    ts_recv to signal    from the design's own receive stamp: Tickwire's is the kernel's, from before its
                         thread was even woken; Python's is taken when recv() has returned

On a shared machine read the ratios, not the microseconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from setting import BUILD, TIMELESS_COLUMNS, machine, pipeline_config, print_table, start_venue

from tickwire import Config, core, models
from tickwire.features import Schema

# Layout and idle strategy of ours; None: the one asked for. The last is what a host with cores to spare runs.
OURS: dict[str, tuple[str, str | None]] = {
    "threads": ("threads", None),
    "inline": ("inline", None),
    "inline, spin": ("inline", "spin"),
}
# The usual design, and the same on a faster event loop.
PYTHON = {"python": "asyncio", "python, uvloop": "uvloop"}
DESIGNS = (*PYTHON, *OURS)
PERCENTILES = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9}
SPANS = {
    "sender to signal": ("sent", "ts_out"),
    "ts_recv to signal": ("ts_recv", "ts_out"),
    "sender to ts_recv": ("sent", "ts_recv"),
}
# Sender to signal, ts_recv to signal: how many times faster than the Python design we mean to be.
GOALS = {"sender to signal": 30, "ts_recv to signal": 80}
_HERE = Path(__file__).resolve().parent


class Round:
    """One design's run over the frames."""

    def __init__(self, data: Any, stamps: NDArray[np.void], settle: int) -> None:
        at = np.searchsorted(stamps["id"], data["id"])
        if len(at) and not np.array_equal(stamps["id"][at], data["id"]):
            raise RuntimeError("a signal names a frame that was not sent")
        keep = at >= settle
        self.expected = len(stamps) - settle
        self.count = int(keep.sum())
        self.at = at[keep]
        self.features = data["features"][keep]
        self.times = {name: data[name][keep] for name in ("ts_recv", "ts_out")}
        self.times["sent"] = stamps["sent_ns"][self.at]
        self.late = (stamps["sent_ns"] - stamps["due_ns"])[settle:]
        self.about = json.loads(str(data["about"])) if "about" in data else {}
        self.stage_ns = data["stage_ns"][keep] if "stage_ns" in data else None

    def span(self, name: str) -> NDArray[np.int64]:
        begin, end = SPANS[name]
        result: NDArray[np.int64] = self.times[end] - self.times[begin]
        return result


def run_round(design: str, arguments: argparse.Namespace, folder: Path, model: Path) -> Round:
    frames = int((arguments.settle + arguments.seconds) * arguments.rate)
    options = ["--market", arguments.market, "--rate", str(arguments.rate), "--frames", str(frames)]
    options += [
        "--levels",
        str(arguments.levels),
        "--seed",
        str(arguments.seed),
        "--core",
        str(arguments.sender_core),
    ]
    venue = start_venue(arguments.build / "tools/bench/tickwire-bench-sender", folder / "stamps.bin", options)
    out = folder / f"{design}.npz"
    common = ["--ws-url", venue.ws_url, "--rest-url", venue.rest_url, "--market", arguments.market]
    common += ["--last-id", str(venue.last_id), "--model", str(model), "--out", str(out)]
    if design in PYTHON:
        command = [str(_HERE / "python_design.py"), *common, "--frames", str(frames)]
        command += ["--loop", PYTHON[design]]
    else:
        layout, idle = OURS[design]
        command = [str(_HERE / "tickwire_design.py"), *common, "--layout", layout]
        command += ["--idle", idle or arguments.idle]
        command += ["--seconds", str(frames / arguments.rate), "--cores", arguments.cores]
    try:
        subprocess.run([sys.executable, *command], check=True, timeout=120 + frames / arguments.rate)
        stamps = venue.finish()
    finally:
        venue.process.kill()
    arguments.frame_bytes = venue.frame_bytes
    with np.load(out) as data:
        return Round(data, stamps, int(arguments.settle * arguments.rate))


def check_rows_agree(rounds: dict[str, list[Round]]) -> int:
    """The designs must have computed the same thing; the number of rows compared."""
    reference = rounds["python"][0]
    compared = 0
    for design in OURS:
        other = rounds[design][0]
        _, here, there = np.intersect1d(reference.at, other.at, return_indices=True)
        ours, theirs = other.features[there, :TIMELESS_COLUMNS], reference.features[here, :TIMELESS_COLUMNS]
        if not np.allclose(ours, theirs, rtol=1e-4, atol=1e-5):
            worst = np.unravel_index(np.abs(ours - theirs).argmax(), ours.shape)
            raise RuntimeError(
                f"{design}: a row differs from the Python design's: {ours[worst]} and {theirs[worst]}"
            )
        compared += len(here)
    return compared


def figures(rounds: dict[str, list[Round]]) -> dict[str, Any]:
    """Percentiles by span, design and round, their medians, and the ratios to the Python design."""
    result: dict[str, Any] = {}
    for span in SPANS:
        by_design: dict[str, Any] = {}
        for design, runs in rounds.items():
            spans = [run.span(span) for run in runs]
            by_design[design] = {
                name: [float(np.percentile(ns, q)) / 1e3 for ns in spans] for name, q in PERCENTILES.items()
            }
        result[span] = {
            design: {
                name: {
                    "us": statistics.median(values),
                    "rounds_us": values,
                    "ratio": statistics.median(by_design["python"][name]) / statistics.median(values),
                    "rounds_ratio": [p / v for p, v in zip(by_design["python"][name], values, strict=True)],
                }
                for name, values in percentiles.items()
            }
            for design, percentiles in by_design.items()
        }
    return result


def print_figures(result: dict[str, Any]) -> None:
    for span, designs in result.items():
        goal = f"   goal: {GOALS[span]} times faster at p50 and p99" if span in GOALS else ""
        print(f"\n{span}, µs{goal}")
        rows = []
        for design, percentiles in designs.items():
            cells = [design]
            for name in PERCENTILES:
                figure = percentiles[name]
                cells.append(f"{figure['us']:,.1f}")
                if design == "python":
                    cells += ["", ""]
                else:
                    low, high = min(figure["rounds_ratio"]), max(figure["rounds_ratio"])
                    cells += [f"{figure['ratio']:.1f}x", f"({low:.0f}-{high:.0f})"]
            rows.append(cells)
        print_table(["", *(cell for name in PERCENTILES for cell in (name, "ratio", "rounds"))], rows)
        best = {
            design: {name: min(figure["rounds_us"]) for name, figure in percentiles.items()}
            for design, percentiles in designs.items()
        }
        ratios = [
            f"{design} {best['python']['p50'] / us['p50']:.1f}x, {best['python']['p99'] / us['p99']:.1f}x"
            for design, us in best.items()
            if design != "python"
        ]
        print(f"each design's least disturbed round, p50 and p99: {'; '.join(ratios)}")
        if span in GOALS:
            print(f"goal of {GOALS[span]}x at p50 and p99: {'; '.join(verdicts(designs, GOALS[span]))}")


def verdicts(designs: dict[str, Any], goal: float) -> list[str]:
    """For each layout of ours, whether its median ratios reach the goal."""
    lines = []
    for design in OURS:
        short = [
            f"{name} by {goal / designs[design][name]['ratio']:.1f}x"
            for name in ("p50", "p99")
            if designs[design][name]["ratio"] < goal
        ]
        lines.append(f"{design} {'missed at ' + ' and '.join(short) if short else 'met'}")
    return lines


def stage_figures(rounds: dict[str, list[Round]]) -> dict[str, Any]:
    def median(runs: list[Round], stage: int, share: float) -> float:
        spans: list[Any] = [run.stage_ns for run in runs]
        return statistics.median(float(np.percentile(each[:, stage], share)) / 1e3 for each in spans)

    return {
        design: {
            stage: {name: median(rounds[design], i, q) for name, q in PERCENTILES.items()}
            for i, stage in enumerate(rounds[design][0].about["stages"])
        }
        for design in OURS
    }


# The peer that bounds a stage from below, and how many times the stage's work it did.
_FLOOR_OF = {
    "decode": ("decode", "simdjson, doubles", 1),
    "queue": ("queue, there and back", "moodycamel::ReaderWriterQueue", 2),
    "model": ("model", "ONNX Runtime, Run alone", 1),
}


def run_floors(arguments: argparse.Namespace, folder: Path, model: Path) -> dict[str, Any]:
    """The floors of the stages, on the same frames and model, each beside ours in a tight loop; and of the
    way there: what loopback takes to a reader that does nothing else."""
    out = folder / "floors.json"
    program = arguments.build / "tools/bench/tickwire-bench-floors"
    library = str(core.onnxruntime_library())
    batched = models.make_demo_model(
        folder / "batched.onnx", Schema.from_json(models.inspect(model).schema or ""), free_batch=True
    )
    subprocess.run(
        [program, "--model", model, "--batch-model", batched, "--library", library, "--json", out],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    floors: dict[str, Any] = json.loads(out.read_text())
    return floors


def floor_ns(floors: dict[str, Any], stage: str, name: str) -> float:
    (found,) = (entry for entry in floors["stages"] if entry["stage"] == stage and entry["name"] == name)
    return float(found["ns"])


def print_budgets(result: dict[str, Any], floors: dict[str, Any]) -> None:
    """What each goal allows, and how much of that is gone before anything else of ours has begun."""
    decode = floor_ns(floors, "decode", "decoder") / 1e3
    model = floor_ns(floors, "model", "ONNX Runtime, Run alone") / 1e3
    print("\nwhat the goals leave, µs: the Python design's time by the goal, less the least that is in ours:")
    print("a frame over loopback to a bare reader; our decoder and ONNX Runtime as in a tight loop")
    rows = []
    for span, goal in GOALS.items():
        begin = "sender" if span.startswith("sender") else "ts_recv"
        for percentile in ("p50", "p99"):
            python = result[span]["python"][percentile]["us"]
            for reader, found in floors["loopback"].items():
                loopback = found[begin][percentile] / 1e3
                least = loopback + decode + model
                numbers = (python / goal, loopback, decode, model, least, python / goal - least)
                cells = [f"{span}, {goal}x at {percentile}, the reader {reader}"]
                rows.append([*cells, *(f"{us:,.1f}" for us in numbers), f"{python / least:.0f}x"])
    print_table(["", "allowed", "loopback", "decode", "model", "sum", "left", "at best"], rows)


def print_stages(stages: dict[str, Any], floors: dict[str, Any]) -> None:
    print("\ntime by stage, µs; each stage's own percentiles, and what its work costs a peer in a tight loop")
    shown = ("p50", "p99")
    rows = []
    for stage in stages["threads"]:
        row = [stage, *(f"{stages[design][stage][p]:,.2f}" for design in OURS for p in shown)]
        floor = ""
        if stage in _FLOOR_OF:
            group, name, times = _FLOOR_OF[stage]
            floor = f"{floor_ns(floors, group, name) / 1e3 / times:,.2f}"
        rows.append([*row, floor])
    print_table(["", *(f"{design} {p}" for design in OURS for p in shown), "floor"], rows)


def print_floors(floors: dict[str, Any]) -> None:
    print("\nours beside its peers, both in a tight loop, taking turns; ns")
    rows = []
    stage = ""
    for entry in floors["stages"]:
        ours = entry["stage"] != stage
        stage = entry["stage"]
        ratio = "" if ours else f"{entry['ours_to_this']:.2f}x"
        minus = "" if ours else f"{entry['ours_minus_this_ns']:,.1f}"
        name = f"{stage}: {entry['name']}" if ours else f"    {entry['name']}"
        rows.append([name, f"{entry['ns']:,.1f}", f"{1e9 / entry['ns']:,.0f}", ratio, minus])
    print_table(["", "ns", "a second", "ours to this", "ours - this, ns"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=int, default=1000, help="frames a second (1000)")
    parser.add_argument("--seconds", type=float, default=8.0, help="measured in each run (8)")
    parser.add_argument("--settle", type=float, default=2.0, help="before that, not measured (2)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--market", choices=["spot", "usdm"], default="spot")
    parser.add_argument("--levels", type=int, default=20, help="changed on each side by one frame (20)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--idle",
        choices=["spin", "yield", "backoff"],
        default="backoff",
        help="of the threads and inline rows (backoff); a row with spin is always there",
    )
    parser.add_argument("--cores", default="", help="of ingest and inference, as 2,3 (floating)")
    parser.add_argument("--sender-core", type=int, default=-1)
    parser.add_argument("--build", type=Path, default=BUILD, help="where the C++ programs are")
    parser.add_argument("--json", type=Path, help="also write everything there")
    arguments = parser.parse_args()

    about = machine(arguments.build)
    rounds: dict[str, list[Round]] = {design: [] for design in DESIGNS}
    with tempfile.TemporaryDirectory(prefix="tickwire-bench-") as name:
        folder = Path(name)
        shape = pipeline_config(
            market=arguments.market,
            layout="inline",
            idle="backoff",
            ws_url="ws://x",
            rest_url="http://x",
            cores=(),
        )
        model = models.make_demo_model(folder / "model.onnx", Config.from_dict(shape, base=folder).schema())
        for number in range(arguments.rounds):
            for i in range(len(DESIGNS)):
                design = DESIGNS[(number + i) % len(DESIGNS)]
                rounds[design].append(run_round(design, arguments, folder, model))
        floors = run_floors(arguments, folder, model)
    compared = check_rows_agree(rounds)
    result = figures(rounds)
    stages = stage_figures(rounds)
    ours = rounds["threads"][0].about
    late = np.concatenate([run.late for runs in rounds.values() for run in runs])

    print("tick to signal, side by side")
    for key, value in about.items():
        print(f"  {key}: {value}")
    print(
        f"  idle strategy: {arguments.idle}, cores: {arguments.cores or 'floating'}, "
        f"model: {ours['executor']}"
    )
    print(
        f"  {arguments.rounds} rounds of {arguments.seconds:g} s at {arguments.rate:,} frames a second, "
        f"{arguments.market}, {arguments.levels}+{arguments.levels} levels, {arguments.frame_bytes:,} bytes"
    )
    print(
        f"  the sender was late by p50 {np.percentile(late, 50) / 1e3:.1f} µs, "
        f"p99 {np.percentile(late, 99) / 1e3:.1f} µs"
    )
    for design, runs in rounds.items():
        signals, frames = sum(run.count for run in runs), sum(run.expected for run in runs)
        print(f"  {design}: {signals:,} signals of {frames:,} frames")
    print(f"  rows that agree between the designs: {compared:,}")
    print_figures(result)
    print_budgets(result, floors)
    print_stages(stages, floors)
    print_floors(floors)
    if arguments.json:
        document = {
            "machine": about,
            "settings": {key: str(value) for key, value in vars(arguments).items()},
            "signals": {design: [run.count for run in runs] for design, runs in rounds.items()},
            "frames": {design: [run.expected for run in runs] for design, runs in rounds.items()},
            "sender_late_us": {name: float(np.percentile(late, q)) / 1e3 for name, q in PERCENTILES.items()},
            "spans": result,
            "stages_us": stages,
            "floors_ns": floors,
            "engine": {design: [run.about for run in rounds[design]] for design in OURS},
        }
        arguments.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
