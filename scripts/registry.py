"""Bring the MLflow registry level with the run records."""

from taskgrid.machine.progress import Progress
from taskgrid.results import frame_of
from taskgrid.store.atomic import write_json
from taskgrid.store.tables import read_table
from taskgrid.tracking.building.experts import with_test_scores
from taskgrid.tracking.building.grids import grid_record
from taskgrid.tracking.models import registered_models
from taskgrid.tracking.records import Artifact, read_records
from taskgrid.tracking.registry import sync_records
from taskgrid.tracking.target import resolve_target
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read the records, write what is new to MLflow and a report of what was done."""
    args = parse(
        __doc__,
        paths=("results", "grid", "selected", "report"),
        lists=("records", "attached", "models"),
    )
    settings = args.settings
    grid = frame_of(read_table(args.grid))
    whole = grid_record(
        grid,
        frame_of(read_table(args.selected)),
        settings=settings["config"],
        artifacts=[Artifact.of(path) for path in args.attached],
    )
    records = [
        whole,
        *with_test_scores((one for path in args.records for one in read_records(path)), grid),
    ]
    target = resolve_target(settings["uri"], settings["experiment"], results=args.results)
    models = registered_models(args.models, records, settings["experiment"])
    with Progress("registry", len(records), "run") as bar:
        report = sync_records(records, target, models=models, whole_grid=True, advance=bar.advance)
    write_json(args.report, report.to_json())
    print(report.sentence())


if __name__ == "__main__":
    run(main)
