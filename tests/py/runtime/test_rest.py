"""Snapshots over REST: what is fetched, what a venue's refusal costs, and what the engine is told."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import fake_core
import pytest
from aiohttp import web
from waiting import LONG_S, until

from tickwire.config import Config
from tickwire.http_date import parse_http_date
from tickwire.runtime import snapshots as rest
from tickwire.runtime.snapshots import SnapshotService
from tickwire.venues.binance import SPOT

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Venue:
    """One HTTP server; `handler` answers, `requests` remembers."""

    def __init__(self) -> None:
        self.requests: list[tuple[float, dict[str, str]]] = []
        self.handler: Handler = self.answer
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text='{"lastUpdateId":7,"symbol":"' + request.query["symbol"] + '"}')

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((time.monotonic(), dict(request.query)))
        return await self.handler(request)


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    venue = Venue()
    app = web.Application()
    app.router.add_get("/depth", venue.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    venue.url = f"http://127.0.0.1:{runner.addresses[0][1]}/depth"
    yield venue
    await runner.cleanup()


def start(
    venue: Venue, *, spot: Sequence[str] = ("BTCUSDT", "ETHUSDT"), **options: Any
) -> tuple[fake_core.Engine, SnapshotService]:
    config = Config.from_dict(
        {
            "feeds": [
                {"venue": "binance_spot", "rest_url": venue.url, "instruments": list(spot)},
                {
                    "venue": "binance_usdm",
                    "rest_url": venue.url,
                    "instruments": ["SOLUSDT"],
                    "snapshot_limit": 100,
                },
            ],
            "features": {"rows": ["spread()"]},
        }
    )
    engine = fake_core.Engine({"features": {"outputs": [0]}, "models": [], "replay": False})
    service = SnapshotService(engine, config, **options)
    service.start()
    return engine, service


async def test_snapshot_is_fetched_and_handed_down(venue: Venue) -> None:
    engine, service = start(venue)
    engine.requests = [(0, 1, 0), (1, 2, 3)]
    await until(lambda: len(engine.delivered) == 2)
    await service.close()
    assert sorted(engine.delivered) == [
        (0, 1, b'{"lastUpdateId":7,"symbol":"ETHUSDT"}'),
        (1, 2, b'{"lastUpdateId":7,"symbol":"SOLUSDT"}'),
    ]
    queries = sorted((query["symbol"], query["limit"]) for _, query in venue.requests)
    assert queries == [("ETHUSDT", "5000"), ("SOLUSDT", "100")]
    assert engine.failures == []
    assert service.counters() == {"fetched": 2, "failed": 0, "under_way": 0}


async def test_refusal_names_status_and_text(venue: Venue) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=400, text='{"code":-1121,"msg":"Invalid symbol."}')

    venue.handler = refuse
    engine, service = start(venue)
    engine.requests = [(0, 0, 0)]
    await until(lambda: engine.failures)
    await service.close()
    assert engine.failures == [(0, 0, "BTCUSDT: HTTP 400 Bad Request: Invalid symbol. (code -1121)")]
    assert service.failures == {(0, 0): engine.failures[0][2]}
    assert engine.delivered == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            {"status": 403, "text": "<html>\n  <title>403  Forbidden</title>\n", "content_type": "text/html"},
            "HTTP 403 Forbidden: <html> <title>403 Forbidden</title>",
        ),
        (
            {"status": 451, "text": '{"code":0,"msg":"restricted"}'},
            "HTTP 451 Unavailable For Legal Reasons: restricted",
        ),
        (
            {"status": 302, "headers": {"Location": "https://b/"}, "text": ""},
            "HTTP 302 Found, elsewhere at https://b/",
        ),
        (
            {"text": "<html>captive portal</html>", "content_type": "text/html"},
            "expected a snapshot in JSON, found 27 bytes (text/html; charset=utf-8): "
            "<html>captive portal</html>",
        ),
        ({"text": ""}, "expected a snapshot in JSON, found 0 bytes (text/plain; charset=utf-8): "),
        (
            {"status": 500, "text": "x\x1b[2J\ufeff" + "y" * 5000},
            "HTTP 500 Internal Server Error: x [2J " + "y" * 134 + "…",
        ),
        (
            {"status": 500, "text": '{"code":1e999,"msg":["a"]}'},
            'HTTP 500 Internal Server Error: {"code":1e999,"msg":["a"]}',
        ),
        ({"status": 500, "text": "[" * 2000}, "HTTP 500 Internal Server Error: " + "[" * 140 + "…"),
    ],
)
async def test_what_is_no_snapshot_is_told_in_the_venues_words(
    venue: Venue, answer: dict[str, Any], said: str
) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(**answer)

    venue.handler = refuse
    engine, service = start(venue)
    engine.requests = [(0, 0, 0)]
    await until(lambda: engine.failures)
    await service.close()
    assert engine.failures == [(0, 0, f"BTCUSDT: {said}")]


async def test_a_snapshot_that_comes_forgets_why_there_was_none(venue: Venue) -> None:
    async def refuse_once(request: web.Request) -> web.StreamResponse:
        return web.Response(status=500) if len(venue.requests) == 1 else await venue.answer(request)

    venue.handler = refuse_once
    engine, service = start(venue)
    engine.requests = [(0, 0, 0)]
    await until(lambda: engine.failures)
    assert list(service.failures) == [(0, 0)]
    engine.requests = [(0, 0, 1)]
    await until(lambda: engine.delivered)
    await until(lambda: not service.failures)
    await service.close()


ANSWERED = "Wed, 21 Oct 2015 07:27:00 GMT"  # By the venue's clock, which is years behind ours.


@pytest.mark.parametrize(
    ("header", "date", "asked"),
    [
        # Seconds.
        ("7", None, 7.0),
        (" 7\t", ANSWERED, 7.0),
        ("3600", None, 3600.0),
        ("3601", None, 3600.0),
        ("9" * 5000, None, 3600.0),
        ("0", None, 0.0),
        # A date, from the answer's own.
        ("Wed, 21 Oct 2015 07:28:00 GMT", ANSWERED, 60.0),
        ("Wednesday, 21-Oct-15 07:28:00 GMT", ANSWERED, 60.0),
        ("Wed Oct 21 07:28:00 2015", ANSWERED, 60.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", "Wednesday, 21-Oct-15 07:27:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 09:28:00 GMT", ANSWERED, 3600.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", ANSWERED, 3600.0),
        ("Wed, 21 Oct 2015 07:26:00 GMT", ANSWERED, 0.0),
        # … or from our clock.
        ("Sun, 06 Nov 1994 08:50:07 GMT", None, 30.0),
        ("Sun, 06 Nov 1994 08:50:07 GMT", "today", 30.0),
        ("Sun, 06 Nov 1994 08:49:07 GMT", None, 0.0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", None, 3600.0),
        # Nothing that says how long.
        *(
            (text, ANSWERED, None)
            for text in (
                *("", "-5", "+5", "7.5", "7 s", "nan", "inf", "soon", "\u0667", "Wed, 21 Oct 2015 07:28:00"),
                *("Wed, 32 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 24:28:00 GMT", "21 Oct 2015 07:28 GMT"),
            )
        ),
    ],
)
async def test_a_venue_is_left_alone_for_as_long_as_it_asks_and_an_hour_at_most(
    header: str, date: str | None, asked: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Host:
        held = -1.0
        why = ""

        def hold(self, seconds: float, why: str) -> None:
            self.held, self.why = seconds, why

    class Answer:
        headers = {"Retry-After": header} | ({} if date is None else {"Date": date})

        def __init__(self, status: int) -> None:
            self.status = status

    monkeypatch.setattr(time, "time", lambda: 784111777.0)  # Sun, 06 Nov 1994 08:49:37 GMT.
    feed = rest._Feed(SPOT, "", 100, "")
    for status in (429, 418, 503, 403):
        host = Host()
        pause = SnapshotService._pace(host, Answer(status), feed)  # type: ignore[arg-type]
        assert pause == (asked or 0.0)
        if asked is not None:
            assert host.held == asked
        else:  # A ban without an end that can be read lasts a minute.
            assert host.held == (60.0 if status in (429, 418) else -1.0)
            assert "and not for how long" in host.why or status in (503, 403)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        # By `date -u -d … +%s`.
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
        ("Sun Nov  6 08:49:37 1994", 784111777),
        ("Sun Nov 16 08:49:37 1994", 784975777),
        ("Thu, 29 Feb 2024 23:59:60 GMT", 1709251200),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253402300799),
        ("Friday, 01-Jan-44 00:00:00 GMT", 2335219200),
        ("Monday, 01-Jan-45 00:00:00 GMT", -788918400),
        ("Wed, 31 Dec 1969 23:59:59 GMT", -1),
        ("Wed, 29 Feb 2023 00:00:00 GMT", None),
        ("Sun, 06 Nov 0000 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:60:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:61 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 EST", None),
        ("Sun, 06 Nov 94 08:49:37 GMT", None),
        ("Sun, 6 Nov 1994 08:49:37 GMT", None),
        ("Sun, \u0660\u0666 Nov 1994 08:49:37 GMT", None),
        ("06 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 GMT\n", None),
        ("", None),
    ],
)
def test_dates_are_of_the_three_forms_that_http_has(text: str, seconds: int | None) -> None:
    assert parse_http_date(text, 784111777.0) == seconds


async def test_what_is_said_of_a_pause_is_quoted(venue: Venue) -> None:
    async def ban(request: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": "so\ton"})

    venue.handler = ban
    engine, service = start(venue)
    engine.requests = [(0, 0, 0)]
    await until(lambda: engine.failures)
    engine.requests = [(0, 1, 0)]
    await until(lambda: len(engine.failures) == 2)
    await service.close()
    assert engine.failures[0] == (0, 0, "BTCUSDT: HTTP 429 Too Many Requests, Retry-After: so on")
    assert engine.failures[1][2].startswith(
        "ETHUSDT: the venue answered HTTP 429 and not for how long, so it is left alone for a minute; "
    )
    # The venue did not say when to come back; that we keep away nevertheless is no try that failed.
    assert engine.pauses_ns[0] == 0
    assert 50e9 < engine.pauses_ns[1] <= 60e9


async def test_what_waits_for_another_ones_ban_tells_the_engine_how_long(venue: Venue) -> None:
    """Six wait for four slots; the first of them is told to wait, and nobody keeps a slot meanwhile."""

    async def ban(request: web.Request) -> web.StreamResponse:
        until = email.utils.formatdate(1_700_000_600, usegmt=True)
        return web.Response(
            status=418,
            headers={"Retry-After": until, "Date": email.utils.formatdate(1_700_000_000, usegmt=True)},
        )

    venue.handler = ban
    engine, service = start(venue, spot=[f"A{i}USDT" for i in range(6)])
    engine.requests = [(0, i, 0) for i in range(6)]
    await until(lambda: len(engine.failures) == 6)
    await service.close()
    assert len(venue.requests) <= 4
    assert len(engine.pauses_ns) == 6
    assert all(590e9 < pause <= 600e9 for pause in engine.pauses_ns)


async def test_nothing_is_asked_for_once_it_is_closed(venue: Venue) -> None:
    engine, service = start(venue)
    await service.close()
    engine.requests = [(0, 0, 0)]
    service.poll()
    await asyncio.sleep(0.05)
    assert venue.requests == []
    assert service.counters()["under_way"] == 0


async def test_too_many_requests_holds_the_whole_host_for_as_long_as_asked(venue: Venue) -> None:
    async def busy(request: web.Request) -> web.StreamResponse:
        if len(venue.requests) == 1:
            return web.Response(status=429, headers={"Retry-After": "1"})
        return await venue.answer(request)

    venue.handler = busy
    engine, service = start(venue)
    engine.requests = [(0, 0, 0)]
    await until(lambda: engine.failures)
    assert "HTTP 429" in engine.failures[0][2]
    engine.requests = [(0, 0, 1), (0, 1, 0)]
    await until(lambda: len(engine.delivered) == 2)
    await service.close()
    refused, *others = [at for at, _ in venue.requests]
    assert all(at - refused >= 0.95 for at in others)


async def test_ban_without_end_is_told_and_not_waited_for(venue: Venue) -> None:
    async def ban(request: web.Request) -> web.StreamResponse:
        return web.Response(status=418, headers={"Retry-After": "86400"})

    venue.handler = ban
    engine, service = start(venue)
    engine.requests = [(0, 0, 0)]
    await until(lambda: engine.failures)
    engine.requests = [(0, 0, 1)]
    await until(lambda: len(engine.failures) == 2)
    await service.close()
    assert len(venue.requests) == 1  # The second one was never sent.
    assert "HTTP 418 and asked for 86400 s" in engine.failures[1][2]


async def test_used_up_weight_waits_for_the_next_minute(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def weigh(request: web.Request) -> web.StreamResponse:
        response = await venue.answer(request)
        response.headers["X-MBX-USED-WEIGHT-1M"] = "5500"
        return response

    venue.handler = weigh
    monkeypatch.setattr(time, "time", lambda: 1_700_000_040.0 + 59.5)  # Half a second to the minute.
    engine, service = start(venue)
    engine.requests = [(0, 0, 0)]
    await until(lambda: engine.delivered)
    engine.requests = [(0, 1, 0)]
    await until(lambda: len(engine.delivered) == 2)
    await service.close()
    assert venue.requests[1][0] - venue.requests[0][0] >= 1.4


async def test_silence_becomes_a_failure(venue: Venue) -> None:
    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    venue.handler = hang
    engine, service = start(venue, timeout_s=0.2)
    engine.requests = [(0, 0, 0)]
    await until(lambda: engine.failures)
    await service.close()
    assert engine.failures == [(0, 0, "BTCUSDT: no answer within 0.2 s")]


@pytest.mark.parametrize("stated", [True, False])
async def test_oversized_answer_is_refused(venue: Venue, stated: bool) -> None:
    size = fake_core.Engine.max_snapshot_bytes + 1

    async def flood(request: web.Request) -> web.StreamResponse:
        if stated:
            return web.Response(body=b" " * size)
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for _ in range(size // 65536 + 1):
            await response.write(b" " * 65536)
        return response

    venue.handler = flood
    engine, service = start(venue)
    engine.requests = [(0, 0, 0)]
    await until(lambda: engine.failures)
    await service.close()
    assert engine.delivered == []
    assert str(fake_core.Engine.max_snapshot_bytes) in engine.failures[0][2]


async def test_refused_connection_becomes_a_failure(venue: Venue) -> None:
    venue.url = "http://127.0.0.1:1/depth"
    engine, service = start(venue)
    engine.requests = [(0, 0, 0)]
    await until(lambda: engine.failures)
    await service.close()
    assert "Connect" in engine.failures[0][2]


async def test_only_a_few_requests_at_once(venue: Venue) -> None:
    under_way = most = 0

    async def slow(request: web.Request) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        return await venue.answer(request)

    venue.handler = slow
    engine, service = start(venue, spot=[f"COIN{i}USDT" for i in range(20)])
    engine.requests = [(0, i, 0) for i in range(20)]
    await until(lambda: len(engine.delivered) == 20)
    await service.close()
    assert most == 4


async def test_asking_anew_gives_up_the_old_request(venue: Venue) -> None:
    async def slow_at_first(request: web.Request) -> web.StreamResponse:
        number = len(venue.requests)
        if number == 1:
            await asyncio.sleep(0.3)
        return web.Response(text=f"{{{number}}}")

    venue.handler = slow_at_first
    engine, service = start(venue)
    engine.requests = [(0, 0, 1), (0, 1, 1)]
    await until(lambda: len(engine.delivered) == 1)
    engine.requests = [(0, 0, 1)]  # As after a re-connect.
    await until(lambda: len(engine.delivered) == 2)
    await asyncio.sleep(0.4)
    assert engine.delivered == [(0, 1, b"{2}"), (0, 0, b"{3}")]
    assert engine.failures == []
    assert service.counters() == {"fetched": 2, "failed": 0, "under_way": 0}
    await service.close()


async def test_close_ends_what_is_under_way(venue: Venue) -> None:
    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    venue.handler = hang
    engine, service = start(venue)
    engine.requests = [(0, 0, 0)]
    await until(lambda: venue.requests)
    async with asyncio.timeout(LONG_S):
        await service.close()
    assert engine.failures == []


async def test_the_engine_gets_an_answer_whatever_nobody_foresaw(
    venue: Venue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine, service = start(venue)

    def stumble(*_: Any) -> None:
        raise KeyError("a header that nobody foresaw")

    monkeypatch.setattr(SnapshotService, "_pace", stumble)
    engine.requests = [(0, 0, 0)]
    await until(lambda: engine.failures)
    assert engine.failures == [(0, 0, "BTCUSDT: KeyError: 'a header that nobody foresaw'")]
    assert "a snapshot of BTCUSDT failed in a way that nobody foresaw" in caplog.text
    monkeypatch.undo()

    monkeypatch.setattr(fake_core.Engine, "deliver_snapshot", stumble)
    engine.requests = [(0, 0, 1)]
    await until(lambda: len(engine.failures) == 2)
    assert engine.failures[1] == (0, 0, "BTCUSDT: KeyError: 'a header that nobody foresaw'")
    assert service.counters() == {"fetched": 0, "failed": 2, "under_way": 0}
    await service.close()


async def test_a_reason_that_is_no_text_is_one_by_the_time_it_is_told(
    venue: Venue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file's name may be any bytes; the engine takes UTF-8."""
    engine, service = start(venue)

    def refuse(*_: Any) -> None:
        raise OSError(2, "No such file or directory", "/tmp/\udcff.pem" + "x" * 10_000)

    monkeypatch.setattr(SnapshotService, "_host", refuse)
    engine.requests = [(0, 0, 0)]
    await until(lambda: engine.failures)
    why = engine.failures[0][2]
    assert why.startswith("BTCUSDT: FileNotFoundError: [Errno 2] No such file or directory: '/tmp/")
    assert len(why.encode()) <= 500
    await service.close()


async def test_a_turn_that_fails_is_not_the_last(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, service = start(venue)
    asked = fake_core.Engine.poll_requests

    def stumble(_: Any) -> Any:
        monkeypatch.setattr(fake_core.Engine, "poll_requests", asked)
        raise RuntimeError("once")

    monkeypatch.setattr(fake_core.Engine, "poll_requests", stumble)
    engine.requests = [(0, 0, 0)]
    await until(lambda: engine.delivered)
    await service.close()
