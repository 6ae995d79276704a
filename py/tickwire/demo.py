"""The demo: a venue, the engine and a small model, all on this machine, with no network.

The venue is the project's simulator in a process of its own, so that its work is not ours; the model
is made on the spot and predicts nothing. What is real is everything between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tickwire.config import Config
from tickwire.errors import SetupError
from tickwire.pipeline import Pipeline
from tickwire.sim.market import RULES
from tickwire.stats import Stats

__all__ = ["FEEDS", "MARKETS", "demo_config", "itch_demo_config", "run_demo", "simulator"]

FEEDS = ("binance", "itch")
MARKETS = tuple(RULES)
"""Of binance."""

# Short windows: the demo must be warm within a second or two.
_ROWS = [
    "imbalance(levels=5)",
    "spread()",
    "microprice_offset()",
    'mid_return(window="250ms")',
    'ofi(levels=5, window="500ms")',
    'zscore(ofi(levels=5, window="250ms"), window="500ms")',
    'trade_flow(window="500ms")',
    'realized_vol(window="500ms")',
]

_ITCH_ROWS = [
    "queue_imbalance()",
    "imbalance(levels=5)",
    "spread()",
    "microprice_offset()",
    'order_arrival_rate(window="1s")',
    'cancel_rate(window="1s")',
    'trade_flow(window="500ms")',
    'zscore(ofi(levels=5, window="250ms"), window="500ms")',
]
# Of each line, of the datagrams.
_ITCH_LOSS = 0.01

_INSTRUMENTS = 2
_READY_S = 20.0


@contextlib.asynccontextmanager
async def simulator(*arguments: str) -> AsyncIterator[dict[str, Any]]:
    """Runs `python -m tickwire.sim` and gives what it says of itself: `ws_url`, `rest_url`, `instruments`; of
    multicast `lines`, `rerequest`, `glimpse`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tickwire.sim",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
        start_new_session=True,  # Ctrl-C is for us: the venue outlives the engine's orderly end.
    )
    try:
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _READY_S)
        except TimeoutError:
            raise SetupError(f"the venue simulator was not ready within {_READY_S:g} s") from None
        if not line:
            raise SetupError(f"the venue simulator ended with {await process.wait()} before it was ready")
        yield json.loads(line)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    for send in (process.terminate, process.kill):
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                send()
        try:
            # Reads what it still prints: a full pipe would keep it from ending.
            await asyncio.wait_for(process.communicate(), 5.0)
            return
        except TimeoutError:
            continue


def demo_config(
    venue: dict[str, Any], folder: Path, *, layout: str, market: str, model: bool = True
) -> Config:
    """A configuration for the simulator's market, with a model made for it in `folder`."""
    data: dict[str, Any] = {
        "engine": {"layout": layout},
        "feeds": [
            {
                "venue": RULES[market].venue,
                "url": venue["ws_url"][market],
                "rest_url": venue["rest_url"][market],
                "instruments": list(venue["instruments"][market]),
            }
        ],
        "features": {"trigger": "book", "rows": list(_ROWS)},
    }
    return _with_model(data, folder) if model else Config.from_dict(data, where="demo", base=folder)


def itch_demo_config(venue: dict[str, Any], folder: Path, *, layout: str) -> Config:
    """The same for the simulator's multicast lines."""
    data: dict[str, Any] = {
        "engine": {"layout": layout},
        "feeds": [
            {
                "venue": "nasdaq_itch",
                "instruments": list(venue["instruments"]),
                "max_orders": 1 << 16,
                "multicast": {key: venue[key] for key in ("lines", "interface", "rerequest", "glimpse")},
            }
        ],
        "features": {"trigger": "book", "rows": list(_ITCH_ROWS)},
    }
    return _with_model(data, folder)


def _with_model(data: dict[str, Any], folder: Path) -> Config:
    from tickwire import models

    config = Config.from_dict(data, where="demo", base=folder)

    models.make_demo_model(folder / "demo.onnx", config.schema())
    return Config.from_dict({**data, "model": {"path": "demo.onnx"}}, where="demo", base=folder)


async def run_demo(
    *,
    seconds: float,
    layout: str,
    feed: str,
    market: str,
    rate: float,
    record_dir: str | os.PathLike[str] | None = None,
    watch: Callable[[Pipeline], Awaitable[None]] | None = None,
) -> Stats:
    """Runs the demo and gives its figures. `watch` runs beside it and is cancelled at the end.

    `feed` is `binance`, of which `market`, or `itch`: multicast lines that each lose a datagram in a hundred.
    """
    arguments = ["--synthetic", "--instruments", str(_INSTRUMENTS), "--rate", str(rate)]
    if feed == "itch":
        arguments += ["--multicast"]
        arguments += [word for line in "ab" for word in ("--fault", f"line_{line}_loss={_ITCH_LOSS}")]
    else:
        arguments += ["--market", market]
    # Ends by itself some time after us, should we be killed before we can end it.
    arguments += ["--seconds", str(seconds + 30.0)]
    with TemporaryDirectory(prefix="tickwire-demo-") as folder:
        async with simulator(*arguments) as venue:
            if feed == "itch":
                config = await asyncio.to_thread(itch_demo_config, venue, Path(folder), layout=layout)
            else:
                config = await asyncio.to_thread(
                    demo_config, venue, Path(folder), layout=layout, market=market
                )
            async with Pipeline(config, record_dir=record_dir) as pipeline:
                watcher = asyncio.ensure_future(watch(pipeline)) if watch is not None else None
                try:
                    await pipeline.run_until(seconds)
                finally:
                    if watcher is not None:
                        watcher.cancel()
            return pipeline.stats()
