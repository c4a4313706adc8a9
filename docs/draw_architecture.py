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
COLLAPSED = ("virtual_room.furniture", "virtual_room.walk")
LONG_ROW = 7  # boxes that fit beside each other
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


def box_of(module: str) -> str:
    "The box a module is drawn in: itself, or its sub-package where there are many small modules of one kind."
    for package in COLLAPSED:
        if module == package or module.startswith(package + "."):
            return package
    return module


def import_graph() -> nx.DiGraph:
    "A graph of boxes, with an edge from each to those it imports from."
    modules = find_modules()
    graph = nx.DiGraph()
    for name, path in modules.items():
        for used in imported_names(path) & modules.keys():
            if used not in PACKAGES and box_of(used) != box_of(name):
                graph.add_edge(box_of(name), box_of(used))
    graph.remove_nodes_from([package for package in PACKAGES if package in graph])
    return graph


def group_of(module: str) -> str:
    "The part of the house a module belongs to."
    parent = module.rpartition(".")[0]
    if parent in COLORS:
        return parent
    return module.partition(".")[0]


def rows_of(graph: nx.DiGraph) -> list[list[str]]:
    "Boxes by height: those that use nothing lie in row 0, every other one above all it uses."
    generations = list(nx.topological_generations(graph.reverse()))
    return [sorted(row, key=lambda module: (list(COLORS).index(group_of(module)), module)) for row in generations]


def place(rows: list[list[str]]) -> dict[str, tuple[float, float]]:
    "Where each box is drawn, (x, y), every row spread over the whole width; in a long one every second box is higher."
    positions = {}
    for y, row in enumerate(rows):
        shift = 0.25 * (-1) ** y / len(row)  # so that arrows do not run through boxes of the next row
        for i, module in enumerate(row):
            lift = 0.35 * (i % 2) if len(row) > LONG_ROW else 0
            positions[module] = ((i + 0.5) / len(row) + shift, y + lift)
    return positions


def short_name(module: str) -> str:
    "What stands in a box: the name without its package."
    return module.removeprefix(group_of(module) + ".")


def draw_package(graph: nx.DiGraph, package: str, axes: plt.Axes) -> None:
    "Draw the modules of one package and what they use of it."
    own = graph.subgraph([module for module in graph if module.startswith(package + ".")])
    shown = nx.transitive_reduction(own)
    positions = place(rows_of(own))
    nx.draw_networkx_edges(shown, positions, ax=axes, edge_color="#888888", arrowsize=10, node_size=1100, width=0.9)
    for module, (x, y) in positions.items():
        box = {"boxstyle": "round,pad=0.35", "facecolor": COLORS[group_of(module)], "edgecolor": "#555555"}
        axes.text(x, y, short_name(module), ha="center", va="center", fontsize=9, bbox=box)
    axes.set_title(package, loc="left", fontweight="bold")
    axes.margins(0.08)
    axes.set_axis_off()


def draw(graph: nx.DiGraph, path: Path) -> None:
    "Write the picture: one package beside the other."
    _, panels = plt.subplots(1, 3, figsize=(32, 11), width_ratios=(1.35, 1, 1.15))
    for package, axes in zip(PACKAGES, panels):
        draw_package(graph, package, axes)
    parts = [part for part in COLORS if part.startswith("nbs_lib")]
    handles = [plt.Line2D([], [], marker="s", linestyle="", markersize=12, color=COLORS[p], label=p) for p in parts]
    panels[0].legend(handles=handles, loc="upper left", frameon=False)
    plt.savefig(path, dpi=65, bbox_inches="tight")


if __name__ == "__main__":
    draw(import_graph(), ROOT / "docs" / "architecture.png")
