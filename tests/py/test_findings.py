"""What a report says besides its figures: what was cut, and why there are no rows."""

from __future__ import annotations

import dataclasses
from io import StringIO
from typing import Any

import numpy as np
import pytest
from configuring import one_feed
from rich.console import Console

from tickwire.cli.output import print_report, report_dict
from tickwire.config import Config
from tickwire.findings import findings
from tickwire.replay import summary
from tickwire.stat_file import BUCKET_COUNT, Histogram
from tickwire.stats import Stats


def config(*instruments: str) -> Config:
    return one_feed(instruments=instruments or ("BTCUSDT",), feed={"name": "spot"})


def stats(counters: dict[str, int], *, rows: int = 10) -> Stats:
    return Stats(
        seconds=2.0,
        rows=rows,
        signals=rows,
        notices=0,
        warming=0,
        late=0,
        latency=Histogram(np.zeros(BUCKET_COUNT, np.uint64)),
        stages={},
        counters={f"spot/{name}": value for name, value in counters.items()},
        histograms={},
        errors=[],
        sinks={},
        snapshots={},
        cpu_share={},
    )


@pytest.mark.parametrize(
    ("counters", "expected"),
    [
        ({"messages": 0}, "no message came"),
        (
            {"messages": 9, "malformed": 5, "unknown_symbol": 3, "ignored": 1},
            "none of its 9 messages can be used: malformed, of unknown symbols or of other streams, so "
            "probably another venue's or other instruments'",
        ),
        (
            {"messages": 9, "trades": 8, "quotes": 1, "snapshots": 1},
            "none of its 9 messages changes a book (8 trades, 1 quote): the stream of its changes (depth) is "
            "missing",
        ),
        (
            {"messages": 1, "ignored": 1},
            "its only message changes no book (1 answer or message of other streams): the stream of its "
            "changes (depth) is missing",
        ),
        (
            {"messages": 1, "ignored": 1, "connects": 1},
            "the venue answered the subscription, and no message of a market came: check the symbol, unless "
            "the venue is quiet about it",
        ),
        ({"messages": 1, "subscribe_errors": 1, "connects": 1}, "the venue refused the subscription"),
        ({"connect_failures": 7}, "no connection to the venue came about"),
        ({"capture_lines_skipped": 1}, "its only line could not be read"),
        ({"capture_lines_skipped": 1800}, "none of its 1,800 lines could be read"),
        ({"messages": 9, "book_events": 8}, "no snapshot came"),
        (
            {"messages": 9, "book_events": 8, "snapshots_refused": 2},
            "none of its 2 snapshots could be read, or told which instrument it is of",
        ),
        (
            {"messages": 9, "book_events": 8, "snapshots_refused": 1},
            "its only snapshot could not be read, or does not tell which instrument it is of",
        ),
        (
            {"messages": 9, "book_events": 8, "snapshots_failed": 3},
            "no snapshot could be had in 3 tries",
        ),
        (
            {"messages": 9, "book_events": 8, "snapshots_failed": 1},
            "no snapshot could be had in 1 try",
        ),
        (
            {"messages": 9, "book_events": 8, "snapshots": 2, "snapshots_refused": 2},
            "none of its 2 snapshots bridged to any of the 8 book events",
        ),
    ],
)
def test_book_that_never_became_valid_is_explained(counters: dict[str, int], expected: str) -> None:
    lines = summary(stats({**counters, "BTCUSDT/epoch": 0}, rows=0), config())
    assert lines[-1] == f"note: spot BTCUSDT never became valid: {expected}"
    assert not [line for line in lines if "never became valid" in line][1:]


def test_book_that_never_became_valid_beside_others_that_did() -> None:
    lines = findings(
        stats({"messages": 9, "book_events": 9, "snapshots": 1, "BTCUSDT/epoch": 0, "ETHUSDT/epoch": 2}),
        config("BTCUSDT", "ETHUSDT"),
    )
    (line,) = lines
    assert line.startswith("note: spot BTCUSDT never became valid: other books of this feed did; its own")


def test_no_rows_of_a_valid_book_is_explained() -> None:
    counters = {"messages": 9, "BTCUSDT/epoch": 1}
    (line,) = findings(stats(counters, rows=0), config())
    assert line == (
        'note: no rows, though a book was valid: no event matched the trigger "book" '
        "once all features were warm"
    )
    assert findings(stats(counters, rows=1), config()) == []


def test_cut_windows_and_books_are_told_live_as_in_a_replay() -> None:
    cut = stats({"BTCUSDT/window_overflows": 7, "BTCUSDT/levels_dropped": 8})
    text = StringIO()
    print_report(Console(file=text, width=200), cut, config())
    for line in (
        "note: 7 samples left a window early; raise features.max_event_rate",
        "note: 8 book levels fell off the deep end; raise feeds[].max_levels",
    ):
        assert line in text.getvalue().splitlines()
        assert line in summary(cut, config())


