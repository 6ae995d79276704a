"""Order where a model has several workers that share an instrument's rows.

Each worker's records come in order, but one worker may be behind another. A notice goes through all of
them, so the first copy is the earliest moment at which the end of an epoch is known: it passes, and
after it nothing of that epoch does, neither its other copies nor rows that were still in the slower
workers' rings. These are counted as late: their book was valid when they were made, and is not any more.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from tickwire.records import RowLayout, Rows

__all__ = ["EpochGate"]


class EpochGate:
    def __init__(self, layout: RowLayout, models: Collection[str]) -> None:
        """`models`: names of those whose workers share instruments."""
        self.late = 0
        """Rows withheld because the end of their epoch was known already."""
        self._layout = layout
        self._lines = {name: i for i, name in enumerate(models)}
        # The last epoch that ended, by model and instrument; epochs count from 1.
        self._ended = np.zeros((len(self._lines), len(layout.instruments)), np.uint32)

    def admit(self, rows: Rows) -> Rows:
        """The rows that may pass, in their order: the batch itself where all may."""
        if not self._lines:
            return rows
        keep = np.ones(len(rows), np.bool_)
        for number in np.unique(rows["model_id"]).tolist():
            model = self._layout.model(number)
            line = self._lines.get(model.name) if model is not None else None
            if line is not None:
                self._admit(rows, np.flatnonzero(rows["model_id"] == number), self._ended[line], keep)
        return rows if keep.all() else rows[keep]

    def _admit(
        self, rows: Rows, places: NDArray[np.intp], ended: NDArray[np.uint32], keep: NDArray[np.bool_]
    ) -> None:
        mine = rows[places]
        notices = mine["row"] == 0
        if not notices.any() and (mine["epoch"] > ended[mine["instrument"]]).all():
            return
        for place, instrument, epoch, notice in zip(
            places.tolist(),
            mine["instrument"].tolist(),
            mine["epoch"].tolist(),
            notices.tolist(),
            strict=True,
        ):
            if epoch <= ended[instrument]:
                keep[place] = False
                self.late += not notice
            elif notice:
                ended[instrument] = epoch
