"""Says what happens to a running engine while it happens: each kind of error when it begins and when it is
over, in the words of whoever caused it; each book that is not valid, why and since when; windows that are
not full, how long they still need.

It reads the counters and error logs that any observer reads, and costs the data plane nothing. What it
says goes to the log of the name `tickwire`, which is standard error where nobody has arranged otherwise.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from tickwire.config import Config, Feed
from tickwire.stat_file import ErrorEntry, StatFile
from tickwire.tasks import repeat
from tickwire.venues import venue_words
from tickwire.wording import printable

__all__ = ["Teller", "proxy_note", "warm_up"]

# The engine's codes in the counters `book_state` and `book_reason`.
_EMPTY, _BUFFERING, _VALID, _SUSPECT, _STALE, _HALTED = range(6)
_REASONS = {
    1: "there is a gap in the venue's ids",
    2: "it was crossed: best bid at or above best ask",
    3: "a message of it could not be read",
    4: "a number in a message of it did not fit",
    5: "its connection was lost",
    6: "a message had more levels than may be",
    7: "nothing came for stale_after",
    8: "the venue has halted it",
    10: "the features need a level that is not known",
    11: "an order found no memory",
    12: "trades are missing that the features need",
    13: "a stamp was far from those before it",
}
# A book that is not valid for less than this is not worth a line.
_GRACE_S = 3.0
# Where nothing else says that a kind of error is over: it has not come for so long. Retries are a minute
# apart at most.
_QUIET_S = 90.0
# Of a kind, as many different texts until it is over; and as many books by name.
_MOST_TEXTS = 8
_MOST_NAMED = 3
# Between two looks; where a look takes long, as at a whole exchange, it is to be a twentieth of the time.
_EVERY_S, _SHARE = 0.2, 20.0
# The same book is not spoken of more often.
_AGAIN_S = 10.0
_EMA_HALFLIVES = 5
_NUMBER = re.compile(r"\d+")


@dataclass(slots=True)
class _Trouble:
    """One kind of error of one agent."""

    seen: int = 0
    open: bool = False
    begun: float = 0.0
    last: float = 0.0
    before: int = 0
    """Its count when it began."""
    down: bool = False
    """The feed's connections, or its books, were down since."""
    texts: set[str] = field(default_factory=set)
    newest: str = ""
    """Its last words, while it is open."""


@dataclass(slots=True)
class _Book:
    told: bool = False
    why: str = ""
    at: float = 0.0
    """When it was last spoken of."""
    state: int = -1
    entered: float = 0.0
    """When we saw it come into this state, on our clock: the wall's may be set meanwhile."""
    epoch: int = -1
    rows: int = 0
    """Rows before this epoch."""
    warming: bool = False
    """It was said that its windows are not full."""


@dataclass(frozen=True, slots=True)
class _Place:
    """One instrument, and where its counters are."""

    feed: int
    instrument: int
    """Through all feeds, as the engine numbers them."""
    name: str
    """Of the feed."""
    symbol: str

    def count(self, counters: Mapping[str, int], name: str) -> int:
        return counters.get(f"{self.name}/{self.symbol}/{name}", 0)


def warm_up(config: Config) -> tuple[float, int]:
    """How long a book must have been valid before its first row leaves, in seconds, and how many events must
    have come: durations and counts of windows, those that lie in one another added up."""
    nodes = config.plan.nodes
    needs: list[tuple[int, int]] = []
    for node in nodes:
        ns, events = needs[node["input"]] if node["input"] >= 0 else (0, 0)
        needs.append(
            (
                ns + node["window_ns"] + _EMA_HALFLIVES * node["halflife_ns"],
                events + node["window_count"] + node["lag"],
            )
        )
    outputs = [needs[i] for i in config.plan.outputs]
    return max(ns for ns, _ in outputs) / 1e9, max(events for _, events in outputs)


def proxy_note(config: Config) -> str | None:
    """That the proxies which the environment names are not used, where a program that uses them would."""
    named: dict[str, str] = {}
    for variable, value in sorted(os.environ.items()):
        scheme = variable.lower().removesuffix("_proxy")
        if value and variable.lower().endswith("_proxy") and scheme != "no":
            named.setdefault(scheme, variable)
    if not named:
        return None
    proxies = getproxies()
    used: set[str] = set()
    for feed in config.feeds:
        for url in () if feed.by_order else (feed.url, feed.trades_url, feed.rest_url):
            parts = urlsplit(url or "")
            if not parts.hostname or proxy_bypass(parts.netloc, proxies):
                continue
            secure = parts.scheme in ("wss", "https")
            schemes = ("wss", "https") if secure else ("ws", "http")
            used.update(named[scheme] for scheme in (*schemes, "all", "socks") if scheme in named)
    if not used:
        return None
    are = "are" if len(used) > 1 else "is"
    return (
        f"proxies are not used: {', '.join(sorted(used))} {are} set in the environment and not looked at; "
        "the venue is connected to directly"
    )


