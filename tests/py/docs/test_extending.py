"""What docs/extending.md adds: compiled and run, so that the page cannot say what is not so."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from needs import ROOT

from tickwire.core import extension, onnxruntime_library

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")

PROGRAM = """
#include <cstdio>
#include <vector>

#include "tickwire/core/arena.hpp"
#include "tickwire/features/feature_engine.hpp"

using namespace tickwire;

int main() {
  const features::KernelEntry* const kernel = features::find_kernel("best_share");
  if (kernel == nullptr) return 1;
  Arena arena(ArenaConfig{.huge_pages = HugePages::Off, .lock = LockMemory::Off});
  const features::FeaturePlan plan{.nodes = {{kernel, -1, 3, 0, 0, 0, 0}}, .outputs = {0}};
  features::FeatureEngine engine(plan, 0, {1000.0}, arena);
  std::int64_t quantity[6];
  for (TsNs t = 1;; ++t) {
    for (std::int64_t& each : quantity) {
      if (std::scanf("%ld", &each) != 1) return 0;
    }
    const std::vector<md::Level> bids{{100, quantity[0]}, {99, quantity[1]}, {98, quantity[2]}};
    const std::vector<md::Level> asks{{101, quantity[3]}, {102, quantity[4]}, {103, quantity[5]}};
    if (t == 1) engine.start_epoch({bids, asks}, t);
    engine.on_book({bids, asks}, t);
    float row = 0;
    engine.write_row(t, &row);
    std::printf("%.9g\\n", static_cast<double>(row));
  }
}
"""


def blocks(heading: str) -> list[tuple[str, str]]:
    """The code of a section, each piece with the file that was named last before it."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    found, file = [], ""
    for match in re.finditer(
        r"^`(?P<file>[\w/.]+)`$|^```(?:cpp|python)\n(?P<code>.*?)^```$", section, re.M | re.S
    ):
        file = match["file"] or file
        if match["code"]:
            found.append((file, match["code"]))
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What the kernels are made of, to be added to."""
    for layer in ("core", "md", "features"):
        shutil.copytree(ROOT / "cpp" / "tickwire" / layer, tmp_path / "cpp" / "tickwire" / layer)
    return tmp_path


def test_a_kernel(tree: Path) -> None:
    (file, kernel), (listed, include), (_, line), _ = blocks("A kernel")
    (tree / file).write_text(kernel, encoding="utf-8")
    text = (tree / listed).read_text(encoding="utf-8")
    text = text.replace("\nnamespace tickwire", include + "\nnamespace tickwire", 1)
    text = text.replace("constexpr std::array kKernels{\n", "constexpr std::array kKernels{\n" + line, 1)
    (tree / listed).write_text(text, encoding="utf-8")
    (tree / "main.cpp").write_text(PROGRAM, encoding="utf-8")
    core = [tree / "cpp" / "tickwire" / "core" / name for name in ("arena.cpp", "pages.cpp")]
    sources = [tree / "main.cpp", *core, *(tree / "cpp" / "tickwire" / "features").glob("*.cpp")]
    flags = ["-std=c++20", "-O0", "-Wall", "-Wextra", "-Werror", f"-I{tree / 'cpp'}"]
    subprocess.run(["c++", *flags, *sources, "-o", tree / "program"], check=True)

    quantities = np.random.default_rng(5).integers(1, 1000, size=(200, 6))
    given = "\n".join(" ".join(map(str, row)) for row in quantities)
    said = subprocess.run([tree / "program"], input=given, capture_output=True, text=True, check=True).stdout
    expected = (quantities[:, 0] + quantities[:, 3]) / quantities.sum(axis=1)
    np.testing.assert_array_equal(np.array(said.split(), dtype=np.float32), expected.astype(np.float32))


LIVE = """
import asyncio, json, sys
from pathlib import Path
import tickwire
from tickwire.config import Config
from tickwire.pipeline import Pipeline
from tickwire.errors import ConfigError
from tickwire.sim import SyntheticMarket, Venue

