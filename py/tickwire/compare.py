"""The comparison itself: a replay's rows with recorded ones, and recorded scores with their model's.

Both look at every field but the stamps of stages. Which clock stamped a message a capture does not carry, so
that flag is compared where it is recorded twice: in a row and in the record of its score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickwire.records import NO_TIME, RowLayout, Rows, age_ns

__all__ = ["ABSOLUTE_TOLERANCE", "RELATIVE_TOLERANCE", "Comparer", "ScoreChecker"]

# Between machines, ONNX Runtime's kernels add in another order and round otherwise.
RELATIVE_TOLERANCE = 1e-4
ABSOLUTE_TOLERANCE = 1e-6

# A difference: its place in the batch at hand, the field's number and the text. The smallest is the first.
_Finding = tuple[int, int, str]

# What two records of one row may differ in: the stamps of stages, what no capture carries (which clock
# stamped the message, how long nobody had looked before), and the place of a score where there is none.
_NOT_OF_A_REPLAY = ("ts_out", "stage_ns", "recv_clock", "unseen_us", "scores")
# What the record of a score has of its own. All else is its row's.
_OF_A_SCORE = ("ts_out", "stage_ns", "scores", "scored", "model_id", "state")


def _fields(rows: Rows, without: tuple[str, ...]) -> list[str]:
    """All others of a record. What names a row comes first: where that differs, it is another row."""
    names = [name for name in rows.dtype.names or () if name not in ("instrument", *without)]
    return sorted(names, key=lambda name: name not in ("epoch", "row"))


class _Rows:
    """Recorded rows and notices of each instrument, in the order they were written."""

    def __init__(self, files: Sequence[Rows]) -> None:
        self._parts: dict[int, list[tuple[Rows, NDArray[np.intp]]]] = {}
        for file in files:
            for instrument in np.unique(file["instrument"]).tolist():
                positions = np.flatnonzero(file["instrument"] == instrument)
                self._parts.setdefault(instrument, []).append((file, positions))

    def take(self, instrument: int, count: int) -> Rows | None:
        """The next `count` records of an instrument, or as many as there are; None without any."""
        taken: list[Rows] = []
        parts = self._parts.get(instrument, [])
        while count and parts:
            file, positions = parts[0]
            taken.append(file[positions[:count]])
            count -= len(taken[-1])
            if len(taken[-1]) == len(positions):
                parts.pop(0)
            else:
                parts[0] = (file, positions[len(taken[-1]) :])
        return np.concatenate(taken) if taken else None

    def first_left(self) -> Any | None:
        """The earliest row that nobody took."""
        left = [file[positions[0]] for parts in self._parts.values() for file, positions in parts[:1]]
        return min(left, key=lambda row: int(row["ts_recv"]), default=None)

    def left(self) -> int:
        """How many nobody took."""
        return sum(len(positions) for parts in self._parts.values() for _, positions in parts)


def _row_key(rows: Any) -> NDArray[np.uint64]:
    """One number that orders an instrument's rows."""
    key: NDArray[np.uint64] = (rows["epoch"].astype(np.uint64) << np.uint64(40)) + rows["row"]
    return key


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    """Values as integers of their bits: equal only where every bit is, a NaN and a signed zero included."""
    values = np.ascontiguousarray(values)
    return values.view(f"u{values.dtype.itemsize}") if values.dtype.kind == "f" else values


