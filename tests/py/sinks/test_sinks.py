"""Sinks: what they write, and what a bad disk or a bad client costs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import json
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from configuring import one_feed
from fake_core import make_rows, notice
from fake_rows import as_signals, signals
from waiting import LONG_S, until

from tickwire.errors import SetupError
from tickwire.launch import make_sinks
from tickwire.records import Signal
from tickwire.router.consumers import SignalQueue
from tickwire.sinks import base as base_module
from tickwire.sinks import websocket as websocket_module
from tickwire.sinks.base import SinkRunner, encode, public_url
from tickwire.sinks.callback import CallbackSink
from tickwire.sinks.jsonl import JsonlSink
from tickwire.sinks.websocket import WebSocketSink

KEYS = [
    "instrument",
    "venue",
    "epoch",
    "row",
    "sequence",
    "state",
    "reason",
    "missing_trades",
    "model",
    "model_id",
    "score",
    "scores",
    "ts_event",
    "ts_recv",
    "ts_out",
    "latency_ns",
    "stage_ns",
]


def test_json_has_the_documented_keys_and_values() -> None:
    (signal,) = signals(1)
    data = json.loads(encode(signal))
    assert list(data) == KEYS
    assert data["instrument"] == "BTCUSDT"
    assert (data["model"], data["model_id"]) == ("m", "0000004d")
    assert data["score"] == signal.score == data["scores"][0]
    assert data["latency_ns"] == 28_000
    assert data["stage_ns"]["receive"] == 1000
    assert data["ts_recv"] == signal.ts_recv


def test_json_never_holds_a_bare_nan() -> None:
    rows = make_rows(1, 3, 2)
    rows["scores"][0] = [float("nan"), float("inf")]
    text = encode(as_signals(rows)[0])
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text)["score"] is None
    assert json.loads(text)["scores"] == [None, None]


def test_json_of_a_notice_has_no_score() -> None:
    data = json.loads(encode(as_signals(notice(like=make_rows(1, 3, 2)))[0]))
    assert (data["row"], data["state"], data["reason"]) == (0, "suspect", "gap")
    assert (data["model"], data["score"], data["scores"], data["ts_event"]) == (None, None, [], None)


async def test_jsonl_appends_one_line_a_signal(tmp_path: Path) -> None:
    path = tmp_path / "signals.jsonl"
    path.write_text('{"before": 1}\n')
    sink = JsonlSink(str(path))
    await sink.open()
    await sink.write(signals(2))
    await sink.write(signals(1, first=3))
    await sink.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("row") for line in lines] == [None, 1, 2, 3]
    assert sink.counters() == {"lines": 3, "lost": 0, "write_errors": 0}


async def test_jsonl_where_it_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"jsonl: .*cannot be opened: No such file"):
        await JsonlSink(str(tmp_path / "none" / "x")).open()


async def test_jsonl_full_disk_is_said_once_counted_and_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "signals.jsonl"
    sink = JsonlSink(str(path))
    await sink.open()
    await sink.write(signals(1))
    write, full = os.write, True

    def no_space(fd: int, data: Any) -> int:
        if not full:
            return write(fd, data)
        if len(data) > 100:  # A part still fits.
            return write(fd, data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tickwire.sinks.jsonl.os.write", lambda fd, data: no_space(fd, data))
    # Each piece written leaves a shorter rest, so the last hundred bytes fail.
    with caplog.at_level(logging.WARNING):
        await sink.write(signals(2, first=2))
        await sink.write(signals(3, first=4))
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text
    full = False
    await sink.write(signals(1, first=7))
    await sink.close()
    assert [json.loads(line)["row"] for line in path.read_text().splitlines()] == [1, 7]
    assert sink.counters() == {"lines": 2, "lost": 5, "write_errors": 2}
    assert "5 signals are missing" in caplog.text


async def test_jsonl_to_a_named_pipe_waits_for_no_reader(tmp_path: Path) -> None:
    path = tmp_path / "signals.jsonl"
    os.mkfifo(path)
    sink = JsonlSink(str(path))
    await asyncio.wait_for(sink.open(), LONG_S)
    await sink.write(signals(1))
    assert sink.counters() == {"lines": 0, "lost": 1, "write_errors": 1}
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    await sink.write(signals(2, first=2))
    assert [json.loads(line)["row"] for line in os.read(reader, 1 << 16).splitlines()] == [2, 3]
    os.close(reader)
    await sink.write(signals(1, first=4))
    assert sink.counters() == {"lines": 2, "lost": 2, "write_errors": 2}
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    await sink.write(signals(1, first=5))
    assert [json.loads(line)["row"] for line in os.read(reader, 1 << 16).splitlines()] == [5]
    os.close(reader)
    await sink.close()


async def test_jsonl_to_a_device_that_is_full() -> None:
    sink = JsonlSink("/dev/full")
    await sink.open()
    await sink.write(signals(2))
    await sink.close()
    assert sink.counters()["lost"] == 2


class Scripted:
    """A sink whose `write` does what the test says, batch by batch."""

    def __init__(self, *steps: Callable[[], Any]) -> None:
        self.steps = list(steps)
        self.got: list[int] = []

    async def write(self, batch: Any) -> None:
        step = self.steps.pop(0) if self.steps else None
        if step is not None:
            await step()
        self.got += [signal.row for signal in batch]


async def forever() -> None:
    await asyncio.Event().wait()


async def stubborn() -> None:
    """Takes no notice of being cancelled, until the test is over."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.Event().wait()


