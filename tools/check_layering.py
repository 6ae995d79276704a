#!/usr/bin/env python3
"""Compare the include graph of cpp/ with the layers that CMakeLists.txt declares, and the import graph of
py/tickwire with the order in pyproject.toml.

    tools/check_layering.py [ROOT]

The arrows between layers are written down once, in the DEPENDS lists of tickwire_add_layer(). The
compiler is no judge of them: a header reached through somebody else's dependency compiles just as
well. So this reads both sides and refuses

  * an include of a layer that is not named in the including layer's own DEPENDS,
  * dependencies between layers, or includes between files, that form a cycle,
  * an include that does not read "tickwire/<layer>/<file>.hpp", or names a file that is not there,
  * pybind11 or Python.h outside cpp/bindings,
  * ONNX Runtime's headers outside cpp/tickwire/infer/onnxruntime,
  * memory_order outside cpp/tickwire/concurrent.

The order of Python's modules is the list `layers` of [tool.tickwire]: each entry is a module or a package
and may import those before it. Imports inside functions count as all others do. So do those for
types alone, but that these make no circle. Refused are

  * an import of an entry that comes later, or of a module that is not there, or by a relative name,
  * imports between files that form a cycle,
  * a file that is in no entry, and an entry that no file is in,
  * an import, by another than `only` allows, of an entry that it names.

What is heavy and not always needed is loaded inside the function that needs it, or by a name in a table
(`sinks/registry.py`, `tickwire/__init__.py`).

Prints one line a finding, path and line first, and exits 1 if there is any. Standard library only.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SUFFIXES = {".hpp", ".cpp"}
ADD_LAYER = re.compile(r"^\s*tickwire_add_layer\s*\(([^)]*)\)", re.MULTILINE)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.MULTILINE)
# Comments and literals, in one expression so that neither is found inside the other. The look-behind
# keeps the digit separator of 1'000 from opening a literal.
COMMENT_OR_LITERAL = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<tag>[^(\s]*)\(.*?\)(?P=tag)"|"(?:\\.|[^"\\\n])*"|(?<!\w)\'(?:\\.|[^\'\\\n])+\'',
    re.DOTALL,
)


class Finding(NamedTuple):
    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


class Include(NamedTuple):
    line: int
    quoted: bool
    name: str


def blank(text: str, *, literals: bool) -> str:
    """`text` with comments, and if asked literals, replaced by blanks: lines keep their numbers."""

    def replace(match: re.Match[str]) -> str:
        found = match.group()
        if not literals and not found.startswith(("//", "/*")):
            return found
        return re.sub(r"[^\n]", " ", found)

    return COMMENT_OR_LITERAL.sub(replace, text)


def line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def read_layers(cmake: Path) -> dict[str, list[str]]:
    """The declared direct dependencies of every layer, in the order of declaration."""
    text = re.sub(r"#[^\n]*", "", cmake.read_text(encoding="utf-8"))
    layers: dict[str, list[str]] = {}
    for match in ADD_LAYER.finditer(text):
        name, *words = match.group(1).split()
        depends: list[str] = []
        keyword = ""
        for word in words:
            if word in {"DEPENDS", "LIBRARIES"}:
                keyword = word
            elif keyword == "DEPENDS":
                depends.append(word)
        layers[name] = depends
    return layers


def read_includes(text: str) -> list[Include]:
    code = blank(text, literals=False)
    return [
        Include(line_of(code, match.start()), match.group(1) == '"', match.group(2))
        for match in INCLUDE.finditer(code)
    ]


def find_cycle(graph: dict[str, list[str]]) -> list[str] | None:
    """A cycle as the list of its nodes, first node repeated at the end, or None."""
    done: set[str] = set()
    for start in graph:
        path: list[str] = []
        pending: list[tuple[str, Iterator[str]]] = []
        if start not in done:
            path.append(start)
            pending.append((start, iter(graph[start])))
        while pending:
            node, rest = pending[-1]
            following = next(rest, None)
            if following is None:
                pending.pop()
                path.pop()
                done.add(node)
            elif following in path:
                return [*path[path.index(following) :], following]
            elif following in graph and following not in done:
                path.append(following)
                pending.append((following, iter(graph[following])))
    return None


def check_include(
    include: Include, inside: Path, layer: str | None, layers: dict[str, list[str]], root: Path
) -> str | None:
    """What is wrong with one include of the file `inside` (relative to cpp/), or None."""
    name = include.name
    if name.startswith("tickwire/"):
        parts = name.split("/")
        if len(parts) < 3 or not name.endswith(".hpp"):
            return f'expected "tickwire/<layer>/<file>.hpp", found {name}'
        if not (root / "cpp" / name).is_file():
            return f"no such file: cpp/{name}"
        target = parts[1]
        if target not in layers:
            return f"no layer {target} in CMakeLists.txt"
        if layer is not None and target != layer and target not in layers[layer]:
            allowed = ", ".join(layers[layer]) or "nothing"
            return f"{layer} includes {name}, but depends on {allowed}"
        return None
    if name.startswith("pybind11/") or name == "Python.h":
        return f"{name} outside cpp/bindings" if layer is not None else None
    if name.split("/")[-1].startswith("onnxruntime_"):
        home = inside.parts[1:3] == ("infer", "onnxruntime")
        return None if home else f"{name} outside cpp/tickwire/infer/onnxruntime"
    # Bindings are a folder of their own, with headers beside their .cpp files.
    if include.quoted and layer is not None:
        return f'expected "tickwire/<layer>/<file>.hpp" or <...>, found "{name}"'
    return None


def check(root: Path) -> tuple[list[Finding], int]:
    """The findings in the tree at `root`, and the number of files read."""
    cmake = Path("CMakeLists.txt")
    layers = read_layers(root / cmake)
    findings: list[Finding] = []
    if not layers:
        findings.append(Finding(cmake, 1, "declares no layer with tickwire_add_layer()"))
    for name, depends in layers.items():
        findings.extend(
            Finding(cmake, 1, f"{name} depends on {other}, which is no layer")
            for other in depends
            if other not in layers
        )
    if cycle := find_cycle(layers):
        findings.append(Finding(cmake, 1, "layers depend on each other: " + " -> ".join(cycle)))

    files = sorted(path for path in (root / "cpp").rglob("*") if path.suffix in SUFFIXES)
    graph: dict[str, list[str]] = {}
    for path in files:
        inside = path.relative_to(root / "cpp")
        relative = path.relative_to(root)
        text = path.read_text(encoding="utf-8")
        layer: str | None = None
        if inside.parts[0] == "tickwire":
            layer = inside.parts[1]
            if len(inside.parts) < 3 or layer not in layers:
                findings.append(Finding(relative, 1, "lies in no layer of CMakeLists.txt"))
                continue
        elif inside.parts[0] != "bindings":
            findings.append(Finding(relative, 1, "expected below cpp/tickwire or cpp/bindings"))
            continue
        includes = read_includes(text)
        graph[inside.as_posix()] = [include.name for include in includes]
        for include in includes:
            if wrong := check_include(include, inside, layer, layers, root):
                findings.append(Finding(relative, include.line, wrong))
        if layer != "concurrent":
            code = blank(text, literals=True)
            findings.extend(
                Finding(
                    relative, line_of(code, match.start()), "memory_order outside cpp/tickwire/concurrent"
                )
                for match in re.finditer(r"\bmemory_order", code)
            )
    if cycle := find_cycle(graph):
        findings.append(Finding(Path("cpp") / cycle[0], 1, "files include each other: " + " -> ".join(cycle)))
    return findings, len(files)


class Import(NamedTuple):
    line: int
    name: str
    for_types: bool


def read_imports(text: str, modules: set[str]) -> list[Import]:
    """The modules of ours that a file names: `from tickwire.a import b` is of a.b where that is a module."""
    found: list[Import] = []

    def visit(node: ast.AST, for_types: bool) -> None:
        for child in ast.iter_child_nodes(node):
            names: list[str] = []
            line = 0
            if isinstance(child, ast.ImportFrom | ast.Import):
                line = child.lineno
            if isinstance(child, ast.ImportFrom):
                base = "." * child.level + (child.module or "")
                joined = [f"{base}.{alias.name}" for alias in child.names]
                names = [name if name in modules or base == "tickwire" else base for name in joined]
            elif isinstance(child, ast.Import):
                names = [alias.name for alias in child.names]
            found.extend(
                Import(line, name, for_types)
                for name in dict.fromkeys(names)
                if name.startswith((".", "tickwire."))
            )
            test = child.test if isinstance(child, ast.If) else None
            typed = isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"
            visit(child, for_types or typed)

    visit(ast.parse(text), False)
    return found


def check_python(root: Path) -> tuple[list[Finding], int]:
    """Findings, and the number of Python files looked at."""
    folder = root / "py" / "tickwire"
    files = sorted(folder.rglob("*.py"))
    if not files:
        return [], 0
    project = Path("pyproject.toml")
    settings = tomllib.loads((root / project).read_text(encoding="utf-8"))["tool"]["tickwire"]
    order: dict[str, int] = {name: at for at, name in enumerate(settings["layers"])}
    only: dict[str, list[str]] = settings.get("only", {})
    names = {
        file: ".".join(file.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__")
        for file in files
    }
    modules = {*names.values(), "tickwire._core"}
    entries = {name.split(".")[1] for name in modules if "." in name}
    findings = [
        Finding(project, 1, f"layers: {name} is no module of py/tickwire")
        for name in order
        if name not in entries
    ]
    graph: dict[str, list[str]] = {}
    for file, name in names.items():
        relative = file.relative_to(root)
        if name == "tickwire":  # Loads all others by name, when they are asked for.
            continue
        entry = name.split(".")[1]
        if entry not in order:
            findings.append(Finding(relative, 1, f"{entry} is in no entry of layers in pyproject.toml"))
            continue
        targets = graph[name] = []
        for found in read_imports(file.read_text(encoding="utf-8"), modules):
            target = found.name.split(".")[1] if "." in found.name else ""
            wrong = ""
            if found.name.startswith("."):
                wrong = f"expected a name that begins with tickwire, found {found.name}"
            elif found.name not in modules:
                wrong = f"no such module: {found.name}; name the one that has it"
            elif target == "_core":
                if entry != "core" and not found.for_types:
                    wrong = "tickwire._core outside core.py"
            elif order.get(target, -1) > order[entry]:
                wrong = f"{entry} imports {found.name}, which comes after it"
            elif entry not in only.get(target, [entry]) and entry != target:
                wrong = f"{entry} imports {found.name}, which is for {', '.join(only[target])} alone"
            if wrong:
                findings.append(Finding(relative, found.line, wrong))
            elif target != "_core" and not found.for_types:
                targets.append(found.name)
    if cycle := find_cycle({name: [each for each in graph[name] if each in graph] for name in graph}):
        findings.append(Finding(Path("py") / "tickwire", 1, "files import each other: " + " -> ".join(cycle)))
    return findings, len(files)


def main(arguments: list[str]) -> int:
    if len(arguments) > 1 or (arguments and arguments[0].startswith("-")):
        print(__doc__, file=sys.stderr)
        return 2
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    findings, count = check(root)
    of_python, python_count = check_python(root)
    findings += of_python
    for finding in findings:
        print(finding)
    if count == 0:
        print(f"{root / 'cpp'}: no source file found")
        return 1
    print(f"check_layering: {count + python_count} files, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
