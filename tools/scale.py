"""The table of `docs/scale.md`: `python -m tools.scale docs/scale.md`.

The page is written by hand; what stands between ``<!-- made: scale -->`` and ``<!-- end -->`` is counted
here, from what the configuration plans. A test keeps the two equal, and the jobs those that Snakemake plans.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import yaml

from taskgrid import plugins
from taskgrid.config import Experiment, read_config
from taskgrid.config.architectures import architecture_config
from taskgrid.lattice.subsets import parse_subset
from taskgrid.plugins.cards import plugin_options
from taskgrid.store.atomic import write_text
from taskgrid.workflow.runs import proven_runs
from taskgrid.workflow.settings import features, figures, learn, statistics, studies
from tools.pages import markdown
from tools.reproduction import BF16, FP32, cost, forward_operations, image_counts

ROOT = Path(__file__).parents[1]

_BLOCK = re.compile(r"(?<=<!-- made: scale -->\n).*?(?=<!-- end -->)", re.S)
_GPU = {"finetune", "precision", "reference", "eval", "learn", "statistic", "base_statistic"}
_BACKWARD = {"adamerging", "atlas", "bezier"}
"""Methods that go back through the network when they learn: three forward passes' worth an image."""
_RECORD_SECONDS = 0.1
"""A new run in MLflow, as measured: docs/performance.md, "registry"."""
_PER: tuple[Literal["task", "base"], ...] = ("task", "base")
_ROW_BYTES = 70
"""A stored outcome beside its bits and classes: key, counts, scores, offsets, checksum."""


@dataclass(frozen=True)
class Scale:
    """What an experiment comes to; counted and computed, not measured.

    Attributes:
        points: grid points: run, method, subset, coefficients.
        rows: rows of ``grid.parquet``.
        merges: run, method and subset.
        jobs: by rule.
        learning: floating-point operations of learning coefficients.
        outcomes: bytes of the store of outcomes.
        statistics: bytes of the statistics.
        learned: bytes of learned tensors that are a whole model for each merged task.
    """

    points: int
    rows: int
    merges: int
    jobs: Mapping[str, int]
    learning: float
    outcomes: float
    statistics: float
    learned: float


def scale(experiment: Experiment) -> Scale:
    """Count what an experiment comes to that trains its experts on published tasks of one model."""
    (model,) = experiment.models
    images = {task: image_counts(experiment, task) for task in experiment.tasks}
    runs = len(experiment.runs)
    tower = 4 * experiment.parameters(model)
    points, rows, learning, outcomes, learned = 0, 0, 0.0, 0.0, 0.0
    for method in experiment.methods:
        name = experiment.method(method).name
        for subset in map(parse_subset, experiment.subsets(method)):
            sweep = experiment.points(method, subset)
            moved = sum(point != "0.00" for point in sweep)
            points += runs * len(sweep)
            rows += runs * len(subset) * (len(sweep) + 1)
            outcomes += runs * sum(
                moved * _stored(images[task][1]) + _stored(images[task][2]) for task in subset
            )
            if experiment.learns(method):
                passes = _learning_images(experiment, method, subset, images)
                back = 3 if name in _BACKWARD else 1
                learning += runs * back * passes * forward_operations(_architecture(experiment))
                learned += runs * len(subset) * tower * (name == "regmean_pp")
    tasks = len(experiment.tasks)
    return Scale(
        points=points,
        rows=rows + 2 * tasks * (1 + runs * tasks),
        merges=runs * sum(len(experiment.subsets(method)) for method in experiment.methods),
        jobs=jobs(experiment),
        learning=learning,
        outcomes=outcomes,
        statistics=sum(
            _statistic(experiment, label, tower) * (runs * tasks if per == "task" else 1)
            for per in _PER
            for label in statistics.labels(experiment, per)
        ),
        learned=learned,
    )


def jobs(experiment: Experiment) -> dict[str, int]:
    """Return the jobs of each rule where nothing is there yet."""
    runs, tasks = len(experiment.runs), len(experiment.tasks)
    blocks = runs * sum(len(experiment.blocks(method)) for method in experiment.methods)
    proven = len(proven_runs(experiment))
    per_task, of_base = (len(statistics.labels(experiment, per)) for per in _PER)
    return {
        **dict.fromkeys(("download", "dataset", "split", "head"), tasks),
        **dict.fromkeys(("finetune", "record_expert", "taskvector"), runs * tasks),
        **dict.fromkeys(("conflict", "reference"), runs),
        **dict.fromkeys(("merge", "eval", "record_block"), blocks),
        **dict.fromkeys(("base", "conflict_table", "grid", "report", "explorer", "sync", "all"), 1),
        "precision": proven,
        "precision_table": int(proven > 0),
        "statistic": per_task * runs * tasks,
        "base_statistic": of_base * len(experiment.models),
        "learn": runs * sum(len(experiment.subsets(label)) for label in learn.methods(experiment)),
        "watch": sum(
            len(studies.looked_at(experiment, label)) for label in features.labels(experiment)
        ),
        "study": len(studies.every_table(experiment)),
        "figure": len(figures.names(experiment)),
    }


def remake(page: str) -> str:
    """Return the page with its table made anew."""
    return _BLOCK.sub(lambda _: table(), page)


def example(sizes: int | None, coefficients: bool) -> Experiment:
    """Return the experiment of `overlay`."""
    values = overlay(sizes, coefficients)
    return Experiment(read_config(ROOT / "config.yaml", *values.pop("extends"), values=values))


