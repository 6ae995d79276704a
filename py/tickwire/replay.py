"""From captures to files: features, scores and stamps, one line a trigger.

    ts_event, ts_recv, instrument, epoch, row, sequence, state, one column a feature, one a model output

A feature's column is named by its expression. Floats are float32 and written in the fewest digits
that read back as the same float32. `ts_event` is empty where the venue gave no time, a score where
the model gave none.
"""

from __future__ import annotations

import asyncio
import csv
import importlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tickwire.config import Config
from tickwire.engine import Pipeline, Stats
from tickwire.errors import ConfigError, Error, MissingExtra
from tickwire.findings import findings
from tickwire.outputs import refuse_over
from tickwire.records import NO_TIME, RowLayout, Rows

__all__ = [
    "CsvWriter",
    "ParquetWriter",
    "RowWriter",
    "assign_inputs",
    "column_names",
    "open_writer",
    "replay",
    "summary",
]

KEY_COLUMNS = ("ts_event", "ts_recv", "instrument", "epoch", "row", "sequence", "state")


def column_names(layout: RowLayout) -> list[str]:
    """The columns of a replay's output. An output named like another column gets the model's prefix."""
    names = [*KEY_COLUMNS, *layout.features]
    for output in layout.outputs:
        names.append(output if output not in names else f"model.{output}")
    return names


class RowWriter(Protocol):
    """Writes batches of records; takes copies."""

    rows: int

    def write(self, rows: Rows) -> None: ...

    def close(self) -> None: ...


