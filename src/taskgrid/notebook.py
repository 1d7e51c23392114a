"""A finished results folder in a notebook: in one call, all that ``evaluate_grid`` takes.

``docs/notebook.ipynb`` shows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from taskgrid.errors import ArtifactError, ConfigError
from taskgrid.evaluation.engine.material import LabelledImages, Material
from taskgrid.evaluation.opening.files import open_files
from taskgrid.evaluation.opening.memory import EvaluationTask, Examples
from taskgrid.models.card import ModelCard
from taskgrid.sentences import choices
from taskgrid.store.atomic import read_json
from taskgrid.store.weights import State
from taskgrid.workflow import paths
from taskgrid.workflow.files import PER_RUN, PER_TASK
from taskgrid.workflow.listing import Listing
from taskgrid.workflow.setting import setting_of

_RUN = ("card", "base")
_TASK = ("dataset", "images", "split", "head", "head_manifest")
_EXPERT = ("expert", "expert_manifest")


@dataclass(frozen=True)
class OpenedRun:
    """The experts of one model, mode and seed, and what they are measured on; read when first asked for.

    Attributes:
        model: the base model's name in the configuration.
        mode: how the experts were fine-tuned.
        seed: with which seed.
        material: where base, experts, heads and images come from, each compared with the run's manifests.
    """

    model: str
    mode: str
    seed: int
    material: Material

    @property
    def card(self) -> ModelCard:
        """The base's model card."""
        return self.material.card

    @cached_property
    def base(self) -> State:
        """theta_0, the state of the base's image tower."""
        return self.material.base()

    @cached_property
    def experts(self) -> dict[str, State]:
        """Task -> theta_t; control tasks have none."""
        found = {name: task.expert for name, task in self.material.tasks.items()}
        return {name: expert() for name, expert in found.items() if expert is not None}

    @cached_property
    def tasks(self) -> dict[str, EvaluationTask]:
        """Task -> its head, its validation and its test images, in memory: ``3 S^2`` bytes each."""
        return {
            name: EvaluationTask(
                task.head(), _examples(task.images("val")), _examples(task.images("test"))
            )
            for name, task in self.material.tasks.items()
        }

    def train(self, task: str) -> Examples:
        """Return the images that a task's expert was trained on, as the model sees whole images.

        Raises:
            ConfigError: if there is no such task.
            ArtifactError: if the file of images is missing or damaged.
        """
        if task not in self.material.tasks:
            raise ConfigError(f"there is no task {task!r}; {choices(task, self.material.tasks)}")
        return _examples(self.material.tasks[task].images("train"))


def open_results(
    results: str | Path = "results",
    *,
    model: str | None = None,
    mode: str | None = None,
    seed: int | None = None,
    tasks: Iterable[str] | None = None,
) -> OpenedRun:
    """Open what a run left under ``results``, to compute on it.

    ``evaluate_grid(run.base, run.card, run.tasks, experts=run.experts)`` then counts what
    ``tables/grid.parquet`` counts, where the run measured the networks themselves; of a run in a mode of
    tangent models (``linear``), ``evaluation="tangent"`` does.

    Args:
        results: the results folder.
        model: the base model's name; may be left out where there is one.
        mode: the mode; may be left out where there is one.
        seed: the seed; may be left out where there is one.
        tasks: which tasks; None takes all that have a head and images, control tasks too.

    Raises:
        ConfigError: if there are no such experts or tasks, or several sets of experts.
        ArtifactError: if there are no experts at all, or a file is missing or damaged.
        LineageError: if files do not belong together.
    """
    folder = Path(results)
    run = _chosen(folder, {"model": model, "mode": mode, "seed": seed})
    heads, experts = _found(folder, paths.HEAD), _found(folder, paths.EXPERT)
    known = sorted(found["task"] for found in heads if found["model"] == run["model"])
    trained = {found["task"] for found in experts if run.items() <= found.items()}
    wanted = list(known if tasks is None else tasks)
    for name in wanted:
        if name not in known:
            raise ConfigError(f"{folder} has no task {name!r}; {choices(name, known)}")
    card = ModelCard.from_json(read_json(_path(folder, paths.CARD, run)))
    pixels = f"{card.image_size}px"
    listing = Listing(
        {kind: _path(folder, PER_RUN[kind].pattern, run) for kind in _RUN},
        {
            name: {
                kind: _path(folder, PER_TASK[kind].pattern, {**run, "task": name, "pixels": pixels})
                for kind in (*_TASK, *(_EXPERT if name in trained else ()))
            }
            for name in wanted
        },
    )
    setting = setting_of({**run, "seed": int(run["seed"])}, listing)
    material = open_files(listing.files(), setting, {})
    return OpenedRun(setting.model, setting.mode, setting.seed, material)


def _chosen(folder: Path, asked: Mapping[str, str | int | None]) -> dict[str, str]:
    """Return the one set of experts that is meant."""
    every = {tuple(found[key] for key in asked) for found in _found(folder, paths.EXPERT)}
    if not every:
        raise ArtifactError(
            f"{folder} holds no experts; run the workflow first, or name its results folder"
        )
    given = {(place, str(want)) for place, want in enumerate(asked.values()) if want is not None}
    meant = [run for run in every if given <= {*enumerate(run)}]
    if len(meant) != 1:
        says = "several sets of experts; say which one" if meant else "no such experts; choose"
        listed = ", ".join("/".join(run) for run in sorted(meant or every))
        raise ConfigError(f"{folder} has {says} by model, mode and seed: {listed}")
    return dict(zip(asked, meant[0], strict=True))


def _found(folder: Path, pattern: str) -> Iterator[dict[str, str]]:
    """Yield the names in the paths of the files that there are of a pattern."""
    below = pattern.removeprefix("results/")
    names = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(below)))
    for path in folder.glob(re.sub(r"\{\w+\}", "*", below)):
        if match := names.fullmatch(path.relative_to(folder).as_posix()):
            yield match.groupdict()


def _path(folder: Path, pattern: str, names: Mapping[str, str]) -> Path:
    return folder / pattern.removeprefix("results/").format(**names)


def _examples(images: LabelledImages) -> Examples:
    return images[:], images.labels
