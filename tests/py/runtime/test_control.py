"""The door of a running engine, whoever knocks and with whatever."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from waiting import LONG_S

from tickwire.errors import Error
from tickwire.runtime import control
from tickwire.runtime.control import ControlServer


async def _swap(request: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"asked": request.get("model")}


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Path]:
    server = ControlServer(str(tmp_path / "e.stat"), {"swap": _swap})
    await server.start()
    yield server.path
    await server.close()


async def ask(path: Path, line: bytes, *, end: bool = False) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(line)
    if end:
        writer.write_eof()
    answer = await asyncio.wait_for(reader.readline(), LONG_S)
    writer.close()
    found: dict[str, Any] = json.loads(answer)
    return found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"command":"swap","model":"m"}', {"ok": {"asked": "m"}}),
        (b"[1]", {"error": "expected a JSON object, found another value"}),
        (b"7", {"error": "expected a JSON object, found another value"}),
        (b"null", {"error": "expected a JSON object, found another value"}),
        (b"{}", {"error": "expected a command of swap, found None"}),
        (b'{"command":[]}', {"error": "expected a command of swap, found []"}),
        (b'{"command":{"swap":1}}', {"error": "expected a command of swap, found {'swap': 1}"}),
        (b'{"command":"\\ud800"}', {"error": "expected a command of swap, found '\\ud800'"}),
        (b'{"command":1e999}', {"error": "expected a command of swap, found inf"}),
        (
            b'{"command":"' + b"x" * 5000 + b'"}',
            {"error": "expected a command of swap, found '" + "x" * 59 + "…"},
        ),
    ],
)
async def test_any_json_is_answered(door: Path, line: bytes, expected: dict[str, Any]) -> None:
    assert await ask(door, line + b"\n") == expected


@pytest.mark.parametrize(
    "line",
    [b"[" * 60_000, b'{"a":' * 10_000, b"1" * 5000, b"\xff\xfe", b"\0", b"{", b"", b"x" * 200_000],
    ids=["brackets", "objects", "digits", "not UTF-8", "zero", "half", "empty", "long"],
)
async def test_what_is_no_json_is_answered(door: Path, line: bytes) -> None:
    assert set(await ask(door, line + b"\n")) == {"error"}
    assert await ask(door, b'{"command":"swap"}\n') == {"ok": {"asked": None}}


async def test_an_end_without_a_request_is_answered(door: Path) -> None:
    assert set(await ask(door, b"", end=True)) == {"error"}


async def test_a_connection_that_asks_nothing_ends(door: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_IDLE_S", 0.2)
    assert await ask(door, b'{"comm') == {"error": "expected a request within 0.2 s, found none"}


async def test_idle_connections_take_no_more_than_their_share(door: Path) -> None:
    idle = [await asyncio.open_unix_connection(door) for _ in range(control._MOST_OPEN)]
    reader, writer = await asyncio.open_unix_connection(door)
    assert await asyncio.wait_for(reader.read(), LONG_S) == b""
    writer.close()
    for _, other in idle:
        other.close()

    async def answered() -> bool:
        try:
            return await ask(door, b'{"command":"swap"}\n') == {"ok": {"asked": None}}
        except (ValueError, ConnectionError):
            return False

    async with asyncio.timeout(LONG_S):
        while not await answered():  # noqa: ASYNC110 - the server forgets them in its own time.
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", "the engine ended before it answered"),
        (b'{"ok": {}}', "the engine ended before it answered"),
        (b"7\n", "expected an engine's answer there, found b'7\\n'"),
        (b'{"ok":[1]}\n', "expected an engine's answer there, found"),
        (b"{}\n", "expected an engine's answer there, found"),
        (b"[" * 60_000 + b"\n", "expected an engine's answer there, found"),
        (b"\xff\n", "expected an engine's answer there, found"),
        (b"x" * 200_000, "expected an answer of at most 65536 bytes, found more"),
        (b'{"error": ["no"]}\n', "['no']"),
        (b'{"error": "", "ok": {}}\n', "expected an engine's answer there, found"),
    ],
    ids=[
        "nothing",
        "half",
        "number",
        "list",
        "neither",
        "brackets",
        "not UTF-8",
        "long",
        "error",
        "no words",
    ],
)
async def test_an_answer_that_is_none_is_told(tmp_path: Path, answer: bytes, expected: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    stat_path = tmp_path / "e.stat"
    server = await asyncio.start_unix_server(serve, control.socket_path(stat_path))
    try:
        with pytest.raises(Error, match=re.escape(expected)):
            await asyncio.wait_for(control.ask(stat_path, {"command": "swap"}), LONG_S)
    finally:
        server.close()