@pytest.mark.parametrize(
    ("damaged", "resynced", "after"),
    [
        (0, 0, ""),
        (2, 2, "; their books were resynced"),
        (2, 0, "; the books that they were of did not become valid again"),
        (3, 2, "; a book was damaged by them 3 times and became valid again 2 times"),
    ],
)
def test_books_are_called_resynced_only_where_they_were(damaged: int, resynced: int, after: str) -> None:
    counters = {"malformed": 3, "bad_number": 1, "books_damaged": damaged, "books_resynced": resynced}
    assert findings(stats(counters), config()) == [f"note: 4 venue messages could not be used{after}"]


def facts(**known: Any) -> list[dict[str, Any]]:
    """What the engine saw in the captures of the feed."""
    nothing: dict[str, Any] = {"looks_like": "", "others_count": 0}
    lists: dict[str, Any] = {
        name: [] for name in ("stamps", "others", "without_changes", "without_snapshot", "lost", "not_warm")
    }
    return [{"feed": "spot", **nothing, **lists, **known}]


def of_input(counters: dict[str, int], **known: Any) -> list[str]:
    found = dataclasses.replace(stats(counters, rows=0), captures=facts(**known))
    return findings(found, config("BTCUSDT", "ETHUSDT"))


def test_what_an_input_is_instead_is_told() -> None:
    counters = {"messages": 9, "BTCUSDT/epoch": 0, "ETHUSDT/epoch": 0}
    for line in of_input(counters, looks_like="Bybit"):
        assert line.endswith('its messages look like Bybit\'s, and venue = "binance_spot" is configured')
    for line in of_input(counters, others=["A", "B"], others_count=7):
        assert line.endswith("its messages are of other instruments: A, B and 5 more")
    one = {**counters, "BTCUSDT/epoch": 1, "book_events": 9}
    for known, why in (
        ({"without_changes": ["ETHUSDT"]}, "the input has no book change of it"),
        (
            {"without_changes": ["ETHUSDT"], "others": ["A"], "others_count": 1},
            "the input has no book change of it; it has some of A",
        ),
        ({"without_snapshot": ["ETHUSDT"]}, "the input has no snapshot of it"),
    ):
        assert of_input(one, **known)[0] == f"note: spot ETHUSDT never became valid: {why}"


def test_a_book_lost_for_good_is_told_with_its_place() -> None:
    book = {
        "instrument": "BTCUSDT",
        "state": "suspect",
        "reason": "gap",
        "place": "a.log:7",
        "ts": 1_723_161_253_937_085_768,
    }
    (line,) = of_input({"messages": 9, "BTCUSDT/epoch": 1}, lost=[book])
    assert line == (
        "note: spot BTCUSDT had no valid book from a.log:7 (2024-08-08 23:54:13.937 UTC) to the end of the "
        "input: an event is missing before it, and no snapshot that its events continue followed"
    )
    many = of_input({"messages": 9, "BTCUSDT/epoch": 1}, lost=[book] * 20)
    assert many[8:] == ["note: spot: 12 more instruments lost their books for good"]


def test_what_was_not_warm_is_told_with_what_it_needs() -> None:
    cold = [{"instrument": "BTCUSDT", "feature": 0, "more_ns": 1_500_000_000}]
    (line,) = of_input({"messages": 9, "BTCUSDT/epoch": 1}, not_warm=cold)
    assert line == (
        "note: spot BTCUSDT gave no row: spread() was not warm before the end of the input, "
        "it needed 1.500 s more"
    )
    (line,) = of_input({"messages": 9, "BTCUSDT/epoch": 1}, not_warm=[{**cold[0], "more_ns": -1}])
    assert line.endswith("it needed more events")


def multicast(*lines: str, **servers: str) -> Config:
    table = {"lines": list(lines) or ["233.1.1.1:7", "233.1.1.2:7"], **servers}
    return one_feed("nasdaq_itch", ["AAPL"], feed={"name": "spot", "multicast": table})


SERVERS = {"rerequest": "10.1.1.1:7", "glimpse": "venue.example:8"}


