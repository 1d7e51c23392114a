"""Collect lattices on a budget: all rows in one table, what is known about their errors in another."""

from pathlib import Path

import pandas as pd

from taskgrid.evaluation.plan.rows import collect_rows
from taskgrid.store.atomic import atomic_path, read_json
from taskgrid.store.tables import write_table
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read rows and reports, write both tables."""
    args = parse(__doc__, paths=("table", "summary"), lists=("rows", "reports"))
    table = collect_rows(args.rows)
    write_table(args.table, table)
    reports = [
        {**run, "lambda": scale, **report}
        for run, path in zip(args.settings, args.reports, strict=True)
        for scale, report in read_json(Path(path)).items()
    ]
    with atomic_path(args.summary) as path:
        pd.json_normalize(reports, sep="_").to_csv(path, index=False)
    print(f"lattice: {table.num_rows} rows, {sum(table['interpolated'].to_pylist())} predicted")


if __name__ == "__main__":
    run(main)
