"""The grammar of feature expressions: from text to a tree, and back to the one canonical text.

expression = kernel "(" [ argument { "," argument } [ "," ] ] ")"
argument   = [ parameter "=" ] ( expression | integer | duration )
duration   = '"' number unit '"'        single quotes do as well; ns, us, ms, s, m, h
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tickwire.errors import ConfigError
from tickwire.features.table import KERNELS, MAX_COUNT, MAX_DURATION_NS, MAX_LEVELS, Kernel, Parameter
from tickwire.names import nearest
from tickwire.units import format_ns, parse_duration

__all__ = ["Duration", "Expression", "ExpressionError", "parse"]

MAX_LENGTH = 1000
"""Characters of an expression."""
MAX_DEPTH = 16
"""Calls inside calls."""


class ExpressionError(ConfigError):
    """A feature expression cannot be used. The message names the row and the column."""


@dataclass(frozen=True)
class Duration:
    """A positive length of time. Its text is in the largest unit that leaves a whole number."""

    ns: int

    def __str__(self) -> str:
        return f'"{format_ns(self.ns)}"'


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
