"""What share of an evaluation job its start takes, by arithmetic: images per block of every preset.

Nothing is measured here; rates and the time of a start are assumptions, given on the command line.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from taskgrid.config import Experiment, read_config
from taskgrid.data.published.reading import read_description
from taskgrid.lattice.points import lambda_value
from taskgrid.lattice.subsets import parse_subset

ROOT = Path(__file__).parents[1]
MODELS = ("b-32", "b-16", "l-14")
TASKS = (8, 14, 20)


def images_per_job(experiment: Experiment, method: str) -> list[int]:
    """Return the images of each block: every lambda but 0 on validation, the chosen one on test."""
    cut = experiment.config.split
    lambdas = sum(lambda_value(scale) != 0 for scale in experiment.lambdas(method))
    images = {}
    for task in experiment.tasks:
        counts = read_description(experiment.task(task).dataset).counts
        own = min(int(cut.fraction * counts["train"]), cut.limit)
        images[task] = lambdas * (counts.get("val") or own) + counts["test"]
    return [
        sum(
            images[task]
            for name in experiment.subsets(method, block)
            for task in parse_subset(name)
        )
        for block in experiment.blocks(method)
    ]


def main() -> None:
    """Print a line for each preset and method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=float, default=20.0, help="seconds until the first image")
    parser.add_argument("--rates", type=float, nargs=3, default=(10_000, 2_500, 1_500))
    args = parser.parse_args()
    print("| preset | method | jobs | images per job, millions | longest job | largest share |")
    print("| --- | --- | --- | --- | --- | --- |")
    for model, rate in zip(MODELS, args.rates, strict=True):
        for tasks in TASKS:
            preset = f"clip-vit-{model}-{tasks}tasks"
            config = read_config(ROOT / "config.yaml", ROOT / "presets" / f"{preset}.yaml")
            experiment = Experiment(config)
            for method in experiment.methods:
                jobs = images_per_job(experiment, method)
                share = args.start / (args.start + min(jobs) / rate)
                print(
                    f"| {model}, {tasks} tasks | {method} | {len(jobs)} "
                    f"| {min(jobs) / 1e6:.1f} to {max(jobs) / 1e6:.1f} "
                    f"| {max(jobs) / rate / 60:.0f} min | {100 * share:.1f} % |"
                )


if __name__ == "__main__":
    main()
