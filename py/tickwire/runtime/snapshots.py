"""Fetches the order-book snapshots that the data plane asks for.

The engine never opens an HTTP connection: it says which instrument wants a snapshot
(`poll_requests`), this service fetches it and hands the bytes down unread (`deliver_snapshot`) or
says why it cannot (`fail_snapshot`). How often to try again, and when to give up, is the engine's.

A venue that bans who asks too much is met half-way: a few requests at once per host, `Retry-After`
of a refusal holds back every request to that host, for an hour at most, and where the venue states the
weight used this minute the next requests wait for the next minute before the limit is reached. What is
held back is no try that failed, and the engine is told so.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import aiohttp

from tickwire.http_date import parse_http_date
from tickwire.tasks import repeat
from tickwire.venues import VENUES, StreamVenue, venue_words
from tickwire.wording import printable

if TYPE_CHECKING:
    from tickwire.config import Config

__all__ = ["SnapshotService"]

_log = logging.getLogger("tickwire")

# The router asks for requests whenever the engine wakes it; this often we ask ourselves, for when a
# consumer holds the router.
_POLL_S = 0.1
_TIMEOUT_S = 15.0
_MAX_BYTES = 64 << 20
_CONCURRENT_PER_HOST = 4
# The ring that takes answers down holds several; an agent empties it within microseconds.
_HAND_DOWN_TRIES, _HAND_DOWN_S = 20, 0.02
# A ban can last days; a wait is cut here so that the engine, which waits for a minute, gets its answer and
# can say so.
_MAX_WAIT_S = 45.0
# A header is text from outside: what it asks for beyond this is not believed. A ban that is longer costs a
# request an hour.
_MAX_HOLD_S = 3600.0
# Of a refusal's body: enough for any JSON of a venue, and for the head of a page.
_QUOTED_BYTES = 2048
_QUOTED_CHARACTERS = 140
# Of the text that says why there is none: the engine's log keeps less of it.
_MOST_WHY = 500
# Of the request weight a minute that a venue allows an address, the share that we take.
_WEIGHT_SHARE = 0.8


class _FetchError(Exception):
    """Why a snapshot could not be had, and for how long the venue is to be left alone where it said so."""

    def __init__(self, why: str, pause_s: float = 0.0) -> None:
        super().__init__(why)
        self.pause_s = pause_s


@dataclass
class _Host:
    """One session and one pace for everything that goes to one host."""

    session: aiohttp.ClientSession
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_CONCURRENT_PER_HOST))
    not_before: float = 0.0  # On the loop's clock.
    why: str = ""

    def hold(self, seconds: float, why: str) -> None:
        until = asyncio.get_running_loop().time() + seconds
        if until > self.not_before:
            self.not_before, self.why = until, why

    def left(self) -> float:
        return self.not_before - asyncio.get_running_loop().time()

    async def wait(self, end: float) -> None:
        """Until it may be asked, where that is before `end`."""
        while (left := self.left()) > 0:
            if self.not_before > end:
                raise _FetchError(f"{self.why}; {left:.0f} s of it are left", left)
            await asyncio.sleep(left)


@dataclass(frozen=True)
class _Feed:
    venue: StreamVenue
    rest_url: str
    levels: int
    ca_file: str


class Asking(Protocol):
    """What of an engine has to do with snapshots. Feeds and instruments are named by their numbers."""

    @property
    def max_snapshot_bytes(self) -> int: ...
    def poll_requests(self) -> list[tuple[int, int, int]]:
        """Feed, instrument and how often it was asked for, of each that is wanted since the last look."""

    def deliver_snapshot(self, feed: int, instrument: int, body: bytes, /) -> bool: ...
    def fail_snapshot(self, feed: int, instrument: int, why: str, pause_ns: int, /) -> bool: ...


class SnapshotService:
    """One task that takes requests from the engine, and one a request under way."""

    def __init__(self, engine: Asking, config: Config, *, timeout_s: float = _TIMEOUT_S) -> None:
        self.fetched = 0
        self.failed = 0
        self.failures: dict[tuple[int, int], str] = {}
        """By feed and instrument, why its last request brought no snapshot; gone with the next that does."""
        self._engine = engine
        self._max_bytes = min(_MAX_BYTES, engine.max_snapshot_bytes)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(5.0, timeout_s))
        # By their numbers; the others ask for none.
        self._feeds = {
            number: _Feed(
                venue,
                feed.rest_url,
                int(feed.snapshot_limit or 0),
                str(config.path_of(feed.ca_file)) if feed.ca_file else "",
            )
            for number, feed in enumerate(config.feeds)
            if isinstance(venue := VENUES[feed.venue], StreamVenue)
        }
        # The engine numbers instruments through all feeds, in the configuration's order.
        self._symbols = [instrument.symbol for feed in config.feeds for instrument in feed.instruments]
        self._hosts: dict[tuple[str, str], _Host] = {}
        self._jobs: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        self._task = asyncio.create_task(
            repeat(self.poll, _POLL_S, "the service of snapshots"), name="tickwire snapshots"
        )

    async def close(self) -> None:
        """Ends what is under way. Requests without an answer stay so: the engine is stopping."""
        self._closed = True
        tasks = [task for task in (self._task, *self._jobs.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for host in self._hosts.values():
            await host.session.close()
        self._hosts.clear()

    def counters(self) -> dict[str, int]:
        return {"fetched": self.fetched, "failed": self.failed, "under_way": len(self._jobs)}

    def poll(self) -> None:
        """Takes the engine's requests and sets about them. Never waits."""
        if self._closed:  # The router still looks in while it drains.
            return
        for feed, instrument, _attempt in self._engine.poll_requests():
            # Asked anew, as after a re-connect: the answer to the old question would be taken for that of
            # this one, and it may be of another count of ids.
            if (old := self._jobs.get((feed, instrument))) is not None:
                old.cancel()
            job = asyncio.create_task(self._serve(feed, instrument))
            self._jobs[feed, instrument] = job
            job.add_done_callback(functools.partial(self._forget, (feed, instrument)))

    def _forget(self, key: tuple[int, int], job: asyncio.Task[None]) -> None:
        if self._jobs.get(key) is job:
            del self._jobs[key]

    async def _serve(self, feed: int, instrument: int) -> None:
        pause_s = 0.0
        try:
            body = await self._fetch(self._feeds[feed], self._symbols[instrument])
            if await self._hand_down(lambda: self._engine.deliver_snapshot(feed, instrument, body)):
                self.fetched += 1
                self.failures.pop((feed, instrument), None)
                return
            why = "the engine had no room for it"
        except _FetchError as error:
            why, pause_s = str(error), error.pause_s
        except TimeoutError:
            why = f"no answer within {self._timeout.total:g} s"
        except (aiohttp.ClientError, OSError) as error:
            why = f"{type(error).__name__}: {error}"
        except Exception as error:  # The engine waits for an answer, whatever we did not think of.
            _log.exception("a snapshot of %s failed in a way that nobody foresaw", self._symbols[instrument])
            why = f"{type(error).__name__}: {error}"
        # A file's name may be no text.
        why = f"{self._symbols[instrument]}: {why}".encode("utf-8", "replace").decode()[:_MOST_WHY]
        self.failed += 1
        self.failures[feed, instrument] = why
        pause_ns = int(pause_s * 1e9)
        await self._hand_down(lambda: self._engine.fail_snapshot(feed, instrument, why, pause_ns))

    @staticmethod
    async def _hand_down(give: Callable[[], bool]) -> bool:
        """False where the engine's ring had no room for as long as we tried."""
        for _ in range(_HAND_DOWN_TRIES):
            if give():
                return True
            await asyncio.sleep(_HAND_DOWN_S)
        return False

    async def _fetch(self, feed: _Feed, symbol: str) -> bytes:
        host = self._host(feed)
        end = asyncio.get_running_loop().time() + _MAX_WAIT_S
        while True:
            await host.wait(end)
            async with host.slots:
                # Who had a slot before us may have been told to wait: not in the slot, which others wait for.
                if host.left() <= 0:
                    return await self._ask(host, feed, symbol)

    async def _ask(self, host: _Host, feed: _Feed, symbol: str) -> bytes:
        query = feed.venue.snapshot_query(symbol, feed.levels)
        async with host.session.get(feed.rest_url, params=query, allow_redirects=False) as response:
            pause_s = self._pace(host, response, feed)
            if response.status != 200:
                raise _FetchError(await _refusal(response), pause_s)
            body = await _read(response, self._max_bytes)
            if not body.lstrip(_JSON_SPACE).startswith(b"{"):
                kind = response.headers.get("Content-Type", "no content type")
                raise _FetchError(
                    f"expected a snapshot in JSON, found {len(body):,} bytes ({kind}): "
                    f"{_words(body[:_QUOTED_BYTES])}"
                )
            return body

    def _host(self, feed: _Feed) -> _Host:
        """One a host and authority: whom one feed trusts is not whom another does."""
        key = (urlsplit(feed.rest_url).netloc, feed.ca_file)
        host = self._hosts.get(key)
        if host is None:
            trust: ssl.SSLContext | bool = True
            if feed.ca_file:
                trust = ssl.create_default_context(cafile=feed.ca_file)
            connector = aiohttp.TCPConnector(ssl=trust)
            session = aiohttp.ClientSession(timeout=self._timeout, connector=connector)
            host = self._hosts[key] = _Host(session)
        return host

    @staticmethod
    def _pace(host: _Host, response: aiohttp.ClientResponse, feed: _Feed) -> float:
        """Holds the host back where its answer asks for it; the seconds that it asked for and we keep."""
        said = f"the venue answered HTTP {response.status}"
        asked = _asked_pause(response.headers) if response.status >= 400 else None
        if asked is not None:
            said += f" and asked for {min(asked, 1e9):.0f} s of silence"
            if asked > _MAX_HOLD_S:
                said += f", of which we keep {_MAX_HOLD_S:.0f}"
            host.hold(min(asked, _MAX_HOLD_S), said)
            return min(asked, _MAX_HOLD_S)
        if response.status in feed.venue.limited:
            # Weights count by the minute.
            host.hold(60.0, f"{said} and not for how long, so it is left alone for a minute")
            return 0.0
        used = _number(response.headers.get(feed.venue.weight_header), 0.0)
        if used > feed.venue.weight_per_minute * _WEIGHT_SHARE:
            host.hold(61.0 - time.time() % 60.0, "the venue's request weight of this minute is used up")
        return 0.0


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    if response.content_length is not None and response.content_length > limit:
        raise _FetchError(f"answer of {response.content_length} bytes, expected at most {limit}")
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_chunked(1 << 16):
        size += len(chunk)
        if size > limit:
            raise _FetchError(f"answer of more than {limit} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


async def _refusal(response: aiohttp.ClientResponse) -> str:
    """An answer that is no snapshot, in the venue's own words."""
    text = f"HTTP {response.status} {response.reason or ''}".rstrip()
    if place := response.headers.get("Location"):
        text += f", elsewhere at {place}"
    if pause := response.headers.get("Retry-After"):
        text += f", Retry-After: {_words(pause.encode())}"
    body = b""
    while len(body) < _QUOTED_BYTES and (chunk := await response.content.read(_QUOTED_BYTES - len(body))):
        body += chunk
    return f"{text}: {words}" if (words := _words(body)) else text


_JSON_SPACE = b" \t\r\n\xef\xbb\xbf"


def _words(body: bytes) -> str:
    """What a body says to people: the message and code of a venue's JSON, else its beginning."""
    text = printable(venue_words(body.decode("utf-8", "replace")))
    return text if len(text) <= _QUOTED_CHARACTERS else text[:_QUOTED_CHARACTERS] + "…"


def _number(text: str | None, default: float) -> float:
    """A header's number of seconds or of weight; the default where it is none."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else default


def _asked_pause(headers: Mapping[str, str]) -> float | None:
    """The seconds of `Retry-After`, or until its date, from the moment of the answer as its server has it.

    None where there is none, or nothing that can be read.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    now = time.time()
    if (until := parse_http_date(text, now)) is None:
        return None
    answered = parse_http_date(headers.get("Date", "").strip(), now)
    return max(until - (now if answered is None else answered), 0.0)