class Teller:
    """`look` again and again, from one thread; `say` gets the lines."""

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        self._say = say
        self._feeds = list(zip(config.feeds, config.feed_names, strict=True))
        self._places: list[_Place] = []
        for number, (feed, name) in enumerate(self._feeds):
            for instrument in feed.instruments:
                self._places.append(_Place(number, len(self._places), name, instrument.symbol))
        self._books = [_Book() for _ in self._places]
        self._troubles: dict[tuple[str, int], _Trouble] = {}
        self._warm_s, self._warm_events = warm_up(config)
        self._state = ""

    @property
    def state(self) -> str:
        """What stands in the way of rows just now, in a few words; empty where nothing does."""
        return self._state

    def look(
        self,
        counters: Mapping[str, int],
        errors: Iterable[ErrorEntry],
        failures: Mapping[tuple[int, int], str],
        *,
        now: float | None = None,
        utc: float | None = None,
    ) -> None:
        """`failures`: by feed and instrument, why there is no snapshot. `now` is a monotonic time and `utc`
        the wall clock's, both in seconds; ours by default."""
        now = time.monotonic() if now is None else now
        utc = time.time() if utc is None else utc
        self._look_at_errors(counters, list(errors), now, utc)
        self._look_at_books(counters, failures, now, utc)

    async def run(self, stats: StatFile, failures: Mapping[tuple[int, int], str]) -> None:
        """Looks until it is cancelled."""

        async def turn() -> None:
            begin = time.monotonic()
            self.look(stats.counters(), stats.errors(), failures)
            await asyncio.sleep(_SHARE * (time.monotonic() - begin))

        await repeat(turn, _EVERY_S, "who tells of the running engine")

    # Errors.

    def _feed_of(self, scope: str) -> int | None:
        """Live each feed has an agent of its own."""
        number = scope.removeprefix("ingest")
        if number != scope and number.isdigit() and int(number) < len(self._feeds):
            return int(number)
        return None

    def _look_at_errors(
        self, counters: Mapping[str, int], errors: list[ErrorEntry], now: float, utc: float
    ) -> None:
        for entry in errors:
            trouble = self._troubles.setdefault((entry.scope, entry.kind), _Trouble())
            feed = self._feed_of(entry.scope)
            who = entry.scope if feed is None else self._feeds[feed][1]
            kind = entry.text.partition(":")[0]
            up = self._is_up(counters, feed, kind)
            if entry.count > trouble.seen:
                if not trouble.open:
                    trouble.open, trouble.begun, trouble.before = True, utc, trouble.seen
                    trouble.down = False
                    trouble.texts.clear()
                # Of what came between two looks the first and the last.
                texts = (entry.text, entry.newest) if trouble.seen == 0 else (entry.newest,)
                for text in texts:
                    same = _NUMBER.sub("#", text)
                    if text and same not in trouble.texts and len(trouble.texts) < _MOST_TEXTS:
                        trouble.texts.add(same)
                        self._say(f"{who}: {printable(venue_words(text))}")
                trouble.seen, trouble.last = entry.count, now
                trouble.newest = printable(venue_words(entry.newest))
            trouble.down = trouble.down or up is False
            quiet = now - trouble.last >= _QUIET_S
            if trouble.open and (quiet if up is None or not trouble.down else up):
                trouble.open = False
                times = trouble.seen - trouble.before
                how_often = "once" if times == 1 else f"{times:,} times"
                self._say(f"{who}: {kind}: over, {how_often} since {_clock(trouble.begun)}")

    def _is_up(self, counters: Mapping[str, int], feed: int | None, kind: str) -> bool | None:
        """Is what this kind of error takes down up again? None where it takes nothing down that shows."""
        if feed is None:
            return None
        settings, name = self._feeds[feed]
        if kind.startswith(("connection", "subscribe")) and f"{name}/connections_up" in counters:
            return counters[f"{name}/connections_up"] >= _connections(settings)
        if kind.startswith(("connection", "snapshot", "data_stale", "messages_lost")):
            states = [place.count(counters, "book_state") for place in self._places if place.feed == feed]
            return all(state in (_VALID, _HALTED) for state in states)
        return None

    # Books.

    def _look_at_books(
        self, counters: Mapping[str, int], failures: Mapping[tuple[int, int], str], now: float, utc: float
    ) -> None:
        lost: dict[tuple[int, str], list[tuple[_Place, float]]] = {}
        back: dict[int, list[_Place]] = {}
        cold: dict[int, list[tuple[_Place, float]]] = {}
        warm: dict[int, list[_Place]] = {}
        for place, book in zip(self._places, self._books, strict=True):
            state = place.count(counters, "book_state")
            since = place.count(counters, "book_since") / 1e9 or utc
            epoch = place.count(counters, "epoch")
            if (state, epoch) != (book.state, book.epoch if state == _VALID else epoch):
                book.state, book.entered = state, now
            if state != _VALID:
                book.warming = False
                if now - book.entered >= _GRACE_S:
                    why = self._why(counters, place, state, failures)
                    lost.setdefault((place.feed, why), []).append((place, since))
                continue
            if book.told:
                book.told, book.why = False, ""
                back.setdefault(place.feed, []).append(place)
            rows = place.count(counters, "rows")
            if epoch != book.epoch:
                # Rows of this epoch that left before we looked are taken for older ones: the next tells.
                book.epoch, book.rows = epoch, rows
            needs = self._warm_s - (now - book.entered)
            if rows > book.rows or (needs <= 0 and not self._warm_events):
                if book.warming:
                    warm.setdefault(place.feed, []).append(place)
                book.warming = False
            elif self._warm_s >= _GRACE_S or self._warm_events:
                cold.setdefault(place.feed, []).append((place, needs))
        self._tell_books(lost, back, cold, warm, now)
        self._state = self._summary(lost, cold)

    def _tell_books(
        self,
        lost: Mapping[tuple[int, str], list[tuple[_Place, float]]],
        back: Mapping[int, list[_Place]],
        cold: Mapping[int, list[tuple[_Place, float]]],
        warm: Mapping[int, list[_Place]],
        now: float,
    ) -> None:
        for (feed, why), found in lost.items():
            new = []
            for place, since in found:
                book = self._books[place.instrument]
                same = _NUMBER.sub("#", why)
                if not book.told or (same != book.why and now - book.at >= _AGAIN_S):
                    book.told, book.why, book.at = True, same, now
                    new.append((place, since))
            if new:
                first = min(since for _, since in new)
                names, plural = _names([place for place, _ in new])
                self._say(
                    f"{self._feeds[feed][1]}: {names} {'are' if plural else 'is'} not valid since "
                    f"{_clock(first)}: {why}"
                )
        for feed, places in back.items():
            names, plural = _names(places)
            self._say(f"{self._feeds[feed][1]}: {names} {'are' if plural else 'is'} valid")
        for feed, waiting in cold.items():
            new_ones = [
                (place, needs) for place, needs in waiting if not self._books[place.instrument].warming
            ]
            for place, _ in new_ones:
                self._books[place.instrument].warming = True
            if new_ones:
                names, _ = _names([place for place, _ in new_ones])
                need = self._need(max(needs for _, needs in new_ones))
                self._say(f"{self._feeds[feed][1]}: {names}: windows are not warm yet: they need {need}")
        for feed, places in warm.items():
            names, _ = _names(places)
            self._say(f"{self._feeds[feed][1]}: {names}: windows are warm")

    def _need(self, seconds: float) -> str:
        parts = []
        if seconds > 0:
            parts.append(f"{seconds:,.0f} s more")
        if self._warm_events:
            parts.append(f"{self._warm_events:,} events of a valid book")
        return " and ".join(parts) or "an event"

    def _why(
        self, counters: Mapping[str, int], place: _Place, state: int, failures: Mapping[tuple[int, int], str]
    ) -> str:
        settings, name = self._feeds[place.feed]
        up = counters.get(f"{name}/connections_up")
        failure = failures.get((place.feed, place.instrument), "")
        failure = failure.removeprefix(f"{place.symbol}: ")
        if up is not None and up < _connections(settings):
            said = [
                (trouble.last, trouble.newest)
                for (scope, _), trouble in self._troubles.items()
                if trouble.open
                and self._feed_of(scope) == place.feed
                and trouble.newest.startswith(("connection", "subscribe"))
            ]
            return "the venue's connection is not up" + (f": {max(said)[1]}" if said else "")
        if state in (_STALE, _HALTED):
            return _REASONS[7 if state == _STALE else 8]
        if failure:
            return f"there is no snapshot: {failure}"
        if state == _SUSPECT:
            reason = _REASONS.get(place.count(counters, "book_reason"), "it is suspect")
            return f"{reason}; it waits for the venue's recovery"
        if up is None:
            return (
                "no message of it has come" if not counters.get(f"{name}/messages") else "it is not complete"
            )
        if not place.count(counters, "heard"):
            return (
                f"no message of {place.symbol} has come: check the symbol, unless the venue is quiet about it"
            )
        return "it waits for a snapshot"

    def _summary(
        self,
        lost: Mapping[tuple[int, str], list[tuple[_Place, float]]],
        cold: Mapping[int, list[tuple[_Place, float]]],
    ) -> str:
        for (_, why), found in lost.items():
            return f"{found[0][0].symbol} not valid since {_clock(found[0][1])}: {printable(why)}"
        needs = [needs for waiting in cold.values() for _, needs in waiting]
        return f"windows need {self._need(max(needs))}" if needs else ""


def _connections(feed: Feed) -> int:
    return 2 if feed.streams_by_connection()[1] else 1


def _names(places: list[_Place]) -> tuple[str, bool]:
    names = ", ".join(place.symbol for place in places[:_MOST_NAMED])
    more = len(places) - _MOST_NAMED
    return (f"{names} and {more:,} more" if more > 0 else names), len(places) > 1


def _clock(utc: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(utc)) + "Z"
