"""What a report says besides its figures: what was cut, and why there are no rows."""

from __future__ import annotations

from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from tickwire.cli.output import print_report
from tickwire.config import Config
from tickwire.engine import Stats
from tickwire.findings import findings
from tickwire.replay import summary
from tickwire.stat_file import BUCKET_COUNT, Histogram


def config(*instruments: str) -> Config:
    feed = {"name": "spot", "venue": "binance_spot", "instruments": list(instruments) or ["BTCUSDT"]}
    return Config.from_dict({"feeds": [feed], "features": {"rows": ["spread()"]}})


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
            "all of the 9 messages are malformed, of unknown symbols or of other streams: "
            "probably another venue's or other instruments'",
        ),
        ({"messages": 9, "trades": 9, "snapshots": 1}, "none of the 9 messages changes a book"),
        ({"messages": 9, "ignored": 9}, "none of the 9 messages changes a book"),
        ({"messages": 9, "book_events": 8}, "no snapshot came"),
        (
            {"messages": 9, "book_events": 8, "snapshots_refused": 2},
            "none of the 2 snapshots could be read, or told which instrument it is of",
        ),
        (
            {"messages": 9, "book_events": 8, "snapshots_failed": 3},
            "no snapshot could be had in 3 tries",
        ),
        (
            {"messages": 9, "book_events": 8, "snapshots": 2, "snapshots_refused": 2},
            "none of the 2 snapshots bridged to the 8 book events",
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
