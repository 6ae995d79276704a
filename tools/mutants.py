#!/usr/bin/env python3
"""Changes one place of a source file after another and looks whether a test notices: `make mutants`.

    tools/mutants.py [--sample N] [--seed S] [--file F[:LINE] ...] [--list]

For each file of TARGETS: comparisons, && and ||, sums and differences, constants by one, conditions negated,
statements left out. Each change is built in a copy of the sources below build/mutants, without a compiler
cache, and the file's tests run on it, with a limit of time. Prints of each whether it was killed, survived,
does not compile, or compiles to the very same code; at the end the survivors that tests/mutants.md does not
list. It lists, with the reason, changes that no test could notice. Ends with 1 where there are others.

For Python modules the tests run on a copy of the package.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TREE = ROOT / "build" / "mutants"
LISTED = ROOT / "tests" / "mutants.md"
BUILD_LIMIT_S = 900

#: The test files that the copy keeps, by layer: others take long to build and say nothing of TARGETS.
TEST_FILES = {
    "md": ("price_book_test.cpp", "order_books_test.cpp", "order_books_reach_test.cpp"),
    "net": ("mold_feed_test.cpp", "mold_packet_test.cpp", "sequencer_counts_test.cpp", "sequencer_test.cpp"),
    "venue": ("book_depth_test.cpp", "book_sync_pause_test.cpp", "book_sync_test.cpp"),
    "features": ("feature_engine_test.cpp", "rolling_test.cpp"),
}


@dataclass(frozen=True)
class Check:
    """A test program, and which of its tests; in Python, test files."""

    program: str
    only: str = "*"


MD = Check("md_test", "*PriceBook*:*SortedLevels*:*OrderBooks*")
BOOK = Check("venue_test", "*BookSync*:*BookDepth*:*Partial*")
SEQUENCER = Check("net_test", "*Sequencer*:*Mold*")
FEATURES = Check("features_test")
#: By source file: what must notice a change of it, the quickest first.
TARGETS: dict[str, tuple[Check, ...]] = {
    "cpp/tickwire/md/price_book.cpp": (MD, BOOK),
    "cpp/tickwire/md/sorted_levels.cpp": (MD, BOOK),
    "cpp/tickwire/md/order_books.cpp": (MD, Check("itch_fuzz_test")),
    "cpp/tickwire/venue/book_sync.cpp": (BOOK,),
    "cpp/tickwire/venue/book_merge.cpp": (BOOK,),
    "cpp/tickwire/net/sequenced/sequencer.cpp": (
        SEQUENCER,
        Check("mold_packet_fuzz_test"),
        Check("rerequest_fuzz_test"),
    ),
    **{
        str(file.relative_to(ROOT)): (FEATURES,)
        for file in sorted((ROOT / "cpp" / "tickwire" / "features").glob("**/*.hpp"))
        if "class" in file.read_text(encoding="utf-8")
    },
    "cpp/tickwire/features/feature_engine.cpp": (FEATURES,),
    "py/tickwire/compare.py": (Check("tests/py/test_verify.py"), Check("tests/py/test_verify_files.py")),
    "py/tickwire/router/gate.py": (Check("tests/py/models/test_running_models.py"),),
    "py/tickwire/router/router.py": (Check("tests/py/router/test_router.py"),),
}


@dataclass(frozen=True)
class Mutant:
    file: str
    line: int  # From 1.
    before: str
    after: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Holds when the file's other lines move."""
        return self.file, self.before.strip(), self.after.strip()


# ---- Changes ----

