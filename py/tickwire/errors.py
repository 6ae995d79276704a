"""The one family of errors that tickwire raises on purpose.

Whoever embeds the engine catches `tickwire.Error`; everything else that escapes is a bug. The
C++ side throws one type, translated to `SetupError` by the bindings.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "EngineError",
    "Error",
    "FingerprintMismatch",
    "MissingExtra",
    "ModelError",
    "SetupError",
    "VerifyError",
]


class Error(Exception):
    """Base of every error that tickwire raises on purpose."""


class ConfigError(Error):
    """The configuration cannot be used: the key's path, the value found, what was expected."""


class SetupError(Error):
    """Something that the engine needs before it starts is missing or unusable."""


class EngineError(Error):
    """A running engine stopped by itself; the message says which thread and why."""


class MissingExtra(Error):
    """An optional dependency is needed and not installed; the message names the extra."""


class ModelError(Error):
    """A model file cannot be used."""


class FingerprintMismatch(ModelError):
    """The model was bound to other features than the configuration computes.

    `differences` holds the lines of the message's body, one difference a line.
    """

    def __init__(self, message: str, differences: list[str] | None = None) -> None:
        super().__init__(message)
        self.differences: list[str] = list(differences or [])


class VerifyError(Error):
    """A recorded run and its replay differ, or the recording cannot be compared."""
