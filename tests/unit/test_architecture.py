"""The house as its code is: read from the imports, those inside functions and for types included.

What is not mended yet stands in the constants from ``UPWARDS`` to ``LONG``. An entry that is no
longer needed fails the test, so that the lists can only shrink.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "taskgrid"
LONGEST = 400

FLOORS: Mapping[str, tuple[str, ...]] = {
    "voices": ("errors", "sentences"),
    "ground": ("plugins", "lattice", "machine", "provenance", "store", "remote"),
    "1": ("config", "data", "models", "results"),
    "2": ("statistics", "finetuning", "experts", "pretraining", "vectors"),
    "3": ("studies", "alignment", "merging", "outofcore"),
    "4": ("evaluation",),
    "5": ("analysis",),
    "roof": ("plots", "report", "tracking", "explorer", "workflow", "notebook"),
}
"""Rooms and root modules, from the bottom up. A room may import from its own floor and those below."""

_PLAN_AND_ENGINE = ("taskgrid.evaluation.plan", "taskgrid.evaluation.engine")
"""What a plain grid is measured by; all else of ``evaluation`` lies over it."""

UPWARDS: frozenset[tuple[str, str]] = frozenset()
CIRCLES: frozenset[frozenset[str]] = frozenset()
ROOMS_IN_CIRCLES: frozenset[frozenset[str]] = frozenset()
PLAIN: frozenset[tuple[str, str]] = frozenset()
LONG: frozenset[str] = frozenset()


@cache
def modules() -> Mapping[str, Path]:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> Mapping[str, frozenset[str]]:
    """Return the modules of the library that each imports, wherever in its text."""
    return {
        name: frozenset(_imported(ast.parse(path.read_text(encoding="utf-8")), modules()))
        for name, path in modules().items()
    }


def _imported(tree: ast.Module, known: Iterable[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "an import names its module in full"
            for alias in node.names:
                # "from package import module" names a module as often as it names an attribute.
                module = f"{node.module}.{alias.name}"
                yield from (name for name in (module, node.module) if name in known)


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def floor(module: str) -> int:
    places = [place for place, rooms in enumerate(FLOORS.values()) if room(module) in rooms]
    assert places, f"{module} is in no room of FLOORS"
    return places[0]


def circles(graph: Mapping[str, Iterable[str]]) -> frozenset[frozenset[str]]:
    """Return the circles of a graph, one after the other, as if each found one were mended."""
    edges = {name: set(found) - {name} for name, found in graph.items()}
    found = set()
    while True:
        try:
            TopologicalSorter(edges).prepare()
        except CycleError as error:
            cycle = error.args[1]
            found.add(frozenset(cycle))
            edges[cycle[1]].discard(cycle[0])
        else:
            return frozenset(found)


def test_the_graph_is_read_whole() -> None:
    # Else the tests below would pass for want of imports.
    assert "taskgrid.errors" in imports()["taskgrid.store.atomic"]
    assert sum(map(len, imports().values())) > 500
    inside = "def f():\n    from taskgrid.store import atomic\nif T:\n    import taskgrid.errors"
    assert set(_imported(ast.parse(inside), modules())) == {
        "taskgrid.store.atomic",
        "taskgrid.store",
        "taskgrid.errors",
    }
    assert circles({"a": ["b"], "b": ["c"], "c": ["a", "d"], "d": []}) == {frozenset("abc")}


def test_nothing_imports_upwards() -> None:
    found = {
        (name, other)
        for name, others in imports().items()
        for other in others
        if "." in name and "." in other and floor(other) > floor(name)
    }
    assert found == UPWARDS


def test_modules_import_in_no_circle() -> None:
    assert circles(imports()) == CIRCLES


def test_rooms_import_in_no_circle() -> None:
    rooms: dict[str, set[str]] = {}
    for name, others in imports().items():
        rooms.setdefault(room(name), set()).update(map(room, others))
    assert circles({name: others - {""} for name, others in rooms.items() if name}) == (
        ROOMS_IN_CIRCLES
    )


def test_a_plain_grid_is_read_without_curves_budgets_precision_and_tangents() -> None:
    found = {
        (name, other)
        for name, others in imports().items()
        for other in others
        if name.startswith(_PLAN_AND_ENGINE)
        and other.startswith("taskgrid.evaluation.")
        and not other.startswith(_PLAN_AND_ENGINE)
    }
    assert found == PLAIN


def test_no_file_is_long() -> None:
    files = [
        path for folder in ("src", "scripts", "tools") for path in (ROOT / folder).rglob("*.py")
    ]
    files += (ROOT / "rules").glob("*.smk")
    assert len(files) > 200
    long = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST
    }
    assert long == LONG
