"""Material that is in memory already, and stores that last as long as a call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from taskgrid.errors import ConfigError, DataError, LineageError
from taskgrid.evaluation.arguments import check_examples
from taskgrid.evaluation.engine.material import LabelledImages, Material, TaskMaterial
from taskgrid.evaluation.opening.references import tower_of
from taskgrid.evaluation.plan import keys
from taskgrid.evaluation.plan.setting import Evaluation, Part, Setting, Shown, TaskRef
from taskgrid.merging.seam import Learned, Statistics, given_statistic
from taskgrid.models.card import ModelCard
from taskgrid.models.heads import Head, check_head
from taskgrid.plugins.cards import statistic_card
from taskgrid.provenance.digests import digest, digest_bytes
from taskgrid.store.outcome import Outcome
from taskgrid.store.weights import State, digest_state
from taskgrid.vectors import TaskVector, subtract

Examples = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images ``(n, S, S, 3)`` uint8 at the model's size, RGB, not normalised; and their labels ``(n,)``."""


@dataclass(frozen=True)
class EvaluationTask:
    """A task to evaluate on.

    Attributes:
        head: its zero-shot head.
        val: the images that lambda is chosen on.
        test: the images that the chosen model is measured on.
        train: those that experts are trained on, for methods that learn from them; None gives none.
    """

    head: Head
    val: Examples
    test: Examples
    train: Examples | None = None

    def part(self, split: Shown) -> Examples:
        """Return the images of a split.

        Raises:
            DataError: if there are none.
        """
        found = self.parts.get(split)
        if found is None:
            raise DataError(
                f"no {split} images are given; give them to EvaluationTask as `{split}`"
            )
        return found

    @property
    def parts(self) -> dict[Shown, Examples]:
        """The images by split, as far as there are any."""
        given: dict[Shown, Examples] = {"val": self.val, "test": self.test}
        return given | ({"train": self.train} if self.train is not None else {})


@dataclass(frozen=True)
class Held:
    """All that a call was given.

    Attributes:
        base: theta_0.
        card: its model card.
        tasks: heads and images.
        vectors: task -> tau_t.
        experts: task -> theta_t, where they were given.
        statistics: name -> task -> statistic; of one of the base, name -> statistic.
        learned: merge method -> name of a subset -> what it learned for it.
    """

    base: State
    card: ModelCard
    tasks: Mapping[str, EvaluationTask]
    vectors: Mapping[str, State]
    experts: Mapping[str, State] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=dict)
    learned: Mapping[str, Mapping[str, Learned]] = field(default_factory=dict)

    def material(self, method: str | None = None) -> Material:
        """Return it as an engine wants it that measures a merge method; None where none is measured."""
        return Material(
            card=self.card,
            base=lambda: self.base,
            tasks={name: self._task(name, task) for name, task in self.tasks.items()},
            statistics=_all_given(self._statistics("")),
            learned={name: partial(_given, found) for name, found in self._learned(method).items()},
        )

    def setting(
        self, model: str, mode: str, seed: int, precision: str, evaluation: Evaluation
    ) -> Setting:
        """Return what rows depend on.

        Raises:
            LineageError: if the base is not its card's, or a head is of another text tower.
            ConfigError: if a task has a vector, but no images and no head.
            DataError: if images are not as the model takes them, or do not fit to their labels.
        """
        content = digest_state(self.base)
        if content != self.card.base:
            raise LineageError(
                f"the base given has digest {content}, but its card says {self.card.base}; "
                "use the card of this base"
            )
        unknown = sorted(self.vectors.keys() - self.tasks.keys())
        if unknown:
            raise ConfigError(f"no images and head are given for task {unknown[0]!r}")
        return Setting(
            model=model,
            mode=mode,
            seed=seed,
            base=content,
            tower=tower_of(self.card),
            kernel=keys.kernel_code(),
            precision=precision,
            tasks={task: self._ref(task) for task in sorted(self.tasks)},
            statistics=_digests(self._statistics("")),
            tangent=keys.tangent_code() if evaluation == "tangent" else None,
        )

    def learned_digests(self, method: str) -> dict[str, str]:
        """Return digests of what a method learned, by the name of the subset."""
        return {name: digest_state(dict(found)) for name, found in self._learned(method).items()}

    def _learned(self, method: str | None) -> Mapping[str, Learned]:
        return self.learned.get(method, {}) if method is not None else {}

    def _task(self, name: str, task: EvaluationTask) -> TaskMaterial:
        trained = name in self.vectors
        return TaskMaterial(
            head=lambda: task.head,
            images=partial(_images, task),
            expert=partial(self._expert, name) if trained else None,
            vector=partial(_given, self.vectors[name]) if trained else None,
            statistics=_all_given(self._statistics(name)),
        )

    def _expert(self, task: str) -> State:
        if task in self.experts:
            return self.experts[task]
        return TaskVector(self.vectors[task]).apply_to(self.base, 1.0)

    def _ref(self, task: str) -> TaskRef:
        head, parts = self.tasks[task].head, self.tasks[task].parts
        check_head(head, self.card)
        for split, own in parts.items():
            check_examples(task, split, *own, size=self.card.image_size, classes=len(head.classes))
        trained = task in self.vectors
        return TaskRef(
            head=digest_state({"weight": head.weight}),
            parts={split: _part(own) for split, own in parts.items()},
            expert=digest_state(self._expert(task)) if trained else None,
            vector=digest_state(dict(self.vectors[task])) if trained else None,
            statistics=_digests(self._statistics(task)),
        )

    def _statistics(self, task: str) -> dict[str, State]:
        per = "task" if task else "base"
        named = sorted(name for name in self.statistics if statistic_card(name).per == per)
        found = {name: given_statistic(self.statistics, name, task) for name in named}
        return {name: state for name, state in found.items() if state is not None}


