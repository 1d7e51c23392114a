"""Figures: which are drawn, from which tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from taskgrid import plugins
from taskgrid.config import Experiment
from taskgrid.plugins.cards import figure_card
from taskgrid.provenance.digests import canonical_json
from taskgrid.workflow import paths
from taskgrid.workflow.runs import experts


def names(experiment: Experiment) -> tuple[str, ...]:
    """Return the figures of an experiment.

    Where no published numbers are asked for, "all" figures are those that need none.
    """
    config = experiment.config
    if config.figures != "all":
        return tuple(config.figures)
    return tuple(
        name
        for name in plugins.names("figure")
        if config.published or "published" not in figure_card(name).tables
    )


def files(experiment: Experiment) -> list[str]:
    """Return the files of all figures."""
    return [
        paths.FIGURE.format(figure=figure, suffix=suffix)
        for figure in names(experiment)
        for suffix in ("pdf", "png")
    ]


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
    if table == "cosine":
        return _labelled(paths.COSINE, [asdict(run) for run in experiment.expert_runs])
    suffix = "csv" if table == "published" else "parquet"
    return [{"labels": {}, "path": f"results/tables/{table}.{suffix}"}]


def _labelled(pattern: str, labels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"labels": label, "path": pattern.format(**label)} for label in labels]
