"""Write the run records of a block: one per merge, with its curves over lambda and its choice."""

from taskgrid.analysis.selection import select
from taskgrid.data.manifest import SplitManifest
from taskgrid.evaluation.plan.choices import read_choices
from taskgrid.evaluation.plan.rows import collect_rows, read_rows
from taskgrid.provenance.commit import commit
from taskgrid.results import frame_of
from taskgrid.store.atomic import read_json
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.tracking.building.merges import point_records, subset_records
from taskgrid.tracking.records import write_records
from taskgrid.workflow.command import parse, run
from taskgrid.workflow.listing import Listing

PATHS = ("store", "reference", "rows", "choices", "timing", "record")


def main() -> None:
    """Read a block's rows and choices and the reference rows, write the records."""
    args = parse(__doc__, paths=PATHS)
    rows = read_rows(args.rows)
    known = collect_rows([args.reference, args.rows])
    selected = select(known, read_choices(args.choices), OutcomeStore(args.store).find)
    files = Listing.read(args.listing).of("split")
    splits = {task: SplitManifest.read(path).digest for task, path in files.items()}
    grid, timing = frame_of(rows), read_json(args.timing)
    records = subset_records(
        grid,
        frame_of(selected),
        parent="grid/grid",
        splits=splits,
        spans=timing["merges"],
        machine={**timing["machine"], **commit()},
        export=args.settings["export"],
    )
    points = point_records(grid) if args.settings["points"] else []
    write_records(args.record, [*records, *points])


if __name__ == "__main__":
    run(main)
