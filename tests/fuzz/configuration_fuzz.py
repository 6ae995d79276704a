"""Fuzz target of configuration files: whatever a file holds, it is refused in words that name it, or is a
configuration that says of itself, in TOML again, what it is.

Input: the file.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from guided import require

from tickwire.config import Config
from tickwire.errors import ConfigError, Error
from tickwire.launch import resolve
from tickwire.runtime.workers import worker_policies

COVERS = [
    module
    for name, module in sorted(sys.modules.items())
    if name.startswith(("tickwire.config.", "tickwire.toml.", "tickwire.launch"))
]
TOKENS = [
    token.encode()
    for token in sorted(
        set(
            re.findall(
                r"^    ([a-z_]+): ", "".join(inspect.getsource(module) for module in COVERS), re.MULTILINE
            )
        )
    )
] + [
    token.encode()
    for token in (
        *(
            "binance_spot",
            "binance_usdm",
            "binance_coinm",
            "nasdaq_itch",
            "websocket",
            "multicast",
            "file",
            "jsonl",
        ),
        *(
            "[[feeds]]\n",
            "[features]\n",
            "[model]\n",
            "[[models]]\n",
            "[[sinks]]\n",
            "[engine]\n",
            "[memory]\n",
        ),
        *(
            "[record]\n",
            "[feeds.multicast]\n",
            "inline",
            "threads",
            "processes",
            "require",
            "suspect",
            "trade",
            "top",
        ),
        *(
            '"1s"',
            '"250ms"',
            '"0us"',
            '"1d"',
            '"-1s"',
            '"1e9s"',
            "true",
            "false",
            "-1",
            "0",
            "1e400",
            "nan",
            "inf",
        ),
        *(
            "18446744073709551616",
            "0x7f",
            "1979-05-27T07:32:00Z",
            "[]",
            "{}",
            "{a=1}",
            '""',
            "'''",
            '"""',
            "\\ud83d",
        ),
        *(
            "spread()",
            "imbalance(levels=5)",
            "ofi(levels=5, window='1s')",
            "239.1.1.1:9000",
            "[ff02::1]:9000",
        ),
        *("\0", "\r\n", "\ufeff", "é", "=", ".", "..", "/", "#", "lines = [", "instruments = ["),
    )
]

_FOLDER = tempfile.TemporaryDirectory(prefix="tickwire-fuzz-")
_FILE = Path(_FOLDER.name) / "fuzz.toml"
(_FILE.parent / "m.onnx").write_bytes(b"a model")


def _plain(settings: Config) -> dict[str, Any]:
    return settings.model_dump(mode="json")


def run(data: bytes) -> None:
    _FILE.write_bytes(data)
    try:
        found = Config.from_toml(_FILE)
    except ConfigError as error:
        # Each line says which file, and may quote it: no more of it than a screen holds.
        require(str(error).startswith(str(_FILE)), error)
        require(all(len(line) < 2000 for line in str(error).splitlines()), error)
        return
    again = Config.from_text(found.to_toml(), base=found.base)
    assert str(_plain(again)) == str(_plain(found))
    assert len(found.feed_names) == len(set(found.feed_names)) == len(found.feeds)
    assert all(isinstance(line, str) and line for line in found.warnings())
    assert len(found.plan.names) >= len(found.features.rows)
    # As the engine gets it, or why this host cannot run it: cores, models, credentials.
    with contextlib.suppress(Error):
        resolved = resolve(found)
        assert [feed["name"] for feed in resolved["feeds"]] == found.feed_names
    assert len(worker_policies(found)) == len(found.all_models)
