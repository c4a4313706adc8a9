"""How the house is built: who may import whom, no circles, and library notebooks that show what they explain."""
import ast
from functools import cache
from pathlib import Path

import nbformat
import outputs
import pytest
from conftest import ROOT

PACKAGES = ("nbs_lib", "virtual_room", "model_server")
PROGRAMS = ("virtual_room", "model_server")
OUTER = ("nbs_lib.tools", "nbs_lib.experiments")
MAX_CELL_LINES = 20


def module_name(path: Path) -> str:
    "The name a file is imported by."
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def source_files() -> dict[str, Path]:
    "{module name: file} of the three packages; nbdev's index of names is no code of ours."
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {module_name(path): path for path in files if path.name != "_modidx.py"}


def imported_names(node: ast.stmt, module: str, is_package: bool) -> list[str]:
    "What an import statement names, relative imports made absolute: `from .a import b` names a and a.b."
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        keep = module.split(".")[:None if is_package and node.level == 1 else -(node.level - is_package)]
        base = ".".join([*keep, *base.split(".")]).rstrip(".")
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]


def module_level(tree: ast.AST) -> list[ast.stmt]:
    "The statements that run when a module is imported: not those inside of functions."
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        found.append(node)
        found += module_level(node)
    return found


@cache
def imports(module: str, everywhere: bool) -> frozenset[str]:
    "The modules of our packages that a module imports, at its own level or everywhere in it."
    files = source_files()
    path = files[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else module_level(tree)
    names = [name for node in nodes for name in imported_names(node, module, path.name == "__init__.py")]
    return frozenset(name for name in names if name in files and name != module)


def find_circle(graph: dict[str, frozenset[str]]) -> list[str]:
    "Modules that import each other in a circle; empty where there are none."
    done = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module):], module]
        if module in done:
            return []
        circles = (visit(other, [*path, module]) for other in sorted(graph[module]))
        circle = next(filter(None, circles), [])
        done.add(module)
        return circle

    return next(filter(None, (visit(module, []) for module in sorted(graph))), [])


def is_inside(module: str, packages: tuple[str, ...]) -> bool:
    "Does a module belong to one of these packages?"
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def test_the_reader_of_imports_reads_them():
    "The tests below would pass as well if nothing was found."
    statement = ast.parse("from .labels import LabelSet").body[0]
    assert imported_names(statement, "nbs_lib.masks", False) == ["nbs_lib.labels", "nbs_lib.labels.LabelSet"]
    statement = ast.parse("from ..core import SegError").body[0]
    assert imported_names(statement, "nbs_lib.tools.fix", False) == ["nbs_lib.core", "nbs_lib.core.SegError"]
    assert "nbs_lib.labels" in imports("nbs_lib.masks", False)
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


CORE = [name for name in source_files() if is_inside(name, ("nbs_lib",)) and not is_inside(name, OUTER)]


@pytest.mark.parametrize("module", CORE)
def test_the_core_imports_neither_tools_nor_experiments(module):
    "Not inside of functions either: such an import hides the arrow, it does not take it away."
    assert not [name for name in imports(module, True) if is_inside(name, OUTER)]


def test_the_library_knows_neither_program():
    library = [name for name in source_files() if is_inside(name, ("nbs_lib",))]
    wrong = {module: name for module in library for name in imports(module, True) if is_inside(name, PROGRAMS)}
    assert not wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_circles(package):
    modules = [name for name in source_files() if is_inside(name, (package,)) and name != package]
    graph = {name: frozenset(imports(name, False) & set(modules)) for name in modules}
    assert find_circle(graph) == []


NOTEBOOKS = sorted((ROOT / "nbs").rglob("[0-9]*.ipynb"))


def code_cells(path: Path) -> list:
    "The code cells of a notebook."
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def flags(cell) -> set[str]:
    "The words after `#|` in the first lines of a cell."
    lines = [line for line in cell.source.splitlines() if line.startswith("#|")]
    return {line[2:].split()[0] for line in lines}


def test_library_cells_are_short():
    "An exported cell is one function or class of at most about 20 lines; one in twenty may be longer, or a table."
    exported = [cell for path in NOTEBOOKS for cell in code_cells(path) if "export" in flags(cell)]
    long = [cell.source.splitlines()[1] for cell in exported if len(cell.source.splitlines()) > MAX_CELL_LINES]
    assert len(long) <= 0.05 * len(exported), f"{len(long)} of {len(exported)}: {long}"


def test_library_notebooks_show_something():
    "At least half of the cells that are neither exported nor hidden have an output."
    code = [cell for path in NOTEBOOKS for cell in code_cells(path)]
    lessons = [cell for cell in code if not flags(cell) & {"export", "hide", "default_exp"}]
    shown = [cell for cell in lessons if cell.outputs]
    assert len(shown) >= len(lessons) / 2, f"{len(shown)} of {len(lessons)}"


@pytest.mark.outputs
def test_outputs_belong_to_the_code():
    stale = [outputs.name_of(path) for path in outputs.stale_notebooks()]
    assert not stale, "run `make notebooks` and commit"
