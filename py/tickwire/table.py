"""Rows as a table: one schema, whatever file it goes to and however many models there are.

    ts_event, ts_recv, feed, venue, instrument, epoch, row, sequence, state,
    missing_trades, one column a feature, one a score of each model

`feed` is the feed's name and `venue` its venue, since two of them may have an instrument of one name. A
feature's column is named by its expression, a score's by its model and output: `m.prob_up`; a model that is a
shadow has its scores there, too. `state` is that of the first model that is none, and
`missing_trades` how many trades the row is short of. Floats are float32, as text
in the fewest digits that read back as the same float32. `ts_event` is empty where the venue gave no time, a
score where the model gave none.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tickwire.errors import ConfigError, Error, MissingExtra
from tickwire.records import NO_TIME, ModelInfo, RowLayout, Rows

__all__ = ["CsvWriter", "Joiner", "ParquetWriter", "RowWriter", "check_out", "column_names", "open_writer"]


@dataclass(frozen=True, slots=True)
class _Column:
    """One that every table has. `texts`: what a code stands for, where the record has one."""

    name: str
    kind: str  # pyarrow's name of it.
    field: str
    texts: tuple[str, ...] | None = None


def _key_columns(layout: RowLayout) -> list[_Column]:
    instruments = layout.instruments
    return [
        _Column("ts_event", "int64", "ts_event"),
        _Column("ts_recv", "int64", "ts_recv"),
        _Column("feed", "string", "instrument", tuple(map(layout.feed, range(len(instruments))))),
        _Column("venue", "string", "instrument", tuple(venue for _, venue in instruments)),
        _Column("instrument", "string", "instrument", tuple(symbol for symbol, _ in instruments)),
        _Column("epoch", "uint32", "epoch"),
        _Column("row", "uint64", "row"),
        _Column("sequence", "uint64", "sequence"),
        _Column("state", "string", "state", layout.states),
        _Column("missing_trades", "uint32", "missing_trades"),
    ]


def _scored(layout: RowLayout) -> list[ModelInfo]:
    """The models in the order of their columns: one of each name."""
    return list({model.name: model for model in layout.models}.values())


def column_names(layout: RowLayout) -> list[str]:
    """The columns, in their order; no two have one name."""
    names = [column.name for column in _key_columns(layout)] + list(layout.features)
    for model in _scored(layout):
        for output in model.outputs:
            name, number = f"{model.name}.{output}", 1
            while name in names:
                number += 1
                name = f"{model.name}.{output}_{number}"
            names.append(name)
    return names


class RowWriter(Protocol):
    """Writes batches of records; takes copies."""

    rows: int

    def write(self, rows: Rows) -> None: ...

    def close(self) -> None: ...


class Joiner:
    """Puts the records of all models on one row together: one line a trigger.

    Each model's records come in the order of its instrument's rows; a line leaves when all models have
    answered, in the order in which the first of them began.
    """

    def __init__(self, layout: RowLayout, write: Callable[[Rows], None]) -> None:
        self._write = write
        self._places: dict[int, slice] = {}
        models = _scored(layout)
        self._first = next((model.id for model in models if not model.shadow), 0)
        width = 0
        for model in models:
            self._places[model.id] = slice(width, width + len(model.outputs))
            width += len(model.outputs)
        fields: Mapping[str, Any] = layout.dtype.fields or {}
        self._dtype = np.dtype(
            [(name, "<f4", (width,)) if name == "scores" else (name, fields[name][0]) for name in fields]
        )
        self._open: dict[tuple[int, int, int], tuple[Rows, set[int]]] = {}

    def write(self, rows: Rows) -> None:
        if len(self._places) < 2:
            return self._write(rows)
        for record in rows[rows["row"] != 0]:
            key = (int(record["instrument"]), int(record["epoch"]), int(record["row"]))
            model = int(record["model_id"])
            if key not in self._open:
                line = np.zeros(1, self._dtype)
                for name in self._dtype.names or ():
                    if name != "scores":
                        line[name] = record[name]
                line["scores"], line["scored"] = np.nan, 1
                self._open[key] = (line, set())
            line, answered = self._open[key]
            place = self._places[model]
            line["scores"][0, place] = np.ravel(record["scores"])[: place.stop - place.start]
            if model == self._first:
                line["state"] = record["state"]
            answered.add(model)
        return self._flush(whole=True)

    def close(self) -> None:
        self._flush(whole=False)

    def _flush(self, *, whole: bool) -> None:
        ready = []
        for key, (line, answered) in self._open.items():
            if whole and len(answered) < len(self._places):
                break
            ready.append((key, line))
        if ready:
            self._write(np.concatenate([line for _, line in ready]))
        for key, _ in ready:
            del self._open[key]


def _scores(rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The scores, one line an output, and where there is none: the engine leaves no number there."""
    scores = np.ascontiguousarray(rows["scores"].reshape(len(rows), -1).T)
    return scores, np.isnan(scores) | (rows["scored"] == 0)


