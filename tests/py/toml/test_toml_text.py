"""TOML that may be anybody's: what is refused before a parser meets it, and that everything else is not."""

from __future__ import annotations

import tomllib

import pytest

from tickwire.config import Config
from tickwire.errors import ConfigError
from tickwire.toml import text as toml_text

MINIMAL = '[[feeds]]\nvenue = "binance_spot"\ninstruments = ["BTCUSDT"]\n[features]\nrows = ["spread()"]\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a" + ".a" * 200_000 + " = 1", "line 1: expected keys of at most 32 parts"),
        ("\n[" + "a." * 200_000 + "a]", "line 2: expected keys of at most 32 parts"),
        ('"a" . ' * 50_000 + "b = 1", "line 1: expected keys of at most 32 parts"),
        ("a = " + "[" * 200_000, "line 1: expected brackets of at most 32 levels"),
        ("a = " + "{a = " * 80_000, "line 1: expected brackets of at most 32 levels"),
        ("a = " + "1" * 5000, "line 1: expected numbers of at most 100 digits, found one of 5,000"),
        ("a = 0x" + "f" * 5000, "line 1: expected numbers of at most 100 digits, found one of 5,002"),
        ("a = " + "1_" * 300 + "1", "line 1: expected numbers of at most 100 digits, found one of 601"),
        ("#" * (toml_text.MAX_BYTES + 1), "expected at most 1,048,576 characters, found 1,048,577"),
        ('a = "' + "\\" * 101, "not TOML: "),
        ("a = '''" + "''x" * 1000, "not TOML: "),
    ],
)
def test_is_refused_with_its_reason(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        toml_text.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL,
        'a = "' + "[{." * 200 + '"',
        "a = '" + "[{." * 200 + "'",
        'a = """\n' + '[{. "" \\" ' * 200 + '"""',
        "a = '''\n" + "[{. '' " * 200 + "'''",
        "# " + "[." * 200 + "\na = 1",
        "a = '" + "1" * 500 + "'",
        "a." * 31 + "a = 1",
        "a = " + "[" * 32 + "]" * 32,
        "a = [1.5, 2.5, " + "3.25, " * 500 + "]",
        "\n".join(f"a{i}.b.c = {i}.0" for i in range(200)),
    ],
)
def test_what_a_configuration_may_hold_is_read_as_ever(text: str) -> None:
    assert toml_text.parse(text) == tomllib.loads(text)


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected at most 1,048,576 characters"):
        Config.from_toml("/dev/zero")
