"""Evaluate the base and every expert on every task."""

from pathlib import Path

from taskgrid.evaluation.opening.engines import engine_on_demand
from taskgrid.evaluation.opening.files import GridFiles, TaskFiles
from taskgrid.evaluation.opening.references import TaskManifests, read_setting
from taskgrid.evaluation.plan.runner import run_reference
from taskgrid.machine.progress import Progress
from taskgrid.machine.timing import Clock
from taskgrid.models.card import ModelCard
from taskgrid.store.atomic import read_json
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.tables import write_table
from taskgrid.workflow.command import parse, run

LISTS = ("experts", "manifests", "heads", "head-manifests", "splits", "images", "datasets")


def main() -> None:
    """Read experts, heads and images; write the rows, measuring only those that are new."""
    clock = Clock.of_process()
    args = parse(__doc__, paths=("store", "card", "base", "rows"), lists=(*LISTS, "proof"))
    settings = args.settings
    per_task = {
        name: dict(zip(settings["tasks"], map(Path, getattr(args, name)), strict=True))
        for name in (item.replace("-", "_") for item in LISTS)
    }
    setting = read_setting(
        model=settings["model"],
        mode=settings["mode"],
        seed=settings["seed"],
        precision=settings["precision"],
        card=ModelCard.from_json(read_json(args.card)),
        tasks={
            task: TaskManifests(
                dataset=per_task["datasets"][task],
                split=per_task["splits"][task],
                head=per_task["head_manifests"][task],
                expert=per_task["manifests"][task],
            )
            for task in settings["tasks"]
        },
        evaluation=settings.get("evaluation", "plain"),
    )
    files = {
        task: TaskFiles(
            images=per_task["images"][task],
            split=per_task["splits"][task],
            head=per_task["heads"][task],
            expert=per_task["experts"][task],
        )
        for task in settings["tasks"]
    }
    material = GridFiles(setting, Path(args.card), Path(args.base), files)
    with engine_on_demand(
        material,
        device=args.device,
        threads=args.threads,
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
