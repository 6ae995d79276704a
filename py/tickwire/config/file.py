"""A whole configuration: its tables, and what no single one of them can see."""

from __future__ import annotations

import codecs
import contextvars
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, PrivateAttr, ValidationError

from tickwire.config.feed import Feed
from tickwire.config.model import OF_PROCESSES, Model
from tickwire.config.sinks import Sink
from tickwire.config.tables import Engine, Features, Memory, Record
from tickwire.errors import ConfigError
from tickwire.features import KERNELS, Plan, Schema, compile_rows, reach
from tickwire.toml import text as toml_text
from tickwire.toml.table import Table, explain
from tickwire.toml.words import MISSING, Located, at, line
from tickwire.units import parse_duration

__all__ = ["Config"]

# What a configuration is read from: its name in errors, the folder that its paths start at, and its text.
_SOURCE: contextvars.ContextVar[tuple[str, Path | None, str | None]] = contextvars.ContextVar(
    "source", default=("", None, None)
)


class Config(Table):
    """A whole configuration file. Make one with `Config.from_toml` or `Config.from_dict`, or in Python with
    the tables' classes; however it was made, it was checked as a whole."""

    engine: Engine = Engine()
    memory: Memory = Memory()
    feeds: Annotated[list[Feed], Field(min_length=1, max_length=64)]
    features: Features
    model: Model | None = None
    models: Annotated[list[Model], Field(max_length=16)] = []
    record: Record = Record()
    sinks: list[Sink] = []

    _where: str = PrivateAttr("")
    _base: Path = PrivateAttr(Path())
    _text: str = PrivateAttr("")
    _names: list[str] = PrivateAttr(default_factory=list)
    _plan: Plan = PrivateAttr()

    def __init__(self, /, **data: Any) -> None:
        """`ConfigError` names what is wrong. Relative paths start at the working folder."""
        where, base, text = _SOURCE.get()
        prefix = f"{where}: " if where else ""
        try:
            BaseModel.__init__(self, **data)
        except ValidationError as error:
            raise ConfigError("\n".join(prefix + line for line in explain(error, data, Config))) from None
        self._where, self._base = where, base or Path.cwd()
        self._names = self._feed_names()
        try:
            self._check()
        except Located as error:
            raise ConfigError(f"{prefix}{line(error.key, str(error), error.value)}") from None
        self._text = text if text is not None else self.to_toml()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some tables changed, checked as a whole; its paths start where the original's do."""
        if not update:
            return super().model_copy(deep=deep)
        data = {**{name: getattr(self, name) for name in self.model_fields_set}, **update}
        return type(self).from_dict(data, where=self._where, base=self._base)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a file; `ConfigError` names what is wrong with it and where."""
        path = Path(path)
        try:
            with path.open("rb") as file:
                data = file.read(4 * toml_text.MAX_BYTES + 1)
            if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise ConfigError(
                    f"{path}: expected UTF-8 text, found UTF-16; convert it: iconv -f UTF-16 -t UTF-8"
                )
            text = data.decode("utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: expected UTF-8 text: {error}") from None
        return cls.from_text(text, where=str(path), base=path.resolve().parent)

    @classmethod
    def from_text(cls, text: str, *, where: str = "", base: Path | None = None) -> Self:
        """Reads TOML text. `where` names it in errors; relative paths start at `base`."""
        text = text.removeprefix("\ufeff")  # A byte order mark, as some editors write it.
        try:
            data = toml_text.parse(text)
        except ValueError as error:
            raise ConfigError(f"{where or 'configuration'}: {error}") from None
        return cls.from_dict(data, where=where, base=base, text=text)

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], *, where: str = "", base: Path | None = None, text: str | None = None
    ) -> Self:
        """Reads what a TOML file would hold. Relative paths start at `base`, else at the working folder."""
        source = _SOURCE.set((where, base, text))
        try:
            return cls.model_validate(dict(data))
        finally:
            _SOURCE.reset(source)

    def _feed_names(self) -> list[str]:
        given = {feed.name for feed in self.feeds if feed.name}
        names: list[str] = []
        for feed in self.feeds:
            name, number = feed.name or feed.venue, 1
            while not feed.name and (name in given or name in names):
                number += 1
                name = f"{feed.venue}_{number}"
            names.append(name)
        return names

    def _check(self) -> None:
        """What no single table can see."""
        self._check_feeds()
        self._check_models()
        self._check_cores()
        self._check_features()

    def _check_feeds(self) -> None:
        owners: dict[tuple[str, str], tuple[str, Feed]] = {}
        names: set[str] = set()
        for i, (feed, name) in enumerate(zip(self.feeds, self._names, strict=True)):
            if name in names:
                raise at(f"feeds[{i}].name", "expected a name that no other feed has", name)
            names.add(name)
            for j, instrument in enumerate(feed.instruments):
                path = f"feeds[{i}].instruments[{j}]"
                first = owners.setdefault((feed.venue, instrument.symbol), (path, feed))
                if first[0] == path:
                    continue
                if first[1].trades != feed.trades:
                    raise at(
                        path,
                        f"expected one trade stream of one instrument: {first[0]} reads "
                        f"{first[1].trades!r} and this feed {feed.trades!r}, which are the same trades twice",
                        instrument.symbol,
                    )
                raise at(
                    path,
                    f"expected each instrument of {feed.venue} once, but {first[0]} has it",
                    instrument.symbol,
                )

    def _check_models(self) -> None:
        if self.model is not None and self.models:
            raise at("models", "expected either [model] or [[models]]", len(self.models))
        labels: dict[str, str] = {}
        for where, model in self.located_models():
            first = labels.setdefault(model.label, where)
            if first != where:
                raise at(f"{where}.name", f"expected a name of its own, but {first} has it", model.label)
            if self.engine.layout == "inline":
                self._check_inline(where, model)
            if self.engine.layout != "processes":
                for key in OF_PROCESSES:
                    # A default may be written down, as the effective configuration does.
                    if getattr(model, key) != Model.model_fields[key].default:
                        expected = 'expected none without engine.layout = "processes"'
                        raise at(f"{where}.{key}", expected, getattr(model, key))
        if labels and all(model.shadow for model in self.all_models):
            where = next(iter(labels.values()))
            raise at(f"{where}.shadow", "expected at least one model that is no shadow", True)

    def _check_inline(self, where: str, model: Model) -> None:
        on_the_feed = 'with engine.layout = "inline", where the model runs on the agent of each feed'
        if model.cores:
            expected = f"expected none {on_the_feed}; pin that with feeds[].core"
            raise at(f"{where}.cores", expected, model.cores)
        if model.workers is not None:
            raise at(f"{where}.workers", f"expected none {on_the_feed}", model.workers)
        if model.max_batch != 1:
            raise at(f"{where}.max_batch", f"expected 1 {on_the_feed} and no row waits", model.max_batch)

    def located_models(self) -> list[tuple[str, Model]]:
        """Each model with the path of its table."""
        if self.model is not None:
            return [("model", self.model)]
        return [(f"models[{i}]", model) for i, model in enumerate(self.models)]

    def wanted_cores(self) -> list[tuple[str, int]]:
        """Each core that a thread is to be pinned to, with the path of the key that says so."""
        wanted = [
            (f"feeds[{i}].core", feed.core) for i, feed in enumerate(self.feeds) if feed.core is not None
        ]
        for where, model in self.located_models():
            wanted += [(f"{where}.cores[{i}]", core) for i, core in enumerate(model.cores)]
        return wanted

    def _check_cores(self) -> None:
        taken: dict[int, str] = {}
        for path, core in self.wanted_cores():
            if core in taken:
                raise at(path, f"expected a core of its own, but {taken[core]} has it", core)
            taken[core] = path

    def _check_features(self) -> None:
        names = [text.strip() for text in self.features.rows]
        for i, text in enumerate(names):
            if text in names[:i]:
                first = names.index(text)
                raise at(
                    f"features.rows[{i}]",
                    f"expected each expression once, but features.rows[{first}] is the same",
                    text,
                )
        try:
            self._plan = compile_rows(self.features.rows)
        except ConfigError as error:
            raise ConfigError(f"{self._where}: {error}" if self._where else str(error)) from None
        by_order = [kernel for kernel in self._plan.kernels if KERNELS[kernel].by_order]
        for i, feed in enumerate(self.feeds):
            if by_order and not feed.by_order:
                raise at(
                    f"feeds[{i}].venue",
                    f"expected a venue that tells of every order, for {by_order[0]}()",
                    feed.venue,
                )

    def warnings(self) -> list[str]:
        """What is no error and yet may not be what was meant, a line each."""
        levels = reach(self.plan)
        lines = []
        for i, feed in enumerate(self.feeds):
            limit = int(feed.snapshot_limit or 0)
            if feed.by_order or limit >= min(10 * levels, feed.deepest_snapshot):
                continue
            how_often = (
                "at every move of the best price: no row is valid between"
                if limit <= levels
                else f"each time the market moves by {limit - levels} levels or so"
            )
            lines.append(
                f"feeds[{i}].snapshot_limit: features.rows look at {levels} levels and a snapshot shows "
                f"{limit}: another one is needed {how_often}; ten times as many levels are usual"
            )
        return lines

    @property
    def plan(self) -> Plan:
        """The compiled feature expressions."""
        return self._plan

    @property
    def feed_names(self) -> list[str]:
        """Each feed's name, the given one or the one made for it, in the configuration's order."""
        return list(self._names)

    @property
    def where(self) -> str:
        """What errors call the configuration: its file."""
        return self._where

    @property
    def base(self) -> Path:
        """The folder that relative paths start at."""
        return self._base

    @property
    def text(self) -> str:
        """The configuration as TOML text: the file's own, or one written from the values."""
        return self._text

    @property
    def trigger(self) -> str:
        """`book`, `top`, `trade` or `every`."""
        return "every" if self.features.every is not None else self.features.trigger or "book"

    @property
    def every_ns(self) -> int:
        return parse_duration(self.features.every) if self.features.every is not None else 0

    @property
    def all_models(self) -> list[Model]:
        """The models, given as `[model]` or as `[[models]]`."""
        return [model for _, model in self.located_models()]

    def model_files(self, model: Model) -> list[Path]:
        """Where a model's files are."""
        return [self.path_of(path) for path in model.paths]

    def input_files(self) -> list[tuple[str, Path]]:
        """Every file that a run of this configuration reads, but for captures: what it is, and where."""
        files = [("the configuration", Path(self._where))] if self._where else []
        for model in self.all_models:
            files += [("a model", path) for path in self.model_files(model)]
        for feed in self.feeds:
            if feed.ca_file:
                files.append(("a feed's ca_file", self.path_of(feed.ca_file)))
            if feed.multicast is not None and feed.multicast.credentials:
                files.append(("the credentials", self.path_of(feed.multicast.credentials)))
        return files

    def path_of(self, text: str) -> Path:
        """A path from the configuration, relative ones taken from the configuration's own folder."""
        return self._base / Path(text).expanduser()

    def schema(self) -> Schema:  # type: ignore[override]  # pydantic's own, long deprecated.
        """What a model must be bound to: the ordered features and everything that gives them meaning."""
        streams = {feed.trades for feed in self.feeds}
        return Schema(
            plan=self.plan,
            trigger=self.trigger,
            every_ns=self.every_ns,
            clock=self.features.clock,
            window_rows=self.features.window_rows,
            trade_stream="+".join(sorted(streams)),
        )

    def max_age_ns(self, model: Model | None = None) -> int:
        """How old a signal of this model, or a row without one, may be when it leaves; 0: any age."""
        if model is not None and model.max_age_us is not None:
            return model.max_age_us * 1000
        return parse_duration(self.features.max_age)

    def error(self, key: str, expected: str, value: object = MISSING) -> ConfigError:
        """What a key does not fit to, said as everything else about the configuration."""
        return ConfigError((f"{self._where}: " if self._where else "") + line(key, expected, value))

    def to_toml(self) -> str:
        """The whole effective configuration, defaults included, as TOML text."""
        return toml_text.dump(self.model_dump(exclude_none=True))
