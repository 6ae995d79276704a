"""What leaves the engine, as Python sees it: a `Signal` a row, or a `FeatureBatch` of rows in place.

The engine writes fixed-layout records into a ring; NumPy sees them as a structured array whose dtype
the engine states (`RowLayout.dtype`). A signal is a copy and may be kept. A feature batch is a view
of the ring itself and may not: its docstring says until when it holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickwire.errors import Error

__all__ = ["NO_TIME", "FeatureBatch", "ModelInfo", "RowLayout", "Rows", "Signal", "age_ns"]

Rows = NDArray[np.void]
"""A structured array of the engine's records."""

NO_TIME = -(2**63)
"""The engine's "the venue gave no time"."""


def age_ns(rows: Rows, now: int | None = None) -> NDArray[np.int64]:
    """How old records are at `now`, or were when they left: since the earliest that their messages came."""
    ages: NDArray[np.int64] = (rows["ts_out"] if now is None else now) - rows["ts_recv"]
    return ages + rows["unseen_us"].astype(np.int64) * 1000


@dataclass(frozen=True, slots=True)
class Signal:
    """One row's outcome: scores, or the reason why there are none.

    A signal carries scores only while its instrument's book is valid and the model's output is
    finite. When a book leaves `valid`, a notice, one signal with `row` 0 and no score, says why; nothing
    follows for that instrument until it is valid again. A consumer that is too slow loses rows, and
    of several notices of an instrument the older ones; never the last.
    """

    instrument: str
    """The venue's symbol."""
    venue: str
    epoch: int
    """Which life of the book; grows with every resync."""
    row: int
    """1, 2, 3 … within instrument and epoch; 0 in a notice."""
    sequence: int
    """The venue's id of the last event applied."""
    state: str
    """`valid`, or why this signal carries no score."""
    reason: str
    """Why `valid` was left (`gap`, `crossed`, `disconnected`, …); `none` elsewhere."""
    model: str | None
    """Name of the model whose signal this is; None without a model, and in a notice that is for all."""
    model_id: int
    """Which file of that name, the first four bytes of its SHA-256 (0 where `model` is None): here it shows
    when a model was exchanged for another."""
    score: float | None
    """The first score; None, never an old or made-up number, where there is none."""
    scores: tuple[float, ...]
    ts_event: int | None
    """The venue's time, UTC nanoseconds; None where it gave none."""
    ts_recv: int
    """When the message arrived here, UTC nanoseconds."""
    ts_out: int
    """When the signal was published, UTC nanoseconds."""
    stages_ns: tuple[int, ...]
    """Time spent in each stage, in the order of `stages`."""
    stages: tuple[str, ...]
    missing_trades: int = 0
    """Trades of this epoch that the venue numbered but that never came, so that features of trades are short
    of them; 0 where no row needs trades."""
    valid_until: int | None = None
    """When it becomes older than `features.max_age`, UTC nanoseconds; whoever takes it later gets it as
    stale. None where no age is too old, as in a replay."""

    def at(self, now: int) -> Signal:
        """As it is worth at `now`, UTC nanoseconds: itself, or as stale once its time is over."""
        if self.valid_until is None or now <= self.valid_until or self.state != "valid":
            return self
        return replace(self, state="stale", score=None, scores=())

    def notice_of(self) -> tuple[str, str] | None:
        """The venue and instrument that this is a notice of; None where it is none."""
        return (self.venue, self.instrument) if self.row == 0 else None

    @property
    def latency_ns(self) -> int:
        """Tick to signal: `ts_out - ts_recv`."""
        return self.ts_out - self.ts_recv

    @property
    def stage_ns(self) -> dict[str, int]:
        """Time spent in each stage, by its name."""
        return dict(zip(self.stages, self.stages_ns, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """The signal as the sinks write it, ready for JSON: see `tickwire.sinks` for the keys."""
        return {
            "instrument": self.instrument,
            "venue": self.venue,
            "epoch": self.epoch,
            "row": self.row,
            "sequence": self.sequence,
            "state": self.state,
            "reason": self.reason,
            "missing_trades": self.missing_trades,
            "model": self.model,
            "model_id": f"{self.model_id:08x}" if self.model is not None else None,
            "score": _finite(self.score),
            "scores": [_finite(score) for score in self.scores],
            "ts_event": self.ts_event,
            "ts_recv": self.ts_recv,
            "ts_out": self.ts_out,
            "latency_ns": self.latency_ns,
            "stage_ns": self.stage_ns,
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as the engine loaded it."""

    name: str
    id: int
    outputs: tuple[str, ...]
    """Names of its scores. A record has room for those of the model with the most."""
    executor: str = ""
    """What runs it: scores agree to the last bit only within one."""
    shadow: bool = False
    """Scored and recorded, but never routed."""


class RowLayout:
    """How to read the engine's records: dtype, names behind the codes, instruments behind the ids."""

    def __init__(
        self,
        dtype: np.dtype[np.void],
        *,
        stages: Sequence[str],
        states: Sequence[str],
        reasons: Sequence[str],
        instruments: Sequence[tuple[str, str]],
        features: Sequence[str],
        models: Sequence[ModelInfo] = (),
        feeds: Sequence[str] = (),
    ) -> None:
        """`feeds`: of each instrument, the name of its feed."""
        self.dtype = dtype
        self.stages, self.states, self.reasons = tuple(stages), tuple(states), tuple(reasons)
        self.instruments = tuple(instruments)
        self.features = tuple(features)
        self._feeds = tuple(feeds)
        names = dtype.names or ()
        self.score_count = int(np.prod(dtype["scores"].shape)) if "scores" in names else 0
        self._models = {model.id: model for model in models}
        self._expected: set[int] = set()

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """Every model that has scored: those of the start, then what they were exchanged for."""
        return tuple(model for number, model in self._models.items() if number not in self._expected)

    @property
    def routed(self) -> tuple[ModelInfo, ...]:
        """One of each name whose signals leave, in the configuration's order."""
        return tuple({model.name: model for model in self.models if not model.shadow}.values())

    def model(self, number: int) -> ModelInfo | None:
        """The model that records name so; None where a record is of none."""
        return self._models.get(number)

    def expect(self, name: str, number: int) -> None:
        """A model is about to be exchanged for another file of the same features and scores: records may name
        it from now on. Where it is refused, nothing follows; else `exchanged` does."""
        latest = next(model for model in reversed(self.models) if model.name == name)
        if number not in self._models:
            self._models[number] = replace(latest, id=number)
            self._expected.add(number)

    def exchanged(self, number: int) -> None:
        self._expected.discard(number)

    def state(self, code: int) -> str:
        return self.states[code] if code < len(self.states) else f"state_{code}"

    def reason(self, code: int) -> str:
        return self.reasons[code] if code < len(self.reasons) else f"reason_{code}"

    def instrument(self, number: int) -> tuple[str, str]:
        """Symbol and venue."""
        return self.instruments[number] if number < len(self.instruments) else (f"instrument_{number}", "")

    def feed(self, number: int) -> str:
        """The feed's name of an instrument."""
        return self._feeds[number] if number < len(self._feeds) else self.instrument(number)[1]

    def signals(self, rows: Rows, valid_until: Sequence[int | None] | None = None) -> list[Signal]:
        """Copies of the rows, one `Signal` each; `valid_until`: of each, None where any age will do."""
        size = len(rows)
        if size == 0:
            return []
        scored = (rows["scored"] != 0) & (rows["state"] == 0)
        scores: list[list[float]]
        scores = rows["scores"].reshape(size, -1).tolist() if self.score_count else [[]] * size
        # Whole columns to lists first: reading fields row by row costs several times as much.
        columns = zip(
            *(rows[name].tolist() for name in ("instrument", "epoch", "row", "sequence", "state", "reason")),
            rows["model_id"].tolist(),
            *(rows[name].tolist() for name in ("ts_event", "ts_recv", "ts_out", "stage_ns")),
            rows["missing_trades"].tolist(),
            scored.tolist(),
            scores,
            valid_until if valid_until is not None else [None] * size,
            strict=True,
        )
        out: list[Signal] = []
        stages, models = self.stages, self._models
        for (
            number,
            epoch,
            row,
            sequence,
            state,
            reason,
            model_id,
            event,
            recv,
            published,
            stage_ns,
            missing_trades,
            has,
            values,
            until,
        ) in columns:
            symbol, venue = self.instrument(number)
            model = models.get(model_id)
            count = len(model.outputs) if model is not None else self.score_count
            out.append(
                Signal(
                    symbol,
                    venue,
                    epoch,
                    row,
                    sequence,
                    self.state(state),
                    self.reason(reason),
                    model.name if model is not None else None,
                    model_id if model is not None else 0,
                    values[0] if has and values else None,
                    tuple(values[:count]) if has else (),
                    event if event != NO_TIME else None,
                    recv,
                    published,
                    tuple(stage_ns),
                    stages,
                    missing_trades,
                    until,
                )
            )
        return out


class FeatureBatch:
    """Rows as they lie in the engine's ring: no copy was made.

    **Lifetime.** `rows` and `values` are views of the ring's slots. They hold until the iterator that
    gave this batch advances (or is closed): then the slots go back to the engine, which writes new
    rows there. Asking an expired batch for them raises `tickwire.Error`; an array taken from it
    before keeps pointing at memory that now says something else. Keep `copy()`, or a copy of the
    part that matters. While a batch is held, the ring fills behind it: work that takes longer than
    the ring is deep costs rows, which the engine counts as dropped.
    """

    __slots__ = ("_alive", "_layout", "_rows")

    def __init__(self, rows: Rows, layout: RowLayout) -> None:
        self._rows, self._layout, self._alive = rows, layout, True

    @property
    def rows(self) -> Rows:
        """The records: a read-only structured array, fields as in `layout.dtype`."""
        if not self._alive:
            raise Error("this batch has expired: its iterator advanced; keep batch.copy() instead")
        return self._rows

    @property
    def values(self) -> NDArray[np.float32]:
        """The features: one line a row, one column an expression; a view as `rows` is."""
        values: NDArray[np.float32] = self.rows["features"]
        return values

    @property
    def names(self) -> tuple[str, ...]:
        """The expressions, in the order of the columns."""
        return self._layout.features

    @property
    def layout(self) -> RowLayout:
        return self._layout

    def signals(self) -> list[Signal]:
        """The rows as signals, copied."""
        return self._layout.signals(self.rows)

    def copy(self) -> FeatureBatch:
        """A batch that owns its rows and never expires."""
        return FeatureBatch(self.rows.copy(), self._layout)

    def __len__(self) -> int:
        return len(self.rows)

    def expire(self) -> None:
        """Called by the iterator that owns the slots."""
        self._alive = False
        self._rows = self._rows[:0]
