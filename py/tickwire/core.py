"""The one door to what is compiled: the extension, the worker program, another wheel's runtime library.

`core.extension` is the module `tickwire._core`, with the types of its stub. Whoever uses it looks
it up here each time: one place says what to do about its absence, and a test puts another one in one place.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path

from tickwire.errors import ConfigError, SetupError

try:
    from tickwire import _core as extension
except ImportError as error:
    raise SetupError(
        f"tickwire's compiled engine cannot be loaded: {error}; build it with `make setup`"
    ) from error

__all__ = ["extension", "onnxruntime_library", "worker_program"]


def onnxruntime_library() -> Path:
    """The shared library inside the installed onnxruntime wheel, which the engine opens.

    The package is looked up, not imported: its Python module is another copy of the runtime, and an
    engine needs only the one.
    """
    expected = "onnxruntime: expected the wheel of version 1.21 or newer"
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or not spec.submodule_search_locations:
        raise SetupError(f"{expected}, found none installed; pip install 'onnxruntime>=1.21'")
    folders = [Path(location) / "capi" for location in spec.submodule_search_locations]
    found = sorted(file for folder in folders for file in folder.glob("libonnxruntime.so*"))
    if not found:
        raise SetupError(f"{expected} with libonnxruntime.so in it, found none in {folders[0]}")
    return found[-1]


def worker_program() -> Path:
    """The program that runs a model in a process of its own: $TICKWIRE_WORKER, else what was installed."""
    if named := os.environ.get("TICKWIRE_WORKER"):
        places = [Path(named)]
    else:
        places = [Path(sysconfig.get_path("scripts")) / "tickwire-worker"]
        places.append(Path(sys.executable).with_name("tickwire-worker"))
        if (found := shutil.which("tickwire-worker")) is not None:
            places.append(Path(found))
    for place in places:
        if os.access(place, os.X_OK) and place.is_file():
            return place
    tried = ", ".join(dict.fromkeys(map(str, places)))
    raise ConfigError(
        'engine.layout: "processes" needs the program tickwire-worker, which is installed with tickwire: '
        f"expected it at {tried}; install tickwire again, or name its place in TICKWIRE_WORKER"
    )
