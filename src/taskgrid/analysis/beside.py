"""A run beside the literature: which numbers are of its models, tasks and modes, and how they compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from taskgrid.analysis.comparison import compare, problem_sentences
from taskgrid.analysis.counterparts import Names
from taskgrid.analysis.literature import published_model, read_numbers


def beside(grid: pd.DataFrame, selected: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Set the numbers of the configured lineages beside the run's.

    Args:
        grid: the grid's rows.
        selected: the chosen points.
        settings: what the grid rule passes on: ``tasks``, and of the literature ``published``,
            ``models``, ``modes`` and ``datasets``.
    """
    models = {
        name: published_model(model["architecture"], model["pretrained"])
        for name, model in settings.get("models", {}).items()
    }
    names = Names(
        models={ours: theirs for ours, theirs in models.items() if theirs is not None},
        tasks={task: settings.get("datasets", {}).get(task, task) for task in settings["tasks"]},
        modes=settings.get("modes", {}),
    )
    return compare(grid, selected, read_numbers(settings.get("published", ())), names)


def comparison_sentences(compared: pd.DataFrame) -> list[str]:
    """Say how the run compares with the literature, and every lineage problem."""
    if compared.empty:
        return [
            "published: no number has its like here; they are of OpenAI's ViT-B/32, B/16 and L/14 "
            "with QuickGELU, on the papers' tasks"
        ]
    inside = compared["inside"].eq(True).sum()
    counts = f"published: {len(compared)} numbers beside the run, {inside} inside its interval"
    return [counts, *problem_sentences(compared)]
