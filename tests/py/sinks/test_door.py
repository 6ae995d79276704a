"""The door of the WebSocket sink: who is let in, who is turned away, and that nobody can block it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop
from configuring import one_feed
from fake_rows import signals
from waiting import LONG_S, until

from tickwire.errors import ConfigError, SetupError
from tickwire.launch import make_sinks
from tickwire.sinks import door
from tickwire.sinks.websocket import WebSocketSink

TOKEN = "correct-horse-battery"
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


async def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    """Without blocking: the loop accepts, too."""
    client = socket.socket()
    client.setblocking(False)
    client.bind((source, 0))
    async with asyncio.timeout(LONG_S):
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    return client


async def ask(client: socket.socket, path: str = "/", **headers: str) -> int:
    """The status of the answer; 0 where the connection was closed without one."""
    loop = asyncio.get_running_loop()
    lines = [f"GET {path} HTTP/1.1", *(f"{key.replace('_', '-')}: {value}" for key, value in headers.items())]
    async with asyncio.timeout(LONG_S):
        try:
            await loop.sock_sendall(client, ("\r\n".join(lines) + "\r\n\r\n").encode())
            text = await loop.sock_recv(client, 4096)
        except ConnectionError:
            return 0
    return int(text.split()[1]) if text else 0


async def closed(client: socket.socket) -> None:
    """Until the other side has closed it."""
    async with asyncio.timeout(LONG_S):
        with contextlib.suppress(ConnectionError):
            assert await asyncio.get_running_loop().sock_recv(client, 1) == b""


async def flood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle connections, more than there is room for, and a program that comes in the midst of them."""
    monkeypatch.setattr(door, "PATIENCE_S", 0.3)
    monkeypatch.setattr(door, "MAX_VISITORS", 8)
    monkeypatch.setattr(door, "MAX_OF_AN_ADDRESS", 5)
    sink = WebSocketSink(port=0)
    await sink.open()
    idle: list[socket.socket] = []
    try:
        for _ in range(40):
            idle.append(await connect(sink.port))
        await until(lambda: sink.door.turned_away == 35)
        assert len(sink.door.visitors) == 5
        # When those have had their time, there is room again.
        await until(lambda: sink.door.too_slow == 5)
        for client in idle:
            await closed(client)
        assert len(sink.door.visitors) == 0
        async with aiohttp.ClientSession() as session, session.ws_connect(sink.url) as program:
            await asyncio.sleep(0.4)  # A WebSocket may stay.
            await sink.write(signals(1))
            assert json.loads((await program.receive(timeout=LONG_S)).data)["row"] == 1
            counters = sink.counters()
            assert (counters["clients"], counters["connections_turned_away"]) == (1, 35)
            assert counters["connections_too_slow"] == 5
        await until(lambda: not sink.door.visitors)
    finally:
        for client in idle:
            client.close()
        await sink.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_idle_connections_are_few_and_short(
    run: Callable[[Awaitable[None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(flood(monkeypatch))


async def test_one_address_does_not_take_all_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_OF_AN_ADDRESS", 2)
    sink = WebSocketSink("0.0.0.0", port=0, token=TOKEN)
    await sink.open()
    clients = []
    try:
        for _ in range(5):
            clients.append(await connect(sink.port))
        await until(lambda: sink.door.turned_away == 3)
        other = await connect(sink.port, "127.0.0.2")
        clients.append(other)
        here = {"Host": f"127.0.0.1:{sink.port}", **UPGRADE}
        assert await ask(other, Authorization=f"Bearer {TOKEN}", **here) == 101
    finally:
        for client in clients:
            client.close()
        await sink.close()


async def test_descriptors_stay_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = WebSocketSink(port=0)
    await sink.open()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/proc/self/fd"))
    monkeypatch.setattr(door, "RESERVED", 20)
    clients: list[socket.socket] = []
    taken = [os.open("/dev/null", os.O_RDONLY)]
    while taken[-1] <= used:  # No gap is left below.
        taken.append(os.open("/dev/null", os.O_RDONLY))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 31, hard))
        # A connection within this process takes two: its own end and the sink's. Five fit.
        for _ in range(12):
            clients.append(await connect(sink.port))
            await asyncio.sleep(0.01)
        await until(lambda: sink.door.turned_away == 7)
        assert len(sink.door.visitors) == 5
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)
        for client in clients:
            client.close()
        await sink.close()


async def test_what_a_request_must_say(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = WebSocketSink(
        port=0, hosts=["signals.desk.example"], token=TOKEN, origins=["https://desk.example"]
    )
    await sink.open()
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    here = {"Host": f"127.0.0.1:{sink.port}"}
    try:
        for status, path, headers in (
            (101, "/", {**here, **bearer}),
            (101, "/any", {"Host": "localhost", **bearer}),
            (101, "/", {"Host": "Signals.Desk.Example:443", **bearer}),
            (101, f"/?token={TOKEN}", {**here, "Origin": "https://desk.example"}),
            (401, "/", here),
            (401, "/", {**here, "Authorization": f"Bearer {TOKEN}x"}),
            (401, "/", {**here, "Authorization": f"Basic {TOKEN}"}),
            (401, f"/?token={TOKEN[:-1]}", here),
            (401, "/?token=%C3%A4", here),
            (403, "/", {"Host": "evil.example", **bearer}),
            (403, "/", {"Host": f"127.0.0.1.evil.example:{sink.port}", **bearer}),
            (403, "/", {"Host": "[::1", **bearer}),
            (403, f"/?token={TOKEN}", {**here, "Origin": "https://evil.example"}),
            (403, f"/?token={TOKEN}", {**here, "Origin": "null"}),
        ):
            client = await connect(sink.port)
            assert await ask(client, path, **headers, **UPGRADE) == status, (path, headers)
            if status != 101:
                await closed(client)
            client.close()
        client = await connect(sink.port)
        assert await ask(client, "/", **bearer, **UPGRADE) in (0, 400, 403), "no host at all"
        client.close()
        assert sink.counters()["clients_refused"] >= 10
    finally:
        await sink.close()


def sinks(entry: dict[str, Any], base: Path) -> list[Any]:
    config = one_feed(base=base, where="pipeline.toml", sinks=[{"type": "websocket", **entry}])
    return [sink for _, sink, _ in make_sinks(config)]


def test_an_address_of_other_machines_needs_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TICKWIRE_WEBSOCKET_TOKEN", raising=False)
    for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9"):
        assert len(sinks({"host": host}, tmp_path)) == 1
    for host in ("0.0.0.0", "::", "192.0.2.7", "signals.example", ""):
        with pytest.raises(
            ConfigError, match=r"pipeline.toml: sinks\[0\].token_file: required where other machines"
        ):
            sinks({"host": host}, tmp_path)
    with pytest.raises(SetupError, match="expected a token"):
        WebSocketSink("0.0.0.0")
    secret = tmp_path / "token"
    secret.write_text(TOKEN + "\n")
    secret.chmod(0o600)
    entry = {"host": "0.0.0.0", "token_file": "token"}
    (made,) = sinks(entry, tmp_path)
    assert made.door._token == TOKEN.encode()
    for mode in (0o604, 0o640, 0o644, 0o620):
        secret.chmod(mode)
        with pytest.raises(ConfigError, match=rf"sinks\[0\].token_file: .*found mode {mode:04o}: chmod 600"):
            sinks(entry, tmp_path)
    secret.chmod(0o600)
    for text in ("short", "a b" * 10, "ü" * 20, "", "x" * 600):
        secret.write_text(text)
        with pytest.raises(ConfigError, match="token_file: expected one line of 16 to 512") as error:
            sinks(entry, tmp_path)
        assert not text or text not in str(error.value)
    secret.unlink()
    with pytest.raises(ConfigError, match=r"token_file: expected a file that can be read \(No such file"):
        sinks(entry, tmp_path)
    os.mkfifo(secret, 0o600)
    with pytest.raises(ConfigError, match="token_file: expected a regular file"):
        sinks(entry, tmp_path)
    monkeypatch.setenv("TICKWIRE_WEBSOCKET_TOKEN", TOKEN)
    assert len(sinks({"host": "0.0.0.0"}, tmp_path)) == 1
    monkeypatch.setenv("TICKWIRE_WEBSOCKET_TOKEN", "short")
    with pytest.raises(ConfigError, match="in TICKWIRE_WEBSOCKET_TOKEN"):
        sinks({"host": "0.0.0.0"}, tmp_path)