class CsvWriter:
    """Columns as NumPy text, lines joined in one go: millions of cells a second."""

    def __init__(self, path: str | os.PathLike[str], layout: RowLayout) -> None:
        self.path = os.fspath(path)
        self.rows = 0
        self._layout = layout
        self._columns = [
            (column, [_quoted(text) for text in column.texts] if column.texts is not None else None)
            for column in _key_columns(layout)
        ]
        try:
            self._file = open(self.path, "wb", buffering=1 << 20)  # noqa: SIM115
        except OSError as error:
            raise Error(f"{self.path}: cannot be written: {error.strerror}") from None
        self._file.write(b",".join(map(_quoted, column_names(layout))) + b"\n")

    def write(self, rows: Rows) -> None:
        rows = rows[rows["row"] != 0]
        if not len(rows):
            return
        cells: list[list[bytes]] = []
        for column, texts in self._columns:
            values = rows[column.field]
            if texts is not None:
                cells.append([texts[code] for code in values.tolist()])
                continue
            text = values.astype("S20")
            if column.field == "ts_event":
                text[values == NO_TIME] = b""
            cells.append(text.tolist())
        # NumPy's text of a float32 is the shortest that reads back as the same float32.
        features = np.ascontiguousarray(rows["features"]).reshape(len(rows), -1)
        cells += np.ascontiguousarray(features.T).astype("S24").tolist()
        if self._layout.score_count:
            scores, missing = _scores(rows)
            numbers = scores.astype("S24")
            numbers[missing] = b""
            cells += numbers.tolist()
        lines = b"\n".join(map(b",".join, zip(*cells, strict=True)))
        try:
            self._file.write(lines + b"\n")
        except OSError as error:
            raise Error(f"{self.path}: cannot be written: {error.strerror}") from None
        self.rows += len(rows)

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise Error(f"{self.path}: cannot be written: {error.strerror}") from None


def _quoted(text: str) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([text])
    return line.getvalue().encode()


class ParquetWriter:
    """The same columns, typed; needs the `parquet` extra."""

    _GROUP = 1 << 16

    def __init__(self, path: str | os.PathLike[str], layout: RowLayout) -> None:
        try:
            self._arrow: Any = importlib.import_module("pyarrow")
            parquet: Any = importlib.import_module("pyarrow.parquet")
        except ImportError:
            raise MissingExtra(
                f"{os.fspath(path)}: writing Parquet needs pyarrow: pip install 'tickwire[parquet]'"
            ) from None
        arrow = self._arrow
        self.path = os.fspath(path)
        self.rows = 0
        self._layout = layout
        self._columns = _key_columns(layout)
        self._pending: list[Rows] = []
        self._waiting = 0
        names = column_names(layout)
        kinds = [getattr(arrow, column.kind)() for column in self._columns]
        kinds += [arrow.float32()] * (len(names) - len(kinds))
        self._schema = arrow.schema(list(zip(names, kinds, strict=True)))
        try:
            self._writer = parquet.ParquetWriter(os.fspath(path), self._schema)
        except OSError as error:
            raise Error(f"{os.fspath(path)}: cannot be written: {error.strerror or error}") from None

    def write(self, rows: Rows) -> None:
        rows = rows[rows["row"] != 0]  # A mask copies: the ring's slots are not ours to keep.
        if len(rows):
            self._pending.append(rows)
            self._waiting += len(rows)
        if self._waiting >= self._GROUP:
            self._flush()

    def close(self) -> None:
        try:
            self._flush()
        finally:
            with self._written():
                self._writer.close()

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise Error(f"{self.path}: cannot be written: {why}") from None

    def _flush(self) -> None:
        if not self._pending:
            return
        arrow = self._arrow
        rows: Rows = np.concatenate(self._pending)
        self._pending, self._waiting = [], 0
        columns: list[Any] = []
        for column in self._columns:
            values = np.ascontiguousarray(rows[column.field])
            if column.texts is not None:
                columns.append(arrow.array([column.texts[code] for code in values.tolist()], arrow.string()))
            elif column.field == "ts_event":
                columns.append(arrow.array(values, mask=values == NO_TIME))
            else:
                columns.append(arrow.array(values))
        columns += [arrow.array(column) for column in np.ascontiguousarray(rows["features"].T)]
        if self._layout.score_count:
            scores, missing = _scores(rows)
            columns += [arrow.array(column, mask=mask) for column, mask in zip(scores, missing, strict=True)]
        with self._written():
            self._writer.write_table(arrow.Table.from_arrays(columns, schema=self._schema))
        self.rows += len(rows)


def check_out(path: str | os.PathLike[str]) -> None:
    """Refuses an output whose form we do not know, before anything runs."""
    if Path(path).suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--out: expected a file that ends in .csv or .parquet, found {os.fspath(path)!r}")


def open_writer(
    path: str | os.PathLike[str], layout: RowLayout, *, into: str | os.PathLike[str] | None = None
) -> RowWriter:
    """A writer by the file's ending: `.csv` or `.parquet`. `into`: the file that is written instead."""
    check_out(path)
    make = ParquetWriter if Path(path).suffix == ".parquet" else CsvWriter
    return make(into if into is not None else path, layout)
