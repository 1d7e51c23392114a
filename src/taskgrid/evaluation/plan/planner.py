"""Plans: what a block of the grid consists of, as data.

A plan names everything its numbers depend on by digest and holds nothing else, so equal inputs give
equal bytes, and a plan changes only when one of its own rows does. Planning touches no weights and
no images and imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from taskgrid.errors import ArtifactError, ConfigError, LineageError
from taskgrid.evaluation.plan import keys
from taskgrid.lattice.points import lambda_value
from taskgrid.lattice.subsets import canonical_subset, parse_subset, subset_name
from taskgrid.store.atomic import read_json, write_json

Split = Literal["val", "test"]

SPLITS: tuple[Split, ...] = ("val", "test")
"""The splits that are measured."""

Evaluation = Literal["plain", "tangent"]
"""How experts and merges are measured: as the networks they are, or as tangent models at theta_0."""


@dataclass(frozen=True)
class Part:
    """The images of one split of one task.

    Attributes:
        file: digest of the file of decoded images and their labels that they stand in.
        ids: digest of their names in split order.
        n: how many there are.
    """

    file: str
    ids: str
    n: int

    @property
    def images(self) -> str:
        """The key of these images."""
        return keys.images_key(self.file, self.ids)


@dataclass(frozen=True)
class TaskRef:
    """A task as rows depend on it.

    Attributes:
        head: digest of its head.
        parts: its validation and test images.
        expert: digest of its expert's state; None for a task without one.
        vector: digest of its task vector; None for a task without one.
    """

    head: str
    parts: dict[Split, Part]
    expert: str | None = None
    vector: str | None = None


@dataclass(frozen=True)
class MethodRef:
    """A merge method as rows depend on it.

    Attributes:
        name: its name.
        options: all its options, defaults filled in.
        code: ``keys.computing_code`` of its module.
        seed: what its random draws come from; None for a method that draws nothing.
    """

    name: str
    options: dict[str, Any]
    code: str
    seed: int | None = None


@dataclass(frozen=True)
class CurveRef:
    """How lambda curves are interpolated, as rows depend on it.

    Attributes:
        nodes: exact evaluations to start with.
        tolerance: the loosest bound on accuracy that an interpolated row may have.
        code: ``keys.curves_code``.
    """

    nodes: int
    tolerance: float
    code: str


@dataclass(frozen=True)
class Weights:
    """One state of the encoder.

    Attributes:
        kind: the base, a task's expert, or a merge.
        subset: the expert's task, or the merged tasks in canonical order; empty for the base.
        scale: lambda of a merge as text.
    """

    kind: Literal["base", "expert", "merge"]
    subset: tuple[str, ...] = ()
    scale: str = "0.00"


BASE = Weights("base")


@dataclass(frozen=True)
class Request:
    """One row to be measured.

    Attributes:
        key: the row's key.
        weights: what the encoder holds.
        task: whose images and head.
        split: which of its images.
        n: how many these are.
    """

    key: str
    weights: Weights
    task: str
    split: Split
    n: int


@dataclass(frozen=True)
class Setting:
    """A base model, the experts of one mode and seed, and their tasks.

    Attributes:
        model: the base model's name.
        mode: fine-tuning mode.
        seed: fine-tuning seed.
        base: digest of the base's state.
        tower: ``keys.tower_key`` of the model.
        kernel: ``keys.kernel_code``.
        precision: ``fp32`` or ``bf16``.
        tasks: the tasks by name.
        tangent: ``keys.tangent_code`` where experts and merges are measured as tangent models; None
            where they are measured as they are. The base is its own tangent model: its rows are the
            same ones either way.
    """

    model: str
    mode: str
    seed: int
    base: str
    tower: str
    kernel: str
    precision: str
    tasks: dict[str, TaskRef]
    tangent: str | None = None

    @property
    def evaluation(self) -> Evaluation:
        """How experts and merges are measured."""
        return "plain" if self.tangent is None else "tangent"

    def restrict(self, tasks: Sequence[str]) -> Setting:
        """Return the setting with some of its tasks only.

        Raises:
            ConfigError: if a task is unknown.
        """
        return replace(self, tasks={task: self.task(task) for task in canonical_subset(tasks)})

    def task(self, name: str) -> TaskRef:
        """Return a task.

        Raises:
            ConfigError: if it is unknown.
        """
        if name not in self.tasks:
            raise ConfigError(f"task {name!r} is not one of {', '.join(sorted(self.tasks))}")
        return self.tasks[name]

    @cached_property
    def base_key(self) -> str:
        """The key of the base's weights."""
        return keys.state_key(self.base)

    @property
    def experts(self) -> tuple[str, ...]:
        """The tasks that have an expert, sorted."""
        return tuple(sorted(task for task, ref in self.tasks.items() if ref.expert is not None))

    def zeroshot(self, task: str, split: Split) -> Request:
        """Return the request for the base's row on a task."""
        return self.request(BASE, self.base_key, task, split)

    def expert(self, expert: str, task: str, split: Split) -> Request:
        """Return the request for an expert's row on a task.

        Raises:
            LineageError: if the task ``expert`` has no expert.
        """
        state = self.task(expert).expert
        if state is None:
            raise LineageError(f"task {expert!r} has no expert in mode {self.mode!r}; train one")
        return self.request(
            Weights("expert", (expert,), "1.00"), keys.state_key(state), task, split
        )

    def request(self, weights: Weights, weights_key: str, task: str, split: Split) -> Request:
        """Return the request for any weights' row on a task."""
        kernel = self.kernel if weights.kind == "base" or self.tangent is None else self.tangent
        key = keys.row_key(weights_key, self._context(kernel, task, split))
        return Request(key, weights, task, split, self.task(task).parts[split].n)

    def _context(self, kernel: str, name: str, split: Split) -> str:
        if (kernel, name, split) not in self._contexts:
            task = self.task(name)
            self._contexts[kernel, name, split] = keys.context_key(
                images=task.parts[split].images,
                head=task.head,
                tower=self.tower,
                precision=self.precision,
                kernel=kernel,
            )
        return self._contexts[kernel, name, split]

    @cached_property
    def _contexts(self) -> dict[tuple[str, str, Split], str]:
        return {}


