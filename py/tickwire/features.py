"""Features: the expressions a row is made of, their compilation, and the schema a model is bound to.

A feature is a call: `zscore(ofi(levels=5, window="1s"), window="30s")`. One grammar serves the
configuration, Python and a model's metadata:

    expression = kernel "(" [ argument { "," argument } [ "," ] ] ")"
    argument   = [ parameter "=" ] ( expression | integer | duration )
    duration   = '"' number unit '"'        single quotes do as well; ns, us, ms, s, m, h

`KERNELS` says what each kernel computes; the values come from one C++ code path, live, in replay and
in a data set. Here is no arithmetic: `compile_rows` turns text into the plan that the C++ side runs,
with each distinct sub-expression in it once.

A `window` is a duration, `(t - w, t]` on the instrument's clock, or a count: of samples where an
expression is wrapped, which is sampled once at each book event; else of book events or of trades. A
kernel is warm once its duration has passed since the epoch began (or since the expression it wraps
became warm), or once its count is full. No row leaves before all are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tickwire.config import parse_duration
from tickwire.errors import ConfigError, ModelError
from tickwire.names import nearest

__all__ = [
    "KERNELS",
    "KERNEL_VERSIONS",
    "Duration",
    "Expression",
    "ExpressionError",
    "Kernel",
    "Parameter",
    "Plan",
    "Schema",
    "compile_rows",
    "parse",
    "reach",
]

MAX_LENGTH = 1000
"""Characters of an expression."""
MAX_DEPTH = 16
"""Calls inside calls."""
MAX_LEVELS = 1000
MAX_COUNT = 1_000_000
"""Samples, events or trades of a window; samples of a lag."""
MAX_DURATION_NS = 7 * 24 * 3600 * 1_000_000_000

_UNITS = (
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
)


class ExpressionError(ConfigError):
    """A feature expression cannot be used. The message names the row and the column."""


# --- What there is -----------------------------------------------------------------------------------

ParameterKind = Literal["expression", "levels", "window", "duration", "lag"]

_EXPECTED: dict[str, str] = {
    "expression": "an expression",
    "levels": f"an integer from 1 to {MAX_LEVELS}",
    "window": f'a duration like "1s" (at most 7 days) or a count from 1 to {MAX_COUNT}',
    "duration": 'a duration like "1s" (at most 7 days)',
    "lag": f"an integer from 1 to {MAX_COUNT}",
}


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel; without a default it must be given."""

    name: str
    kind: ParameterKind
    default: int | None = None

    @property
    def expected(self) -> str:
        return _EXPECTED[self.kind]


@dataclass(frozen=True)
class Kernel:
    """What a feature computes."""

    name: str
    parameters: tuple[Parameter, ...]
    formula: str
    unit: str
    description: str
    source: str = ""
    version: int = 1
    """Grows when the same input gives another value: a model bound to the old one is then refused."""
    by_order: bool = False
    """Does it need a venue that tells of every order?"""
    reach: Literal["none", "best", "levels"] = "none"
    """Which levels of each side its value depends on, by itself: the best, so many as `levels` says, or none.
    They must be known for a row to be valid."""

    @property
    def signature(self) -> str:
        """How it is called: `ofi(levels=1, window)`."""
        parts = [p.name if p.default is None else f"{p.name}={p.default}" for p in self.parameters]
        return f"{self.name}({', '.join(parts)})"


_X = Parameter("x", "expression")
_LEVELS = Parameter("levels", "levels")
_WINDOW = Parameter("window", "window")

