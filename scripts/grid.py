"""Collect the grid, choose lambda on validation, summarise, set published numbers beside the run."""

from taskgrid.analysis.beside import beside, comparison_sentences
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
        print(*comparison_sentences(compared), sep="\n")


if __name__ == "__main__":
    run(main)
