"""The commands in the documentation are commands that there are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tickwire.config import Config

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


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
