"""Configuration: defaults, what each kind of mistake is told, and what the engine gets."""

from __future__ import annotations

import codecs
import copy
import hashlib
import itertools
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from configuring import MINIMAL, MULTICAST, load, multicast, one_feed
from needs import ROOT
from pydantic import BaseModel

from tickwire.config import Config, Engine, Features, Feed, Memory, Model, Multicast, Record
from tickwire.config.multicast import MulticastLine
from tickwire.errors import ConfigError
from tickwire.launch import resolve
from tickwire.sinks.jsonl import JsonlTable
from tickwire.sinks.registry import SINKS
from tickwire.sinks.table import table_of as table_of_sink
from tickwire.sinks.websocket import WebSocketTable
from tickwire.toml.table import Table, table_of
from tickwire.units import parse_duration


def test_minimal_file_gets_the_venues_defaults() -> None:
    config = load(MINIMAL)
    feed = config.feeds[0]
    assert config.feed_names == ["binance_usdm"]
    assert config.engine.layout == "threads"
    assert feed.url == "wss://fstream.binance.com/public/ws"
    assert feed.trades_url == ""
    assert feed.rest_url == "https://fapi.binance.com/fapi/v1/depth"
    assert feed.snapshot_limit == 1000
    assert feed.streams() == ["btcusdt@depth@0ms", "btcusdt@trade"]
    assert config.plan.names == ["imbalance(levels=5)", "spread()"]


@pytest.mark.parametrize(
    ("venue", "interval", "expected"),
    [
        ("binance_spot", "", "btcusdt@depth@100ms"),
        ("binance_spot", "1000ms", "btcusdt@depth"),
        ("binance_usdm", "", "btcusdt@depth@0ms"),
        ("binance_usdm", "250ms", "btcusdt@depth"),
        ("binance_coinm", "500ms", "btcusdt@depth@500ms"),
    ],
)
def test_depth_stream_is_named_as_the_venue_names_it(venue: str, interval: str, expected: str) -> None:
    text = MINIMAL.replace("binance_usdm", venue).replace(
        "[features]", f'depth_interval = "{interval}"\n[features]'
    )
    assert load(text).feeds[0].streams()[0] == expected


def test_unnamed_feeds_of_one_venue_get_different_names() -> None:
    config = Config.from_dict(
        {
            "feeds": [
                {"venue": "binance_spot", "instruments": ["A"]},
                {"venue": "binance_spot", "instruments": ["B"], "name": "binance_spot_2"},
                {"venue": "binance_spot", "instruments": ["C"]},
            ],
            "features": {"rows": ["spread()"]},
        }
    )
    assert config.feed_names == ["binance_spot", "binance_spot_2", "binance_spot_3"]