_SWAPS = {
    " <= ": [" < "],
    " < ": [" <= "],
    " >= ": [" > "],
    " > ": [" >= "],
    " == ": [" != "],
    " != ": [" == "],
    " && ": [" || "],
    " || ": [" && "],
    " and ": [" or "],
    " or ": [" and "],
    " + ": [" - "],
    " - ": [" + "],
    " * ": [" / "],
    " += ": [" -= "],
    " -= ": [" += "],
    "++": ["--"],
    "--": ["++"],
    "std::min(": ["std::max("],
    "std::max(": ["std::min("],
}
_SWAP = re.compile("|".join(re.escape(text) for text in sorted(_SWAPS, key=len, reverse=True)))
_CONSTANT = re.compile(r"(?<![\w.'])\d+(?![\w.'])")
_CONDITION = re.compile(r"\b(?:if|while) \((?!constexpr)")
_PYTHON_CONDITION = re.compile(r"^(\s*(?:if|elif|while) )(?!not )(.*):$")
# One call, assignment or step that fills its line; no declaration, since that has two names side by side.
_STATEMENT = re.compile(
    r"^(?:(?:\+\+|--)[\w.\->\[\]]+|[\w.\->\[\]:]+ [-+|&]?= .+|[\w.\->\[\]:]+\(.*\)|return|break|continue);$"
)
_PYTHON_STATEMENT = re.compile(r"^(?:[\w.\[\]]+ [-+|&]?= .+|[\w.]+\(.*\)|return|break|continue)$")
_SKIPPED = (
    "#",
    "//",
    "///",
    "static_assert",
    "template",
    "using ",
    "assert",
    "import ",
    "from ",
    '"""',
    "@",
    "def ",
    "__all__",
)


def _bare(line: str, comment: str) -> str:
    """The line with texts filled with one word and without its comment, each character where it was."""
    out = re.sub(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)+\'', lambda found: "_" * len(found.group()), line)
    at = out.find(comment)
    return out if at < 0 else out[:at]


