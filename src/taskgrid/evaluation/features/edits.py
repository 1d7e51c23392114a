"""Edits of the base that are looked at: each task vector alone, and merges at points that a study chose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch

from taskgrid.errors import ArtifactError
from taskgrid.evaluation.engine.material import Material
from taskgrid.evaluation.engine.resident import Resident
from taskgrid.evaluation.opening.files import GridFiles, open_files
from taskgrid.evaluation.opening.references import read_learned, read_method
from taskgrid.evaluation.plan.choices import Chosen
from taskgrid.evaluation.plan.setting import MethodRef, Setting
from taskgrid.lattice.points import format_lambda, point_order, point_scale, read_point
from taskgrid.lattice.subsets import parse_subset
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Prepared
from taskgrid.provenance.digests import canonical_json
from taskgrid.store.weights import State
from taskgrid.vectors import TaskVector

EXPERT = "1.00"
"""The point of a task vector alone that is the expert."""


@dataclass(frozen=True)
class Asked:
    """What is looked at.

    Attributes:
        study: label of the study whose chosen points are looked at.
        methods: label -> name, options, needs and ``subsets``, the names of its merges, of each merge method.
        images: training images of each task; 0 takes all.
        lambdas: further coefficients at which features are looked at.
        weights_at: coefficients at which weights are measured.
    """

    study: str
    methods: Mapping[str, Mapping[str, Any]]
    images: int = 256
    lambdas: Sequence[float] = ()
    weights_at: Sequence[float] = ()


@dataclass(frozen=True, eq=False)
class Edit:
    """A task vector alone, or a merge: at each of its points a network, or one for each of its tasks.

    Attributes:
        method: as in tables; ``expert`` is a task vector alone.
        options: the method's options as tables show them.
        subset: the tasks whose images it is looked at on.
        points: where its features are looked at.
        chosen: those of them that a study chose; of a task vector alone the expert's.
        weighed_at: where its weights are measured.
        state: (point, task) -> theta for that task's images.
        per_task: whether theta depends on the task.
        correct: (point, task, features) -> what becomes of features, of a method that changes them.
    """

    method: str
    options: str
    subset: tuple[str, ...]
    points: tuple[str, ...]
    chosen: tuple[str, ...]
    weighed_at: tuple[str, ...]
    state: Callable[[str, str], State]
    per_task: bool = False
    correct: Callable[[str, str, torch.Tensor], torch.Tensor] | None = None


@dataclass(frozen=True)
class Network:
    """An edit at a point; the base is an edit of nothing.

    Attributes:
        edit: the edit; None for the base.
        point: its coefficients.
    """

    edit: Edit | None = None
    point: str = "0.00"

    def labels(self) -> dict[str, Any]:
        """Return what names it in tables."""
        if self.edit is None:
            named = {"method": "zeroshot", "options": "{}", "subset": ""}
        else:
            subset = "+".join(self.edit.subset)
            named = {"method": self.edit.method, "options": self.edit.options, "subset": subset}
        return {**named, "point": self.point, "scale": point_scale(self.point)}

    @property
    def chosen(self) -> bool:
        """Whether a study chose the point; so are the base and the expert."""
        return self.edit is None or self.point in self.edit.chosen


def all_edits(
    files: GridFiles,
    setting: Setting,
    asked: Asked,
    chosen: Sequence[Chosen],
    resident: Resident,
) -> Iterator[Edit]:
    """Yield each task vector, then the merges of each method.

    Args:
        files: base, vectors, heads, images, statistics; what was learned by ``METHOD/SUBSET``.
        setting: what they should hold.
        asked: what is looked at.
        chosen: what studies chose.
        resident: base and vectors, where they are computed with.

    Raises:
        ArtifactError: if nothing was chosen for a merge.
        LineageError: if a file is not what the setting says.
    """
    for task in setting.experts:
        yield expert_edit(resident, task, asked)
    for label, spec in asked.methods.items():
        named = {key.partition("/")[::2]: path for key, path in files.learned.items()}
        learned = {subset: path for (method, subset), path in named.items() if method == label}
        name, options = spec["name"], spec["options"]
        ref = read_method(
            name,
            options,
            setting.seed,
            needs=spec["needs"],
            learned=read_learned(setting, name, options, learned),
        )
        own = open_files(replace(files, learned=learned), setting, ref.learned)
        shared = _sharing(own, resident)
        for subset in map(parse_subset, spec["subsets"]):
            yield merge_edit(
                Resident(shared, resident.device),
                ref,
                subset,
                asked,
                _points(chosen, ref, subset, asked),
            )


def expert_edit(resident: Resident, task: str, asked: Asked) -> Edit:
    """Return a task vector alone."""

    def state(point: str, _task: str) -> State:
        vector = TaskVector(resident.vector(task))
        return vector.apply_to(resident.base, read_point(point).lambda_value)

    points = _with_scales([EXPERT], asked.lambdas)
    curve = _with_scales(points, asked.weights_at)
    return Edit("expert", "{}", (task,), points, (EXPERT,), curve, state)


def merge_edit(
    resident: Resident,
    ref: MethodRef,
    subset: tuple[str, ...],
    asked: Asked,
    chosen: Sequence[str],
) -> Edit:
    """Return a merge.

    Args:
        resident: base, vectors, statistics and what was learned.
        ref: the method.
        subset: the merged tasks.
        asked: what is looked at.
        chosen: the points that were chosen for it.
    """
    recipe = MergeRecipe.of(ref.name, ref.options, ref.seed)
    walk = resident.walk(recipe, ref.needs)

    @cache
    def prepared(named: tuple[tuple[str, float], ...]) -> Prepared:
        # A walk may write over what it gave before.
        return {name: one.clone() for name, one in walk(subset, dict(named)).items()}

    def at(point: str) -> Prepared:
        return prepared(tuple(read_point(point).named.items()))

    def state(point: str, task: str) -> State:
        scale, whose = read_point(point).lambda_value, task if recipe.per_task else None
        return recipe.apply(resident.base, at(point), scale, task=whose)

    def correct(point: str, task: str, features: torch.Tensor) -> torch.Tensor:
        given = features.to(resident.device, torch.float32)
        return recipe.feature_merger.features(at(point), task, given).to(features)

    scaled = recipe.card.coefficient == "scale"
    points = _with_scales(chosen, asked.lambdas if scaled else ())
    return Edit(
        ref.name,
        canonical_json(ref.shown),
        subset,
        points,
        tuple(chosen),
        _with_scales(points, asked.weights_at if scaled else ()),
        state,
        recipe.per_task,
        correct if recipe.card.gives == "features" else None,
    )


def _with_scales(points: Iterable[str], scales: Iterable[float]) -> tuple[str, ...]:
    """Return points with those of some coefficients, in order."""
    return tuple(sorted({*points, *map(format_lambda, scales)}, key=point_order))


def _points(
    chosen: Sequence[Chosen], ref: MethodRef, subset: tuple[str, ...], asked: Asked
) -> tuple[str, ...]:
    options = canonical_json(ref.shown)
    found = {
        one.point
        for one in chosen
        if (one.study, one.method, one.options) == (asked.study, ref.name, options)
        and parse_subset(one.subset) == subset
    }
    if not found:
        raise ArtifactError(
            f"study {asked.study!r} chose no point for the merge of {'+'.join(subset)} by {ref.name!r}; name "
            "another study or other subsets in the options of the study 'features'"
        )
    return tuple(sorted(found, key=point_order))


def _sharing(material: Material, resident: Resident) -> Material:
    """Return a material whose base and vectors are those that are on the device already."""
    tasks = {
        name: replace(one, vector=partial(resident.vector, name)) if one.vector is not None else one
        for name, one in material.tasks.items()
    }
    return replace(material, base=lambda: resident.base, tasks=tasks)
