"""What comes from outside and is wrong: a count or a clear error each, and it costs only what it hit."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from configuring import one_feed
from needs import compiled
from scripted import BTC, ETH, SOL, Answer, Run, ScriptedVenue, config_of, scripted

from tickwire import models
from tickwire.config import Config
from tickwire.errors import Error, ModelError, VerifyError
from tickwire.pipeline import Pipeline
from tickwire.sim import SyntheticMarket, write_capture
from tickwire.verify import verify

pytestmark = compiled


async def hit(run: Run, text: str | bytes, *, counter: str, reason: str | None) -> None:
    """Says it in the middle of the honest stream: counted, and BTCUSDT alone may lose its book by it."""
    before = run.count(counter)
    losses = len(run.lost(BTC))
    await run.venue.say(text)
    await run.until(lambda: run.count(counter) > before, f"{counter} counted for {text!r}")
    if reason is None:
        await run.goes_on()
        assert len(run.lost(BTC)) == losses, (text, run.lost(BTC))
    else:
        await run.until(lambda: len(run.lost(BTC)) > losses, f"{reason} for {text!r}")
        await run.goes_on()
        assert run.lost(BTC)[losses:] == [reason], text
    assert run.lost(ETH) == run.lost(SOL) == [], text


def damaged(run: Run) -> list[str]:
    """Diffs of BTCUSDT with one thing wrong each."""
    diff = run.venue.diff
    wrong: list[dict[str, Any]] = [
        {"U": None},
        {"u": None},
        {"U": True},
        {"U": "x"},
        {"u": 1.5},
        {"u": -1},
        {"u": 1 << 64},
        {"u": [1]},
        {"E": "yesterday"},
        {"b": None},
        {"b": "none"},
        {"b": {}},
        {"b": [["1.0"]]},
        {"b": [[]]},
        {"b": [[["1.0", "2.0"]]]},
        {"b": ["1.0", "2.0"]},
        {"a": 7},
    ]
    return [diff(BTC, **fields) for fields in wrong]


async def test_messages_of_wrong_types_cost_one_book() -> None:
    async with scripted() as run:
        for text in damaged(run):
            await hit(run, text, counter="malformed", reason="malformed")
        assert "message_malformed: BTCUSDT" in run.errors()


async def test_messages_cut_anywhere_cost_one_book() -> None:
    async with scripted() as run:
        for end in (0.6, 0.8, 0.95):
            text = run.venue.diff(BTC)
            await hit(run, text[: int(len(text) * end)], counter="malformed", reason="malformed")
        # Before its name: the ids of the next one show the hole.
        await hit(run, run.venue.diff(BTC)[:30], counter="malformed", reason="gap")
        text = run.venue.diff(BTC)
        await hit(run, text + "}", counter="malformed", reason="malformed")
        text = run.venue.diff(BTC)
        await hit(run, text[:-1] + ',"u":7}', counter="malformed", reason="malformed")  # A key twice.


async def test_nonsense_that_names_nobody_costs_nothing() -> None:
    async with scripted() as run:
        for text in (
            "",
            " ",
            "hello",
            "[]",
            "null",
            "17",
            '"text"',
            "{",
            "[" * 5000,
            '{"a":1}{"b":2}',
            "\x00",
        ):
            await hit(run, text, counter="malformed", reason=None)
        await hit(run, b"\xff\xfe\x00binary", counter="malformed", reason=None)


async def test_messages_of_others_are_passed_over_and_counted() -> None:
    async with scripted() as run:
        other = run.venue.diff(BTC, s="DOGEUSDT")
        run.venue.ids[BTC] -= 1  # It was none of BTCUSDT's.
        await hit(run, other, counter="unknown_symbol", reason=None)
        await hit(run, other.replace('"DOGEUSDT"', '"btcusdt"'), counter="unknown_symbol", reason=None)
        await hit(run, '{"e":"kline","E":1,"s":"BTCUSDT","k":{}}', counter="ignored", reason=None)
        await hit(run, '{"result":null,"id":9}', counter="ignored", reason=None)
        await hit(run, "{}", counter="ignored", reason=None)
        refusal = '{"error":{"code":2,"msg":"Invalid request"},"id":1}'
        await hit(run, refusal, counter="subscribe_errors", reason=None)
        assert "subscribe_refused: main" in run.errors()


@pytest.mark.parametrize("side", ["b", "a"])
async def test_numbers_that_do_not_fit_are_never_rounded(side: str) -> None:
    async with scripted() as run:
        for text in ("99.123456789", "99999999999999999999", "-1.0", "NaN", "1e-20", "1.2.3", "", ".", "0x1"):
            for level in ([text, "1.0"], ["99.0", text]):
                diff = run.venue.diff(BTC, **{side: [["98.00", "1.0"], level]})
                await hit(run, diff, counter="bad_number", reason="bad_number")
        assert "message_bad_number: BTCUSDT" in run.errors()


async def test_more_levels_than_any_venue_sends_are_refused() -> None:
    async with scripted({"max_frame_bytes": 1 << 20}) as run:
        levels = [[f"{90 - i / 1000:.3f}", "1.0"] for i in range(20_001)]
        await hit(run, run.venue.diff(BTC, b=levels), counter="too_many_levels", reason="too_many_levels")
        assert "message_too_many_levels" in run.errors()


async def test_crossed_book_is_left() -> None:
    async with scripted() as run:
        await hit(run, run.venue.diff(BTC, b=[["101.00", "1.0"]]), counter="crossed", reason="crossed")
        await hit(run, run.venue.diff(BTC, a=[["50.00", "1.0"]]), counter="crossed", reason="crossed")


async def test_ids_that_go_back_or_jump_are_a_gap() -> None:
    async with scripted() as run:
        await hit(run, run.venue.diff(BTC, U=7, u=8), counter="gaps", reason="gap")
        run.venue.ids[BTC] += 100
        await hit(run, run.venue.diff(BTC), counter="gaps", reason="gap")
        first = run.venue.ids[BTC] + 1
        ends_before_it_begins = run.venue.diff(BTC, U=first + 9, u=first + 3)
        await hit(run, ends_before_it_begins, counter="malformed", reason="malformed")


async def test_largest_id_does_not_silence_an_instrument() -> None:
    async with scripted() as run:
        await run.venue.say(run.venue.diff(BTC, u=(1 << 64) - 1))
        await run.until(lambda: run.lost(BTC) == ["gap"], "the stream went back")
        await run.goes_on()
        assert run.lost(ETH) == []


# The wire.


async def connection_lost(run: Run, data: bytes, error: str, *, then_close: bool = False) -> None:
    """Bytes past the WebSocket layer: the connection ends, is made anew, and the other feed goes on."""
    connects, losses = run.count("connects"), len(run.lost(BTC))
    run.venue.write_raw(data, then_close=then_close)
    await run.until(lambda: run.count("connects") > connects, f"another connection after {data[:8]!r}")
    await run.goes_on()
    assert run.lost(BTC)[losses:] == run.lost(ETH)[losses:] == ["disconnected"], data[:8]
    assert run.lost(SOL) == []
    assert error in run.errors()


async def test_frames_that_the_protocol_forbids_end_the_connection() -> None:
    async with scripted() as run:
        for data in (
            b"\xf1\x02{}",  # Reserved bits.
            b"\x83\x02{}",  # An opcode that does not exist.
            b"\x81\x82\x00\x00\x00\x00{}",  # Masked by the server.
            b"\x81\x02\xff\xfe",  # Text that is not UTF-8.
            b"\x80\x02{}",  # The rest of nothing.
            b"\x09\x00",  # A ping in pieces.
        ):
            protocol_errors = run.count("protocol_errors")
            await connection_lost(run, data, "connection_protocol")
            await run.until(lambda n=protocol_errors: run.count("protocol_errors") > n, f"{data!r} counted")  # type: ignore[misc]


async def test_frame_cut_by_the_end_of_the_connection() -> None:
    async with scripted() as run:
        await connection_lost(run, b"\x81\x7e\x03\xe8" + b"x" * 100, "connection_closed", then_close=True)


@pytest.mark.parametrize("stated", [True, False], ids=["one frame", "fragments"])
async def test_oversized_message_is_refused(stated: bool) -> None:
    async with scripted() as run:
        if stated:
            data = b"\x81\x7f" + (1 << 30).to_bytes(8, "big")
        else:
            piece = b"\x7e" + (40_000).to_bytes(2, "big") + b"x" * 40_000
            data = b"\x01" + piece + b"\x00" + piece
        await connection_lost(run, data, "above max_frame_bytes")
        await run.until(lambda: run.count("protocol_errors") == 1, "counted")


# Endpoints.


async def never_connects(run: Run, *errors: str) -> None:
    """The first feed fails and says why, again and again; the other one works."""
    await run.until(lambda: run.count("connect_failures") >= 3, "failures counted")
    await run.goes_on(SOL)
    assert run.count("connects") == 0
    assert run.rows.keys() == {SOL}
    for error in errors:
        assert error in run.errors(), run.errors()


async def test_endpoint_that_refuses() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{nobody.getsockname()[1]}/ws"
        async with scripted({"url": url}, wait=False) as run:
            await never_connects(run, "connection_refused", "Connection refused")


async def test_endpoint_that_is_no_websocket() -> None:
    async with scripted() as run:

        async def forbidden(_: web.Request) -> web.StreamResponse:
            raise web.HTTPForbidden

        run.venue.handshake = forbidden
        run.venue.write_raw(b"", then_close=True)
        await run.until(lambda: run.count("connect_failures") >= 2, "refused handshakes counted")
        assert "connection_handshake: handshake: expected HTTP 101, found 403" in run.errors(), run.errors()
        run.venue.handshake = None
        await run.goes_on()
        assert run.lost(BTC) == run.lost(ETH) == ["disconnected"]
        assert run.lost(SOL) == []


async def test_host_without_an_address() -> None:
    async with scripted({"url": "ws://no-such-host.invalid/ws"}, wait=False) as run:
        await never_connects(run, "connection_lookup", "no-such-host.invalid")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Self-signed ones: of this address, and of another host."""
    folder = tmp_path_factory.mktemp("certificates")
    for name, alt in (("here", "IP:127.0.0.1"), ("elsewhere", "DNS:venue.example")):
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
                *("-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName={alt}"),
                *("-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")),
            ],
            check=True,
            capture_output=True,
        )
    return {name: folder / f"{name}.pem" for name in ("here", "elsewhere")}


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    return context


