"""A running engine at a venue that refuses, from the venue's answer to the line in the log."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from needs import compiled
from scripted import Run, ScriptedVenue, config_of
from waiting import until

from tickwire.config import Config
from tickwire.pipeline import Pipeline

pytestmark = compiled


def tells(caplog: pytest.LogCaptureFixture, place: int, text: str) -> bool:
    return text in caplog.text[place:]


async def says(caplog: pytest.LogCaptureFixture, pipeline: Pipeline, *texts: str) -> None:
    """Waits for each of the texts in the log, in this order."""
    place = 0
    for text in texts:
        await until(partial(tells, caplog, place, text), text, look=pipeline.raise_if_failed)
        place += caplog.text[place:].index(text)


def pipeline_at(venue: ScriptedVenue) -> Pipeline:
    return Pipeline(Config.from_dict(config_of(venue), where="test"))


async def test_a_symbol_that_the_venue_does_not_know_is_told_before_any_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def unknown(request: web.Request) -> web.StreamResponse:
        return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)

    venue = ScriptedVenue()
    venue.rest = [unknown] * 1000
    with caplog.at_level(logging.WARNING, "tickwire"):
        async with venue.serve(), pipeline_at(venue) as pipeline:  # It says nothing but the snapshots.
            await says(
                caplog,
                pipeline,
                "main: snapshot_failed: BTCUSDT: HTTP 400 Bad Request: Invalid symbol. (code -1121)",
                "main: BTCUSDT is not valid since ",
                "Z: there is no snapshot: HTTP 400 Bad Request: Invalid symbol. (code -1121)",
            )
            assert "BTCUSDT not valid since" in pipeline.state
            assert "ETHUSDT is not valid since" in caplog.text
            assert "no message of ETHUSDT has come: check the symbol" in caplog.text


async def test_a_refusal_is_over_when_the_venue_answers(caplog: pytest.LogCaptureFixture) -> None:
    async def restricted(request: web.Request) -> web.StreamResponse:
        return web.json_response({"code": 0, "msg": "restricted location"}, status=451)

    venue = ScriptedVenue()
    venue.handshake = restricted
    with caplog.at_level(logging.WARNING, "tickwire"):
        async with venue.serve(), pipeline_at(venue) as pipeline:
            run = Run(venue, pipeline)
            pipeline.on_rows(run.on_rows)
            words = "connection_handshake: handshake: expected HTTP 101, found 451"
            await says(caplog, pipeline, f"main: {words}", ": restricted location")
            await says(caplog, pipeline, "main: BTCUSDT, ETHUSDT are not valid since ", words)
            venue.handshake = None
            stop = asyncio.Event()
            chatter = asyncio.create_task(venue.chatter(stop))
            try:
                await says(caplog, pipeline, "main: connection_handshake: over, ")
                await says(caplog, pipeline, "main: BTCUSDT")
                await run.goes_on()
            finally:
                stop.set()
                await chatter


async def test_a_refused_subscription_is_told_in_the_venues_words(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        async for message in ws:
            asked: dict[str, Any] = json.loads(message.data)
            error = {"code": 2, "msg": "Invalid request: unknown stream"}
            await ws.send_str(json.dumps({"error": error, "id": asked["id"]}))
        return ws

    venue = ScriptedVenue()
    venue.handshake = refuse
    with caplog.at_level(logging.WARNING, "tickwire"):
        async with venue.serve(), pipeline_at(venue) as pipeline:
            await says(
                caplog, pipeline, "main: subscribe_refused: main: Invalid request: unknown stream (code 2)"
            )


async def test_a_connection_that_the_venue_closes_at_once_is_told_with_its_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def close(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        await ws.close(code=1008, message=b"Too many requests")
        return ws

    venue = ScriptedVenue()
    venue.handshake = close
    with caplog.at_level(logging.WARNING, "tickwire"):
        async with venue.serve(), pipeline_at(venue) as pipeline:
            await says(caplog, pipeline, f"connection_closed: {venue.ws_url}: Too many requests (code 1008)")


async def test_a_live_run_that_is_strict_is_not_exit_0_where_there_is_a_note(tmp_path: Path) -> None:
    async def unknown(request: web.Request) -> web.StreamResponse:
        return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)

    async def exit_code(name: str, answers: list[Any], *options: str) -> tuple[int, str]:
        venue = ScriptedVenue()
        venue.rest = [*answers]
        async with venue.serve():
            config = config_of(venue)
            toml = "".join(
                "[[feeds]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in feed.items())
                for feed in config["feeds"]
            )
            features = "".join(f"{key} = {json.dumps(value)}\n" for key, value in config["features"].items())
            path = tmp_path / f"{name}.toml"
            path.write_text(f"{toml}[features]\n{features}")
            stop = asyncio.Event()
            chatter = asyncio.create_task(venue.chatter(stop))
            try:
                done = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", "from tickwire.cli import main; main()", "run", str(path)),
                    *("--seconds", "4", *options),
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                )
                output, _ = await asyncio.wait_for(done.communicate(), 60.0)
            finally:
                stop.set()
                await chatter
        assert done.returncode is not None
        return done.returncode, output.decode()

    refused = [unknown] * 1000
    whole, strict, lenient = await asyncio.gather(
        exit_code("whole", [], "--strict"),
        exit_code("strict", refused, "--strict"),
        exit_code("lenient", refused),
    )
    assert whole[0] == 0, whole[1]
    assert "note: main BTCUSDT never became valid: " in strict[1]
    assert (strict[0], lenient[0]) == (1, 0), (strict[1], lenient[1])
