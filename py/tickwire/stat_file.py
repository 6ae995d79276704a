"""Reads an engine's stat file: counters, stage histograms, errors and the heartbeat.

The engine maps one file and writes into it; this module reads the same file, so looking
costs the engine nothing and needs none of its cooperation: it works on a running engine, on one
that died and on one whose file was replaced meanwhile (`replaced` says so). It maps nothing, because
a file that somebody cuts short would end who has it mapped; here it is an error. The layout is written
down in cpp/tickwire/metrics/stat_file.hpp.

    with StatFile.open(path) as stats:
        before = stats.histograms()
        time.sleep(1.0)
        for label, now in stats.histograms().items():
            print(label, (now - before[label]).p99)
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tickwire.errors import Error

__all__ = [
    "BUCKET_COUNT",
    "ErrorEntry",
    "Histogram",
    "StatFile",
    "StatFileError",
    "StatHeader",
    "bucket_highs",
    "bucket_lows",
    "default_directories",
    "default_directory",
    "find_stat_files",
]

MAGIC = b"TICKWIRE"
VERSION = 2
HEADER_BYTES = 512
LABEL_BYTES = 64
COUNTER_STRIDE = 256
SUB_BITS = 6
BUCKET_COUNT = 2048
#: The first duration that no bucket holds, in nanoseconds.
BUCKETS_END_NS = 1 << 37
HISTOGRAM_STRIDE = 256 + 8 * BUCKET_COUNT
ERROR_TEXT_BYTES = 224
# By version: kinds of errors in a log, and the bytes of one. The first version has no text of the last error.
_ERROR_SHAPES = {1: (32, 256), VERSION: (64, 512)}


_HEADER = struct.Struct("<8sIIQiIQq")
_SECTION = struct.Struct("<QII")
_ERROR_HEAD = struct.Struct("<QqqI")
_NEWEST_HEAD = struct.Struct("<QQ")


#: As in cpp/tickwire/metrics/stat_file.hpp: places in /dev/shm that are tried, one after another.
_DIRECTORIES = 10


class StatFileError(Error):
    """A stat file is missing, unfinished, damaged or of another version."""


def bucket_lows() -> NDArray[np.int64]:
    """The lowest nanosecond value of each bucket.

    Each value up to 127 has its own bucket; from there every power of two has 64 equal ones.
    """
    index = np.arange(BUCKET_COUNT, dtype=np.int64)
    shift = np.maximum((index >> SUB_BITS) - 1, 0)
    lows: NDArray[np.int64] = (index - (shift << SUB_BITS)) << shift
    return lows


def bucket_highs() -> NDArray[np.int64]:
    """The highest nanosecond value of each bucket."""
    return np.append(bucket_lows()[1:], BUCKETS_END_NS) - 1


_LOWS = bucket_lows()
_HIGHS = bucket_highs()


@dataclass(frozen=True, eq=False)
class Histogram:
    """Durations of one stage in nanoseconds: all since the start, or after a subtraction an interval.

    A percentile is the highest value of its bucket: at least the exact one and at most 1.6 % above it.
    """

    counts: NDArray[np.uint64]
    """Values for each bucket; bucket_lows() and bucket_highs() give their bounds."""
    underflow: int = 0
    """Negative durations, where a clock went wrong. In no percentile."""
    overflow: int = 0
    """Values of 137 seconds and more. In the percentiles, above all buckets."""
    sum: int = 0
    max: int = 0

    @property
    def count(self) -> int:
        return int(self.counts.sum()) + self.overflow

    @property
    def min(self) -> int:
        """The lowest value of the first bucket in use; 0 when empty."""
        used = np.flatnonzero(self.counts)
        if used.size:
            return int(_LOWS[used[0]])
        return BUCKETS_END_NS if self.overflow else 0

    @property
    def mean(self) -> float:
        count = self.count
        return self.sum / count if count else 0.0

    @property
    def p50(self) -> int:
        return self.percentile(50.0)

    @property
    def p90(self) -> int:
        return self.percentile(90.0)

    @property
    def p99(self) -> int:
        return self.percentile(99.0)

    @property
    def p999(self) -> int:
        return self.percentile(99.9)

    def percentile(self, q: float) -> int:
        """Nanoseconds that q percent of the values do not exceed; 0 when empty."""
        count = self.count
        if count == 0:
            return 0
        # The factor takes back what rounding added: 99.9 % of 1000 values is the 999th.
        rank = min(max(math.ceil(q / 100.0 * count * (1.0 - 1e-12)), 1), count)
        bucket = int(np.searchsorted(np.cumsum(self.counts), rank))
        if bucket == BUCKET_COUNT:
            return self.max
        return min(int(_HIGHS[bucket]), self.max)

    def __sub__(self, earlier: Histogram) -> Histogram:
        """The interval between two readings of one histogram.

        Its max is exact where the interval set a new one, else that of its highest bucket.
        """
        counts = self.counts - earlier.counts
        overflow = self.overflow - earlier.overflow
        used = np.flatnonzero(counts)
        if self.max > earlier.max or overflow:
            highest = self.max
        elif used.size:
            highest = min(int(_HIGHS[used[-1]]), self.max)
        else:
            highest = 0
        return Histogram(
            counts=counts,
            underflow=self.underflow - earlier.underflow,
            overflow=overflow,
            sum=self.sum - earlier.sum,
            max=highest,
        )

    def __add__(self, other: Histogram) -> Histogram:
        """Both together: the same stage of two feeds, or of two runs."""
        return Histogram(
            counts=self.counts + other.counts,
            underflow=self.underflow + other.underflow,
            overflow=self.overflow + other.overflow,
            sum=self.sum + other.sum,
            max=max(self.max, other.max),
        )


@dataclass(frozen=True)
class ErrorEntry:
    """One kind of error of one agent: the texts of the first and the last, and how often it came."""

    scope: str
    kind: int
    text: str
    first_ts: int
    last_ts: int
    count: int
    newest: str = ""


@dataclass(frozen=True)
class StatHeader:
    version: int
    pid: int
    pid_start: int
    """When the process started, in clock ticks since boot: tells a reused pid from the engine's."""
    start_ts: int
    heartbeat_ts: int
    end_ts: int
    """0 until the engine ended in an orderly way."""