async def test_trusted_certificate_is_good_for_stream_and_rest(certificates: dict[str, Path]) -> None:
    async with ScriptedVenue().serve(server_context(certificates["here"])) as secure:
        changes = {"url": secure.ws_url, "rest_url": secure.rest_url, "ca_file": str(certificates["here"])}
        async with scripted(changes, wait=False) as run:
            stop = asyncio.Event()
            chatter = asyncio.create_task(secure.chatter(stop))
            await run.goes_on()
            stop.set()
            await chatter
            assert run.lost(BTC) == []


@pytest.mark.parametrize("case", ["unknown authority", "another host"])
async def test_certificate_that_does_not_verify(case: str, certificates: dict[str, Path]) -> None:
    name = "here" if case == "unknown authority" else "elsewhere"
    trusted = "" if case == "unknown authority" else str(certificates[name])
    async with ScriptedVenue().serve(server_context(certificates[name])) as secure:
        async with scripted({"url": secure.ws_url, "ca_file": trusted}, wait=False) as run:
            await never_connects(run, "connection_tls", "certificate of 127.0.0.1 does not verify")
        if trusted:
            return  # Where the stream needs none, no authority is named.
        # For snapshots no less: the stream comes, no book does.
        async with scripted({"rest_url": secure.rest_url}, wait=False) as run:
            await run.until(lambda: run.count("snapshots_failed") >= 2, "snapshots fail")
            assert run.rows.keys() == {SOL}
            assert "snapshot_failed" in run.errors()
            assert "certificate" in run.errors().lower(), run.errors()


