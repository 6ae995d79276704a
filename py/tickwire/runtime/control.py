"""The door of a running engine: a Unix socket beside its statistics file, for its own user alone.

One request a connection: a line of JSON in, a line of JSON out.

    {"command": "swap", "model": "NAME" or null, "files": ["/absolute/path.onnx"]}
    {"ok": {"model": "NAME", "before": "0a1b2c3d", "after": "99aabbcc", "seconds": 0.08}}
    {"error": "why not"}

`tickwire model swap` is a client of it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from tickwire.errors import Error
from tickwire.json_text import parse_json
from tickwire.private import check_socket
from tickwire.stat_file import default_directories

__all__ = ["ControlServer", "ask", "find_engine"]

_log = logging.getLogger("tickwire")

_SUFFIX = ".control"
_MAX_LINE = 1 << 16
# For a request to come whole, and for its answer to be taken.
_IDLE_S = 10.0
_MOST_OPEN = 32

Handler = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


def socket_path(stat_path: str | os.PathLike[str]) -> Path:
    """Where the engine with this statistics file listens."""
    return Path(os.fspath(stat_path) + _SUFFIX)


class ControlServer:
    """Answers requests on the event loop, one after another."""

    def __init__(self, stat_path: str, handlers: Mapping[str, Handler]) -> None:
        self.path = socket_path(stat_path)
        self._handlers = dict(handlers)
        self._server: asyncio.Server | None = None
        self._turn = asyncio.Lock()
        self._open = 0

    async def start(self) -> None:
        """`OSError` where the socket cannot be made: its folder, or the path's length (107 bytes)."""
        self.path.unlink(missing_ok=True)  # Of an engine that was killed; ours is the only one of this name.
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # Made without rights for others: a chmod of the file would leave a moment, and a umask is that
            # of all threads.
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(os.fspath(self.path))
            self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=_MAX_LINE)
        except BaseException:
            listener.close()
            raise

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= _MOST_OPEN:
            writer.transport.abort()
            return
        self._open += 1
        try:
            try:
                async with asyncio.timeout(_IDLE_S):
                    line = await reader.readline()
                answer = await self._answer(line)
            except TimeoutError:
                answer = {"error": f"expected a request within {_IDLE_S:g} s, found none"}
            except ValueError:
                answer = {"error": f"expected a line of at most {_MAX_LINE} bytes"}
            # Who asked may have gone; what was asked for is done all the same.
            writer.write(json.dumps(answer).encode() + b"\n")
            async with asyncio.timeout(_IDLE_S):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError):
            writer.transport.abort()
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, line: bytes) -> Mapping[str, Any]:
        """What to tell the client, whatever the line was and whatever came of it."""
        try:
            return {"ok": await self._handle(line)}
        except Error as error:
            return {"error": str(error)}
        except OSError as error:
            name = f"{error.filename}: " if error.filename is not None else ""
            return {"error": f"{name}{error.strerror or error}"}
        except Exception as error:
            _log.exception("a command to this run failed in a way that nobody foresaw")
            return {"error": f"a fault of ours: {type(error).__name__}: {error}; its log has the place"}

    async def _handle(self, line: bytes) -> Mapping[str, Any]:
        try:
            request = parse_json(line)
        except ValueError as error:
            raise Error(f"expected a line of JSON: {error}") from None
        if not isinstance(request, dict):
            raise Error("expected a JSON object, found another value")
        name = request.get("command")
        if not isinstance(name, str) or name not in self._handlers:
            found = repr(name)
            found = found if len(found) <= 60 else found[:60] + "…"
            raise Error(f"expected a command of {', '.join(self._handlers)}, found {found}")
        async with self._turn:
            return await self._handlers[name](request)


def find_engine() -> Path:
    """The statistics file of the one engine that this user has running; `Error` when it is not one."""
    found = sorted(
        path
        for place in default_directories()
        for path in place.glob(f"*{_SUFFIX}")
        if not check_socket(path) and _answers(path)
    )
    if not found:
        raise Error(
            "expected a running engine of this user, found none; name one's statistics file with --engine"
        )
    if len(found) > 1:
        files = ", ".join(str(path).removesuffix(_SUFFIX) for path in found)
        raise Error(f"expected one running engine, found {len(found)}; choose one with --engine: {files}")
    return Path(str(found[0]).removesuffix(_SUFFIX))


def _answers(path: Path) -> bool:
    """False for the socket of an engine that was killed."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(os.fspath(path))
        except OSError:
            return False
    return True


def _user_of(connection: Any) -> int:
    """Who listens at the other end of a Unix socket."""
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


async def ask(stat_path: str | os.PathLike[str], request: Mapping[str, Any]) -> dict[str, Any]:
    """Sends a request to a running engine; its answer. `Error` with the engine's reason, or ours."""
    path = socket_path(stat_path)
    if why := check_socket(path):
        raise Error(f"{path}: {why}")
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=_MAX_LINE)
    except OSError as error:
        raise Error(f"{path}: no engine answers there: {error.strerror or error}") from None
    try:
        # Looked at again where it counts: the name may have become another socket's meanwhile.
        if (uid := _user_of(writer.get_extra_info("socket"))) != os.geteuid():
            raise Error(f"{path}: expected an engine of this user's, found one of user {uid}")
        writer.write(json.dumps(dict(request)).encode() + b"\n")
        await writer.drain()
        line = await reader.readline()
    except OSError as error:
        raise Error(f"{path}: the engine broke off: {error.strerror or error}") from None
    except ValueError:
        raise Error(f"{path}: expected an answer of at most {_MAX_LINE} bytes, found more") from None
    finally:
        writer.close()
    if not line.endswith(b"\n"):
        raise Error(f"{path}: the engine ended before it answered")
    try:
        answer = parse_json(line)
    except ValueError:
        answer = None
    found = answer if isinstance(answer, dict) else {}
    if found.get("error"):
        raise Error(str(found["error"]))
    # An error that says nothing is no answer, whatever stands beside it.
    result = None if "error" in found else found.get("ok")
    if not isinstance(result, dict):
        raise Error(f"{path}: expected an engine's answer there, found {line[:60]!r}")
    return result
