"""Evaluate a lattice on a budget: some merges measured, the others predicted, the error stated."""

from dataclasses import asdict
from pathlib import Path
from typing import cast

from taskgrid.evaluation.budget.predict import predict_plan
from taskgrid.evaluation.engine.listening import Listens
from taskgrid.evaluation.opening.engines import engine_on_demand
from taskgrid.evaluation.opening.files import open_files
from taskgrid.evaluation.plan.planner import Plan
from taskgrid.lattice.budgets import BudgetSpec
from taskgrid.machine.progress import Progress
from taskgrid.store.atomic import write_json
from taskgrid.store.logits import LogitsStore
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.tables import write_table
from taskgrid.workflow.command import parse, run
from taskgrid.workflow.listing import Listing

PATHS = ("store", "plan", "rows", "report")


def main() -> None:
    """Read the plan and what it names; write the rows and what is known about their errors."""
    args = parse(__doc__, paths=PATHS, lists=("proof",))
    settings, plan = args.settings, Plan.read(args.plan)
    material = open_files(Listing.read(args.listing).files(), plan.setting, plan.method.learned)
    with engine_on_demand(
        material,
        plan.setting,
        plan.method,
        device=args.device,
        batch_size=settings["batch_size"],
        compiled=settings["compile"],
        store=Path(args.store),
        proof=next(iter(args.proof), None),
    ) as open_engine:
        found = predict_plan(
            plan,
            BudgetSpec(**settings["budget"]),
            settings["split"],
            cast(Listens, open_engine()),
            OutcomeStore(args.store),
            logits=LogitsStore(Path(args.store) / "logits"),
            progress=Progress.of(Path(args.plan).parent.name),
        )
    write_table(args.rows, found.table)
    write_json(args.report, {scale: asdict(report) for scale, report in found.reports.items()})
    for scale, report in found.reports.items():
        print(f"{plan.method.name}, lambda {scale}: {report.sentence()}")


if __name__ == "__main__":
    run(main)
