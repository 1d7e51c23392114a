"""Bring the MLflow registry level with the run records."""

from taskgrid.machine.progress import Progress
from taskgrid.results import frame_of
from taskgrid.store.atomic import write_json
from taskgrid.store.tables import read_table
from taskgrid.tracking.builders import grid_record
from taskgrid.tracking.records import Artifact, read_records
from taskgrid.tracking.registry import sync_records
from taskgrid.tracking.target import resolve_target
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read the records, write what is new to MLflow and a report of what was done."""
    args = parse(
        __doc__, paths=("results", "grid", "selected", "report"), lists=("records", "attached")
    )
    settings = args.settings
    whole = grid_record(
        frame_of(read_table(args.grid)),
        frame_of(read_table(args.selected)),
        settings=settings["config"],
        artifacts=[Artifact.of(path) for path in args.attached],
    )
    records = [whole, *(record for path in args.records for record in read_records(path))]
    target = resolve_target(settings["uri"], settings["experiment"], results=args.results)
    with Progress("registry", len(records), "run") as bar:
        report = sync_records(records, target, whole_grid=True, advance=bar.advance)
    write_json(args.report, report.to_json())
    print(report.sentence())


if __name__ == "__main__":
    run(main)
