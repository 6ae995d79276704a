"""What the reader of a run's report must hear of besides its figures, a line each: what was cut or not
used, what an agent reported, and which books never became valid and why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tickwire.config import Config, Feed
from tickwire.inputs import (
    input_findings,
    resolution_findings,
    trade_findings,
    why_alone,
    why_another,
    why_unordered,
)
from tickwire.stat_file import ErrorEntry
from tickwire.stats import Stats
from tickwire.venues import VENUES, OrderVenue, StreamVenue, venue_words
from tickwire.wording import none_of, numbered, printable

__all__ = ["feed_count", "findings"]


@dataclass(frozen=True, slots=True)
class _Counted:
    counters: tuple[str, ...]
    text: str


# Counters of the engine that are zero where all is well, and what they mean.
_COUNTED = (
    _Counted(
        ("unknown_symbol",),
        "message[s] of instruments that the configuration does not name [was|were] skipped",
    ),
    _Counted(
        ("untrusted_records",),
        "record[s] of a worker process [was|were] not an answer to a row that it was given: it was ended, "
        "and its rows left unscored",
    ),
    _Counted(("snapshots_misfit",), "snapshot[s] fitted none of the events around [it|them]"),
    _Counted(("snapshots_empty",), "snapshot[s] [was|were] empty and not believed"),
    _Counted(("snapshots_one_sided",), "snapshot[s] had one empty side, which no other confirmed at once"),
    _Counted(("snapshots_crossed",), "snapshot[s] [was|were] crossed and not believed"),
    _Counted(
        ("snapshots_unsorted",),
        "snapshot[s] [was|were] not in the order of [its|their] prices and not believed",
    ),
    _Counted(("snapshots_duplicate",), "snapshot[s] had a price twice and [was|were] not believed"),
    _Counted(
        ("snapshots_too_long",), "snapshot[s] had more levels than were asked for and [was|were] not believed"
    ),
    _Counted(("snapshots_contradicted",), "snapshot[s] said of a level that was known what it is not: a gap"),
    _Counted(
        ("ids_went_back",),
        "time[s] an id came that was passed, of no recent message: the venue may count anew",
    ),
    _Counted(
        ("partial_books_refused",),
        "partial book[s] [was|were] not used, because [its|their] instrument has a stream of changes",
    ),
    _Counted(
        ("other_streams",),
        "book change[s] of other kinds of streams, as their names say, [was|were] not used",
    ),
    _Counted(
        ("other_symbol",),
        "message[s] of a stream that is, by its name, another instrument's [was|were] not used",
    ),
    _Counted(("window_overflows",), "sample[s] left a window early; raise features.max_event_rate"),
    _Counted(("levels_dropped",), "book level[s] fell off the deep end; raise feeds[].max_levels"),
    _Counted(
        ("orders_full", "levels_full"),
        "order[s] found no memory: their books are suspect for the rest of the day; raise feeds[].max_orders",
    ),
    _Counted(
        ("unknown_order", "duplicate_order", "other_book", "bad_qty"),
        "message[s] did not fit the orders before [it|them]: the input is not whole, and the books that they "
        "are of are suspect until a snapshot, a session or a start of day",
    ),
    _Counted(
        ("other_stock", "locate_moved", "unnamed_locate"),
        "message[s] [was|were] of a locate that is not, or not any more, their stock's: the books of both "
        "are suspect until a snapshot, a session or a start of day",
    ),
    _Counted(
        ("packets_cut",),
        "packet[s] of a capture [holds|hold] less than their datagram, or a fragment of it, and could not be "
        "used: record them whole",
    ),
    _Counted(("old_events",), "book event[s] came again, or behind later ones, and [was|were] passed over"),
    _Counted(("old_trades",), "trade[s] came again and [was|were] counted once"),
    _Counted(("old_quotes",), "quote[s] came again, or behind later ones, and [was|were] passed over"),
    _Counted(
        ("stale", "rows_stale", "expired"),
        "row[s] and signals left as stale: they were older than features.max_age, or their model's "
        "max_age_us",
    ),
    _Counted(
        ("clock_leaps",),
        "stamp[s] [is|are] more than ten minutes from the newest before them: the books were suspect there, "
        "and windows began anew",
    ),
    _Counted(
        ("stamps_capped",),
        "receive[s] [was|were] stamped later than read, so the clock was set meanwhile: the reading counts",
    ),
    _Counted(("unknown_type",), "message[s] of types that are not known [was|were] skipped"),
)


# Of a multicast feed, its lines together.
_COUNTED_OF_LINES = (
    _Counted(
        ("socket_drops",),
        "datagram[s] [was|were] dropped by the kernel for want of room: raise "
        "multicast.receive_buffer_bytes, and net.core.rmem_max where the start-up report says that the "
        "socket got less",
    ),
    _Counted(
        ("datagrams_cut",),
        "datagram[s] [was|were] longer than multicast.max_datagram_bytes and could not be used: raise it",
    ),
    _Counted(
        ("malformed_datagrams",),
        "datagram[s] could not be read as MoldUDP64 and [was|were] not used: their lengths do not hold",
    ),
    _Counted(
        ("implausible_datagrams",),
        "datagram[s] had a number far beyond all others and [was|were] not believed: no server and no "
        "silence of the stream bore it out",
    ),
    _Counted(("receive_errors",), "receive[s] failed"),
    _Counted(("lines_silent",), "time[s] a line brought nothing for liveness_timeout"),
    _Counted(
        ("window_full",),
        "time[s] the window was full and what it waited for given up: raise multicast.window_datagrams",
    ),
    _Counted(
        ("other_groups",),
        "datagram[s] of groups that do not carry the stream, or that no line names, [was|were] skipped",
    ),
    _Counted(
        ("other_session",), "datagram[s] of another session than the one that goes on [was|were] not believed"
    ),
)


# Instruments of which one thing is said. A whole exchange has ten thousand.
_MOST_NAMED = 8


def findings(stats: Stats, config: Config) -> list[str]:
    """The lines, of a run or of a replay; none where everything was as it should be."""
    out = _unusable(stats)
    for counted in _COUNTED:
        count = stats.count(*counted.counters)
        if count:
            out.append(f"note: {numbered(count, counted.text)}")
    if beyond := stats.count("rows_beyond_depth"):
        if config.features.beyond_depth == "accept":
            text = 'row[s] looked at levels that no snapshot showed, as features.beyond_depth = "accept" says'
        else:
            text = (
                "row[s] did not leave because they would have looked at levels that no snapshot showed: "
                'raise feeds[].snapshot_limit, or take them as they are with features.beyond_depth = "accept"'
            )
        out.append(f"note: {numbered(beyond, text)}")
    if stats.late:
        out.append(
            "note: "
            + numbered(
                stats.late, "row[s] of a slower worker came after the end of [its|their] epoch: withheld"
            )
        )
    for name, counters in stats.sinks.items():
        if lost := counters.get("lost", 0):
            out.append(f"note: sink {name}: {numbered(lost, 'signal[s] [was|were] lost')}")
    if stats.count("capture_truncated"):
        out.append("note: an input ends in the middle of a line or of its compressed stream, or is damaged")
    out += [f"note: {_error(entry)}" for entry in stats.errors]
    for feed, name in zip(config.feeds, config.feed_names, strict=True):
        out += _never_valid(stats, feed, name)
        out += input_findings(stats, config, feed, name)
        out += resolution_findings(stats, config, feed, name)
        out += trade_findings(stats, config, feed, name)
        if feed.by_order:
            out += _of_multicast(stats, feed, name)
            continue
        out += _missing_trades(stats, config, name)
        out += _late_trades(stats, name)
        out += _other_trades(stats, feed, name)
    told = any(facts["lost"] or facts["not_warm"] for facts in stats.captures)
    if (
        stats.rows == 0
        and not told
        and any(n and key.endswith("/epoch") for key, n in stats.counters.items())
    ):
        out.append(
            f'note: no rows, though a book was valid: no event matched the trigger "{config.trigger}" '
            "once all features were warm"
        )
    return out


def _other_trades(stats: Stats, feed: Feed, name: str) -> list[str]:
    """Where all trades that came are of a stream that the feed does not read."""
    count, venue = stats.counters.get(f"{name}/other_trade_stream", 0), VENUES[feed.venue]
    if not count or stats.counters.get(f"{name}/trades", 0) or not isinstance(venue, StreamVenue):
        return []
    others = [stream for stream in venue.trade_streams if stream != feed.trades]
    to_set = " or ".join(f'trades = "{stream}"' for stream in others)
    found = f"{count:,} of {' or '.join(others)}"
    return [f"hint: feed {name} has no {feed.trades} messages but {found}: set {to_set}"]


def _error(entry: ErrorEntry) -> str:
    """A kind of error in the words of its first time, and of its last where they are others."""
    texts = [printable(venue_words(text)) for text in (entry.text, entry.newest or entry.text)]
    last = f"; the last: {texts[1].partition(': ')[2]}" if texts[1] != texts[0] else ""
    return f"{entry.scope}: {texts[0]} ({numbered(entry.count, 'time[s]')}{last})"


def _unusable(stats: Stats) -> list[str]:
    """Messages of venues by price that could not be used, and what became of the books that they damaged."""
    count = stats.count("malformed", "bad_number", "too_many_levels")
    if not count:
        return []
    damaged, back = stats.count("books_damaged"), stats.count("books_resynced")
    if not damaged:
        after = ""
    elif back == damaged:
        after = "; its book was resynced" if count == 1 else "; their books were resynced"
    elif not back:
        of = "book that it was" if count == 1 else "books that they were"
        after = f"; the {of} of did not become valid again"
    else:
        after = (
            f"; a book was damaged by them {numbered(damaged, 'time[s]')} and became valid again "
            f"{numbered(back, 'time[s]')}"
        )
    return [f"note: {numbered(count, 'venue message[s]')} could not be used{after}"]


def feed_count(stats: Stats, name: str, counter: str) -> int:
    """A counter of one feed, its lines and instruments included."""
    return sum(
        value
        for key, value in stats.counters.items()
        if key.startswith(f"{name}/") and key.rpartition("/")[2] == counter
    )


def _missing_trades(stats: Stats, config: Config, name: str) -> list[str]:
    """What holes in the ids of trades say."""
    missing = stats.counters.get(f"{name}/missing_trades", 0)
    gaps = stats.counters.get(f"{name}/trade_gaps", 0)
    if missing <= 0:
        return []
    if config.features.trade_gaps == "suspect":
        what = "epochs whose features need trades ended there"
    else:
        what = "features of trades are short of them, and rows that need trades say so (missing_trades)"
    holes = f"{numbered(missing, 'trade[s]')} never came, at {numbered(gaps, 'place[s]')} in their ids"
    return [f"note: {name}: {holes}: {what}"]


def _late_trades(stats: Stats, name: str) -> list[str]:
    """What came behind trades with greater ids."""
    late = stats.counters.get(f"{name}/late_trades", 0)
    waited = feed_count(stats, name, "rows_awaiting_trades")
    out = []
    if late:
        out.append(
            f"note: {name}: {numbered(late, 'trade[s]')} came late, behind trades with greater ids: "
            + ("it counts from when it came" if late == 1 else "each counts from when it came")
        )
    if waited:
        out.append(
            f"note: {name}: "
            + numbered(waited, "row[s] did not leave, because a trade before [it|them] might still come")
            + ' (features.trade_gaps = "suspect")'
        )
    return out


def _of_multicast(stats: Stats, feed: Feed, name: str) -> list[str]:
    """What its lines and servers did not bring."""

    def count(*counters: str) -> int:
        return sum(feed_count(stats, name, counter) for counter in counters)

    out = []
    for counted in _COUNTED_OF_LINES:
        if n := count(*counted.counters):
            out.append(f"note: {name}: {numbered(n, counted.text)}")
    if timeouts := count("request_timeouts"):
        asked = numbered(count("requests"), "request[s] [was|were] not answered in time")
        out.append(f"note: {name}: {timeouts:,} of {asked}")
    if failed := count("snapshots_failed"):
        old = (
            f", {too_old:,} of them older than the stream" if (too_old := count("snapshots_too_old")) else ""
        )
        out.append(f"note: {name}: {numbered(failed, 'snapshot[s]')} could not be had{old}")
    if lost := count("lost_messages"):
        servers = feed.multicast
        who = "neither a line nor the re-request server" if servers and servers.rerequest else "no line"
        if servers and servers.glimpse:
            after = f"its books were suspect until a snapshot, of which there were {count('snapshots'):,}"
        else:
            after = "its books are suspect until the next session"
            after += ", for multicast.glimpse is not set" if servers else ""
        out.append(f"note: {name}: {numbered(lost, 'message[s]')} came from {who}: {after}")
    return out


def _never_valid(stats: Stats, feed: Feed, name: str) -> list[str]:
    """A line for each instrument of a feed that never became valid, and one for all beyond the first few."""
    epochs = {
        instrument.symbol: stats.counters.get(f"{name}/{instrument.symbol}/epoch")
        for instrument in feed.instruments
    }
    never = [symbol for symbol, epoch in epochs.items() if epoch == 0]
    if not never:
        return []

    def count(counter: str) -> int:
        if counter == "rows_beyond_depth":
            return feed_count(stats, name, counter)
        return stats.counters.get(f"{name}/{counter}", 0)

    why: str | None
    if feed.by_order and not count("messages") and not count("capture_truncated"):
        why = _why_no_message(stats, feed, name)
    elif feed.by_order:
        why = None if count("messages") else "no message came"
    elif len(never) != len(epochs) and count("messages"):
        why = None
    else:
        why = why_another(stats, feed, name, count) or _why_never_valid(count)
    venue = VENUES[feed.venue]

    def alone(symbol: str) -> str:
        if isinstance(venue, OrderVenue):
            return why_unordered(stats, venue, name, symbol)
        return why_alone(stats, name, symbol)

    lines = [
        f"note: {name} {symbol} never became valid: {why or alone(symbol)}" for symbol in never[:_MOST_NAMED]
    ]
    if more := len(never) - len(lines):
        lines.append(f"note: {name}: {numbered(more, 'more instrument[s]')} never became valid")
    return lines


def _why_no_message(stats: Stats, feed: Feed, name: str) -> str:
    """Of a multicast feed."""
    if not any(feed_count(stats, name, f"line_{kind}") for kind in ("datagrams", "heartbeats")):
        return "no datagram came: wrong groups or ports, or another network interface than theirs"
    missed = any(feed_count(stats, name, counter) for counter in ("lost_messages", "snapshots_failed"))
    if missed and not feed_count(stats, name, "snapshots"):
        return "the session had begun before, and no snapshot could be had of it"
    return "datagrams came, but no message that could be used"


# Snapshots that cannot be a book, by their counter.
_UNBELIEVED = {
    "snapshots_empty": "empty",
    "snapshots_one_sided": "with one side empty",
    "snapshots_crossed": "crossed",
    "snapshots_unsorted": "not in the order of their prices",
    "snapshots_duplicate": "with a price twice",
    "snapshots_too_long": "with more levels than were asked for",
}


def _why_never_valid(count: Callable[[str], int]) -> str:
    """As far as the feed's counters tell, where none of its books became valid."""
    messages, snapshots = count("messages"), count("snapshots")
    if messages == 0:
        return _why_nothing_came(count)
    unusable = count("malformed") + count("unknown_symbol")
    if unusable and unusable + count("ignored") >= messages:
        return (
            none_of(messages, "message", "cannot be used", "can be used")
            + ": malformed, of unknown symbols or of other streams, so probably another venue's or other "
            "instruments'"
        )
    if count("book_events") == 0 and count("partial_books") == 0:
        return _why_no_change(messages, count)
    if snapshots == 0 and (failed := count("snapshots_failed")):
        return f"no snapshot could be had in {numbered(failed, '[try|tries]')}"
    if snapshots == 0 and (refused := count("snapshots_refused")):
        return none_of(
            refused,
            "snapshot",
            "could not be read, or does not tell which instrument it is of",
            "could be read, or told which instrument it is of",
        )
    if snapshots == 0 and count("partial_books") and count("rows_beyond_depth"):
        return (
            "the partial books show fewer levels than the features look at: take a stream of more levels, "
            "or the stream of changes (depth)"
        )
    if snapshots == 0:
        return "no snapshot came"
    unbelieved = {name: n for name in _UNBELIEVED if (n := count(name))}
    if snapshots and sum(unbelieved.values()) >= snapshots:
        kinds = ", ".join(f"{n:,} {_UNBELIEVED[name]}" for name, n in unbelieved.items())
        return none_of(snapshots, "snapshot", "could not be believed", "could be believed") + f": {kinds}"
    if count("rows_beyond_depth"):
        return "the snapshots show fewer levels than the features look at: raise feeds[].snapshot_limit"
    events = f"the {numbered(count('book_events'), 'book event[s]')}"
    if count("snapshots_waiting"):
        return f"its snapshot is newer than all of {events}: the one that continues it never came"
    if expired := count("snapshots_expired"):
        return (
            f"{expired:,} of the {numbered(snapshots, 'snapshot[s] [was|were]')} newer than the events "
            "before them, and the next event did not follow: events are missing between"
        )
    return none_of(snapshots, "snapshot", "bridged to none of", "bridged to any of") + f" {events}"


