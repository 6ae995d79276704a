"""No VALID row is wrong, whatever the venue, the way to us and the snapshots do: scripts of a venue that
knows all of its book, replayed, made into a data set, and live.

`TICKWIRE_EXAMPLES` says how many scripts Hypothesis makes; one that fails is made small and printed as
Python, to become a test of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from market_of_levels import rows_in
from needs import compiled
from true_venue import (
    PRODUCTS,
    WEATHERS,
    Change,
    Clock,
    Lag,
    Message,
    Op,
    Played,
    Reconnect,
    Renumber,
    Script,
    Snapshot,
    Told,
    Trade,
    Venue,
    columns,
    dumps,
    make_op,
    make_script,
    make_snapshot,
    play,
    spoil,
    truth,
)

from tickwire.config import Config
from tickwire.launch import resolve
from tickwire.pipeline import Pipeline
from tickwire.replay import replay
from tickwire.verify import verify

pytestmark = compiled

EXAMPLES = int(os.environ.get("TICKWIRE_EXAMPLES", "100"))
LONG = max(3, EXAMPLES // 30)


def config(script: Script, *, trigger: str = "book", max_levels: int = 1024, **feed: Any) -> Config:
    product = PRODUCTS[script.product]
    settings = {
        "name": "venue",
        "venue": product.venue,
        "source": "file",
        "instruments": [product.symbol],
        "max_levels": max_levels,
        "snapshot_limit": 1000 if max_levels > 1000 else 5,
        "buffer_events": 16,
    }
    features = {"trigger": trigger, "rows": columns(script.levels)}
    document = {"engine": {"layout": "inline"}, "feeds": [settings | feed], "features": features}
    return Config.from_dict(document, where="test")


_resolved: dict[tuple[Any, ...], dict[str, Any]] = {}


def replayed(
    script: Script, path: Path, trigger: str, max_levels: int, stale_after: str = "0s"
) -> np.ndarray:
    """The rows of a replay, without those that are news, straight from the engine."""
    from tickwire._core import Engine

    key = (script.product, script.levels, trigger, max_levels, stale_after)
    if key not in _resolved:
        settings = config(script, trigger=trigger, max_levels=max_levels, stale_after=stale_after)
        _resolved[key] = resolve(settings, replay=True, inputs={"venue": [str(path)]})
    _resolved[key]["feeds"][0]["inputs"] = [str(path)]
    engine = Engine(_resolved[key])
    rows = [np.zeros(0, engine.row_dtype)]
    engine.start()
    end = time.monotonic() + 60
    while True:
        finished = engine.finished
        batch = engine.poll()
        rows.append(batch[batch["row"] > 0].copy())
        engine.release()
        if finished and not len(batch):
            break
        assert time.monotonic() < end, "the replay does not end"
        if not len(batch):
            time.sleep(0.0002)
    engine.stop()
    return np.concatenate(rows)


def wrong(row: Any, before: Message, newest: Message, levels: int) -> str:
    """What a row says that the venue's book after its newest message does not; empty where it is right."""
    if int(row["sequence"]) != newest.ids[1]:
        return f"it is of {row['sequence']}, {newest.ids} had come"
    right = truth(before.book, newest.book, levels)
    for found, true, name in zip(row["features"].tolist(), right, columns(levels), strict=True):
        if not (
            math.isclose(found, true, rel_tol=1e-6, abs_tol=1e-6) or (math.isnan(found) and math.isnan(true))
        ):
            return f"{name} is {found}, not {true}"
    return ""


def check(script: Script, played: Played, rows: Any) -> None:
    for row in rows:
        newest = played.newest[int(row["ts_recv"])]
        fault = wrong(row, played.before[newest.number], newest, script.levels)
        assert not fault, f"{script!r}\n{played.text}row {row['row']} at {row['ts_recv']}: {fault}"


def check_due(script: Script, played: Played, rows: Any) -> None:
    """After an honest snapshot that shows enough there are rows again, as long as nothing is lost."""
    missing = set(played.due) - {int(row["ts_recv"]) for row in rows}
    assert not missing, f"{script!r}\n{played.text}no row at {sorted(missing)}"


# ---- replay ----