class HeldOutcomes:
    """Outcomes for as long as the call lasts."""

    def __init__(self) -> None:
        self._outcomes: dict[str, Outcome] = {}

    def find(self, keys: Iterable[str]) -> dict[str, Outcome]:
        """Return the outcomes that are held, by key."""
        return {key: self._outcomes[key] for key in keys if key in self._outcomes}

    @contextmanager
    def writer(self) -> Iterator[HeldOutcomes]:
        """Return what takes outcomes."""
        yield self

    def add(self, outcome: Outcome) -> None:
        """Take one outcome."""
        self._outcomes[outcome.key] = outcome


class HeldFeatures:
    """Features for as long as the call lasts."""

    def __init__(self) -> None:
        self._features: dict[str, torch.Tensor] = {}

    def find(self, key: str) -> torch.Tensor | None:
        """Return the features ``(n, D)`` of a key, or None."""
        return self._features.get(key)

    def add(self, key: str, features: torch.Tensor) -> None:
        """Keep features under a key."""
        self._features[key] = features


def vectors_of(
    base: State,
    experts: Mapping[str, State] | None,
    vectors: Mapping[str, TaskVector] | None,
) -> dict[str, State]:
    """Return task vectors, from experts or as they were given.

    Raises:
        ConfigError: if both are given, or none.
        LineageError: if an expert or a vector belongs to another base.
    """
    if (experts is None) == (vectors is None):
        raise ConfigError("give experts or vectors, one of the two")
    if experts is not None:
        return {task: subtract(base, state, task) for task, state in experts.items()}
    content = digest_state(base)
    for task, vector in (vectors or {}).items():
        if vector.lineage.get("base", content) != content:
            raise LineageError(
                f"the vector of task {task!r} was made from base {vector.lineage['base']}, "
                f"but the base given has digest {content}; use its own base"
            )
    return {task: vector.deltas for task, vector in (vectors or {}).items()}


def _given(found: Learned) -> State:
    return dict(found)


def _all_given(found: Mapping[str, State]) -> dict[str, partial[State]]:
    return {name: partial(_given, state) for name, state in found.items()}


def _digests(found: Mapping[str, State]) -> dict[str, str]:
    return {name: digest_state(state) for name, state in found.items()}


def _images(task: EvaluationTask, split: Shown) -> LabelledImages:
    pixels, labels = task.part(split)
    return LabelledImages(pixels, np.arange(len(labels)), np.asarray(labels, dtype=np.int64))


def _part(examples: Examples) -> Part:
    pixels, labels = examples
    content = digest_bytes(
        np.ascontiguousarray(pixels).tobytes() + np.asarray(labels, dtype=np.int64).tobytes()
    )
    return Part(content, digest(list(range(len(labels)))), len(labels))
