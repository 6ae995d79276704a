"""The door to what is compiled: what stands behind it, and what is said where it does not open."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tickwire
from tickwire.core import extension

WITHOUT = "import sys; sys.modules['tickwire._core'] = None; "


def test_the_extension_s_error_is_of_the_family() -> None:
    assert issubclass(extension.SetupError, tickwire.SetupError)
    with pytest.raises(tickwire.Error):
        extension.Engine({})


@pytest.mark.parametrize(
    "program", ["import tickwire.config", "import tickwire.features", "from tickwire import Pipeline"]
)
def test_an_extension_that_is_not_there_is_an_error_of_the_family(program: str) -> None:
    catch = f"import tickwire\ntry:\n    {program}\nexcept tickwire.SetupError as error:\n    print(error)"
    done = subprocess.run(
        [sys.executable, "-c", f"{WITHOUT}\n{catch}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("tickwire's compiled engine cannot be loaded: ")
    assert done.stdout.rstrip().endswith("; build it with `make setup`")


def test_a_command_says_that_the_extension_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text("")
    program = (
        f"{WITHOUT} sys.argv = ['tickwire', 'run', 'pipeline.toml']; from tickwire.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(tickwire.__file__).parents[1])},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tickwire: tickwire's compiled engine cannot be loaded: ")
