"""What a running engine says while it runs: from counters and error logs to lines."""

from __future__ import annotations

from typing import Any

import pytest
from configuring import one_feed

from tickwire.config import Config
from tickwire.stat_file import ErrorEntry
from tickwire.telling import Teller, proxy_note, warm_up

VALID, SUSPECT, EMPTY = 2, 3, 0


def config(**changes: Any) -> Config:
    return one_feed(instruments=("BTCUSDT", "ETHUSDT"), feed=changes)


class Engine:
    """Counters and errors as an engine would show them; `look` at a second of the run."""

    def __init__(self, settings: Config) -> None:
        self.lines: list[str] = []
        self.teller = Teller(settings, self.lines.append)
        self.counters: dict[str, int] = {"binance_spot/connections_up": 1}
        self.errors: dict[int, ErrorEntry] = {}
        self.failures: dict[tuple[int, int], str] = {}
        for symbol in ("BTCUSDT", "ETHUSDT"):
            self.book(symbol, VALID, 0.0)

    def book(self, symbol: str, state: int, since: float, **others: int) -> None:
        values = {"book_state": state, "book_since": int((1000.0 + since) * 1e9), "heard": 1, **others}
        self.counters |= {f"binance_spot/{symbol}/{name}": value for name, value in values.items()}

    def error(self, kind: int, text: str, times: int = 1) -> None:
        before = self.errors.get(kind, ErrorEntry("ingest0", kind, text, 0, 0, 0))
        self.errors[kind] = ErrorEntry("ingest0", kind, before.text, 0, 0, before.count + times, text)

    def look(self, second: float) -> list[str]:
        self.lines.clear()
        self.teller.look(
            self.counters, self.errors.values(), self.failures, now=50.0 + second, utc=1000.0 + second
        )
        return list(self.lines)


def test_an_error_is_told_when_it_begins_and_when_it_is_over() -> None:
    engine = Engine(config())
    assert engine.look(0) == []
    engine.counters["binance_spot/connections_up"] = 0
    engine.error(4, "connection_refused: connect to 10.0.0.1:9443: Connection refused")
    assert engine.look(1) == [
        "binance_spot: connection_refused: connect to 10.0.0.1:9443: Connection refused"
    ]
    engine.error(4, "connection_refused: connect to 10.0.0.2:9443: Connection refused", 5)
    assert engine.look(2) == []  # The same, but for a number.
    engine.counters["binance_spot/connections_up"] = 1
    assert engine.look(3) == ["binance_spot: connection_refused: over, 6 times since 00:16:41Z"]
    assert engine.look(4) == []
    engine.error(4, "connection_refused: connect to [::1]:9443: Network is unreachable")
    engine.counters["binance_spot/connections_up"] = 0
    assert engine.look(5) == [
        "binance_spot: connection_refused: connect to [::1]:9443: Network is unreachable"
    ]


def test_other_words_of_the_same_kind_are_told_and_bounded() -> None:
    engine = Engine(config())
    engine.counters["binance_spot/connections_up"] = 0
    told = []
    for i, word in enumerate("abcdefghijklmnop"):
        engine.error(6, f"connection_handshake: {word}")
        told += engine.look(float(i) / 10)
    assert told == [f"binance_spot: connection_handshake: {word}" for word in "abcdefgh"]


def test_an_error_that_takes_nothing_down_is_over_when_it_stays_away() -> None:
    engine = Engine(config())
    engine.error(9, "message_malformed: BTCUSDT: malformed\n")
    assert engine.look(0) == ["binance_spot: message_malformed: BTCUSDT: malformed"]
    assert engine.look(89) == []
    assert engine.look(91) == ["binance_spot: message_malformed: over, once since 00:16:40Z"]
    engine.error(9, "message_malformed: BTCUSDT: malformed")
    assert engine.look(100) == ["binance_spot: message_malformed: BTCUSDT: malformed"]


def test_a_replacement_that_fails_beside_a_connection_that_holds_is_not_over_at_once() -> None:
    engine = Engine(config())
    engine.error(6, "connection_handshake: HTTP 429")
    assert len(engine.look(0)) == 1
    assert engine.look(10) == []
    assert engine.look(91) == ["binance_spot: connection_handshake: over, once since 00:16:40Z"]