def unusable_snapshots(run: Run) -> int:
    """What was no JSON never came to the book; the rest was refused there."""
    return run.count("snapshots_failed") + run.count("snapshots_refused")


async def test_snapshots_that_cannot_be_used_are_asked_for_again() -> None:
    async with scripted() as run:
        snapshot = run.venue.snapshot
        bad = [
            b"",
            b"<html>no</html>",
            b"null",
            b"[]",
            b"{}",
            snapshot(BTC)[:-5],
            snapshot(BTC, lastUpdateId="soon"),
            snapshot(BTC, lastUpdateId=-1),
            snapshot(BTC, bids=None),
            snapshot(BTC, bids=[["1.0"]]),
            snapshot(BTC, asks=[["101.123456789", "1.0"]]),
            b'{"symbol":"ETHUSDT",' + snapshot(BTC)[1:],
        ]
        for body in bad:
            unusable, losses = unusable_snapshots(run), len(run.lost(BTC))
            run.venue.rest.append(body)
            run.venue.ids[BTC] += 5
            await run.until(lambda n=losses: len(run.lost(BTC)) > n, "a gap")  # type: ignore[misc]
            await run.goes_on()
            assert unusable_snapshots(run) == unusable + 1, body
        assert run.lost(ETH) == run.lost(SOL) == []
        assert "snapshot_malformed: BTCUSDT" in run.errors()


