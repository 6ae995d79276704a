"""The commands in the documentation are commands that there are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from needs import ROOT, compiled

from tickwire.config import Config

PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "DESIGN", "CONTRIBUTING")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def commands(page: Path) -> set[str]:
    """Each `tickwire …` of the page's code blocks and of the code within its text, without its arguments."""
    text = page.read_text(encoding="utf-8")
    lines = re.findall(r"^ {4}(.*)$", text, re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
    found = set()
    for line in lines:
        match = re.match(r"(?:sudo )?(?:\.venv/bin/)?tickwire ((?:[a-z-]+ ?)+.*)", line.partition("#")[0])
        if match is not None:
            found.add(match[1].strip())
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_options_exist(page: Path) -> None:
    helps: dict[tuple[str, ...], str] = {}
    for command in sorted(commands(page)):
        words = command.split()
        groups = ("model", "latency", "tune")
        name = tuple(words[: 2 if words[0] in groups else 1])
        if name not in helps:
            program = "from tickwire.cli import main; main()"
            done = subprocess.run(
                [sys.executable, "-c", program, *name, "--help"],
                capture_output=True,
                text=True,
                env={"PYTHONPATH": str(ROOT / "py"), "COLUMNS": "200", "NO_COLOR": "1"},
                check=False,
            )
            assert done.returncode == 0, f"{page.name}: {command}"
            helps[name] = done.stdout
        for option in (word for word in words if word.startswith("--")):
            assert option in helps[name], f"{page.name}: {command}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_targets_and_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = [*re.findall(r"^ {4}(.*)$", text, re.MULTILINE), *re.findall(r"`([^`\n]+)`", text)]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    added = set(re.findall(r"^`([^`\n]+)`\n\n```", text, re.MULTILINE))  # By what the page shows.
    for line in set(code) - added:
        match = re.match(r"(?:[A-Z]+=\S+ )*make ([a-z-]+)", line)
        assert match is None or match[1] in targets, f"{page.name}: {line}"
        if re.fullmatch(r"(?:\.ci|cpp|docs|py|scripts|tests|tools)/[\w./-]*", line):
            assert (ROOT / line).exists(), f"{page.name}: {line}"


def form(text: str) -> list[str]:
    """The lines of a run's output without what each run and each machine has of its own."""
    forms = []
    for line in text.splitlines():
        line = re.sub(r"[━─]+", "─", line.strip())
        line = re.sub(r"\d[\d,.]*", "#", line)
        line = re.sub(r"engine-\S+", "engine", re.sub(r"/\S*/", "/", line))
        line = re.sub(r"\s+", " ", line)
        forms.append(re.sub(r"^(memory|timestamps|warning|clock): .*", r"\1: …", line))
    return [line for line in forms if line != "…"]


@compiled
def test_the_readme_s_output_has_the_form_of_a_run_s() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (sample,) = re.findall(r"\$ make demo\n((?:    .*\n)+)", text)
    done = subprocess.run(
        [sys.executable, "-c", "from tickwire.cli import main; main()", "demo", "--seconds", "6"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "py"), "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown, said = form(sample), form(done.stdout)
    # A host says more or less of itself: one line a kind is enough. Threads begin in any order.
    host = [line for line in said if line.startswith(("memory", "timestamps", "warning", "tickwire doctor"))]
    assert {line for line in shown if line.startswith(("memory", "timestamps"))} <= set(host)
    assert sorted(line for line in shown if line not in host) == sorted(
        line for line in said if line not in host
    )


def test_the_host_page_s_configuration_is_one() -> None:
    text = (ROOT / "docs" / "tune-a-host.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    rest = '[[feeds]]\nvenue = "binance_spot"\ninstruments = ["BTCUSDT"]\n[features]\nrows = ["spread()"]\n'
    config = Config.from_text(block + rest)
    assert config.engine.strict
    assert (config.engine.idle, config.memory.huge_pages, config.memory.lock) == (
        "spin",
        "require",
        "require",
    )


def test_configurations_in_the_readme_are_ones() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "[[feeds]]" in block]
    configs = [
        Config.from_text(block if "[features]" in block else block + '[features]\nrows = ["spread()"]\n')
        for block in blocks
    ]
    assert [config.feeds[0].source for config in configs] == ["websocket", "file", "multicast"]
