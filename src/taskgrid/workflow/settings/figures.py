"""Figures: which are drawn, from which tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from taskgrid import plugins
from taskgrid.config import Experiment
from taskgrid.errors import ConfigError
from taskgrid.plugins.cards import figure_card, study_card
from taskgrid.provenance.digests import canonical_json
from taskgrid.workflow import paths
from taskgrid.workflow.runs import experts
from taskgrid.workflow.settings import studies


def names(experiment: Experiment) -> tuple[str, ...]:
    """Return the figures of an experiment.

    "all" figures are those whose tables there are: published numbers may not be asked for, and a study
    with tables of its own may not be configured.

    Raises:
        ConfigError: if a figure is named that draws a study which is not configured.
    """
    config = experiment.config
    if config.figures == "all":
        return tuple(
            name
            for name in plugins.names("figure")
            if not _absent(experiment, name)
            and (config.published or "published" not in figure_card(name).tables)
        )
    for name in config.figures:
        for study in _absent(experiment, name):
            raise ConfigError(
                f"figures: {name!r} draws tables of the study {study!r}, which is not configured; add it to "
                "`studies`, or leave the figure out"
            )
    return tuple(config.figures)


def _absent(experiment: Experiment, figure: str) -> list[str]:
    """Return the studies whose tables a figure draws and that are not configured."""
    wanted = [table.partition("/") for table in figure_card(figure).tables]
    return [study for study, own, _ in wanted if own and not studies.labels_of(experiment, study)]


def files(experiment: Experiment) -> list[str]:
    """Return the files of all figures."""
    return [
        paths.FIGURE.format(figure=figure, suffix=suffix)
        for figure in names(experiment)
        for suffix in ("pdf", "png")
    ]


def of_table(experiment: Experiment, table: str) -> list[str]:
    """Return the files of the figures that are drawn from a table."""
    return [
        paths.FIGURE.format(figure=figure, suffix=suffix)
        for figure in names(experiment)
        if table in figure_card(figure).tables
        for suffix in ("pdf", "png")
    ]


def of_study(experiment: Experiment, label: str) -> list[str]:
    """Return what a study comes to: its own tables and figures, or the chosen points where it has none."""
    drawn = set(study_card(experiment.study(label).name).figures) & set(names(experiment))
    figures = [
        paths.FIGURE.format(figure=figure, suffix=suffix)
        for figure in sorted(drawn)
        for suffix in ("pdf", "png")
    ]
    return [*studies.tables(experiment, label), *figures] or [paths.SELECTED]


def sheet(experiment: Experiment) -> str:
    """Return what figures are drawn on: their width, and the order of tasks."""
    config = experiment.config
    return canonical_json(
        {"width": config.figure_width, "tasks": [task.name for task in config.tasks]}
    )


def tables(experiment: Experiment, figure: str) -> list[str]:
    """Return the files that a figure reads."""
    return [
        part["path"] for table in figure_card(figure).tables for part in _parts(experiment, table)
    ]


def listing(experiment: Experiment, figure: str, files: Sequence[str]) -> str:
    """Return the files of each table that a figure reads, with the labels that their rows get.

    Args:
        experiment: the experiment.
        figure: the figure.
        files: what ``tables`` names, where Snakemake has it.
    """
    moved = dict(zip(tables(experiment, figure), files, strict=True))
    return canonical_json(
        {
            table: [{**part, "path": moved[part["path"]]} for part in _parts(experiment, table)]
            for table in figure_card(figure).tables
        }
    )


def _parts(experiment: Experiment, table: str) -> list[dict[str, Any]]:
    """Return the files that make up a table."""
    if table == "history":
        return _labelled(paths.HISTORY, experts(experiment))
    study, own, name = table.partition("/")
    if own:
        return [
            {
                "labels": {"study": label},
                "path": paths.STUDY_TABLE.format(study=label, table=name),
            }
            for label in studies.labels_of(experiment, study)
        ]
    suffix = "csv" if table == "published" else "parquet"
    return [{"labels": {}, "path": f"results/tables/{table}.{suffix}"}]


def _labelled(pattern: str, labels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"labels": label, "path": pattern.format(**label)} for label in labels]