async def test_crossed_snapshot_is_refused() -> None:
    async with scripted() as run:
        body = run.venue.snapshot(BTC, lastUpdateId=run.venue.ids[BTC] + 8, bids=[["103.00", "1.0"]])
        run.venue.rest.append(body)
        run.venue.ids[BTC] += 5
        await run.until(lambda: run.count("snapshots_refused") == 1, "refused")
        await run.goes_on()
        assert "snapshot_refused: BTCUSDT" in run.errors()
        assert run.lost(BTC) == ["gap"]


async def test_rest_endpoint_that_refuses() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/depth"
        async with scripted({"rest_url": url, "snapshot_retries": 2}, wait=False) as run:
            await run.until(lambda: run.count("snapshots_given_up") == 2, "both instruments given up")
            await run.goes_on(SOL)
            assert "snapshot_failed" in run.errors()
            assert "snapshot_given_up" in run.errors()
            assert run.rows.keys() == {SOL}


async def test_a_venue_that_bans_for_a_while_has_not_been_given_up() -> None:
    def until(seconds: str) -> Answer:
        async def ban(request: web.Request) -> web.Response:
            return web.Response(
                status=429, headers={"Retry-After": seconds, "Date": "Sun, 06 Nov 1994 08:49:37 GMT"}
            )

        return ban

    async with scripted({"snapshot_retries": 2}) as run:
        run.venue.rest += [until("1"), until("Sun, 06 Nov 1994 08:49:38 GMT")]
        run.venue.ids[BTC] += 5
        asked = run.venue.rest_requests
        await run.until(lambda: run.venue.rest_requests == asked + 3, "two bans are over")
        await run.goes_on()
        assert "snapshot_failed" in run.errors()
        assert run.count("snapshots_failed") == 2
        assert run.count("snapshots_given_up") == 0


# Setup: what cannot be run is not begun, and says which key is at fault.


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"url": "ws://"}, "feeds[0].url"),
        ({"url": "ws://:80/ws"}, "feeds[0].url"),
        ({"url": "ws://127.0.0.1:99999/ws"}, "feeds[0].url"),
        ({"url": "ws://127.0.0.1/a b"}, "feeds[0].url"),
        ({"url": "wss://127.0.0.1/ws", "ca_file": "none.pem"}, "feeds[0].ca_file"),
        ({"url": "wss://127.0.0.1/ws", "ca_file": __file__}, "feeds[0].ca_file"),
        ({"ca_file": "some.pem"}, "feeds[0].ca_file"),
        ({"rest_url": "http://"}, "feeds[0].rest_url"),
        ({"rest_url": "http://127.0.0.1:x/depth"}, "feeds[0].rest_url"),
        ({"core": 4000}, "feeds[0].core"),
    ],
)
async def test_feed_that_cannot_be_set_up_names_its_key(changes: dict[str, Any], expected: str) -> None:
    venue = ScriptedVenue()
    async with venue.serve():
        with pytest.raises(Error) as caught:
            async with Pipeline(Config.from_dict(config_of(venue, changes), where="test")):
                pass
        assert expected in str(caught.value)


async def test_model_that_is_missing_or_of_other_features_is_not_run(tmp_path: Path) -> None:
    venue = ScriptedVenue()
    async with venue.serve():
        data = config_of(venue) | {"model": {"path": "model.onnx"}}
        config = Config.from_dict(data, where="test", base=tmp_path)
        with pytest.raises(Error, match=r"model\.onnx: expected an ONNX model, found No such file"):
            async with Pipeline(config):
                pass
        other = data | {"features": {"rows": ["imbalance(levels=4)", "spread()"]}}
        schema = Config.from_dict(other, where="test", base=tmp_path).schema()
        models.make_demo_model(tmp_path / "model.onnx", schema)
        with pytest.raises(ModelError) as caught:
            async with Pipeline(config):
                pass
        assert "imbalance(levels=4)" in str(caught.value)
        assert "imbalance(levels=5)" in str(caught.value)
        (tmp_path / "model.onnx").write_bytes(b"not a model")
        with pytest.raises(ModelError, match=r"model\.onnx"):
            async with Pipeline(config):
                pass


async def test_port_of_a_sink_that_is_taken() -> None:
    venue = ScriptedVenue()
    async with venue.serve():
        sink = {"type": "websocket", "port": venue.port}
        config = Config.from_dict(config_of(venue) | {"sinks": [sink]}, where="test")
        with pytest.raises(Error, match=str(venue.port)):
            async with Pipeline(config):
                pass


