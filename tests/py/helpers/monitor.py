"""An independent truth beside a live run: what the simulator's books were, against what the engine said.

The simulator tells the monitor each change of a true book when it makes it, before any fault can touch
the message. The monitor keeps every record that leaves the pipeline and afterwards rebuilds, from dicts
and exact fractions, what each row should have said at its sequence. It shares no code with the engine.

What it holds a run to:

- a VALID row says exactly what the true book of its sequence says;
- rows of an epoch count 1, 2, 3 …, epochs grow, and after the notice that ends an epoch no row of it comes;
- the engine's counters agree with the records that left.

`weather()` is the rig that the tests and the soak share: one venue with several markets, one pipeline
with a feed a market, back-offs of milliseconds, and this monitor between them.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import waiting
from waiting import LONG_S

from tickwire import models
from tickwire.config import Config
from tickwire.pipeline import Pipeline
from tickwire.records import RowLayout, Rows
from tickwire.sim import BookChange, Faults, SyntheticMarket, Venue
from tickwire.verify import verify

MARKETS = ("spot", "usdm", "coinm")
ROWS = ("imbalance(levels=5)", "spread()", "microprice_offset()")
_LEVELS = 5
_VALID = 2  # Of the counter book_state.

Key = tuple[str, str]  # Market and symbol.


@lru_cache(maxsize=1 << 16)
def _units(text: str) -> int:
    value = Fraction(text) * 10**8
    assert value.denominator == 1, text
    return int(value)


@dataclass(frozen=True)
class Notice:
    epoch: int
    reason: str
    state: str
    ts_recv: int


@dataclass
class Told:
    """What the pipeline said of one instrument, in the order in which it said it."""

    rows: list[tuple[int, int, int, int, tuple[float, ...]]] = field(default_factory=list)
    """Epoch, row, sequence, ts_recv, features."""
    notices: list[Notice] = field(default_factory=list)
    first_rows: dict[int, int] = field(default_factory=dict)
    """By epoch, ts_recv of its first row."""
    epoch: int = 0
    row: int = 0
    sequence: int = 0
    """Of the newest row."""
    ended: bool = True
    """The newest epoch has been left."""

    @property
    def valid(self) -> bool:
        return not self.ended

    def lost(self, reason: str | None = None) -> list[Notice]:
        """The notices but that of our own stop."""
        return [n for n in self.notices if n.reason != "stopped" and reason in (None, n.reason)]

    def outages_s(self) -> list[float]:
        """From each notice to the first row of the next epoch; to now where there is none yet."""
        out = []
        for notice in self.lost():
            later = [ts for epoch, ts in self.first_rows.items() if epoch > notice.epoch]
            out.append((min(later, default=time.time_ns()) - notice.ts_recv) / 1e9)
        return out


class Monitor:
    def __init__(self) -> None:
        self.truth: defaultdict[Key, list[BookChange]] = defaultdict(list)
        self.told: defaultdict[Key, Told] = defaultdict(Told)
        self.violations: list[str] = []
        self._names: list[Key] = []
        self._layout: RowLayout | None = None

    def on_book(self, change: BookChange) -> None:
        """For the venue."""
        self.truth[change.market, change.symbol].append(change)

    def watch(self, layout: RowLayout) -> None:
        """Then give `on_rows` to a pipeline."""
        self._layout = layout
        self._names = [(venue.removeprefix("binance_"), symbol) for symbol, venue in layout.instruments]
        for name in self._names:
            self.told[name]  # Also one that never says anything is looked at.

    def on_rows(self, rows: Rows) -> None:
        layout = self._layout
        assert layout is not None
        names = ("instrument", "epoch", "row", "sequence", "ts_recv", "state", "reason", "features")
        for number, epoch, row, sequence, ts_recv, state, reason, features in zip(
            *(rows[name].tolist() for name in names), strict=True
        ):
            key = self._names[number]
            told = self.told[key]
            if row == 0:
                self._on_notice(key, told, Notice(epoch, layout.reason(reason), layout.state(state), ts_recv))
                continue
            if epoch > told.epoch:
                if not told.ended:
                    self._broken(key, f"epoch {epoch} began and nothing said that {told.epoch} had ended")
                told.epoch, told.row, told.ended = epoch, 0, False
                told.first_rows[epoch] = ts_recv
            elif told.ended or epoch < told.epoch:
                self._broken(key, f"row {epoch}/{row} came after epoch {told.epoch} had ended")
            if row != told.row + 1:
                self._broken(key, f"row {epoch}/{row} came after {told.epoch}/{told.row}")
            told.row, told.sequence = row, sequence
            if state == 0:  # Else without a score, and not for the book's sake: the model's.
                told.rows.append((epoch, row, sequence, ts_recv, tuple(features)))

    def _on_notice(self, key: Key, told: Told, notice: Notice) -> None:
        # An epoch may end before it gave a row.
        if notice.epoch < told.epoch or (notice.epoch == told.epoch and told.ended):
            self._broken(key, f"a second notice for epoch {notice.epoch}: {notice}")
        if notice.state == "valid":
            self._broken(key, f"a notice that says valid: {notice}")
        told.notices.append(notice)
        told.epoch, told.ended = notice.epoch, True

    def _broken(self, key: Key, what: str) -> None:
        self.violations.append(f"{key[0]} {key[1]}: {what}")

    # What should have been said.

    def check(self) -> int:
        """Raises at the first row that differs from the truth; the number of rows compared."""
        assert not self.violations, "\n".join(self.violations[:10])
        return sum(self._check_instrument(key, told) for key, told in self.told.items())

    def _check_instrument(self, key: Key, told: Told) -> int:
        changes = self.truth[key]
        # A venue that restarts may use an id again: the truth of a row is the newest before it came.
        by_id: defaultdict[int, list[int]] = defaultdict(list)
        for index, change in enumerate(changes):
            by_id[change.last_id].append(index)
        wanted: defaultdict[int, list[int]] = defaultdict(list)
        for number, (epoch, row, sequence, ts_recv, _) in enumerate(told.rows):
            known = [index for index in by_id[sequence] if changes[index].ts_ns <= ts_recv]
            assert known, f"{key}: row {epoch}/{row} speaks of {sequence}, which the venue never was at"
            wanted[known[-1]].append(number)
        bids: dict[int, int] = {}
        asks: dict[int, int] = {}
        for index, change in enumerate(changes):
            for side, levels in ((bids, change.bids), (asks, change.asks)):
                if change.whole:
                    side.clear()
                for price, qty in levels:
                    if units := _units(qty):
                        side[_units(price)] = units
                    else:
                        side.pop(_units(price), None)
            if index in wanted:
                expected = _features(bids, asks)
                for number in wanted[index]:
                    epoch, row, sequence, _, features = told.rows[number]
                    got = np.array(features, dtype=np.float32)
                    assert (np.abs(got - expected) <= np.spacing(np.abs(expected))).all(), (
                        f"{key}: row {epoch}/{row} at {sequence} says {got}, the true book {expected}"
                    )
        return len(told.rows)


def _features(bids: Mapping[int, int], asks: Mapping[int, int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    best_bids = heapq.nlargest(_LEVELS, bids)
    best_asks = heapq.nsmallest(_LEVELS, asks)
    bid_qty, ask_qty = (sum(side[p] for p in best) for side, best in ((bids, best_bids), (asks, best_asks)))
    bid, ask = best_bids[0], best_asks[0]
    assert bid < ask, "the truth itself is crossed"
    mid = Fraction(bid + ask, 2)
    microprice = Fraction(bid * asks[ask] + ask * bids[bid], bids[bid] + asks[ask])
    values = (
        Fraction(bid_qty - ask_qty, bid_qty + ask_qty),
        (ask - bid) / mid * 10_000,
        (microprice - mid) / mid * 10_000,
    )
    return np.array([float(value) for value in values], dtype=np.float32)


class Watched(Protocol):
    """A running pipeline under a monitor."""

    pipeline: Pipeline

    @property
    def monitor(self) -> Monitor: ...
    def state(self) -> str: ...


async def until(rig: Watched, condition: Callable[[], bool], what: str, seconds: float = LONG_S) -> None:
    """Waits, while nothing is wrong with the pipeline or what it said."""

    def look() -> None:
        rig.pipeline.raise_if_failed()
        assert not rig.monitor.violations, "\n".join(rig.monitor.violations[:10])

    await waiting.until(condition, lambda: f"{what}; {rig.state()}", look=look, seconds=seconds)


@dataclass
class Rig:
    """A run under way, and afterwards what it came to."""

    venue: Venue
    faults: Faults
    monitor: Monitor
    pipeline: Pipeline
    counters: dict[str, int] = field(default_factory=dict)
    """The engine's, when all was calm again."""
    checked: int = 0

    @property
    def keys(self) -> list[Key]:
        return [(market, symbol) for market, all_ in self.venue.instruments.items() for symbol in all_]

    def first(self, market: str) -> Key:
        return market, self.venue.instruments[market][0]

    def told(self, key: Key) -> Told:
        return self.monitor.told[key]

    def count(self, name: str, market: str | None = None) -> int:
        """A counter of one feed, or of all together."""
        counters = self.counters or self.pipeline.stats().counters
        return sum(counters[f"{feed}/{name}"] for feed in ([market] if market else self.venue.instruments))

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        await until(self, condition, what)

    async def all_valid(self) -> None:
        """Every instrument gives rows."""
        rows = {key: len(self.told(key).rows) for key in self.keys}
        # Rows that were on their way are not the proof: some more must come.
        await self.until(
            lambda: all(self.told(k).valid and len(self.told(k).rows) > rows[k] + 3 for k in self.keys),
            "every instrument valid",
        )

    async def lost_and_back(self, key: Key, losses: int = 1) -> None:
        """The instrument has left valid so often in all, and is valid again."""
        told = self.told(key)
        await self.until(
            lambda: len(told.lost()) >= losses and told.valid, f"{key} lost {losses} times and back"
        )

    async def settled(self, name: str) -> dict[str, int]:
        """A counter by market, when the agents, which count some things each 100 ms, have counted it."""
        await asyncio.sleep(0.25)
        return {market: self.count(name, market) for market in self.venue.instruments}

    def state(self) -> str:
        told = {key: (t.epoch, t.row, t.ended, t.lost()[-2:]) for key, t in self.monitor.told.items()}
        stats = self.pipeline.stats()
        counters = {name: value for name, value in stats.counters.items() if value and "rows" not in name}
        return f"{told}\nfaults {dict(self.faults.counts)}\nerrors {stats.errors}\ncounters {counters}"


