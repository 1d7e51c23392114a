"""Collect the exact best lambdas of all blocks into one table."""

from taskgrid.evaluation.tangent.peaks import collect_peaks
from taskgrid.store.tables import write_table
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read the blocks' tables, write the one that people read."""
    args = parse(__doc__, paths=("table",), lists=("blocks",))
    table = collect_peaks(args.blocks)
    write_table(args.table, table)
    print(f"continuous: {table.num_rows} exact best lambdas")


if __name__ == "__main__":
    run(main)
