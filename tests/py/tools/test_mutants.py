"""What tools/mutants.py changes and what it must not; what it lists as survivors is there."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
from needs import ROOT


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


mutants = load("mutants")
coverage = load("coverage")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("  if (end > end_) {", {"  if (end >= end_) {", "  if (!(end > end_)) {"}),
        (
            "  if (a && b(1)) return;",
            {
                "  if (a || b(1)) return;",
                "  if (a && b(2)) return;",
                "  if (a && b(0)) return;",
                "  if (!(a && b(1))) return;",
            },
        ),
        ("  ++count_;", {"  --count_;", "  ;"}),
        ("  end_ = end;  // As 1 < 2.", {"  ;"}),
        ("  out.append(text);", {"  ;"}),
        ("  return;", {"  ;"}),
        ("  const int end = first + count;", {"  const int end = first - count;"}),
        ("  std::span<Kept> kept;", set()),
        ("  Kept* const past = begin;", set()),
        ('  fail("1 + 1 == 2 && x");', {"  ;"}),
        ("  if constexpr (kTwo) {", set()),
        ("  static_assert(sizeof(x) == 4);", set()),
        ("#if A == 1", set()),
        ("/// One of 2 && 3.", set()),
        ("  // if (a == b) return;", set()),
        ("  at[i - 1] = 0x10;", {"  at[i + 1] = 0x10;", "  at[i - 2] = 0x10;", "  at[i - 0] = 0x10;"}),
        ("  at[i] = 0x10;", {"  ;"}),
        ("  x = 0;", {"  x = 1;", "  ;"}),
    ],
)
def test_changes_of_a_line_of_c(line: str, expected: set[str]) -> None:
    assert set(mutants.changes(line, python=False)) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("    if a and b:", {"    if a or b:", "    if not (a and b):"}),
        ("    count += 1", {"    count -= 1", "    count += 2", "    count += 0", "    pass"}),
        ("    # one == 1", set()),
        ("    return", {"    pass"}),
        ("    self.send(text)", {"    pass"}),
        ("    def f(x: int = 3) -> None:", set()),
        ("    text = 'a < b'", {"    pass"}),
    ],
)
def test_changes_of_a_line_of_python(line: str, expected: set[str]) -> None:
    assert set(mutants.changes(line, python=True)) == expected


def test_the_files_and_tests_that_it_names_are_there() -> None:
    for file, checks in mutants.TARGETS.items():
        assert (ROOT / file).is_file()
        assert mutants.mutants_of(file)
        for check in checks:
            if check.program.endswith(".py"):
                assert (ROOT / check.program).is_file()
            elif check.program.endswith("_fuzz_test"):
                assert (ROOT / "tests" / "fuzz" / f"{check.program[:-5]}.cpp").is_file()
            else:
                assert (ROOT / "tests" / "cpp" / check.program.removesuffix("_test")).is_dir()


def test_the_list_of_survivors_is_of_changes_that_there_are() -> None:
    there = {mutant.key for file in mutants.TARGETS for mutant in mutants.mutants_of(file)}
    assert mutants.listed() - there == set()


def test_a_layer_below_its_floor_is_named() -> None:
    found = {
        "core": {"line": [9, 10], "branch": [5, 10]},
        "new": {"line": [1, 1], "branch": [1, 1]},
        "whole": {"line": [3, 3], "branch": [0, 0]},
    }
    floors = {
        "core": {"line": 90.0, "branch": 50.1},
        "gone": {"line": 1.0, "branch": 0.0},
        "whole": {"line": 100.0, "branch": 100.0},
    }
    assert coverage.below(found, floors) == [
        "core: expected 50.1 % of its branch coverage, found 50.00 %",
        "gone: expected 1.0 % of its line coverage, found 0.00 %",
    ]
