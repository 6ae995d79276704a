"""The usual way to keep a model off the feed in Python: worker processes behind a `multiprocessing.Queue`.

The peer of workers.py. The rows come from an engine without a model, live on the sender's feed, so that both
have the same load around them; each is put on the queue as it arrives. A row's time goes from before put() to
session.run() having returned in the worker. The way back to the parent is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import time
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from setting import pipeline_config

from tickwire import Config, Pipeline
from tickwire.records import Rows

_PATIENCE_S = 5.0


def work(rows: Queue[Any], results: Queue[Any], ready: Any, model: str) -> None:
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


async def feed(arguments: argparse.Namespace, queue: Queue[Any], kept: list[Rows], begun: list[int]) -> None:
    data = pipeline_config(
        market=arguments.market,
        layout="threads",
        idle=arguments.idle,
        ws_url=arguments.ws_url,
        rest_url=arguments.rest_url,
        cores=[],
    )
    last = asyncio.Event()

    def hand_over(rows: Rows) -> None:
        kept.append(rows.copy())
        for row in rows["features"][rows["state"] == 0]:
            row = row.copy()
            begun.append(time.monotonic_ns())
            queue.put((len(begun) - 1, row))
        if rows["sequence"][-1] >= arguments.last_id:
            last.set()

    async with Pipeline(Config.from_dict(data, base=Path.cwd())) as pipeline:
        pipeline.on_rows(hand_over)
        runner = asyncio.create_task(pipeline.run_until(arguments.seconds + _PATIENCE_S))
        waiter = asyncio.create_task(last.wait())
        await asyncio.wait([runner, waiter], return_when=asyncio.FIRST_COMPLETED)
        pipeline.request_stop()
        await runner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ws-url", required=True)
    parser.add_argument("--rest-url", required=True)
    parser.add_argument("--market", choices=["spot", "usdm"], required=True)
    parser.add_argument("--last-id", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="how long the sender sends")
    parser.add_argument("--idle", choices=["spin", "yield", "backoff"], required=True, help="the engine's")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()

    context = multiprocessing.get_context("spawn")
    queue, results, ready = context.Queue(), context.Queue(), context.Semaphore(0)
    pool = [
        context.Process(target=work, args=(queue, results, ready, arguments.model), daemon=True)
        for _ in range(arguments.workers)
    ]
    for process in pool:
        process.start()
    for _ in pool:
        if not ready.acquire(timeout=60):
            raise RuntimeError("a worker did not start")
    kept: list[Rows] = []
    begun: list[int] = []
    uvloop.run(feed(arguments, queue, kept, begun))
    for _ in pool:
        queue.put(None)
    ended = np.zeros(len(begun), dtype=np.int64)
    scores: list[Any] = [None] * len(begun)
    for _ in pool:
        for number, ts, score in results.get(timeout=60):
            ended[number], scores[number] = ts, score
    for process in pool:
        process.join(10)
    rows = np.concatenate(kept)
    rows = rows[rows["state"] == 0]
    np.savez(
        arguments.out,
        id=rows["sequence"].astype(np.int64),
        ns=ended - np.array(begun, dtype=np.int64),
        scores=np.array(scores, dtype=np.float32),
        features=rows["features"],
    )


if __name__ == "__main__":
    main()
