"""`tools/same_rows.py`: says that two versions differ exactly where they do."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from needs import ROOT

TOOL = ROOT / "tools" / "same_rows.py"

_spec = importlib.util.spec_from_file_location("same_rows", TOOL)
assert _spec is not None
assert _spec.loader is not None
same_rows = importlib.util.module_from_spec(_spec)
sys.modules["same_rows"] = same_rows
_spec.loader.exec_module(same_rows)

COLUMNS: dict[str, list[Any]] = {
    "instrument": ["A", "A", "B"],
    "epoch": [1, 1, 1],
    "row": [1, 2, 1],
    "spread()": [0.5, float("nan"), 2.0],
    "ts_out": [7, 8, 9],
}


def sums(folder: Path, columns: dict[str, list[Any]]) -> dict[str, str]:
    path = folder / "rows.parquet"
    pq.write_table(pa.table(columns), path)
    return dict(same_rows.column_sums(path))


def test_a_sum_is_of_the_values_in_the_order_of_the_rows(tmp_path: Path) -> None:
    base = sums(tmp_path, COLUMNS)
    assert base["rows"] == "3"
    turned = {name: values[::-1] for name, values in COLUMNS.items()}
    assert sums(tmp_path, turned) == base
    assert sums(tmp_path, {**COLUMNS, "ts_out": [1, 2, 3]}) == base
    other = sums(tmp_path, {**COLUMNS, "spread()": [0.5, float("nan"), 2.0000000000000004]})
    assert [name for name in base if base[name] != other[name]] == ["spread()"]
    named = sums(tmp_path, {**COLUMNS, "instrument": ["A", "A", "C"]})
    assert [name for name in base if base[name] != named[name]] == ["instrument"]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"day, book, inline": {"rows": "3", "spread()": "aa"}}, "1 replays, 3 rows: the same bits\n"),
        (
            {"day, book, inline": {"rows": "3", "spread()": "ab"}},
            "day, book, inline: spread() differs\n1 replays, 3 rows: 1 differences\n",
        ),
        (
            {"day, book, threads": {"rows": "3", "spread()": "aa"}},
            "day, book, inline: only in one of the two\nday, book, threads: only in one of the two\n"
            "1 replays, 3 rows: 2 differences\n",
        ),
    ],
)
def test_what_differs_is_named(tmp_path: Path, after: dict[str, dict[str, str]], said: str) -> None:
    before = {"day, book, inline": {"rows": "3", "spread()": "aa"}}
    (tmp_path / "before.json").write_text(json.dumps(before), encoding="utf-8")
    (tmp_path / "after.json").write_text(json.dumps(after), encoding="utf-8")
    command: list[str | Path] = [sys.executable, TOOL, "compare"]
    command += [tmp_path / "before.json", tmp_path / "after.json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0 if "same bits" in said else 1, said)
