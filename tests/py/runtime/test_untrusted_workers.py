"""A worker that writes where it should not, into the memory that it shares with the engine: whatever stands
there, no row has two signals and none has one that was not asked for, the worker is ended, and named."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mmap
import os
import random
import signal
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from collecting import Collector, keys
from modelled import configuration, make_model, market
from needs import compiled
from waiting import until

from tickwire.pipeline import Pipeline

pytestmark = compiled
INDEX_DISTANCE = 128
HOUR = 3600 * 10**9
INSTRUMENT, EPOCH, ROW, OUT, STATE, MODEL, STAGES = 0, 4, 8, 40, 48, 52, 56  # Offsets in a record.
DECODE, FEATURES, QUEUE, PUBLISH = (STAGES + 8 * stage for stage in (1, 3, 4, 6))


def shared(worker: int) -> mmap.mmap:
    """The memory between the engine, which is this process, and its worker, as the worker has it."""
    lines = Path(f"/proc/{worker}/maps").read_text().splitlines()
    (inode,) = {int(line.split()[4]) for line in lines if "memfd:tickwire-infer0" in line}
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            if os.stat(f"/proc/self/fd/{descriptor}").st_ino == inode:
                with open(f"/proc/self/fd/{descriptor}", "r+b") as file:
                    return mmap.mmap(file.fileno(), 0)
    raise AssertionError("there is none")


class Records:
    """The ring of records in it. While the worker stands still its two indices are equal, and only its."""

    def __init__(self, memory: mmap.mmap, item: int, *, slots: int) -> None:
        self.memory, self.slots = memory, slots
        self.stride = -(-item // 64) * 64
        for at in range(0, len(memory) - 2 * INDEX_DISTANCE, INDEX_DISTANCE):
            tail, head = (self.number(at), self.number(at + INDEX_DISTANCE))
            if tail == head > 50:
                self.place = at
                return
        raise AssertionError("not found")

    def number(self, at: int) -> int:
        return int(struct.unpack_from("<Q", self.memory, at)[0])

    @property
    def tail(self) -> int:
        return self.number(self.place)

    def slot(self, index: int) -> int:
        return self.place + 2 * INDEX_DISTANCE + (index % self.slots) * self.stride

    def forge(self, change: Callable[[bytearray], None]) -> None:
        """One record more: the newest again, but for what is changed."""
        tail = self.tail
        record = bytearray(self.memory[self.slot(tail - 1) : self.slot(tail - 1) + self.stride])
        change(record)
        self.memory[self.slot(tail) : self.slot(tail) + self.stride] = bytes(record)
        self.move(1)

    def move(self, by: int) -> None:
        struct.pack_into("<Q", self.memory, self.place, (self.tail + by) % (1 << 64))


def put(offset: int, kind: str, value: int) -> Callable[[Records], None]:
    return lambda ring: ring.forge(lambda record: struct.pack_into(kind, record, offset, value))


def add(*changes: tuple[int, int]) -> Callable[[Records], None]:
    """Nanoseconds to times of the newest record."""

    def change(record: bytearray) -> None:
        for offset, ns in changes:
            struct.pack_into("<q", record, offset, struct.unpack_from("<q", record, offset)[0] + ns)

    return lambda ring: ring.forge(change)


FORGED: dict[str, tuple[Callable[[Records], None], str]] = {
    "the newest again": (lambda ring: ring.forge(lambda record: None), "not given, or gave before"),
    "a row that was not sent": (put(ROW, "<Q", 1 << 40), "not given, or gave before"),
    "another epoch": (put(EPOCH, "<I", 77), "not given, or gave before"),
    "an instrument that there is not": (put(INSTRUMENT, "<I", 4711), "of an instrument that there is not"),
    "a state that there is not": (put(STATE, "<B", 99), "of a state that there is not"),
    "another model": (put(MODEL, "<I", 12345), "of another model"),
    "a stage before the one before it": (add((QUEUE, -HOUR), (PUBLISH, HOUR)), "with a time that cannot be"),
    "a stage longer than the engine runs": (add((QUEUE, HOUR), (OUT, HOUR)), "with a time that cannot be"),
    "times that do not add up": (add((OUT, -1)), "whose times do not add up"),
    "a stage of the engine's": (add((DECODE, 5), (FEATURES, -5)), "not given, or gave before"),
    "an index far ahead": (lambda ring: ring.move(1 << 40), "the places of its ring of records"),
}


def checked(collector: Collector) -> None:
    """Each row once, and with a score only as a row that was sent."""
    rows = collector.rows
    valid = rows[rows["state"] == 0]
    assert set(keys(rows).values()) == {1}
    for instrument in set(rows["instrument"]):
        own = valid[valid["instrument"] == instrument]
        assert (own["row"][1:] > own["row"][:-1]).all()
    assert set(rows["instrument"]) <= {0, 1}


@pytest.mark.parametrize("after", [signal.SIGCONT, signal.SIGKILL], ids=["goes on", "dies"])
@pytest.mark.parametrize("kind", FORGED)
async def test_a_worker_whose_records_cannot_be_is_ended_and_named(
    tmp_path: Path, kind: str, after: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    forge, said = FORGED[kind]
    async with market() as venue:
        make_model(tmp_path / "m.onnx", configuration(venue, tmp_path), 1)
        config = configuration(venue, tmp_path, layout="processes", model={"path": "m.onnx"})
        with caplog.at_level(logging.ERROR, "tickwire"):
            async with Pipeline(config) as pipeline:
                places = pipeline.layout.dtype.fields
                assert places is not None
                names = {
                    "instrument": INSTRUMENT,
                    "epoch": EPOCH,
                    "row": ROW,
                    "ts_out": OUT,
                    "state": STATE,
                    "model_id": MODEL,
                    "stage_ns": STAGES,
                }
                assert {name: places[name][1] for name in names} == names
                collector = Collector(pipeline)
                await until(lambda: pipeline.stats().count("scored") > 100)
                (worker,) = pipeline.workers.values()
                os.kill(worker, signal.SIGSTOP)
                await asyncio.sleep(0.1)  # For the router to take what is there.
                forge(Records(shared(worker), pipeline.layout.dtype.itemsize, slots=8192))
                os.kill(worker, after)

                def counters() -> Mapping[str, int]:
                    return pipeline.stats().counters

                await until(lambda: counters()["infer0/worker_stopped"] == 1)
                # Where it died, its numbers may have told before.
                assert counters()["infer0/untrusted_records"] in ({1} if after is signal.SIGCONT else {0, 1})
                assert not os.path.exists(f"/proc/{worker}")  # noqa: ASYNC240
                before = len(collector.rows)
                # What was scored before may still be on its way.
                await until(
                    lambda: len(collector.rows) > before + 50 and set(collector.rows[-30:]["state"]) == {6},
                    "rows go on, and say that they have no score",
                )
    checked(collector)
    assert "worker infer0: given up" in caplog.text
    if after is signal.SIGCONT:  # Of one that died, the numbers may not add up before a record is looked at.
        assert said in caplog.text
        assert any(said in entry.text for entry in pipeline.stats().errors)


async def test_what_is_written_at_random_gives_no_row_a_second_signal(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rand = random.Random(seed)
    async with market(rate=2000) as venue:
        make_model(tmp_path / "m.onnx", configuration(venue, tmp_path), 1)
        config = configuration(venue, tmp_path, layout="processes", model={"path": "m.onnx"})
        async with Pipeline(config) as pipeline:
            collector = Collector(pipeline)
            await until(lambda: pipeline.stats().count("scored") > 100)
            (worker,) = pipeline.workers.values()
            memory = shared(worker)

            def scribble() -> None:
                for _ in range(3000):
                    at = rand.randrange(4096, len(memory) - 8) & ~7
                    memory[at : at + 8] = rand.randbytes(8)

            await until(lambda: pipeline.stats().counters["infer0/worker_stopped"] > 0, look=scribble)
            before = pipeline.stats().counters["ingest0/rows"]
            await until(lambda: pipeline.stats().counters["ingest0/rows"] > before + 100)
    checked(collector)
