"""The fuzz targets that are written in Python: their corpus, and a second of what tools/fuzz does longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from needs import ROOT

FUZZ = ROOT / "tests" / "fuzz"


def fuzz(script: Path, target: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, script, target, "1", folder / "corpus" / target],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("target", sorted(path.name[:-8] for path in FUZZ.glob("*_fuzz.py")))
def test_holds_over_its_corpus_and_a_second_of_mutations(target: str, tmp_path: Path) -> None:
    done = fuzz(FUZZ / "guided.py", target, tmp_path)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert "lines of functions" in done.stdout


def test_a_fault_behind_three_steps_is_found_and_kept(tmp_path: Path) -> None:
    (tmp_path / "guided.py").write_text((FUZZ / "guided.py").read_text())
    (tmp_path / "judged.py").write_text(
        "def judge(data):\n"
        "    if data[:1] == b'x':\n"
        "        if data[1:2] == b'y':\n"
        "            if data[2:3] == b'z':\n"
        "                raise KeyError('found')\n"
    )
    (tmp_path / "steps_fuzz.py").write_text(
        "import judged\nCOVERS, TOKENS, run = [judged], [b'x', b'y', b'z'], judged.judge\n"
    )
    (tmp_path / "corpus" / "steps").mkdir(parents=True)
    (tmp_path / "corpus" / "steps" / "seed").write_bytes(b"aaa")
    # Blind, one mutation in millions has all three.
    done = fuzz(tmp_path / "guided.py", "steps", tmp_path / "kept")
    print(done.stdout, done.stderr)
    assert done.returncode == 1
    (fault,) = (tmp_path / "kept").glob("steps-*")
    assert fault.read_bytes().startswith(b"xyz")
    assert str(fault) in done.stderr
