"""Cosine similarities between task vectors."""

import csv

from taskgrid.store.atomic import atomic_path
from taskgrid.vectors import TaskVector
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read the task vectors, write a long table of the cosine of every ordered pair."""
    args = parse(__doc__, paths=("table",), lists=("vectors",))
    vectors = {vector.lineage["task"]: vector for vector in map(TaskVector.load, args.vectors)}
    with atomic_path(args.table) as temporary, temporary.open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["task_a", "task_b", "cosine"])
        for a, left in sorted(vectors.items()):
            for b, right in sorted(vectors.items()):
                table.writerow([a, b, f"{left.cosine(right):.6f}"])
    print(f"cosines between {len(vectors)} task vectors")


if __name__ == "__main__":
    run(main)
