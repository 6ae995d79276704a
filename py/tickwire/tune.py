"""The tuning scripts, `scripts/tuning/*.sh`: where they are, and running one.

They do the work, so that a host can be tuned and put back without this package, by a service manager or
from a rescue shell; this module only finds them and hands over.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
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
    """Runs a script on our own terminal, or through our standard output, and gives its exit code.

    A signal that ends us ends it: it puts back what it had written and says so, and we wait for that. Ctrl-C
    reaches it as it reaches us.
    """
    bash = shutil.which("bash")
    if bash is None:
        raise SetupError("the tuning scripts need bash, which is not on the PATH")
    words = [bash, os.fspath(scripts() / script), *(os.fspath(argument) for argument in arguments)]
    # Not on its descriptor: where that cannot be written, a script complains with each line.
    piped = not sys.stdout.isatty()
    with subprocess.Popen(words, stdout=subprocess.PIPE if piped else None, text=True) as process:
        while True:
            try:
                if process.stdout is not None:
                    for line in process.stdout:
                        print(line, end="")
                code = process.wait()
                break
            except KeyboardInterrupt:
                continue
            except SystemExit as ended:  # A signal's, of which the shell's exit code tells the number.
                number = ended.code - 128 if isinstance(ended.code, int) else 0
                if number not in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    raise
                if number != signal.SIGINT:
                    process.send_signal(number)
    return code if code >= 0 else 128 - code
