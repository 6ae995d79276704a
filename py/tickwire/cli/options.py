"""How a command is declared, and the arguments that several have.

A command is a class: its docstring is the help, its fields are the arguments, each written once. What it does
is a function elsewhere, named by text and loaded when the command runs, which takes the arguments as this
class has them. So `tickwire --help` loads nothing heavy.
"""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.models import OptionInfo

__all__ = [
    "Config",
    "HostConfig",
    "HostCores",
    "HostEnv",
    "Json",
    "MaxBatch",
    "ModelPath",
    "Record",
    "Strict",
    "command",
    "out",
    "seconds",
    "words",
]

_C = TypeVar("_C", bound=type)


def command(group: typer.Typer, does: str, *, name: str | None = None, **settings: Any) -> Callable[[_C], _C]:
    """Makes of a dataclass a command of `group`, its name in lower case where none is given. `does` is where
    its function is, as `package.module:function`; what that returns is the exit code."""

    def declare(kind: _C) -> _C:
        def run(**given: Any) -> None:
            module, _, function = does.partition(":")
            code: int | None = getattr(importlib.import_module(module), function)(kind(**given))
            raise typer.Exit(code or 0)

        hints = _hints(kind)
        signature = inspect.signature(kind)
        parameters = [each.replace(annotation=hints[each.name]) for each in signature.parameters.values()]
        run.__doc__ = kind.__doc__
        run.__annotations__ = hints
        vars(run)["__signature__"] = signature.replace(parameters=parameters, return_annotation=None)
        group.command(name or kind.__name__.lower(), **settings)(run)
        return kind

    return declare


def _hints(kind: type) -> dict[str, Any]:
    known = typing.get_type_hints(kind, include_extras=True)
    return {each.name: known[each.name] for each in fields(kind)}


def words(arguments: Any) -> list[str]:
    """The options that a command was given, as a command line has them."""
    line: list[str] = []
    for name, hint in _hints(type(arguments)).items():
        (info,) = (each for each in hint.__metadata__ if isinstance(each, OptionInfo))
        value = getattr(arguments, name)
        if value is not None and value is not False:
            # What typer takes for the default of an option is its name, where it stands in an annotation.
            line += [str(info.default)] if value is True else [str(info.default), str(value)]
    return line


def seconds(help: str, least: float, most: float | None = None) -> Any:
    return typer.Option("--seconds", min=least, max=most, help=help)


def out(help: str) -> Any:
    return typer.Option("--out", help=help)


Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="The pipeline's TOML file.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object last, on standard output.")]
ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file, or a .ort file.")]
MaxBatch = Annotated[int, typer.Option("--max-batch", min=1, max=64, help="Most rows in one run.")]
Record = Annotated[Path | None, typer.Option("--record", metavar="DIR", help="Record the run, for `verify`.")]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Exit 1 where the report has a note: something was lost, unused or missing."
    ),
]
HostConfig = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The engine's cores: those of this pipeline.")
]
HostEnv = Annotated[Path | None, typer.Option("--env", metavar="FILE", help="Those of this host.env.")]
HostCores = Annotated[str | None, typer.Option("--cores", metavar="LIST", help="These: 2-3,8.")]
