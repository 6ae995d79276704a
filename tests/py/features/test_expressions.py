"""The expression language: what it accepts, what it says about the rest, and the plan it makes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickwire.errors import ConfigError
from tickwire.features import (
    KERNELS,
    Duration,
    Expression,
    ExpressionError,
    Parameter,
    compile_rows,
    parse,
)
from tickwire.features.grammar import MAX_DEPTH


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("imbalance(5)", "imbalance(levels=5)"),
        ("  imbalance ( levels = 5 , ) ", "imbalance(levels=5)"),
        ("imbalance(levels=+5)", "imbalance(levels=5)"),
        ("spread()", "spread()"),
        ("microprice_offset()", "microprice_offset()"),
        ("mid_return('1s')", 'mid_return(window="1s")'),
        ("mid_return(window=20)", "mid_return(window=20)"),
        ("ofi(window='1s')", 'ofi(levels=1, window="1s")'),
        ("ofi(5, '1s')", 'ofi(levels=5, window="1s")'),
        ("ofi(window='1s', levels=5)", 'ofi(levels=5, window="1s")'),
        ("ofi(5, window=100)", "ofi(levels=5, window=100)"),
        ("trade_count('100ms')", 'trade_count(window="100ms")'),
        ("realized_vol(\n  window = '1m'\n)", 'realized_vol(window="1m")'),
        ("ema(spread(), '2s')", 'ema(spread(), halflife="2s")'),
        ("ema(halflife='2s', x=spread())", 'ema(spread(), halflife="2s")'),
        ("diff(spread(), 3)", "diff(spread(), lag=3)"),
        (
            "zscore(ofi(levels=5, window='1s'), window='30s')",
            'zscore(ofi(levels=5, window="1s"), window="30s")',
        ),
        ("max(min(mean(std(spread(), 9), 8), 7), 6)",) * 2,
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    expected = canonical.replace(", 9", ", window=9").replace(", 8", ", window=8")
    expected = expected.replace(", 7", ", window=7").replace(", 6", ", window=6")
    assert str(parse(text)) == expected
    assert parse(expected) == parse(text)


@pytest.mark.parametrize(
    ("text", "ns", "canonical"),
    [
        ("1ns", 1, "1ns"),
        ("1000ns", 1_000, "1us"),
        ("1500us", 1_500_000, "1500us"),
        ("1.5ms", 1_500_000, "1500us"),
        ("1000ms", 1_000_000_000, "1s"),
        ("60s", 60_000_000_000, "1m"),
        ("90s", 90_000_000_000, "90s"),
        ("60m", 3_600_000_000_000, "1h"),
        ("168h", 604_800_000_000_000, "168h"),
    ],
)
def test_durations(text: str, ns: int, canonical: str) -> None:
    expression = parse(f"trade_count('{text}')")
    assert expression["window"] == Duration(ns)
    assert str(expression) == f'trade_count(window="{canonical}")'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imbalnce(levels=5)", "unknown kernel 'imbalnce' at column 1, did you mean 'imbalance'?"),
        ("Spread()", "unknown kernel 'Spread' at column 1, did you mean 'spread'?"),
        ("mean(sprad(), 5)", "unknown kernel 'sprad' at column 6, did you mean 'spread'?"),
        ("qwxz()", "unknown kernel 'qwxz' at column 1, known: imbalance, spread, "),
        ("", "expected a kernel, found the end at column 1"),
        ("5", "expected a kernel, found '5' at column 1"),
        ("spread", "expected '(' after 'spread', found the end at column 7"),
        ("spread(", "expected ')' to end 'spread', found the end at column 8"),
        ("spread)", "expected '(' after 'spread', found ')' at column 7"),
        ("spread()()", "unexpected '(' after the expression at column 9"),
        ("spread() spread()", "unexpected 'spread' after the expression at column 10"),
        ("spread(1)", "'spread()' takes no arguments, found '1' at column 8"),
        ("spread(levels=1)", "'spread' has no parameter 'levels' at column 8, it takes none"),
        ("imbalance()", "'imbalance(levels)' misses 'levels', an integer from 1 to 1000, at column 1"),
        ("ofi(levels=5)", "'ofi(levels=1, window)' misses 'window', a duration like"),
        ("imbalance(1, 2)", "'imbalance(levels)' takes at most 1, found '2' at column 14"),
        ("imbalance(level=5)", "no parameter 'level' at column 11, did you mean 'levels'?"),
        ("imbalance(levels=5, levels=5)", "'imbalance' is given 'levels' twice at column 21"),
        ("ofi(5, levels=5)", "'ofi' is given 'levels' twice at column 8"),
        ("ofi(levels=5, '1s')", "expected the name of a parameter, as the one before has one, at column 15"),
        ("imbalance(0)", "imbalance.levels: expected an integer from 1 to 1000, found '0' at column 11"),
        ("imbalance(-3)", "found '-3' at column 11"),
        ("imbalance(1.5)", "found '1.5' at column 11"),
        ("imbalance(1e3)", "found '1e3' at column 11"),
        ("imbalance(1001)", "found '1001' at column 11"),
        ("imbalance(" + "9" * 400 + ")", "imbalance.levels: expected an integer"),
        ("imbalance('5')", "imbalance.levels: expected an integer from 1 to 1000, found '5' at column 11"),
        ("imbalance(spread())", "imbalance.levels: expected an integer from 1 to 1000, found 'spread'"),
        ("ofi(1, 0)", 'ofi.window: expected a duration like "1s" (at most 7 days) or a count from 1 to'),
        ("ofi(1, '0s')", "found '0s' at column 8"),
        ("ofi(1, '-1s')", "found '-1s' at column 8"),
        ("ofi(1, '1')", "found '1' at column 8"),
        ("ofi(1, '1.0000000005s')", "found '1.0000000005s' at column 8"),
        ("ofi(1, '1 s')", "found '1 s' at column 8"),
        ("ofi(1, '1d')", "found '1d' at column 8"),
        ("ofi(1, '169h')", "found '169h' at column 8"),
        ("ofi(1, 1s)", "found '1s' at column 8"),
        ("trade_count(5)", "trade_count.window: expected a duration like"),
        ("ema(spread(), 5)", "ema.halflife: expected a duration like"),
        ("diff(spread(), '1s')", "diff.lag: expected an integer from 1 to 1000000"),
        ("mean(5, 5)", "mean.x: expected an expression, found '5' at column 6"),
        ("mean('1s', 5)", "mean.x: expected an expression, found '1s' at column 6"),
        ("ofi(1, '1s)", "a quote that is never closed at column 8"),
        ("ofi(1; '1s')", "unexpected character ';' at column 6"),
        ("ofi(1,, '1s')", "ofi.window: expected a duration"),
        (
            "imbalance(levels=)",
            "imbalance.levels: expected an integer from 1 to 1000, found ')' at column 18",
        ),
        ("imbalance(５)", "unexpected character '５' at column 11"),
        ("__import__('os')", "unknown kernel '__import__' at column 1"),
    ],
)
def test_message(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_rows(["spread()", text])
    assert str(caught.value).startswith("features.rows[1]: ")
    assert message in str(caught.value)


def test_message_points_at_the_place() -> None:
    with pytest.raises(ExpressionError) as caught:
        parse("mean(\n  sprad(),\n  5)", "row")
    assert str(caught.value) == (
        "row: unknown kernel 'sprad' at column 9, did you mean 'spread'?\n    sprad(),\n    ^"
    )


def test_error_is_a_configuration_error() -> None:
    assert issubclass(ExpressionError, ConfigError)


@pytest.mark.parametrize("rows", ["spread()", None, 5, [], {"a": 1}, [5], [None], [["spread()"]]])
def test_rows_must_be_a_list_of_text(rows: object) -> None:
    with pytest.raises(ExpressionError, match=r"^features\.rows"):
        compile_rows(rows)  # type: ignore[arg-type]


def nested(depth: int) -> str:
    return "mean(" * (depth - 1) + "spread()" + ", 5)" * (depth - 1)


def test_depth_is_limited() -> None:
    parse(nested(MAX_DEPTH))
    with pytest.raises(ExpressionError, match="at most 16 calls inside each other"):
        parse(nested(MAX_DEPTH + 1))


def test_length_is_limited() -> None:
    with pytest.raises(ExpressionError, match="at most 1000 characters, found 100008"):
        parse("spread()" + " " * 100_000)


def test_plan_shares_what_rows_have_in_common() -> None:
    plan = compile_rows(
        [
            "zscore(ofi(5, '1s'), '30s')",
            " ofi(window='1000ms', levels=5) ",
            "mean(ofi(levels=5, window='1s'), window=50)",
            "ema(zscore(ofi(5, '1s'), '30s'), '2s')",
            "diff(imbalance(3), 2)",
        ]
    )
    blank = {"input": -1, "levels": 0, "window_ns": 0, "window_count": 0, "halflife_ns": 0, "lag": 0}
    assert plan.nodes == [
        blank | {"kernel": "ofi", "levels": 5, "window_ns": 1_000_000_000},
        blank | {"kernel": "zscore", "input": 0, "window_ns": 30_000_000_000},
        blank | {"kernel": "mean", "input": 0, "window_count": 50},
        blank | {"kernel": "ema", "input": 1, "halflife_ns": 2_000_000_000},
        blank | {"kernel": "imbalance", "levels": 3},
        blank | {"kernel": "diff", "input": 4, "lag": 2},
    ]
    assert plan.outputs == [1, 0, 2, 3, 5]
    assert plan.names[1] == "ofi(window='1000ms', levels=5)"
    assert plan.canonical[1] == 'ofi(levels=5, window="1s")'
    assert plan.kernels == ("diff", "ema", "imbalance", "mean", "ofi", "zscore")


def test_duration_and_count_are_different_windows() -> None:
    plan = compile_rows(["ofi(1, 1)", "ofi(1, '1ns')"])
    assert plan.outputs == [0, 1]


def test_every_kernel_is_explained() -> None:
    for kernel in KERNELS.values():
        assert kernel.formula
        assert kernel.unit
        assert kernel.description.endswith(".")
        assert kernel.version >= 1
    assert KERNELS["ofi"].signature == "ofi(levels=1, window)"
    assert "Cont, Kukanov & Stoikov" in KERNELS["ofi"].source


durations = st.integers(1, 7 * 24 * 3600 * 10**9).map(Duration)


def value_of(parameter: Parameter, inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[object]:
    counts = st.integers(1, 1_000_000)
    return {
        "expression": inner,
        "levels": st.integers(1, 1000),
        "window": durations | counts,
        "duration": durations,
        "lag": counts,
    }[parameter.kind]


def calls(inner: st.SearchStrategy[Expression], wraps: bool) -> st.SearchStrategy[Expression]:
    chosen = [k for k in KERNELS.values() if any(p.kind == "expression" for p in k.parameters) == wraps]
    return st.sampled_from(chosen).flatmap(
        lambda kernel: st.tuples(*(value_of(p, inner) for p in kernel.parameters)).map(
            lambda values: Expression(kernel.name, values)
        )
    )


expressions = st.recursive(
    calls(st.nothing(), wraps=False), lambda inner: calls(inner, wraps=True), max_leaves=10
)


@given(expressions)
def test_canonical_text_parses_to_the_same(expression: Expression) -> None:
    text = str(expression)
    assert parse(text) == expression
    assert str(parse(text)) == text


@given(st.data())
def test_order_and_names_of_arguments_do_not_matter(data: st.DataObject) -> None:
    expression = data.draw(expressions)
    parameters = KERNELS[expression.kernel].parameters
    named = [f"{p.name}={v}" for p, v in zip(parameters, expression.arguments, strict=True)]
    shuffled = ", ".join(data.draw(st.permutations(named)))
    assert parse(f"{expression.kernel}({shuffled})") == expression
    positional = ",".join(str(value) for value in expression.arguments)
    assert parse(f"{expression.kernel}({positional})") == expression


scraps = st.sampled_from(
    [*KERNELS, "(", ")", ",", "=", "'1s'", '"', "'", "levels", "window", "x", "5", "-1", " ", "\n", "é"]
)


@given(st.text() | st.lists(scraps, max_size=30).map("".join) | expressions.map(str))
def test_any_text_is_an_expression_or_an_expression_error(text: str) -> None:
    try:
        expression = parse(text)
    except ExpressionError:
        return
    assert parse(str(expression)) == expression


@given(st.data())
def test_damaged_expression_never_crashes(data: st.DataObject) -> None:
    text = str(data.draw(expressions))
    at = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(at, len(text)))
    with contextlib.suppress(ExpressionError):
        parse(text[:at] + data.draw(st.text(max_size=3)) + text[end:])
