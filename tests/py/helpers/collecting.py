"""Every record that leaves a pipeline."""

from __future__ import annotations

from collections import Counter

import numpy as np

from tickwire.pipeline import Pipeline
from tickwire.records import Rows

KEY = ("instrument", "epoch", "row", "model_id")


def keys(rows: Rows) -> Counter[tuple[int, ...]]:
    """How often each row is there."""
    return Counter(zip(*(rows[name].tolist() for name in KEY), strict=True))


class Collector:
    """What has reached the router, copied, from when this was made."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.batches: list[Rows] = []
        pipeline.on_rows(lambda rows: self.batches.append(rows.copy()))

    @property
    def records(self) -> Rows:
        """Rows and notices."""
        return np.concatenate(self.batches) if self.batches else np.empty(0, self.pipeline.layout.dtype)

    @property
    def rows(self) -> Rows:
        """Without notices."""
        records = self.records
        rows: Rows = records[records["row"] != 0]
        return rows

    def repeated(self) -> list[tuple[int, ...]]:
        return [key for key, times in keys(self.rows).items() if times > 1]
