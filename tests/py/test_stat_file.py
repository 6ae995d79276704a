"""The stat file's reader, against files built from the documented layout and one that C++ wrote."""

from __future__ import annotations

import math
import os
import random
import struct
from pathlib import Path

import numpy as np
import psutil
import pytest
from needs import ROOT

from tickwire.errors import Error
from tickwire.stat_file import (
    BUCKET_COUNT,
    Histogram,
    StatFile,
    StatFileError,
    bucket_highs,
    bucket_lows,
    default_directory,
    find_stat_files,
)

GOLDEN = {version: ROOT / "tests" / "data" / f"stat_file_v{version}.stat" for version in (1, 2)}
END = 1 << 37


def bucket_of(ns: int) -> int:
    """The bucket of a value, by the rule in words: the top seven bits, in the row of its power of two."""
    shift = max(ns.bit_length() - 7, 0)
    return shift * 64 + (ns >> shift)


def histogram_of(values: list[int]) -> Histogram:
    counts = np.zeros(BUCKET_COUNT, np.uint64)
    for ns in values:
        counts[bucket_of(ns)] += np.uint64(1)
    return Histogram(counts, sum=sum(values), max=max(values, default=0))


class Layout:
    """Builds a stat file byte by byte from the page in cpp/tickwire/metrics/stat_file.hpp."""

    def __init__(self, pid: int = 0, pid_start: int = 0, start_ts: int = 0, version: int = 2) -> None:
        self.head = bytearray(512)
        struct.pack_into("<8sII", self.head, 0, b"TICKWIRE", version, 512)
        struct.pack_into("<iIQq", self.head, 24, pid, 0, pid_start, start_ts)
        struct.pack_into("<III", self.head, 112, 2048, 6, 64)
        self.sections: list[tuple[int, list[bytes]]] = [(256, []), (16640, []), (33024, [])]

    @staticmethod
    def record(scope: str, name: str, payload: bytes, stride: int) -> bytes:
        body = scope.encode().ljust(64, b"\0") + name.encode().ljust(64, b"\0") + payload
        return body.ljust(stride, b"\0")

    def counter(self, scope: str, name: str, value: int) -> None:
        self.sections[0][1].append(self.record(scope, name, struct.pack("<q", value), 256))

    def histogram(
        self, scope: str, stage: str, values: list[int], underflow: int = 0, overflow: int = 0
    ) -> None:
        h = histogram_of(values)
        head = struct.pack("<QQQq", underflow, overflow, h.sum, h.max).ljust(128, b"\0")
        payload = head + h.counts.astype("<u8").tobytes()
        self.sections[1][1].append(self.record(scope, stage, payload, 16640))

    def errors(self, scope: str, entries: dict[int, tuple[int, int, int, str]], lost: int = 0) -> None:
        payload = bytearray(33024 - 128)
        struct.pack_into("<Q", payload, 0, lost)
        for kind, (count, first, last, text) in entries.items():
            raw = text.encode()
            struct.pack_into(
                f"<QqqII{len(raw)}s", payload, 128 + kind * 512, count, first, last, len(raw), 0, raw
            )
        self.sections[2][1].append(self.record(scope, "", bytes(payload), 33024))

    def build(self, heartbeat: int = 0, end: int = 0, spare: int = 1) -> bytearray:
        """`spare`: records that each section has room for and does not use."""
        body = bytearray()
        for i, (stride, records) in enumerate(self.sections):
            struct.pack_into("<QII", self.head, 64 + 16 * i, 512 + len(body), stride, len(records))
            body += b"".join(records) + bytes(stride * spare)
        struct.pack_into("<Q", self.head, 16, 512 + len(body))
        struct.pack_into("<qq", self.head, 256, heartbeat, end)
        return self.head + body


def refusal(path: Path) -> str:
    with pytest.raises(StatFileError) as error:
        StatFile.open(path)
    assert isinstance(error.value, Error)
    assert str(path) in str(error.value)
    return str(error.value)


def own_start() -> int:
    return int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])