def overlay(sizes: int | None, coefficients: bool) -> dict[str, Any]:
    """Return a configuration of 20 tasks, 30 methods and 3 seeds on ViT-L/14, as it stands in a file.

    Args:
        sizes: subsets of each size; None is the merge of all tasks alone.
        coefficients: whether every sweep has the papers' 21 lambdas, not the 6 or 7 of the methods preset.
    """
    presets = ROOT / "presets"
    below = [presets / "clip-vit-l-14-20tasks.yaml", presets / "shared" / "methods.yaml"]
    found: dict[str, Any] = {}
    for entry in yaml.safe_load(below[1].read_text(encoding="utf-8"))["grid"]["methods"]:
        spec = {"name": entry} if isinstance(entry, str) else entry
        if coefficients and len(spec.get("lambdas", ())) > 1:
            spec = {key: value for key, value in spec.items() if key != "lambdas"}
        # One entry of each method. The ensemble of all experts is no merge, a supernet another training, and
        # channels of twenty experts are too many to zip.
        if spec["name"] not in ("logit_ensemble", "fs_merge", "zipit"):
            found.setdefault(spec["name"], spec)
    subsets = {"leave_out": 0, "sample": sizes and {"per_size": sizes, "seed": 0}}
    grid: dict[str, Any] = {"methods": list(found.values()), "subsets": subsets}
    if coefficients:
        grid["lambdas"] = {"start": 0, "stop": 1, "step": 0.05}
    return {
        "extends": [str(path) for path in below],
        "finetune": {"seeds": [0, 1, 2]},
        "grid": grid,
    }


def table() -> str:
    """Return the table of the page."""
    columns = [example(None, False), example(10, False), example(10, True)]
    lines = [_cells(experiment) for experiment in columns]
    heads = ["", "all 20 at once", "191 subsets", "191 subsets, 21 coefficients"]
    return markdown(heads, [[name, *(line[name] for line in lines)] for name in lines[0]])


def _cells(experiment: Experiment) -> dict[str, str]:
    found, computed = scale(experiment), cost(experiment)
    count = Counter(found.jobs)
    on_gpu = sum(count[rule] for rule in _GPU)
    runs = found.merges + count["record_expert"] + 1
    weights = computed.disk

    def hours(work: float) -> str:
        return " / ".join(f"{work / speed / 3600:,.0f}" for speed in (FP32, BF16))

    return {
        "methods × subsets × seeds": f"{len(experiment.methods)} × {len(experiment.numbers)} × "
        f"{len(experiment.seeds)} = {found.merges:,} merges",
        "grid points": f"{found.points:,}",
        "rows of `grid.parquet`": f"{found.rows:,}",
        "jobs": f"{count.total():,}",
        "of them on a GPU": f"{on_gpu:,}, {count['learn']:,} of them `learn`",
        "fine-tuning [GPU h]": hours(computed.training),
        "evaluation [GPU h]": hours(computed.grid),
        "learning [GPU h]": hours(found.learning),
        "images, bases, experts, vectors": _size(weights),
        "statistics": _size(found.statistics),
        "learned tensors of `regmean_pp`": _size(found.learned),
        "outcomes": _size(found.outcomes),
        "MLflow runs": f"{runs:,}, written in {runs * _RECORD_SECONDS / 60:,.0f} min",
    }


def _size(size: float) -> str:
    if size >= 1e12:
        return f"{size / 1e12:,.1f} TB"
    return f"{size / 1e9:,.0f} GB" if size >= 1e10 else f"{size / 1e9:.1f} GB"


def _architecture(experiment: Experiment) -> str:
    return experiment.model(experiment.models[0]).architecture


def _stored(images: int) -> float:
    return images * (1 + 1 / 8) + _ROW_BYTES


def _statistic(experiment: Experiment, label: str, tower: int) -> int:
    """Return the bytes of a statistic of a task: a number per weight, or a matrix per linear map."""
    if experiment.statistic(label).name != "gram":
        return tower
    width, layers = tower_size(_architecture(experiment))
    # Inputs of attention, its output, the MLP: three of the width, one four times as wide.
    return 4 * layers * (3 + 16) * width**2


def tower_size(architecture: str) -> tuple[int, int]:
    """Return width and layers of an image tower."""
    vision = architecture_config(architecture)["vision_cfg"]
    return vision["width"], vision["layers"]


def _learning_images(
    experiment: Experiment,
    method: str,
    subset: tuple[str, ...],
    images: Mapping[str, tuple[int, int, int]],
) -> int:
    """Return the images that a method says it passes when it learns for a subset."""
    spec = experiment.method(method)
    options = plugin_options("merger", spec.name, spec.options)
    split = ("train", "val", "test").index(options.get("images", "val"))
    _, layers = tower_size(_architecture(experiment))
    problem = SimpleNamespace(
        tasks={task: SimpleNamespace(count=images[task][split]) for task in subset},
        base=dict.fromkeys(
            (
                "conv1.weight",
                *(f"transformer.resblocks.{layer}.mlp" for layer in range(layers)),
                "proj",
            ),
            _Tensor(),
        ),
        tangent=False,
    )
    merger = plugins.load("merger", spec.name).MERGER
    return int(merger.images_to_pass(problem, options))


class _Tensor:
    """As much of a tensor as is asked for."""

    def is_floating_point(self) -> bool:
        return True


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        write_text(path, remake(path.read_text(encoding="utf-8")))