@pytest.mark.parametrize(
    ("counters", "servers", "expected"),
    [
        (
            {"line0/socket_drops": 3, "rerequest/socket_drops": 4},
            SERVERS,
            "7 datagrams were dropped by the kernel for want of room: raise multicast.receive_buffer_bytes, "
            "and net.core.rmem_max where the start-up report says that the socket got less",
        ),
        (
            {"line1/datagrams_cut": 2},
            SERVERS,
            "2 datagrams were longer than multicast.max_datagram_bytes and could not be used: raise it",
        ),
        (
            {"malformed_datagrams": 5},
            SERVERS,
            "5 datagrams could not be read as MoldUDP64 and were not used: their lengths do not hold",
        ),
        (
            {"implausible_datagrams": 4},
            SERVERS,
            "4 datagrams had a number far beyond all others and were not believed: no server and no silence "
            "of the stream bore it out",
        ),
        ({"line1/receive_errors": 1}, SERVERS, "1 receive failed"),
        (
            {"other_session": 7},
            SERVERS,
            "7 datagrams of another session than the one that goes on were not believed",
        ),
        ({"lines_silent": 2}, SERVERS, "2 times a line brought nothing for liveness_timeout"),
        (
            {"window_full": 1},
            SERVERS,
            "1 time the window was full and what it waited for given up: raise multicast.window_datagrams",
        ),
        (
            {"other_groups": 9},
            SERVERS,
            "9 datagrams of groups that do not carry the stream, or that no line names, were skipped",
        ),
        (
            {"requests": 1200, "request_timeouts": 9},
            SERVERS,
            "9 of 1,200 requests were not answered in time",
        ),
        (
            {"snapshots_failed": 3, "snapshots_too_old": 1},
            SERVERS,
            "3 snapshots could not be had, 1 of them older than the stream",
        ),
        (
            {"lost_messages": 1234, "snapshots": 2},
            SERVERS,
            "1,234 messages came from neither a line nor the re-request server: its books were suspect until "
            "a snapshot, of which there were 2",
        ),
        (
            {"lost_messages": 1},
            {},
            "1 message came from no line: its books are suspect until the next session, for "
            "multicast.glimpse is not set",
        ),
    ],
)
def test_what_lines_and_servers_did_not_bring(
    counters: dict[str, int], servers: dict[str, str], expected: str
) -> None:
    assert findings(stats(counters), multicast(**servers)) == [f"note: spot: {expected}"]


def test_a_capture_of_cut_packets_is_told() -> None:
    lines = findings(stats({"packets_cut": 3}), multicast())
    assert lines[0].startswith("note: 3 packets of a capture hold less than their datagram")


def test_what_recovery_is_for_needs_no_word() -> None:
    counters = {
        "line0/line_gap": 9,
        "line1/line_duplicate": 9,
        "sequence_gaps": 4,
        "requests": 1,
        "sessions": 1,
    }
    assert findings(stats({**counters, "snapshots": 1}), multicast(**SERVERS)) == []


@pytest.mark.parametrize(
    ("counters", "expected"),
    [
        ({}, "no datagram came: wrong groups or ports, or another network interface than theirs"),
        (
            {"line0/line_datagrams": 9, "lost_messages": 3},
            "the session had begun before, and no snapshot could be had of it",
        ),
        (
            {"line0/line_heartbeats": 9, "snapshots_failed": 3},
            "the session had begun before, and no snapshot could be had of it",
        ),
        ({"line0/line_datagrams": 9}, "datagrams came, but no message that could be used"),
        (
            {"line0/line_datagrams": 9, "messages": 9},
            "the input has no stock directory (R) and trading action (H) of it, or cannot be read",
        ),
    ],
)
def test_multicast_book_that_never_became_valid_is_explained(counters: dict[str, int], expected: str) -> None:
    lines = findings(stats({**counters, "AAPL/epoch": 0}, rows=0), multicast(**SERVERS))
    assert lines[0] == f"note: spot AAPL never became valid: {expected}"


def test_of_a_whole_exchange_a_few_are_named() -> None:
    symbols = [f"S{number}" for number in range(1000)]
    whole = one_feed("nasdaq_itch", symbols, feed={"name": "itch"})
    epochs = {f"{symbol}/epoch": 0 for symbol in symbols}
    counters = {f"itch/{name}": value for name, value in epochs.items()}
    lines = findings(dataclasses.replace(stats({}, rows=0), counters=counters), whole)
    assert [line for line in lines if "never became valid" in line][8:] == [
        "note: itch: 992 more instruments never became valid"
    ]


def test_live_report_has_each_line() -> None:
    counters = {
        "line0/line_received": 1000,
        "line0/line_won": 900,
        "line0/line_duplicate": 90,
        "line0/line_late": 10,
        "line1/line_received": 950,
        "line1/socket_drops": 7,
        "rerequest/line_won": 12,
        "sequence_gaps": 3,
        "requests": 2,
        "requested_messages": 12,
    }
    text = StringIO()
    print_report(Console(file=text, width=80), stats(counters), multicast(**SERVERS))
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.getvalue().splitlines()]
    assert ["line0", "1,000", "900", "90", "10", "0", "0"] in cells
    assert ["line1", "950", "0", "0", "0", "0", "7"] in cells
    assert ["rerequest", "0", "12", "0", "0", "0", "0"] in cells
    assert "spot: 3 gaps, 2 requests, 12 messages requested, 0 snapshots, 0 messages lost" in text.getvalue()
    report = report_dict(stats(counters), multicast())["multicast"]["spot"]
    assert list(report["lines"]) == ["line0", "line1"]
    assert (report["lines"]["line0"]["won"], report["sequence_gaps"]) == (900, 3)


def test_what_left_too_old_is_said_wherever_it_waited() -> None:
    counters = {"infer0/stale": 2, "ingest0/rows_stale": 30, "router/expired": 400, "spot/data_stale": 5000}
    (line,) = (
        line
        for line in findings(dataclasses.replace(stats({}), counters=counters), config())
        if "older" in line
    )
    assert line.startswith("note: 432 rows and signals left as stale")
    assert not [line for line in findings(stats({}), config()) if "older" in line]
