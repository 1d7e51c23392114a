"""One statistic of one network: the images are chosen, the network is built, the plug-in computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from taskgrid.errors import DataError
from taskgrid.machine.meter import OpenTally, Silent, Tally
from taskgrid.models.batches import BatchChoice, BatchSize
from taskgrid.models.card import ModelCard
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.heads import Head
from taskgrid.models.inference import full_float32
from taskgrid.plugins.cards import plugin_options, statistic_card
from taskgrid.statistics.seam import (
    Examples,
    StatisticContext,
    check_finite,
    chosen_rows,
    get_statistic,
)
from taskgrid.store.weights import State

_BATCH = 32
"""Images per pass where nothing else is asked for: passes with gradients take far more than features do."""


def compute_statistic(
    name: str,
    card: ModelCard,
    weights: Mapping[str, torch.Tensor],
    head: Head | None,
    examples: Examples,
    options: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch_size: BatchChoice = "auto",
    progress: OpenTally | None = None,
) -> State:
    """Compute a statistic.

    Args:
        name: the statistic.
        card: the base model's card.
        weights: the expert's state for a statistic per task, the base's for one per base.
        head: the task's head, where the statistic's card says that it sees one.
        examples: the images of the split that the option ``split`` names; as many of them as the option
            ``images`` says are drawn.
        options: the statistic's options.
        seed: what images and labels are drawn from.
        device: where to compute.
        batch_size: images per pass, at most; halved where memory runs out.
        progress: makes a counter of images from a label and a total, e.g. ``Progress``.

    Returns:
        Named tensors on the CPU.

    Raises:
        ConfigError: if the statistic or an option is unknown, or a value does not fit.
        DataError: if there are no images, or the result is not finite.
        DeviceError: if the device has no memory for a single image.
        LineageError: if the weights do not fit the card, or the head belongs to another model.
    """
    checked = plugin_options("statistic", name, options or {})
    if not len(examples):
        raise DataError(f"the statistic {name!r} needs at least one image; choose another split")
    place = torch.device(device)
    chosen = examples.take(chosen_rows(len(examples), checked.images, seed))
    encoder = ImageEncoder.from_card(card, weights).to(place)
    shown = head.to(place) if head is not None and statistic_card(name).head else None
    plugin = get_statistic(name)

    def work(size: int) -> State:
        with full_float32(), opened(f"statistic {name}", len(chosen)) as tally:
            context = StatisticContext(encoder, chosen, checked, shown, seed, size, tally)
            return plugin.compute(context)

    opened = progress or _silent
    size = BatchSize(_BATCH if batch_size == "auto" else batch_size)
    return check_finite(name, size.fit(work))


def add_up(states: Sequence[State]) -> State:
    """Return the sum of statistics that are sums over images, added in float64.

    Args:
        states: statistics of one kind and one network, on images of one task each.
    """
    return {
        key: torch.stack([state[key].double() for state in states]).sum(dim=0).to(first.dtype)
        for key, first in states[0].items()
    }


def _silent(label: str, total: int) -> AbstractContextManager[Tally]:
    return Silent()
