"""Captures as other tools write them, and captures that are something else: each is read, or the report names
what it is. The truth is what the same messages give in the form that our own recorder writes.
"""

from __future__ import annotations

import asyncio
import bz2
import csv
import gzip
import importlib.util
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tickwire.cli.app import app
from tickwire.config import Config
from tickwire.errors import Error
from tickwire.replay import replay, summary

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tickwire._core") is None, reason="the compiled engine is not built"
)

START = 1_723_161_253_937_085_768
STEP = 250_000_000
ROWS = ["spread()", "imbalance(levels=1)", 'trade_count(window="600ms")']
EVENTS = 20

Line = tuple[int, dict[str, Any]]


def diff(number: int, *, symbol: str = "BTCUSDT", **changes: Any) -> dict[str, Any]:
    """The `number`th: its ids are 10 * number + 1 to 10 * number + 10. The best bid alternates."""
    message = {
        "e": "depthUpdate",
        "E": (START + number * STEP) // 1_000_000,
        "s": symbol,
        "U": 10 * number + 1,
        "u": 10 * number + 10,
        "b": [["100.50", "2.0" if number % 2 else "0.0"]],
        "a": [["102.00", f"{number + 1}.5"]],
    }
    return {"stream": f"{symbol.lower()}@depth@100ms", "data": {**message, **changes}}


def trade(number: int) -> dict[str, Any]:
    message = {
        "e": "trade",
        "E": 1_723_161_254_000,
        "s": "BTCUSDT",
        "t": number,
        "p": "101.00",
        "q": "1.0",
        "m": True,
    }
    return {"stream": "btcusdt@trade", "data": message}


SNAPSHOT = {"lastUpdateId": 15, "bids": [["100.00", "1.0"]], "asks": [["102.00", "1.0"], ["103.00", "1.0"]]}


