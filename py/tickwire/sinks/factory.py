"""Makes the sinks that a configuration names."""

from __future__ import annotations

from tickwire import config as settings
from tickwire.sinks.base import Sink
from tickwire.sinks.jsonl import JsonlSink
from tickwire.sinks.websocket import WebSocketSink

__all__ = ["make_sinks"]

# Signals between the router and the WebSocket sink, which only spreads them over its clients' queues.
_SPREAD_QUEUE = 8192


def make_sinks(config: settings.Config) -> list[tuple[str, Sink, int]]:
    """Name, sink and queue limit of each entry of `[[sinks]]`."""
    made: list[tuple[str, Sink, int]] = []
    for number, entry in enumerate(config.sinks):
        name = f"{entry.type}_{number}"
        if isinstance(entry, settings.JsonlSink):
            path = entry.path if entry.path == "-" else str(config.path_of(entry.path))
            made.append((name, JsonlSink(path), entry.queue))
        else:
            sink = WebSocketSink(entry.host, entry.port, entry.queue, entry.origins)
            made.append((name, sink, _SPREAD_QUEUE))
    return made
