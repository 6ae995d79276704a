"""Tickwire: a market-data feed to model signals, on one host, in microseconds.

import tickwire as tw

async with tw.Pipeline.from_toml("pipeline.toml") as pipeline:
    async for signal in pipeline.signals():
        print(signal.instrument, signal.score, signal.latency_ns)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
    from tickwire.config import Config as Config
    from tickwire.errors import ConfigError as ConfigError
    from tickwire.errors import EngineError as EngineError
    from tickwire.errors import Error as Error
    from tickwire.errors import FingerprintMismatch as FingerprintMismatch
    from tickwire.errors import MissingExtra as MissingExtra
    from tickwire.errors import ModelError as ModelError
    from tickwire.errors import SetupError as SetupError
    from tickwire.errors import VerifyError as VerifyError
    from tickwire.pipeline import Pipeline as Pipeline
    from tickwire.records import FeatureBatch as FeatureBatch
    from tickwire.records import Signal as Signal
    from tickwire.stats import Stats as Stats

# Loaded when first used, so that `tickwire --help` does not wait for NumPy and aiohttp.
_HOMES = {
    "Config": "config",
    "ConfigError": "errors",
    "EngineError": "errors",
    "Error": "errors",
    "FeatureBatch": "records",
    "FingerprintMismatch": "errors",
    "MissingExtra": "errors",
    "ModelError": "errors",
    "Pipeline": "pipeline",
    "SetupError": "errors",
    "Signal": "records",
    "Stats": "stats",
    "VerifyError": "errors",
}

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("tickwire")
        except PackageNotFoundError:  # A source tree on the path, not installed.
            return "0+unknown"
    if name in _HOMES:
        value = getattr(importlib.import_module(f"tickwire.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'tickwire' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