@asynccontextmanager
async def weather(
    faults: Faults,
    *,
    markets: Sequence[str] = MARKETS,
    instruments: int = 2,
    rate: float = 300.0,
    seed: int = 1,
    layout: str = "threads",
    trigger: str = "book",
    combined: bool = False,
    model_in: Path | None = None,
    feed: Mapping[str, Any] | None = None,
    pipeline_options: Mapping[str, Any] | None = None,
    **venue_options: Any,
) -> AsyncIterator[Rig]:
    """Yields once every instrument is valid; afterwards waits for calm and holds the run to the truth."""
    monitor = Monitor()
    sources = [SyntheticMarket(m, instruments=instruments, rate=rate, seed=seed) for m in markets]
    venue = Venue(sources, faults=faults, at_end="idle", on_book=monitor.on_book, **venue_options)
    async with venue:
        config = _config(venue, layout, trigger, combined, feed or {}, model_in)
        async with Pipeline(config, **(pipeline_options or {})) as pipeline:
            monitor.watch(pipeline.layout)
            pipeline.on_rows(monitor.on_rows)
            rig = Rig(venue, faults, monitor, pipeline)
            await rig.all_valid()
            yield rig
            faults.disarm()
            await rig.all_valid()
            await _quiet(rig)
            # Instruments go on: what happened by now is what the faults did.
            rig.counters = pipeline.stats().counters
    rig.checked = monitor.check()
    _check_counters(rig)


