"""The learning seam: how a method finds coefficients or tensors for a subset, before *prepare* uses them.

A method whose card says ``learned`` has ``learn`` beside ``prepare``. It looks at validation images, or at
those that its option ``images`` names; ``test`` makes its rows transductive. It sees labels only if its
card says ``labels``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from taskgrid.machine.meter import Tally
from taskgrid.merging.seam import Learned
from taskgrid.models.heads import Head
from taskgrid.plugins.options import Options
from taskgrid.store.weights import State

Features: TypeAlias = Callable[[Mapping[str, torch.Tensor], torch.Tensor], torch.Tensor]
"""Features ``(B, D)`` of inputs ``(B, 3, S, S)`` under a state; can be differentiated by the state."""


@dataclass(frozen=True)
class LearningTask:
    """A merged task as a method sees it that learns.

    Attributes:
        vector: tau_t, on the device.
        head: its head, on the device.
        count: how many images there are.
        inputs: rows of images -> what the network is given, ``(B, 3, S, S)`` on the device.
        labels: their true classes, ``(count,)`` int64 on the device, for a card that says ``labels``.
    """

    vector: Mapping[str, torch.Tensor]
    head: Head
    count: int
    inputs: Callable[[NDArray[np.int64]], torch.Tensor]
    labels: torch.Tensor | None = None


@dataclass(frozen=True)
class LearningProblem:
    """What ``learn`` may look at.

    Attributes:
        base: theta_0, on the device.
        tasks: the merged tasks, in canonical order.
        features: the network, as a function of its state.
        tangent: whether it is a tangent model, whose features are affine in its state.
        tower: the module that ``features`` runs, for methods that listen to its layers; its own weights
            are nobody's. None of a tangent model, whose layers see no merged weights.
    """

    base: State
    tasks: Mapping[str, LearningTask]
    features: Features
    tangent: bool = False
    tower: nn.Module | None = None

    def logits(
        self, state: Mapping[str, torch.Tensor], task: str, rows: NDArray[np.int64]
    ) -> torch.Tensor:
        """Return the logits ``(B, C)`` of some of a task's images under its head."""
        found = self.tasks[task]
        return found.head.logits(self.features(state, found.inputs(rows)))


@dataclass(frozen=True)
class Learning:
    """What came of it.

    Attributes:
        coefficients: task -> float64, on the CPU; kept as text.
        history: (step, loss before it), in order; where no step is taken, of what was tried.
        tensors: what is too large for that, by names that are no task's, in dtypes that safetensors has.
    """

    coefficients: Learned
    history: tuple[tuple[int, float], ...] = ()
    tensors: State = field(default_factory=dict)

    @property
    def learned(self) -> Learned:
        """Both, as ``MergeContext.learned`` gives them."""
        return {**self.coefficients, **self.tensors}


class Learner(Protocol):
    """What a merge method is beside a merger if its card says ``learned``."""

    def learn(
        self, problem: LearningProblem, options: Options, seed: int, tally: Tally
    ) -> Learning:
        """Return what was found for the problem's tasks; on a CPU, equal inputs give equal bits.

        Args:
            problem: base, vectors, heads, images and the network.
            options: the method's options.
            seed: what the order of images is drawn from.
            tally: is told of images that have been passed; ``images_to_pass`` says how many will be.

        Raises:
            TrainingError: if the loss is not finite.
        """
        ...

    def images_to_pass(self, problem: LearningProblem, options: Options) -> int:
        """Return how many images ``learn`` passes through the network in all."""
        ...
