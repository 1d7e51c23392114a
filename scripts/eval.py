"""Evaluate a planned block: every lambda on validation, the chosen one on test."""

from pathlib import Path

from taskgrid.evaluation.curves.taking import Taker
from taskgrid.evaluation.opening.engines import engine_on_demand
from taskgrid.evaluation.opening.files import open_files
from taskgrid.evaluation.plan.choices import write_choices
from taskgrid.evaluation.plan.planner import Plan
from taskgrid.evaluation.plan.runner import run_plan
from taskgrid.machine.progress import Progress
from taskgrid.machine.timing import Clock
from taskgrid.store.atomic import write_json
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.tables import write_table
from taskgrid.workflow.command import parse, run
from taskgrid.workflow.listing import Listing

PATHS = ("store", "plan", "rows", "choices", "timing")


def main() -> None:
    """Read the plan and what it names; write the rows, measuring only those that are new."""
    clock = Clock.of_process()
    args = parse(__doc__, paths=PATHS, lists=("proof",))
    settings, plan = args.settings, Plan.read(args.plan)
    material = open_files(Listing.read(args.listing).files(), plan.setting, plan.method.learned)
    take = Taker(plan) if plan.curves is not None else None
    with engine_on_demand(
        material,
        plan.setting,
        plan.method,
        device=args.device,
        batch_size=settings["batch_size"],
        compiled=settings["compile"],
        store=Path(args.store),
        proof=next(iter(args.proof), None),
        first_image=clock.first_image,
    ) as open_engine:
        counts = Progress.of(Path(args.plan).parent.name)
        result = run_plan(plan, OutcomeStore(args.store), open_engine, counts, clock, take)
    write_table(args.rows, result.table)
    write_choices(args.choices, result.choices)
    measured = {"prepared": open_engine.prepared(), "machine": open_engine.machine()}
    write_json(args.timing, {**result.cost(), **measured})
    print(f"{plan.method.name}: {result.sentence()}")


if __name__ == "__main__":
    run(main)
