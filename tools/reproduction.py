"""The tables of `docs/reproduce.md`: `python -m tools.reproduction docs/reproduce.md`.

The page is written by hand; what stands between ``<!-- made: ... -->`` and ``<!-- end -->`` is made
here, from the published numbers and the presets. A test keeps the two equal.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from taskgrid.analysis.literature import (
    flag_words,
    lineages,
    model_titles,
    read_numbers,
    task_sets,
)
from taskgrid.config.architectures import architecture_config
from taskgrid.config.experiment import Experiment
from taskgrid.config.load import read_config
from taskgrid.data.published.reading import read_description
from taskgrid.sentences import unknown
from taskgrid.store.atomic import write_text
from tools.pages import markdown

_BLOCK = re.compile(r"(?<=<!-- made: )(?P<what>[^>]*?)( -->\n)(?P<old>.*?)(?=<!-- end -->)", re.S)

FP32, BF16 = 50e12, 300e12
"""Floating-point operations a second that the hours are computed with, not measured."""

_TITLES = {
    "zeroshot": "zero-shot",
    "expert": "experts",
    "multitask": "joint multi-task training",
    "average": "average",
    "task_arithmetic": "task arithmetic",
    "ties": "TIES",
    "regmean": "RegMean",
    "regmean_plusplus": "RegMean++",
    "adamerging": "AdaMerging",
    "concrete_adamerging": "Concrete AdaMerging",
    "tsv_m": "TSV-M",
    "tsv_c": "TSV-C",
    "iso_c": "Iso-C",
    "iso_cts": "Iso-CTS",
    "wudi": "WUDI",
    "emr": "EMR",
    "pcb": "PCB",
    "we_moe": "WEMoE",
    "magmax": "MagMax",
}
_MODES = {
    "": "",
    "standard": "",
    "linear": "tangent",
    "attention": "attention only",
    "linear_taujp": "tangent, tau-Jp",
    "linear_tak": "tangent, TAK",
    "attention_orthoreg": "attention only, OrthoReg",
    "posthoc": "linearised afterwards",
}
_RULES = {"": "", "val": "tuned on val", "test": "tuned on test", "unstated": "λ not stated"}
_METHOD = ["method", "mode", "options", "lambda", "source"]


class Cost(NamedTuple):
    """What an experiment is expected to take; computed, not measured.

    Attributes:
        images: decoded images.
        disk: bytes of the decoded images, the bases, the experts and their task vectors.
        training: floating-point operations of fine-tuning.
        grid: floating-point operations of the grid and its reference rows.
    """

    images: int
    disk: int
    training: float
    grid: float


def remake(page: str) -> str:
    """Return a page with its made blocks made anew.

    Raises:
        ValueError: if a block asks for a table that does not exist.
    """
    return _BLOCK.sub(lambda match: f"{match['what']} -->\n{_table(match['what'])}", page)


def cost(experiment: Experiment) -> Cost:
    """Return what an experiment of published tasks is expected to take.

    Fine-tuning passes each image of the training split forward and back (three forward passes'
    worth) once per epoch; the grid passes each subset's own validation images at each lambda but 0,
    and its test images at the chosen one; the reference rows are zero-shot and every expert on every
    task.
    """
    parts = {task: image_counts(experiment, task) for task in experiment.tasks}
    trained, swept = dict.fromkeys(experiment.modes, 0), 0
    for mode in experiment.modes:
        for task in experiment.trained:
            trained[mode] += parts[task][0] * (experiment.recipe(task, mode)["epochs"] or 0)
    val, test = (sum(part[place] for part in parts.values()) for place in (1, 2))
    for method in experiment.methods:
        for subset in experiment.subsets(method):
            own = [parts[task] for task in subset.split("+")]
            scales = sum(point != "0.00" for point in experiment.points(method, subset))
            swept += sum(part[1] * scales + part[2] for part in own)
    training, grid = 0.0, 0.0
    for model in experiment.models:
        operations = forward_operations(experiment.model(model).architecture)
        runs = [run for run in experiment.runs if run.model == model]
        made = sum(trained.get(run.mode, 0) for run in runs)
        training += 3 * operations * made
        reference = (val + test) * (1 + len(runs) * len(parts))
        grid += operations * (len(runs) * swept + reference)
    images = sum(sum(part) for part in parts.values())
    return Cost(images, _disk(experiment, images), training, grid)


def _disk(experiment: Experiment, images: int) -> int:
    pixels = sum({3 * experiment.image_size(model) ** 2 for model in experiment.models})
    towers = [4 * experiment.parameters(run.model) for run in experiment.runs]
    bases = sum(4 * experiment.parameters(model) for model in experiment.models)
    return images * pixels + 2 * len(experiment.trained) * sum(towers) + bases


def forward_operations(architecture: str) -> float:
    """Return the floating-point operations (two per multiply-add) of one image's forward pass."""
    config = architecture_config(architecture)
    vision = config["vision_cfg"]
    width, layers, patch = vision["width"], vision["layers"], vision["patch_size"]
    patches = (vision["image_size"] // patch) ** 2
    tokens = patches + 1
    blocks = layers * (12 * tokens * width**2 + 2 * tokens**2 * width)
    return float(2 * (blocks + patches * 3 * patch**2 * width + width * config["embed_dim"]))


def image_counts(experiment: Experiment, task: str) -> tuple[int, int, int]:
    """Return the images of a task's train, val and test splits; val by the papers' rule."""
    description = read_description(experiment.task(task).dataset)
    counts = description.counts
    limit = experiment.task(task).limit or max(counts.values())
    train, test = (min(counts[split], limit) for split in ("train", "test"))
    if "val" in counts:
        return train, min(counts["val"], limit), test
    split = experiment.config.split
    val = min(int(split.fraction * train), split.limit)
    return train - val, val, test


def _table(what: str) -> str:
    kind, *words = what.split()
    tables: dict[str, Callable[..., str]] = {
        "tasks": _tasks_table,
        "means": _means_table,
        "negation": _negation_table,
        "lineages": _lineages_table,
        "cost": _cost_table,
    }
    if kind not in tables:
        raise ValueError(unknown("table to make", kind, tables))
    return tables[kind](*words)


def _lineages_table() -> str:
    return markdown(
        ["lineage", "what it goes back to", "numbers"],
        [
            [f"`{name}`", words, str(len(read_numbers([name])))]
            for name, words in lineages().items()
        ],
    )


def _tasks_table(lineage: str, model: str, *methods: str) -> str:
    rows = _numbers(lineage)
    rows = rows[
        (rows["model"] == model) & (rows["split"] == "test") & (rows["metric"] == "accuracy")
    ]
    if methods:
        rows = rows[rows["method"].isin(methods)]
    lines = []
    for at, part in rows.groupby(_METHOD, sort=False):
        cells = part[part["task"] != "average"].drop_duplicates("task").set_index("task")
        eight = task_sets()["8"]
        if not set(eight) <= set(cells.index):
            continue
        mean = part[(part["task"] == "average") & (part["tasks"] == "8")]
        values = [str(cells["printed"][task]) for task in eight]
        values += [*mean["printed"], ""][:1]
        lines.append([_called(at), *values, _remarks(part, at)])
    return markdown([model_titles()[model], *task_sets()["8"], "mean", "source, remarks"], lines)


def _means_table(lineage: str) -> str:
    rows = _numbers(lineage)
    rows = rows[(rows["task"] == "average") & (rows["split"] == "test")]
    titles = model_titles()
    places = [
        (model, name)
        for model in titles
        for name in (*task_sets(), "pairs")
        if ((rows["model"] == model) & (rows["tasks"] == name)).any()
    ]
    heads = [f"{titles[model]}, {name}" for model, name in places]
    lines = []
    # A source may print each model in a file of its own.
    for at, part in rows.assign(source=rows["source"].map(_project)).groupby(_METHOD, sort=False):
        cells = []
        for model, name in places:
            here = part[(part["model"] == model) & (part["tasks"] == name)]
            cells.append(_pair(here))
        lines.append([_called(at), *cells, _remarks(part, at)])
    return markdown(["accuracy / normalised", *heads, "source, remarks"], lines)


def _negation_table(lineage: str) -> str:
    rows = read_numbers([lineage])
    rows = rows[rows["study"] == "negation"]
    lines = []
    for at, part in rows.groupby(_METHOD, sort=False):
        cells = []
        for model in model_titles():
            here = part[part["model"] == model].set_index("task")["printed"]
            cells.append(f"{here['average']} / {here['imagenet']}")
        lines.append([_called(at), *cells, _remarks(part, at)])
    return markdown(["target / control", *model_titles().values(), "source, remarks"], lines)


def _cost_table(*presets: str) -> str:
    lines = []
    for preset in presets:
        found = cost(Experiment(read_config("config.yaml", f"presets/{preset}.yaml")))
        hours = [
            _hours(work / speed / 3600)
            for work in (found.training, found.grid)
            for speed in (FP32, BF16)
        ]
        lines.append(
            [
                f"`{preset}`",
                f"{found.images:,}",
                f"{found.disk / 1e9:.0f} GB",
                f"{found.training / 1e15:,.0f}",
                f"{found.grid / 1e15:,.0f}",
                f"{hours[0]} / {hours[1]}",
                f"{hours[2]} / {hours[3]}",
            ]
        )
    heads = ["preset", "images", "disk", "fine-tuning [PFLOP]", "grid [PFLOP]"]
    heads += ["fine-tuning [GPU h]", "grid [GPU h]"]
    return markdown(heads, lines)


def _hours(value: float) -> str:
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _numbers(lineage: str) -> pd.DataFrame:
    rows = read_numbers([lineage])
    return rows[rows["study"] != "negation"]


def _called(at: tuple[Any, ...]) -> str:
    method, mode, options, rule, _ = at
    words = [_TITLES.get(method, str(method).replace("_", " ")), _MODES[mode]]
    words += [f"{key}={value}" for key, value in json.loads(options).items()]
    words.append(_RULES.get(rule, f"λ={rule}"))
    return ", ".join(word for word in words if word)


def _remarks(part: pd.DataFrame, at: tuple[Any, ...]) -> str:
    flags = dict.fromkeys(flag for text in part["flags"] for flag in text.split("+") if flag)
    return "; ".join([_project(at[-1]), *(flag_words()[flag] for flag in flags)])


def _project(source: str) -> str:
    """Return a source without the file inside of it."""
    return re.sub(r" (checkpoints|results|notebooks|examples|docs|logs|merge_vit)/.*", "", source)


def _pair(rows: pd.DataFrame) -> str:
    values = [
        next(iter(rows.loc[rows["metric"] == metric, "printed"]), "")
        for metric in ("accuracy", "normalized")
    ]
    return values[0] if not values[1] else " / ".join(value or "-" for value in values)


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        write_text(path, remake(path.read_text(encoding="utf-8")))