# Captures.


def replay_config() -> Config:
    return one_feed("binance_usdm", feed={"source": "file"})


async def replayed(path: Path) -> Pipeline:
    async with Pipeline.replay(replay_config(), [path]) as pipeline:
        await pipeline.run_until()
    return pipeline


@pytest.mark.parametrize("suffix", ["", ".gz"])
async def test_capture_that_was_cut(suffix: str, tmp_path: Path) -> None:
    whole = tmp_path / "whole.log"
    with whole.open("wb") as file:
        write_capture(SyntheticMarket("usdm", rate=500, seed=3, seconds=4), file)
    data = whole.read_bytes()
    rows = (await replayed(whole)).stats().rows
    cut = tmp_path / f"cut.log{suffix}"
    if suffix:
        packed = gzip.compress(data)
        cut.write_bytes(packed[: len(packed) * 2 // 3])
    else:
        end = data.index(b"\n", len(data) * 2 // 3)
        cut.write_bytes(data[: end - 20])
    stats = (await replayed(cut)).stats()
    assert rows // 2 < stats.rows < rows
    assert stats.count("capture_truncated") == 1
    assert stats.count("malformed") == 0  # The torn line is no message.
    [error] = [entry.text for entry in stats.errors]
    assert "capture_truncated" in error
    assert str(cut) in error


async def test_captures_with_nonsense_in_them(tmp_path: Path) -> None:
    capture = tmp_path / "capture.log"
    with capture.open("wb") as file:
        write_capture(SyntheticMarket("usdm", rate=500, seed=3, seconds=2), file)
    lines = capture.read_bytes().splitlines(keepends=True)
    rows = (await replayed(capture)).stats().rows
    nonsense = (b"\n", b"no stamp\n", b"17\n", b"-5 {}\n", b"99999999999999999999 {}\n", b"\x00\xff\n")
    for number, line in enumerate(nonsense):
        lines.insert(100 + 20 * number, line)
    capture.write_bytes(b"".join(lines))
    stats = (await replayed(capture)).stats()
    assert stats.rows == rows
    assert stats.count("capture_lines_skipped") == len(nonsense)
    assert "capture_line_skipped" in stats.errors[0].text
    assert f"{capture}:101" in stats.errors[0].text or "101" in stats.errors[0].text


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"\x1f\x8b\x08\x00garbage, no stream"])
async def test_captures_with_nothing_in_them(content: bytes, tmp_path: Path) -> None:
    capture = tmp_path / ("capture.log.gz" if content else "capture.log")
    capture.write_bytes(content)
    stats = (await replayed(capture)).stats()
    assert stats.rows == 0
    assert stats.count("capture_truncated") == (1 if content else 0)


# A full disk.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs root to mount a small disk")
    yield folder
    # Lazily: what is still open there goes with its owner.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return filler


async def test_disk_that_is_full_for_a_while_takes_all_of_it_later(small_disk: Path) -> None:
    async with scripted(record_dir=small_disk / "run") as run:
        filler = fill(small_disk)
        await run.until(lambda: "recorder_disk" in run.errors(), "the full disk is reported")
        assert "No space left" in run.errors()
        await run.goes_on()
        filler.unlink()
        written = run.count("bytes_written", "recorder")
        await run.until(lambda: run.count("bytes_written", "recorder") > written, "recording again")
        await run.goes_on()
        assert run.lost(BTC) == run.lost(ETH) == run.lost(SOL) == []
    assert run.count("disk_lost", "recorder") == 0
    result = await verify(small_disk / "run")
    assert result.same, result.divergence
    assert result.rows > 0


async def test_disk_that_stays_full_ends_the_recording_and_not_the_run(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = small_disk / "run"
    async with scripted(record_dir=run_dir) as run:
        fill(small_disk)
        await run.until(lambda: "recorder_disk" in run.errors(), "the full disk is reported")
        await run.goes_on()
        assert run.lost(BTC) == run.lost(ETH) == run.lost(SOL) == []
    assert run.count("disk_lost", "recorder") > 0
    with pytest.raises(VerifyError, match="never ended its recording"):
        await verify(run_dir)
    assert "the end of the recording cannot be written" in caplog.text
    assert not list(run_dir.glob("*.part"))


async def test_disk_that_is_full_from_the_start(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(Error, match=r"No space left|cannot be"):
        async with scripted(record_dir=small_disk / "run"):
            pass
