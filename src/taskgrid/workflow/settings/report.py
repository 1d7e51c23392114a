"""The report: which figures and tables it shows, and what it says of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from taskgrid.config import Experiment
from taskgrid.plugins.cards import figure_card, study_card
from taskgrid.plugins.resources import resource_path
from taskgrid.provenance.digests import canonical_json, digest_file
from taskgrid.tracking.target import shown_uri
from taskgrid.workflow import paths
from taskgrid.workflow.runs import lattices, proven_runs, tangent_runs
from taskgrid.workflow.settings import figures
from taskgrid.workflow.settings.tables import summary

_FOLDER = "results/"
_SHIPPED = ("page.html.jinja", "page.css", "page.js", "workflow.rst")


def page(experiment: Experiment) -> str:
    """Return the settings of the report."""
    cards = {name: figure_card(name) for name in figures.names(experiment)}
    uri = experiment.config.tracking.uri or ""
    return canonical_json(
        {
            **summary(experiment),
            "figures": [
                {
                    "name": name,
                    "title": card.title,
                    "category": card.category,
                    "caption": card.caption,
                }
                for name, card in cards.items()
            ],
            "tables": list(_listed(experiment)),
            "tracking": shown_uri(uri) if uri.startswith(("http://", "https://")) else None,
            "shipped": {name: digest_file(resource_path(f"report/{name}")) for name in _SHIPPED},
        }
    )


def pictures(experiment: Experiment) -> list[str]:
    """Return the files of its figures, in the order of the settings'."""
    return [
        paths.FIGURE.format(figure=figure, suffix="png") for figure in figures.names(experiment)
    ]


def tables(experiment: Experiment) -> list[str]:
    """Return the files of its tables, in the order of the settings'."""
    return [_FOLDER + card["file"] for card in _listed(experiment)]


def _listed(experiment: Experiment) -> Iterator[dict[str, Any]]:
    """Yield its tables: the grid, times, and what only figures can show are left out."""
    shown = {
        "summary.csv": ("Summary", True),
        "selected.parquet": ("Chosen points", True),
        "pairs.csv": ("What a partner does", True),
        "published.csv": ("Beside published numbers", bool(experiment.config.published)),
        "continuous.parquet": ("Exact best λ", bool(tangent_runs(experiment))),
        "lattice.csv": ("Errors of predicted merges", bool(lattices(experiment))),
        "precision.csv": ("Precision against float32", bool(proven_runs(experiment))),
    }
    for file, (title, there) in shown.items():
        if there:
            words = resource_path(f"report/tables/{file.partition('.')[0]}.rst")
            caption = words.read_text(encoding="utf-8")
            yield {"file": f"tables/{file}", "title": title, "caption": caption}
    for label in experiment.studies:
        card = study_card(experiment.study(label).name)
        for name, table in card.tables.items():
            path = paths.STUDY_TABLE.format(study=label, table=name)
            yield {
                "file": path.removeprefix(_FOLDER),
                "title": f"{card.title}: {name}",
                "caption": f"A row is {table.row}.",
            }
