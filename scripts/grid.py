"""Collect the grid, choose lambda on validation, summarise, set published numbers beside the run."""

from typing import Any

import pandas as pd

from taskgrid.analysis.comparison import compare, problem_sentences
from taskgrid.analysis.counterparts import Names
from taskgrid.analysis.literature import published_model, read_numbers
from taskgrid.analysis.selection import select
from taskgrid.analysis.summary import summarise, with_published, write_csv
from taskgrid.evaluation.plan.rows import collect_rows
from taskgrid.results import frame_of
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.tables import write_table
from taskgrid.studies import get_study
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read the rows of all blocks and the per-sample outcomes, write the tables."""
    args = parse(
        __doc__,
        paths=("store", "grid", "selected", "summary"),
        lists=("reference", "rows"),
        optional=("published",),
    )
    settings = args.settings
    studies = [get_study(name) for name in settings["studies"]]
    grid = collect_rows([*args.reference, *args.rows])
    selected = select(grid, studies, OutcomeStore(args.store).find)
    summary = summarise(frame_of(grid), frame_of(selected), settings["tasks"])
    compared = beside(frame_of(grid), frame_of(selected), settings)
    if settings.get("published"):
        summary = with_published(summary, compared, settings["tasks"])
    write_table(args.grid, grid)
    write_table(args.selected, selected)
    write_csv(args.summary, summary)
    if args.published is not None:
        write_csv(args.published, compared)
    print(f"grid: {grid.num_rows} rows, {selected.num_rows} chosen points")
    if settings.get("published"):
        say(compared)


def say(compared: pd.DataFrame) -> None:
    """Print how the run compares with the literature, and every lineage problem."""
    if compared.empty:
        print(
            "published: no number has its like here; they are of OpenAI's ViT-B/32, B/16 and L/14 "
            "with QuickGELU, on the papers' tasks"
        )
        return
    inside = compared["inside"].eq(True).sum()
    print(f"published: {len(compared)} numbers beside the run, {inside} inside its interval")
    for sentence in problem_sentences(compared):
        print(sentence)


def beside(grid: pd.DataFrame, selected: pd.DataFrame, settings: dict[str, Any]) -> pd.DataFrame:
    """Set the numbers of the configured lineages beside the run's."""
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


if __name__ == "__main__":
    run(main)
