"""Collect the proofs of a reduced precision in one table, for people and for the report."""

from taskgrid.analysis.collected import precision_rows, write_report
from taskgrid.plots.pages import write_page
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read the proofs; write the table and its page."""
    args = parse(__doc__, paths=("table", "page"))
    table = precision_rows(args.listing)
    write_report(args.table, table)
    write_page(args.table, args.page, "precision")
    print(f"precision: {len(table)} comparisons of {len(args.listing)} proofs")


if __name__ == "__main__":
    run(main)
