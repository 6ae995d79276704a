"""Makes the sinks that a configuration names."""

from __future__ import annotations

from tickwire import config as settings
from tickwire.errors import ConfigError
from tickwire.sinks.base import Sink
from tickwire.sinks.door import is_loopback
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
            token = _token(config, number, entry)
            sink = WebSocketSink(
                entry.host, entry.port, entry.queue, entry.origins, hosts=entry.hosts, token=token
            )
            made.append((name, sink, _SPREAD_QUEUE))
    return made


def _token(config: settings.Config, number: int, entry: settings.WebSocketSink) -> str:
    key = f"{config.where}: " if config.where else ""
    key += f"sinks[{number}].token_file"
    try:
        token = settings.websocket_token(config.path_of(entry.token_file) if entry.token_file else None)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None
    if not token and not is_loopback(entry.host):
        raise ConfigError(
            f"{key}: required where other machines reach the sink (host = {entry.host!r}); write a token of "
            "your own into a file with mode 0600, or set TICKWIRE_WEBSOCKET_TOKEN"
        )
    return token