def _closing(text: str, at: int) -> int:
    """Where the bracket that opens at `at` closes; -1 where it does on another line."""
    depth = 0
    for i in range(at, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    return -1


def changes(line: str, python: bool) -> Iterator[str]:
    """Each change of one line."""
    bare = _bare(line, "#" if python else "//")
    stripped = bare.strip()
    if not stripped or stripped.startswith(_SKIPPED):
        return
    for found in _SWAP.finditer(bare):
        for swap in _SWAPS[found.group()]:
            yield line[: found.start()] + swap + line[found.end() :]
    for found in _CONSTANT.finditer(bare):
        for value in {int(found.group()) + 1, max(int(found.group()) - 1, 0)} - {int(found.group())}:
            yield line[: found.start()] + str(value) + line[found.end() :]
    if python:
        if condition := _PYTHON_CONDITION.match(line.rstrip()):
            yield f"{condition.group(1)}not ({condition.group(2)}):"
        if _PYTHON_STATEMENT.match(stripped):
            yield line[: len(line) - len(line.lstrip())] + "pass"
        return
    for found in _CONDITION.finditer(bare):
        begin, end = found.end(), _closing(bare, found.end() - 1)
        if end > 0 and ";" not in bare[begin:end]:
            yield f"{line[:begin]}!({line[begin:end]}){line[end:]}"
    if _STATEMENT.match(stripped):
        yield line[: len(line) - len(line.lstrip())] + ";"


def mutants_of(file: str) -> list[Mutant]:
    lines = (ROOT / file).read_text().split("\n")
    python = file.endswith(".py")
    found, inside_text = [], False
    for number, line in enumerate(lines, 1):
        # The text of a docstring, whose marks stand alone in ours or on one line.
        if python and line.count('"""') == 1:
            inside_text = not inside_text
            continue
        if not inside_text:
            found += [Mutant(file, number, line, after) for after in changes(line, python)]
    return found


def listed() -> set[tuple[str, str, str]]:
    """Survivors that were looked at: below a file's heading, "- before", "+ after", and why in words."""
    out, file, before = set(), "", ""
    for line in LISTED.read_text().splitlines():
        text = line.strip()
        if line.startswith("## "):
            file = line[3:].strip()
        elif line.startswith("    - "):
            before = text[2:].strip()
        elif line.startswith("    + "):
            out.add((file, before, text[2:].strip()))
    return out


# ---- Builds and runs ----


def _environment() -> dict[str, str]:
    out = {name: value for name, value in os.environ.items() if name != "TICKWIRE_DATA"}
    return out | {"TICKWIRE_FUZZ_SEED": "1", "TICKWIRE_FUZZ_RUNS": "3000", "PYTHONDONTWRITEBYTECODE": "1"}


def _copy(source: Path, target: Path) -> None:
    """As it is there; what is the same stays, so that it is not built again."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in source.iterdir() if path.name != "__pycache__"}
        if source.parent == ROOT / "tests" / "cpp":
            kept = TEST_FILES.get(source.name, ())
            names = {name for name in names if not name.endswith("_test.cpp") or name in kept}
        for path in target.iterdir():
            if path.name not in names:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in names:
            _copy(source / name, target / name)
    elif not target.exists() or source.read_bytes() != target.read_bytes():
        shutil.copyfile(source, target)
        shutil.copymode(source, target)


class Tree:
    """A copy of the sources, with a build of its own."""

    def __init__(self) -> None:
        self.build = TREE / "build" / "release"
        for name in ("cpp", "tests", "tools", "py"):
            _copy(ROOT / name, TREE / name)
        for name in ("CMakeLists.txt", "pyproject.toml"):
            _copy(ROOT / name, TREE / name)
        if not (TREE / ".deps").exists():
            (TREE / ".deps").symlink_to(ROOT / ".deps")
        self._limits: dict[Check, float] = {}

    def prepare(self, file: str) -> None:
        """What is not changed is built, and its tests pass."""
        checks = TARGETS[file]
        if not file.endswith(".py"):
            command: list[str | Path] = ["cmake", "-S", TREE, "-B", self.build, "-G", "Ninja"]
            command += ["-DTICKWIRE_TESTS=ON"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            self._make([check.program for check in checks], os.environ | {}, check=True)
        else:
            built = next((ROOT / "build" / "release").rglob("_core*.so"))
            shutil.copy(built, TREE / "py" / "tickwire" / built.name)
        for check in checks:
            begin = time.monotonic()
            if self._run(check, None) or not self._has_tests(check):
                sys.exit(f"mutants: {check.program} {check.only}: expected it to pass before any change")
            self._limits[check] = 20 + 5 * (time.monotonic() - begin)

    def judge(self, mutant: Mutant) -> str:
        path = TREE / mutant.file
        original = path.read_bytes()
        lines = original.decode().split("\n")
        assert lines[mutant.line - 1] == mutant.before
        lines[mutant.line - 1] = mutant.after
        same = self._object(mutant.file)
        path.write_text("\n".join(lines))
        try:
            checks = TARGETS[mutant.file]
            if not mutant.file.endswith(".py"):
                programs = list(dict.fromkeys(check.program for check in checks))
                # No cache: it would be filled with what nobody builds again.
                if self._make(programs, os.environ | {"CCACHE_DISABLE": "1"}, check=False):
                    return "uncompilable"
                if same is not None and self._object(mutant.file) == same:
                    return "same code"
            elif subprocess.run([sys.executable, "-m", "py_compile", path], capture_output=True).returncode:
                return "uncompilable"
            return "killed" if any(self._run(check, self._limits[check]) for check in checks) else "survived"
        finally:
            path.write_bytes(original)

    def _has_tests(self, check: Check) -> bool:
        if check.program.endswith(".py"):
            return True  # pytest fails where it finds none.
        command: list[str | Path] = [self._program(check), f"--gtest_filter={check.only}"]
        command += ["--gtest_list_tests"]
        return "\n  " in subprocess.run(command, capture_output=True, text=True).stdout

    def _program(self, check: Check) -> Path:
        return self.build / ("tests/fuzz" if "fuzz" in check.program else "") / check.program

    def _object(self, file: str) -> str | None:
        """What the file compiles to; nothing of a header."""
        found = list(self.build.glob(f"CMakeFiles/*/{file}.o"))
        return hashlib.sha256(found[0].read_bytes()).hexdigest() if found else None

    def _make(self, programs: Sequence[str], environment: dict[str, str], *, check: bool) -> int:
        command: list[str | Path] = ["cmake", "--build", self.build, "--target", *programs]
        done = subprocess.run(
            command, env=environment, capture_output=not check, check=check, timeout=BUILD_LIMIT_S
        )
        return done.returncode

    def _run(self, check: Check, limit: float | None) -> int:
        """0 where its tests pass; more where they do not, or do not end."""
        if check.program.endswith(".py"):
            # The package of the copy, and not the one that is installed.
            start = (
                "import sys, pytest; "
                "sys.meta_path[:] = [f for f in sys.meta_path if 'ScikitBuild' not in type(f).__name__]; "
                f"sys.path.insert(0, {str(TREE / 'py')!r}); "
                f"sys.exit(pytest.main(['-x', '-q', '-p', 'no:cacheprovider', {check.program!r}]))"
            )
            command: list[str | Path] = [sys.executable, "-c", start]
        else:
            command = [self._program(check), f"--gtest_filter={check.only}", "--gtest_brief=1"]
            command += ["--gtest_fail_fast", "--gtest_catch_exceptions=0"]
        try:
            done = subprocess.run(command, cwd=TREE, env=_environment(), capture_output=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return 1
        return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description="Changes sources and looks whether a test notices.")
    parser.add_argument("--sample", type=int, help="so many changes of all files, else all of them")
    parser.add_argument("--seed", type=int, help="repeats a sample")
    parser.add_argument(
        "--file", action="append", metavar="F", help="a file of TARGETS or the end of its name, and a line"
    )
    parser.add_argument("--list", action="store_true", help="print the changes and make none")
    arguments = parser.parse_args()
    wanted = [file.partition(":") for file in arguments.file or [""]]
    files = [file for file in TARGETS if any(file.endswith(end) for end, _, _ in wanted)]
    if not files:
        sys.exit(f"mutants: expected files of {', '.join(TARGETS)}, found {', '.join(arguments.file)}")
    chosen = [
        mutant
        for file in files
        for mutant in mutants_of(file)
        if any(file.endswith(end) and line in ("", str(mutant.line)) for end, _, line in wanted)
    ]
    print(f"mutants: {len(chosen)} changes of {len(files)} files", flush=True)
    if arguments.sample is not None and arguments.sample < len(chosen):
        seed = arguments.seed if arguments.seed is not None else random.randrange(2**32)
        print(f"mutants: {arguments.sample} of them, --seed {seed}", flush=True)
        order = {file: i for i, file in enumerate(files)}
        chosen = random.Random(seed).sample(chosen, arguments.sample)
        chosen.sort(key=lambda mutant: (order[mutant.file], mutant.line))
    known = listed()
    tree = None
    counts: dict[str, int] = {}
    left: list[Mutant] = []
    file = ""
    for mutant in chosen:
        place = f"{mutant.file}:{mutant.line}\n  - {mutant.before.strip()}\n  + {mutant.after.strip()}"
        if arguments.list:
            print(place)
            continue
        tree = tree or Tree()
        if mutant.file != file:
            file = mutant.file
            tree.prepare(file)
        verdict = tree.judge(mutant)
        if verdict == "survived" and mutant.key in known:
            verdict = "survived as listed"
        counts[verdict] = counts.get(verdict, 0) + 1
        print(f"{verdict:<12} {place}", flush=True)
        if verdict == "survived":
            left.append(mutant)
    if counts:
        print("mutants:", ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())))
    for mutant in left:
        print(
            f"mutants: nothing notices {mutant.file}:{mutant.line}: {mutant.after.strip()}", file=sys.stderr
        )
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
