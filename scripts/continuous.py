"""Find the exact best lambda of every subset of a block of tangent models, and of its tasks alone."""

from pathlib import Path
from typing import cast

from taskgrid.errors import ConfigError
from taskgrid.evaluation.opening.engines import engine_on_demand
from taskgrid.evaluation.opening.files import open_files
from taskgrid.evaluation.plan.planner import Plan
from taskgrid.evaluation.tangent.peaks import Lines, collect_peaks, peaks_table
from taskgrid.merging.bases.additive import Line
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.tables import write_table
from taskgrid.workflow.command import parse, run
from taskgrid.workflow.listing import Listing


def main() -> None:
    """Read the plan and what it names; write one row per subset, and one per task of a subset."""
    args = parse(__doc__, paths=("store", "plan", "table"))
    settings, plan = args.settings, Plan.read(args.plan)
    if plan.setting.evaluation != "tangent":
        raise ConfigError(
            f"mode {plan.setting.mode!r} measures networks as they are; only tangent models have exact "
            "curves of lambda"
        )
    if not isinstance(MergeRecipe.of(plan.method.name, plan.method.options).merger, Line):
        # Merges that bend as lambda grows have rows at the lambdas of the sweep, and no exact curve.
        write_table(args.table, collect_peaks([]))
        print(f"{plan.method.name}: no line in lambda, hence no exact curves")
        return
    with engine_on_demand(
        open_files(Listing.read(args.listing).files(), plan.setting, plan.method.learned),
        plan.setting,
        plan.method,
        device=args.device,
        batch_size=settings["batch_size"],
        store=Path(args.store),
    ) as open_engine:
        # A setting of tangent models opens the engine that knows their lines.
        lines = cast(Lines, open_engine())
        table = peaks_table(plan, lines, OutcomeStore(args.store).find)
    write_table(args.table, table)
    print(f"{plan.method.name}: exact best lambdas of {len(plan.subsets)} subsets")


if __name__ == "__main__":
    run(main)
