"""Tickwire in the comparison: a pipeline on the sender's feed; per signal what its record says."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path

import numpy as np
import uvloop
from setting import pipeline_config

from tickwire import Config, Pipeline
from tickwire.records import Rows

# After the last message this long for its signal; then whatever is missing is missing.
_PATIENCE_S = 5.0


async def run(arguments: argparse.Namespace) -> None:
    cores = [int(core) for core in arguments.cores.split(",") if core]
    data = pipeline_config(
        market=arguments.market,
        layout=arguments.layout,
        idle=arguments.idle,
        ws_url=arguments.ws_url,
        rest_url=arguments.rest_url,
        cores=cores,
    )
    data["model"] = {"path": arguments.model}
    if arguments.layout != "inline" and len(cores) > 1:
        data["model"]["cores"] = cores[1:2]
    if arguments.workers > 1:
        data["model"]["workers"] = arguments.workers
    kept: list[Rows] = []
    last = asyncio.Event()

    def keep(rows: Rows) -> None:
        kept.append(rows.copy())
        if rows["sequence"][-1] >= arguments.last_id:
            last.set()

    async with Pipeline(Config.from_dict(data, base=Path.cwd())) as pipeline:
        pipeline.on_rows(keep)
        begun = time.monotonic()
        runner = asyncio.create_task(pipeline.run_until(arguments.seconds + _PATIENCE_S))
        waiter = asyncio.create_task(last.wait())
        await asyncio.wait([runner, waiter], return_when=asyncio.FIRST_COMPLETED)
        pipeline.request_stop()
        await runner
        seconds = time.monotonic() - begun
    stats = pipeline.stats()
    rows = np.concatenate(kept) if kept else np.empty(0, dtype=pipeline.layout.dtype)
    rows = rows[(rows["scored"] > 0) & (rows["state"] == 0)]
    np.savez(
        arguments.out,
        id=rows["sequence"].astype(np.int64),
        ts_recv=rows["ts_recv"],
        ts_out=rows["ts_out"],
        features=rows["features"],
        scores=rows["scores"],
        stage_ns=rows["stage_ns"],
        recv_clock=rows["recv_clock"],
        about=json.dumps(
            {
                "stages": list(pipeline.layout.stages),
                "executor": pipeline.layout.models[0].executor,
                "report": stats.report,
                "dropped": stats.dropped,
                "notices": stats.notices,
                "cpu_share": stats.cpu_share,
                "seconds": seconds,
            }
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ws-url", required=True)
    parser.add_argument("--rest-url", required=True)
    parser.add_argument("--market", choices=["spot", "usdm"], required=True)
    parser.add_argument("--last-id", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="how long the sender sends")
    parser.add_argument("--layout", choices=["threads", "inline", "processes"], required=True)
    parser.add_argument("--workers", type=int, default=1, help="that run the model")
    parser.add_argument("--idle", choices=["spin", "yield", "backoff"], required=True)
    parser.add_argument("--cores", default="", help="of ingest and inference, as 2,3; empty: they float")
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
