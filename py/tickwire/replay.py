"""From captures to files: features, scores and stamps, one line a trigger, as `tickwire.table` has it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence

from tickwire.config import Config
from tickwire.errors import ConfigError, Error
from tickwire.findings import findings
from tickwire.inputs import stamp_lines
from tickwire.outputs import PendingFile, refuse_over
from tickwire.pipeline import Pipeline
from tickwire.stats import Stats
from tickwire.table import CsvWriter, Joiner, ParquetWriter, RowWriter, check_out, column_names, open_writer
from tickwire.wording import not_a_file, numbered

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
            raise ConfigError(f"--input: {path}: {not_a_file(path)}")
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
    begin: Callable[[Pipeline], None] | None = None,
) -> Stats:
    """Replays captures to their end and writes the rows, where `out` says so.

    The file gets its name once it is whole. `progress` is called a few times a second, `begin` once, when the
    pipeline runs; where its `request_stop` ends the replay early, `whole` of the result is false and there
    is no file.
    """
    if out is None:
        return await _replay(config, inputs, None, progress, begin)
    check_out(out)
    captures = [("an input", file) for files in inputs.values() for file in files]
    refuse_over("--out", out, [*captures, *config.input_files()])
    pending = PendingFile(out)
    try:
        stats = await _replay(config, inputs, pending, progress, begin)
        if stats.whole:
            pending.commit()
    except Error as error:
        raise pending.renamed(error) from None
    finally:
        pending.discard()
    return stats


async def _replay(
    config: Config,
    inputs: Mapping[str, Sequence[str]],
    out: PendingFile | None,
    progress: Callable[[Stats], None] | None,
    begin: Callable[[Pipeline], None] | None,
) -> Stats:
    async with Pipeline.replay(config, inputs) as pipeline:
        if begin is not None:
            begin(pipeline)
        writer: RowWriter | None = None
        if out is not None:
            writer = open_writer(out.path, pipeline.layout, into=out.partial)
        joiner: Joiner | None = None
        writing = True
        try:
            if writer is not None:
                joiner = Joiner(pipeline.layout, writer.write)
                write = joiner.write
                # Of a replay that is ended early the router still drains the ring.
                pipeline.on_rows(lambda rows: write(rows) if writing else None, shadows=True)
            watcher = asyncio.create_task(_watch(pipeline, progress)) if progress is not None else None
            try:
                await pipeline.run_until()
            finally:
                if watcher is not None:
                    watcher.cancel()
        finally:
            writing = False
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
        ", ".join(
            [
                numbered(stats.count("messages"), "message[s]"),
                numbered(stats.rows, "row[s]"),
                numbered(stats.gaps, "gap[s]"),
                f"{stats.invalid:,} invalid",
                numbered(skipped, "malformed line[s]"),
            ]
        )
        + f" in {stats.seconds:.2f} s{rate}",
        *stamp_lines(stats),
        *findings(stats, config),
    ]
