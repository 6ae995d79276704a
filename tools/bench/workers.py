"""Row in to score out: the engine's workers beside a pool of Python processes behind a queue, in one run.

Each round starts the sender and the engine in each layout, then hands the rows that the engine made, at the
same pace, to `multiprocessing` workers that own an ONNX Runtime session each. Same model, same rows, and the
scores must agree.

    engine    from the row's features being ready to its signal being published: the ring, the wake-up, the
              model's run and the record that leaves
    python    from before queue.put() to session.run() having returned in the worker; the way back to the
              parent is left out, in Python's favour

The tables show the median over the rounds of each round's percentiles, in microseconds, and how many times
longer the Python pool took. On a shared machine read the ratios, not the microseconds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from setting import BUILD, machine, pipeline_config, print_table, start_venue

from tickwire import Config, models
from tickwire.errors import ConfigError

# Layout and idle strategy of ours; None: the one asked for. With `spin` no wake-up is in the time, but each
# thread wants a core.
OURS: dict[str, tuple[str, str | None]] = {
    "threads": ("threads", None),
    "threads, spin": ("threads", "spin"),
    "processes": ("processes", None),
    "processes, spin": ("processes", "spin"),
}
PERCENTILES = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9}
#: How many times faster than the Python pool we mean to be, at p99.
GOAL = 20
_STAGES = ("queue", "model", "publish")
_HERE = Path(__file__).resolve().parent


def worker(rows: Queue[Any], results: Queue[Any], ready: Any, model: str) -> None:
    """A worker as it is usually written: a session of its own, one row after another."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    port = session.get_inputs()[0]
    for _ in range(200):
        session.run(None, {port.name: np.zeros(port.shape, dtype=np.float32)})
    ready.release()
    done: list[tuple[int, int, Any]] = []
    while (item := rows.get()) is not None:
        number, row = item
        scores = session.run(None, {port.name: row[None, :]})[0]
        done.append((number, time.monotonic_ns(), scores[0]))
    results.put(done)


def run_python(
    rows: NDArray[np.float32], rate: int, workers: int, model: Path
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Times in ns and scores, by row."""
    context = multiprocessing.get_context("spawn")
    queue, results, ready = context.Queue(), context.Queue(), context.Semaphore(0)
    pool = [
        context.Process(target=worker, args=(queue, results, ready, str(model)), daemon=True)
        for _ in range(workers)
    ]
    for process in pool:
        process.start()
    for _ in pool:
        if not ready.acquire(timeout=60):
            raise RuntimeError("a Python worker did not start")
    begun = np.zeros(len(rows), dtype=np.int64)
    due = time.monotonic_ns()
    for number, row in enumerate(rows):
        due += 1_000_000_000 // rate
        time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
        begun[number] = time.monotonic_ns()
        queue.put((number, row))
    for _ in pool:
        queue.put(None)
    ended = np.zeros(len(rows), dtype=np.int64)
    scores: list[Any] = [None] * len(rows)
    for _ in pool:
        for number, ts, score in results.get(timeout=60):
            ended[number], scores[number] = ts, score
    for process in pool:
        process.join(10)
    return ended - begun, np.array(scores, dtype=np.float32)


def run_engine(design: str, arguments: argparse.Namespace, folder: Path, model: Path) -> dict[str, Any]:
    """What tickwire_design.py leaves of a run on the sender's frames."""
    frames = int((arguments.settle + arguments.seconds) * arguments.rate)
    options = ["--market", "spot", "--rate", str(arguments.rate), "--frames", str(frames)]
    options += ["--seed", str(arguments.seed)]
    venue = start_venue(arguments.build / "tools/bench/tickwire-bench-sender", folder / "stamps.bin", options)
    layout, idle = OURS[design]
    out = folder / f"{design}.npz"
    command = [str(_HERE / "tickwire_design.py"), "--ws-url", venue.ws_url, "--rest-url", venue.rest_url]
    command += ["--market", "spot", "--last-id", str(venue.last_id), "--model", str(model), "--out", str(out)]
    command += ["--seconds", str(frames / arguments.rate), "--workers", str(arguments.workers)]
    command += ["--layout", layout, "--idle", idle or arguments.idle]
    try:
        subprocess.run([sys.executable, *command], check=True, timeout=120 + frames / arguments.rate)
        stamps = venue.finish()
    finally:
        venue.process.kill()
    with np.load(out) as data:
        stages = json.loads(str(data["about"]))["stages"]
        columns = [stages.index(stage) for stage in _STAGES]
        keep = data["id"] >= stamps["id"][int(arguments.settle * arguments.rate)]
        return {
            "ns": data["stage_ns"][keep][:, columns].sum(axis=1),
            "features": data["features"][keep],
            "scores": data["scores"][keep],
        }


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
    parser.add_argument("--seconds", type=float, default=4.0, help="measured in each run (4)")
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
    with tempfile.TemporaryDirectory(prefix="tickwire-bench-") as name:
        folder = Path(name)
        model = models.make_demo_model(folder / "model.onnx", configuration("threads").schema())
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
            runs = {design: run_engine(design, arguments, folder, model) for design in ours}
            for design, found in runs.items():
                ns[design].append(found["ns"])
            rows = runs["threads"]["features"]
            times, scores = run_python(rows, arguments.rate, arguments.workers, model)
            if not np.allclose(scores, runs["threads"]["scores"], rtol=1e-5, atol=1e-6):
                raise RuntimeError("the Python pool and the engine score the same rows differently")
            ns["python"].append(times)

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
    if arguments.json:
        settings = {key: str(value) for key, value in vars(arguments).items()}
        arguments.json.write_text(
            json.dumps({"machine": about, "settings": settings, "rounds_us": figures}, indent=1)
        )


if __name__ == "__main__":
    main()
