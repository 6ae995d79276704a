"""Records of the fake engine, with what it takes to read them."""

from __future__ import annotations

from typing import Any

from fake_core import REASONS, STAGES, STATES, make_rows

from tickwire.records import ModelInfo, RowLayout, Signal

FEATURES = ["spread()", "imbalance(levels=5)"]


def layout_of(rows: Any, scores: tuple[str, ...] = ()) -> RowLayout:
    return RowLayout(
        rows.dtype,
        stages=STAGES,
        states=STATES,
        reasons=REASONS,
        instruments=[("BTCUSDT", "binance_spot")],
        features=FEATURES,
        models=[ModelInfo("m", 77, scores)],
    )


def signals(count: int, scores: int = 2, *, first: int = 1) -> list[Signal]:
    return as_signals(make_rows(count, 3, scores, first=first))


def as_signals(rows: Any) -> list[Signal]:
    return RowLayout(
        rows.dtype,
        stages=STAGES,
        states=STATES,
        reasons=REASONS,
        instruments=[("BTCUSDT", "binance_spot")],
        features=["a", "b", "c"],
        models=[ModelInfo("m", 77, ("a", "b"))],
    ).signals(rows)
