"""What compiler and linker closed in the programs and the extension, by the files that are installed."""

from __future__ import annotations

import importlib.util
import platform
import struct
import sysconfig
from pathlib import Path

import pytest

DYNAMIC, STACK, RELRO = 2, 0x6474E551, 0x6474E552
EXECUTABLE = 1
FLAGS, FLAGS_1 = 30, 0x6FFFFFFB
BIND_NOW, NOW, PIE = 0x8, 0x1, 0x08000000
SHARED_OBJECT = 3
DYNAMIC_SYMBOLS = 11
ENDBR64 = b"\xf3\x0f\x1e\xfa"


def installed() -> list[Path]:
    spec = importlib.util.find_spec("tickwire._core")
    if spec is None or spec.origin is None:
        return []
    programs = sorted(Path(sysconfig.get_path("scripts")).glob("tickwire-*"))
    return [Path(spec.origin), *(path for path in programs if path.read_bytes()[:4] == b"\x7fELF")]


def is_sanitized(data: bytes) -> bool:
    """A sanitizer's run time asks for a layout of its own."""
    return b"__asan_init" in data or b"__tsan_init" in data


built = pytest.mark.skipif(not installed(), reason="the compiled engine is not built")
each = pytest.mark.parametrize("path", installed(), ids=lambda path: path.name)


def hardened(path: Path) -> bytes:
    data = path.read_bytes()
    if is_sanitized(data):
        pytest.skip("built with a sanitizer")
    return data


def undefined_symbols(data: bytes) -> set[str]:
    """What it wants of libraries: the names of its dynamic symbol table that have no place."""
    sections, *_ = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    found = [struct.unpack_from("<IIQQQQIIQQ", data, sections + i * size) for i in range(count)]
    names: set[str] = set()
    for _, type_, _, _, offset, bytes_, link, _, _, entry in found:
        if type_ != DYNAMIC_SYMBOLS:
            continue
        texts = found[link][4]
        for at in range(offset, offset + bytes_, entry):
            name, _, _, section, _, _ = struct.unpack_from("<IBBHQQ", data, at)
            if section == 0:
                begin = texts + name
                names.add(data[begin : data.index(b"\0", begin)].decode())
    return names


@built
@each
def test_nothing_is_writable_that_need_not_be(path: Path) -> None:
    data = hardened(path)
    assert data[4:6] == b"\x02\x01", "64 bits, little end first"
    kind, _, _, _, headers = struct.unpack_from("<HHIQQ", data, 16)
    size, count = struct.unpack_from("<HH", data, 54)
    segments = {}
    for i in range(count):
        type_, flags, offset, _, _, bytes_ = struct.unpack_from("<IIQQQQ", data, headers + i * size)
        segments[type_] = (flags, offset, bytes_)
    assert RELRO in segments, "tables of addresses stay writable"
    assert not segments[STACK][0] & EXECUTABLE, "the stack is executable"
    _, offset, bytes_ = segments[DYNAMIC]
    dynamic = dict(struct.iter_unpack("<QQ", data[offset : offset + bytes_]))
    # All of the table is bound at the start, so that all of it can be read-only.
    assert dynamic.get(FLAGS, 0) & BIND_NOW or dynamic.get(FLAGS_1, 0) & NOW
    # At another address each time: a library always is, and a program is where it says so.
    assert kind == SHARED_OBJECT
    if path.suffix != ".so":
        assert dynamic[FLAGS_1] & PIE


@built
@each
def test_frames_have_canaries_and_calls_know_the_size_of_their_target(path: Path) -> None:
    wanted = undefined_symbols(hardened(path))
    assert "__stack_chk_fail" in wanted
    assert {name for name in wanted if name.endswith("_chk")}, "no call of the C library is checked"


@built
@each
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the marks of another processor look different")
def test_functions_off_the_hot_path_have_landing_marks(path: Path) -> None:
    assert hardened(path).count(ENDBR64) > 20


@built
def test_the_standard_library_asserts_off_the_hot_path() -> None:
    """Its assertions say in words what they found, and these are in the file."""
    for path in installed():
        if path.name != "tickwire-ws-echo":  # A peer of the benchmarks, hot throughout.
            assert b"__n < this->size()" in hardened(path), path
