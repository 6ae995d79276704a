"""Row in to score out: the engine's workers beside a pool of Python processes behind a queue, in one run.

Each round starts the sender and one design after another, on the same seeded frames, the same model and the
same pace; the rounds rotate the order. All scores are compared with those of the rows, made again here.

    engine    from the row's features being ready to its signal being published: the ring, the wake-up, the
              model's run and the record that leaves
    python    python_pool.py: from before queue.put() of a row, which an engine without a model made, to
              session.run() having returned in the worker; the way back is left out, in Python's favour

The tables show the median over the rounds of each round's percentiles, in microseconds, and how many times
longer the Python pool took; then where the engine's time went. A worker that yields offers its core after
each turn without work to whoever wants it, and gets it back when that one's time slice is over: on a machine
that is busy with other things the tail of `queue` is their slices, some milliseconds each. On a shared
machine read the ratios, not the microseconds.
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
from setting import BUILD, machine, pipeline_config, print_table, start_venue

from tickwire import Config, models
from tickwire.errors import ConfigError

# Layout and idle strategy of ours; None: the one asked for. One that yields is awake but keeps no core from
# the others, so that no wake-up is in the time.
OURS: dict[str, tuple[str, str | None]] = {
    "threads": ("threads", None),
    "threads, yield": ("threads", "yield"),
    "processes": ("processes", None),
    "processes, yield": ("processes", "yield"),
}
PERCENTILES = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9}
#: How many times faster than the Python pool we mean to be, at p99.
GOAL = 20
_STAGES = ("queue", "model", "publish")
_HERE = Path(__file__).resolve().parent


def run_design(design: str, arguments: argparse.Namespace, folder: Path, model: Path) -> dict[str, Any]:
    """Its rows, those of the settling time left out: times in ns, and scores."""
    frames = int((arguments.settle + arguments.seconds) * arguments.rate)
    options = ["--market", "spot", "--rate", str(arguments.rate), "--frames", str(frames)]
    options += ["--seed", str(arguments.seed)]
    venue = start_venue(arguments.build / "tools/bench/tickwire-bench-sender", folder / "stamps.bin", options)
    out = folder / f"{design}.npz"
    common = ["--ws-url", venue.ws_url, "--rest-url", venue.rest_url, "--market", "spot"]
    common += ["--last-id", str(venue.last_id), "--seconds", str(frames / arguments.rate)]
    common += ["--workers", str(arguments.workers), "--model", str(model), "--out", str(out)]
    if design == "python":
        command = [str(_HERE / "python_pool.py"), *common, "--idle", arguments.idle]
    else:
        layout, idle = OURS[design]
        command = [str(_HERE / "tickwire_design.py"), *common, "--layout", layout]
        command += ["--idle", idle or arguments.idle]
    try:
        subprocess.run([sys.executable, *command], check=True, timeout=120 + frames / arguments.rate)
        stamps = venue.finish()
    finally:
        venue.process.kill()
    with np.load(out) as data:
        keep = data["id"] >= stamps["id"][int(arguments.settle * arguments.rate)]
        found = {name: data[name][keep] for name in ("features", "scores")}
        if design == "python":
            return found | {"ns": data["ns"][keep]}
        stages = json.loads(str(data["about"]))["stages"]
        stage_ns = data["stage_ns"][keep][:, [stages.index(stage) for stage in _STAGES]]
        return found | {"ns": stage_ns.sum(axis=1), "stage_ns": stage_ns}


def check_scores(model: Path, runs: dict[str, dict[str, Any]]) -> int:
    """Every design must have scored its rows, and rightly; how many there were."""
    truth = models.load([model])
    for design, found in runs.items():
        expected = truth.run(np.ascontiguousarray(found["features"]))
        if not len(expected) or not np.allclose(found["scores"], expected, rtol=1e-5, atol=1e-6):
            raise RuntimeError(f"{design}: scores are missing or are not those of the rows")
    return sum(len(found["scores"]) for found in runs.values())


def configuration(layout: str) -> Config:
    """The engine's, but for the venue, which has not started."""
    data = pipeline_config(
        market="spot",
        layout=layout,
        idle="backoff",
        ws_url="ws://127.0.0.1:1/ws",
        rest_url="http://127.0.0.1:1/depth",
        cores=[],
    )
    return Config.from_dict(data, base=Path.cwd())


