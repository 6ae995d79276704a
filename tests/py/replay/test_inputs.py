"""Captures as other tools write them are read: the truth is what the same messages give in the form that our
own recorder writes. What is refused, and how it is named, is a table in test_first_contact.
"""

from __future__ import annotations

import asyncio
import bz2
import csv
import gzip
import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from configuring import one_feed
from needs import compiled
from spot_lines import EVENTS, SNAPSHOT, START, STEP, diff, lines, text_of, trade, zipped
from typer.testing import CliRunner

from tickwire.cli.app import app
from tickwire.config import Config
from tickwire.errors import Error
from tickwire.replay import replay, summary

pytestmark = compiled

ROWS = ["spread()", "imbalance(levels=1)", 'trade_count(window="600ms")']


@dataclass
class Replayed:
    rows: list[dict[str, str]]
    report: list[str]

    def says(self, *parts: str) -> None:
        for part in parts:
            assert any(part in line for line in self.report), (part, self.report)


def settings(**changes: Any) -> Config:
    feed = {"name": "main", **changes.pop("feed", {})}
    return one_feed(rows=changes.pop("rows", ROWS), feed=feed, features=changes)


def replayed(tmp_path: Path, *files: bytes, **changes: Any) -> Replayed:
    paths = []
    for number, data in enumerate(files):
        paths.append(tmp_path / f"{number}.log")
        paths[-1].write_bytes(data)
    config = settings(**changes)
    out = tmp_path / "rows.csv"
    stats = asyncio.run(replay(config, {"main": list(map(str, paths))}, out))
    with out.open(newline="") as file:
        return Replayed(list(csv.DictReader(file)), summary(stats, config))


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """What our own form gives: an event a row, but for the two before the snapshot."""
    found = replayed(tmp_path_factory.mktemp("truth"), text_of(lines()))
    assert len(found.report) == 1, found.report
    assert [int(row["sequence"]) for row in found.rows] == [
        10 * n + 10 for n in range(EVENTS - len(found.rows), EVENTS)
    ]
    assert len(found.rows) >= EVENTS - 6
    # Two events are 500 ms apart, so that a window of 600 ms holds one trade, or none.
    assert {row[ROWS[2]] for row in found.rows} == {"0.0", "1.0"}
    return found.rows


def iso(at: int) -> str:
    seconds, ns = divmod(at, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns:09d}"