FEED = """
[[feeds]]
venue = "binance_spot"
instruments = ["BTCUSDT"]
"""
FEATURES = """
[features]
rows = ["spread()"]
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            FEED + 'depth_intervall = "100ms"' + FEATURES,
            "pipeline.toml: feeds[0].depth_intervall: unknown key, found '100ms'; "
            "nearest known key: depth_interval",
            id="unknown key in a list of tables",
        ),
        pytest.param(
            "[engin]\n" + FEED + FEATURES,
            "pipeline.toml: engin: unknown key, found {}; nearest known key: engine",
            id="unknown table",
        ),
        pytest.param(
            "[engine]\nzzz = 1\n" + FEED + FEATURES,
            "engine.zzz: unknown key, found 1; known keys: layout, idle, output_slots, stat_path",
            id="unknown key without a near one",
        ),
        pytest.param(
            '[[feeds]]\nvenue="binance_spot"\ninstruments=[{symbol="BTCUSDT", price_decimal=2}]' + FEATURES,
            "feeds[0].instruments[0].price_decimal: unknown key, found 2; nearest known key: price_decimals",
            id="unknown key in an inline table",
        ),
        pytest.param(FEED, "pipeline.toml: features: required", id="missing table"),
        pytest.param(FEATURES, "pipeline.toml: feeds: required", id="no feeds"),
        pytest.param(
            '[[feeds]]\nvenue="binance_spot"' + FEATURES,
            "feeds[0].instruments: required",
            id="missing key",
        ),
        pytest.param(
            '[[feeds]]\nvenue="binance_spot"\ninstruments=[]' + FEATURES,
            "feeds[0].instruments: expected at least one, found []",
            id="empty list",
        ),
        pytest.param(
            '[[feeds]]\nvenue="binance_spt"\ninstruments=["A"]' + FEATURES,
            'feeds[0].venue: expected one of "binance_spot", "binance_usdm", "binance_coinm", "nasdaq_itch"; '
            "nearest known: binance_spot, found 'binance_spt'",
            id="unknown venue",
        ),
        pytest.param(
            '[engine]\nlayout = "thread"\n' + FEED + FEATURES,
            'engine.layout: expected one of "inline", "threads", "processes"; nearest known: threads, '
            "found 'thread'",
            id="unknown choice",
        ),
        pytest.param(
            '[engine]\noutput_slots = "8192"\n' + FEED + FEATURES,
            "engine.output_slots: expected an integer, found '8192'",
            id="text for a number",
        ),
        pytest.param(
            "[engine]\noutput_slots = 1\n" + FEED + FEATURES,
            "engine.output_slots: expected at least 64, found 1",
            id="number too small",
        ),
        pytest.param(
            FEED + "max_levels = 1000" + FEATURES,
            "feeds[0].max_levels: expected at least snapshot_limit = 5000, found 1000",
            id="book that holds no snapshot",
        ),
        pytest.param(
            FEED + 'url = "wss://:9443/ws"' + FEATURES,
            "feeds[0].url: expected a URL with a host, and a port that there is, found 'wss://:9443/ws'",
            id="URL without a host",
        ),
        pytest.param(
            FEED + 'rest_url = "https://venue.example:x/depth"' + FEATURES,
            "feeds[0].rest_url: expected a URL with a host, and a port that there is",
            id="URL with no port",
        ),
        pytest.param(
            FEED + "max_levels = true" + FEATURES,
            "feeds[0].max_levels: expected an integer, found True",
            id="boolean for a number",
        ),
        pytest.param(
            FEED + "snapshot_backoff = 500" + FEATURES,
            'feeds[0].snapshot_backoff: expected a duration like "250ms", "1s" or "23h50m", found 500',
            id="duration without its unit",
        ),
        pytest.param(
            FEED + 'snapshot_backoff = "500"' + FEATURES,
            "feeds[0].snapshot_backoff: expected a duration",
            id="duration as text without its unit",
        ),
        pytest.param(
            FEED + 'trades = ["trade", "aggTrade"]' + FEATURES,
            'feeds[0].trades: expected one of "trade", "aggTrade": all are the same trades',
            id="both trade streams in one feed",
        ),
        pytest.param(
            FEED + FEED + 'trades = "aggTrade"' + FEATURES,
            "feeds[1].instruments[0]: expected one trade stream of one instrument: feeds[0].instruments[0] "
            "reads 'trade' and this feed 'aggTrade'",
            id="two trade streams in two feeds",
        ),
        pytest.param(
            FEED + FEED + FEATURES,
            "feeds[1].instruments[0]: expected each instrument of binance_spot once, but "
            "feeds[0].instruments[0] has it, found 'BTCUSDT'",
            id="instrument twice",
        ),
        pytest.param(
            FEED + 'name = "a"' + FEED.replace("BTC", "ETH") + 'name = "a"' + FEATURES,
            "feeds[1].name: expected a name that no other feed has, found 'a'",
            id="feed name twice",
        ),
        pytest.param(
            '[[feeds]]\nvenue="binance_spot"\ninstruments=["btcusdt"]' + FEATURES,
            "feeds[0].instruments[0]: expected the venue's upper-case symbol, as 'BTCUSDT'",
            id="lower-case symbol",
        ),
        pytest.param(
            FEED + 'depth_interval = "0ms"' + FEATURES,
            'feeds[0].depth_interval: expected one of "100ms", "1000ms" for binance_spot, found \'0ms\'',
            id="interval of another venue",
        ),
        pytest.param(
            FEED + "snapshot_limit = 6000" + FEATURES,
            "feeds[0].snapshot_limit: expected 1 to 5000 for binance_spot, found 6000",
            id="snapshot too deep",
        ),
        pytest.param(
            FEED + 'url = "http://x"' + FEATURES,
            "feeds[0].url: expected a URL that begins with ws:// or wss://, found 'http://x'",
            id="wrong scheme",
        ),
        pytest.param(
            FEED + 'reconnect_min = "31s"' + FEATURES,
            "feeds[0].reconnect_min: expected at most reconnect_max = '30s', found '31s'",
            id="bounds crossed",
        ),
        pytest.param(
            FEED + '[features]\nrows=["spread()"]\ntrigger="book"\nevery="1s"',
            "features.every: expected exactly one of trigger and every, found trigger = 'book' too",
            id="both trigger and every",
        ),
        pytest.param(
            FEED + '[features]\nrows=["spread()"]\nevery="0s"',
            "features.every: expected more than zero, found '0s'",
            id="every nothing",
        ),
        pytest.param(
            FEED + "[features]\nrows=[]", "features.rows: expected at least one, found []", id="no features"
        ),
        pytest.param(
            FEED + '[features]\nrows=["spread()", "spread("]',
            "features.rows[1]",
            id="expression that does not parse",
        ),
        pytest.param(
            FEED + '[features]\nrows=["spread()", "spread()"]',
            "features.rows[1]: expected each expression once, but features.rows[0] is the same",
            id="expression twice",
        ),
        pytest.param(
            FEED + "core = 3" + FEATURES + '[model]\npath="m.onnx"\ncores=[3]',
            "model.cores[0]: expected a core of its own, but feeds[0].core has it, found 3",
            id="core twice",
        ),
        pytest.param(
            '[engine]\nlayout="inline"\n' + FEED + FEATURES + '[model]\npath="m.onnx"\ncores=[3]',
            'model.cores: expected none with engine.layout = "inline"',
            id="model cores without a model thread",
        ),
        pytest.param(
            FEED + FEATURES + '[model]\npath="m"\npolicy="drop_oldest"\nqueue_slots=64\nqueue_limit=65',
            "model.queue_limit: expected at most queue_slots = 64, found 65",
            id="limit beyond the queue",
        ),
        pytest.param(
            FEED + FEATURES + '[[sinks]]\ntype="jsonl"',
            "sinks[0].path: required",
            id="sink without its path",
        ),
        pytest.param(
            FEED + FEATURES + '[[sinks]]\ntype="websockt"',
            'sinks[0].type: expected one of "jsonl", "websocket"; nearest known: websocket, found',
            id="unknown sink",
        ),
        pytest.param(
            FEED + FEATURES + "[[sinks]]\npath='a'",
            'sinks[0].type: required, one of "jsonl", "websocket"',
            id="sink without a type",
        ),
        pytest.param(
            FEED + FEATURES + '[[sinks]]\ntype="websocket"\nprot=1',
            "sinks[0].prot: unknown key, found 1; nearest known key: port",
            id="unknown key of a sink",
        ),
        pytest.param(
            FEED + 'snapshot_backoff = "0ms"' + FEATURES,
            "feeds[0].snapshot_backoff: expected more than zero",
            id="no pause between snapshots",
        ),
        pytest.param(
            FEED + '[features]\nrows=["spread()"]\ntrigger={ every = "100ms" }',
            'features.trigger: expected one of "book", "top", "trade"; for a row a period set features.every',
            id="period in the trigger",
        ),
        pytest.param(
            FEED + '[features]\nrows=["spread()"]\ntrigger="every"',
            'features.trigger: expected one of "book", "top", "trade"; for a row a period set features.every',
            id="trigger every",
        ),
        pytest.param(
            FEED + '[features]\nrows=["spread()"]\ntrigger="tops"',
            'features.trigger: expected one of "book", "top", "trade"; nearest known: top, found',
            id="unknown trigger",
        ),
        pytest.param(
            FEED + FEATURES + '[[sinks]]\ntype="websocket"\norigins=["desk.example"]',
            "sinks[0].origins[0]: expected an origin as a browser sends it",
            id="origin without its scheme",
        ),
        pytest.param(
            FEED + FEATURES + '[[sinks]]\ntype="websocket"\norigins=["https://desk.example/"]',
            "sinks[0].origins[0]: expected an origin as a browser sends it",
            id="origin with a path",
        ),
        pytest.param("a = [", "pipeline.toml: not TOML:", id="not TOML"),
        pytest.param("feeds = 3" + FEATURES, "feeds: expected a list, found 3", id="number for tables"),
    ],
)
def test_mistake_is_told_with_place_value_and_what_was_expected(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert expected in str(caught.value)
    assert str(caught.value).startswith("pipeline.toml: ")


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load("[engine]\nlayout='x'\nidel='spin'\n" + FEED + FEATURES)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert all(line.startswith("pipeline.toml: engine.") for line in lines)


def test_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Config.from_toml(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("250ms", 250_000_000),
        ("1.5s", 1_500_000_000),
        ("5m", 300_000_000_000),
        ("23h50m", 85_800_000_000_000),
        ("1m2s3ms4us5ns", 62_003_004_005),
        ("1h0.5s", 3_600_500_000_000),
        ("100us", 100_000),
        ("1h", 3600 * 10**9),
    ],
)
def test_duration(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize("text", ["", "1", "s", "-1s", "1 s", "1e3s", "0.5ns", "1sec", "1s1h", "1s1s"])
def test_duration_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


def test_resolve_gives_the_engine_everything(tmp_path: Path) -> None:
    config = load(MINIMAL.replace('source = "file"', 'quotes = true\nreconnect_max = "2s"'), base=tmp_path)
    resolved = resolve(config, record_dir=tmp_path / "run")
    assert resolved["replay"] is False
    assert resolved["record_dir"] == str(tmp_path / "run")
    (feed,) = resolved["feeds"]
    assert feed == {
        "name": "binance_usdm",
        "venue": "binance_usdm",
        "url": "wss://fstream.binance.com/public/ws",
        "subscribe": ["btcusdt@depth@0ms", "btcusdt@trade", "btcusdt@bookTicker"],
        "trades_url": "",
        "subscribe_trades": [],
        "inputs": [],
        "warm": [],
        "instruments": [{"symbol": "BTCUSDT", "price_decimals": 8, "qty_decimals": 8}],
        "trades": "trade",
        "core": -1,
        "snapshot_retries": 8,
        "snapshot_backoff_ns": 500_000_000,
        "snapshot_limit": 1000,
        "max_levels": 16384,
        "max_frame_bytes": 16 << 20,
        "buffer_events": 4096,
        "ca_file": "",
        "reconnect_min_ns": 250_000_000,
        "reconnect_max_ns": 2_000_000_000,
        "max_connection_age_ns": 85_800_000_000_000,
        "liveness_timeout_ns": 60_000_000_000,
        "stale_after_ns": 0,
        "max_orders": 1 << 20,
        "midnights": [],
        "multicast": None,
    }
    features = resolved["features"]
    assert features["trigger"] == "book"
    assert features["every_ns"] == 0
    assert len(features["outputs"]) == 2
    assert resolved["models"] == []


def test_the_venues_split_endpoint_is_one_feed_with_two_connections() -> None:
    config = load(MINIMAL.replace('source = "file"', 'quotes = true\ntrades = "aggTrade"'))
    (feed,) = resolve(config)["feeds"]
    assert feed["url"] == "wss://fstream.binance.com/public/ws"
    assert feed["subscribe"] == ["btcusdt@depth@0ms", "btcusdt@bookTicker"]
    assert feed["trades_url"] == "wss://fstream.binance.com/market/ws"
    assert feed["subscribe_trades"] == ["btcusdt@aggTrade"]
    # What is written down means the same when it is read again.
    assert resolve(Config.from_text(config.to_toml()))["feeds"] == [feed]


def test_a_url_of_ones_own_carries_everything() -> None:
    config = load(MINIMAL.replace('source = "file"', 'url = "ws://127.0.0.1:1/ws"\ntrades = "aggTrade"'))
    (feed,) = resolve(config)["feeds"]
    assert feed["trades_url"] == ""
    assert feed["subscribe"] == ["btcusdt@depth@0ms", "btcusdt@aggTrade"]


def test_trades_url_is_a_websocket() -> None:
    with pytest.raises(ConfigError, match=r"feeds\[0\].trades_url: expected a URL that begins with ws://"):
        load(MINIMAL.replace('source = "file"', 'trades_url = "https://x"'))


def test_resolve_every_becomes_a_trigger_with_its_period() -> None:
    config = load(FEED + '[features]\nevery = "100ms"\nrows = ["spread()"]')
    features = resolve(config)["features"]
    assert (features["trigger"], features["every_ns"]) == ("every", 100_000_000)


@pytest.mark.parametrize(
    ("features", "model", "rows_ns", "model_ns"),
    [
        ("", "", 10**9, 10**9),
        ('max_age = "250ms"\n', "", 250_000_000, 250_000_000),
        ('max_age = "0s"\n', "", 0, 0),
        ("", "max_age_us = 5\n", 10**9, 5000),
        ('max_age = "2s"\n', "max_age_us = 0\n", 2 * 10**9, 0),
    ],
)
def test_a_rows_greatest_age_is_one_second_unless_said(
    tmp_path: Path, features: str, model: str, rows_ns: int, model_ns: int
) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x")
    text = MINIMAL.replace("[features]\n", "[features]\n" + features)
    text = text.replace('source = "file"', "") + f'[model]\npath = "m.onnx"\n{model}'
    resolved = resolve(load(text, base=tmp_path))
    assert resolved["features"]["max_age_ns"] == rows_ns
    assert [one["max_age_ns"] for one in resolved["models"]] == [model_ns]


def test_resolve_for_a_replay_floats_and_ignores_age(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x")
    text = MINIMAL + '[model]\npath = "m.onnx"\ncores = [4000]\nmax_age_us = 5\n'
    text += '[memory]\nhuge_pages = "require"\nlock = "require"\n[engine]\nidle = "spin"\nstat_path = "s"\n'
    config = load(text.replace('source = "file"', "core = 4001"), base=tmp_path)
    resolved = resolve(config, replay=True, inputs={"binance_usdm": ["a.log", Path("b.log")]})
    assert resolved["feeds"][0]["inputs"] == ["a.log", "b.log"]
    assert resolved["feeds"][0]["core"] == -1
    assert resolved["memory"] == {"huge_pages": "auto", "lock": "auto"}
    assert (resolved["engine"]["idle"], resolved["engine"]["stat_path"]) == ("backoff", str(tmp_path / "s"))
    (model,) = resolved["models"]
    assert (model["cores"], model["workers"], model["max_age_ns"]) == ([], 1, 0)
    assert resolved["features"]["max_age_ns"] == 0
    assert model["members"] == [(str(tmp_path / "m.onnx"), 1.0, -1)]
    assert model["id"] == int(hashlib.sha256(b"x").hexdigest()[:8], 16)
    assert model["name"] == "m"


def resolve_replay(config: Config) -> dict[str, Any]:
    return resolve(config, replay=True, inputs={"binance_usdm": ["a.log"]})


def test_an_ensemble_is_one_model_of_several_files(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"a")
    (tmp_path / "b.onnx").write_bytes(b"b")
    ids = set()
    for extra, weights in (("", [1.0, 1.0]), ("weights = [3.0, 1.0]", [3.0, 1.0])):
        config = load(f'{MINIMAL}[model]\npath = ["a.onnx", "b.onnx"]\n{extra}\n', base=tmp_path)
        (model,) = resolve_replay(config)["models"]
        assert model["name"] == "a+b"
        assert model["members"] == [
            (str(tmp_path / "a.onnx"), weights[0], -1),
            (str(tmp_path / "b.onnx"), weights[1], -1),
        ]
        ids.add(model["id"])
        assert resolve_replay(Config.from_text(config.to_toml(), base=tmp_path))["models"] == [model]
    assert len(ids) == 2, "other weights are another model"


MODELS = """
[[models]]
path = "a.onnx"
workers = 2
assign = "least_loaded"
max_batch = 8
[[models]]
name = "next"
path = "b.onnx"
shadow = true
"""


def test_several_models_each_with_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"a")
    (tmp_path / "b.onnx").write_bytes(b"b")
    one, two = resolve_replay(load(MINIMAL + MODELS, base=tmp_path))["models"]
    assert (one["name"], one["workers"], one["max_batch"]) == ("a", 2, 8)
    assert one["assign"] == "instrument", "a replay's rows keep their order"
    assert (two["name"], two["shadow"], one["shadow"]) == ("next", False, False), (
        "its rows are told apart later"
    )
    live = resolve(load(MINIMAL.replace('source = "file"\n', "") + MODELS, base=tmp_path))["models"]
    assert [model["shadow"] for model in live] == [False, True]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            ('name = "next"', 'name = "a"'),
            r"models\[1\].name: expected a name of its own, but models\[0\] has it",
        ),
        (
            ('path = "a.onnx"', 'path = "a.onnx"\nshadow = true'),
            "expected at least one model that is no shadow",
        ),
        (("workers = 2", "workers = 1"), r'models\[0\].assign: expected "instrument" with a single worker'),
        (
            ("workers = 2", "workers = 2\ncores = [1]"),
            r"models\[0\].workers: expected one for each of the 1 cores",
        ),
        (("max_batch = 8", "max_batch = 65"), r"models\[0\].max_batch: expected at most 64"),
        (("max_batch = 8", "weights = [1.0]"), r"models\[0\].weights: expected none for a single file"),
        (("[[models]]\nname", '[model]\npath = "c"\n[[models]]\nname'), r"expected either \[model\] or"),
    ],
)
def test_models_that_contradict_themselves(change: tuple[str, str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load(MINIMAL + MODELS.replace(*change))


@pytest.mark.parametrize("line", ["workers = 2", "max_batch = 2", "cores = [1]"])
def test_inline_has_no_agents_for_models(line: str) -> None:
    text = MINIMAL + f'[model]\npath = "m.onnx"\n{line}\n[engine]\nlayout = "inline"\n'
    with pytest.raises(
        ConfigError, match=rf'model.{line.split()[0]}: expected .* with engine.layout = "inline"'
    ):
        load(text)


def test_weights_are_as_many_as_files_and_above_zero() -> None:
    for weights, expected in (("[1.0]", "one for each of the 2 files"), ("[1.0, 0.0]", "numbers above zero")):
        with pytest.raises(ConfigError, match=f"model.weights: expected {expected}"):
            load(f'{MINIMAL}[model]\npath = ["a", "b"]\nweights = {weights}\n')


def test_a_feed_by_order_has_the_whole_exchange_and_a_subscription_has_not() -> None:
    symbols = [f"S{number}" for number in range(10_000)]

    def text(venue: str) -> str:
        feed = f'[[feeds]]\nvenue = "{venue}"\ninstruments = {json.dumps(symbols)}'
        return f'{feed}\n[features]\nrows = ["spread()"]\n'

    assert len(Config.from_text(text("nasdaq_itch")).feeds[0].instruments) == 10_000
    with pytest.raises(ConfigError, match=r"instruments: expected at most 512 entries for binance_spot"):
        Config.from_text(text("binance_spot"))


def test_resolve_live_refuses_a_core_that_cannot_be_had() -> None:
    config = load(FEED + "core = 4000" + FEATURES)
    usable = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
    with pytest.raises(ConfigError) as caught:
        resolve(config)
    assert str(caught.value) == (
        f"pipeline.toml: feeds[0].core: expected a core that this process may use ({usable}), found 4000"
    )


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_resolve_live_takes_a_core_that_only_our_affinity_leaves_out() -> None:
    """As on a core that the boot line isolates, or in a service with a CPUAffinity of its own."""
    all_ours = os.sched_getaffinity(0)
    here, there = sorted(all_ours)[:2]
    config = load(FEED + f"core = {there}" + FEATURES)
    os.sched_setaffinity(0, {here})
    try:
        assert resolve(config)["feeds"][0]["core"] == there
        assert os.sched_getaffinity(0) == {here}
    finally:
        os.sched_setaffinity(0, all_ours)


def test_resolve_live_refuses_a_file_source() -> None:
    with pytest.raises(ConfigError, match=r'feeds\[0\].source: expected "websocket" for a live run'):
        resolve(load(MINIMAL))


def test_resolve_replay_needs_an_input_for_each_feed() -> None:
    with pytest.raises(ConfigError, match=r"feeds\[0\]: expected an input file to replay"):
        resolve(load(MINIMAL), replay=True, inputs={})


def test_effective_configuration_reads_back_as_itself() -> None:
    text = FEED.replace("BTCUSDT", "币安\\u0041") + FEATURES.replace(
        '"spread()"', "\"zscore(ofi(levels=5, window='1s'), window='30s')\""
    )
    config = load(text + '[model]\npath = "a \\"b\\".onnx"\n[[sinks]]\ntype = "jsonl"\npath = "-"')
    again = Config.from_text(config.to_toml())
    assert again.model_dump() == config.model_dump()
    assert tomllib.loads(config.to_toml())["model"]["path"] == 'a "b".onnx'


def test_paths_start_at_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    file = tmp_path / "sub" / "pipeline.toml"
    file.write_text(MINIMAL + '[model]\npath = "m.onnx"\n')
    assert Config.from_toml(file).path_of("m.onnx") == tmp_path / "sub" / "m.onnx"


def test_schema_follows_what_gives_rows_their_meaning() -> None:
    base = load(MINIMAL).schema().fingerprint()
    assert load(MINIMAL).schema().fingerprint() == base
    for old, new in [
        ('trigger = "book"', 'trigger = "top"'),
        ('trigger = "book"', 'clock = "event"'),
        ('trigger = "book"', "window_rows = 2"),
        ('source = "file"', 'trades = "aggTrade"'),
        ('"spread()"', '"microprice_offset()"'),
    ]:
        assert load(MINIMAL.replace(old, new)).schema().fingerprint() != base, new


LINE_A, LINE_B = (
    {"address": address, "port": 26477, "interface": "", "source_address": ""}
    for address in ("233.54.12.111", "233.49.196.111")
)


def keys_of(value: object) -> set[str]:
    if isinstance(value, dict):
        return {*value, *(key for item in value.values() for key in keys_of(item))}
    return {key for item in value for key in keys_of(item)} if isinstance(value, list) else set()


def test_resolve_gives_the_engine_nothing_that_it_does_not_read(tmp_path: Path) -> None:
    source = ROOT / "cpp" / "bindings" / "config_from_dict.cpp"
    read = set(re.findall(r'"([a-z_]+)"', source.read_text(encoding="utf-8")))
    (tmp_path / "m.onnx").write_bytes(b"x")
    plain = load(MINIMAL.replace('source = "file"', "") + '[model]\npath = "m.onnx"\n', base=tmp_path)
    assert keys_of(resolve(plain)) - read == set()
    assert (
        keys_of(resolve(multicast(*_SERVERS), replay=True, inputs={"nasdaq_itch": ["20200130.pcap"]})) <= read
    )


# What the engine gets beside the file's keys: inputs, what is asked of the venue, what was compiled or read.
_OF_A_RUN = {
    "": {"replay", "record_dir", "worker_program"},
    "feeds": {"inputs", "warm", "subscribe", "subscribe_trades", "midnights"},
    "feeds.multicast": {"username", "password"},
    "feeds.multicast.lines": {"port"},
    "features": {"nodes", "outputs"},
    "models": {"members", "id", "ort_library", "max_age_ns"},
}


def test_a_key_has_one_name_in_the_file_and_in_the_engine(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x")
    plain = load(MINIMAL.replace('source = "file"', "") + '[model]\npath = "m.onnx"\n', base=tmp_path)

    def others(value: object, table: type[BaseModel] | None, path: str) -> dict[str, set[str]]:
        if isinstance(value, list):
            return {key: names for item in value for key, names in others(item, table, path).items()}
        if not isinstance(value, dict) or table is None:
            return {}
        known = {form for name in table.model_fields for form in (name, f"{name}_ns")}
        found = {path: set(value) - known} if set(value) - known else {}
        for key, item in value.items():
            found |= others(item, table_of(table, key), f"{path}.{key}".removeprefix("."))  # type: ignore[arg-type]
        return found

    assert others(resolve(plain), Config, "") == {
        path: names for path, names in _OF_A_RUN.items() if "multicast" not in path
    }
    assert others(resolve(multicast(*_SERVERS)), Config, "") == {
        path: names for path, names in _OF_A_RUN.items() if path != "models"
    }


def test_resolve_gives_the_engine_everything_of_multicast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"TICKWIRE_GLIMPSE_{name}", raising=False)
    config = multicast()
    (feed,) = resolve(config)["feeds"]
    assert feed["liveness_timeout_ns"] == 5_000_000_000
    assert feed["midnights"] == []
    assert feed["multicast"] == {
        "lines": [LINE_A, LINE_B],
        "rerequest": "",
        "glimpse": "",
        "username": "",
        "password": "",
        "batch": 32,
        "max_datagram_bytes": 2048,
        "receive_buffer_bytes": 64 << 20,
        "busy_poll_us": 0,
        "busy_poll_budget": 0,
        "prefer_busy_poll": False,
        "nic_stamps": False,
        "reorder_window_ns": 2_000_000,
        "window_datagrams": 4096,
        "request_attempts": 4,
        "request_timeout_ns": 50_000_000,
        "request_interval_ns": 0,
        "request_messages": 1000,
        "glimpse_retry_ns": 1_000_000_000,
        "glimpse_timeout_ns": 10_000_000_000,
        "glimpse_session": "same",
    }
    # What is written down means the same when it is read again.
    assert resolve(Config.from_text(config.to_toml()))["feeds"] == [feed]


_SERVERS = ('rerequest = "10.1.2.3:17777"', 'glimpse = "glimpse.example:18000"')


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ('rerequest = "[2001:db8::1]:17777"', "rerequest", "[2001:db8::1]:17777"),
        ('glimpse = "[::1]:18000"', "glimpse", "[::1]:18000"),
        ("receive_buffer_bytes = 4096", "receive_buffer_bytes", 4096),
        ("batch = 7", "batch", 7),
        ("max_datagram_bytes = 9000", "max_datagram_bytes", 9000),
        ("busy_poll_us = 50", "busy_poll_us", 50),
        ("busy_poll_budget = 16", "busy_poll_budget", 16),
        ("prefer_busy_poll = true", "prefer_busy_poll", True),
        ("nic_stamps = true", "nic_stamps", True),
        ('reorder_window = "0s"', "reorder_window_ns", 0),
        ("window_datagrams = 16", "window_datagrams", 16),
        ("request_attempts = 1", "request_attempts", 1),
        ('request_timeout = "7ms"', "request_timeout_ns", 7_000_000),
        ('request_interval = "1ms"', "request_interval_ns", 1_000_000),
        ("request_messages = 65534", "request_messages", 65534),
        ('glimpse_session = "any"', "glimpse_session", "any"),
        ('glimpse_retry = "3s"', "glimpse_retry_ns", 3_000_000_000),
        ('glimpse_timeout = "2s"', "glimpse_timeout_ns", 2_000_000_000),
    ],
)
def test_each_key_of_multicast_reaches_the_engine(line: str, key: str, value: Any) -> None:
    others = [server for server in _SERVERS if server.split()[0] != line.split()[0]]
    config = multicast(*others, line)
    (feed,) = resolve(config)["feeds"]
    assert feed["multicast"][key] == value
    assert resolve(Config.from_text(config.to_toml()))["feeds"] == [feed]


def test_lines_take_what_they_do_not_name_from_the_table() -> None:
    text = MULTICAST.replace(
        '"233.49.196.111:26477"]',
        '{ address = "233.49.196.111:26477", interface = "eth2", source_address = "10.0.0.2" }, '
        '"127.0.0.1:5000"]\ninterface = "eth1"\nsource_address = "10.0.0.1"',
    )
    (feed,) = resolve(load(text))["feeds"]
    assert feed["multicast"]["lines"] == [
        LINE_A | {"interface": "eth1", "source_address": "10.0.0.1"},
        LINE_B | {"interface": "eth2", "source_address": "10.0.0.2"},
        {"address": "127.0.0.1", "port": 5000, "interface": "", "source_address": ""},
    ]
    (feed,) = resolve(load(MULTICAST.replace("233.54.12.111", "[ff02::1]")))["feeds"]
    assert feed["multicast"]["lines"][0] == LINE_A | {"address": "ff02::1"}


def test_multicast_decides_what_the_feed_is() -> None:
    pytest.importorskip("tickwire._core")
    assert load(MULTICAST.replace('[feeds.multicast]\nlines = ["233.54.12.111:26477"', '#"')).feeds[
        0
    ].source == ("file")
    (feed,) = resolve(multicast(feed='liveness_timeout = "0s"\ndate = "2020-01-30"\nmax_orders = 16'))[
        "feeds"
    ]
    assert feed["liveness_timeout_ns"] == 0
    assert feed["midnights"] == [1_580_360_400_000_000_000]
    assert feed["max_orders"] == 16
    (feed,) = resolve(multicast(feed="date = 2020-01-30"))["feeds"]  # As TOML writes a day itself.
    assert feed["midnights"] == [1_580_360_400_000_000_000]
    with pytest.raises(
        ConfigError, match=r'feeds\[0\].source: expected "multicast", and that table, for a live'
    ):
        resolve(multicast(feed='source = "file"'))
    (feed,) = resolve(multicast(*_SERVERS), replay=True, inputs={"nasdaq_itch": ["20200130.pcap"]})["feeds"]
    assert feed["midnights"] == [1_580_360_400_000_000_000]
    assert feed["multicast"]["lines"] == [LINE_A, LINE_B]


def test_credentials_are_read_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKWIRE_GLIMPSE_USERNAME", "envusr")
    monkeypatch.setenv("TICKWIRE_GLIMPSE_PASSWORD", "envsecret")

    def found(config: Config, **options: Any) -> tuple[str, str]:
        table = resolve(config, **options)["feeds"][0]["multicast"]
        return table["username"], table["password"]

    environment = multicast(*_SERVERS)
    assert found(environment) == ("envusr", "envsecret")
    assert found(multicast()) == ("", "")  # Nobody to tell.
    (tmp_path / "login").write_text("user\nsecret\n")
    (tmp_path / "login").chmod(0o600)
    config = multicast(*_SERVERS, 'credentials = "login"', base=tmp_path)
    assert found(config) == ("user", "secret")
    assert found(config, replay=True, inputs={"nasdaq_itch": ["20200130.pcap"]}) == ("", "")
    for shown in (config.to_toml(), config.text, repr(config), environment.to_toml(), repr(environment)):
        assert "secret" not in shown
    assert tomllib.loads(config.to_toml())["feeds"][0]["multicast"]["credentials"] == "login"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "expected a file of two lines, the user name and the password"),
        (b"user\nsecret\nsecret\n", "expected a file of two lines, the user name and the password"),
        (b"user_se\nsecret", "expected a user name of at most 6 printable characters on its first line"),
        (b"user\nsecret_secret", "expected a password of at most 10 printable characters on its second line"),
        (b"user\nsecr\xe9t", "expected a password of at most 10 printable characters on its second line"),
        (None, "expected a file that can be read (No such file or directory)"),
    ],
)
def test_credentials_that_cannot_be_used(content: bytes | None, expected: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "login").write_bytes(content)
        (tmp_path / "login").chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        resolve(multicast(*_SERVERS, 'credentials = "login"', base=tmp_path))
    assert str(caught.value) == (f"pipeline.toml: feeds[0].multicast.credentials: {expected}, found 'login'")


def test_credentials_of_the_environment_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKWIRE_GLIMPSE_PASSWORD", "secret_secret")
    with pytest.raises(ConfigError) as caught:
        resolve(multicast(*_SERVERS))
    assert str(caught.value) == (
        "pipeline.toml: feeds[0].multicast.credentials: expected a password of at most 10 printable "
        "characters in TICKWIRE_GLIMPSE_PASSWORD"
    )


_ENDPOINT = 'expected address:port in numbers, like "233.54.12.111:26477" or "[ff02::1]:26477"'


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("233.49.196.111:26477", "233.49.196.111"), f"lines[1]: {_ENDPOINT}, found '233.49.196.111'"),
        (("233.49.196.111:26477", "line-b.example:1"), f"lines[1]: {_ENDPOINT}, found 'line-b.example:1'"),
        (("233.49.196.111:26477", "233.49.196.111:0"), f"lines[1]: {_ENDPOINT}, found '233.49.196.111:0'"),
        (("233.49.196.111:26477", "ff02::1:26477"), f"lines[1]: {_ENDPOINT}, found 'ff02::1:26477'"),
        (("233.49.196.111:26477", "[ff02::1]:65536"), f"lines[1]: {_ENDPOINT}, found '[ff02::1]:65536'"),
        (("233.49.196.111:26477", "[233.49.196.111]:1"), f"lines[1]: {_ENDPOINT}, found"),
        (
            ('"233.49.196.111:26477"', '{ address = "233.49.196.111:x" }'),
            f"lines[1].address: {_ENDPOINT}, found '233.49.196.111:x'",
        ),
        (('"233.49.196.111:26477"', "{ port = 1 }"), "lines[1].address: required"),
        (('"233.49.196.111:26477"', "7"), "lines[1]: expected a table, found 7"),
        (
            ('"233.49.196.111:26477"', '{ address = "127.0.0.1:7", interface = "lo" }'),
            "lines[1].interface: expected none for 127.0.0.1:7, which is no group, found 'lo'",
        ),
        (
            ('"233.49.196.111:26477"', '{ address = "233.1.1.1:7", source_address = "host" }'),
            "lines[1].source_address: expected an IPv4 or IPv6 address in numbers, found 'host'",
        ),
        (
            ('"233.49.196.111:26477"', '{ address = "233.1.1.1:7", source_address = "::1" }'),
            "lines[1].source_address: expected the group's kind of address, found '::1'",
        ),
        (
            ('26477"]', '26477"]\nsource_address = "::1"'),
            "source_address: expected the kind of address of lines[0], or one in each line's own table, "
            "found '::1'",
        ),
        (("233.49.196.111", "233.54.12.111"), "lines[1]: expected each line once, but lines[0] is the same"),
        (('["233.54.12.111:26477", "233.49.196.111:26477"]', "[]"), "lines: expected at least one, found []"),
        (('lines = ["233.54.12.111:26477", "233.49.196.111:26477"]', ""), "lines: required"),
    ],
)
def test_lines_that_cannot_be(change: tuple[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(MULTICAST.replace(*change))
    assert f"pipeline.toml: feeds[0].multicast.{expected}" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('interface = "an_interface_name"', "interface: expected at most 15 characters, found"),
        ('interface = "eth 1"', "interface: expected the name of a network interface"),
        ('rerequest = "10.1.2.3"', f"rerequest: {_ENDPOINT}, found '10.1.2.3'"),
        ('rerequest = "venue.example:1"', f"rerequest: {_ENDPOINT}, found 'venue.example:1'"),
        (
            'rerequest = "233.1.1.1:7"',
            "rerequest: expected the address of one server, not of a multicast group, found '233.1.1.1:7'",
        ),
        ('glimpse = "venue.example"', 'glimpse: expected host:port, like "glimpse.example:18000", found'),
        ('glimpse = "venue.example:0"', "glimpse: expected host:port"),
        ('glimpse = "::1:18000"', "glimpse: expected host:port"),
        ('glimpse = "[venue]:18000"', "glimpse: expected host:port"),
        ('glimpse = "tcp://venue:18000"', "glimpse: expected host:port"),
        ("glimpse = 18000", 'glimpse: expected host:port, like "glimpse.example:18000", found 18000'),
        ("receive_buffer_bytes = -1", "receive_buffer_bytes: expected at least 0, found -1"),
        ("batch = 0", "batch: expected at least 1, found 0"),
        ("batch = 1025", "batch: expected at most 1024, found 1025"),
        ("max_datagram_bytes = 63", "max_datagram_bytes: expected at least 64, found 63"),
        ("max_datagram_bytes = 65488", "max_datagram_bytes: expected at most 65487, found 65488"),
        ("busy_poll_us = -1", "busy_poll_us: expected at least 0, found -1"),
        ("busy_poll_budget = 65536", "busy_poll_budget: expected at most 65535, found 65536"),
        ("prefer_busy_poll = 1", "prefer_busy_poll: expected true or false, found 1"),
        ("nic_stamps = 1", "nic_stamps: expected true or false, found 1"),
        ('reorder_window = "2"', "reorder_window: expected a duration"),
        ('reorder_window = "61m"', "reorder_window: expected at most an hour, found '61m'"),
        ("window_datagrams = 0", "window_datagrams: expected at least 1, found 0"),
        ("request_attempts = 0", "request_attempts: expected at least 1, found 0"),
        ('request_timeout = "0s"', "request_timeout: expected more than zero, an hour at most, found '0s'"),
        ('request_interval = "2h"', "request_interval: expected at most an hour, found '2h'"),
        ("request_messages = 65535", "request_messages: expected at most 65534, found 65535"),
        ("request_messages = 0", "request_messages: expected at least 1, found 0"),
        ('glimpse_session = "other"', 'glimpse_session: expected one of "same", "any"'),
        ('glimpse_retry = "0s"', "glimpse_retry: expected more than zero"),
        ('glimpse_timeout = "0s"', "glimpse_timeout: expected more than zero"),
        ("btach = 3", "btach: unknown key; nearest known key: batch"),
    ],
)
def test_multicast_says_what_is_wrong(line: str, expected: str) -> None:
    others = [server for server in _SERVERS if server.split()[0] != line.split()[0]]
    with pytest.raises(ConfigError) as caught:
        multicast(*others, line)
    assert str(caught.value).startswith(f"pipeline.toml: feeds[0].multicast.{expected}")


@pytest.mark.parametrize(
    ("line", "server"),
    [
        ("request_attempts = 1", "rerequest"),
        ('request_timeout = "1s"', "rerequest"),
        ('request_interval = "1s"', "rerequest"),
        ("request_messages = 9", "rerequest"),
        ('credentials = "login"', "glimpse"),
        ('glimpse_session = "any"', "glimpse"),
        ('glimpse_retry = "2s"', "glimpse"),
        ('glimpse_timeout = "2s"', "glimpse"),
    ],
)
def test_what_is_about_a_server_needs_it(line: str, server: str) -> None:
    with pytest.raises(
        ConfigError, match=f"multicast.{line.split()[0]}: expected none without {server}, found"
    ):
        multicast(line)


@pytest.mark.parametrize(
    "line",
    [
        'password = "sesame"',
        'username = "sesame"',
        'passwrd = "sesame"',
        'glimpse = "me:sesame@venue.example:1"',
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(line: str) -> None:
    with pytest.raises(ConfigError, match=f"feeds.0..multicast.{line.split()[0]}: ") as caught:
        multicast(line)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("feed", "expected"),
    [
        ('source = "multicast"', 'feeds[0].source: expected "websocket" or "file" for binance_spot'),
        ("multicast = { lines = ['233.1.1.1:7'] }", "feeds[0].multicast: expected none for binance_spot"),
        ("multicast = 'a'", "feeds[0].multicast: expected a table, found 'a'"),
    ],
)
def test_multicast_is_for_venues_that_have_it(feed: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(FEED + feed + FEATURES)
    assert str(caught.value).startswith(f"pipeline.toml: {expected}")


SPOT: dict[str, Any] = {"venue": "binance_spot", "instruments": ["BTCUSDT"]}


def tables(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "feeds": [Feed(**SPOT)],
        "features": Features(rows=["spread()"]),
    }
    return {**made, **changes}


def test_a_configuration_made_in_python_is_one_read_from_a_file() -> None:
    made = Config(**tables())
    assert made.feed_names == ["binance_spot"]
    assert list(made.plan.names) == ["spread()"]
    assert made.trigger == "book"
    inputs = {"binance_spot": ["capture.log"]}
    again = Config.from_text(made.text)
    assert resolve(made, replay=True, inputs=inputs) == resolve(again, replay=True, inputs=inputs)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"feeds": []}, "feeds: expected at least one, found []"),
        (
            {"feeds": [Feed(**SPOT)] * 2},
            "feeds[1].instruments[0]: expected each instrument of binance_spot once",
        ),
        ({"features": Features(rows=["spread()", "spread()"])}, "features.rows[1]: expected each expression"),
        ({"features": Features(rows=["sprad()"])}, "features.rows[0]: unknown kernel 'sprad'"),
        (
            {"feeds": [Feed.model_construct(venue="binance_spot", instruments=["BTCUSDT"], max_levels=-3)]},
            "feeds[0].max_levels: expected at least 8, found -3",
        ),
        (
            {"sinks": [JsonlTable.model_construct(type="jsonl", path="out", queue=0)]},
            "sinks[0].queue: expected at least 1, found 0",
        ),
        ({"sinks": [JsonlTable.model_construct(type="jsonl", queue=2)]}, "sinks[0].path: required"),
        ({"sinks": [Engine()]}, "sinks[0]: expected a table"),
        ({"models": [Model(path="m.onnx", shadow=True)]}, "models[0].shadow: expected at least one model"),
        ({"self": 1}, "self: unknown key, found 1"),
    ],
)
def test_a_configuration_made_in_python_is_checked_as_a_file_is(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config(**tables(**changes))
    assert str(error.value).startswith(says)
    with pytest.raises(ConfigError) as error:
        Config(**tables()).model_copy(update=changes)
    assert str(error.value).startswith(says)
    ways: tuple[Callable[[], Config], ...] = (
        lambda: Config.from_dict(tables(**changes)),
        lambda: Config.model_validate(tables(**changes)),
        lambda: Config(**tables()).copy(update=changes),
    )
    for make in ways:
        with pytest.raises(ConfigError) as again:
            make()
        assert str(again.value) == str(error.value)


@pytest.mark.parametrize(
    ("table", "keys", "says"),
    [
        (Feed, {**SPOT, "venue": "nyse"}, 'venue: expected one of "binance_spot"'),
        (Feed, {"instruments": ["BTCUSDT"]}, "venue: required"),
        (Features, {"rows": []}, "rows: expected at least one, found []"),
        (
            Features,
            {"rows": ["spread()"], "evry": "1s"},
            "evry: unknown key, found '1s'; nearest known key: every",
        ),
        (JsonlTable, {"type": "jsonl", "path": "", "queue": 2}, "path: expected a text that is not empty"),
        (Model, {"path": "m.onnx", "workers": 0}, "workers: expected at least 1, found 0"),
        (Engine, {"layout": "thread"}, 'layout: expected one of "inline", "threads", "processes"'),
    ],
)
def test_a_table_made_in_python_is_refused_as_a_file_is(
    table: type[Table], keys: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as error:
        table(**keys)
    assert str(error.value).startswith(says), error.value


@pytest.mark.parametrize(
    ("table", "good", "changes", "says"),
    [
        (Feed, SPOT, {"core": -1}, "core: expected at least 0, found -1"),
        (Feed, SPOT, {"max_levels": 8}, "max_levels: expected at least snapshot_limit = 5000, found 8"),
        (
            Engine,
            {"idle": "spin"},
            {"layout": "thread"},
            'layout: expected one of "inline", "threads", "processes"',
        ),
        (Memory, {}, {"lock": "of"}, 'lock: expected one of "auto", "require", "off"'),
        (Record, {}, {"fsync_interval": "2s"}, "fsync_interval: expected 100ms to 1s, found '2s'"),
        (Features, {"rows": ["spread()"]}, {"every": "0s"}, "every: expected more than zero, found '0s'"),
        (
            Model,
            {"path": "m.onnx"},
            {"path": []},
            "path: expected the name of a file, or a list of 1 to 16 of them",
        ),
        (Model, {"path": ["m.onnx"]}, {"path": ["a", ""]}, "path: expected the name of a file, or a list"),
        (Multicast, {"lines": ["239.0.0.1:1"]}, {"lines": ["239.0.0.1"]}, "lines[0]: expected address:port"),
        (
            MulticastLine,
            {"address": "239.0.0.1:1"},
            {"source_address": "::1"},
            "source_address: expected the group",
        ),
        (JsonlTable, {"type": "jsonl", "path": "-"}, {"queue": 0}, "queue: expected at least 1, found 0"),
        (
            WebSocketTable,
            {"type": "websocket"},
            {"port": 1 << 16},
            "port: expected at most 65535, found 65536",
        ),
    ],
)
def test_every_table_is_checked_however_it_is_made(
    table: type[Table], good: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    made = table.model_validate(good)
    assert table.model_validate(made) == made == table(**good) == table.model_validate_json(json.dumps(good))
    bad = {**good, **changes}
    ways: tuple[Callable[[], Table], ...] = (
        lambda: table(**bad),
        lambda: table.model_validate(bad),
        lambda: table.model_validate(table.model_construct(**bad)),
        lambda: table.model_validate_json(json.dumps(bad)),
        lambda: made.model_copy(update=changes),
        lambda: made.copy(update=changes),
    )
    for make in ways:
        with pytest.raises(ConfigError) as error:
            make()
        assert str(error.value).startswith(says)
    with pytest.raises(ConfigError, match=f"^{table.__name__}: expected a table, found 3$"):
        table.model_validate(3)
    with pytest.raises(ConfigError, match=f"^{table.__name__}: expected a "):
        table.model_validate_strings(3)
    with pytest.raises(ConfigError, match=f"^{table.__name__}: invalid JSON"):
        table.model_validate_json("{")
    with pytest.raises(ConfigError, match=f"^{table.__name__}: invalid JSON"):
        table.model_validate_json("[" * 200_000)


def test_a_table_stays_as_it_was_checked() -> None:
    feed = Feed(**SPOT)
    with pytest.raises(
        ConfigError, match=r"^core: expected to stay as it was checked, found -3; make a copy"
    ):
        feed.core = -3
    with pytest.raises(ConfigError, match=r"^core: expected to stay as it was checked; make a copy"):
        del feed.core
    with pytest.raises(ConfigError, match=r"^url: expected to stay"):
        setattr(feed, "url", "ws://nowhere")  # noqa: B010
    assert feed == Feed(**SPOT)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    config = Config.from_toml(file)
    assert config.features == Config.from_text(MINIMAL).features
    assert Config.from_text("\ufeff" + MINIMAL).feed_names == config.feed_names
    for form in ("utf-16", "utf-16-le"):
        file.write_bytes(codecs.BOM_UTF16_LE * (form == "utf-16-le") + MINIMAL.encode(form))
        with pytest.raises(ConfigError, match="expected UTF-8 text, found UTF-16; convert it: iconv"):
            Config.from_toml(file)


def test_a_changed_copy_is_checked_and_keeps_its_place(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text(MINIMAL)
    config = Config.from_toml(tmp_path / "pipeline.toml")
    copy = config.model_copy(update={"features": {"rows": ["spread()", "microprice_offset()"]}})
    assert list(copy.plan.names) == ["spread()", "microprice_offset()"]
    assert list(config.plan.names) == ["imbalance(levels=5)", "spread()"]
    assert (copy.base, copy.where) == (tmp_path, config.where)
    assert Config.from_text(copy.text).features == copy.features
    assert config.model_copy() == config
    with pytest.raises(ConfigError, match=rf"^{config.where}: features.rows: required"):
        config.model_copy(update={"features": {}})

    feed = config.feeds[0]
    assert feed.model_copy(update={"snapshot_limit": 100}).snapshot_limit == 100
    for update, says in (
        ({"snapshot_limit": -1}, "snapshot_limit: expected at least 1, found -1"),
        ({"max_levels": 16}, "max_levels: expected at least snapshot_limit = 1000"),
        ({"snapshot_limmit": 5}, "snapshot_limmit: unknown key, found 5; nearest known key: snapshot_limit"),
    ):
        with pytest.raises(ConfigError) as error:
            feed.model_copy(update=update)
        assert str(error.value).startswith(says)


@pytest.mark.parametrize(
    ("venue", "symbol", "expected"),
    [
        ("binance_spot", "ETH/USDT", "expected the venue's own symbol, as 'ETHUSDT'"),
        ("binance_spot", "eth-usdt", "expected the venue's own symbol, as 'ETHUSDT'"),
        ("binance_spot", "ETH USDT", "expected the venue's own symbol, as 'ETHUSDT'"),
        ("binance_spot", "BINANCE:ETHUSDT", "expected the venue's own symbol, as 'ETHUSDT'"),
        ("binance_spot", "ethusdt@depth", "expected the venue's own symbol, as 'ETHUSDT'"),
        ("binance_spot", "///", "expected the venue's own symbol, as 'BTCUSDT'"),
        ("binance_usdm", "BTC/USDT:USDT", "expected the venue's own symbol, as 'BTCUSDT'"),
        ("binance_usdm", "BTC/USDT:USDT-240927", "expected the venue's own symbol, as 'BTCUSDT_240927'"),
        ("binance_usdm", "BTC-PERP", "expected the venue's own symbol, as 'BTCUSDT'"),
        ("binance_coinm", "BTC/USD:BTC", "expected the venue's own symbol, as 'BTCUSD_PERP'"),
        ("binance_coinm", "BTC-PERP", "expected the venue's own symbol, as 'BTCUSD_PERP'"),
        ("binance_coinm", "BTC/USD:BTC-240927", "expected the venue's own symbol, as 'BTCUSD_240927'"),
        ("binance_usdm", "btcusdt", "expected the venue's upper-case symbol, as 'BTCUSDT'"),
        ("nasdaq_itch", "BRK/A", "expected the venue's own symbol, as 'BRK.A'"),
        ("nasdaq_itch", "BRK A", "expected the venue's own symbol, as 'BRK.A'"),
        ("nasdaq_itch", "aapl", "expected the venue's upper-case symbol, as 'AAPL'"),
        ("nasdaq_itch", "ABCDEFGHI", "expected at most the venue's eight characters"),
        ("nasdaq_itch", "AÄPL", "expected the venue's own symbol, as 'APL'"),
        ("binance_spot", "", "expected a text that is not empty"),
    ],
)
def test_symbol_in_another_form(venue: str, symbol: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        one_feed(venue, [symbol])
    where = "feeds[0].instruments[0]" + (".symbol" if not symbol else "")
    assert str(caught.value) == f"{where}: {expected}" + (f", found {symbol!r}" if symbol else "")


@pytest.mark.parametrize(
    ("venue", "symbols"),
    [
        ("nasdaq_itch", ["AAPL", "BRK.A", "ABC=", "ABC#", "ABC+", "ABC^A", "ABC-B", "ZVZZT", "A"]),
        ("binance_spot", ["BTCUSDT", "1000SATSUSDT", "币安人生USDT"]),
        ("binance_usdm", ["BTCUSDT_240927", "1000PEPEUSDT"]),
        ("binance_coinm", ["BTCUSD_PERP", "BTCUSD_240927"]),
    ],
)
def test_symbols_that_venues_have(venue: str, symbols: list[str]) -> None:
    config = one_feed(venue, symbols)
    assert [instrument.symbol for instrument in config.feeds[0].instruments] == symbols


@pytest.mark.parametrize("name", [".", "..", "a/b", "a b", "ä"])
def test_name_that_no_folder_can_have(name: str) -> None:
    with pytest.raises(ConfigError, match=r"feeds\[0\]\.name: expected (a name that|letters, digits)"):
        one_feed(feed={"name": name})


def _keys(model: type[Table], path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every key of every table that a configuration may have."""
    for name, field in model.model_fields.items():
        yield (*path, name)
        inner = table_of(model, name)
        if inner is not None:
            yield from _keys(inner, (*path, name, *([0] if "list[" in repr(field.annotation) else [])))


