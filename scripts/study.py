"""Make a table of a study's own from the finished grid."""

from taskgrid.results import frame_of, read_frame
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.tables import read_table, write_table
from taskgrid.studies.seam import Brought, Results
from taskgrid.studies.tables import study_table
from taskgrid.workflow.command import parse, run

PATHS = ("store", "grid", "selected", "costs", "name", "table")


def main() -> None:
    """Read the grid, the chosen points, the per-sample outcomes and what was measured; write the table."""
    args = parse(__doc__, paths=PATHS, lists=("measured",))
    settings = args.settings
    results = Results(
        label=settings["label"],
        grid=frame_of(read_table(args.grid)),
        selected=frame_of(read_table(args.selected)),
        find=OutcomeStore(args.store).find,
        tasks=tuple(settings["tasks"]),
        costs=read_frame(args.costs),
        measured=tuple(map(read_table, args.measured)),
        brought={mode: Brought(**how) for mode, how in settings["brought"].items()},
    )
    table = study_table(settings["name"], settings["options"], args.name, results)
    write_table(args.table, table)
    print(f"{settings['label']}: {table.num_rows} rows of {args.name}")


if __name__ == "__main__":
    run(main)
