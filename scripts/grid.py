"""Collect the grid, choose lambda on validation, summarise."""

from taskgrid.analysis.selection import select
from taskgrid.analysis.summary import summarise, write_summary
from taskgrid.command import parse, run
from taskgrid.evaluation.rows import collect_rows
from taskgrid.results import frame_of
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.tables import write_table
from taskgrid.studies import get_study


def main() -> None:
    """Read the rows of all blocks and the per-sample outcomes, write the tables."""
    args = parse(
        __doc__, paths=("store", "grid", "selected", "summary"), lists=("reference", "rows")
    )
    studies = [get_study(name) for name in args.settings["studies"]]
    grid = collect_rows([*args.reference, *args.rows])
    selected = select(grid, studies, OutcomeStore(args.store).find)
    summary = summarise(frame_of(grid), frame_of(selected), args.settings["tasks"])
    write_table(args.grid, grid)
    write_table(args.selected, selected)
    write_summary(args.summary, summary)
    print(f"grid: {grid.num_rows} rows, {selected.num_rows} chosen points")


if __name__ == "__main__":
    run(main)
