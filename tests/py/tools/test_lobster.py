"""LOBSTER days re-encoded as ITCH: the book's levels after every message are the file's own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from needs import ROOT, recorded

DUMP = Path(sys.executable).with_name("tickwire-dump")


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lobster_to_itch", ROOT / "tools" / "lobster_to_itch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = _tool()
pytestmark = pytest.mark.skipif(not DUMP.exists(), reason="tickwire-dump is not installed")


def levels_of(row: list[int]) -> list[str]:
    cells = []
    for at in range(0, len(row), 2):
        there = row[at + 1] != 0 and abs(row[at]) != 9_999_999_999
        cells += [str(row[at]), str(row[at + 1])] if there else ["", ""]
    return cells


def check(tmp_path: Path, symbol: str, messages: list[list[str]], rows: list[list[int]]) -> int:
    """Compares each row with the book after its message; returns how many rows that were."""
    path = tmp_path / "2012-06-21.itch"
    ends = []
    number = 0
    with path.open("wb") as file:
        for group in tool.encode(symbol, messages, rows):
            file.write(tool.framed(group))
            number += len(group)
            ends.append(number)
    wanted = dict(zip(ends[1:], rows, strict=True))  # The first group opens the day.
    depth = len(rows[0]) // 4
    compared = 0
    with subprocess.Popen(
        [DUMP, symbol, str(depth), path], stdout=subprocess.PIPE, text=True, encoding="ascii"
    ) as dump:
        assert dump.stdout is not None
        for line in dump.stdout:
            at, _, _, state, *cells = line.rstrip("\n").split(",")
            row = wanted.get(int(at))
            if row is None:
                continue
            assert cells == levels_of(row), f"message {at}"
            assert state in ("valid", "halted"), f"message {at}"
            compared += 1
    assert dump.returncode == 0
    return compared


@pytest.mark.parametrize(
    ("name", "symbol", "count"),
    [
        ("LOBSTER_SampleFile_AMZN_2012-06-21_5.zip", "AMZN", 155_935),
        ("LOBSTER_SampleFile_AAPL_2012-06-21_1.zip", "AAPL", 118_497),
    ],
)
def test_recorded_day(tmp_path: Path, name: str, symbol: str, count: int) -> None:
    (path,) = recorded(f"lobster/{name}")
    found, messages, rows = tool.read(path)
    assert found == symbol
    assert check(tmp_path, symbol, messages, rows) == len(rows) == count


def test_what_is_out_of_sight_is_put_right_when_it_shows(tmp_path: Path) -> None:
    # Two levels: a deep one goes unseen, an order is executed that nobody added, a level comes back larger.
    none = 9_999_999_999
    messages = [
        ["34200.0", "1", "11", "100", "1000000", "1"],
        ["34200.5", "4", "7", "30", "1000100", "-1"],
        ["34201.000000001", "3", "11", "100", "1000000", "1"],
        ["34202", "5", "0", "10", "1000000", "1"],
        ["34203", "7", "0", "0", "-1", "-1"],
        ["34204", "7", "0", "0", "1", "-1"],
        ["34205", "2", "7", "20", "1000100", "-1"],
    ]
    rows = [
        [1_000_100, 90, 1_000_000, 100, 1_000_300, 5, 999_900, 40],
        [1_000_100, 60, 1_000_000, 100, 1_000_300, 5, 999_900, 40],
        [1_000_100, 60, 999_900, 40, 1_000_300, 5, 999_700, 70],
        [1_000_100, 60, 999_900, 40, 1_000_300, 5, 999_700, 70],
        [1_000_100, 60, 999_900, 40, 1_000_300, 5, 999_700, 70],
        [1_000_100, 60, 999_900, 40, 1_000_300, 5, 999_700, 70],
        [1_000_100, 40, 999_900, 40, none, 0, 999_700, 70],
    ]
    with pytest.raises(AssertionError):  # A level that both rows show is not put right.
        check(tmp_path, "AMZN", messages, rows)
    rows[-1][4:6] = [1_000_300, 5]
    assert check(tmp_path, "AMZN", messages, rows) == len(rows)


def test_says_what_does_not_belong_together() -> None:
    message = ["34200", "2", "7", "30", "1000100", "-1"]
    with pytest.raises(tool.LobsterError, match="row 1: order 7: 30 of 20"):
        list(tool.encode("AMZN", [message], [[1_000_100, -10, 0, 0]]))


def test_counts_the_messages_that_a_replay_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One level: the day opens with two messages, and a level that comes into sight needs one of its own."""
    messages = "34200.0,1,11,100,1000000,1\n34201.0,3,11,100,1000000,1\n"
    rows = "1000100,90,1000000,100\n1000100,90,999900,40\n"
    with zipfile.ZipFile(tmp_path / "day.zip", "w") as archive:
        archive.writestr("AMZN_2012-06-21_message_1.csv", messages)
        archive.writestr("AMZN_2012-06-21_orderbook_1.csv", rows)
    out = tmp_path / "2012-06-21.itch"
    monkeypatch.setattr(sys, "argv", ["lobster_to_itch", str(tmp_path / "day.zip"), str(out)])
    tool.main()
    data, counted = out.read_bytes(), 0
    while data:
        data = data[2 + int.from_bytes(data[:2], "big") :]
        counted += 1
    assert capsys.readouterr().out == f"AMZN: 2 rows as {counted:,} messages to {out}\n"
    assert counted > 4
