"""Draw which module uses which: docs/architecture.png, from the imports of the code as it stands.

    python docs/draw_architecture.py

Every arrow points from a module to one it uses. An arrow is left out where a longer way says the same, so that the way
of the data can be followed with a finger: from the label table at the bottom to the commands at the top.
"""
import ast
from pathlib import Path

import matplotlib.pyplot as plt
import networkx as nx

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("nbs_lib", "virtual_room", "model_server")
COLORS = {
    "nbs_lib": "#dbe9f6",
    "nbs_lib.tools": "#e2f0d9",
    "nbs_lib.experiments": "#fff2cc",
    "virtual_room": "#fbe5d6",
    "model_server": "#e4dcf1",
}


def module_name(path: Path) -> str:
    "The dotted name of a Python file; a package's name for its __init__.py."
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


def find_modules() -> dict[str, Path]:
    "All modules of the project with code in them, by name."
    modules = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name != "_modidx.py":
                modules[module_name(path)] = path
    return modules


def absolute_name(node: ast.ImportFrom, path: Path) -> str:
    "The module that a `from … import` names, with leading dots resolved."
    if not node.level:
        return node.module or ""
    package = list(path.relative_to(ROOT).parts[:-node.level])
    return ".".join([*package, *filter(None, [node.module])])


def imported_names(path: Path) -> set[str]:
    "Names that a file imports from, and each `module.name` in case the name is a module itself."
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            module = absolute_name(node, path)
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def import_graph() -> nx.DiGraph:
    "A graph with an edge from each module to each module of the project that it imports."
    modules = find_modules()
    graph = nx.DiGraph()
    for name, path in modules.items():
        for used in imported_names(path) & modules.keys():
            if used != name and used not in PACKAGES:
                graph.add_edge(name, used)
    return graph


def group_of(module: str) -> str:
    "The part of the house a module belongs to."
    parent = module.rpartition(".")[0]
    if parent in COLORS:
        return parent
    return module.partition(".")[0]


def rows_of(graph: nx.DiGraph) -> list[list[str]]:
    "Modules by height: those that use nothing lie in row 0, every other one above all it uses."
    generations = list(nx.topological_generations(graph.reverse()))
    return [sorted(row, key=lambda module: (list(COLORS).index(group_of(module)), module)) for row in generations]


def place(rows: list[list[str]]) -> dict[str, tuple[float, float]]:
    "Where each module is drawn, (x, y), every row spread over the whole width."
    positions = {}
    for y, row in enumerate(rows):
        for i, module in enumerate(row):
            positions[module] = ((i + 0.5) / len(row), y)
    return positions


def short_name(module: str) -> str:
    "What stands in a box: the name without its package."
    return module.removeprefix(group_of(module) + ".")


def draw(graph: nx.DiGraph, path: Path) -> None:
    "Write the picture."
    shown = nx.transitive_reduction(graph)
    positions = place(rows_of(graph))
    _, axes = plt.subplots(figsize=(17, 12))
    nx.draw_networkx_edges(shown, positions, ax=axes, edge_color="#999999", arrowsize=9, node_size=900, width=0.8)
    for module, (x, y) in positions.items():
        box = {"boxstyle": "round,pad=0.35", "facecolor": COLORS[group_of(module)], "edgecolor": "#555555"}
        axes.text(x, y, short_name(module), ha="center", va="center", fontsize=9, bbox=box)
    handles = [plt.Line2D([], [], marker="s", linestyle="", markersize=12, color=c, label=g) for g, c in COLORS.items()]
    axes.legend(handles=handles, loc="upper left", frameon=False)
    axes.set_axis_off()
    plt.savefig(path, dpi=70, bbox_inches="tight")


if __name__ == "__main__":
    draw(import_graph(), ROOT / "docs" / "architecture.png")
