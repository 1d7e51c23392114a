"""Figures: one style, one file per figure, drawn from tables alone.

A figure is a module with a constant ``FIGURE = Statement(...)``, written in literals, and a function
``draw(tables) -> Figure``. To add one, write the module and give it a line in `taskgrid.plugins`.

Statements are read from the source without importing it, so that a Snakefile can put titles and
captions into its report and stay free of matplotlib.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from taskgrid import plugins
from taskgrid.errors import ConfigError

TABLES = ("grid", "selected", "cosine", "history", "published")
"""The tables a figure may ask for."""


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What a figure says about itself.

    Attributes:
        title: a few words, for a list of figures.
        category: the part of the report it belongs to.
        tables: the tables it reads, some of ``TABLES``.
        caption: what is seen, how it was chosen and on which split; reStructuredText, one paragraph.
    """

    title: str
    category: str
    tables: tuple[str, ...]
    caption: str


@dataclass(frozen=True, kw_only=True)
class FigureCard(Statement):
    """A figure's statement, under the name it is registered with.

    Attributes:
        name: its name; the stem of its files.
        module: the dotted name of the module that draws it.
    """

    name: str
    module: str


def figure_names() -> tuple[str, ...]:
    """Return the names of all figures, in the order of the report."""
    return plugins.names("figure")


def figure_card(name: str) -> FigureCard:
    """Return what a figure states about itself, without importing its module.

    Raises:
        ConfigError: if there is no such figure, or its statement is not complete.
    """
    module = plugins.module_of("figure", name)
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ConfigError(f"figure {name!r} is registered as {module}, which does not exist")
    stated = _stated(Path(spec.origin).read_text(encoding="utf-8"))
    missing = [key for key in ("title", "category", "tables", "caption") if key not in stated]
    if missing:
        raise ConfigError(f"FIGURE in {module} does not state {' and '.join(missing)} in literals")
    unknown = [table for table in stated["tables"] if table not in TABLES]
    if unknown:
        raise ConfigError(
            f"{module} asks for table {unknown[0]!r}; the tables are {', '.join(TABLES)}"
        )
    caption = " ".join(stated["caption"].split())
    return FigureCard(name=name, module=module, **{**stated, "caption": caption})


def _stated(source: str) -> dict[str, Any]:
    """Return the literal keyword arguments of the call assigned to FIGURE."""
    for node in ast.parse(source).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and ast.unparse(node.targets[0]) == "FIGURE"
        ):
            return {
                keyword.arg: ast.literal_eval(keyword.value)
                for keyword in node.value.keywords
                if keyword.arg is not None
            }
    return {}