def _why_nothing_came(count: Callable[[str], int]) -> str:
    if count("connect_failures") and not count("connects"):
        return "no connection to the venue came about"
    if unread := count("capture_lines_skipped"):
        return none_of(unread, "line", "could not be read", "could be read")
    if snapshots := count("snapshots"):
        came = numbered(snapshots, "snapshot[s]")
        return f"{came} came and no message: the stream of changes (depth) is missing"
    return "no message came"


# Messages that change no book, by their counter.
_NO_CHANGE = {
    "trades": "trade[s]",
    "other_trade_stream": "trade[s] of a stream that feeds[].trades does not name",
    "quotes": "quote[s]",
    "partial_books_refused": "partial book[s]",
    "other_streams": "book change[s] of another kind of stream",
    "unknown_symbol": "message[s] of other instruments",
    "other_symbol": "message[s] of another symbol than [its|their] stream's",
    "malformed": "malformed message[s]",
    "bad_number": "message[s] with a number that does not fit",
    "too_many_levels": "message[s] with more levels than may be",
    "shutdown_notices": "announcement[s] of a shutdown",
    "ignored": "answer[s] or message[s] of other streams",
}


def _why_no_change(messages: int, count: Callable[[str], int]) -> str:
    """Where messages came, and none that says how a book changes."""
    live = count("connects")
    if live and count("subscribe_errors"):
        return "the venue refused the subscription"
    if live and count("ignored") >= messages:
        return (
            "the venue answered the subscription, and no message of a market came: check the symbol, unless "
            "the venue is quiet about it"
        )
    kinds = ", ".join(numbered(n, text) for name, text in _NO_CHANGE.items() if (n := count(name)))
    what = none_of(messages, "message", "changes no book", "changes a book")
    return what + (f" ({kinds})" if kinds else "") + ": the stream of its changes (depth) is missing"