@st.composite
def ops(draw: st.DrawFn, bad: int) -> Op:
    return make_op(lambda count: draw(st.integers(0, count - 1)), bad)


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    bad = draw(st.sampled_from(WEATHERS))
    what = draw(st.lists(ops(bad), min_size=10, max_size=80))
    return make_script(lambda count: draw(st.integers(0, count - 1)), what)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("validity") / "capture.log"


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    script=scripts(),
    trigger=st.sampled_from(["book", "trade", "top"]),
    max_levels=st.sampled_from([1024, 8, 24]),
    stale_after=st.sampled_from(["0s", "1s"]),
)
def test_no_valid_row_of_a_replay_is_wrong(
    capture: Path, script: Script, trigger: str, max_levels: int, stale_after: str
) -> None:
    played = play(script)
    capture.write_text(played.text)
    rows = replayed(script, capture, trigger, max_levels, stale_after)
    check(script, played, rows)
    if stale_after != "0s":
        old = [ts for ts in rows["ts_recv"].tolist() if ts - played.fresh[ts] > 1_000_000_000]
        assert not old, f"{script!r}\n{played.text}valid rows at {old} of a book that is older than allowed"
    if trigger == "book" and max_levels > 1000:
        check_due(script, played, rows)


def by_chance(rng: random.Random, length: int, **fixed: Any) -> Script:
    bad = fixed.pop("bad", None)
    bad = rng.choice(WEATHERS) if bad is None else bad
    return replace(make_script(rng.randrange, [make_op(rng.randrange, bad) for _ in range(length)]), **fixed)


@pytest.mark.parametrize("product", PRODUCTS)
def test_nor_is_one_of_a_long_replay(capture: Path, product: str) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    count = 0
    for _ in range(LONG):
        script = by_chance(rng, 700, product=product, bad=rng.choice((0, 2, 5)), levels=rng.choice((1, 2, 5)))
        played = play(script)
        capture.write_text(played.text)
        rows = replayed(script, capture, rng.choice(["book", "trade", "top"]), rng.choice([1024, 1024, 24]))
        check(script, played, rows)
        count += len(rows)
    assert count > 10


def test_a_message_with_ids_and_stamp_of_another_is_no_repetition(capture: Path) -> None:
    def told(side: Literal["b", "a"], qty: int) -> Told:
        return Told((Change("set", side, 3, qty),))

    script = Script(
        ops=(
            Told(),
            Snapshot(),
            *(told("b", qty) for qty in range(2, 9)),
            Renumber("restored"),
            *(told("a", qty) for qty in range(2, 7)),
            Trade(),
            told("b", 9),
        )
    )
    played = play(script)
    capture.write_text(played.text)
    rows = replayed(script, capture, "book", 1024)
    check(script, played, rows)
    assert len(rows) == 6


# ---- data set ----


@pytest.mark.parametrize("product", PRODUCTS)
async def test_nor_is_one_of_a_data_set(tmp_path: Path, product: str) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    script = by_chance(random.Random(seed), 150, product=product, bad=2, levels=2)
    played = play(script)
    path = tmp_path / "capture.log"
    path.write_text(played.text)
    expected = replayed(script, path, "book", 1024)
    check_due(script, played, expected)

    batches = []
    async with Pipeline.replay(config(script), [path]) as pipeline:
        async for batch in pipeline.features():
            batches.append(batch.copy())
    assert pipeline.stats().count("snapshots_contradicted") == 0
    rows = np.concatenate([batch.rows for batch in batches])
    check(script, played, rows[rows["row"] > 0])
    np.testing.assert_array_equal(rows[rows["row"] > 0]["ts_recv"], expected["ts_recv"])

    await replay(config(script), {"venue": [str(path)]}, tmp_path / "rows.csv")
    table = rows_in(tmp_path / "rows.csv")
    assert [int(row["ts_recv"]) for row in table] == expected["ts_recv"].tolist()
    for row in table:
        values = np.array([float(row[name] or "nan") for name in columns(2)])
        check(script, played, [{**row, "features": values}])


# ---- live ----