def lines(*, snapshot: bool = True) -> list[Line]:
    """Diffs, a snapshot behind the second, and now and then a trade."""
    out: list[Line] = []
    for number in range(EVENTS):
        at = START + number * STEP
        out.append((at, diff(number)))
        if number == 1 and snapshot:
            out.append((at + 1000, SNAPSHOT))
        if number % 3 == 0:
            out.append((at + 2000, trade(number // 3 + 1)))
    return out


def text_of(
    parts: list[Line], stamp: Callable[[int], str] = str, write: Callable[[Any], str] | None = None
) -> bytes:
    write = write or (lambda message: json.dumps(message, separators=(",", ":")))
    return "".join(f"{stamp(at)} {write(message)}\n" for at, message in parts).encode()


@dataclass
class Replayed:
    rows: list[dict[str, str]]
    report: list[str]

    def says(self, *parts: str) -> None:
        for part in parts:
            assert any(part in line for line in self.report), (part, self.report)


def settings(**changes: Any) -> Config:
    feed = {"name": "main", "venue": "binance_spot", "instruments": ["BTCUSDT"], **changes.pop("feed", {})}
    features = {"rows": changes.pop("rows", ROWS), **changes}
    return Config.from_dict({"feeds": [feed], "features": features})


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


def zipped(*texts: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, text in enumerate(texts):
            archive.writestr(f"day/{number}.log", text)
    return out.getvalue()


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


def numbers(message: Any, write: Callable[[str], str]) -> Any:
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
}


@pytest.mark.parametrize("writer", WRITERS)
def test_messages_as_any_writer_of_json_makes_them_give_the_same_rows(
    writer: str, tmp_path: Path, truth: list[dict[str, str]]
) -> None:
    found = replayed(tmp_path, text_of(lines(), write=WRITERS[writer]))
    assert (found.rows, len(found.report)) == (truth, 1), found.report


# What is not read is called by its name.

KLINE = {"topic": "orderbook.50.BTCUSDT", "type": "delta", "data": {"s": "BTCUSDT", "b": [], "a": []}}


def futures(number: int) -> dict[str, Any]:
    return diff(number, pu=10 * number)


def replaced(number: int, **changes: Any) -> list[Line]:
    """The usual capture, but for one of its diffs."""
    return [
        (at, diff(number, **changes) if message.get("data", {}).get("u") == 10 * number + 10 else message)
        for at, message in lines()
    ]


REFUSED: dict[str, tuple[bytes, str]] = {
    "UTF-16": (text_of(lines()).decode().encode("utf-16"), "UTF-16 text; convert it"),
    "pcap": (b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00" + bytes(32), "a capture of packets (pcap)"),
    "day file": (b"\x00\x0cS" + bytes(11), "a day file of NASDAQ ITCH"),
    "Parquet": (b"PAR1" + bytes(40), "a Parquet file"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(40), "a 7z archive; unpack it"),
    "several files in a zip": (zipped(text_of(lines()), text_of(lines())), "a zip archive of 2 files"),
    "compressed twice": (gzip.compress(gzip.compress(b"x" * 100)), "compressed twice"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_capture_is_refused_by_its_name(kind: str, tmp_path: Path) -> None:
    data, said = REFUSED[kind]
    with pytest.raises(Error) as refused:
        replayed(tmp_path, data)
    assert said in str(refused.value), refused.value
    assert str(tmp_path / "0.log") in str(refused.value)


# A capture, what else is configured, and what the report must say.
NAMED: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "lines without a time": (
        b"".join(json.dumps(message).encode() + b"\n" for _, message in lines()),
        {},
        "a message without its receive time: expected TIME, a space and a message",
    ),
    "no snapshot": (text_of(lines(snapshot=False)), {}, "main BTCUSDT never became valid: no snapshot came"),
    "another venue": (
        text_of([(START + i, KLINE) for i in range(9)]),
        {},
        'never became valid: its messages look like Bybit\'s, and venue = "binance_spot" is configured',
    ),
    "futures for spot": (
        text_of([(START + i, futures(i)) for i in range(9)]),
        {},
        'its messages look like Binance USD-M futures\'s, and venue = "binance_spot" is configured',
    ),
    "spot for futures": (
        text_of(lines()),
        {"feed": {"venue": "binance_usdm"}},
        'its messages look like Binance spot\'s, and venue = "binance_usdm" is configured',
    ),
    "other instruments": (
        text_of(lines()),
        {"feed": {"instruments": ["ETHUSDT"]}},
        "main ETHUSDT never became valid: its messages are of other instruments: BTCUSDT",
    ),
    "one instrument of two": (
        text_of(
            [
                (at, m) if "lastUpdateId" not in m else (at, {"stream": "btcusdt@depth", "data": m})
                for at, m in lines()
            ]
        ),
        {"feed": {"instruments": ["BTCUSDT", "ETHUSDT"]}},
        "main ETHUSDT never became valid: the input has no book change of it",
    ),
    "not warm": (
        text_of(lines()),
        {"rows": ['mean(spread(), window="9s")']},
        'main BTCUSDT gave no row: mean(spread(), window="9s") was not warm before the end of the input, '
        "it needed",
    ),
    "not warm, by count": (
        text_of(lines()),
        {"rows": ["mean(spread(), window=100)"]},
        "mean(spread(), window=100) was not warm before the end of the input, it needed more events",
    ),
    "a gap": (
        text_of([line for line in lines() if line[1].get("data", {}).get("u") != 110]),
        {},
        "0.log:16 (2024-08-08 23:54:16.687 UTC) to the end of the input: an event is missing before it, and "
        "no snapshot that its events continue followed",
    ),
    "a torn message": (
        text_of(lines()).replace(b'"u":110,"b"', b'"u":110,"b'),
        {},
        "to the end of the input: a message of it could not be read, and no snapshot",
    ),
    "a torn message, what became of it": (
        text_of(lines()).replace(b'"u":110,"b"', b'"u":110,"b'),
        {},
        "note: 1 venue messages could not be used; the books that they were of did not become valid again",
    ),
    "a price beyond the units": (
        text_of(replaced(10, b=[["100.123456789", "1"]])),
        {},
        "message_bad_number: BTCUSDT: a price or quantity that does not fit price_decimals = 8, "
        'qty_decimals = 8: b = "100.123456789"',
    ),
    "an id that is no number": (
        text_of(replaced(10, u=1.5)),
        {},
        'message_malformed: BTCUSDT: malformed: u = "1.5"',
    ),
}


@pytest.mark.parametrize("kind", NAMED)
def test_a_capture_that_does_not_give_what_it_should_says_why(kind: str, tmp_path: Path) -> None:
    data, changes, said = NAMED[kind]
    replayed(tmp_path, data, **changes).says(said)


def test_what_became_of_damaged_books_is_told(tmp_path: Path) -> None:
    torn = text_of(lines()).replace(b'"u":110,"b"', b'"u":110,"b')
    lost = replayed(tmp_path, torn)
    assert not any("resynced" in line for line in lost.report), lost.report
    snapshot = text_of([(START + 13 * STEP - 1, {**SNAPSHOT, "lastUpdateId": 135})])
    at = torn.index(text_of([(START + 14 * STEP, diff(14))]))
    back = replayed(tmp_path, torn[:at] + snapshot + torn[at:])
    back.says("note: 1 venue messages could not be used; their books were resynced")
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
    assert exit_code(text_of([(START, KLINE)]), "--strict") == 1