_TABLE = (
    Kernel(
        "imbalance",
        (_LEVELS,),
        "(ΣB − ΣA) / (ΣB + ΣA)",
        "−1 to 1",
        "How much more is bid than offered, over the quantities of the best `levels` levels of each side (as "
        "many as there are). NaN where the book is empty.",
        "Cao, Hansch & Wang (2009), The information content of an open limit-order book",
        version=2,
        reach="levels",
    ),
    Kernel(
        "spread",
        (),
        "(ask − bid) / mid · 10⁴",
        "basis points of mid",
        "The best ask less the best bid. NaN where a side of the book is empty, as all that needs mid.",
        version=2,
        reach="best",
    ),
    Kernel(
        "microprice_offset",
        (),
        "(micro − mid) / mid · 10⁴, micro = (bid·ask_qty + ask·bid_qty) / (bid_qty + ask_qty)",
        "basis points of mid",
        "The mid weighted by what stands on the other side, less the plain mid: positive when more is bid.",
        "Gatheral & Oomen (2010), Zero-intelligence realized variance estimation: the weighted mid",
        version=2,
        reach="best",
    ),
    Kernel(
        "mid_return",
        (_WINDOW,),
        "ln(mid_t / mid_{t−w})",
        "log return",
        "mid now over the mid of the last book state at or before t − w; with a count, over the mid that "
        "many book events ago. The book that the epoch began with counts as a state.",
        version=2,
        reach="best",
    ),
    Kernel(
        "ofi",
        (Parameter("levels", "levels", default=1), _WINDOW),
        "Σ_events Σ_levels 1{Pb≥Pb′}·qb − 1{Pb≤Pb′}·qb′ − 1{Pa≤Pa′}·qa + 1{Pa≥Pa′}·qa′",
        "base quantity",
        "Order flow imbalance: what was added to the bids and taken from the asks, less the opposite. "
        "Compares the book before (′) and after each whole venue message, level by level, without weights; a "
        "missing level is a quantity of 0 at the worst of prices. A count is of book events.",
        "Cont, Kukanov & Stoikov (2014), The price impact of order book events",
        version=2,
        reach="levels",
    ),
    Kernel(
        "trade_flow",
        (_WINDOW,),
        "Σ signed qty / Σ qty",
        "−1 to 1",
        "1 when every trade was started by a buyer, −1 by a seller, 0 when nothing traded. A trade of which "
        "the venue does not say who started it counts in the total alone. Prints that the venue marks as no "
        "trade do not count. A count is of trades.",
        version=2,
    ),
    Kernel(
        "trade_count",
        (Parameter("window", "duration"),),
        "number of trades in (t − w, t]",
        "trades",
        "Prints that the venue marks as no trade do not count.",
        version=2,
    ),
    Kernel(
        "vwap_offset",
        (_WINDOW,),
        "(vwap − mid) / mid · 10⁴, vwap = Σ price·qty / Σ qty",
        "basis points of mid",
        "Where trades happened against where the market is now; 0 when nothing traded. A count is of trades.",
        version=2,
        reach="best",
    ),
    Kernel(
        "realized_vol",
        (_WINDOW,),
        "√Σ ln(mid_i / mid_{i−1})²",
        "log return",
        "Realized volatility of mid over the book events of the window, not annualised. A count is of these.",
        "Andersen, Bollerslev, Diebold & Labys (2003), Modeling and forecasting realized volatility",
        version=2,
        reach="best",
    ),
    Kernel(
        "queue_imbalance",
        (),
        "(B − A) / (B + A)",
        "−1 to 1",
        "How much more waits at the best bid than at the best ask. NaN where a side of the book is empty.",
        "Gould & Bonart (2016), Queue imbalance as a one-tick-ahead price predictor in a limit order book",
        version=2,
        reach="best",
    ),
    Kernel(
        "order_arrival_rate",
        (Parameter("window", "duration"),),
        "orders that came in (t − w, t] / w",
        "orders a second",
        "Orders that entered the book; one that replaces another counts as one that came. Needs a feed by "
        "order.",
        by_order=True,
        version=2,
    ),
    Kernel(
        "cancel_rate",
        (Parameter("window", "duration"),),
        "cancellations in (t − w, t] / w",
        "orders a second",
        "Orders that were deleted, replaced, or reduced without being executed. Needs a feed by order.",
        by_order=True,
        version=2,
    ),
    Kernel("mean", (_X, _WINDOW), "Σx / n", "as x", "Mean of the samples of x in the window.", version=2),
    Kernel(
        "std",
        (_X, _WINDOW),
        "√(Σ(x − mean)² / n)",
        "as x",
        "Population standard deviation of the samples of x in the window; 0 where they are all equal.",
        version=2,
    ),
    Kernel("min", (_X, _WINDOW), "min x", "as x", "The smallest sample of x in the window.", version=2),
    Kernel("max", (_X, _WINDOW), "max x", "as x", "The largest sample of x in the window.", version=2),
    Kernel(
        "zscore",
        (_X, _WINDOW),
        "(x − mean) / std",
        "standard deviations",
        "The newest sample of x against the window, itself included; 0 where all samples in it are equal.",
        version=2,
    ),
    Kernel(
        "ema",
        (_X, Parameter("halflife", "duration")),
        "y += (1 − 2^(−Δt/h))·(x − y)",
        "as x",
        "Exponential moving average in time: a sample's weight halves every `halflife`. y starts as the "
        "first sample and is warm after five half-lives.",
        version=2,
    ),
    Kernel(
        "diff",
        (_X, Parameter("lag", "lag")),
        "x_k − x_{k−lag}",
        "as x",
        "The newest sample of x less the one `lag` samples before.",
        version=2,
    ),
)

KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in _TABLE}
"""Every kernel by name: its parameters, formula, unit and source."""

KERNEL_VERSIONS: dict[str, int] = {kernel.name: kernel.version for kernel in _TABLE}


# --- From text to a tree ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Duration:
    """A positive length of time. Its text is in the largest unit that leaves a whole number."""

    ns: int

    def __str__(self) -> str:
        unit, scale = next((unit, scale) for unit, scale in _UNITS if self.ns % scale == 0)
        return f'"{self.ns // scale}{unit}"'


@dataclass(frozen=True)
class Expression:
    """A parsed call with every parameter filled in, in the order of the kernel's definition.

    Its text is canonical: two expressions compute the same exactly when their texts are equal.
    """

    kernel: str
    arguments: tuple[Expression | Duration | int, ...]

    def __getitem__(self, parameter: str) -> Expression | Duration | int:
        names = [p.name for p in KERNELS[self.kernel].parameters]
        return self.arguments[names.index(parameter)]

    def __str__(self) -> str:
        # The wrapped expression comes first and needs no name.
        parts = [
            str(value) if p.kind == "expression" else f"{p.name}={value}"
            for p, value in zip(KERNELS[self.kernel].parameters, self.arguments, strict=True)
        ]
        return f"{self.kernel}({', '.join(parts)})"


_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>[+-]?[0-9][0-9A-Za-z_.]*)
      | (?P<text>"[^"\r\n]*"|'[^'\r\n]*')
      | (?P<mark>[(),=])""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class _Token:
    kind: str  # name, number, text, mark, end
    text: str
    at: int

    @property
    def shown(self) -> str:
        if self.kind == "end":
            return "the end"
        return self.text if self.kind == "text" else f"'{self.text}'"


def _nearest(name: str, known: Sequence[str]) -> str:
    close = nearest(name, known)
    return f", did you mean '{close}'?" if close else f", known: {', '.join(known)}"