def _config(
    venue: Venue, layout: str, trigger: str, combined: bool, feed: Mapping[str, Any], model_in: Path | None
) -> Config:
    data: dict[str, Any] = {
        "engine": {"layout": layout, "output_slots": 65536},
        "feeds": [
            {
                "name": market,
                "venue": f"binance_{market}",
                "url": (venue.stream_url if combined else venue.ws_url)[market],
                "rest_url": venue.rest_url[market],
                "instruments": symbols,
                "ca_file": venue.certificate or "",
                "max_levels": 1024,
                "snapshot_limit": 1000,
                "snapshot_backoff": "20ms",
                "snapshot_retries": 1000,
                "reconnect_min": "20ms",
                "reconnect_max": "100ms",
                **feed,
            }
            for market, symbols in venue.instruments.items()
        ],
        # Rows are counted here, however long a busy machine lets them wait.
        "features": {"trigger": trigger, "rows": list(ROWS), "max_age": "0s"},
    }
    config = Config.from_dict(data, where="weather", base=model_in)
    if model_in is None:
        return config
    models.make_demo_model(model_in / "demo.onnx", config.schema())
    data["model"] = {"path": "demo.onnx", "queue_slots": 8192}
    return Config.from_dict(data, where="weather", base=model_in)


async def _quiet(rig: Rig) -> None:
    """Until what the agents count now and then (each 100 ms) is counted, no snapshot is under way, and each
    feed has one connection: the replacement of one that a venue shuts down may still be opening."""

    def settled() -> bool:
        stats = rig.pipeline.stats()
        connects, disconnects = (
            sum(stats.counters[f"{feed}/{name}"] for feed in rig.venue.instruments)
            for name in ("connects", "disconnects")
        )
        return (
            stats.snapshots["under_way"] == 0
            and connects == rig.venue.counters["connections"]
            and disconnects == connects - len(rig.venue.instruments)
        )

    await rig.until(settled, "one connection a feed and no snapshot under way")
    await asyncio.sleep(0.25)


