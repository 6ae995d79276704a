"""What a replay's inputs were, in words: the units of their stamps, whose messages they hold, and where a
book was lost for good. `findings` has what the counters tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tickwire.config import Config, Feed
from tickwire.features import KERNELS
from tickwire.stats import Stats
from tickwire.venues import OrderVenue
from tickwire.wording import numbered

__all__ = [
    "input_findings",
    "resolution_findings",
    "stamp_lines",
    "trade_findings",
    "why_alone",
    "why_another",
    "why_unordered",
]

# Instruments of which one thing is said. A whole exchange has ten thousand.
_MOST_NAMED = 8
_MOST_ROWS = 3
_OF_TRADES = {name for name, kernel in KERNELS.items() if kernel.reads_trades}

# The engine's codes in the counter `book_state`.
_SUSPECT, _HALTED = 3, 5

_REASONS = {
    "gap": "an event is missing before it",
    "crossed": "its best bid is at or above its best ask, so something was missed that no id shows",
    "malformed": "a message of it could not be read",
    "bad_number": "a price or quantity of it could not be used",
    "too_many_levels": "a message of it had more levels than feeds[].max_levels allows",
    "disconnected": "the connection was lost",
    "stale": "nothing came for it for longer than feeds[].stale_after",
    "halted": "the venue halted it",
    "depth": "levels that the features need fell off the deep end",
    "memory": "an order of it found no memory",
    "clock": "a stamp was of another time than those before it",
    "trade_gap": "trades of it are missing, and features.trade_gaps ends the epoch there",
}


def _facts_of(stats: Stats, name: str) -> Mapping[str, Any]:
    """What the engine saw in the captures of one feed; empty for a live one."""
    return next((facts for facts in stats.captures if facts["feed"] == name), {})


def stamp_lines(stats: Stats) -> list[str]:
    """A line for each file whose receive stamps are no whole nanoseconds, or do not look like it."""
    out = []
    for facts in stats.captures:
        for stamps in facts["stamps"]:
            form = ("fractions of " if stamps["fractions"] else "") + stamps["form"]
            if stamps["as_nanoseconds"]:
                said = f"receive stamps that look like {form}, taken for nanoseconds for its lines of ours"
            elif stamps["no_zone"]:
                said = f"receive stamps are {form} without a zone, taken for UTC"
            else:
                said = (
                    f"receive stamps are {form}" if form == "ISO times" else f"receive stamps are in {form}"
                )
            out.append(f"input: {facts['feed']}: {stamps['file']}: {said}")
    return out


def input_findings(stats: Stats, config: Config, feed: Feed, name: str) -> list[str]:
    """Books of a feed that were lost for good, and those that had no time to warm up."""
    facts = _facts_of(stats, name)
    lost = [
        f"note: {name} {book['instrument']} had no valid book from {_place(book)} to the end of the input: "
        f"{_REASONS.get(book['reason'], book['reason'])}, and {_missing(book, feed)}"
        for book in facts.get("lost", ())
    ]
    cold = [
        f"note: {name} {book['instrument']} gave no row: {config.features.rows[book['feature']].strip()} was "
        "not warm before the end of the input"
        + (
            f", it needed {book['more_ns'] / 1e9:,.3f} s more"
            if book["more_ns"] >= 0
            else ", it needed more events"
        )
        for book in facts.get("not_warm", ())
    ]
    return _few(lost, name, "lost their books for good") + _few(cold, name, "were not warm before the end")


def trade_findings(stats: Stats, config: Config, feed: Feed, name: str) -> list[str]:
    """Instruments of which no trade came, where rows look at trades."""
    rows = [
        config.features.rows[i].strip()
        for i, chain in enumerate(_chains(config))
        if any(node["kernel"] in _OF_TRADES for node in chain)
    ]
    if not rows and config.trigger != "trade":
        return []
    what = f"{_listed(rows)} had none to look at" if rows else 'the trigger "trade" had none to fire at'
    symbols = [instrument.symbol for instrument in feed.instruments]
    valid = [symbol for symbol in symbols if stats.counters.get(f"{name}/{symbol}/epoch")]
    facts = _facts_of(stats, name)
    without = [symbol for symbol in valid if symbol in facts.get("without_trades", ())]
    # Of venues that send every order trades are in the same stream, so a stock without one did not trade.
    if not facts or (feed.by_order and len(without) < len(valid)):
        without = []
    none_at_all = bool(valid) and not stats.counters.get(f"{name}/trades", 0)
    if (none_at_all and len(without) == len(valid) > 1) or (none_at_all and not without):
        return [f"note: {name}: no trade came of any instrument: {what}"]
    lines = [f"note: {name} {symbol}: no trade of it came: {what}" for symbol in without]
    return _few(lines, name, "had no trade")


def resolution_findings(stats: Stats, config: Config, feed: Feed, name: str) -> list[str]:
    """Windows that are shorter than what the stamps tell apart."""
    facts = _facts_of(stats, name)
    # Of the venues' stamps milliseconds are the least that is known.
    least = 1_000_000 if config.features.clock == "event" and not feed.by_order and not facts else 1
    resolution = facts.get("resolution_ns", least)
    short = [
        config.features.rows[i].strip()
        for i, chain in enumerate(_chains(config))
        if any(0 < node[key] < resolution for node in chain for key in ("window_ns", "halflife_ns"))
    ]
    if 0 < config.every_ns < resolution:
        short.append("features.every")
    if not short:
        return []
    unit = {1_000: "1 µs", 1_000_000: "1 ms", 1_000_000_000: "1 s"}[resolution]
    whose = "the venue's" if config.features.clock == "event" else "the receive"
    look = "looks" if len(short) == 1 else "look"
    return [
        f"note: {name}: {whose} stamps resolve {unit}, and {_listed(short)} {look} at less: events that are "
        f"less than {unit} apart have one time there"
    ]


def _chains(config: Config) -> list[list[dict[str, Any]]]:
    """By row: its expression's node, and those that are inside it."""
    nodes = config.plan.nodes
    out = []
    for output in config.plan.outputs:
        chain = [nodes[output]]
        while chain[-1]["input"] >= 0:
            chain.append(nodes[chain[-1]["input"]])
        out.append(chain)
    return out


