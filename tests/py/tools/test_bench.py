"""The benchmarks' own parts that need no measured run: what they configure is accepted, and their sums."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from needs import ROOT, compiled

pytestmark = compiled

BENCH = ROOT / "tools" / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module(request.param)


@pytest.mark.parametrize("bench", ["replay"], indirect=True)
def test_every_case_of_the_replay_tables_is_a_configuration(bench: ModuleType, tmp_path: Path) -> None:
    for cases in bench.TABLES.values():
        for case in cases:
            config = bench.config_of(case, tmp_path)
            assert len(config.plan.outputs) == len(case.rows)
            assert len(config.feeds[0].instruments) == case.instruments
            launch = importlib.import_module("tickwire.launch")
            capture = tmp_path / "capture.log"
            launch.resolve(config, replay=True, inputs={config.feed_names[0]: [capture]})


@pytest.mark.parametrize("bench", ["setting"], indirect=True)
@pytest.mark.parametrize("market", ["spot", "usdm"])
@pytest.mark.parametrize("layout", ["inline", "threads"])
def test_the_comparison_configures_each_design(
    bench: ModuleType, market: str, layout: str, tmp_path: Path
) -> None:
    from tickwire import Config

    options = {"ws_url": "ws://127.0.0.1:1/ws", "rest_url": "http://127.0.0.1:1/depth", "cores": ()}
    data = bench.pipeline_config(market=market, layout=layout, idle="backoff", **options)
    assert list(Config.from_dict(data, base=tmp_path).features.rows) == bench.ROWS


@pytest.mark.parametrize("bench", ["compare"], indirect=True)
def test_a_goal_is_met_at_both_percentiles_or_missed_by_a_factor(bench: ModuleType) -> None:
    def ratios(p50: float, p99: float) -> dict[str, dict[str, float]]:
        return {"p50": {"ratio": p50}, "p99": {"ratio": p99}, "p99.9": {"ratio": 0.1}}

    designs = dict(zip(bench.OURS, (ratios(30, 45), ratios(15, 30), ratios(10, 3)), strict=True))
    first, second, third = bench.OURS
    assert bench.verdicts(designs, 30) == [
        f"{first} met",
        f"{second} missed at p50 by 2.0x",
        f"{third} missed at p50 by 3.0x and p99 by 10.0x",
    ]


@pytest.mark.parametrize("bench", ["exchange"], indirect=True)
def test_a_part_of_a_day_ends_with_a_whole_message(bench: ModuleType) -> None:
    day = b"".join(len(m).to_bytes(2, "big") + m for m in (b"S" * 12, b"D" * 19, b"A" * 36))
    assert [bench.whole_messages(day, n) for n in (0, 1, 2, 3, 4)] == [0, 14, 35, 73, 73]
    assert bench.whole_messages(day[:-1], 3) == 35


@pytest.mark.parametrize("bench", ["exchange"], indirect=True)
def test_the_rates_of_each_stage_are_read(bench: ModuleType) -> None:
    printed = """decode                          97.87 M messages/s    10.2 ns each
decode + book                   12.55 M messages/s    79.7 ns each, 2964804 changes, 806144 live orders
memory: 56.9 bytes for each order there is room for
decode + book + 16 features      0.97 M messages/s  1030.7 ns each, 34604418 rows of 1000 of 8000 instruments
"""
    found = bench.rates(printed)
    assert found == {"decode": 97.87, "decode + book": 12.55, "decode + book + 16 features": 0.97}
    assert {work for work, _ in bench.PEERS.values()} <= set(found)