def available() -> list[str]:
    """The designs whose layout this version's configuration knows."""
    found = []
    for design, (layout, _) in OURS.items():
        try:
            configuration(layout)
        except ConfigError:
            print(f"{design}: not in this version", file=sys.stderr)
        else:
            found.append(design)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=int, default=1000, help="rows a second (1000)")
    parser.add_argument("--seconds", type=float, default=8.0, help="measured in each run (8)")
    parser.add_argument("--settle", type=float, default=2.0, help="before that, not measured (2)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="of each pool (1)")
    parser.add_argument("--idle", choices=["spin", "yield", "backoff"], default="backoff")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--build", type=Path, default=BUILD, help="where the C++ programs are")
    parser.add_argument("--json", type=Path, help="also write everything there")
    arguments = parser.parse_args()

    about = machine(arguments.build)
    ours = available()
    ns: dict[str, list[NDArray[np.int64]]] = {design: [] for design in ("python", *ours)}
    stage_ns: dict[str, list[NDArray[np.int64]]] = {design: [] for design in ours}
    compared = 0
    with tempfile.TemporaryDirectory(prefix="tickwire-bench-") as name:
        folder = Path(name)
        model = models.make_demo_model(folder / "model.onnx", configuration("threads").schema())
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
            order = [*list(ns)[number % len(ns) :], *list(ns)[: number % len(ns)]]
            runs = {design: run_design(design, arguments, folder, model) for design in order}
            for design, found in runs.items():
                ns[design].append(found["ns"])
                if design in stage_ns:
                    stage_ns[design].append(found["stage_ns"])
            compared += check_scores(model, runs)

    figures = {
        design: {
            name: [float(np.percentile(times, share)) / 1e3 for times in runs]
            for name, share in PERCENTILES.items()
        }
        for design, runs in ns.items()
    }
    print("row in to score out, side by side")
    for key, value in about.items():
        print(f"  {key}: {value}")
    print(
        f"  {arguments.rounds} rounds of {arguments.seconds:g} s at {arguments.rate:,} rows a second, "
        f"{arguments.workers} worker(s), idle strategy: {arguments.idle}"
    )
    print(f"  scores compared with those of their rows: {compared:,}")
    print(f"\nµs   goal: {GOAL} times faster at p99")
    table = []
    for design, percentiles in figures.items():
        cells = [design, f"{sum(len(times) for times in ns[design]):,}"]
        for name, values in percentiles.items():
            ratios = [p / v for p, v in zip(figures["python"][name], values, strict=True)]
            cells += [
                f"{statistics.median(values):,.1f}",
                "" if design == "python" else f"{statistics.median(ratios):.1f}x",
                "" if design == "python" else f"({min(ratios):.0f}-{max(ratios):.0f})",
            ]
        table.append(cells)
    print_table(["", "rows", *(cell for name in PERCENTILES for cell in (name, "ratio", "rounds"))], table)
    best = {d: {name: min(values) for name, values in of.items()} for d, of in figures.items()}
    ratios_of_best = (
        f"{design} {best['python']['p50'] / us['p50']:.1f}x, {best['python']['p99'] / us['p99']:.1f}x"
        for design, us in best.items()
        if design != "python"
    )
    print(f"each design's least disturbed round, p50 and p99: {'; '.join(ratios_of_best)}")
    verdicts = []
    for design in ours:
        pairs = zip(figures["python"]["p99"], figures[design]["p99"], strict=True)
        ratio = statistics.median(python / us for python, us in pairs)
        verdicts.append(f"{design} {'met' if ratio >= GOAL else f'missed by {GOAL / ratio:.1f}x'}")
    print(f"goal of {GOAL}x at p99: {'; '.join(verdicts)}")
    print("\nthe engine's time by stage, µs; each stage's own percentiles")
    shown = ("p50", "p99")
    rows = []
    for design, spans in stage_ns.items():
        cells = [design]
        for i in range(len(_STAGES)):
            for name in shown:
                of_rounds = (float(np.percentile(run[:, i], PERCENTILES[name])) / 1e3 for run in spans)
                cells.append(f"{statistics.median(of_rounds):,.2f}")
        rows.append(cells)
    print_table(["", *(f"{stage} {name}" for stage in _STAGES for name in shown)], rows)
    if arguments.json:
        settings = {key: str(value) for key, value in vars(arguments).items()}
        arguments.json.write_text(
            json.dumps({"machine": about, "settings": settings, "rounds_us": figures}, indent=1)
        )


if __name__ == "__main__":
    main()
