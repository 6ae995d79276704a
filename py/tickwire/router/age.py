"""Signals older than anybody wants: what waited too long behind the engine, while a consumer was slow or the
whole process stood still, leaves as stale.

The engine judges a record as it publishes it; here it is judged again as it is handed out, by the same limits
and by the wall clock. What is recorded is the engine's verdict alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tickwire.records import RowLayout, Rows, Signal

__all__ = ["AgeLimit"]

_NEVER = 2**63 - 1


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
        """Valid when the engine published them, too old when they were handed out. A signal that several
        consumers were too slow for counts for each."""
        self._layout = layout
        self._all = max_age_ns
        self._models = dict(models or {})
        self._clock = clock
        self._valid, self._stale = layout.states.index("valid"), layout.states.index("stale")

    def _until(self, rows: Rows) -> NDArray[np.int64]:
        """Until when each of the records may leave as valid; notices always may."""
        until = np.full(len(rows), _NEVER, np.int64)
        for number in np.unique(rows["model_id"]).tolist():
            model = self._layout.model(number)
            limit = self._models.get(model.name, self._all) if model is not None else self._all
            if limit:
                mine = (rows["model_id"] == number) & (rows["row"] != 0)
                arrived = rows["ts_recv"][mine] - rows["unseen_us"][mine].astype(np.int64) * 1000
                until[mine] = arrived + limit
        return until

    def rows(self, rows: Rows) -> Rows:
        """The records, those that are too old as stale. A copy where there are such."""
        old = (self._until(rows) < self._clock()) & (rows["state"] == self._valid)
        if not old.any():
            return rows
        self.expired += int(old.sum())
        rows = rows.copy()
        rows["state"][old] = self._stale
        if self._layout.score_count:
            rows["scores"][old] = np.nan
        return rows

    def signals(self, rows: Rows) -> list[Signal]:
        """The records as signals that know until when they are valid."""
        until = [None if at == _NEVER else at for at in self._until(rows).tolist()]
        return self._layout.signals(rows, until)

    def judged(self, signals: Sequence[Signal]) -> list[Signal]:
        """Those that have waited too long as stale."""
        now = self._clock()
        out = [signal.at(now) for signal in signals]
        self.expired += sum(new is not old for new, old in zip(out, signals, strict=True))
        return out
