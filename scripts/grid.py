"""Collect the grid and the chosen points, summarise, set published numbers beside the run."""

from taskgrid.analysis.beside import beside, comparison_sentences
from taskgrid.analysis.collected import write_report
from taskgrid.analysis.costs import merge_costs
from taskgrid.analysis.pairs import pair_changes
from taskgrid.analysis.selection import select
from taskgrid.analysis.summary import summarise, with_published, write_csv
from taskgrid.evaluation.plan.choices import read_choices
from taskgrid.evaluation.plan.rows import collect_rows
from taskgrid.plugins.storage import Tower
from taskgrid.results import frame_of
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.tables import write_table
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read the rows and choices of all blocks and the per-sample outcomes, write the tables."""
    args = parse(
        __doc__,
        paths=("store", "grid", "selected", "summary", "pairs"),
        lists=("reference", "rows", "choices"),
        optional=("published", "costs"),
    )
    settings = args.settings
    towers = {model: Tower(*size) for model, size in settings.get("towers", {}).items()}
    grid = collect_rows([*args.reference, *args.rows])
    choices = [choice for path in args.choices for choice in read_choices(path)]
    selected = select(grid, choices, OutcomeStore(args.store).find)
    rows, chosen = frame_of(grid), frame_of(selected)
    summary = summarise(rows, chosen, settings["tasks"], towers=towers)
    compared = beside(rows, chosen, settings)
    if settings.get("published"):
        summary = with_published(summary, compared, settings["tasks"])
    write_table(args.grid, grid)
    write_table(args.selected, selected)
    write_csv(args.summary, summary)
    write_csv(args.pairs, pair_changes(rows, chosen))
    if args.costs is not None:
        write_report(args.costs, merge_costs(args.listing["costs"], towers))
    if args.published is not None:
        write_csv(args.published, compared)
    print(f"grid: {grid.num_rows} rows, {selected.num_rows} chosen points")
    if settings.get("published"):
        print(*comparison_sentences(compared), sep="\n")


if __name__ == "__main__":
    run(main)
