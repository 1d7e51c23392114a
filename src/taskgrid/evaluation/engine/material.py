"""What an engine measures, and where each piece comes from: files or memory. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from taskgrid.errors import LineageError
from taskgrid.evaluation.plan.setting import Shown
from taskgrid.models.card import ModelCard
from taskgrid.store.images import PixelRows

if TYPE_CHECKING:
    from taskgrid.merging.seam import Learned, Sources
    from taskgrid.models.heads import Head
    from taskgrid.store.weights import State


@dataclass(frozen=True)
class LabelledImages(PixelRows):
    """Images of one split of one task, in split order.

    Attributes:
        labels: true classes, ``(n,)`` int64.
    """

    labels: NDArray[np.int64]


@dataclass(frozen=True)
class TaskMaterial:
    """What there is of one task; each piece is made or read when it is called for.

    Attributes:
        head: its zero-shot head.
        images: the images of a split.
        expert: theta_t; None for a task without an expert.
        vector: tau_t; None for a task without one.
        statistics: label -> statistic.
    """

    head: Callable[[], Head]
    images: Callable[[Shown], LabelledImages]
    expert: Callable[[], State] | None = None
    vector: Callable[[], State] | None = None
    statistics: Mapping[str, Callable[[], State]] = field(default_factory=dict)


@dataclass(frozen=True)
class Material:
    """What there is of a base and its tasks.

    Attributes:
        card: the base model's card.
        base: theta_0.
        tasks: the tasks by name.
        statistics: label -> statistic of the base.
        learned: name of a subset -> what was learned for it.
    """

    card: ModelCard
    base: Callable[[], State]
    tasks: Mapping[str, TaskMaterial]
    statistics: Mapping[str, Callable[[], State]] = field(default_factory=dict)
    learned: Mapping[str, Callable[[], Learned]] = field(default_factory=dict)

    @property
    def vector_count(self) -> int:
        """How many tasks have a vector."""
        return sum(task.vector is not None for task in self.tasks.values())

    def expert(self, task: str) -> State:
        """Return theta_t.

        Raises:
            LineageError: if it is not at hand.
        """
        found = self.tasks[task].expert
        if found is None:
            raise LineageError(
                f"the outcomes of the expert of task {task!r} are not in the store; run the reference "
                "rule of its model, mode and seed again"
            )
        return found()

    def vector(self, task: str) -> State:
        """Return tau_t.

        Raises:
            LineageError: if it is not at hand.
        """
        found = self.tasks[task].vector
        if found is None:
            raise LineageError(f"task {task!r} has no task vector; run the taskvector rule first")
        return found()

    def sources(self, vector: Callable[[str], State], needs: Mapping[str, str]) -> Sources:
        """Return where the ingredients of merges come from.

        Args:
            vector: gives task vectors, where they are to be computed with.
            needs: the statistics that a method reads: name -> label.
        """
        from taskgrid.merging.seam import Sources

        def statistic(name: str, task: str) -> State:
            known = self.tasks[task].statistics if task else self.statistics
            label = needs.get(name, name)
            if label not in known:
                whose = f"of task {task!r}" if task else "of the base"
                raise LineageError(
                    f"the statistic {label!r} {whose} is not at hand; run the statistics rule first"
                )
            return known[label]()

        def learned(subset: tuple[str, ...]) -> Learned:
            name = "+".join(subset)
            if name not in self.learned:
                raise LineageError(f"nothing was learned for {name}; run the learn rule first")
            return self.learned[name]()

        return Sources(vector, statistic, learned)
