"""No command writes over what it reads, whatever that is called, and it says so before it opens anything."""

from __future__ import annotations

import errno
import gzip
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from configuring import one_feed
from fake_core import STAGES, make_rows, row_dtype
from needs import ROOT

from tickwire import models, outputs
from tickwire.cli import main
from tickwire.errors import ConfigError, Error
from tickwire.records import RowLayout
from tickwire.table import ParquetWriter

PIPELINE = """
[[feeds]]
venue = "binance_spot"
instruments = ["BTCUSDT"]
[features]
rows = ["spread()"]
"""
CAPTURE = b'1700000000000000000 {"stream":"btcusdt@trade","data":{}}\n'


def _itself(file: Path) -> Path:
    return file


def _by_another_path(file: Path) -> Path:
    (file.parent / "side").mkdir()
    return file.parent / "side" / ".." / file.name


def _by_a_symlink(file: Path) -> Path:
    link = file.parent / f"link{file.suffix}"
    link.symlink_to(file)
    return link


def _by_a_symlinked_folder(file: Path) -> Path:
    (file.parent / "elsewhere").symlink_to(file.parent)
    return file.parent / "elsewhere" / file.name


def _by_a_hard_link(file: Path) -> Path:
    link = file.parent / f"hard{file.suffix}"
    os.link(file, link)
    return link


NAMES = [_itself, _by_another_path, _by_a_symlink, _by_a_symlinked_folder, _by_a_hard_link]
Name = Callable[[Path], Path]


