"""Collect the conflicts between task vectors of all runs into one table."""

from taskgrid.analysis.conflicts import collect_conflicts
from taskgrid.store.tables import write_table
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read the runs' tables, write the one that people read."""
    args = parse(__doc__, paths=("table",), lists=("runs",))
    table = collect_conflicts(args.runs)
    write_table(args.table, table)
    print(f"conflicts: {table.num_rows} pairs of task vectors in layers")


if __name__ == "__main__":
    run(main)
