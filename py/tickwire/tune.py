"""The tuning scripts, `scripts/tuning/*.sh`: where they are, and running one.

They do the work, so that a host can be tuned and put back without this package, by a service manager or
from a rescue shell; this module only finds them and hands over.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tickwire.errors import SetupError

__all__ = ["example", "run", "scripts"]


def scripts() -> Path:
    """The folder with apply.sh and its like: beside this file in an installed package, else in the source
    tree that this file belongs to."""
    here = Path(__file__).resolve().parent
    folders = (here / "tuning", here.parents[1] / "scripts" / "tuning")
    for folder in folders:
        if (folder / "apply.sh").is_file():
            return folder
    raise SetupError(
        "the tuning scripts are not installed: expected apply.sh in " + " or ".join(map(str, folders))
    )


def example() -> str:
    """A host.env to fill in."""
    return (scripts() / "host.env.example").read_text(encoding="utf-8")


def run(script: str, arguments: Sequence[str | os.PathLike[str]] = ()) -> int:
    """Runs a script on our own terminal and gives its exit code.

    Ctrl-C reaches it as it reaches us. It puts back what it had written and says so: we wait for that.
    """
    bash = shutil.which("bash")
    if bash is None:
        raise SetupError("the tuning scripts need bash, which is not on the PATH")
    words = [bash, os.fspath(scripts() / script), *(os.fspath(argument) for argument in arguments)]
    with subprocess.Popen(words) as process:
        while True:
            try:
                code = process.wait()
                break
            except KeyboardInterrupt:
                continue
    return code if code >= 0 else 128 - code
