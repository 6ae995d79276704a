"""tickwire-ws-echo against a server of another make."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import WSMsgType, web
from waiting import LONG_S

PROGRAM = Path(sys.executable).with_name("tickwire-ws-echo")

Serve = Callable[[web.Request, web.WebSocketResponse], Awaitable[None]]


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[str]:
    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, max_msg_size=0)
        await socket.prepare(request)
        await serve(request, socket)
        return socket

    app = web.Application()
    app.router.add_get("/{tail:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def run(*arguments: str) -> tuple[int, str]:
    """Exit code and what it had to say."""
    program = await asyncio.create_subprocess_exec(PROGRAM, *arguments, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(LONG_S):
        _, said = await program.communicate()
    assert program.returncode is not None
    return program.returncode, said.decode()


async def test_echoes_text_as_text_and_binary_as_binary() -> None:
    # The last is larger than any socket buffer: it must be sent back while it waits for room.
    messages: list[str | bytes] = ["", "häß", b"\x00\xff", "x" * 70_000, b"y" * 8_000_000]
    echoed: list[str | bytes] = []

    async def serve(_: web.Request, socket: web.WebSocketResponse) -> None:
        for message in messages:
            await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
            answer = await socket.receive()
            assert answer.type is (WSMsgType.TEXT if isinstance(message, str) else WSMsgType.BINARY)
            echoed.append(answer.data)
        await socket.close()

    async with server(serve) as url:
        assert await run(url) == (0, "")
    assert echoed == messages


@pytest.mark.parametrize("given", [None, 2])
async def test_walks_the_cases_of_a_conformance_server(given: int | None) -> None:
    asked: list[str] = []

    async def serve(request: web.Request, socket: web.WebSocketResponse) -> None:
        asked.append(str(request.rel_url.raw_path_qs))
        if request.path == "/getCaseCount":
            await socket.send_str("3")
        if request.path == "/runCase":
            await socket.send_str("case")
            assert (await socket.receive()).data == "case"
        await socket.close()

    count = [] if given is None else ["--cases", str(given)]
    async with server(serve) as url:
        assert await run("--agent", "a b", *count, url) == (0, "")
    cases = [f"/runCase?case={i}&agent=a%20b" for i in range(1, (given or 3) + 1)]
    assert asked == [*(["/getCaseCount"] if given is None else []), *cases, "/updateReports?agent=a%20b"]


async def test_says_when_nobody_is_there_or_the_server_vanishes() -> None:
    async def vanish(request: web.Request, _: web.WebSocketResponse) -> None:
        assert request.transport is not None
        request.transport.abort()

    async with server(vanish) as url:
        code, said = await run(url)
    assert code == 1
    assert "connection to 127.0.0.1" in said
    code, said = await run(url)
    assert code == 1
    assert "connect to 127.0.0.1" in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "expected a URL"),
        (["--cases", "3", "ws://h"], "--cases: expected --agent"),
        (["--agent", "a", "--cases", "0", "ws://h"], "--cases: expected a positive number, found 0"),
        (["--agent"], "--agent: expected an option and its value"),
        (["--nonsense", "x", "ws://h"], "unknown option --nonsense"),
        (["ws://h", "ws://i"], "expected one URL, found a second: ws://i"),
    ],
)
def test_refuses_arguments_it_does_not_understand(arguments: list[str], expected: str) -> None:
    ended = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert expected in ended.stderr


def test_an_address_that_is_no_websocket_is_an_error() -> None:
    ended = subprocess.run([PROGRAM, "http://h"], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "arguments.url: expected" in ended.stderr
