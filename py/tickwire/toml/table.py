"""What every table of the configuration is made of."""

from __future__ import annotations

import contextlib
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tickwire.errors import ConfigError
from tickwire.json_text import parse_json
from tickwire.names import check_name, nearest
from tickwire.toml.words import MISSING, Located, in_our_words, line, named, shown
from tickwire.units import DURATION, parse_duration

__all__ = ["AnyTable", "Duration", "Name", "Table", "checked", "explain", "table_of"]


def _check_duration(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f"expected {DURATION}")
    parse_duration(value)
    return value


Duration = Annotated[str, BeforeValidator(_check_duration)]
"""A length of time as text with its unit. A bare number is refused: nobody remembers which unit it was."""


_STAYS = "expected to stay as it was checked"
_WAY_OUT = "make a copy with model_copy(update={…})"


class Table(BaseModel):
    """A table. Made from a file or in Python, every check runs, and `ConfigError` names what does not fit."""

    # Strict: TOML has types, so `levels = "5"` is a mistake to report and not a number to find.
    # A table that is handed over ready-made is looked at again: it may be a changed copy of another one.
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        defer_build=True,
        revalidate_instances="always",
    )

    hides_values: ClassVar[bool] = False
    """Is the value of an unknown key kept out of the error? It may be a secret under another name."""

    def __init__(self, /, **data: Any) -> None:
        """`ConfigError` names the keys that do not fit."""
        with self._in_our_words(data):
            super().__init__(**data)

    # A table inside another one is not made by calling this: its errors are located by the outermost.
    setattr(__init__, "__pydantic_base_init__", True)  # noqa: B010

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """A table of a mapping, or of another table; `ConfigError` names the keys that do not fit."""
        with cls._in_our_words(obj):
            return super().model_validate(obj, **options)

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """A table of JSON text; `ConfigError` names the keys that do not fit."""
        data: object = MISSING
        with contextlib.suppress(ValueError):
            data = parse_json(json_data)
        with cls._in_our_words(data):
            return super().model_validate_json(json_data, **options)

    @classmethod
    def model_validate_strings(cls, obj: Any, **options: Any) -> Self:
        """A table of a mapping with texts alone; `ConfigError` names the keys that do not fit."""
        with cls._in_our_words(obj):
            return super().model_validate_strings(obj, **options)

    @classmethod
    def part(cls, value: object) -> Self:
        """A table inside another one, whose error the outermost locates."""
        return super().model_validate(value)

    @classmethod
    @contextlib.contextmanager
    def _in_our_words(cls, data: object) -> Iterator[None]:
        try:
            yield
        except ValidationError as error:
            raise ConfigError("\n".join(explain(error, data, cls))) from None

    def __setattr__(self, name: str, value: object) -> None:
        """Of nothing but what a table keeps for itself: whoever has the table relies on it."""
        if not name.startswith("_"):
            raise ConfigError(f"{line(name, _STAYS, value)}; {_WAY_OUT}")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        raise ConfigError(f"{name}: {_STAYS}; {_WAY_OUT}")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some keys changed, checked as the original was; `ConfigError` where they do not fit."""
        if not update:
            return super().model_copy(deep=deep)
        return type(self)(**{**{name: getattr(self, name) for name in self.model_fields_set}, **update})

    def copy(self, **options: Any) -> Self:
        """As `model_copy`: pydantic's own, long deprecated, checks nothing."""
        return self.model_copy(**options)

    @classmethod
    def of(cls, value: object) -> AnyTable:
        """Which table a value is meant to be: this one, unless something in it says which."""
        return cls


AnyTable = type[Table]
"""The class of a table."""


def checked(check: Callable[[str], str | None]) -> AfterValidator:
    """A check of tickwire.names, as pydantic wants it."""

    def of(value: str) -> str:
        expected = check(value)
        if expected is not None:
            raise ValueError(expected)
        return value

    return AfterValidator(of)


Name = Annotated[str, Field(max_length=40), checked(check_name)]
"""Of a feed or a model."""


def explain(error: ValidationError, data: object, root: AnyTable) -> list[str]:
    """One line a finding, in the order of the file's tables. `root`: what the data should have made."""
    lines = []
    # What is wrong with the whole has no key.
    whole = root.__name__.lstrip("_")
    for item in error.errors(include_url=False):
        path, value, model = locate(item["loc"], data, root)
        kind, context = item["type"], item.get("ctx", {})
        cause = context.get("error")
        if kind == "extra_forbidden":
            key = str(item["loc"][-1])
            known = list(model.model_fields) if model is not None else []
            close = nearest(key, known, cutoff=0.5)
            hint = f"nearest known key: {close}" if close else f"known keys: {', '.join(known)}"
            # Not what may be a password under another name.
            found = "" if model is not None and model.hides_values else f", found {shown(value)}"
            lines.append(f"{path}: unknown key{found}; {hint}")
        elif kind == "missing":
            lines.append(f"{path}: required")
        elif isinstance(cause, Located):
            key = ".".join(part for part in (path, named(cause.key)) if part)
            lines.append(line(key, str(cause), cause.value))
        elif isinstance(cause, ValueError):
            lines.append(line(path or whole, str(cause), value))
        else:
            lines.append(line(path or whole, in_our_words(kind, context, item["msg"], value), value))
    return lines


def locate(loc: tuple[int | str, ...], data: object, root: AnyTable) -> tuple[str, object, AnyTable | None]:
    """The key's path as the file shows it, the value there, and the table that holds the key."""
    path, value = "", data
    model: AnyTable | None = root
    holder: AnyTable | None = root
    for part in loc:
        if isinstance(value, BaseModel):  # A table made in Python.
            value = {name: item for name, item in value.__dict__.items() if name in type(value).model_fields}
        if isinstance(part, int):
            path += f"[{part}]"
            value = value[part] if isinstance(value, list) and part < len(value) else MISSING
        else:
            path += f".{named(part)}" if path else named(part)
            held, value = value, value.get(part, MISSING) if isinstance(value, Mapping) else MISSING
            holder = model.of(held) if model is not None else None
            model = table_of(holder, part)
    return path, value, holder


def table_of(model: AnyTable | None, field: str) -> AnyTable | None:
    """What the values of a key are, where they are tables."""
    if model is None or field not in model.model_fields:
        return None
    pending: list[Any] = [model.model_fields[field].annotation]
    while pending:
        kind = pending.pop()
        if isinstance(kind, type) and issubclass(kind, Table):
            return kind
        pending.extend(typing.get_args(kind))
    return None
