"""Collect the proofs of a reduced precision in one table, for people and for the report."""

import pandas as pd

from taskgrid.evaluation.precision.proof import Proof
from taskgrid.plots.pages import write_page
from taskgrid.store.atomic import atomic_path
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read the proofs; write the table and its page."""
    args = parse(__doc__, paths=("table", "page"), lists=("proofs",))
    rows = []
    for labels, path in zip(args.settings, args.proofs, strict=True):
        proof = Proof.read(path)
        named = {**labels, "precision": proof.precision, "machine": proof.machine}
        rows += [{**named, **row} for row in proof.rows()]
    with atomic_path(args.table) as path:
        pd.DataFrame(rows).to_csv(path, index=False)
    write_page(args.table, args.page, "precision")
    print(f"precision: {len(rows)} comparisons of {len(args.proofs)} proofs")


if __name__ == "__main__":
    run(main)
