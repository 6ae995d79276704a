"""`[engine]`, `[memory]`, `[record]` and `[features]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from tickwire.toml.table import Duration, Table
from tickwire.toml.words import at
from tickwire.units import parse_duration

__all__ = ["Engine", "Features", "Memory", "Record"]


class Engine(Table):
    """`[engine]`: how the stages are laid over threads."""

    layout: Literal["inline", "threads", "processes"] = "threads"
    """`threads`: ingestion never waits for a model. `inline`: one agent a feed does everything, for a model
    that is faster than a hop between two cores. `processes`: as `threads`, but each inference agent is a
    process of its own, watched and restarted, for a model that may crash, hang or leak."""

    idle: Literal["spin", "yield", "backoff"] = "backoff"
    """What a data-plane thread does with nothing to do. `backoff` works on a two-core laptop; `spin` for a
    machine whose cores are isolated for this and nothing else."""

    output_slots: Annotated[int, Field(ge=64, le=1 << 22)] = 8192
    """Rows that the ring to Python holds. More when a slow consumer of `features()` must be ridden out;
    a full ring drops the newest row and counts it."""

    stat_path: str = ""
    """Where the mapped statistics file lies. Empty: a private place of this user's in memory, which a later
    start clears where the engine was killed; a replay's has no name. A replay whose place a running engine
    uses takes memory as well."""

    strict: bool = False
    """Makes errors of what the start-up report warns of: a host that works against the latency asked for, by
    cores that are not isolated, interrupts on them, small pages. For production; a replay does not ask."""


class Memory(Table):
    """`[memory]`: what the arena asks of the kernel."""

    huge_pages: Literal["auto", "require", "off"] = "auto"
    """`require` turns the fallback to normal pages into an error: a mis-set host cannot go unnoticed."""

    lock: Literal["auto", "require", "off"] = "auto"
    """`require` makes a failed memory lock (see `ulimit -l`) an error. `off` where memory is short."""


class Record(Table):
    """`[record]`: how a recording, `tickwire run --record DIR`, is kept."""

    fsync: Literal["interval", "never"] = "interval"
    """`interval`: what is recorded is brought to the disk each `fsync_interval`, by a thread of its own, so
    that a power failure takes little more than that. `never`: when the kernel likes, mostly within half a
    minute. A process that is killed loses no more for it: at most a second either way."""

    fsync_interval: Duration = "1s"
    """For `interval`, up to a second: longer nothing lies in a buffer of ours."""

    @model_validator(mode="after")
    def _in_time(self) -> Record:
        if not 100_000_000 <= parse_duration(self.fsync_interval) <= 1_000_000_000:
            raise at("fsync_interval", "expected 100ms to 1s", self.fsync_interval)
        return self


def _no_period(value: object) -> object:
    if value == "every" or (isinstance(value, Mapping) and "every" in value):
        raise ValueError(
            'expected one of "book", "top", "trade"; for a row a period set features.every = "100ms" instead'
        )
    return value


class Features(Table):
    """`[features]`: what a row holds and when one leaves."""

    trigger: Annotated[Literal["book", "top", "trade"], BeforeValidator(_no_period)] | None = None
    """Which events emit a row: each that changed the book (the default), each that changed the best price or
    quantity, or each trade."""

    every: Duration | None = None
    """Instead of `trigger`: a row at the first event at or past each multiple of this."""

    beyond_depth: Literal["suspect", "accept"] = "suspect"
    """A snapshot says nothing of levels behind its last one. Where the market moves so far that a row would
    look at them, its book is suspect until more is known; or the rows are taken as they are, and counted."""

    rows: Annotated[list[str], Field(min_length=1, max_length=4096)]
    """The features, one expression a column: `"imbalance(levels=5)"`."""

    clock: Literal["recv", "event"] = "recv"
    """What a time window is measured on: our receive time, or the venue's stamp (its running maximum)."""

    window_rows: Annotated[int, Field(ge=1, le=1 << 16)] = 1
    """Rows a sequence model sees at once: T of its `[1, T, F]` input. 1 for a model of one row."""

    max_event_rate: Annotated[int, Field(ge=1, le=10_000_000)] = 2000
    """Events a second and instrument that time windows are sized for. What is above it is counted and leaves
    its window early; raise it for the busiest instruments, lower it to save memory."""

    trade_gaps: Literal["count", "suspect"] = "count"
    """What a hole in the venue's trade ids does where a row needs trades: each row says how many trades of
    its epoch are missing (`missing_trades`), or none leaves while a late trade may fill the hole, and a
    second behind it the epoch ends, and the book's next change begins another."""

    max_age: Duration = "1s"
    """A row, or its signal, that is older than this when it leaves, counted from its message's arrival, is
    counted and leaves as stale, without a score. "0s": no limit. Live alone: a recording has the row as it
    was, a replay applies no limit, and `verify` judges again by the recorded stamps."""

    @model_validator(mode="after")
    def _one_trigger(self) -> Features:
        if self.trigger is not None and self.every is not None:
            raise at(
                "every",
                f"expected exactly one of trigger and every, found trigger = {self.trigger!r} too",
                self.every,
            )
        if self.every is not None and parse_duration(self.every) == 0:
            raise at("every", "expected more than zero", self.every)
        return self