def test_every_wrong_value_is_answered_in_words() -> None:
    # No pattern, and no sentence of the library that checks types.
    whole: dict[str, Any] = {
        "feeds": [{"venue": "binance_spot", "instruments": [{"symbol": "BTCUSDT"}]}],
        "features": {"rows": ["spread()"]},
    }
    itch: dict[str, Any] = {
        "feeds": [
            {
                "venue": "nasdaq_itch",
                "instruments": ["AAPL"],
                "multicast": {"lines": [{"address": "233.54.12.111:26477"}]},
            }
        ],
        "features": {"rows": ["spread()"]},
    }
    wrong = [True, -1, 1.5, float("nan"), 10**30, "", "x y/", "\x00", [], [1], ["x y"], {}, {"x": 1}, None]
    keys = [(path, itch if "multicast" in path else whole) for path in _keys(Config)]
    for kind in SINKS:
        of_sink = {**whole, "sinks": [{"type": kind}]}
        keys += [(path, of_sink) for path in _keys(table_of_sink(kind), ("sinks", 0))]
    assert len(keys) > 80
    answers: dict[str, str] = {}
    for (path, tables_of_it), value in itertools.product(keys, wrong):
        data: dict[str, Any] = copy.deepcopy(tables_of_it)
        place: Any = data
        for part, following in itertools.pairwise(path):
            if not isinstance(place, list) and part not in place:
                place[part] = [{}] if following == 0 else {}
            place = place[part]
        place[path[-1]] = value
        try:
            Config.from_dict(data)
        except ConfigError as error:
            answers[f"{path} = {value!r}"] = str(error).replace(repr(value), "")
    assert len(answers) > 500
    of_others = ("nput should", "pattern", "[^", "alid ", "class ")
    assert {case: text for case, text in answers.items() if any(part in text for part in of_others)} == {}