class Comparer:
    """Compares a replay's rows with recorded ones as they come. Stops looking at the first difference."""

    def __init__(
        self, rows: Sequence[Rows], layout: RowLayout, window_rows: int = 1, *, cut_off: bool = False
    ) -> None:
        """`window_rows`: what a model of the run looked at, 1 without one. `cut_off`: the recording ends
        anywhere, so what the replay gives beyond it, and what it has beyond the replay, says nothing."""
        self.divergence: str | None = None
        self.rows = 0
        self.notices = 0
        self.last_ts_recv = 0
        """Of what was compared."""
        self.replayed_beyond = 0
        self._layout = layout
        self._window = window_rows
        self._cut_off = cut_off
        self._rows = _Rows(rows)

    @property
    def recorded_beyond(self) -> int:
        """Records that the replay has not come to."""
        return self._rows.left()

    def on_rows(self, rows: Rows) -> bool:
        """The replay's next rows, in the order it gave them. False once something differs."""
        found: list[_Finding] = []
        for instrument in np.unique(rows["instrument"]).tolist():
            positions = np.flatnonzero(rows["instrument"] == instrument)
            self._compare(instrument, rows[positions], positions, found)
        if found:
            self.divergence = min(found)[2]
        return not found

    def finish(self) -> None:
        """The replay has ended: what was recorded and did not come again is a difference too."""
        row = self._rows.first_left()
        if row is not None and not self._cut_off:
            name = _name(self._layout, row)
            self.divergence = f"{name}: a row was recorded that the replay did not give"

    def _compare(
        self, instrument: int, replayed: Rows, places: NDArray[np.intp], found: list[_Finding]
    ) -> None:
        recorded = self._rows.take(instrument, len(replayed))
        count = len(recorded) if recorded is not None else 0
        if recorded is not None:
            notices = int((recorded["row"] == 0).sum())
            self.notices += notices
            self.rows += count - notices
            self.last_ts_recv = max(self.last_ts_recv, int(recorded["ts_recv"][-1]))
            self._compare_fields(recorded, replayed[:count], places, found)
        if count < len(replayed):
            row = replayed[count]
            if self._cut_off:
                self.replayed_beyond += len(replayed) - count
            else:
                text = f"{_name(self._layout, row)}: the replay gave a row that was not recorded"
                found.append((int(places[count]), 0, text))

    def _compare_fields(
        self, recorded: Rows, replayed: Rows, places: NDArray[np.intp], found: list[_Finding]
    ) -> None:
        is_row = replayed["row"] != 0
        expected = {name: replayed[name] for name in _fields(replayed, _NOT_OF_A_REPLAY)}
        # The replay has no model whose window could be short; a row that is not finite says that first.
        states = self._layout.states
        short = is_row & (replayed["row"] < self._window) & (replayed["state"] == states.index("valid"))
        expected["scored"] = np.zeros(len(replayed), np.uint8)  # As it left the agent, no model had seen it.
        expected["state"] = np.where(short, np.uint8(states.index("warming")), replayed["state"])
        for order, (name, values) in enumerate(expected.items()):
            differs = _bits(recorded[name]) != _bits(values)
            if differs.ndim > 1:
                differs &= is_row[:, None]  # A notice has none.
            lines = differs.any(axis=1) if differs.ndim > 1 else differs
            if lines.any():
                i = int(np.argmax(lines))
                cell = int(np.argmax(differs[i])) if differs.ndim > 1 else None
                text = _difference(self._layout, recorded[i], recorded[i][name], values[i], name, cell)
                found.append((int(places[i]), order, text))


@dataclass(frozen=True, slots=True)
class _Instrument:
    """The recorded rows of an instrument, ordered by epoch and number."""

    keys: NDArray[np.uint64]
    rows: Rows
    features: NDArray[np.float32]


