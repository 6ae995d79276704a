"""Somebody cuts a running engine's statistics file short: it goes on, and says so."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from collecting import Collector
from modelled import configuration, make_model, market
from needs import compiled
from waiting import until

import tickwire.pipeline
from tickwire.pipeline import Pipeline

pytestmark = compiled


@pytest.mark.parametrize("layout", ["threads", "processes"])
@pytest.mark.parametrize("left", [0, 4096])
async def test_a_statistics_file_that_is_cut_short_ends_nothing(
    layout: str, left: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickwire.pipeline, "_WATCH_S", 0.05)
    path = tmp_path / "engine.stat"
    async with market(rate=400) as venue:
        make_model(tmp_path / "m.onnx", configuration(venue, tmp_path), 1)
        config = configuration(
            venue,
            tmp_path,
            layout=layout,
            engine={"layout": layout, "stat_path": "engine.stat"},
            model={"path": "m.onnx"},
        )
        with caplog.at_level(logging.ERROR):
            async with Pipeline(config) as pipeline:
                collector = Collector(pipeline)
                running = pipeline.stats
                await until(lambda: running().rows > 50)
                workers = dict(pipeline.workers)
                assert running().counters["engine/stat_bytes_missing"] == 0
                size = path.stat().st_size
                os.truncate(path, left)
                before = running().rows
                await until(lambda: running().rows > before + 200)
                await until(lambda: running().counters["engine/stat_bytes_missing"] > 0)
                stats = running()
                assert stats.counters["engine/stat_bytes_missing"] == size - left
                # They count on, from nothing where the file lacks.
                assert stats.counters["ingest0/rows"] > 0
                assert pipeline.workers == workers, "nor did a worker end"
    rows = collector.records
    assert len(rows[rows["row"] != 0]) == pipeline.stats().rows
    assert path.stat().st_size == left, "the file is as they left it"
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith(
        f"the statistics file {path} was cut short by somebody, and lacks {size - left} "
    )
