"""Learning as one call: states, heads and arrays in, what was learned out; no files, no workflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from taskgrid.evaluation.arguments import read_device
from taskgrid.evaluation.learning import learn
from taskgrid.evaluation.opening.memory import EvaluationTask, Held, vectors_of
from taskgrid.evaluation.plan.setting import Evaluation
from taskgrid.machine.meter import OpenTally
from taskgrid.machine.progress import Progress
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Learned
from taskgrid.models.card import ModelCard
from taskgrid.store.weights import State
from taskgrid.vectors import TaskVector


def learn_coefficients(
    method: str,
    base: State,
    card: ModelCard,
    tasks: Mapping[str, EvaluationTask],
    *,
    experts: Mapping[str, State] | None = None,
    vectors: Mapping[str, TaskVector] | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    evaluation: Evaluation = "plain",
    progress: OpenTally = Progress,
    **options: Any,
) -> Learned:
    """Learn what a method needs for all given tasks; for ``merge(..., learned=...)`` and ``evaluate_grid``.

    Args:
        method: a merge method that learns.
        base: theta_0.
        card: its model card.
        tasks: heads and images of the tasks to be merged, by name. No labels are looked at.
        experts: task -> theta_t. Give these or ``vectors``.
        vectors: task -> tau_t.
        seed: what the order of images is drawn from.
        device: where to compute.
        evaluation: ``tangent`` learns with tangent models at theta_0.
        progress: makes a counter of images from a label and a total.
        **options: the method's own options.

    Returns:
        task -> coefficients, float64; of a method that learns tensors, these by their names.

    Raises:
        ConfigError: if the method or an option is unknown, or the method learns nothing.
        DataError: if a task has no images.
        DeviceError: if there is no such device, or it has no memory for a batch.
        LineageError: if experts, vectors or heads do not belong to the base.
        TrainingError: if the loss is not finite.
    """
    held = Held(base, card, dict(tasks), vectors_of(base, experts, vectors), dict(experts or {}))
    setting = held.setting("model", "mode", seed, "fp32", evaluation)
    recipe = MergeRecipe.of(method, options)
    place = read_device(device)
    return learn(held.material(), setting, recipe, [*tasks], place, progress).learned
