"""Models on a simulated market."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import onnx
from configuring import at_venue, one_feed

from tickwire import models
from tickwire.config import Config
from tickwire.sim import SyntheticMarket, Venue

ROWS = ["imbalance(levels=5)", "spread()", 'trade_flow(window="100ms")']


def configuration(venue: Venue, folder: Path, *, layout: str = "threads", **tables: Any) -> Config:
    # Of a busy machine: what comes late is compared, too.
    features = {"window_rows": tables.pop("window_rows", 1), "max_age": "0s"}
    whole = {"engine": {"layout": layout}, **tables}
    return one_feed(rows=ROWS, feed=at_venue(venue), features=features, base=folder, **whole)


def make_model(path: Path, config: Config, seed: int, **options: Any) -> Path:
    """A demo model whose first dimension is free, so that it takes batches."""
    models.make_demo_model(path, config.schema(), seed=seed, **options)
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, path)
    return path


@asynccontextmanager
async def market(**options: Any) -> AsyncIterator[Venue]:
    faults = options.pop("faults", None)
    source = SyntheticMarket("usdm", **{"instruments": 2, "rate": 600, "seed": 5, **options})
    async with Venue([source], faults=faults) as venue:
        yield venue
