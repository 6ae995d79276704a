"""Fuzz target of Python's reader of stat files: whatever a file holds, it is refused in words, or gives as
many records as it says that it has.

Input: one byte. Where it is even, the rest is the file; else it damages a sound one: steps of a place (3
bytes), a number of bytes and these; a number of 0 cuts the file there.
"""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

from guided import require

from tickwire import stat_file
from tickwire.stat_file import StatFile, StatFileError

COVERS = [stat_file]
TOKENS = [
    b"TICKWIRE",
    *(struct.pack("<I", n) for n in (0, 1, 2, 64, 256, 512, 16640, 33024, 2**31, 2**32 - 1)),
]

_SOUND = (Path(__file__).resolve().parents[1] / "data" / "stat_file_v2.stat").read_bytes()
_FOLDER = tempfile.TemporaryDirectory(prefix="tickwire-fuzz-")
_FILE = Path(_FOLDER.name) / "engine-1-1.stat"


def _file_of(data: bytes) -> bytes:
    if not data or data[0] % 2 == 0:
        return data[1:]
    out, at = bytearray(_SOUND), 1
    while at + 4 <= len(data):
        high, place, count = struct.unpack_from(">BHB", data, at)
        place += high << 16
        new = data[at + 4 : at + 4 + count % 32]
        if not new:
            del out[place:]
        elif place + len(new) <= len(out):
            out[place : place + len(new)] = new
        at += 4 + len(new)
    return bytes(out)


def run(data: bytes) -> None:
    content = _file_of(data)
    _FILE.write_bytes(content)
    found = stat_file.find_stat_files(_FOLDER.name)
    try:
        stats = StatFile.open(_FILE)
    except StatFileError as error:
        require(str(error).startswith(str(_FILE)) and not found, error)
        return
    with stats:
        assert found == [_FILE]
        counts = [struct.unpack_from("<I", content, 64 + 16 * i + 12)[0] for i in range(3)]
        assert len(stats.counters()) <= counts[0]
        for histogram in stats.histograms().values():
            assert histogram.percentile(50.0) is not None
            assert histogram.min >= 0
            assert (histogram - histogram).count == 0
        for entry in stats.errors():
            assert len(entry.text.encode("utf-8", "replace")) <= 3 * 224
            assert entry.count > 0
        assert not stats.replaced
        _ = stats.header, stats.alive