class LiveVenue:
    """Plays the operations of a script at a client, and answers its requests for snapshots as it goes."""

    def __init__(self, script: Script, rng: random.Random, bad: int) -> None:
        self.script, self.rng, self.bad = script, rng, bad
        self.product = PRODUCTS[script.product]
        self.venue = Venue(self.product)
        self.sockets: list[web.WebSocketResponse] = []
        self.asked: list[int] = []
        self.waiting: list[tuple[int, str]] = []  # Until so many messages were told.
        self.lag = 0
        self.trades = 0
        self.lied = False

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(dumps({"result": None, "id": json.loads(message.data)["id"]}))
                self.sockets.append(socket)
        return socket

    async def _depth(self, request: web.Request) -> web.Response:
        limit = int(request.query["limit"])
        self.asked.append(limit)
        told = replace(make_snapshot(self.rng.randrange, self.bad), limit=limit)
        _, body = self.venue.snapshot(told)
        # Whoever leaves out a side twice is believed, and must not be lying.
        if told.spoilt not in ("no bids", "no asks") or not self.lied:
            body = spoil(body, told.spoilt) or body
            self.lied = self.lied or told.spoilt in ("no bids", "no asks")
        await asyncio.sleep(0.002 * told.delay)
        text = dumps(body)
        return web.Response(text=text[: len(text) // 2] if told.spoilt == "cut" else text)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[dict[str, Any]]:
        app = web.Application()
        app.router.add_get("/ws", self._socket)
        app.router.add_get("/depth", self._depth)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        try:
            yield {"url": f"ws://127.0.0.1:{port}/ws", "rest_url": f"http://127.0.0.1:{port}/depth"}
        finally:
            for socket in self.sockets:
                if not socket.closed:
                    await socket.close()
            await runner.cleanup()

    async def say(self, text: str, later: int = 0) -> None:
        self.waiting.append((len(self.venue.messages) + self.lag + later, text))
        self.waiting.sort(key=lambda entry: entry[0])
        while self.waiting and self.waiting[0][0] <= len(self.venue.messages):
            _, due = self.waiting.pop(0)
            for socket in self.sockets:
                if not socket.closed:
                    await socket.send_str(due)

    async def do(self, op: Op) -> None:
        match op:
            case Told():
                text = dumps(self.venue.tell(op).data)
                match op.fate:
                    case "comes":
                        await self.say(text)
                    case "late":
                        await self.say(text, 1)
                    case "cut":
                        await self.say(text[: len(text) // 2])
                if op.again:
                    await self.say(text, op.again)
            case Trade():
                self.trades += 1
                data: dict[str, Any] = {"e": "trade", "E": self.venue.stamp_ms, "s": self.product.symbol}
                data |= {"t": self.trades, "p": "1000.0", "q": "1", "T": self.venue.stamp_ms, "m": False}
                await self.say(dumps(data | ({"X": "MARKET"} if self.product.futures else {"M": True})))
            case Renumber() if op.to in ("up", "down"):
                self.venue.renumber(op.to)
            case Lag():
                self.lag = op.messages
            case Clock():
                self.venue.stamp_ms += op.ms
            case Reconnect():
                self.waiting.clear()  # No connection brings what was on another one.
                for socket in self.sockets:
                    if not socket.closed:
                        await socket.close()
                self.sockets.clear()
            case _:
                pass


def newest_by_stamp(capture: str, venue: Venue) -> dict[int, list[Message]]:
    """By receive time, the venue's newest message at each line with that stamp."""
    by_id = {message.ids[1]: message for message in venue.messages}
    newest = venue.messages[0]
    out: dict[int, list[Message]] = {}
    for line in capture.splitlines():
        stamp, _, text = line.partition(" ")
        with contextlib.suppress(json.JSONDecodeError):  # Cut, and recorded as it came.
            data = json.loads(text)
            if data.get("e") == "depthUpdate":
                newest = max(newest, by_id[data["u"]], key=lambda message: message.number)
        out.setdefault(int(stamp), []).append(newest)
    return out


@pytest.mark.parametrize(("product", "bad"), [("spot", 5), ("usdm", 5), ("coinm", 2)])
async def test_nor_is_one_of_a_live_run(tmp_path: Path, product: str, bad: int) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    script = by_chance(rng, 500, product=product, bad=bad, levels=2)
    live = LiveVenue(script, rng, bad)
    rows: list[Any] = []
    async with live.serve() as urls:
        settings = config(
            script,
            trigger=rng.choice(["book", "trade"]),
            source="websocket",
            snapshot_limit=10,
            snapshot_backoff="5ms",
            reconnect_min="5ms",
            reconnect_max="20ms",
            **urls,
        )
        async with Pipeline(settings, record_dir=tmp_path / "run") as pipeline:
            pipeline.on_rows(lambda batch: rows.extend(batch[batch["row"] > 0].copy()))
            for op in script.ops:
                await live.do(op)
                await asyncio.sleep(0.002)
            # Whatever it was, an honest venue is followed again.
            live.bad, live.lag, before = 0, 0, len(rows)
            end = time.monotonic() + 60
            while len(rows) < before + 10:
                assert time.monotonic() < end, pipeline.stats().counters
                await live.do(Told((Change("repeat"), Change("set", "a", 3, rng.randrange(1, 9)))))
                await live.do(Trade())
                await asyncio.sleep(0.002)
    (recorded,) = (tmp_path / "run" / "capture" / "venue").iterdir()
    newest = newest_by_stamp(recorded.read_text(), live.venue)
    for row in rows:
        # Several messages may have come with one receive.
        faults = [
            wrong(row, live.venue.messages[message.number - 1], message, script.levels)
            for message in newest[int(row["ts_recv"])]
        ]
        assert not all(faults), f"row {row['row']} of epoch {row['epoch']}: {faults}"
    assert pipeline.stats().count("snapshots_contradicted") == 0
    result = await verify(tmp_path / "run")
    assert result.same, result
    print(f"{len(rows)} rows, snapshots asked for: {len(live.asked)}")
