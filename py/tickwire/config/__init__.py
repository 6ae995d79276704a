"""Configuration: every key of `pipeline.toml`, its default, and why one would change it.

The tables here own all defaults; `tickwire.launch` makes of a whole one what the engine below gets. Nothing
here asks the host or reads another file than the configuration itself. Whatever is wrong with that is a
`ConfigError` that names the file, the key's path, the value found and what was expected:

    pipeline.toml: feeds[0].depth_intervall: unknown key, found '100ms'; nearest known key: depth_interval

Paths inside a file are relative to the file's own folder, so that a folder with a configuration, a
model and a capture can be moved as one.
"""

from __future__ import annotations

from tickwire.config.feed import Feed, Instrument
from tickwire.config.file import Config
from tickwire.config.model import Model
from tickwire.config.multicast import Multicast
from tickwire.config.sinks import Sink
from tickwire.config.tables import Engine, Features, Memory, Record

__all__ = [
    "Config",
    "Engine",
    "Features",
    "Feed",
    "Instrument",
    "Memory",
    "Model",
    "Multicast",
    "Record",
    "Sink",
]
