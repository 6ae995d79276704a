"""The sinks that a configuration can name, a line each: where the sink's table is.

A file is loaded when a configuration has such a sink, and not before.
"""

__all__ = ["SINKS"]

SINKS = {
    "jsonl": "tickwire.sinks.jsonl:JsonlTable",
    "websocket": "tickwire.sinks.websocket:WebSocketTable",
}
