"""Trying a model in a process of its own: one that never ends is stopped there, and one that takes its
process down takes no other.

The process loads the model with the engine's own loader, warms it as an engine does, says what it found, and
ends. Its memory goes first where the system runs out of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tickwire.errors import ModelError
from tickwire.json_text import parse_json
from tickwire.limits import Expired, Limit

__all__ = ["Trial", "try_model"]

_MAIN = "from tickwire.trial import main; main()"


@dataclass(frozen=True)
class Trial:
    """What a model turned out to be."""

    scores: tuple[str, ...]
    executor: str
    warm_up_runs: int


def try_model(
    paths: Sequence[str],
    descriptors: Sequence[int],
    limit: Limit,
    *,
    library: str,
    provider: str = "cpu",
    cache_dir: str = "",
    max_batch: int = 1,
    rows: int = 0,
    features: int = 0,
) -> Trial:
    """Loads and warms a model, whose files the descriptors hold. `ModelError`: an engine could not."""
    request: dict[str, Any] = {
        "members": list(paths),
        "fds": list(descriptors),
        "library": library,
        "provider": provider,
        "cache_dir": cache_dir,
        "max_batch": max_batch,
        "rows": rows,
        "features": features,
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _MAIN, str(limit.seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=tuple(descriptors),
        start_new_session=True,  # Ctrl-C is for the command, which then stops us.
    )
    where = ", ".join(paths)
    try:
        out, _ = limit.wait(lambda: process.communicate(json.dumps(request).encode()))
    except Expired:
        _kill(process)
        if limit.given_up:
            raise ModelError(f"{where}: given up before it was loaded and warm") from None
        raise ModelError(_too_long(where, limit)) from None
    except BaseException:
        _kill(process)
        raise
    if process.returncode == -signal.SIGALRM:
        raise ModelError(_too_long(where, limit))
    try:
        answer = parse_json(out)
    except ValueError:
        raise ModelError(
            f"{where}: expected a model that ONNX Runtime can load and run, found one that takes its process "
            f"down ({_end_of(process.returncode)}); export it again, or with another opset"
        ) from None
    if "refused" in answer:
        raise ModelError(str(answer["refused"]))
    return Trial(tuple(answer["scores"]), str(answer["executor"]), int(answer["runs"]))


def _too_long(where: str, limit: Limit) -> str:
    return (
        f"{where}: expected a model that is loaded and warm within {limit.seconds:g} s, found one that is "
        "not: it never ends, or needs longer (model.start_timeout)"
    )


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    # One that the kernel holds is nobody's to wait for.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1.0)


def _end_of(code: int) -> str:
    if code >= 0:
        return f"exit {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def main() -> None:
    """In the process itself."""
    # Its own end is its own business, too: whoever started it may be gone by then.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")
    request = json.loads(sys.stdin.buffer.read())
    from tickwire.core import extension

    answer: dict[str, Any]
    try:
        model = extension.Model(weights=[], **request)
        runs = model.warm_up()
        answer = {"scores": model.score_names, "executor": model.executor, "runs": runs}
    except extension.SetupError as error:
        answer = {"refused": str(error)}
    except MemoryError:
        answer = {
            "refused": f"{request['members'][0]}: expected a model that fits into memory, found it does not"
        }
    os.write(1, json.dumps(answer).encode())
    os._exit(0)  # Nothing of the runtime's is worth waiting for.