def _candidates() -> list[Path]:
    """Where engines may put their stat files, the first choice first."""
    places = []
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        with contextlib.suppress(OSError):
            if os.stat(runtime).st_uid == os.geteuid():
                places.append(Path(runtime) / "tickwire")
    first = f"/dev/shm/tickwire-{os.geteuid()}"
    return [*places, Path(first), *(Path(f"{first}-{i}") for i in range(1, _DIRECTORIES))]


def _is_ours(place: Path) -> bool | None:
    """Is it a folder of this user's that nobody else can write, and no link to one? None where nothing is."""
    try:
        status = os.lstat(place)
    except FileNotFoundError:
        return None
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def default_directory() -> Path:
    """Where engines put their stat files when the configuration names no place: the first choice that is not
    somebody else's."""
    places = _candidates()
    usable = (place for place in places if _is_ours(place) is not False)
    return next(usable, Path(f"/dev/shm/tickwire-{os.geteuid()}"))


def default_directories() -> list[Path]:
    """Each place where an engine of this user's may have put its stat file, those that there are."""
    return [place for place in _candidates() if _is_ours(place)]


def find_stat_files(directory: str | os.PathLike[str] | None = None) -> list[Path]:
    """The complete stat files in a directory (default: all of default_directories()), newest engine first."""
    found: list[tuple[int, Path]] = []
    paths: list[Path] = []
    for place in [Path(directory)] if directory is not None else default_directories():
        with contextlib.suppress(OSError):
            paths += place.iterdir()
    for path in paths:
        try:
            with StatFile.open(path) as stats:
                found.append((stats.header.start_ts, path))
        except StatFileError:
            continue
    return [path for _, path in sorted(found, reverse=True)]