class ScoreChecker:
    """Gives recorded rows to their model again, in the batches of the run, and compares the scores."""

    _CHUNK = 4096

    def __init__(
        self,
        rows: Sequence[Rows],
        layout: RowLayout,
        window_rows: int,
        *,
        exact: bool = True,
        warm: bool = False,
        cut_off: bool = False,
    ) -> None:
        """`rows`: what the ingest agents recorded; `warm`: other rows were there before the first of them;
        `cut_off`: the recording ends anywhere, so a score may be there without its row or the rest of its
        run."""
        self.divergence: str | None = None
        self.scores = 0
        self.unchecked = 0
        self.beyond = 0
        """Records of a recording that is cut off, whose row or run is not in it."""
        self._warm = warm
        self._layout = layout
        self._exact = exact
        self._window = window_rows
        self._cut_off = cut_off
        self._instruments: dict[int, _Instrument] = {}
        every = [part for part in (file[file["row"] != 0] for file in rows) if len(part)]
        for instrument in sorted({int(i) for part in every for i in np.unique(part["instrument"])}):
            mine = np.concatenate([part[part["instrument"] == instrument] for part in every])
            mine = mine[np.argsort(_row_key(mine), kind="stable")]
            self._instruments[instrument] = _Instrument(
                _row_key(mine), mine, mine["features"].reshape(len(mine), -1)
            )
        self._seen: set[tuple[int, int, int]] = set()
        self._last: dict[tuple[int, int], int] = {}

    def check(self, records: Rows, models: Any) -> bool:
        """The records of one agent, in the order in which it published them. False once something differs."""
        records = records[records["row"] != 0]
        self._last.clear()
        places, found = self._places_of(records)
        if self._cut_off:
            inside = places >= 0
            self.beyond += int((~inside).sum())
            records, places = records[inside], places[inside]
        elif found:
            self.divergence = min(found)[2]
            return False
        if not self._compare_with_rows(records, places) or not self._check_ages(records, models):
            return False
        inputs = np.empty((len(records), self._window, len(self._layout.features)), np.float32)
        known = np.ones(len(records), np.bool_)
        for i, record in enumerate(records):
            window = self._input_of(record, int(places[i]))
            if isinstance(window, str):
                self.divergence = f"{_name(self._layout, record)}: {window}"
                return False
            known[i] = window is not None
            inputs[i] = window if window is not None else 0
        for batch in self._batches(records, known):
            if batch is None:
                return False
            if not known[batch].all():
                self.unchecked += len(batch)
            elif not self._check_batch(records[batch], inputs[batch], models):
                return False
        return self._check_unscored(records, inputs)

    def _places_of(self, records: Rows) -> tuple[NDArray[np.intp], list[_Finding]]:
        """Where the row of each is among its instrument's; -1, and a finding, where there is none."""
        places = np.full(len(records), -1, np.intp)
        for instrument in np.unique(records["instrument"]).tolist():
            mine = np.flatnonzero(records["instrument"] == instrument)
            rows = self._instruments.get(instrument)
            if rows is None:
                continue
            keys = _row_key(records[mine])
            at = np.searchsorted(rows.keys, keys)
            at[at == len(rows.keys)] = 0
            places[mine] = np.where(rows.keys[at] == keys, at, -1)
        missing = np.flatnonzero(places < 0)[:1].tolist()
        return places, [
            (i, 0, f"{_name(self._layout, records[i])}: a score was recorded of a row that was not")
            for i in missing
        ]

    def _compare_with_rows(self, records: Rows, places: NDArray[np.intp]) -> bool:
        """A record of a score says of its row what the row's own record says."""
        found: list[_Finding] = []
        for instrument in np.unique(records["instrument"]).tolist():
            mine = np.flatnonzero(records["instrument"] == instrument)
            rows = self._instruments[instrument].rows[places[mine]]
            for order, name in enumerate(_fields(rows, _OF_A_SCORE)):
                there = records[name][mine]
                differs = _bits(there) != _bits(rows[name])
                if differs.ndim > 1:
                    differs = differs.any(axis=1)
                if not differs.any():
                    continue
                i = int(np.argmax(differs))
                text = "the record with its score has other features than the row"
                if name != "features":
                    here, scored = (_shown(self._layout, name, value) for value in (rows[i][name], there[i]))
                    text = f"{name}: recorded {here}, with its score {scored}"
                found.append((int(mine[i]), order, f"{_name(self._layout, rows[i])}: {text}"))
        total = records["ts_recv"] + records["stage_ns"].sum(axis=1)
        if (torn := records["ts_out"] != total).any():
            i = int(np.argmax(torn))
            text = f"{_name(self._layout, records[i])}: ts_out is not ts_recv plus its stages"
            found.append((i, len(records.dtype.names or ()), text))
        if found:
            self.divergence = min(found)[2]
        return not found

    def _input_of(self, record: Any, at: int) -> NDArray[np.float32] | str | None:
        """What its model saw, or what is wrong with the record; None if it began before the recording."""
        instrument = int(record["instrument"])
        keys, features = self._instruments[instrument].keys, self._instruments[instrument].features
        key, model = int(keys[at]), int(record["model_id"])
        name = (instrument, key, model)
        if name in self._seen:
            return "it was scored twice by the same model"
        self._seen.add(name)
        if self._last.get((instrument, model), -1) > key:
            return "its score was recorded behind that of a later row"
        self._last[instrument, model] = key
        first = max(at - self._window + 1, 0)
        window = features[first : at + 1]
        if len(window) < self._window or keys[at] - keys[first] != self._window - 1:
            if record["scored"] and self._warm and keys[first] >> 40 == keys[0] >> 40:
                return None
            if record["scored"]:
                return "it was scored before its window was full"
            window = features[at : at + 1]  # Short of a whole window; nobody scored it.
        return np.broadcast_to(window, (self._window, features.shape[1])) if len(window) == 1 else window

    def _batches(self, records: Rows, known: NDArray[np.bool_]) -> Iterator[NDArray[np.intp] | None]:
        """Positions of the rows of each run; None where they do not add up."""
        ran = np.flatnonzero(records["scored"] != 0)
        sizes, names = records["scored"][ran], records["model_id"][ran]
        at = 0
        while at < len(ran):
            size = int(sizes[at])
            batch = slice(at, at + size)
            if len(ran) < at + size or (sizes[batch] != size).any() or (names[batch] != names[at]).any():
                if self._cut_off:
                    self.beyond += len(ran) - at
                    return
                row = _name(self._layout, records[ran[at]])
                self.divergence = (
                    f"{row}: it was scored in a run of {size} rows, of which some were not recorded"
                )
                yield None
                return
            if size == 1:
                # Rows that were scored one by one go to the model together: it takes them one by one.
                end = at
                while (
                    end < len(ran)
                    and known[ran[end]] == known[ran[at]]
                    and end - at < self._CHUNK
                    and sizes[end] == 1
                    and names[end] == names[at]
                ):
                    end += 1
                yield ran[at:end]
                at = end
            else:
                yield ran[batch]
                at += size

    def _check_batch(self, records: Rows, inputs: NDArray[np.float32], models: Any) -> bool:
        model = models.of(int(records["model_id"][0]))
        if self._window == 1:
            inputs = inputs[:, 0, :]
        inputs = np.ascontiguousarray(inputs)
        if int(records["scored"][0]) == 1 and models.max_batch(int(records["model_id"][0])) > 1:
            again = np.concatenate([model.run(inputs[i : i + 1]) for i in range(len(inputs))])
        else:
            again = model.run(inputs)
        count = again.shape[1]
        finite = np.isfinite(again).all(axis=1)
        states = self._layout.states
        expected = np.where(finite, states.index("valid"), states.index("nonfinite")).astype(np.uint8)
        # A row that was too old to score live has no age now.
        stale = records["state"] == states.index("stale")
        wrong = (records["state"] != expected) & ~stale
        if wrong.any():
            i = int(np.argmax(wrong))
            self.divergence = _difference(
                self._layout, records[i], records[i]["state"], expected[i], "state", None
            )
            return False
        live = records["scores"].reshape(len(records), -1)[:, :count]
        if self._exact:
            cells = _bits(live) != _bits(again)
        else:
            cells = ~np.isclose(again, live, rtol=RELATIVE_TOLERANCE, atol=ABSOLUTE_TOLERANCE, equal_nan=True)
        lines = cells.any(axis=1) & finite & ~stale
        if lines.any():
            i = int(np.argmax(lines))
            cell = int(np.argmax(cells[i]))
            self.divergence = _difference(
                self._layout, records[i], live[i][cell], again[i][cell], f"score {cell}", None
            )
            return False
        self.scores += int((~stale).sum())
        return True

    def _check_ages(self, records: Rows, models: Any) -> bool:
        """Whether a record left in time is told by its own stamps."""
        ages = age_ns(records)
        valid, stale = (records["state"] == self._layout.states.index(name) for name in ("valid", "stale"))
        for number in np.unique(records["model_id"]).tolist():
            limit = models.max_age_ns(number)
            old = (ages > limit) & (limit != 0)
            wrong = (records["model_id"] == number) & ((valid & old) | (stale & ~old))
            if wrong.any():
                i = int(np.argmax(wrong))
                state = self._layout.state(int(records[i]["state"]))
                allowed = f"{limit / 1e6:g} ms are allowed" if limit else "any age is allowed"
                name, age = _name(self._layout, records[i]), f"{ages[i] / 1e6:g} ms"
                self.divergence = f"{name}: it is {state}, but left {age} after its arrival, and {allowed}"
                return False
        return True

    def _check_unscored(self, records: Rows, inputs: NDArray[np.float32]) -> bool:
        """Rows that no run answered must have had a reason that can be seen again."""
        states = self._layout.states
        left = records["scored"] == 0
        finite = np.isfinite(inputs).all(axis=(1, 2))
        short = records["row"] < self._window
        known = [states.index(name) for name in ("nonfinite", "warming", "stale", "model_error")]
        usable = ~left & (records["state"] == states.index("valid"))
        silent = np.isnan(records["scores"].reshape(len(records), -1)).all(axis=1)
        wrong = (~usable & ~silent) | left & (
            ((records["state"] == states.index("nonfinite")) & finite)
            | ((records["state"] == states.index("warming")) & ~short)
            | ~np.isin(records["state"], known)
        )
        if wrong.any():
            i = int(np.argmax(wrong))
            state = self._layout.state(int(records[i]["state"]))
            what = "without a score, and nothing says why" if silent[i] or left[i] else "and has a score"
            self.divergence = f"{_name(self._layout, records[i])}: it is {state} {what}"
            return False
        return True


def _name(layout: RowLayout, row: Any) -> str:
    symbol, venue = layout.instrument(int(row["instrument"]))
    which = f"row {row['row']}" if row["row"] else "notice"
    place = f"epoch {row['epoch']}, {which}, sequence {row['sequence']}, ts_recv {row['ts_recv']}"
    return f"{venue} {symbol}, {place}"


def _difference(layout: RowLayout, row: Any, there: Any, here: Any, name: str, cell: int | None) -> str:
    if cell is not None:
        there, here = np.ravel(there)[cell], np.ravel(here)[cell]
        name = layout.features[cell]
    shown = f"recorded {_shown(layout, name, there)}, replayed {_shown(layout, name, here)}"
    return f"{_name(layout, row)}: {name}: {shown}"


def _shown(layout: RowLayout, name: str, value: Any) -> str:
    if isinstance(value, np.floating):
        return f"{value!s} (0x{int(value.view(np.uint32)):08x})"
    if name == "state":
        return layout.state(int(value))
    if name == "reason":
        return layout.reason(int(value))
    if name == "ts_event" and value == NO_TIME:
        return "none"
    return str(value)