class _Parser:
    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        self._tokens = list(self._tokenize())
        self._next = 0

    def parse(self) -> Expression:
        expression = self._call(depth=1)
        if self._peek().kind != "end":
            raise self._error(f"unexpected {self._peek().shown} after the expression", self._peek().at)
        return expression

    def _error(self, message: str, at: int, hint: str = "") -> ExpressionError:
        """`at` is an offset into the text; the hint follows the column."""
        line_start = self._text.rfind("\n", 0, at) + 1
        line = self._text[line_start:].split("\n", 1)[0].replace("\t", " ").rstrip("\r")
        return ExpressionError(
            f"{self._where}: {message} at column {at + 1}{hint}\n  {line}\n  {' ' * (at - line_start)}^"
        )

    def _tokenize(self) -> Iterator[_Token]:
        at = 0
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            if match is None:
                char = self._text[at]
                what = "a quote that is never closed" if char in "\"'" else f"unexpected character {char!r}"
                raise self._error(what, at)
            if match.lastgroup != "space":
                yield _Token(str(match.lastgroup), match.group(), at)
            at = match.end()
        yield _Token("end", "", len(self._text))

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        if token.kind != "end":
            self._next += 1
        return token

    def _at(self, mark: str) -> bool:
        return self._peek().kind == "mark" and self._peek().text == mark

    def _take_mark(self, mark: str, after: str) -> None:
        if not self._at(mark):
            token = self._peek()
            raise self._error(f"expected '{mark}' {after}, found {token.shown}", token.at)
        self._take()

    def _call(self, depth: int) -> Expression:
        name = self._take()
        if name.kind != "name":
            raise self._error(f"expected a kernel, found {name.shown}", name.at)
        if depth > MAX_DEPTH:
            raise self._error(
                f"expected at most {MAX_DEPTH} calls inside each other, found one more", name.at
            )
        kernel = KERNELS.get(name.text)
        if kernel is None:
            raise self._error(f"unknown kernel '{name.text}'", name.at, _nearest(name.text, list(KERNELS)))
        self._take_mark("(", f"after '{kernel.name}'")
        given: dict[str, Expression | Duration | int] = {}
        keywords = False
        while not self._at(")") and self._peek().kind != "end":
            parameter, keywords = self._parameter(kernel, given, keywords)
            given[parameter.name] = self._value(kernel, parameter, depth)
            if not self._at(","):
                break
            self._take()
        self._take_mark(")", f"to end '{kernel.name}'")
        return Expression(kernel.name, tuple(self._filled(kernel, given, name.at)))

    def _parameter(
        self, kernel: Kernel, given: Mapping[str, object], keywords: bool
    ) -> tuple[Parameter, bool]:
        """Which parameter the next argument is for, and whether it was named; its name is consumed."""
        token = self._peek()
        following = self._tokens[min(self._next + 1, len(self._tokens) - 1)]
        if token.kind == "name" and following.text == "=" and following.kind == "mark":
            self._take()
            self._take()
            names = [p.name for p in kernel.parameters]
            if token.text not in names:
                hint = _nearest(token.text, names) if names else ", it takes none"
                raise self._error(f"'{kernel.name}' has no parameter '{token.text}'", token.at, hint)
            if token.text in given:
                raise self._error(f"'{kernel.name}' is given '{token.text}' twice", token.at)
            return kernel.parameters[names.index(token.text)], True
        if keywords:
            raise self._error("expected the name of a parameter, as the one before has one,", token.at)
        if len(given) == len(kernel.parameters):
            takes = "no arguments" if not given else f"at most {len(given)}"
            raise self._error(f"'{kernel.signature}' takes {takes}, found {token.shown}", token.at)
        return kernel.parameters[len(given)], False

    def _value(self, kernel: Kernel, parameter: Parameter, depth: int) -> Expression | Duration | int:
        token = self._peek()
        if token.kind == "name" and parameter.kind == "expression":
            return self._call(depth + 1)
        self._take()
        if token.kind == "text" and parameter.kind in ("window", "duration"):
            return self._duration(kernel, parameter, token)
        if token.kind == "number" and parameter.kind in ("levels", "window", "lag"):
            limit = MAX_LEVELS if parameter.kind == "levels" else MAX_COUNT
            if re.fullmatch(r"\+?[0-9]+", token.text) and 1 <= int(token.text) <= limit:
                return int(token.text)
        raise self._unexpected(kernel, parameter, token)

    def _duration(self, kernel: Kernel, parameter: Parameter, token: _Token) -> Duration:
        try:
            ns = parse_duration(token.text[1:-1])
        except ValueError:
            ns = 0
        if not 1 <= ns <= MAX_DURATION_NS:
            raise self._unexpected(kernel, parameter, token)
        return Duration(ns)

    def _unexpected(self, kernel: Kernel, parameter: Parameter, token: _Token) -> ExpressionError:
        message = f"{kernel.name}.{parameter.name}: expected {parameter.expected}, found {token.shown}"
        return self._error(message, token.at)

    def _filled(
        self, kernel: Kernel, given: Mapping[str, Expression | Duration | int], at: int
    ) -> Iterator[Expression | Duration | int]:
        for parameter in kernel.parameters:
            if parameter.name in given:
                yield given[parameter.name]
            elif parameter.default is not None:
                yield parameter.default
            else:
                raise self._error(
                    f"'{kernel.signature}' misses '{parameter.name}', {parameter.expected},", at
                )


def parse(text: str, where: str = "expression") -> Expression:
    """The tree of an expression; `ExpressionError` where it is none. `where` begins the message."""
    if not isinstance(text, str):
        raise ExpressionError(f"{where}: expected an expression as text, found {type(text).__name__}")
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"{where}: expected at most {MAX_LENGTH} characters, found {len(text)}")
    return _Parser(text, where).parse()


# --- From trees to a plan -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """The rows' expressions as the C++ engine takes them."""

    nodes: list[dict[str, Any]]
    """Each distinct sub-expression once, what is wrapped before what wraps it."""
    outputs: list[int]
    """Node of each cell of a row."""
    names: list[str]
    """The expressions as they were written: the names of the columns."""
    canonical: list[str]
    """The expressions in canonical text."""
    kernels: tuple[str, ...]
    """The kernels in use, sorted."""


class _Compiler:
    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self._index: dict[Expression, int] = {}

    def add(self, expression: Expression) -> int:
        known = self._index.get(expression)
        if known is not None:
            return known
        node: dict[str, Any] = {
            "kernel": expression.kernel,
            "input": -1,
            "levels": 0,
            "window_ns": 0,
            "window_count": 0,
            "halflife_ns": 0,
            "lag": 0,
        }
        for parameter, value in zip(KERNELS[expression.kernel].parameters, expression.arguments, strict=True):
            if isinstance(value, Expression):
                node["input"] = self.add(value)
            elif isinstance(value, Duration):
                node[f"{parameter.name}_ns"] = value.ns
            else:
                node["window_count" if parameter.name == "window" else parameter.name] = value
        self.nodes.append(node)
        self._index[expression] = len(self.nodes) - 1
        return len(self.nodes) - 1