class StatFile:
    """One engine's stat file. Use open(); close() or a `with` block gives it back.

    What looks into it raises StatFileError where the file has become shorter meanwhile.
    """

    def __init__(self, path: Path, source: BinaryIO | memoryview, size: int, inode: tuple[int, int]) -> None:
        self.path = path
        self._source = source
        self._size = size
        self._inode = inode
        # (where, label) of each record: all of them and their labels are fixed once a file is complete.
        self._counters, self._histograms, self._error_logs = self._check()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> StatFile:
        path = Path(path)
        try:
            # A pipe by that name would wait for its writer.
            file = os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", buffering=0)
        except OSError as error:
            raise StatFileError(f"{path}: expected a stat file, found: {error.strerror}") from error
        try:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise StatFileError(f"{path}: expected a stat file, found no regular file")
            if info.st_size < HEADER_BYTES:
                raise StatFileError(f"{path}: expected a stat file, found {info.st_size} bytes")
            return cls(path, file, info.st_size, (info.st_dev, info.st_ino))
        except BaseException:
            file.close()
            raise

    @classmethod
    def of_engine(cls, path: str | os.PathLike[str], view: memoryview) -> StatFile:
        """Of an engine in this process, as it has it mapped: also what is beyond the end of a file that
        somebody has cut short, where another mapping would end us."""
        try:
            info = os.stat(path)
            inode = (info.st_dev, info.st_ino)
        except OSError:
            inode = (0, 0)
        return cls(Path(path), view, len(view), inode)

    def close(self) -> None:
        if isinstance(self._source, memoryview):
            self._source.release()
        else:
            self._source.close()

    def _look(self, at: int, size: int) -> bytes:
        """A copy of so many bytes as they are now."""
        if isinstance(self._source, memoryview):
            return bytes(self._source[at : at + size])
        try:
            found = os.pread(self._source.fileno(), size, at)
        except OSError as error:
            raise StatFileError(f"{self.path}: expected a file that can be read: {error.strerror}") from error
        if len(found) != size:
            raise StatFileError(
                f"{self.path}: expected the {self._size:,} bytes that it had, found fewer: "
                "somebody has cut it short"
            )
        return found

    def __enter__(self) -> StatFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> tuple[list[tuple[int, str]], ...]:
        """Refuses what is no complete stat file of our version; gives the records of the three sections."""
        head = self._look(0, HEADER_BYTES)
        magic, version, header_bytes, file_bytes, *_ = _HEADER.unpack_from(head)
        if magic != MAGIC:
            raise StatFileError(f"{self.path}: expected a stat file, found another file")
        if version == 0:
            raise StatFileError(f"{self.path}: expected a complete stat file, found one still being made")
        if version not in _ERROR_SHAPES:
            raise StatFileError(f"{self.path}: expected version {VERSION}, found version {version}")
        size = self._size
        self._kinds, self._entry_bytes = _ERROR_SHAPES[version]
        strides = (COUNTER_STRIDE, HISTOGRAM_STRIDE, 256 + self._kinds * self._entry_bytes)
        shape = struct.unpack_from("<III", head, 112)
        sound = (header_bytes, file_bytes, *shape) == (
            HEADER_BYTES,
            size,
            BUCKET_COUNT,
            SUB_BITS,
            self._kinds,
        )
        records = []
        for i, expected in enumerate(strides):
            offset, stride, count = _SECTION.unpack_from(head, 64 + i * _SECTION.size)
            sound = sound and stride == expected and offset % 64 == 0 and offset + count * stride <= size
            if not sound:
                raise StatFileError(f"{self.path}: expected sections within the file, found a damaged file")
            places = range(offset, offset + count * stride, stride)
            records.append([(at, _label(self._look(at, 2 * LABEL_BYTES))) for at in places])
        return tuple(records)

    @property
    def header(self) -> StatHeader:
        head = self._look(0, HEADER_BYTES)
        _, version, _, _, pid, _, pid_start, start_ts = _HEADER.unpack_from(head)
        heartbeat_ts, end_ts = struct.unpack_from("<qq", head, 256)
        return StatHeader(version, pid, pid_start, start_ts, heartbeat_ts, end_ts)

    @property
    def alive(self) -> bool:
        """Does the writing process still exist? A reused pid does not pass for it."""
        header = self.header
        try:
            fields = Path(f"/proc/{header.pid}/stat").read_bytes()
        except OSError:
            return False
        # Behind the last ')': the process's name may hold anything. Its start is field 22.
        return int(fields[fields.rindex(b")") + 2 :].split()[19]) == header.pid_start

    @property
    def replaced(self) -> bool:
        """Is there another file at the path now, or none? Then a new engine started or this one left."""
        try:
            info = os.stat(self.path)
        except OSError:
            return True
        return (info.st_dev, info.st_ino) != self._inode

    def counters(self) -> dict[str, int]:
        """Each counter's value, by "scope/name"."""
        if not self._counters:
            return {}
        first = self._counters[0][0]
        section = self._look(first, len(self._counters) * COUNTER_STRIDE)
        return {label: struct.unpack_from("<q", section, at - first + 128)[0] for at, label in self._counters}

    def histograms(self) -> dict[str, Histogram]:
        """A copy of each histogram as it is now, by "scope/stage". Subtract two for an interval."""
        result = {}
        for at, label in self._histograms:
            counts = np.frombuffer(self._look(at + 256, 8 * BUCKET_COUNT), "<u8").astype(np.uint64)
            # Read after the buckets: no value that is in one of them is larger than this max.
            underflow, overflow, total, largest = struct.unpack("<QQQq", self._look(at + 128, 32))
            result[label] = Histogram(counts, underflow, overflow, total, largest)
        return result

    def errors(self) -> list[ErrorEntry]:
        """Every kind of error that has happened, of all agents."""
        result = []
        for log, scope in self._error_logs:
            for kind in range(self._kinds):
                at = log + 256 + kind * self._entry_bytes
                times, first_ts, last_ts, text_bytes = _ERROR_HEAD.unpack(self._look(at, _ERROR_HEAD.size))
                if times == 0:
                    continue
                # The text was written before the count became 1 and never changes. The length is not
                # to be trusted in a file that anything may have damaged.
                text = self._look(at + 32, min(text_bytes, ERROR_TEXT_BYTES))
                first = text.decode("utf-8", "replace")
                newest = self._newest_text(at) if self._entry_bytes > 256 else None
                if newest is None:
                    newest = first
                result.append(ErrorEntry(scope, kind, first, first_ts, last_ts, times, newest))
        return result

    def _newest_text(self, at: int) -> str | None:
        """Of the entry at `at`. None while it is being written: the next look will find it."""
        # Three looks, because nobody says in which order one look copies: the text is whole where the turn is
        # the same before and behind it.
        turn, size = _NEWEST_HEAD.unpack(self._look(at + 256, _NEWEST_HEAD.size))
        if turn == 0 or turn % 2:
            return None
        text = self._look(at + 272, min(size, ERROR_TEXT_BYTES))
        if _NEWEST_HEAD.unpack(self._look(at + 256, _NEWEST_HEAD.size))[0] != turn:
            return None
        return text.decode("utf-8", "replace")


def _label(label: bytes) -> str:
    """ "scope/name", or the scope alone where there is no name."""
    fields = (label[:LABEL_BYTES], label[LABEL_BYTES:])
    return "/".join(field.split(b"\0", 1)[0].decode("utf-8", "replace") for field in fields if field[0])