assert Path(tickwire.__file__).parent.parent == Path(sys.argv[1]), tickwire.__file__

async def main():
    market = SyntheticMarket("spot", instruments=1, rate=200, seed=7)
    async with asyncio.timeout(60), Venue([market]) as venue:
        feed = {
            "venue": "binance_spot",
            "url": venue.ws_url["spot"],
            "rest_url": venue.rest_url["spot"],
            "instruments": venue.instruments["spot"],
        }
        tables = {"feeds": [feed], "features": {"rows": ["spread()"]}}
        wrong = {"type": "datagram", "prot": 9}
        try:
            Config.from_dict({**tables, "sinks": [wrong]}, where="pipeline.toml")
        except ConfigError as error:
            print(json.dumps(str(error).splitlines()))
        config = Config.from_dict({**tables, "sinks": [{"type": "datagram", "port": int(sys.argv[2])}]})
        assert Config.from_text(config.to_toml()).sinks == config.sinks
        async with Pipeline(config) as pipeline:
            async for signal in pipeline.signals():
                print(json.dumps(signal.as_dict()))
                if signal.row >= 50:
                    break
        print(json.dumps(pipeline.stats().sinks["datagram_0"]))

asyncio.run(main())
"""


def test_a_sink(tmp_path: Path) -> None:
    (file, sink), (listed, line) = blocks("A sink")
    package = tmp_path / "py" / "tickwire"
    shutil.copytree(ROOT / "py" / "tickwire", package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    compiled = Path(extension.__file__)
    (package / compiled.name).symlink_to(compiled)
    (tmp_path / file).write_text(sink, encoding="utf-8")
    text = (tmp_path / listed).read_text(encoding="utf-8")
    assert "SINKS = {\n" in text
    (tmp_path / listed).write_text(text.replace("SINKS = {\n", "SINKS = {\n" + line), encoding="utf-8")

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        # Ours is installed by a finder of its own, which would be asked before the path is.
        begin = (
            f"import sys; sys.path.insert(0, {str(tmp_path / 'py')!r}); sys.meta_path[:] = sys.meta_path[-3:]"
        )
        port = str(listener.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-c", begin + LIVE, str(tmp_path / "py"), port],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        )
        assert done.returncode == 0, done.stderr
        sent = []
        while True:
            try:
                sent.append(json.loads(listener.recv(1 << 16)))
            except BlockingIOError:
                break
    errors, *rows, counts = (json.loads(line) for line in done.stdout.splitlines())
    assert errors == [
        "pipeline.toml: sinks[0].port: required",
        "pipeline.toml: sinks[0].prot: unknown key, found 9; nearest known key: port",
    ]
    assert sent[: len(rows)] == rows
    assert counts["delivered"] == len(sent) >= 50
    assert (counts["dropped"], counts["lost"], counts["errors"]) == (0, 0, 0)


SCORES = """
#include <cstdio>
#include <vector>

#include "tickwire/core/error.hpp"
#include "tickwire/infer/aligned_floats.hpp"
#include "tickwire/infer/loader.hpp"

using namespace tickwire;