async def refuse() -> None:
    raise OSError("no")


@pytest.mark.parametrize(
    ("steps", "delivered", "lost"),
    [
        ([], 1000, 0),
        ([forever], 0, 512),
        ([stubborn], 0, 512),
        ([refuse], 488, 512),
        ([None, forever], 512, 488),
        ([refuse, refuse], 0, 1000),
    ],
)
async def test_what_a_sink_was_offered_is_delivered_dropped_or_lost(
    steps: list[Any], delivered: int, lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_module, "_CLOSE_S", 0.05)
    queue = SignalQueue("s", 1000)
    sink = Scripted(*steps)
    runner = SinkRunner("s", sink, queue)
    queue.offer(signals(1000))
    runner.begin()
    await asyncio.sleep(0)
    queue.offer(signals(300))  # 512 are in hand, at most; 1,000 - 512 + 300 wait, or some found no room.
    await runner.close()
    counts = runner.counters()
    assert counts["delivered"] + counts["dropped"] + counts["lost"] == 1300
    assert counts["delivered"] == len(sink.got)
    assert len(queue) == 0


async def test_a_stuck_sink_of_a_thousand_signals_delivers_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_module, "_CLOSE_S", 0.05)
    queue = SignalQueue("s", 1000)
    runner = SinkRunner("s", Scripted(forever), queue)
    queue.offer(signals(1000))
    runner.begin()
    await runner.close()
    assert runner.counters() == {"delivered": 0, "dropped": 488, "errors": 0, "lost": 512}


async def test_what_a_sink_says_it_lost_was_not_delivered(tmp_path: Path) -> None:
    def fail(signal: Signal) -> None:
        if signal.row % 4 == 0:
            raise ValueError(signal.row)

    full, callback = JsonlSink("/dev/full"), CallbackSink(fail)
    await full.open()
    for sink, counted in (
        (full, {"delivered": 0, "lost": 20}),
        (callback, {"delivered": 15, "lost": 5, "errors": 5}),
    ):
        queue = SignalQueue("s", 100)
        runner = SinkRunner("s", sink, queue)
        queue.offer(signals(20))
        runner.begin()
        await runner.close()
        counts = runner.counters()
        assert {key: counts[key] for key in counted} == counted


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ws://127.0.0.1:8765/", "ws://127.0.0.1:8765/"),
        ("redis://desk:s3cret@cache.example:6379/0?token=s3cret#s3cret", "redis://cache.example:6379/0"),
        ("nats://s3cret@[::1]:4222", "nats://[::1]:4222"),
        ("//desk:s3cret@host/path", "host/path"),
        ("https://host:s3cret/", "an address that cannot be read"),
    ],
)
def test_an_address_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert public_url(url) == shown


async def test_websocket_broadcasts_to_every_client() -> None:
    sink = WebSocketSink(port=0)
    await sink.open()
    try:
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(sink.url) as one, session.ws_connect(sink.url + "any/path") as two:
                await sink.write(signals(3))
                for client in (one, two):
                    got = [json.loads((await client.receive(timeout=LONG_S)).data) for _ in range(3)]
                    assert [data["row"] for data in got] == [1, 2, 3]
                    assert list(got[0]) == KEYS
                assert sink.counters()["clients"] == 2
            await until(lambda: sink.counters()["clients"] == 0)
            counters = sink.counters()
            assert (counters["clients_seen"], counters["sent"], counters["client_dropped"]) == (2, 6, 0)
            async with session.get(sink.url.replace("ws:", "http:")) as response:
                assert response.status == 426
    finally:
        await sink.close()


