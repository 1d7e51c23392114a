"""The page: the result first, then every figure and table with its caption, all in one file."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from docutils.core import publish_parts
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from taskgrid.analysis.summary import summarise
from taskgrid.plots.frames import REFERENCE_METHODS
from taskgrid.plots.style import PNG_DPI
from taskgrid.plugins.resources import resource_path
from taskgrid.plugins.storage import Tower
from taskgrid.report.headline import headline, sentences
from taskgrid.report.sheets import MOST, Sheet, sheet
from taskgrid.results import read_frame
from taskgrid.store.atomic import write_text
from taskgrid.tracking.target import LOCAL, RUNS

FRONT = ("methods", "lambda_curve", "subset_size", "cross_evaluation")
"""Figures that may stand under the result: the first three that were drawn."""

SUMMARY = "tables/summary.csv"

_SHOWN_DPI = 126
"""Pixels of CSS for an inch of a figure: letters of print as large as those of the page."""
_PARSING = {"file_insertion_enabled": False, "raw_enabled": False, "_disable_config": True}


@dataclass(frozen=True)
class Picture:
    """A figure on the page; ``pdf`` is where it lies beside the page, ``width`` in pixels of CSS."""

    title: str
    category: str
    caption: Markup
    source: str
    width: int
    pdf: str


@dataclass(frozen=True)
class Listed:
    """A table on the page; ``file`` is where it lies beside the page."""

    title: str
    caption: Markup
    file: str
    sheet: Sheet


def page(
    settings: Mapping[str, Any],
    grid: pd.DataFrame,
    selected: pd.DataFrame,
    figures: Sequence[str | Path],
    tables: Sequence[str | Path],
) -> str:
    """Return the report as HTML; it loads nothing, and equal results give equal bytes.

    Args:
        settings: what the rule passes on: ``tasks`` and ``towers`` as for the summary, what to say of
            ``figures`` and ``tables``, ``tracking``, the registry's address where it is not a local file.
        grid: the grid's rows.
        selected: the chosen points.
        figures: a PNG file for each of the settings' figures.
        tables: a file for each of the settings' tables; those without a row are left out.

    Raises:
        ArtifactError: if a file is missing or damaged.
        DataError: if the base or an expert was not measured on test.
    """
    tasks = settings["tasks"]
    towers = {model: Tower(*size) for model, size in settings["towers"].items()}
    summary = summarise(grid, selected, tasks, towers=towers)
    knowing = grid[grid["transductive"].astype(bool)]
    seen = set(zip(knowing["method"], knowing["options"], strict=True))
    result = headline(summary, tasks, seen)
    pictures = {
        card["name"]: _picture(card, Path(file))
        for card, file in zip(settings["figures"], figures, strict=True)
    }
    front = [name for name in FRONT if name in pictures][:3]
    others = [picture for name, picture in pictures.items() if name not in front]
    # In its file the summary is rounded, and rounded again it may differ from the chosen points.
    listed = [
        Listed(
            card["title"],
            _html(card["caption"]),
            card["file"],
            sheet(summary if card["file"] == SUMMARY else read_frame(file), tasks),
        )
        for card, file in zip(settings["tables"], tables, strict=True)
    ]
    return _template().render(
        tasks=tasks,
        facts=facts(grid, tasks),
        sentences=list(sentences(summary, tasks)),
        result=result,
        transductive=bool(seen),
        edges=any(cell.beside == "edge" for row in result.rows for cell in row.cells),
        front=[pictures[name] for name in front],
        categories={
            category: [one for one in others if one.category == category]
            for category in dict.fromkeys(one.category for one in others)
        },
        tables=[one for one in listed if one.sheet.total],
        reading=_html(resource_path("report/workflow.rst").read_text(encoding="utf-8")),
        tracking=settings["tracking"],
        local=LOCAL,
        runs=RUNS,
        most=MOST,
    )


def write_page(
    path: str | Path,
    settings: Mapping[str, Any],
    grid: str | Path,
    selected: str | Path,
    figures: Sequence[str | Path],
    tables: Sequence[str | Path],
) -> None:
    """Read what ``page`` needs and write it.

    Raises:
        ArtifactError: if a file is missing or damaged, or the page cannot be written.
        DataError: if the base or an expert was not measured on test.
    """
    write_text(path, page(settings, read_frame(grid), read_frame(selected), figures, tables))


def facts(grid: pd.DataFrame, tasks: Sequence[str]) -> str:
    """Return in a line what was measured."""
    merges = grid[~grid["method"].isin(REFERENCE_METHODS)]
    counts = (
        (len(tasks), "task", "tasks"),
        (merges["subset"].nunique(), "subset", "subsets"),
        (merges["point"].nunique(), "coefficient", "coefficients"),
        (len(merges[["method", "options"]].drop_duplicates()), "method", "methods"),
        (len(merges[["model", "mode", "seed"]].drop_duplicates()), "set", "sets"),
    )
    words = [f"{count:,} {one if count == 1 else many}" for count, one, many in counts]
    return " · ".join([*words[:-1], f"{words[-1]} of experts"])


def _picture(card: Mapping[str, str], file: Path) -> Picture:
    content = file.read_bytes()
    (pixels,) = struct.unpack(">I", content[16:20])  # a PNG's header
    return Picture(
        title=card["title"],
        category=card["category"],
        caption=_html(card["caption"]),
        source=f"data:image/png;base64,{base64.b64encode(content).decode()}",
        width=round(pixels * _SHOWN_DPI / PNG_DPI),
        pdf=f"figures/{file.with_suffix('.pdf').name}",
    )


def _html(text: str) -> Markup:
    """Return reStructuredText as HTML."""
    parts = publish_parts(text, writer="html5", settings_overrides=_PARSING)
    return Markup(parts["body"])


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(resource_path("report")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("page.html.jinja")
