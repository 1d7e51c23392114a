"""Conflicts between the task vectors of a run."""

from taskgrid.analysis.conflicts import run_conflicts
from taskgrid.store.tables import write_table
from taskgrid.vectors import TaskVector
from taskgrid.workflow.command import parse, run
from taskgrid.workflow.listing import Listing


def main() -> None:
    """Read the task vectors, write a row per pair and layer."""
    args = parse(__doc__, paths=("table",))
    files = Listing.read(args.listing).of("vector")
    vectors = {task: TaskVector.load(path).deltas for task, path in files.items()}
    write_table(args.table, run_conflicts(vectors, **args.settings))
    print(f"conflicts between {len(vectors)} task vectors")


if __name__ == "__main__":
    run(main)