async def test_websocket_slow_client_loses_its_own_and_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_module, "_STUCK_S", 0.3)
    sink = WebSocketSink(port=0, queue=50)
    await sink.open()
    try:
        # A client that shakes hands and never reads.
        slow = socket.create_connection(("127.0.0.1", sink.port))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        async with aiohttp.ClientSession() as session, session.ws_connect(sink.url) as fast:
            await until(lambda: sink.counters()["clients"] == 2)
            rows = 0
            async with asyncio.timeout(LONG_S):
                while sink.counters()["clients"] == 2:
                    await sink.write(signals(20, first=rows + 1))
                    for _ in range(20):
                        rows += 1
                        assert json.loads((await fast.receive(timeout=LONG_S)).data)["row"] == rows
            counters = sink.counters()
            assert counters["clients_disconnected"] == 1
            assert counters["client_dropped"] > 0
            await sink.write(signals(1, first=rows + 1))
            assert json.loads((await fast.receive(timeout=LONG_S)).data)["row"] == rows + 1
        slow.close()
    finally:
        await sink.close()


async def test_websocket_sends_nothing_as_valid_that_grew_too_old_while_its_client_was_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sink = WebSocketSink(port=0)
    await sink.open()
    clock = [1000]
    monkeypatch.setattr(time, "time_ns", lambda: clock[0])
    try:
        async with aiohttp.ClientSession() as session, session.ws_connect(sink.url) as client:
            await until(lambda: sink.counters()["clients"] == 1)
            lost = as_signals(notice(like=make_rows(1, 3, 2)))
            # Queued together at 1000, sent at once or, as the last five, a moment later.
            until_ns = [1000, None, 1999, 2000, 2001, None]
            batch = [
                dataclasses.replace(one, valid_until=at) for one, at in zip(signals(6), until_ns, strict=True)
            ]
            await sink.write(batch[:1])
            assert json.loads((await client.receive(timeout=LONG_S)).data)["state"] == "valid"
            await sink.write(batch[1:] + lost)
            clock[0] = 2000
            got = [json.loads((await client.receive(timeout=LONG_S)).data) for _ in range(6)]
            assert [one["state"] for one in got] == ["valid", "stale", "valid", "valid", "valid", "suspect"]
            assert (got[1]["score"], got[1]["scores"], got[1]["row"]) == (None, [], 3)
            assert sink.counters()["client_stale"] == 1
    finally:
        await sink.close()


async def test_websocket_refuses_web_pages_that_it_was_not_told_of() -> None:
    sink = WebSocketSink(port=0, origins=["https://desk.example"])
    await sink.open()
    try:
        async with aiohttp.ClientSession() as session:
            for origin in (
                "https://evil.example",
                "http://desk.example",
                f"http://127.0.0.1:{sink.port}",
                "null",
            ):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await session.ws_connect(sink.url, origin=origin)
                assert refused.value.status == 403
            async with (
                session.ws_connect(sink.url, origin="https://desk.example") as page,
                session.ws_connect(sink.url) as program,
            ):
                await sink.write(signals(1))
                for client in (page, program):
                    assert json.loads((await client.receive(timeout=LONG_S)).data)["row"] == 1
        assert sink.counters()["clients_refused"] == 4
    finally:
        await sink.close()


def test_websocket_gets_its_origins_from_the_configuration() -> None:
    other = {"type": "websocket", "port": 1, "origins": ["https://a.example"]}
    config = one_feed(sinks=[{"type": "websocket"}, other])
    made = [sink for _, sink, _ in make_sinks(config)]
    assert [sink.origins for sink in made if isinstance(sink, WebSocketSink)] == [
        frozenset(),
        frozenset({"https://a.example"}),
    ]


async def test_websocket_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SetupError, match=r"websocket: cannot listen on 127\.0\.0\.1"):
            await WebSocketSink(port=taken.getsockname()[1]).open()


async def test_websocket_close_says_goodbye() -> None:
    sink = WebSocketSink(port=0)
    await sink.open()
    async with aiohttp.ClientSession() as session, session.ws_connect(sink.url) as client:
        closing = asyncio.ensure_future(sink.close())
        message = await client.receive(timeout=LONG_S)
        assert message.type == aiohttp.WSMsgType.CLOSE
        assert message.data == 1001
        await closing
