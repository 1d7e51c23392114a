"""Plans: what a block of the grid consists of, as data.

A plan names everything its numbers depend on by digest and holds nothing else, so equal inputs give
equal bytes, and a plan changes only when one of its own rows does. Planning touches no weights and
no images and imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from taskgrid.errors import ArtifactError, ConfigError, LineageError
from taskgrid.evaluation.plan import keys
from taskgrid.evaluation.plan.asking import Asked, StudyRef, ask
from taskgrid.evaluation.plan.setting import (
    BASE,
    SPLITS,
    MethodRef,
    Request,
    Setting,
    Split,
    Weights,
)
from taskgrid.lattice.nodes import CurveSpec
from taskgrid.lattice.points import point_order, read_point
from taskgrid.lattice.subsets import parse_subset, subset_name
from taskgrid.plugins.cards import plugin_options, statistic_card
from taskgrid.store.atomic import read_json, write_json
from taskgrid.studies.seam import Field

LONE_POINT = "1.00"
"""The point of a method that has no coefficient."""


@dataclass(frozen=True)
class CurveRef(CurveSpec):
    """How sweeps over lambda are interpolated, as rows depend on it.

    Attributes:
        code: ``keys.curves_code``.
    """

    code: str = field(kw_only=True)


@dataclass(frozen=True)
class Sweep:
    """Points of one merge on one image set.

    Attributes:
        subset: the merged tasks.
        task: whose images and head.
        split: which of its images.
        points: coefficients as text, in order.
    """

    subset: tuple[str, ...]
    task: str
    split: Split
    points: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """One block of the grid of one method.

    Attributes:
        setting: base, experts and tasks; only those the block needs.
        method: the merge method.
        subsets: names of the subsets.
        lambdas: scaling coefficients as text, increasing.
        points: points with coefficients of their own, by the name of their subset.
        studies: the studies that ask for rows.
        curves_on: splits on which every coefficient is measured; ``val`` is always one of them.
        outside: measure the test rows also on the tasks outside a subset.
        curves: how sweeps over lambda are interpolated; None where every point is evaluated.
    """

    setting: Setting
    method: MethodRef
    subsets: tuple[str, ...]
    lambdas: tuple[str, ...]
    points: dict[str, tuple[str, ...]] = field(default_factory=dict)
    studies: tuple[StudyRef, ...] = (StudyRef("addition", "addition"),)
    curves_on: tuple[Split, ...] = ("val",)
    outside: bool = False
    curves: CurveRef | None = None
    format: Literal[2] = field(default=2, kw_only=True)

    def sweep(self, subset: Sequence[str]) -> tuple[str, ...]:
        """Return the configured points of a subset, in order."""
        own = self.points.get(subset_name(subset), ())
        return tuple(sorted({*self.lambdas, *own}, key=point_order))

    @property
    def field(self) -> Field:
        """What studies may know of tasks and method."""
        return Field(
            trained=self.setting.experts,
            control=self.setting.controls,
            scaled=self.method.card.coefficient == "scale",
            method=self.method.name,
        )

    @cached_property
    def asked(self) -> tuple[Asked, ...]:
        """Every question that the studies have of the subsets."""
        subsets = [parse_subset(name) for name in self.subsets]
        return ask(self.studies, subsets, self.field, self.measurable)

    def requests(self, sweep: Sweep) -> Iterator[Request]:
        """Yield the requests for a sweep's points."""
        for point in sweep.points:
            yield self.merged(sweep.subset, point, sweep.task, sweep.split)

    def measurable(self, subset: Sequence[str], tasks: Sequence[str]) -> tuple[str, ...]:
        """Return those of some tasks that a merge can be measured on: of a model per task, its own."""
        own = self.method.card.per_task
        return tuple(task for task in tasks if task in subset or not own)

    def merged(self, subset: Sequence[str], point: str, task: str, split: Split) -> Request:
        """Return the request for a grid point's row on a task."""
        wanted = tuple(subset), point, task, split
        if wanted not in self._requests:
            key = self.point_key(subset, point, task)
            weights = self.weights(subset, point, task)
            self._requests[wanted] = self.setting.request(weights, key, task, split)
        return self._requests[wanted]

    def weights(self, subset: Sequence[str], point: str, task: str) -> Weights:
        """Return the weights that a grid point is measured with on a task."""
        if self._is_base(point):
            return BASE
        own = task if self.method.card.gives == "per_task" else None
        return Weights("merge", tuple(subset), point, own)

    def point_key(self, subset: Sequence[str], point: str, task: str) -> str:
        """Return the key of a grid point's weights on a task; of the base for the empty subset."""
        if not subset or self._is_base(point):
            return self.setting.base_key
        coefficients = read_point(point)
        named = [coefficients.of(member) for member in subset] if coefficients.named else None
        own = self.vector(task) if self.method.card.per_task else None
        return keys.point_key(self.merge_key(subset), coefficients.scale, named, own)

    def merge_key(self, subset: Sequence[str]) -> str:
        """Return the key of the merge of a subset, before a point is chosen.

        Raises:
            LineageError: if a merged task has no vector, or a statistic or what was learned is missing.
        """
        wanted = tuple(subset)
        if wanted not in self._merge_keys:
            method = self.method
            self._merge_keys[wanted] = keys.merge_key(
                method=method.name,
                options=method.options,
                code=method.code,
                base=self.setting.base,
                vectors=[self.vector(task) for task in wanted],
                seed=method.seed,
                statistics=[
                    self._statistic(name, label, task)
                    for name, label in sorted(method.needs.items())
                    for task in (wanted if statistic_card(name).per == "task" else ("",))
                ],
                learned=self._learned(wanted),
            )
        return self._merge_keys[wanted]

    def vector(self, task: str) -> str:
        """Return the digest of a task's vector.

        Raises:
            LineageError: if it has none.
        """
        found = self.setting.task(task).vector
        if found is None:
            raise LineageError(
                f"task {task!r} has no task vector in mode {self.setting.mode!r}; train one"
            )
        return found

    def _statistic(self, name: str, label: str, task: str) -> str:
        known = self.setting.task(task).statistics if task else self.setting.statistics
        if label not in known:
            whose = f"of task {task!r}" if task else "of the base"
            raise LineageError(
                f"merge method {self.method.name!r} needs the statistic {name!r} {whose}, which is not "
                f"there as {label!r}; let the workflow's rule `statistics` make it"
            )
        return known[label]

    def _learned(self, subset: tuple[str, ...]) -> str | None:
        if not self.method.card.learns(self.method.options):
            return None
        name = subset_name(subset)
        if name not in self.method.learned:
            raise LineageError(
                f"nothing was learned for {name} by {self.method.name!r}; let the workflow's rule `learn` "
                "make its coefficients"
            )
        return self.method.learned[name]

    def _is_base(self, point: str) -> bool:
        """Whether the point is the base: what every method with a scale gives at lambda zero, bit for bit."""
        return self.method.card.coefficient == "scale" and read_point(point).scale == 0

    @cached_property
    def _requests(self) -> dict[tuple[tuple[str, ...], str, str, Split], Request]:
        return {}

    @cached_property
    def _merge_keys(self) -> dict[tuple[str, ...], str]:
        return {}

    def write(self, path: str | Path) -> None:
        """Write the plan as JSON; equal plans give equal bytes.

        Raises:
            ArtifactError: if the file system refuses to write.
        """
        write_json(path, _PLAN.dump_python(self, mode="json"))

    @classmethod
    def read(cls, path: str | Path) -> Plan:
        """Read a plan.

        Raises:
            ArtifactError: if the file is missing or not a plan of this version.
        """
        value = read_json(path)
        try:
            return _PLAN.validate_python(value)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(str(step) for step in problem["loc"])
            raise ArtifactError(
                f"{path} is not a plan that this version reads ({where}: {problem['msg']}); "
                "delete it and run again"
            ) from None