UNITS: dict[str, tuple[Callable[[int], str], int, str]] = {
    "microseconds": (lambda at: str(at // 1000), 1000, "receive stamps are in microseconds"),
    "milliseconds": (lambda at: str(at // 10**6), 10**6, "receive stamps are in milliseconds"),
    "seconds": (
        lambda at: f"{at // 10**9}.{at % 10**9:09d}",
        1,
        "receive stamps are in fractions of seconds",
    ),
    "floats": (lambda at: f"{at // 1000 / 10**6:.6f}", 1000, "receive stamps are in fractions of seconds"),
    "ISO": (lambda at: iso(at) + "Z", 1, "receive stamps are ISO times"),
    "ISO, a space": (
        lambda at: iso(at).replace("T", " "),
        1,
        "receive stamps are ISO times without a zone, taken for UTC",
    ),
}


@pytest.mark.parametrize("unit", UNITS)
def test_stamps_of_another_unit_give_the_same_rows(
    unit: str, tmp_path: Path, truth: list[dict[str, str]]
) -> None:
    stamp, cut, said = UNITS[unit]
    found = replayed(tmp_path, text_of(lines(), stamp))
    found.says(f"input: main: {tmp_path}/0.log: {said}")
    assert [{**row, "ts_recv": str(int(row["ts_recv"]) // cut * cut)} for row in truth] == found.rows


def test_files_of_different_units_follow_each_other(tmp_path: Path, truth: list[dict[str, str]]) -> None:
    whole = lines()
    found = replayed(
        tmp_path,
        text_of(whole[:9]),
        text_of(whole[9:15], UNITS["ISO"][0]),
        text_of(whole[15:], UNITS["seconds"][0]),
    )
    found.says("1.log: receive stamps are ISO times", "2.log: receive stamps are in fractions of seconds")
    assert found.rows == truth


def test_a_mixture_of_units_is_refused(tmp_path: Path) -> None:
    whole = lines()
    mixed = b"".join(
        text_of([line], UNITS["microseconds"][0] if i % 2 else str) for i, line in enumerate(whole)
    )
    with pytest.raises(
        Error, match=r"0\.log: expected receive stamps of one unit .*: nanoseconds and microseconds"
    ):
        replayed(tmp_path, mixed)
    # Far behind the first lines it is refused line by line.
    more = b"".join(text_of([(START + 10**10 + i, trade(100 + i))]) for i in range(60))
    found = replayed(tmp_path, text_of(whole) + more + text_of(whole[:2], UNITS["microseconds"][0]))
    found.says(
        "2 malformed lines", "0.log:89: a mixture of units: a receive stamp in microseconds in a file of"
    )


def test_a_stamp_of_no_unit_is_refused(tmp_path: Path) -> None:
    found = replayed(tmp_path, text_of(lines(), lambda at: str((at - START) // 10**6 + 5)))
    assert found.rows == []
    found.says("a receive stamp that is plausible in no unit", 'found "5 {')


def test_a_capture_with_a_line_of_ours_is_in_nanoseconds(tmp_path: Path, truth: list[dict[str, str]]) -> None:
    moved = [(at - START + 1_000_000_000, message) for at, message in lines()]
    found = replayed(tmp_path, b'1000000000 {"tickwire":"open","conn":0}\n' + text_of(moved))
    assert [int(row["ts_recv"]) - 1_000_000_000 + START for row in found.rows] == [
        int(row["ts_recv"]) for row in truth
    ]
    assert [row[name] for row in found.rows for name in ROWS] == [row[name] for row in truth for name in ROWS]
    found.says("receive stamps that look like seconds, taken for nanoseconds for its lines of ours")


FILES: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zip": zipped,
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "CRLF": lambda text: text.replace(b"\n", b"\r\n"),
    "tabs": lambda text: b"".join(line.replace(b" ", b"\t", 1) for line in text.splitlines(keepends=True)),
    "no last line break": lambda text: text[:-1],
}


@pytest.mark.parametrize("kind", FILES)
def test_files_as_any_tool_makes_them_give_the_same_rows(
    kind: str, tmp_path: Path, truth: list[dict[str, str]]
) -> None:
    found = replayed(tmp_path, FILES[kind](text_of(lines())))
    assert (found.rows, len(found.report)) == (truth, 1), found.report


def numbers(message: Any, write: Callable[[str], object]) -> Any:
    """The message with its prices and quantities as `write` makes them."""
    if isinstance(message, dict):
        return {
            key: write(value) if key in ("p", "q") else numbers(value, write)
            for key, value in message.items()
        }
    if isinstance(message, list):
        return [write(item) if isinstance(item, str) else numbers(item, write) for item in message]
    return message


@dataclass
class Raw:
    """A value whose text in JSON is as it stands."""

    text: str


def dumped(message: Any) -> str:
    if isinstance(message, Raw):
        return message.text
    if isinstance(message, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{dumped(value)}" for key, value in message.items()) + "}"
    if isinstance(message, list):
        return "[" + ",".join(map(dumped, message)) + "]"
    return json.dumps(message)


def ids_as_floats(message: dict[str, Any]) -> str:
    data = message.get("data", {})
    floats = {key: Raw(f"{data[key]}.0") for key in ("U", "u", "E", "t") if key in data}
    return dumped({**message, "data": {**data, **floats}} if data else message)


WRITERS: dict[str, Callable[[Any], str]] = {
    "white space": lambda message: json.dumps(message, indent=None),
    "sorted keys": lambda message: json.dumps(message, sort_keys=True),
    "numbers without quotes": lambda message: dumped(numbers(message, lambda text: Raw(repr(float(text))))),
    "exponents": lambda message: dumped(numbers(message, lambda text: Raw(f"{float(text):.4e}"))),
    "exponents in quotes": lambda message: json.dumps(numbers(message, lambda text: f"{float(text):.4E}")),
    "ids as floats": ids_as_floats,
    "escaped letters": lambda message: (
        json.dumps(message).replace("BTCUSDT", "BTC\\u0055SDT").replace("depthUpdate", "depth\\u0055pdate")
    ),
    "a snapshot in its stream's wrapper": lambda message: json.dumps(
        {"stream": "btcusdt@depthSnapshot", "data": message} if "lastUpdateId" in message else message
    ),
    "a snapshot in a wrapper, the name last": lambda message: json.dumps(
        {"data": message, "stream": "btcusdt@snapshot"} if "lastUpdateId" in message else message
    ),
    "a snapshot as the WebSocket API replies": lambda message: json.dumps(
        {"id": "51e2", "status": 200, "result": message, "rateLimits": [{"rateLimitType": "REQUEST_WEIGHT"}]}
        if "lastUpdateId" in message
        else message
    ),
    "a snapshot in an object of its own": lambda message: json.dumps(
        {"type": "snapshot", "symbol": "BTCUSDT", "book": message} if "lastUpdateId" in message else message
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_messages_as_any_writer_of_json_makes_them_give_the_same_rows(
    writer: str, tmp_path: Path, truth: list[dict[str, str]]
) -> None:
    found = replayed(tmp_path, text_of(lines(), write=WRITERS[writer]))
    assert (found.rows, len(found.report)) == (truth, 1), found.report


SIDES = ([[f"{99 - i}.00", "7.0"] for i in range(20)], [[f"{104 + i}.00", "7.0"] for i in range(20)])


@pytest.mark.parametrize("levels", [5, 10, 20])
@pytest.mark.parametrize("first", ["a partial book", "the snapshot"])
def test_bare_partial_books_beside_changes_are_no_snapshots(
    levels: int, first: str, tmp_path: Path, truth: list[dict[str, str]]
) -> None:
    begin = START + (0 if first == "a partial book" else STEP + 2000)
    books = [
        (
            begin + 500 + i * STEP,
            {"lastUpdateId": 10 * i + 9, "bids": SIDES[0][:levels], "asks": SIDES[1][:levels]},
        )
        for i in range(12)
    ]
    found = replayed(tmp_path, text_of(sorted([*lines(), *books], key=lambda line: line[0])))
    assert found.rows == truth, found.report
    found.says("12 partial books were not used, because their instrument has a stream of changes")


def test_snapshots_of_few_levels_that_somebody_asked_for_are_taken(tmp_path: Path) -> None:
    """One every three seconds, of as many levels as a partial book has: each that fits is taken."""
    asked = [
        (
            START + i * 12 * STEP + STEP + 500,
            {"lastUpdateId": 120 * i + 15, "bids": SIDES[0], "asks": SIDES[1]},
        )
        for i in range(3)
    ]
    made = [(START + i * STEP, diff(i)) for i in range(40)]
    found = replayed(tmp_path, text_of(sorted([*made, *asked], key=lambda line: line[0])), rows=["spread()"])
    assert len(found.rows) > 30, found.report
    assert not any("partial" in line for line in found.report), found.report


def test_which_instrument_a_snapshot_is_of_may_stand_beside_it_or_in_it(tmp_path: Path) -> None:
    ways: list[Callable[[str], dict[str, Any]]] = [
        lambda symbol: {"symbol": symbol, "snapshot": SNAPSHOT},
        lambda symbol: {"s": symbol, "id": 7, "status": 200, "result": SNAPSHOT},
        lambda symbol: {**SNAPSHOT, "symbol": symbol},
    ]
    for way in ways:
        parts = [
            (START + i * STEP + n, diff(i, symbol=symbol))
            for i in range(9)
            for n, symbol in enumerate(("BTCUSDT", "ETHUSDT"))
        ]
        parts += [(START + STEP + 9, way(symbol)) for symbol in ("BTCUSDT", "ETHUSDT")]
        text = text_of(sorted(parts, key=lambda line: line[0]))
        found = replayed(tmp_path, text, rows=["spread()"], feed={"instruments": ["BTCUSDT", "ETHUSDT"]})
        assert {row["instrument"] for row in found.rows} == {"BTCUSDT", "ETHUSDT"}, found.report
        # Of two in one object nobody can say which is meant.
        two = {"one": SNAPSHOT, "two": SNAPSHOT}
        parts = [(at, two if "lastUpdateId" in str(m) else m) for at, m in parts]
        both = replayed(
            tmp_path, text_of(parts), rows=["spread()"], feed={"instruments": ["BTCUSDT", "ETHUSDT"]}
        )
        assert both.rows == []
        both.says("never became valid: no snapshot came")


def test_what_became_of_damaged_books_is_told(tmp_path: Path) -> None:
    torn = text_of(lines()).replace(b'"u":110,"b"', b'"u":110,"b')
    lost = replayed(tmp_path, torn)
    assert not any("resynced" in line for line in lost.report), lost.report
    snapshot = text_of([(START + 13 * STEP - 1, {**SNAPSHOT, "lastUpdateId": 135})])
    at = torn.index(text_of([(START + 14 * STEP, diff(14))]))
    back = replayed(tmp_path, torn[:at] + snapshot + torn[at:])
    back.says("note: 1 venue message could not be used; its book was resynced")
    assert not any("no valid book" in line for line in back.report), back.report
    assert len(back.rows) > len(lost.rows)


def test_strict_is_not_exit_0_where_there_is_a_note(tmp_path: Path) -> None:
    config = tmp_path / "pipeline.toml"
    config.write_text(
        '[[feeds]]\nvenue = "binance_spot"\ninstruments = ["BTCUSDT"]\n[features]\nrows = ["spread()"]\n'
    )

    def exit_code(data: bytes, *options: str) -> int:
        (tmp_path / "capture.log").write_bytes(data)
        done = CliRunner().invoke(
            app, ["replay", str(config), "--input", str(tmp_path / "capture.log"), *options]
        )
        return done.exit_code

    good, no_snapshot = text_of(lines()), text_of(lines(snapshot=False))
    assert exit_code(good) == exit_code(good, "--strict") == 0
    # What is told of its units is no fault.
    assert exit_code(text_of(lines(), UNITS["ISO"][0]), "--strict") == 0
    assert (exit_code(no_snapshot), exit_code(no_snapshot, "--strict")) == (0, 1)