def _check_counters(rig: Rig) -> None:
    """What must agree whatever the weather was."""
    # Reads no later than the notices, which the stop itself adds to.
    stats = rig.pipeline.stats()
    for feed, symbols in rig.venue.instruments.items():
        told = {symbol: rig.told((feed, symbol)) for symbol in symbols}
        assert stats.counters[f"{feed}/left_valid"] == sum(len(t.notices) for t in told.values())
        for symbol, t in told.items():
            assert stats.counters[f"{feed}/{symbol}/rows"] == len(t.rows)
            assert stats.counters[f"{feed}/{symbol}/left_valid"] == len(t.notices)
            assert stats.counters[f"{feed}/{symbol}/epoch"] == t.epoch
        assert stats.counters[f"{feed}/gaps"] == sum(len(t.lost("gap")) for t in told.values())
        # Every epoch that was left had begun, and so had the one that our stop ended.
        assert stats.counters[f"{feed}/became_valid"] == stats.counters[f"{feed}/left_valid"]
    assert stats.dropped == 0
    assert rig.count("connects") == rig.venue.counters["connections"]
    assert rig.count("disconnects") == rig.count("connects") - len(rig.venue.instruments)
    assert rig.count("connect_failures") == 0
    assert rig.count("shutdown_notices") == rig.venue.counters["shutdown_notices"]


# A fault of each kind every second or few, on the busiest instrument of two markets.
_STORM = {
    **dict.fromkeys(("drop", "duplicate", "reorder", "corrupt"), 0.004),
    **dict.fromkeys(("close", "reset", "stall", "shutdown", "restart"), 0.0006),
    **dict.fromkeys(("rest_fail", "rest_slow", "snapshot_old", "snapshot_oversized"), 0.1),
    "snapshot_ahead": 0.03,
}
_STORM_BOUND_S = 60.0


async def storm(seed: int, *, seconds: float, layout: str, folder: Path) -> Rig:
    """All faults by chance for a while: the truth, the bystanders, the counters, and the recording's replay.

    The seed also chooses how the streams are spoken and what gives a row. Messages are hit on BTCUSDT of spot
    and USD-M alone. So its neighbour ETHUSDT may lose its book only with the connection, or with one that
    stalled, and COIN-M never.
    """
    chance = random.Random(seed)
    faults = Faults(
        seed,
        _STORM,
        symbols={"BTCUSDT"},
        stall_s=0.3,
        slow_s=0.3,
        shutdown_grace_s=0.3,
        oversized_bytes=chance.choice((1 << 20, 9 << 20)),
    )
    run = folder / "run"
    async with weather(
        faults,
        seed=seed,
        layout=layout,
        trigger=chance.choice(("book", "book", "top", "trade")),
        combined=chance.random() < 0.5,
        tls=chance.random() < 0.3,
        model_in=folder,
        pipeline_options={"record_dir": run},
    ) as rig:
        end = time.monotonic() + seconds
        await until(rig, lambda: time.monotonic() > end, "the end of the storm", seconds + LONG_S)
    happened = rig.faults.counts
    for market, symbol in rig.keys:
        told = rig.told((market, symbol))
        assert max(told.outages_s(), default=0.0) < _STORM_BOUND_S, (market, symbol, told.outages_s())
        if market == "coinm":
            assert not told.lost(), f"{symbol} had no fault and lost its book: {told.lost()}"
        elif symbol != "BTCUSDT":
            disconnects = rig.count("disconnects", market)
            assert len(told.lost("disconnected")) <= disconnects
            assert len(told.lost("gap")) <= happened["stall"]
            assert len(told.lost()) == len(told.lost("disconnected")) + len(told.lost("gap"))
    # A TCP reset takes with it what was on its way, and a connection that was replaced is not listened to.
    exact = happened["reset"] == 0 and rig.count("handovers") == 0
    assert rig.count("malformed") == happened["corrupt"] or (
        not exact and rig.count("malformed") < happened["corrupt"]
    )
    assert rig.count("gaps") <= happened["drop"] + happened["reorder"] + 2 * happened["stall"]
    asked, answered = rig.count("snapshot_requests"), rig.count("snapshots") + rig.count("snapshots_failed")
    malformed = asked - answered
    # A body of too many levels is an answer, too, and a lost connection forgets what it had asked.
    assert 0 <= malformed <= happened["snapshot_oversized"] + 2 * rig.count("disconnects")
    result = await verify(run)
    assert result.same, result.divergence
    assert result.rows == rig.checked
    return rig
