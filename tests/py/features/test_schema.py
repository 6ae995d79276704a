"""The schema a model is bound to: one text for one meaning, and a readable difference."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tickwire import features
from tickwire.errors import ModelError
from tickwire.features import Schema, compile_rows

ROWS = ("imbalance(levels=5)", "zscore(ofi(5, '1s'), window='30s')")


V = {name: kernel.version for name, kernel in features.KERNELS.items()}


def schema(
    rows: Sequence[str] = ROWS,
    *,
    trigger: str = "book",
    every_ns: int = 0,
    clock: str = "recv",
    window_rows: int = 1,
    trade_stream: str = "trade",
) -> Schema:
    return Schema(
        compile_rows(rows),
        trigger=trigger,
        every_ns=every_ns,
        clock=clock,
        window_rows=window_rows,
        trade_stream=trade_stream,
    )


def test_canonical_json() -> None:
    text = (
        '{"clock":"recv","dtype":"float32","expressions":["imbalance(levels=5)",'
        '"zscore(ofi(levels=5, window=\\"1s\\"), window=\\"30s\\")"],"format":1,'
        f'"kernel_versions":{{"imbalance":{V["imbalance"]},"ofi":{V["ofi"]},"zscore":{V["zscore"]}}},'
        '"normalisation":"none",'
        '"trade_stream":"trade","trigger":"book","window_rows":1}'
    )
    assert schema().canonical_json() == text
    # Written into model files: a change of this value refuses every model bound so far.
    assert schema().fingerprint() == hashlib.sha256(text.encode()).hexdigest()


def test_spelling_does_not_matter() -> None:
    other = schema([" imbalance(5) ", 'zscore(x=ofi(window="1000ms", levels=5), window="0.5m")'])
    assert other.fingerprint() == schema().fingerprint()
    assert other == schema()
    assert hash(other) == hash(schema())
    assert other.diff(schema()) == []


def test_round_trip_through_a_model_file() -> None:
    loaded = Schema.from_json(schema().canonical_json())
    assert loaded == schema()
    assert loaded.fingerprint() == schema().fingerprint()
    assert loaded.expressions == list(compile_rows(ROWS).canonical)
    assert loaded.window_rows == 1
    # Other spacing and order of keys, as another writer may have left it.
    assert Schema.from_json(json.dumps(loaded.document, indent=2)) == schema()


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (schema(trigger="trade"), 'trigger: the model has "book", the configuration has "trade"'),
        (
            schema(trigger="every", every_ns=100_000_000),
            'trigger: the model has "book", the configuration has "every:100000000"',
        ),
        (schema(clock="event"), 'clock: the model has "recv", the configuration has "event"'),
        (schema(window_rows=32), "window_rows: the model has 1, the configuration has 32"),
        (
            schema(trade_stream="aggTrade"),
            'trade_stream: the model has "trade", the configuration has "aggTrade"',
        ),
    ],
)
def test_diff_names_the_setting(other: Schema, line: str) -> None:
    assert schema().diff(other, this="the model", that="the configuration") == [line]
    assert schema().fingerprint() != other.fingerprint()


def test_diff_names_the_expression() -> None:
    other = schema([ROWS[0], "spread()", "spread()"])
    assert schema().diff(other) == [
        r'expressions[1]: this has "zscore(ofi(levels=5, window=\"1s\"), window=\"30s\")", '
        r'the other has "spread()"',
        f"kernel_versions.ofi: this has {V['ofi']}, the other has nothing",
        f"kernel_versions.zscore: this has {V['zscore']}, the other has nothing",
        'expressions[2]: this has nothing, the other has "spread()"',
        f"kernel_versions.spread: this has nothing, the other has {V['spread']}",
    ]


def test_diff_says_when_only_the_order_differs() -> None:
    lines = schema().diff(schema(ROWS[::-1]))
    assert len(lines) == 3
    assert lines[-1] == "expressions: the same ones in another order"


def test_new_version_of_a_kernel_is_another_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    before = schema()
    monkeypatch.setitem(features.KERNELS, "ofi", replace(features.KERNELS["ofi"], version=99))
    assert before.diff(schema()) == [f"kernel_versions.ofi: this has {V['ofi']}, the other has 99"]
    assert before.fingerprint() != schema().fingerprint()


def test_unused_kernel_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = schema()
    monkeypatch.setitem(
        features.KERNELS, "realized_vol", replace(features.KERNELS["realized_vol"], version=99)
    )
    assert before == schema()


def test_later_format_is_kept_and_differs() -> None:
    document = schema().document | {"format": 2, "calendar": {"sessions": [1, 2]}}
    later = Schema.from_json(json.dumps(document))
    assert later.document == document
    assert later.diff(schema()) == [
        "calendar.sessions[0]: this has 1, the other has nothing",
        "calendar.sessions[1]: this has 2, the other has nothing",
        "format: this has 2, the other has 1",
    ]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", "null", "{}", '{"expressions": 5}', "[" * 100_000, "\x00"]
)
def test_garbage_in_a_model_file_is_a_model_error(text: str) -> None:
    with pytest.raises(ModelError, match=r"^tickwire\.schema: expected "):
        Schema.from_json(text)
