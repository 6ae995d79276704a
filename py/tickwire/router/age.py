"""Signals older than anybody wants: what waited too long behind the engine, while a consumer was slow or the
whole process stood still, leaves as stale.

The engine judges a record as it publishes it; here it is judged again as it is handed out, by the same limits
and by the wall clock. What is recorded is the engine's verdict alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tickwire.records import RowLayout, Rows, Signal, age_ns

__all__ = ["AgeLimit"]


class AgeLimit:
    """How old what leaves may be, counted from its arrival."""

    def __init__(
        self,
        layout: RowLayout,
        max_age_ns: int,
        models: Mapping[str, int] | None = None,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """`models`: by name, where a model has a limit of its own. A limit of 0 is none."""
        self.expired = 0
        """Valid when the engine published them, too old when they were handed out."""
        self._layout = layout
        self._all = max_age_ns
        self._models = dict(models or {})
        self._clock = clock
        self._valid, self._stale = layout.states.index("valid"), layout.states.index("stale")

    def _limit(self, model: str | None) -> int:
        return self._models.get(model, self._all) if model is not None else self._all

    def rows(self, rows: Rows) -> Rows:
        """The records, those that are too old as stale. A copy where there are such."""
        ages = age_ns(rows, self._clock())
        known = set(self._models.values()) | {self._all}
        least = min((limit for limit in known if limit), default=0)
        if least == 0 or not (ages > least).any():
            return rows
        old = np.zeros(len(rows), np.bool_)
        for number in np.unique(rows["model_id"]).tolist():
            model = self._layout.model(number)
            limit = self._limit(model.name if model is not None else None)
            if limit:
                old |= (rows["model_id"] == number) & (ages > limit)
        old &= (rows["row"] != 0) & (rows["state"] == self._valid)
        if not old.any():
            return rows
        self.expired += int(old.sum())
        rows = rows.copy()
        rows["state"][old] = self._stale
        if self._layout.score_count:
            rows["scores"][old] = np.nan
        return rows

    def signals(self, signals: Sequence[Signal]) -> list[Signal]:
        """The same of signals that have waited in a queue."""
        now = self._clock()
        out = []
        for signal in signals:
            limit = self._limit(signal.model)
            if limit and signal.state == "valid" and signal.row != 0 and now - signal.ts_recv > limit:
                self.expired += 1
                signal = replace(signal, state="stale", score=None, scores=())
            out.append(signal)
        return out
