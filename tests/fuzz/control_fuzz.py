"""Fuzz target of the control socket: a running engine's door answers any bytes with one line of JSON and goes
on, and the command that asks takes any answer.

Input: one byte that chooses the side and whether who sends stays, then what it sends.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from guided import require

from tickwire.errors import Error, ModelError
from tickwire.runtime import control
from tickwire.runtime.control import ControlServer, ask, socket_path
from tickwire.runtime.exchange import ModelExchange

COVERS = [control]
TOKENS = [
    *(
        b'{"command":"swap"',
        b'"files":',
        b'"model":',
        b'["m.onnx"]',
        b'"blend"',
        b"null",
        b"true",
        b"1e999",
        b"NaN",
    ),
    *(
        b'"ok":',
        b'"error":',
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b'"',
        b"\n",
        b"\\ud800",
        b"-",
        b"\xff",
        b"\0",
    ),
    *(b"[" * 3000, b"1" * 5000, b'{"a":' * 2000),
]

_FOLDER = tempfile.TemporaryDirectory(prefix="tickwire-fuzz-")
_LOOP = asyncio.new_event_loop()


class _Engine:
    """As much of a run's models as the request for another model meets before it touches a file."""

    def __init__(self) -> None:
        self._config = SimpleNamespace(
            all_models=[SimpleNamespace(label="a"), SimpleNamespace(label="blend")]
        )
        self._running_id = lambda index: index
        self._choose_model = lambda name: ModelExchange._choose_model(self, name)  # type: ignore[arg-type]

    async def swap(self, files: Sequence[str], *, model: str | None) -> Any:
        if not files:
            raise ModelError("no files")
        return SimpleNamespace(name=model, id=7)

    async def answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return await ModelExchange.on_command(self, request)  # type: ignore[arg-type]


_door = ControlServer(str(Path(_FOLDER.name) / "door.stat"), {"swap": _Engine().answer})
_LOOP.run_until_complete(_door.start())
_answer = b""


async def _hostile(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    writer.write(_answer)
    writer.close()


_other = Path(_FOLDER.name) / "other.stat"
_LOOP.run_until_complete(asyncio.start_unix_server(_hostile, socket_path(_other)))


async def _request(data: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(_door.path)
    writer.write(data)
    writer.write_eof()  # A request without an end is answered as well.
    answer = await asyncio.wait_for(reader.read(), 10.0)
    writer.close()
    assert answer.endswith(b"\n"), answer
    assert answer.count(b"\n") == 1, answer
    found = json.loads(answer)
    assert isinstance(found, dict), found
    assert set(found) in ({"ok"}, {"error"}), found
    assert "a fault of ours" not in str(found.get("error")), found


async def _asked(data: bytes) -> None:
    global _answer
    _answer = data
    try:
        found = await asyncio.wait_for(ask(_other, {"command": "swap"}), 10.0)
    except Error as error:
        require(bool(str(error)), error)
    else:
        assert isinstance(found, dict), found


def run(data: bytes) -> None:
    side = _asked if data[:1] == b"\1" else _request
    _LOOP.run_until_complete(side(data[1:]))
