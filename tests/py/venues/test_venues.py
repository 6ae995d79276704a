"""What is particular to a venue stands in its file: another one, of other forms, needs no other place."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import fake_core
import pytest
from aiohttp import web
from configuring import one_feed
from waiting import until

import tickwire
from tickwire.config import Config
from tickwire.core import extension
from tickwire.errors import ConfigError
from tickwire.runtime.snapshots import SnapshotService
from tickwire.venues import VENUES, StreamVenue, venue_words


class _Dashes(StreamVenue):
    def streams(self, symbol: str, *, depth_interval: str, trades: str, quotes: bool) -> list[str]:
        return [f"books:{symbol}:{depth_interval}", self.trade_stream(symbol, trades)]

    def trade_stream(self, symbol: str, trades: str) -> str:
        return f"{trades}:{symbol}"

    def snapshot_query(self, symbol: str, levels: int) -> dict[str, str]:
        return {"instId": symbol, "sz": str(levels)}

    def error_of(self, said: Mapping[str, Any]) -> tuple[str, object] | None:
        return (str(said["retMsg"]), said["retCode"]) if "retMsg" in said else None


DASHES = _Dashes(
    name="dashes",
    check_symbol=lambda symbol: None if "-" in symbol else "expected a dash, as 'BTC-USDT'",
    most_instruments=3,
    url="wss://example.invalid/ws",
    trades_urls={"fills": "wss://fills.example.invalid/ws"},
    rest_url="https://example.invalid/books",
    depth_intervals=("10ms", "400ms"),
    trade_streams=("trades", "fills"),
    snapshot_limits=(5, 400),
    weight_per_minute=100,
    weight_header="X-Used",
    limited=(420,),
)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VENUES, "dashes", DASHES)


def config_of(*instruments: str, **feed: Any) -> Config:
    return one_feed("dashes", instruments or ("BTC-USDT",), feed=feed)


def test_either_language_has_the_same_venues() -> None:
    assert set(VENUES) - {"dashes"} == set(extension.VENUES)


def test_defaults_and_streams_are_the_venues() -> None:
    feed = config_of("BTC-USDT", "ETH-USDT").feeds[0]
    assert (feed.url, feed.trades_url, feed.trades) == ("wss://example.invalid/ws", "", "trades")
    assert (feed.depth_interval, feed.snapshot_limit, feed.deepest_snapshot) == ("10ms", 400, 400)
    streams = ["books:BTC-USDT:10ms", "trades:BTC-USDT", "books:ETH-USDT:10ms", "trades:ETH-USDT"]
    assert feed.streams_by_connection() == (streams, [])


def test_streams_of_another_endpoint_are_the_trades() -> None:
    feed = config_of("BTC-USDT", "ETH-USDT", trades="fills").feeds[0]
    assert feed.trades_url == "wss://fills.example.invalid/ws"
    assert feed.streams_by_connection() == (
        ["books:BTC-USDT:10ms", "books:ETH-USDT:10ms"],
        ["fills:BTC-USDT", "fills:ETH-USDT"],
    )


@pytest.mark.parametrize(
    ("instruments", "feed", "said"),
    [
        (["BTCUSDT"], {}, "feeds[0].instruments[0]: expected a dash, as 'BTC-USDT', found 'BTCUSDT'"),
        (
            ["A-", "B-", "C-", "D-"],
            {},
            "feeds[0].instruments: expected at most 3 entries for dashes, found 4",
        ),
        (
            ["A-"],
            {"trades": "trade"},
            'feeds[0].trades: expected one of "trades", "fills"; nearest known: trades',
        ),
        (["A-"], {"trades": 3}, 'feeds[0].trades: expected one of "trades", "fills", found 3'),
        (["A-"], {"depth_interval": "9ms"}, 'depth_interval: expected one of "10ms", "400ms" for dashes'),
        (["A-"], {"snapshot_limit": 6}, "snapshot_limit: expected one of 5, 400 for dashes, found 6"),
    ],
)
def test_what_does_not_fit_is_said_in_its_terms(
    instruments: list[str], feed: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(*instruments, **feed)
    assert said in str(caught.value)


def test_errors_of_every_venue_are_said_in_words() -> None:
    assert venue_words('refused: {"retMsg":"no such thing","retCode":10001}') == (
        "refused: no such thing (code 10001)"
    )
    assert venue_words('{"error":{"code":-1121,"msg":"Invalid symbol."}}') == "Invalid symbol. (code -1121)"
    for text in ("nothing", '{"code":1}', "{", "[1]"):
        assert venue_words(text) == text


def answered(engine: fake_core.Engine) -> bool:
    return bool(engine.delivered or engine.failures)


async def test_snapshot_is_asked_for_as_the_venue_wants() -> None:
    asked: list[dict[str, str]] = []
    answers = [
        web.Response(text='{"a":1}', headers={"X-Used": "81"}),
        web.Response(status=420, text="enough"),
    ]

    async def serve(request: web.Request) -> web.StreamResponse:
        asked.append(dict(request.query))
        return answers[len(asked) - 1]

    app = web.Application()
    app.router.add_get("/books", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        for held, why in ((61.0, "request weight"), (60.0, "HTTP 420")):
            config = config_of("BTC-USDT", rest_url=f"http://127.0.0.1:{runner.addresses[0][1]}/books")
            engine = fake_core.Engine({"features": {"outputs": [0]}, "models": [], "replay": False})
            service = SnapshotService(engine, config)
            engine.requests = [(0, 0, 0)]
            service.poll()
            await until(partial(answered, engine))
            (host,) = service._hosts.values()
            assert 0 < host.left() <= held
            assert why in host.why
            await service.close()
    finally:
        await runner.cleanup()
    assert asked == [{"instId": "BTC-USDT", "sz": "400"}] * 2


def test_no_venue_is_named_elsewhere() -> None:
    """But for docstrings, and for the simulator and the demo that plays it."""
    package = Path(tickwire.__file__).parent
    named = {
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if not {"venues", "sim"} & set(file.relative_to(package).parts)
        and any(
            word in _code_of(file)
            for word in ("binance", "usdm", "coinm", "nasdaq", "aggTrade", "bookTicker")
        )
    }
    assert named <= {"demo.py", "cli/app.py", "cli/live.py"}


def _code_of(file: Path) -> str:
    """A module without its comments and docstrings."""
    return ast.unparse(_WithoutDocstrings().visit(ast.parse(file.read_text(encoding="utf-8"))))


class _WithoutDocstrings(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) else node