@dataclass(frozen=True)
class Plan:
    """One block of the grid of one method.

    Attributes:
        setting: base, experts and tasks; only those the block needs.
        method: the merge method.
        subsets: names of the subsets.
        lambdas: scaling coefficients as text, increasing.
        studies: names of the studies that ask for rows.
        curves_on: splits on which every coefficient is measured; ``val`` is always one of them.
        outside: measure the test rows also on the tasks outside a subset.
        curves: how sweeps over lambda are interpolated; None where every point is evaluated.
    """

    setting: Setting
    method: MethodRef
    subsets: tuple[str, ...]
    lambdas: tuple[str, ...]
    studies: tuple[str, ...] = ("addition",)
    curves_on: tuple[Split, ...] = ("val",)
    outside: bool = False
    curves: CurveRef | None = None
    format: Literal[1] = field(default=1, kw_only=True)

    def merged(self, subset: Sequence[str], scale: str, task: str, split: Split) -> Request:
        """Return the request for a grid point's row on a task."""
        weights = Weights("merge", tuple(subset), scale) if lambda_value(scale) else BASE
        return self.setting.request(weights, self.point_key(subset, scale), task, split)

    def interpolated(
        self, subset: Sequence[str], scale: str, task: str, split: Split, nodes: Sequence[str]
    ) -> Request:
        """Return what would be the request for a point, were it not interpolated from nodes."""
        code = self.curves.code if self.curves is not None else ""
        key = keys.interpolated_key(self._merge_key(tuple(subset)), scale, nodes, code)
        return self.setting.request(Weights("merge", tuple(subset), scale), key, task, split)

    def point_key(self, subset: Sequence[str], scale: str) -> str:
        """Return the key of a grid point's weights; of the base for the empty subset."""
        if not subset:
            return self.setting.base_key
        return keys.point_key(self._merge_key(tuple(subset)), scale, self.setting.base_key)

    def predicted(
        self,
        subset: Sequence[str],
        scale: str,
        task: str,
        split: Split,
        evaluated: Sequence[str],
        code: str,
    ) -> Request:
        """Return what would be the request for a point, were it not predicted from others.

        Args:
            subset: the merged tasks.
            scale: lambda as text.
            task: whose images and head.
            split: which of its images.
            evaluated: ``point_key`` of the points that were evaluated.
            code: ``keys.budget_code``.
        """
        key = keys.predicted_key(self._merge_key(tuple(subset)), scale, evaluated, code)
        return self.setting.request(Weights("merge", tuple(subset), scale), key, task, split)

    def _merge_key(self, subset: tuple[str, ...]) -> str:
        if subset not in self._merge_keys:
            vectors = []
            for task in subset:
                vector = self.setting.task(task).vector
                if vector is None:
                    raise LineageError(
                        f"task {task!r} has no task vector in mode {self.setting.mode!r}; train one"
                    )
                vectors.append(vector)
            self._merge_keys[subset] = keys.merge_key(
                method=self.method.name,
                options=self.method.options,
                code=self.method.code,
                base=self.setting.base,
                vectors=vectors,
                seed=self.method.seed,
            )
        return self._merge_keys[subset]

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
    studies: Sequence[str] = ("addition",),
    curves_on: Sequence[Split] = ("val",),
    outside: bool = False,
    curves: CurveRef | None = None,
) -> Plan:
    """Plan the rows of some subsets.

    Args:
        setting: base, experts and all tasks.
        method: the merge method.
        subsets: names of the subsets, e.g. ``dtd+svhn``, in any order.
        lambdas: coefficients as text, in any order.
        studies: names of the studies that ask for rows.
        curves_on: splits on which every coefficient is measured.
        outside: measure the test rows also on the tasks outside a subset.
        curves: how sweeps over lambda are interpolated. Tangent models need no interpolation.

    Raises:
        ConfigError: if a task is unknown, a subset is empty, there is no coefficient, or ``val`` is
            not in ``curves_on``.
        LineageError: if a merged task has no task vector.
    """
    if "val" not in curves_on:
        raise ConfigError("curves_on must hold val: the coefficient is selected on it")
    if not lambdas:
        raise ConfigError("lambdas is empty; give at least one number")
    names = {subset_name(parse_subset(subset)) for subset in subsets}
    if "" in names:
        raise ConfigError("the empty subset is the base itself; it has no merge")
    tasks = sorted({task for name in names for task in parse_subset(name)})
    plan = Plan(
        setting=setting.restrict(list(setting.tasks) if outside else tasks),
        method=method,
        subsets=tuple(sorted(names, key=lambda name: (name.count("+"), name))),
        lambdas=tuple(sorted(set(lambdas), key=lambda_value)),
        studies=tuple(studies),
        curves_on=tuple(split for split in SPLITS if split in curves_on),
        outside=outside,
        curves=curves if setting.tangent is None else None,
    )
    for name in plan.subsets:
        plan.merged(parse_subset(name), plan.lambdas[-1], parse_subset(name)[0], "val")
    return plan
