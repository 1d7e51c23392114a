"""Collect lattices on a budget: all rows in one table, what is known about their errors in another."""

from taskgrid.analysis.collected import lattice_reports, write_report
from taskgrid.evaluation.plan.rows import collect_rows
from taskgrid.store.tables import write_table
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read rows and reports, write both tables."""
    args = parse(__doc__, paths=("table", "summary"))
    table = collect_rows([part["rows"] for part in args.listing])
    write_table(args.table, table)
    write_report(args.summary, lattice_reports(args.listing))
    print(f"lattice: {table.num_rows} rows, {sum(table['interpolated'].to_pylist())} predicted")


if __name__ == "__main__":
    run(main)
