"""Plan a block of the grid: its points, what they depend on, and how they are merged."""

from pathlib import Path
from typing import Any

from taskgrid.evaluation.opening.references import (
    TaskManifests,
    read_curves,
    read_method,
    read_setting,
)
from taskgrid.evaluation.plan.planner import make_plan
from taskgrid.lattice.designs import Design
from taskgrid.lattice.subsets import subset_name, subset_of_number
from taskgrid.models.card import ModelCard
from taskgrid.store.atomic import read_json
from taskgrid.workflow.command import parse, run


def names_of(settings: dict[str, Any]) -> list[str]:
    """List the subsets of a lattice's design: of a big one they are too many for a command line."""
    numbers = Design.of(settings["design"]).numbers(settings["tasks"], "lattice.subsets")
    return [subset_name(subset_of_number(number, settings["tasks"])) for number in numbers]


def main() -> None:
    """Read the manifests of everything a row depends on, write the plan."""
    args = parse(__doc__, paths=("card", "plan"), lists=("vectors", "heads", "splits", "datasets"))
    settings = args.settings
    files = zip(args.datasets, args.splits, args.heads, args.vectors, strict=True)
    manifests = [TaskManifests(*map(Path, found)) for found in files]
    tasks = dict(zip(settings["tasks"], manifests, strict=True))
    plan = make_plan(
        read_setting(
            model=settings["model"],
            mode=settings["mode"],
            seed=settings["seed"],
            precision=settings["precision"],
            card=ModelCard.from_json(read_json(args.card)),
            tasks=tasks,
            evaluation=settings.get("evaluation", "plain"),
        ),
        read_method(settings["method"], settings["options"], settings["seed"]),
        settings["subsets"] if "subsets" in settings else names_of(settings),
        settings["lambdas"],
        studies=settings["studies"],
        curves_on=settings["curves_on"],
        outside=settings["outside"],
        curves=read_curves(**curves) if (curves := settings.get("curves")) else None,
    )
    plan.write(args.plan)
    print(f"{settings['method']}: {len(plan.subsets)} subsets x {len(plan.lambdas)} lambdas")


if __name__ == "__main__":
    run(main)