def _scores(rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The scores, one line an output, and where there is none: the engine leaves no number there."""
    scores = np.ascontiguousarray(rows["scores"].reshape(len(rows), -1).T)
    return scores, np.isnan(scores) | (rows["scored"] == 0)


class _Joiner:
    """Puts the records of several models on one row together: one line a trigger, the scores of all.

    Each model's records come in the order of its instrument's rows; a line leaves when all models have
    answered, in the order in which the first of them began.
    """

    def __init__(self, layout: RowLayout, write: Callable[[Rows], None]) -> None:
        self._write = write
        self._places: dict[int, slice] = {}
        self._first = layout.routed[0].id
        width = 0
        for model in layout.routed:
            self._places[model.id] = slice(width, width + len(model.outputs))
            width += len(model.outputs)
        fields: Mapping[str, Any] = layout.dtype.fields or {}
        self._dtype = np.dtype(
            [(name, "<f4", (width,)) if name == "scores" else (name, fields[name][0]) for name in fields]
        )
        self._open: dict[tuple[int, int, int], tuple[Rows, set[int]]] = {}

    def write(self, rows: Rows) -> None:
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
        self._flush(whole=True)

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


class CsvWriter:
    """Columns as NumPy text, lines joined in one go: millions of cells a second."""

    def __init__(self, path: str | os.PathLike[str], layout: RowLayout) -> None:
        self.path = os.fspath(path)
        self.rows = 0
        self._layout = layout
        self._symbols = [_quoted(symbol) for symbol, _venue in layout.instruments]
        self._states = [_quoted(state) for state in layout.states]
        try:
            self._file = open(self.path, "wb", buffering=1 << 20)  # noqa: SIM115
        except OSError as error:
            raise Error(f"{self.path}: cannot be written: {error.strerror}") from None
        self._file.write(b",".join(map(_quoted, column_names(layout))) + b"\n")

    def write(self, rows: Rows) -> None:
        rows = rows[rows["row"] != 0]
        if not len(rows):
            return
        event = rows["ts_event"].astype("S20")
        event[rows["ts_event"] == NO_TIME] = b""
        columns: list[list[bytes]] = [
            event.tolist(),
            rows["ts_recv"].astype("S20").tolist(),
            [self._symbols[i] for i in rows["instrument"].tolist()],
            *(rows[name].astype("S20").tolist() for name in ("epoch", "row", "sequence")),
            [self._states[i] for i in rows["state"].tolist()],
        ]
        # NumPy's text of a float32 is the shortest that reads back as the same float32.
        features = np.ascontiguousarray(rows["features"]).reshape(len(rows), -1)
        columns += np.ascontiguousarray(features.T).astype("S24").tolist()
        if self._layout.score_count:
            scores, missing = _scores(rows)
            cells = scores.astype("S24")
            cells[missing] = b""
            columns += cells.tolist()
        text = b"\n".join(map(b",".join, zip(*columns, strict=True)))
        try:
            self._file.write(text + b"\n")
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
        self.rows = 0
        self._layout = layout
        self._pending: list[Rows] = []
        self._waiting = 0
        kinds = [arrow.int64(), arrow.int64(), arrow.string(), arrow.uint32(), arrow.uint64(), arrow.uint64()]
        kinds += [arrow.string()] + [arrow.float32()] * (len(layout.features) + len(layout.outputs))
        self._schema = arrow.schema(list(zip(column_names(layout), kinds, strict=True)))
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
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if not self._pending:
            return
        arrow, layout = self._arrow, self._layout
        rows: Rows = np.concatenate(self._pending)
        self._pending, self._waiting = [], 0
        event = np.ascontiguousarray(rows["ts_event"])
        columns: list[Any] = [
            arrow.array(event, mask=event == NO_TIME),
            arrow.array(np.ascontiguousarray(rows["ts_recv"])),
            arrow.array([layout.instrument(i)[0] for i in rows["instrument"].tolist()], arrow.string()),
            *(arrow.array(np.ascontiguousarray(rows[name])) for name in ("epoch", "row", "sequence")),
            arrow.array([layout.state(i) for i in rows["state"].tolist()], arrow.string()),
        ]
        columns += [arrow.array(column) for column in np.ascontiguousarray(rows["features"].T)]
        if layout.score_count:
            scores, missing = _scores(rows)
            columns += [arrow.array(column, mask=mask) for column, mask in zip(scores, missing, strict=True)]
        self._writer.write_table(arrow.Table.from_arrays(columns, schema=self._schema))
        self.rows += len(rows)


def check_out(path: str | os.PathLike[str]) -> None:
    """Refuses an output whose form we do not know, before anything runs."""
    if Path(path).suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--out: expected a file that ends in .csv or .parquet, found {os.fspath(path)!r}")


def open_writer(path: str | os.PathLike[str], layout: RowLayout) -> RowWriter:
    """A writer by the file's ending: `.csv` or `.parquet`."""
    check_out(path)
    return ParquetWriter(path, layout) if Path(path).suffix == ".parquet" else CsvWriter(path, layout)


def assign_inputs(config: Config, items: Sequence[str]) -> dict[str, list[str]]:
    """`FILE` or `feed=FILE` to files by feed. Several files of one feed are read one after another."""
    names = config.feed_names
    assigned: dict[str, list[str]] = {}
    for item in items:
        name, equals, path = item.partition("=")
        if not equals or name not in names:
            if len(names) > 1:
                raise ConfigError(
                    f"--input: expected feed=FILE with a feed of {', '.join(names)}, found {item!r}"
                )
            name, path = names[0], item
        if not os.path.isfile(path):
            raise ConfigError(f"--input: {path}: no such file")
        assigned.setdefault(name, []).append(path)
    missing = [name for name in names if name not in assigned]
    if missing:
        raise ConfigError(f"--input: expected a file for each feed, found none for {', '.join(missing)}")
    return assigned


async def replay(
    config: Config,
    inputs: Mapping[str, Sequence[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    progress: Callable[[Stats], None] | None = None,
) -> Stats:
    """Replays captures to their end and writes the rows, where `out` says so.

    `progress` is called a few times a second.
    """
    if out is not None:
        check_out(out)
        captures = [("an input", file) for files in inputs.values() for file in files]
        refuse_over("--out", out, [*captures, *config.input_files()])
    async with Pipeline.replay(config, inputs) as pipeline:
        writer = open_writer(out, pipeline.layout) if out is not None else None
        joiner: _Joiner | None = None
        try:
            if writer is not None:
                if len(pipeline.layout.routed) > 1:
                    joiner = _Joiner(pipeline.layout, writer.write)
                pipeline.on_rows(joiner.write if joiner is not None else writer.write)
            watcher = asyncio.create_task(_watch(pipeline, progress)) if progress is not None else None
            try:
                await pipeline.run_until()
            finally:
                if watcher is not None:
                    watcher.cancel()
        finally:
            if joiner is not None:
                joiner.close()
            if writer is not None:
                writer.close()
    pipeline.raise_if_failed()
    return pipeline.stats()


async def _watch(pipeline: Pipeline, progress: Callable[[Stats], None]) -> None:
    while True:
        progress(pipeline.stats())
        await asyncio.sleep(0.2)


def summary(stats: Stats, config: Config) -> list[str]:
    """What a replay did, in a line, and below it whatever was not as it should be."""
    rate = f", {stats.count('messages') / stats.seconds:,.0f} messages a second" if stats.seconds > 0 else ""
    skipped = stats.count("capture_lines_skipped")
    return [
        f"{stats.count('messages'):,} messages, {stats.rows:,} rows, {stats.gaps:,} gaps, "
        f"{stats.invalid:,} invalid, {skipped:,} malformed lines in {stats.seconds:.2f} s{rate}",
        *findings(stats, config),
    ]
