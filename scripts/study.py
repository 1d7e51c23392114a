"""Make a study's own tables from the finished grid."""

from taskgrid.results import frame_of
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.tables import read_table, write_table
from taskgrid.studies.seam import Results
from taskgrid.studies.tables import study_tables
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read the grid, the chosen points and the per-sample outcomes; write the study's tables."""
    args = parse(__doc__, paths=("store", "grid", "selected"), lists=("tables",))
    settings = args.settings
    results = Results(
        label=settings["label"],
        grid=frame_of(read_table(args.grid)),
        selected=frame_of(read_table(args.selected)),
        find=OutcomeStore(args.store).find,
        tasks=tuple(settings["tasks"]),
    )
    made = study_tables(settings["study"], settings["options"], results)
    for (name, table), path in zip(made.items(), args.tables, strict=True):
        write_table(path, table)
        print(f"{settings['label']}: {table.num_rows} rows of {name}")


if __name__ == "__main__":
    run(main)
