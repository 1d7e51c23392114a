"""Evaluate the base and every expert on every task."""

from pathlib import Path

from taskgrid.evaluation.opening.engines import engine_on_demand
from taskgrid.evaluation.opening.files import open_files
from taskgrid.evaluation.plan.runner import run_reference
from taskgrid.machine.progress import Progress
from taskgrid.machine.timing import Clock
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.tables import write_table
from taskgrid.workflow.command import parse, run
from taskgrid.workflow.listing import Listing
from taskgrid.workflow.setting import setting_of


def main() -> None:
    """Read experts, heads and images; write the rows, measuring only those that are new."""
    clock = Clock.of_process()
    args = parse(__doc__, paths=("store", "rows"), lists=("proof",))
    settings, listing = args.settings, Listing.read(args.listing)
    setting = setting_of(settings, listing)
    with engine_on_demand(
        open_files(listing.files(), setting, {}),
        setting,
        device=args.device,
        batch_size=settings["batch_size"],
        compiled=settings["compile"],
        store=Path(args.store),
        proof=next(iter(args.proof), None),
        first_image=clock.first_image,
    ) as open_engine:
        result = run_reference(setting, OutcomeStore(args.store), open_engine, Progress, clock)
    write_table(args.rows, result.table)
    print(f"reference: {result.sentence()}")


if __name__ == "__main__":
    run(main)
