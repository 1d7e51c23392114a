"""Collect the proofs of a reduced precision in one table."""

from taskgrid.analysis.collected import precision_rows, write_report
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read the proofs, write the table."""
    args = parse(__doc__, paths=("table",))
    table = precision_rows(args.listing)
    write_report(args.table, table)
    print(f"precision: {len(table)} comparisons of {len(args.listing)} proofs")


if __name__ == "__main__":
    run(main)
