"""Plan a block of the grid: its points, what they depend on, and how they are merged."""

from taskgrid.evaluation.opening.references import (
    read_curves,
    read_learned,
    read_method,
)
from taskgrid.evaluation.plan.asking import StudyRef
from taskgrid.evaluation.plan.planner import make_plan
from taskgrid.lattice.designs import Design
from taskgrid.workflow.command import parse, run
from taskgrid.workflow.listing import Listing
from taskgrid.workflow.setting import setting_of


def main() -> None:
    """Read the manifests of everything a row depends on, write the plan."""
    args = parse(__doc__, paths=("plan",))
    settings, listing = args.settings, Listing.read(args.listing)
    # Of a big lattice the subsets are too many to be recorded: its design names them.
    subsets = settings.get("subsets") or Design.of(settings["design"]).names(
        settings["tasks"], "lattice.subsets"
    )
    setting = setting_of(settings, listing)
    method, options = settings["method"], settings["options"]
    learned = read_learned(setting, method, options, listing.learned)
    plan = make_plan(
        setting,
        read_method(
            method,
            options,
            settings["seed"],
            needs=settings["needs"],
            statistics=listing.statistic_manifests(),
            learned=learned,
        ),
        subsets,
        settings["lambdas"],
        points=settings.get("points"),
        studies=[StudyRef(**study) for study in settings["studies"]],
        curves_on=settings["curves_on"],
        outside=settings["outside"],
        curves=read_curves(**curves) if (curves := settings.get("curves")) else None,
    )
    plan.write(args.plan)
    print(f"{settings['method']}: {len(plan.subsets)} subsets x {len(plan.lambdas)} lambdas")


if __name__ == "__main__":
    run(main)