def test_buckets_cover_every_nanosecond_once_and_are_narrow() -> None:
    lows, highs = bucket_lows(), bucket_highs()
    assert lows[0] == 0
    assert highs[-1] == END - 1
    assert (lows[1:] == highs[:-1] + 1).all()
    assert (highs - lows <= lows // 64).all()
    for bucket in range(BUCKET_COUNT):
        assert bucket_of(int(lows[bucket])) == bucket_of(int(highs[bucket])) == bucket


def test_percentiles_stay_within_the_promised_error() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    values = sorted(min(int(rng.lognormvariate(8, 2)), END - 1) for _ in range(20_000))
    histogram = histogram_of(values)
    for q in (0.01, 1, 25, 50, 90, 99, 99.9, 99.99, 100):
        exact = values[max(math.ceil(q / 100 * len(values) - 1e-6), 1) - 1]
        assert exact <= histogram.percentile(q) <= exact * 1.016, q
    assert histogram.p50 == histogram.percentile(50)
    assert histogram.p90 == histogram.percentile(90)
    assert histogram.p99 == histogram.percentile(99)
    assert histogram.p999 == histogram.percentile(99.9)
    assert histogram.percentile(100) == histogram.max == values[-1]
    assert histogram.min <= values[0] <= histogram.min * 1.016 + 1
    assert histogram.mean == pytest.approx(sum(values) / len(values))


def test_an_empty_histogram_has_no_figures() -> None:
    empty = histogram_of([])
    assert (empty.count, empty.p50, empty.p999, empty.min, empty.max, empty.mean) == (0, 0, 0, 0, 0, 0.0)


def test_overflow_is_above_all_buckets_and_underflow_in_none() -> None:
    histogram = Histogram(histogram_of([1000] * 8).counts, underflow=5, overflow=2, max=END + 9)
    assert histogram.count == 10
    assert histogram.percentile(80) == int(bucket_highs()[bucket_of(1000)])
    assert histogram.percentile(81) == END + 9


def test_a_difference_is_the_interval_alone() -> None:
    before = [5, 60_000_000]
    interval = [10, 9_000, 9_000]
    difference = histogram_of(before + interval) - histogram_of(before)
    assert difference.count == 3
    assert difference.sum == sum(interval)
    assert 9_000 <= difference.max <= 9_000 * 1.016  # No new maximum: that of the highest bucket.
    assert (histogram_of([*before, 70_000_001]) - histogram_of(before)).max == 70_000_001
    nothing = histogram_of(before) - histogram_of(before)
    assert (nothing.count, nothing.max, nothing.p99) == (0, 0, 0)


def test_a_sum_holds_both() -> None:
    both = histogram_of([1, 2, 300]) + histogram_of([4, 5_000])
    assert (both.count, both.sum, both.max, both.min) == (5, 5307, 5000, 1)


def test_reads_what_the_layout_says(tmp_path: Path) -> None:
    layout = Layout(pid=os.getpid(), pid_start=own_start(), start_ts=111)
    layout.counter("spot", "events", 12)
    layout.counter("s" * 63, "n" * 63, -(2**62))
    layout.histogram("spot", "decode", [100, 200, 300], underflow=1)
    layout.errors("ingest-0", {0: (3, 10, 30, "gap"), 63: (1, 20, 20, "é" * 112)}, lost=4)
    layout.errors("inference-0", {})
    path = tmp_path / "engine.stat"
    path.write_bytes(layout.build(heartbeat=222, end=333))
    with StatFile.open(path) as stats:
        header = stats.header
        assert (header.version, header.pid, header.start_ts) == (2, os.getpid(), 111)
        assert (header.heartbeat_ts, header.end_ts) == (222, 333)
        assert stats.alive
        assert not stats.replaced
        assert stats.counters() == {"spot/events": 12, f"{'s' * 63}/{'n' * 63}": -(2**62)}
        (label, histogram), *rest = stats.histograms().items()
        assert not rest
        assert label == "spot/decode"
        assert (histogram.count, histogram.underflow, histogram.sum, histogram.max) == (3, 1, 600, 300)
        assert histogram.p50 == int(bucket_highs()[bucket_of(200)])
        first, second = stats.errors()
        assert (first.scope, first.kind, first.text) == ("ingest-0", 0, "gap")
        assert (first.first_ts, first.last_ts, first.count) == (10, 30, 3)
        assert (second.kind, second.text) == (63, "é" * 112)


def test_sees_later_values_in_the_same_mapping_and_outlives_a_replacement(tmp_path: Path) -> None:
    layout = Layout()
    layout.counter("a", "b", 1)
    path = tmp_path / "engine.stat"
    path.write_bytes(layout.build())
    with StatFile.open(path) as stats:
        assert stats.counters() == {"a/b": 1}
        with path.open("r+b") as file:
            file.seek(512 + 128)
            file.write(struct.pack("<q", 2))
        assert stats.counters() == {"a/b": 2}
        other = tmp_path / "other"
        other.write_bytes(Layout().build())
        other.rename(path)
        assert stats.replaced
        assert stats.counters() == {"a/b": 2}
        path.unlink()
        assert stats.replaced


@pytest.mark.parametrize("left", [0, 100, 600, 4096, 20_000])
def test_a_file_that_is_cut_short_is_said_to_be_so_and_ends_nobody(left: int, tmp_path: Path) -> None:
    layout = Layout()
    layout.counter("a", "b", 1)
    layout.histogram("a", "h", [1])
    layout.errors("e", {0: (1, 1, 1, "x")})
    path = tmp_path / "engine.stat"
    path.write_bytes(layout.build(spare=0))
    with StatFile.open(path) as stats:
        assert len(stats.counters()) == len(stats.histograms()) == len(stats.errors()) == 1
        os.truncate(path, left)
        looks = {512 + 256: stats.counters, 512 + 256 + 16640: stats.histograms, 1 << 20: stats.errors}
        for end, look in looks.items():
            if left >= end:
                look()
                continue
            with pytest.raises(StatFileError, match=r"expected the 50,432 bytes that it had, found fewer"):
                look()
        if left < 512:
            with pytest.raises(StatFileError, match="cut it short"):
                _ = stats.alive


def test_a_pipe_is_no_stat_file_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "engine.stat")
    assert "no regular file" in refusal(tmp_path / "engine.stat")