def _listed(rows: Sequence[str]) -> str:
    shown = ", ".join(rows[:_MOST_ROWS])
    more = len(rows) - _MOST_ROWS
    return f"{shown} and {more:,} more" if more > 0 else shown


def why_another(stats: Stats, feed: Feed, name: str, count: Callable[[str], int]) -> str | None:
    """Where no book of a feed became valid because its input is of another venue, or of other instruments."""
    facts = _facts_of(stats, name)
    if looks := facts.get("looks_like"):
        return f'its messages look like {looks}\'s, and venue = "{feed.venue}" is configured'
    if facts.get("others") and not count("book_events"):
        return f"its messages are of other instruments: {_names(facts)}"
    return None


def why_alone(stats: Stats, name: str, symbol: str) -> str:
    """Where other books of the same feed did become valid."""
    facts = _facts_of(stats, name)
    if symbol in facts.get("without_changes", ()):
        others = f"; it has some of {_names(facts)}" if facts["others"] else ""
        return f"the input has no book change of it{others}"
    if symbol in facts.get("without_snapshot", ()):
        return "the input has no snapshot of it"
    return "other books of this feed did; its own events or a snapshot that they continue are missing"


def why_unordered(stats: Stats, venue: OrderVenue, name: str, symbol: str) -> str:
    """Where messages of a feed by order came and the book never became valid."""
    facts = _facts_of(stats, name)
    lost = stats.counters.get(f"{name}/lost_messages", 0)
    if symbol in facts.get("without_changes", ()):
        if facts["others"]:
            return f"the input has no {venue.directory} of it, but those of {_names(facts)}"
        missing = f": {numbered(lost, 'missing message[s]')} may hold it" if lost else ""
        return f"the input has no {venue.directory} of it{missing}"
    state = stats.counters.get(f"{name}/{symbol}/book_state")
    if state == _SUSPECT:
        if lost:
            missing = numbered(lost, "message[s] [is|are] missing")
            return f"{missing} before it could be, and nothing that begins it anew followed"
        return "it was crossed, or a message of it did not fit, before the venue said that it trades"
    if state == _HALTED:
        return f"the venue never said that it trades ({venue.trading_type})"
    trading = f"{venue.trading} ({venue.trading_type})"
    return f"the input has no {venue.directory} and {trading} of it, or cannot be read"


def _names(facts: Mapping[str, Any]) -> str:
    names = ", ".join(facts["others"])
    more = facts["others_count"] - len(facts["others"])
    return f"{names} and {more:,} more" if more else names


def _place(book: Mapping[str, Any]) -> str:
    seconds, ns = divmod(book["ts"], 1_000_000_000)
    when = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{ns // 1_000_000:03d} UTC"
    return f"{book['place']} ({when})" if book["place"] else when


def _missing(book: Mapping[str, Any], feed: Feed) -> str:
    if book["reason"] in ("trade_gap", "clock"):
        return "no event that begins it anew followed"
    if book["state"] == "suspect":
        return "no snapshot followed" if feed.by_order else "no snapshot that its events continue followed"
    if book["state"] == "stale":
        return "no event that continues it followed"
    return "nothing that begins it anew followed"


def _few(lines: Sequence[str], name: str, what: str) -> list[str]:
    more = len(lines) - _MOST_NAMED
    return (
        [*lines[:_MOST_NAMED], f"note: {name}: {numbered(more, 'more instrument[s]')} {what}"]
        if more > 0
        else list(lines)
    )
