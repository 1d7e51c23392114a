"""What rows that are known cost: the whole grid of a preset, planned and looked up.

    python benchmarks/reuse.py [--preset clip-vit-b-32-20tasks]

A bench that knows no images answers with random outcomes at once, so that what remains is keys, the
store and the tables. Each block is a process of its own in a real run; here all of them run in one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from pairing import machine

from taskgrid.config.experiment import Experiment
from taskgrid.config.load import read_config
from taskgrid.data.published.reading import read_description
from taskgrid.evaluation.opening.references import read_method
from taskgrid.evaluation.plan.planner import Plan, make_plan
from taskgrid.evaluation.plan.runner import Result, run_plan
from taskgrid.evaluation.plan.setting import Part, Request, Setting, TaskRef
from taskgrid.provenance.digests import digest
from taskgrid.store.outcome import Outcome
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.workflow.settings.merge import tasks

ROOT = Path(__file__).parents[1]
VALIDATION = 5000


class Oracle:
    """Answers at once, and at random."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)

    def evaluate(
        self, requests: Sequence[Request], advance: Callable[[int], None]
    ) -> Iterator[Outcome]:
        """Yield an outcome per request."""
        for request in requests:
            hits = self._random.random(request.n) < 0.7
            classes = self._random.integers(0, 100, request.n)
            yield Outcome.of(request.key, hits, 1.0, 0.1, classes)


def setting_of(experiment: Experiment) -> Setting:
    """Return a setting of made-up digests with the numbers of images that the data sets have."""

    def reference(task: str) -> TaskRef:
        counts = read_description(experiment.task(task).dataset).counts
        parts = {"val": min(VALIDATION, counts["train"] // 10), "test": counts["test"]}
        return TaskRef(
            head=digest(["head", task]),
            parts={
                split: Part(digest(["images", task]), digest([split, task]), n)
                for split, n in parts.items()
            },
            expert=digest(["expert", task]),
            vector=digest(["vector", task]),
        )

    made_up = {name: digest(name) for name in ("base", "tower", "kernel")}
    tasks = {task: reference(task) for task in experiment.tasks}
    return Setting("model", "standard", 0, precision="fp32", tasks=tasks, **made_up)


def plans_of(experiment: Experiment, setting: Setting, whole: bool) -> Iterator[Plan]:
    """Yield the plan of every block and method; not the whole one lacks the last of several lambdas."""
    for label in experiment.methods:
        method = read_method(experiment.method(label).name, experiment.method(label).options, 0)
        lambdas = experiment.lambdas(label)
        for block in experiment.blocks(label):
            yield make_plan(
                setting.restrict(tasks(experiment, label, block.label)),
                method,
                experiment.subsets(label, block),
                lambdas if whole or len(lambdas) == 1 else lambdas[:-1],
            )


def main() -> None:
    """Run a preset's grid: nothing known but a lambda missing, that lambda added, all known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="clip-vit-b-32-20tasks")
    args = parser.parse_args()
    files = (ROOT / "config.yaml", ROOT / "presets" / f"{args.preset}.yaml")
    experiment = Experiment(read_config(*files))
    setting = setting_of(experiment)
    print(machine())
    blocks = experiment.blocks(experiment.methods[0])
    print(f"{args.preset}: {len(experiment.numbers)} subsets, {len(blocks)} blocks")
    with tempfile.TemporaryDirectory() as folder:
        for what, whole in (("but one lambda", False), ("that lambda too", True), ("again", True)):
            started = time.perf_counter()
            results = [run(plan, folder) for plan in plans_of(experiment, setting, whole)]
            took = time.perf_counter() - started
            found, measured = (sum(getattr(r, n) for r in results) for n in ("found", "evaluated"))
            print(f"{what:20} {measured:7} rows made, {found:7} found: {took:5.1f} s")
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        print(f"store: {size / 1e6:.0f} MB")


def run(plan: Plan, folder: str) -> Result:
    """Run one block as its job does, with a store that has read nothing yet."""
    return run_plan(plan, OutcomeStore(folder), Oracle)


if __name__ == "__main__":
    main()
