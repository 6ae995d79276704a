"""tools/check_layering.py: each rule refuses a small tree that breaks it, and only that one."""

import subprocess
import sys
from pathlib import Path

import pytest
from needs import ROOT

TOOL = ROOT / "tools" / "check_layering.py"

CMAKE = """
function(tickwire_add_layer name)
endfunction()
tickwire_add_layer(core)
# tickwire_add_layer(commented DEPENDS nothing)
tickwire_add_layer(concurrent DEPENDS core LIBRARIES Threads::Threads)
tickwire_add_layer(md DEPENDS core
                   LIBRARIES ZLIB::ZLIB)
tickwire_add_layer(feed DEPENDS md concurrent)
tickwire_add_layer(infer DEPENDS core)
"""

GOOD = {
    "CMakeLists.txt": CMAKE,
    "cpp/tickwire/core/types.hpp": "#pragma once\n#include <cstdint>\n",
    "cpp/tickwire/concurrent/cell.hpp": '#include "tickwire/core/types.hpp"\nx.load(memory_order_relaxed);\n',
    "cpp/tickwire/md/book.hpp": '#include "tickwire/core/types.hpp"\n',
    "cpp/tickwire/md/book.cpp": '#include "tickwire/md/book.hpp"\n',
    "cpp/tickwire/feed/source.hpp": '#include "tickwire/md/book.hpp"\n// memory_order stays in concurrent\n',
    "cpp/tickwire/infer/onnxruntime/ort_model.cpp": "#include <onnxruntime_cxx_api.h>\n",
    "cpp/bindings/module.cpp": '#include <pybind11/pybind11.h>\n#include "views.hpp"\n',
    "cpp/bindings/views.hpp": '#include "tickwire/feed/source.hpp"\n',
}


def run(root: Path, files: dict[str, str]) -> tuple[int, list[str]]:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(TOOL), str(root)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    *findings, _summary = done.stdout.splitlines()
    return done.returncode, findings


def test_accepts_a_tree_that_keeps_the_rules(tmp_path: Path) -> None:
    assert run(tmp_path, GOOD) == (0, [])


@pytest.mark.parametrize(
    ("name", "text", "finding"),
    [
        pytest.param(
            "cpp/tickwire/md/late.hpp",
            '#pragma once\n#include "tickwire/feed/source.hpp"\n',
            "cpp/tickwire/md/late.hpp:2: md includes tickwire/feed/source.hpp, but depends on core",
            id="against_the_arrow",
        ),
        pytest.param(
            "cpp/tickwire/feed/reach.hpp",
            "#include <tickwire/core/types.hpp>\n",
            "cpp/tickwire/feed/reach.hpp:1: feed includes tickwire/core/types.hpp, "
            "but depends on md, concurrent",
            id="through_somebody_elses_dependency",
        ),
        pytest.param(
            "cpp/tickwire/infer/market.cpp",
            '/* one\n   two */\n#  include "tickwire/md/book.hpp"\n',
            "cpp/tickwire/infer/market.cpp:3: infer includes tickwire/md/book.hpp, but depends on core",
            id="between_layers_that_do_not_know_each_other",
        ),
        pytest.param(
            "cpp/tickwire/md/python.cpp",
            "#include <pybind11/numpy.h>\n",
            "cpp/tickwire/md/python.cpp:1: pybind11/numpy.h outside cpp/bindings",
            id="pybind11_below_the_bindings",
        ),
        pytest.param(
            "cpp/tickwire/core/python.hpp",
            "#include <Python.h>\n",
            "cpp/tickwire/core/python.hpp:1: Python.h outside cpp/bindings",
            id="python_below_the_bindings",
        ),
        pytest.param(
            "cpp/tickwire/infer/model.hpp",
            "#include <onnxruntime_c_api.h>\n",
            "cpp/tickwire/infer/model.hpp:1: onnxruntime_c_api.h outside cpp/tickwire/infer/onnxruntime",
            id="onnx_runtime_in_the_model_interface",
        ),
        pytest.param(
            "cpp/bindings/scores.cpp",
            "#include <onnxruntime/onnxruntime_cxx_api.h>\n",
            "cpp/bindings/scores.cpp:1: "
            "onnxruntime/onnxruntime_cxx_api.h outside cpp/tickwire/infer/onnxruntime",
            id="onnx_runtime_in_the_bindings",
        ),
        pytest.param(
            "cpp/tickwire/feed/flag.cpp",
            "\nconst char* s = \"memory_order // fine\";\nf.store(1'000, std::memory_order_release, 'x');\n",
            "cpp/tickwire/feed/flag.cpp:3: memory_order outside cpp/tickwire/concurrent",
            id="memory_order_outside_concurrent",
        ),
        pytest.param(
            "cpp/tickwire/md/side.cpp",
            '#include "book.hpp"\n',
            'cpp/tickwire/md/side.cpp:1: expected "tickwire/<layer>/<file>.hpp" or <...>, found "book.hpp"',
            id="include_relative_to_the_folder",
        ),
        pytest.param(
            "cpp/tickwire/md/gone.cpp",
            '#include "tickwire/md/missing.hpp"\n',
            "cpp/tickwire/md/gone.cpp:1: no such file: cpp/tickwire/md/missing.hpp",
            id="header_that_is_not_there",
        ),
        pytest.param(
            "cpp/tickwire/extra/thing.hpp",
            "#pragma once\n",
            "cpp/tickwire/extra/thing.hpp:1: lies in no layer of CMakeLists.txt",
            id="folder_that_is_no_layer",
        ),
        pytest.param(
            "cpp/other/thing.hpp",
            "#pragma once\n",
            "cpp/other/thing.hpp:1: expected below cpp/tickwire or cpp/bindings",
            id="folder_beside_the_layers",
        ),
        pytest.param(
            "CMakeLists.txt",
            CMAKE.replace("add_layer(core)", "add_layer(core DEPENDS infer)"),
            "CMakeLists.txt:1: layers depend on each other: core -> infer -> core",
            id="layers_in_a_circle",
        ),
        pytest.param(
            "CMakeLists.txt",
            CMAKE.replace("DEPENDS md concurrent", "DEPENDS md concurrent books"),
            "CMakeLists.txt:1: feed depends on books, which is no layer",
            id="dependency_that_is_no_layer",
        ),
        pytest.param(
            "cpp/tickwire/core/types.hpp",
            '#include "tickwire/core/types.hpp"\n',
            "cpp/tickwire/core/types.hpp:1: files include each other: "
            "tickwire/core/types.hpp -> tickwire/core/types.hpp",
            id="files_in_a_circle",
        ),
    ],
)
def test_refuses(tmp_path: Path, name: str, text: str, finding: str) -> None:
    assert run(tmp_path, {**GOOD, name: text}) == (1, [finding])