// FILE LIBRARY FEATURES BATCH, and rows on standard input.
int main(int, char** arguments) try {
  const std::size_t features = std::stoul(arguments[3]);
  const std::size_t batch = std::stoul(arguments[4]);
  const infer::ModelSource source{
      .members = {{arguments[1], 1.0}}, .library = arguments[2], .provider = "cpu", .cache_dir = ""};
  const auto model = infer::load_model(
      source, {.rows = 1, .features = features, .max_batch = batch});
  std::printf("%s\\n", model->info().executor.c_str());
  for (const std::string& note : model->info().notes) std::printf("note %s\\n", note.c_str());
  model->warm_up(3, infer::kWarmUpMaxNs);
  infer::AlignedFloats input(batch * features);
  const std::size_t handle = model->bind(input.data());
  std::vector<float> scores(batch * model->info().score_names.size());
  for (;;) {
    for (std::size_t i = 0; i < batch * features; ++i) {
      if (std::scanf("%f", input.data() + i) != 1) return 0;
    }
    if (!model->run_batch(handle, batch, scores)) return 1;
    for (const float score : scores) std::printf("%.9g\\n", static_cast<double>(score));
  }
} catch (const SetupError& error) {
  std::printf("%s\\n", error.what());
  return 2;
}
"""


def ort_headers() -> Path:
    for folder in (
        Path("/usr/include"),
        Path("/usr/local/include"),
        ROOT / ".deps" / "onnxruntime" / "include",
    ):
        for found in (
            *folder.glob("onnxruntime_cxx_api.h"),
            *folder.glob("onnxruntime/**/onnxruntime_cxx_api.h"),
        ):
            return found.parent
    pytest.skip("no headers of ONNX Runtime, which the list of executors names, too")


def test_an_executor(tmp_path: Path) -> None:
    (file, entry), (source, code), (listed, include), (_, line) = blocks("An executor")
    tree = tmp_path / "cpp" / "tickwire"
    for layer in ("core", "infer"):
        shutil.copytree(ROOT / "cpp" / "tickwire" / layer, tree / layer)
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(entry, encoding="utf-8")
    (tmp_path / source).write_text(code, encoding="utf-8")
    text = (tmp_path / listed).read_text(encoding="utf-8")
    text = text.replace("\nnamespace tickwire", include + "\nnamespace tickwire", 1)
    text = text.replace("std::array kExecutors{\n", "std::array kExecutors{\n" + line, 1)
    (tmp_path / listed).write_text(text, encoding="utf-8")
    # In one piece, which takes a third of the time.
    sources = [path for path in (tree / "infer").rglob("*.cpp") if path.name != "model_timer.cpp"]
    whole = "".join(f'#include "{path}"\n' for path in sources) + SCORES
    (tmp_path / "main.cpp").write_text(whole, encoding="utf-8")
    flags = [
        "-std=c++20",
        "-O0",
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-I{tmp_path / 'cpp'}",
        f"-isystem{ort_headers()}",
    ]
    subprocess.run(["c++", *flags, tmp_path / "main.cpp", "-ldl", "-o", tmp_path / "program"], check=True)

    def run(path: Path, features: int, batch: int, rows: np.ndarray) -> tuple[int, list[str]]:
        given = "\n".join(" ".join(map(str, row)) for row in rows)
        program, library = str(tmp_path / "program"), str(onnxruntime_library())
        arguments = [program, str(path), library, str(features), str(batch)]
        done = subprocess.run(arguments, input=given, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stdout.splitlines()

    model = tmp_path / "weights"
    weights = [0.5, 0.25, -1.0, 3.0]
    model.write_text("linear\n" + " ".join(map(str, weights)), encoding="utf-8")
    rows = np.random.default_rng(5).normal(size=(60, 3)).astype(np.float32)
    code_, (executor, *said) = run(model, 3, 4, rows)
    assert (code_, executor) == (0, "linear scalar")
    expected = weights[0] + rows.astype(np.float64) @ np.array(weights[1:])
    np.testing.assert_allclose(np.array(said, dtype=np.float64), expected, rtol=1e-5, atol=1e-6)

    assert run(model, 4, 1, rows) == (2, [f"{model}: expected one weight for each of 4 features, found 3"])

    # What it declines is ONNX Runtime's.
    path = ROOT / "tests" / "data" / "models" / "good_mlp.onnx"
    code_, (executor, note, *said) = run(path, 5, 1, rows.reshape(-1, 5))
    assert code_ == 0
    assert executor.startswith("onnxruntime ")
    assert note == "note not run by linear: it does not begin with the word linear"
    alone = extension.Model([str(path)], [], "cpu", "", 1, 1, 5, str(onnxruntime_library()))
    np.testing.assert_array_equal(
        np.array(said, dtype=np.float32), alone.run(rows.reshape(-1, 5)).ravel(), "the same bits as here"
    )