def test_a_snapshot_error_is_over_when_the_books_are_valid() -> None:
    engine = Engine(config())
    engine.book("ETHUSDT", EMPTY, 0.0)
    engine.error(15, "snapshot_failed: ETHUSDT: Invalid symbol. (code -1121)")
    assert engine.look(0) == ["binance_spot: snapshot_failed: ETHUSDT: Invalid symbol. (code -1121)"]
    engine.look(200)
    engine.book("ETHUSDT", VALID, 201.0)
    assert "binance_spot: snapshot_failed: over, once since 00:16:40Z" in engine.look(202)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda e: (
                e.book("ETHUSDT", EMPTY, 0),
                e.counters.update({"binance_spot/connections_up": 0}),
                e.error(8, 'subscribe_refused: spot: {"error":{"code":2,"msg":"Invalid request"},"id":1}'),
                e.look(0),
            ),
            "the venue's connection is not up: subscribe_refused: spot: Invalid request (code 2)",
        ),
        (
            lambda e: e.book("ETHUSDT", EMPTY, 0, heard=0),
            "no message of ETHUSDT has come: check the symbol, unless the venue is quiet about it",
        ),
        (lambda e: e.book("ETHUSDT", 1, 0), "it waits for a snapshot"),
        (
            lambda e: (
                e.book("ETHUSDT", 1, 0),
                e.failures.update({(0, 1): "ETHUSDT: Invalid symbol. (code -1121)"}),
            ),
            "there is no snapshot: Invalid symbol. (code -1121)",
        ),
        (
            lambda e: e.book("ETHUSDT", SUSPECT, 0, book_reason=1),
            "there is a gap in the venue's ids; it waits for the venue's recovery",
        ),
        (
            lambda e: (e.book("ETHUSDT", EMPTY, 0), e.counters.update({"binance_spot/connections_up": 0})),
            "the venue's connection is not up",
        ),
        (lambda e: e.book("ETHUSDT", 4, 0), "nothing came for stale_after"),
        (lambda e: e.book("ETHUSDT", 5, 0), "the venue has halted it"),
    ],
)
def test_a_book_that_is_not_valid_says_why_and_since_when(change: Any, why: str) -> None:
    engine = Engine(config())
    engine.look(0)
    change(engine)
    engine.look(0)
    assert engine.look(2.5) == []
    assert engine.look(3) == [f"binance_spot: ETHUSDT is not valid since 00:16:40Z: {why}"]
    assert engine.teller.state == f"ETHUSDT not valid since 00:16:40Z: {why}"
    assert engine.look(4) == []
    engine.book("ETHUSDT", VALID, 5)
    assert engine.look(5) == ["binance_spot: ETHUSDT is valid"]
    assert engine.teller.state == ""


def test_books_that_one_cause_takes_down_are_one_line() -> None:
    symbols = [f"A{i}USDT" for i in range(7)]
    engine = Engine(config(instruments=symbols))
    for symbol in symbols:
        engine.book(symbol, EMPTY, 0)
    engine.counters["binance_spot/connections_up"] = 0
    engine.look(0)
    assert engine.look(3) == [
        "binance_spot: A0USDT, A1USDT, A2USDT and 4 more are not valid since 00:16:40Z: "
        "the venue's connection is not up"
    ]


def test_another_reason_is_told_but_not_each_moment() -> None:
    engine = Engine(config())
    engine.book("BTCUSDT", 1, 0)
    engine.look(0)
    assert len(engine.look(3)) == 1
    engine.failures[0, 0] = "BTCUSDT: HTTP 451"
    assert engine.look(4) == []
    assert engine.look(13) == [
        "binance_spot: BTCUSDT is not valid since 00:16:40Z: there is no snapshot: HTTP 451"
    ]


def test_windows_that_are_not_warm_say_how_long_they_need() -> None:
    rows = ["spread()", 'zscore(ofi(levels=1, window="20s"), window="40s")']
    settings = one_feed(instruments=("BTCUSDT", "ETHUSDT"), rows=rows)
    engine = Engine(settings)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        engine.book(symbol, VALID, 0, epoch=1, rows=0)
    assert engine.look(0) == ["binance_spot: BTCUSDT, ETHUSDT: windows are not warm yet: they need 60 s more"]
    assert engine.look(45) == []
    assert engine.teller.state == "windows need 15 s more"
    engine.book("BTCUSDT", VALID, 0, epoch=1, rows=1)
    engine.book("ETHUSDT", VALID, 0, epoch=1, rows=1)
    assert engine.look(61) == ["binance_spot: BTCUSDT, ETHUSDT: windows are warm"]
    assert engine.teller.state == ""


def test_warm_up_adds_what_lies_in_one_another() -> None:
    def needs(*rows: str) -> tuple[float, int]:
        return warm_up(one_feed(rows=rows))

    assert needs("spread()") == (0.0, 0)
    assert needs("spread()", 'trade_flow(window="7s")', 'mid_return(window="3s")') == (7.0, 0)
    assert needs('mean(ema(spread(), halflife="2s"), window="30s")') == (40.0, 0)
    assert needs("mean(diff(spread(), lag=3), window=50)") == (0.0, 53)


@pytest.mark.parametrize(
    ("variables", "used"),
    [
        ({}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTPS_PROXY": "http://user:secret@127.0.0.1:9"}, "HTTPS_PROXY is"),
        (
            {"https_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "x"},
            "https_proxy is",
        ),
        ({"ALL_PROXY": "socks5://127.0.0.1:9", "HTTPS_PROXY": "y"}, "ALL_PROXY, HTTPS_PROXY are"),
        ({"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "binance.com"}, None),
        ({"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "example.org"}, "HTTPS_PROXY is"),
        ({"NO_PROXY": "*"}, None),
    ],
)
def test_proxies_that_are_not_used_are_said(
    variables: dict[str, str], used: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http", "https", "all", "no", "ws", "wss", "socks"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    note = proxy_note(config())
    if used is None:
        assert note is None
    else:
        assert note is not None
        assert note.startswith(f"proxies are not used: {used} set in the environment")
        assert "secret" not in note


def test_a_wall_clock_that_is_set_changes_nothing() -> None:
    engine = Engine(config())
    engine.look(0)
    engine.book("ETHUSDT", EMPTY, 1.0, heard=1)
    for second, utc in ((1.0, 1001.0), (2.0, -2598.0)):  # Set back by an hour in between.
        engine.teller.look(engine.counters, [], {}, now=50.0 + second, utc=utc)
    assert engine.lines == []
    engine.teller.look(engine.counters, [], {}, now=54.0, utc=-2596.0)
    assert engine.lines == ["binance_spot: ETHUSDT is not valid since 00:16:41Z: it waits for a snapshot"]
