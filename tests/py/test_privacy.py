"""Nothing of ours reports on this host: no look-up, no file and no thread of ONNX Runtime's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from needs import ROOT, compiled

from tickwire.config import Config
from tickwire.models import make_demo_model

pytestmark = compiled
STRACE = shutil.which("strace")
CONFIG = """
[engine]
layout = "{layout}"
[[feeds]]
venue = "binance_spot"
instruments = ["BTCUSDT"]
source = "file"
[features]
rows = ["spread()"]
[model]
path = "m.onnx"
"""
# Each opens the library in its own way, and stays for a while.
LOADS = {
    "a model of ours": "from tickwire import models; model = models.load(['m.onnx'])",
    "its providers": "from tickwire import models; models.providers()",
    "the runtime's own format": (
        "from tickwire import models\n"
        "models.optimize('m.onnx', 'm.ort', format='ort'); models.inspect('m.ort')"
    ),
    "an engine": "engine = core.Engine(config('threads'))",
    "worker processes": "engine = core.Engine(config('processes')); engine.start()",
}
PROGRAM = """
import json, os, time
from pathlib import Path
from tickwire import _core as core, models
from tickwire.config import Config
from tickwire.launch import resolve
def config(layout):
    settings = Config.from_toml(layout + '.toml')
    return resolve(settings, replay=True, inputs={'binance_spot': ['capture.log']})
def threads():
    names = [Path(f'/proc/self/task/{task}/comm').read_text() for task in os.listdir('/proc/self/task')]
    return sum(not name.startswith('tw-') for name in names)
before = threads()
%s
time.sleep(1.0)
print(json.dumps(threads() - before))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a model and configurations, and a home that is empty."""
    for layout in ("threads", "processes"):
        (tmp_path / f"{layout}.toml").write_text(CONFIG.format(layout=layout))
    config = Config.from_toml(tmp_path / "threads.toml")
    make_demo_model(tmp_path / "m.onnx", config.schema())
    (tmp_path / "capture.log").write_text("")
    (tmp_path / "home").mkdir()
    return tmp_path


def run(place: Path, load: str, *before: str) -> int:
    """Threads that came by loading the library, our own aside, with the variable as a user may have it."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "ORT_"))}
    home = place / "home"
    env |= {"HOME": str(home), "ORT_DISABLE_TELEMETRY": "0", "PYTHONPATH": str(ROOT / "py")}
    done = subprocess.run(
        [*before, sys.executable, "-c", PROGRAM % load],
        cwd=place,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS.keys())
def test_no_file_no_thread_and_no_look_up_of_the_runtime_s_own(place: Path, load: str) -> None:
    trace = place / "trace"
    tracer: list[str] = []
    if STRACE is not None:
        tracer = [STRACE, "-f", "-qq", "-e", "trace=socket,connect,sendto", "-o", str(trace)]
        if subprocess.run([*tracer, "true"], capture_output=True, check=False).returncode != 0:
            tracer = []  # No tracing in here; the files and threads tell as much.
    more = run(place, load, *tracer)
    assert list((place / "home").rglob("*")) == []
    # The one that starts worker processes is ours and has no name.
    assert more == ("processes" in load)
    if tracer:
        lines = [line for line in trace.read_text().splitlines() if "AF_UNIX" not in line]
        assert [line for line in lines if "AF_" in line or "connect(" in line] == []


def test_without_it_the_test_would_see_it(place: Path) -> None:
    """The library as it comes, where it does report: else the test above proves nothing about it."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "ORT_"))}
    program = (
        "import onnxruntime, time\n"
        "s = onnxruntime.InferenceSession('m.onnx', providers=['CPUExecutionProvider'])\n"
        "time.sleep(1)"
    )
    subprocess.run(
        [sys.executable, "-c", program], cwd=place, env={**env, "HOME": str(place / "home")}, check=True
    )
    if not list((place / "home").rglob("*")):
        pytest.skip("this release of the library reports nothing")
