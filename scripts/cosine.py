"""Cosine similarities between task vectors."""

from taskgrid.store.tables import write_csv
from taskgrid.vectors import TaskVector, cosine_rows
from taskgrid.workflow.command import parse, run
from taskgrid.workflow.listing import Listing


def main() -> None:
    """Read the task vectors, write a long table of the cosine of every ordered pair."""
    args = parse(__doc__, paths=("table",))
    files = Listing.read(args.listing).of("vector")
    vectors = {task: TaskVector.load(path) for task, path in files.items()}
    write_csv(args.table, cosine_rows(vectors))
    print(f"cosines between {len(vectors)} task vectors")


if __name__ == "__main__":
    run(main)
