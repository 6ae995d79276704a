"""tools/check_hot_path: what TICKWIRE_HOT forbids is found, what it allows is not."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from needs import ROOT

TOOL = ROOT / "tools" / "check_hot_path"

PRELUDE = """
#include <unistd.h>
#include <array>
#include <mutex>
#include <string>
#include <vector>
#include "tickwire/core/hot.hpp"

void elsewhere() noexcept;
void hot_elsewhere() noexcept TICKWIRE_HOT;
inline int twice(int x) noexcept { return 2 * x; }

struct Handler {
  virtual void on_message(int fd) noexcept TICKWIRE_HOT = 0;
};
"""


def check(folder: Path, code: str, **environment: str) -> tuple[int, str]:
    source = folder / "planted.cpp"
    source.write_text(PRELUDE + code)
    command = f"c++ -std=c++20 -I{ROOT / 'cpp'} -c {source}"
    entry = {"directory": str(folder), "file": str(source), "command": command}
    (folder / "compile_commands.json").write_text(json.dumps([entry]))
    ended = subprocess.run(
        [sys.executable, TOOL, "-p", folder, source],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    return ended.returncode, ended.stdout + ended.stderr


FORBIDDEN = {
    "allocates": ("int* f() noexcept TICKWIRE_HOT { return new int; }", "must not allocate"),
    "grows": ("void f(std::vector<int>& v) noexcept TICKWIRE_HOT { v.push_back(1); }", "push_back"),
    "locks": ("void f(std::mutex& m) noexcept TICKWIRE_HOT { std::lock_guard lock(m); }", "lock_guard"),
    "throws": ("void f() noexcept TICKWIRE_HOT { try { throw 1; } catch (...) {} }", "must not throw"),
    "asks the kernel": ("void f(int fd) noexcept TICKWIRE_HOT { (void)::write(fd, &fd, 1); }", "'write'"),
    "calls the unmarked": ("void f() noexcept TICKWIRE_HOT { elsewhere(); }", "'elsewhere'"),
    "marked before": ("void f() noexcept TICKWIRE_HOT; void f() noexcept { elsewhere(); }", "'elsewhere'"),
    "through an inline call": (
        "inline void g() noexcept { elsewhere(); } void f() noexcept TICKWIRE_HOT { g(); }",
        "::g'",
    ),
    "overrides the marked": (
        "struct H : Handler { void on_message(int) noexcept override { elsewhere(); } };",
        "'elsewhere'",
    ),
    "may throw": ("void f() TICKWIRE_HOT { hot_elsewhere(); }", "should be declared noexcept"),
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """By line, of one source with all that is forbidden: a run for each would take its time."""
    lines = [f"namespace n{i} {{ {code} }}" for i, (code, _) in enumerate(FORBIDDEN.values())]
    ended, said = check(tmp_path_factory.mktemp("forbidden"), "\n".join(lines))
    assert ended == 1, said
    found = re.findall(r"planted\.cpp:(\d+):\d+: error: (.*)", said)
    return {int(line) - len(PRELUDE.splitlines()): text for line, text in found}


@pytest.mark.parametrize("case", FORBIDDEN)
def test_finds_what_is_forbidden(findings: dict[int, str], case: str) -> None:
    assert FORBIDDEN[case][1] in findings[list(FORBIDDEN).index(case) + 1]


def test_a_source_that_does_not_compile_is_no_clean_one(tmp_path: Path) -> None:
    ended, said = check(tmp_path, "void f() noexcept TICKWIRE_HOT { not_declared(); }")
    assert ended == 1
    assert "undeclared identifier" in said


def test_lets_through_what_is_allowed(tmp_path: Path) -> None:
    code = """
void f(std::vector<int>& v, Handler& h) noexcept TICKWIRE_HOT {
  std::array<int, 4> a{};
  a[1] = twice(v[0]);
  hot_elsewhere();
  h.on_message(a[1]);
  TICKWIRE_HOT_EXEMPT_BEGIN("a wake-up")
  elsewhere();
  TICKWIRE_HOT_EXEMPT_END
}
std::string* cold() { return new std::string("not marked"); }
"""
    ended, said = check(tmp_path, code)
    assert ended == 0, said
    assert "1 sources keep to the rules" in said


def test_the_brackets_hold_only_what_they_enclose(tmp_path: Path) -> None:
    code = """
void f() noexcept TICKWIRE_HOT {
  TICKWIRE_HOT_EXEMPT_BEGIN("a wake-up")
  elsewhere();
  TICKWIRE_HOT_EXEMPT_END
  elsewhere();
}
"""
    ended, said = check(tmp_path, code)
    assert ended == 1
    assert said.count("must not call non-'nonblocking' function 'elsewhere'") == 1


def test_refuses_to_pass_with_a_checker_that_sees_nothing(tmp_path: Path) -> None:
    blind = tmp_path / "clang-tidy"
    blind.write_text("#!/bin/sh\necho version 22.0\n")
    blind.chmod(0o755)
    ended, said = check(tmp_path, "", CLANG_TIDY=str(blind))
    assert ended == 1
    assert "does not see an allocation that was planted for it" in said


def test_refuses_a_checker_without_function_effects(tmp_path: Path) -> None:
    old = tmp_path / "clang-tidy"
    old.write_text("#!/bin/sh\necho version 19.1.7\n")
    old.chmod(0o755)
    ended, said = check(tmp_path, "", CLANG_TIDY=str(old))
    assert ended == 1
    assert "expected version 20 or newer, found version 19.1.7" in said
