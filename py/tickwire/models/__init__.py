"""Model files: what is in one, to which features it belongs, and how that is written into it.

A model is trained on rows of one feature schema and gives nonsense on any other, so the file itself
carries the schema: canonical JSON under `tickwire.schema` in its ONNX metadata and the JSON's SHA-256
under `tickwire.schema.sha256`. `bind` writes them, `check` compares them before an engine starts.

What a file declares is read here; whether it runs, and with which scores, is asked of the engine's own loader
(`load`), so that no second opinion can differ from the start's.
"""

from tickwire.models.binding import (
    SCHEMA_KEY,
    SHA256_KEY,
    ModelSummary,
    bind,
    check,
    check_fingerprint,
    inspect,
)
from tickwire.models.demo import make_demo_model
from tickwire.models.files import Port
from tickwire.models.loading import load, providers, try_out
from tickwire.models.optimizing import Optimized, optimize

__all__ = [
    "SCHEMA_KEY",
    "SHA256_KEY",
    "ModelSummary",
    "Optimized",
    "Port",
    "bind",
    "check",
    "check_fingerprint",
    "inspect",
    "load",
    "make_demo_model",
    "optimize",
    "providers",
    "try_out",
]