def test_refuses_an_empty_tree(tmp_path: Path) -> None:
    (tmp_path / "cpp").mkdir()
    code, findings = run(tmp_path, {"CMakeLists.txt": CMAKE})
    assert code == 1
    assert findings == []


PYTHON = {
    "pyproject.toml": """
[tool.tickwire]
layers = ["errors", "core", "tables", "sinks", "runs"]
[tool.tickwire.only]
sinks = ["runs"]
""",
    "py/tickwire/__init__.py": "if TYPE_CHECKING:\n    from tickwire.runs import Run\n",
    "py/tickwire/errors.py": "import json\n",
    "py/tickwire/core.py": "from tickwire import _core\nfrom tickwire.errors import Error\n",
    "py/tickwire/tables/__init__.py": "from tickwire.tables.base import Table\n",
    "py/tickwire/tables/base.py": "from tickwire.errors import Error\nimport tickwire.core\n",
    "py/tickwire/sinks/__init__.py": "",
    "py/tickwire/sinks/base.py": "def make():\n    from tickwire import errors, tables\n",
    "py/tickwire/runs.py": "from tickwire.sinks import base\nfrom tickwire.tables import Table\n",
}


def test_accepts_modules_that_keep_their_order(tmp_path: Path) -> None:
    assert run(tmp_path, {**GOOD, **PYTHON}) == (0, [])


@pytest.mark.parametrize(
    ("name", "text", "finding"),
    [
        pytest.param(
            "py/tickwire/tables/late.py",
            "import json\nfrom tickwire.runs import Run\n",
            "py/tickwire/tables/late.py:2: tables imports tickwire.runs, which comes after it",
            id="against_the_order",
        ),
        pytest.param(
            "py/tickwire/core.py",
            "def later():\n    if True:\n        from tickwire import tables\n",
            "py/tickwire/core.py:3: core imports tickwire.tables, which comes after it",
            id="inside_a_function",
        ),
        pytest.param(
            "py/tickwire/core.py",
            "if TYPE_CHECKING:\n    import tickwire.tables.base as base\n",
            "py/tickwire/core.py:2: core imports tickwire.tables.base, which comes after it",
            id="for_types_alone",
        ),
        pytest.param(
            "py/tickwire/sinks/file.py",
            "from .base import Sink\n",
            "py/tickwire/sinks/file.py:1: expected a name that begins with tickwire, found .base",
            id="by_a_relative_name",
        ),
        pytest.param(
            "py/tickwire/runs.py",
            "from tickwire import Run\n",
            "py/tickwire/runs.py:1: no such module: tickwire.Run; name the one that has it",
            id="by_the_package",
        ),
        pytest.param(
            "py/tickwire/tables/base.py",
            "from tickwire._core import Engine\n",
            "py/tickwire/tables/base.py:1: tickwire._core outside core.py",
            id="the_extension_past_its_door",
        ),
        pytest.param(
            "py/tickwire/sinks/base.py",
            "def later():\n    from tickwire.sinks import base\n",
            "py/tickwire:1: files import each other: tickwire.sinks.base -> tickwire.sinks.base",
            id="files_in_a_circle",
        ),
        pytest.param(
            "py/tickwire/extra.py",
            "",
            "py/tickwire/extra.py:1: extra is in no entry of layers in pyproject.toml",
            id="in_no_entry",
        ),
        pytest.param(
            "pyproject.toml",
            PYTHON["pyproject.toml"].replace('"runs"]\n[', '"runs", "gone"]\n['),
            "pyproject.toml:1: layers: gone is no module of py/tickwire",
            id="an_entry_of_nothing",
        ),
        pytest.param(
            "pyproject.toml",
            PYTHON["pyproject.toml"].replace('sinks = ["runs"]', 'tables = ["sinks"]'),
            "py/tickwire/runs.py:2: runs imports tickwire.tables, which is for sinks alone",
            id="of_what_is_for_others_alone",
        ),
    ],
)
def test_refuses_of_python(tmp_path: Path, name: str, text: str, finding: str) -> None:
    code, findings = run(tmp_path, {**GOOD, **PYTHON, name: text})
    assert (code, findings) == (1, [finding])
