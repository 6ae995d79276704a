"""Coverage-guided fuzzing of what reads outside bytes in Python: tools/fuzz calls it.

    python tests/fuzz/guided.py TARGET SECONDS [FOLDER]

A target is tests/fuzz/TARGET_fuzz.py: `run(data)` raises on a fault, `COVERS` are the modules it is for, and
`TOKENS` what their format is made of. Inputs begin with corpus/TARGET; those that take a step from line to
line that none took before are kept, in FOLDER too, and changed further. A fault is kept and ends the run.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
MAX_BYTES = 16384
#: An input that takes longer is a fault.
LIMIT_S = 20


def require(held: bool, found: object) -> None:
    if not held:
        raise AssertionError(found)


def load(target: str) -> ModuleType:
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    return importlib.import_module(f"{target}_fuzz")


def targets() -> list[str]:
    return sorted(path.name.removesuffix("_fuzz.py") for path in HERE.glob("*_fuzz.py"))


def corpus(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((HERE / "corpus" / target).iterdir())]


def mutate(data: bytes, others: Sequence[bytes], tokens: Sequence[bytes], rng: random.Random) -> bytes:
    """A few changes: of bytes, pieces, lines and tokens."""
    out = bytearray(data)
    for _ in range(1 << rng.randrange(4)):
        at = rng.randrange(len(out) + 1)
        upto = min(len(out), at + rng.choice((1, 1, 2, 4, 16, 64)))
        match rng.randrange(8):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(out):
                out[at] = rng.randrange(256)
            case 2:
                del out[at:upto]
            case 3:
                out[at:at] = out[at:upto] * rng.choice((1, 2, 50))
            case 4:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                out[at : rng.choice((at, upto))] = other[start : start + rng.choice((4, 32, 256))]
            case 5 | 6 if tokens:
                out[at : rng.choice((at, upto))] = rng.choice(tokens)
            case _:
                lines = bytes(out).split(b"\n")
                line = lines.pop(rng.randrange(len(lines)))
                for _ in range(rng.randrange(3)):
                    lines.insert(rng.randrange(len(lines) + 1), line)
                out = bytearray(b"\n".join(lines))
    return bytes(out[:MAX_BYTES])


class Steps:
    """Which lines of some modules ran, and from which to which."""

    def __init__(self, modules: Sequence[ModuleType]) -> None:
        self._files = {str(module.__file__) for module in modules}
        self.lines: set[tuple[str, int]] = set()
        self.steps: set[tuple[str, int, int]] = set()
        self.there = {place for path in self._files for place in _lines_in_functions(path)}

    def _trace(self, frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        path = frame.f_code.co_filename
        if path not in self._files:
            return None
        before = frame.f_lineno

        def line(frame: FrameType, event: str, _: object) -> Callable[..., Any]:
            nonlocal before
            if event == "line":
                self.steps.add((path, before, frame.f_lineno))
                self.lines.add((path, frame.f_lineno))
                before = frame.f_lineno
            return line

        return line

    def of(self, run: Callable[[], None]) -> bool:
        """Runs it. Did it take a step that none took before?"""
        known = len(self.steps)
        sys.settrace(self._trace)
        try:
            run()
        finally:
            sys.settrace(None)
        return len(self.steps) > known

    def report(self) -> Iterator[str]:
        for path in sorted(self._files):
            there = {place for place in self.there if place[0] == path}
            ran = len(there & self.lines)
            yield f"  {Path(path).name:<20} lines of functions: {ran} of {len(there)}, {ran / len(there):.1%}"


def _lines_in_functions(path: str) -> Iterator[tuple[str, int]]:
    pending = [compile(Path(path).read_text(), path, "exec")]
    while pending:
        code = pending.pop()
        pending += [const for const in code.co_consts if isinstance(const, CodeType)]
        if code.co_flags & 0x02:  # A function's: those of modules and classes run at import.
            first = code.co_firstlineno
            yield from {(path, line) for _, _, line in code.co_lines() if line is not None and line != first}


def _too_long(*_: object) -> None:
    raise AssertionError(f"expected an end within {LIMIT_S} s, found none")


def fuzz(target: str, seconds: float, folder: Path) -> int:
    module = load(target)
    seed = int(os.environ.get("TICKWIRE_FUZZ_SEED") or random.randrange(2**32))
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    waiting = corpus(target) + [path.read_bytes() for path in sorted(folder.iterdir())]
    kept: list[bytes] = []
    steps = Steps(module.COVERS)
    signal.signal(signal.SIGALRM, _too_long)
    runs, end = 0, time.monotonic() + seconds
    while time.monotonic() < end or waiting:
        first = bool(waiting)
        data = waiting.pop() if first else mutate(rng.choice(kept), kept, module.TOKENS, rng)
        signal.alarm(LIMIT_S)
        try:
            new = steps.of(lambda data=data: module.run(data))  # type: ignore[misc]
        except Exception:
            fault = folder.parent.parent / f"{target}-{hashlib.sha1(data).hexdigest()[:12]}"
            fault.write_bytes(data)
            traceback.print_exc()
            print(f"fuzz: fault in run {runs} of seed {seed}, kept in {fault}", file=sys.stderr)
            return 1
        finally:
            signal.alarm(0)
        runs += 1
        if new or not kept:
            kept.append(data)
            if not first:
                (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)
    print(f"{runs} runs, {len(kept)} inputs kept, {len(steps.steps)} steps from line to line, seed {seed}")
    print("\n".join(steps.report()))
    return 0


if __name__ == "__main__":
    name, duration, *place = sys.argv[1:]
    where = Path(place[0]) if place else HERE.parents[1] / "build" / "fuzz" / "corpus" / name
    sys.exit(fuzz(name, float(duration), where))