def test_how_a_recording_comes_to_the_disk() -> None:
    def resolved(text: str) -> dict[str, Any]:
        feed = '[[feeds]]\nvenue = "binance_spot"\ninstruments = ["A"]\n'
        config = Config.from_text(f'{feed}[features]\nrows = ["spread()"]\n{text}')
        value: dict[str, Any] = resolve(config)["record"]
        return value

    assert resolved("") == {"fsync": "interval", "fsync_interval_ns": 1_000_000_000}
    quarter = resolved('[record]\nfsync = "interval"\nfsync_interval = "250ms"\n')
    assert quarter == {"fsync": "interval", "fsync_interval_ns": 250_000_000}
    assert resolved('[record]\nfsync = "never"\n')["fsync"] == "never"
    with pytest.raises(ConfigError, match=r"record\.fsync: expected one of"):
        resolved('[record]\nfsync = "always"\n')
    with pytest.raises(ConfigError, match=r"record\.fsync_interval: expected 100ms to 1s, found '1m'"):
        resolved('[record]\nfsync_interval = "1m"\n')


def test_few_levels_of_a_snapshot_are_warned_of() -> None:
    five = FEATURES.replace("spread()", "imbalance(levels=5)")
    (line,) = load(FEED + "snapshot_limit = 20" + five).warnings()
    assert line == (
        "feeds[0].snapshot_limit: features.rows look at 5 levels and a snapshot shows 20: another one is "
        "needed each time the market moves by 15 levels or so; ten times as many levels are usual"
    )
    (line,) = load(FEED + "snapshot_limit = 5" + five).warnings()
    assert "at every move of the best price: no row is valid between" in line
    assert load(FEED + "snapshot_limit = 50" + five).warnings() == []
    assert (
        load(FEED + "snapshot_limit = 1" + FEATURES.replace("spread()", "trade_count('1s')")).warnings() == []
    )


def test_a_key_of_any_length_and_form_is_named_on_a_line() -> None:
    long, broken = "li" * 2000, "a\nb"
    data = {"feeds": [{"venue": "binance_spot", "instruments": ["BTCUSDT"], long: 1}], broken: {long: 2}}
    with pytest.raises(ConfigError) as refused:
        Config.from_dict(data, where="w")
    lines = str(refused.value).splitlines()
    assert any(line.startswith(f"w: feeds[0].{long[:77]}...: unknown key, found 1") for line in lines)
    assert any(line.startswith("w: a b: unknown key, found {") for line in lines)
    assert all(line.startswith("w: ") and len(line) < 500 for line in lines)