_PLAN = TypeAdapter(Plan)


def make_plan(
    setting: Setting,
    method: MethodRef,
    subsets: Sequence[str],
    lambdas: Sequence[str],
    *,
    points: Mapping[str, Sequence[str]] | None = None,
    studies: Sequence[StudyRef] = (StudyRef("addition", "addition"),),
    curves_on: Sequence[Split] = ("val",),
    outside: bool = False,
    curves: CurveRef | None = None,
) -> Plan:
    """Plan the rows of some subsets.

    Args:
        setting: base, experts and all tasks.
        method: the merge method.
        subsets: names of the subsets, e.g. ``dtd+svhn``, in any order.
        lambdas: coefficients as text, in any order; a method without a coefficient has none but its own.
        points: points with coefficients of their own, by the name of their subset; of a method without a
            coefficient there are none.
        studies: the studies that ask for rows.
        curves_on: splits on which every coefficient is measured.
        outside: measure the test rows also on the tasks outside a subset.
        curves: how sweeps over lambda are interpolated. Tangent models need no interpolation.

    Raises:
        ConfigError: if a task is unknown, a subset is empty, there is no coefficient, ``val`` is
            not in ``curves_on``, or the method cannot be measured in this way.
        LineageError: if a merged task has no task vector, or the method lacks what it needs.
    """
    if "val" not in curves_on:
        raise ConfigError("curves_on must hold val: the coefficient is selected on it")
    if method.card.coefficient == "none":
        lambdas, points = (LONE_POINT,), {}
    if not lambdas:
        raise ConfigError("lambdas is empty; give at least one number")
    names = {subset_name(parse_subset(subset)) for subset in subsets}
    if "" in names:
        raise ConfigError("the empty subset is the base itself; it has no merge")
    _check_method(method, setting, curves)
    studies = tuple(_checked(study) for study in studies)
    tasks = {task for name in names for task in parse_subset(name)}
    plan = Plan(
        setting=setting,
        method=method,
        subsets=tuple(sorted(names, key=lambda name: (name.count("+"), name))),
        lambdas=tuple(sorted(set(lambdas), key=point_order)),
        points={
            name: tuple(sorted(set(own), key=point_order))
            for name, own in sorted((points or {}).items())
            if name in names and own
        },
        studies=studies,
        curves_on=tuple(split for split in SPLITS if split in curves_on),
        outside=outside,
        curves=curves if setting.tangent is None else None,
    )
    if not outside:
        tasks |= {task for asked in plan.asked for task in asked.question.tasks}
        plan = replace(plan, setting=setting.restrict(sorted(tasks)))
    for name in plan.subsets:
        subset = parse_subset(name)
        for point in plan.sweep(subset):
            plan.point_key(subset, point, subset[0])
    return plan


def _checked(study: StudyRef) -> StudyRef:
    return replace(study, options=dict(plugin_options("study", study.name, study.options)))


def _check_method(method: MethodRef, setting: Setting, curves: CurveRef | None) -> None:
    plain = method.card.gives == "model"
    if setting.tangent is not None and not plain:
        what = {"logits": "merges logits", "features": "changes features"}.get(
            method.card.gives, "gives a model for each task"
        )
        raise ConfigError(
            f"merge method {method.name!r} {what}; tangent models are evaluated for methods that give one "
            "model alone: leave it out for them"
        )
    if curves is not None and not (plain and method.card.coefficient == "scale"):
        raise ConfigError(
            f"merge method {method.name!r} has no model that lambda moves smoothly, so nothing can be "
            "interpolated; leave evaluation.curves.interpolate off, or the method out"
        )