class Command:
    """The command line in this very process: most of a process of its own would be its start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capfd = monkeypatch, capfd

    def refused(self, *arguments: str | Path, keeps: dict[Path, bytes]) -> str:
        """What it says; each file holds what it held."""
        self._monkeypatch.setattr(sys, "argv", ["tickwire", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = " ".join(self._capfd.readouterr().err.split())
        assert ended.value.code == 2, said
        assert {file: file.read_bytes() for file in keeps} == keeps
        return said


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capfd)


def written(file: Path, content: bytes | str) -> Path:
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_a_file_is_that_file(tmp_path: Path, name: Name) -> None:
    file = tmp_path / "capture.csv"
    file.write_bytes(CAPTURE)
    with pytest.raises(ConfigError, match=r"--out: expected a file of its own, found .* an input"):
        outputs.refuse_over("--out", name(file), [("the configuration", tmp_path / "no"), ("an input", file)])
    (tmp_path / "copy.csv").write_bytes(CAPTURE)
    outputs.refuse_over("--out", tmp_path / "copy.csv", [("an input", file)])  # The same bytes, not the file.
    outputs.refuse_over("--out", os.devnull, [("an input", os.devnull)])


def test_a_file_that_is_not_there_is_known_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to(tmp_path)
    with pytest.raises(ConfigError):
        outputs.refuse_over("--out", tmp_path / "here" / "new", [("an input", tmp_path / "new")])
    outputs.refuse_over("--out", tmp_path / "new", [("an input", tmp_path / "other")])


@pytest.mark.parametrize("name", NAMES)
def test_replay_keeps_its_capture(tmp_path: Path, name: Name, command: Command) -> None:
    packed = gzip.compress(CAPTURE)
    capture, config = written(tmp_path / "c.csv", packed), written(tmp_path / "pipeline.toml", PIPELINE)
    said = command.refused(
        "replay", config, "--input", capture, "--out", name(capture), keeps={capture: packed}
    )
    assert "an input" in said


def test_replay_keeps_its_configuration(tmp_path: Path, command: Command) -> None:
    capture, config = written(tmp_path / "c.log", CAPTURE), written(tmp_path / "pipeline.csv", PIPELINE)
    keeps = {capture: CAPTURE, config: PIPELINE.encode()}
    said = command.refused("replay", config, "--input", capture, "--out", config, keeps=keeps)
    assert "the configuration" in said


@pytest.mark.parametrize("name", NAMES)
def test_a_sink_keeps_what_a_run_reads(tmp_path: Path, name: Name, command: Command) -> None:
    capture = written(tmp_path / "c.log", CAPTURE)
    sink = f'[[sinks]]\ntype = "jsonl"\npath = "{name(capture)}"\n'
    config = written(tmp_path / "pipeline.toml", PIPELINE + sink)
    said = command.refused("run", config, "--warm", capture, keeps={capture: CAPTURE})
    assert "sinks[0].path" in said
    assert "an input" in said


@pytest.mark.parametrize("name", NAMES)
def test_model_commands_keep_their_model(tmp_path: Path, name: Name, command: Command) -> None:
    model, config = written(tmp_path / "m.onnx", b"any"), written(tmp_path / "pipeline.toml", PIPELINE)
    keeps = {model: b"any", config: PIPELINE.encode()}
    out = name(model)
    for line in (("bind", model, "--config", config), ("optimize", model)):
        assert "the model" in command.refused("model", *line, "--out", out, keeps=keeps)
    said = command.refused("model", "bind", model, "--config", config, "--out", config, keeps=keeps)
    assert "the configuration" in said


@pytest.mark.parametrize("name", NAMES)
def test_the_simulator_keeps_its_capture(tmp_path: Path, name: Name, command: Command) -> None:
    capture = written(tmp_path / "c.log", CAPTURE)
    out = name(capture)
    for item in (str(capture), f"spot={capture}"):
        said = command.refused("sim", "--capture", item, "--record", out, keeps={capture: CAPTURE})
        assert "a capture" in said


@pytest.mark.parametrize("name", NAMES)
def test_jitter_keeps_its_configuration(tmp_path: Path, name: Name, command: Command) -> None:
    config = written(tmp_path / "pipeline.toml", PIPELINE)
    keeps = {config: PIPELINE.encode()}
    assert "--config" in command.refused(
        "jitter", "--config", config, "--stat-file", name(config), keeps=keeps
    )


def test_a_recording_goes_into_no_other(tmp_path: Path, command: Command) -> None:
    config, run = written(tmp_path / "pipeline.toml", PIPELINE), tmp_path / "run"
    (run / "rows").mkdir(parents=True)
    manifest = written(run / "run.json", "{}")
    said = command.refused("run", config, "--record", run / "rows" / "new", keeps={manifest: b"{}"})
    assert "lies in the recorded run" in said
    assert not (run / "rows" / "new").exists()


def test_tune_keeps_its_environment_file(tmp_path: Path, command: Command) -> None:
    state = tmp_path / "state"
    state.mkdir()
    journal = written(state / "journal", "CORES=1\n")
    env = tmp_path / "host.env"
    env.symlink_to(journal)
    said = command.refused("tune", "apply", "--env", env, "--state", state, keeps={journal: b"CORES=1\n"})
    assert "is a file of the journal" in said


def test_the_lobster_tool_keeps_its_zip(tmp_path: Path) -> None:
    file = tmp_path / "day.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x", "y")
    was = file.read_bytes()
    tool = ROOT / "tools" / "lobster_to_itch.py"
    done = subprocess.run([sys.executable, tool, file, file], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "expected a file of its own" in done.stderr
    assert file.read_bytes() == was


def test_a_disk_that_fills_while_parquet_is_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    layout = RowLayout(
        row_dtype(1, 0),
        stages=STAGES,
        states=("valid",),
        reasons=("none",),
        instruments=[("BTCUSDT", "f")],
        features=["a"],
    )
    writer = ParquetWriter(tmp_path / "o.parquet", layout)

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "[Errno 28] Error writing bytes to file")

    monkeypatch.setattr(writer, "_writer", SimpleNamespace(write_table=full, close=lambda: None))
    writer.write(make_rows(3, 1))
    with pytest.raises(Error, match=r"o\.parquet: cannot be written: No space left on device"):
        writer.close()


def test_a_model_is_bound_through_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "there.onnx", tmp_path / "link.onnx"
    link.symlink_to(target)
    settings = one_feed(feed={"source": "file"})
    models.make_demo_model(link, settings.schema())
    assert link.is_symlink()
    assert onnx.load(target).graph.input