def test_a_reused_pid_is_not_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "engine.stat"
    for pid, start in ((os.getpid(), own_start() - 1), (2**22 + 1, own_start())):
        path.write_bytes(Layout(pid=pid, pid_start=start).build())
        with StatFile.open(path) as stats:
            assert not stats.alive


def test_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "engine.stat"
    assert "No such file" in refusal(path)
    path.write_bytes(b"short")
    assert "5 bytes" in refusal(path)
    path.write_bytes(bytes(4096))
    assert "another file" in refusal(path)
    path.write_bytes(Layout(version=0).build())
    assert "still being made" in refusal(path)
    path.write_bytes(Layout(version=3).build())
    assert "expected version 2, found version 3" in refusal(path)
    path.write_bytes(Layout().build()[:-1])
    assert "damaged" in refusal(path)


def test_survives_a_damaged_file(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    # Behind the process's name in brackets: field 22.
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    layout = Layout(pid=os.getpid(), pid_start=started)
    layout.counter("a", "b", 1)
    layout.histogram("a", "h", [1])
    layout.errors("e", {0: (1, 1, 1, "x")})
    good = layout.build()
    path = tmp_path / "engine.stat"
    opened = alive = dead = 0
    for i in range(300):
        damaged = bytearray(good)
        if i < 3:
            damaged[26] ^= 0x40  # Of the process's number: one that there is not.
        for _ in range(2 if i % 2 else 0):
            damaged[rng.randrange(512)] = rng.randrange(256)
        errors_at = len(good) - 2 * 33024
        struct.pack_into("<I", damaged, errors_at + 256 + 24, rng.randrange(2**32))
        damaged[512:640] = bytes([rng.randrange(1, 256)]) * 128
        path.write_bytes(damaged)
        try:
            with StatFile.open(path) as stats:
                opened += 1
                stats.counters()
                stats.histograms()
                assert all(len(entry.text) <= 224 for entry in stats.errors())
                header = stats.header
                if header.pid == os.getpid():
                    assert stats.alive == (header.pid_start == started)
                    alive += stats.alive
                elif not psutil.pid_exists(header.pid):
                    assert not stats.alive
                    dead += 1
        except StatFileError:
            continue
    assert opened > 100
    assert alive
    assert dead


@pytest.mark.parametrize("version", GOLDEN)
def test_reads_the_file_that_the_engine_wrote(version: int) -> None:
    # tests/cpp/metrics/stat_file_test.cpp writes the same bytes and checks the same values.
    with StatFile.open(GOLDEN[version]) as stats:
        assert stats.counters() == {
            "binance_spot/events": 93_958,
            "binance_spot:BTCUSDT/book_depth": -3,
            "engine/untouched": 0,
        }
        histograms = stats.histograms()
        assert list(histograms) == ["binance_spot/decode", "inference-0/model"]
        decode = histograms["binance_spot/decode"]
        expected = histogram_of([ns * ns for ns in range(1, 1001)])
        assert (decode.counts == expected.counts).all()
        assert (decode.sum, decode.max, decode.underflow, decode.overflow) == (333_833_500, 1_000_000, 0, 0)
        model = histograms["inference-0/model"]
        assert (model.count, model.underflow, model.overflow, model.max) == (2, 1, 1, END + 5)
        gap, euro = stats.errors()
        assert (gap.scope, gap.kind, gap.text, gap.count) == ("ingest-0", 2, "gap: expected 17, found 19", 2)
        assert (gap.first_ts, gap.last_ts) == (1_700_000_000_000_000_001, 1_700_000_000_000_000_009)
        assert gap.newest == {1: gap.text, 2: "gap: expected 30, found 40"}[version]
        assert (euro.kind, euro.text, euro.newest) == (31, "préfixe €", "préfixe €")
        assert stats.header.heartbeat_ts == 1_700_000_000_500_000_000
        assert stats.header.end_ts == 1_700_000_001_000_000_000
        assert not stats.alive


def test_finds_the_newest_engine_first(tmp_path: Path) -> None:
    for name, start in (("old", 1), ("new", 3), ("middle", 2)):
        (tmp_path / name).write_bytes(Layout(start_ts=start).build())
    (tmp_path / "unfinished").write_bytes(Layout(version=0).build())
    assert [path.name for path in find_stat_files(tmp_path)] == ["new", "middle", "old"]
    assert find_stat_files(tmp_path / "nowhere") == []


def test_the_default_directory_is_this_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_directory() == tmp_path / "tickwire"
    for unusable in ("/nonexistent", "relative", ""):
        monkeypatch.setenv("XDG_RUNTIME_DIR", unusable)
        assert default_directory() == Path(f"/dev/shm/tickwire-{os.geteuid()}")
