"""What rows depend on, as data: a base, experts, tasks, a merge method; and the rows that are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from taskgrid.errors import ConfigError, LineageError
from taskgrid.evaluation.plan import keys
from taskgrid.lattice.points import Coefficients, read_point
from taskgrid.lattice.subsets import canonical_subset
from taskgrid.plugins.cards import MergerCard, merger_card, shown_options
from taskgrid.store import images

Split = Literal["val", "test"]

SPLITS: tuple[Split, ...] = ("val", "test")
"""The splits that are measured."""

Shown = images.Split
"""The splits that a method may learn from."""


def images_of(options: Mapping[str, Any]) -> Shown:
    """Return whose images a method with these options learns from."""
    found: Shown = options.get("images", "val")
    return found


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
        parts: its images, by split: those that are measured, and training images where there are any.
        expert: digest of its expert's state; None for a task without one.
        vector: digest of its task vector; None for a task without one.
        statistics: digests of its statistics, by label.
    """

    head: str
    parts: Mapping[Shown, Part]
    expert: str | None = None
    vector: str | None = None
    statistics: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodRef:
    """A merge method as rows depend on it.

    Attributes:
        name: its name.
        options: all its options, defaults filled in.
        code: ``keys.computing_code`` of its module.
        seed: what its random draws come from; None for a method that draws nothing.
        needs: the statistics it reads: name -> label.
        learned: digests of what was learned for it, by the name of the subset.
        transductive: whether that was learned from test images.
    """

    name: str
    options: dict[str, Any]
    code: str
    seed: int | None = None
    needs: dict[str, str] = field(default_factory=dict)
    learned: dict[str, str] = field(default_factory=dict)
    transductive: bool = False

    @cached_property
    def card(self) -> MergerCard:
        """What the method says of itself."""
        return merger_card(self.name)

    @property
    def shown(self) -> dict[str, Any]:
        """The options as tables show them."""
        return shown_options(self.name, self.options)


@dataclass(frozen=True)
class Weights:
    """One state of the encoder.

    Attributes:
        kind: the base, a task's expert, or a merge.
        subset: the expert's task, or the merged tasks in canonical order; empty for the base.
        point: the coefficients of a merge as text.
        task: whose model it is, of a method with a model for each task.
    """

    kind: Literal["base", "expert", "merge"]
    subset: tuple[str, ...] = ()
    point: str = "0.00"
    task: str | None = None

    @property
    def coefficients(self) -> Coefficients:
        """The coefficients of a merge."""
        return read_point(self.point)


BASE = Weights("base")


def expert_weights(task: str) -> Weights:
    """Return the weights of a task's expert."""
    return Weights("expert", (task,), "1.00")


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
        statistics: digests of the base's statistics, by label.
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
    statistics: dict[str, str] = field(default_factory=dict)
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

    def learned_from(self, subset: Sequence[str], split: Shown) -> dict[str, str | None]:
        """Return the digests of all that coefficients of a subset are learned from.

        Args:
            subset: the merged tasks.
            split: whose images are looked at.
        """
        found: dict[str, str | None] = {
            "base": self.base,
            "tower": self.tower,
            "evaluation": self.evaluation,
        }
        for name in canonical_subset(subset):
            task = self.task(name)
            found |= {
                f"{name}.vector": task.vector,
                f"{name}.head": task.head,
                f"{name}.images": task.parts[split].images,
            }
        return found

    @cached_property
    def base_key(self) -> str:
        """The key of the base's weights."""
        return keys.state_key(self.base)

    @property
    def experts(self) -> tuple[str, ...]:
        """The tasks that have an expert, sorted."""
        return tuple(sorted(task for task, ref in self.tasks.items() if ref.expert is not None))

    @property
    def controls(self) -> tuple[str, ...]:
        """The tasks that have none, sorted."""
        return tuple(sorted(task for task, ref in self.tasks.items() if ref.expert is None))

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
        return self.request(expert_weights(expert), keys.state_key(state), task, split)

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