def compile_rows(rows: Sequence[str], where: str = "features.rows") -> Plan:
    """Parses the expressions of a row and shares what they have in common.

    Raises `ExpressionError`: `features.rows[2]: unknown kernel 'imbalnce' at column 1, did you mean …`.
    """
    if isinstance(rows, str) or not isinstance(rows, Sequence):
        raise ExpressionError(f"{where}: expected a list of expressions, found {type(rows).__name__}")
    if not rows:
        raise ExpressionError(f"{where}: expected at least one expression, found none")
    expressions = [parse(text, f"{where}[{i}]") for i, text in enumerate(rows)]
    compiler = _Compiler()
    outputs = [compiler.add(expression) for expression in expressions]
    return Plan(
        nodes=compiler.nodes,
        outputs=outputs,
        names=[text.strip() for text in rows],
        canonical=[str(expression) for expression in expressions],
        kernels=tuple(sorted({node["kernel"] for node in compiler.nodes})),
    )


def reach(plan: Plan) -> int:
    """Levels a side of the book that a row depends on; 0 for features of trades and orders alone."""
    levels = 0
    for node in plan.nodes:
        own = KERNELS[node["kernel"]].reach
        levels = max(levels, int(node["levels"]) if own == "levels" else int(own == "best"))
    return levels


# --- What a model is bound to -------------------------------------------------------------------------


class Schema:
    """Everything that gives a row of numbers its meaning.

    A model file carries it as canonical JSON; a model whose schema differs from the configuration's
    is refused, with the lines of `diff`. The trade stream is part of it also where no kernel reads
    trades: every message moves the clock that windows are measured on.
    """

    FORMAT = 1

    def __init__(
        self,
        plan: Plan,
        *,
        trigger: str,
        every_ns: int = 0,
        clock: str,
        window_rows: int,
        trade_stream: str,
    ) -> None:
        self._document: dict[str, Any] = {
            "format": self.FORMAT,
            "expressions": list(plan.canonical),
            "window_rows": window_rows,
            "dtype": "float32",
            "trigger": f"every:{every_ns}" if trigger == "every" else trigger,
            "clock": clock,
            "trade_stream": trade_stream,
            "kernel_versions": {name: KERNEL_VERSIONS[name] for name in plan.kernels},
            "normalisation": "none",
        }

    @classmethod
    def from_json(cls, text: str) -> Schema:
        """The schema in a model's metadata. One written by a later version keeps what we do not know."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"tickwire.schema: expected JSON, found {text[:60]!r} ({error})") from None
        if not isinstance(document, dict) or not isinstance(document.get("expressions"), list):
            raise ModelError(f"tickwire.schema: expected an object with 'expressions', found {text[:60]!r}")
        schema = cls.__new__(cls)
        schema._document = document
        return schema

    @property
    def document(self) -> dict[str, Any]:
        """A copy of the content, as JSON would give it."""
        copy: dict[str, Any] = json.loads(self.canonical_json())
        return copy

    @property
    def expressions(self) -> list[str]:
        """The features in canonical text, in the order of the row."""
        return [str(expression) for expression in self._document["expressions"]]

    @property
    def window_rows(self) -> int:
        """T of a `[1, T, F]` model."""
        return int(self._document.get("window_rows", 1))

    def canonical_json(self) -> str:
        """One text for one schema: keys sorted, no spaces, ASCII."""
        return json.dumps(self._document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()

    def diff(self, other: Schema, *, this: str = "this", that: str = "the other") -> list[str]:
        """What differs, one line each; empty exactly when the fingerprints are equal.

        `this` and `that` say in the lines whose value is whose.
        """
        lines = []
        mine = dict(_leaves(self._document))
        theirs = dict(_leaves(other._document))
        for key in [*mine, *(key for key in theirs if key not in mine)]:
            here = mine.get(key, "nothing")
            there = theirs.get(key, "nothing")
            if here != there:
                lines.append(f"{key}: {this} has {here}, {that} has {there}")
        ours, others = self.expressions, other.expressions
        if ours != others and sorted(ours) == sorted(others):
            lines.append("expressions: the same ones in another order")
        return lines

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.canonical_json() == other.canonical_json()

    def __hash__(self) -> int:
        return hash(self.canonical_json())

    def __repr__(self) -> str:
        return f"Schema({self.canonical_json()})"


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Path and JSON text of everything that is neither a list nor an object with something in it."""
    if isinstance(value, dict) and value:
        for key in sorted(value):
            yield from _leaves(value[key], f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for i, item in enumerate(value):
            yield from _leaves(item, f"{path}[{i}]")
    else:
        yield path, json.dumps(value, ensure_ascii=False)
