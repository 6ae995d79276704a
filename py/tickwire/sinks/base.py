"""What a sink is, and the task that runs one."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

if TYPE_CHECKING:  # With NumPy; a configuration needs none.
    from tickwire.records import Signal
    from tickwire.router.consumers import SignalQueue

__all__ = ["Sink", "SinkRunner", "encode", "public_url"]

_log = logging.getLogger("tickwire.sinks")

# How long a sink may take to write what it still has when the pipeline stops.
_CLOSE_S = 5.0

_encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"), ensure_ascii=False)


def encode(signal: Signal) -> str:
    """One signal as one line of JSON, without its newline."""
    return _encoder.encode(signal.as_dict())


@runtime_checkable
class Sink(Protocol):
    """Takes batches of signals. What it raises is counted, reported once, and the next batch comes anyway.

    A sink may have a method `counters()` that returns a dictionary of its own figures. `lost` among them are
    signals that a `write` took and did not raise for, yet could not get to where they belong.
    """

    async def write(self, signals: Sequence[Signal], /) -> None: ...


def public_url(url: str) -> str:
    """The part of an address that may be shown: no user, no password, no query with a token in it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "an address that cannot be read"
    host = f"[{host}]" if ":" in host else host
    where = f"{host}:{port}" if port is not None else host
    return f"{parts.scheme}://{where}{parts.path}" if parts.scheme else where + parts.path


class SinkRunner:
    """Runs one sink on its own queue. Each signal that its queue was offered ends in one of three counts:
    delivered, dropped (it never reached the sink) or lost (the sink had it and failed, or was stuck)."""

    def __init__(self, name: str, sink: Sink, queue: SignalQueue) -> None:
        self.name = name
        self.sink = sink
        self.queue = queue
        self.errors = 0
        self._written = 0  # In batches that came back from the sink.
        self._lost = 0  # In batches that raised, or that it was still busy with when it was given up.
        self._in_hand = 0  # In the batch that it is busy with.
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Opens the sink and starts its task. What `open` raises is a set-up error and raised."""
        await _call(self.sink, "open")
        self.begin()

    def begin(self) -> None:
        """Starts the task of a sink that needs no opening, or is open."""
        self._task = asyncio.create_task(self._run(), name=f"tickwire sink {self.name}")

    async def close(self) -> None:
        """Lets the sink write what it has, for a bounded time, and closes it."""
        self.queue.close()
        if self._task is not None:
            _, late = await asyncio.wait([self._task], timeout=_CLOSE_S)
            if late:
                self._task.cancel()
                await asyncio.wait([self._task], timeout=1.0)
                self._lost += self._in_hand
                self._in_hand = 0
                self.queue.dropped += len(self.queue.take(len(self.queue)))
                _log.warning("sink %s: did not finish within %g s; the rest is dropped", self.name, _CLOSE_S)
        try:
            await asyncio.wait_for(_call(self.sink, "close"), _CLOSE_S)
        except Exception as error:  # One sink's trouble must not keep the others from closing.
            _log.warning("sink %s: %s while closing: %s", self.name, type(error).__name__, error)

    def counters(self) -> dict[str, int]:
        """What this sink got and lost; the sink's own `counters()` included."""
        method = getattr(self.sink, "counters", None)
        own: dict[str, int] = dict(method()) if callable(method) else {}
        counts = {
            "delivered": self._written - own.get("lost", 0),
            "dropped": self.queue.dropped,
            "errors": self.errors,
            "lost": self._lost,
        }
        for key, value in own.items():
            counts[key] = counts.get(key, 0) + value
        return counts

    async def _run(self) -> None:
        while batch := await self.queue.get():
            self._in_hand = len(batch)
            try:
                await self.sink.write(batch)
            except Exception as error:
                if self.errors == 0:
                    _log.warning("sink %s: %s: %s (reported once)", self.name, type(error).__name__, error)
                self.errors += 1
                self._lost += self._in_hand
            else:
                self._written += self._in_hand
            self._in_hand = 0  # Given up meanwhile, it was 0 already.


async def _call(sink: Any, name: str) -> None:
    method = getattr(sink, name, None)
    if method is not None:
        result = method()
        if inspect.isawaitable(result):
            await result
