"""Transport by hand: experts of one base in, experts of another out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import torch

from taskgrid.alignment.images import Images
from taskgrid.alignment.maps import Transport
from taskgrid.alignment.output import output_map, with_output
from taskgrid.alignment.seam import AlignContext, get_aligner
from taskgrid.alignment.sides import Side
from taskgrid.errors import ConfigError
from taskgrid.models.batches import BatchSize
from taskgrid.models.card import ModelCard
from taskgrid.models.heads import Head
from taskgrid.models.inference import full_float32
from taskgrid.plugins.cards import aligner_card, plugin_options
from taskgrid.statistics.seam import Examples
from taskgrid.store.weights import State
from taskgrid.vectors import subtract

States = Mapping[str, Mapping[str, torch.Tensor]]

Carry: TypeAlias = Literal["vector", "model"]
"""What a transport is applied to: theta_t - theta_0, added to the target's base; or theta_t itself."""


def transport(
    aligner: str,
    source_base: Mapping[str, torch.Tensor],
    source_experts: States,
    target_base: Mapping[str, torch.Tensor],
    *,
    source_card: ModelCard | None = None,
    target_card: ModelCard | None = None,
    carry: Carry = "vector",
    images: Mapping[str, Examples] | None = None,
    heads: Mapping[str, Head] | None = None,
    source_heads: Mapping[str, Head] | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    **options: Any,
) -> dict[str, State]:
    """Bring experts of one base to another: theta_0' + T(theta_t - theta_0) for each task.

    Args:
        aligner: name of an aligner; see ``alignment.aligners()``.
        source_base: theta_0, the state that the experts started from.
        source_experts: task -> theta_t, with the keys, shapes and dtypes of ``source_base``.
        target_base: theta_0', the base that they are brought to.
        source_card: model card of the source; without both cards, activations are not compared.
        target_card: model card of the target.
        carry: ``model`` gives T(theta_t), the expert itself in the target's channels. Far from
            theta_0', it is for methods that merge models; its vector is T(theta_t) - theta_0'.
        images: task -> training images, at both bases' size, for aligners that look at them; labels are seen
            by those alone whose cards say so. An aligner of a task is shown that task's images.
        heads: task -> head of the target, for aligners that see labels.
        source_heads: task -> head of the source, of a model that is carried whole: with the same tasks'
            ``heads`` its features are mapped to fit those as they fit its own (``output.output_map``).
        device: where aligners that look at images run both networks.
        seed: for aligners that draw.
        **options: the aligner's own options.

    Returns:
        task -> expert with the keys, shapes and dtypes of ``target_base``, to be merged like any other.

    Raises:
        ConfigError: if the aligner or an option is unknown, a value does not fit, no expert is given, or
            images or heads that the aligner looks at are not.
        DataError: if there are no images.
        DeviceError: if the device has no memory for a single image.
        LineageError: if an expert does not fit the source, or the aligner cannot bring the one base's
            vectors to the other; or heads of both are not those of the same tasks.

    Examples:
        >>> base, expert = {"weight": torch.tensor([1.0, 2.0])}, {"weight": torch.tensor([1.5, 2.0])}
        >>> other_base = {"weight": torch.tensor([3.0, 3.0])}
        >>> transport("none", base, {"a": expert}, other_base)["a"]["weight"]
        tensor([3.5000, 3.0000])
    """
    if not source_experts:
        raise ConfigError("there is no expert to transport; give at least one")
    source, target = Side(source_base, source_card), Side(target_base, target_card)
    place, per_task = torch.device(device), aligner_card(aligner).per == "task"
    if per_task and carry == "model":
        raise ConfigError(
            f"aligner {aligner!r} brings a task's vector over and no whole model; use carry='vector'"
        )
    if source_heads and carry == "vector":
        raise ConfigError(
            "source_heads are for a model that is carried whole; use carry='model', or leave them out"
        )
    shared: Transport | None = None
    experts = {}
    for task, expert in source_experts.items():
        vector = subtract(source_base, expert, task)
        found = shared
        if found is None:
            own = {
                name: one for name, one in (images or {}).items() if name == task or not per_task
            }
            shown = Images(own, heads or {}, place)
            found = transport_of(aligner, source, target, task, vector, options, seed, shown)
            if source_heads:
                found = with_output(found, output_map(source_heads, heads or {})[0])
            shared = None if per_task else found
        experts[task] = (
            found.model(target_base, expert)
            if carry == "model"
            else found.expert(target_base, vector)
        )
    return experts


def transport_of(
    aligner: str,
    source: Side,
    target: Side,
    task: str = "",
    vector: State | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    images: Images | None = None,
) -> Transport:
    """Return the transport that an aligner finds, for the bases or for a task vector.

    Args:
        aligner: name of an aligner.
        source: the base that vectors belong to.
        target: the base that they are to be brought to.
        task: the task, for an aligner of a task; of one of bases it is kept hidden.
        vector: its task vector, float32; the same.
        options: the aligner's options.
        seed: for aligners that draw.
        images: what an aligner is shown that looks at images; an aligner that does not sees nothing of it.

    Raises:
        ConfigError: if the aligner or an option is unknown, a value does not fit, or a head is missing.
        DataError: if there are no images for an aligner that looks at them.
        DeviceError: if the device has no memory for a single image.
        LineageError: if the aligner cannot bring the one base's vectors to the other.
    """
    card, checked = aligner_card(aligner), plugin_options("aligner", aligner, options or {})
    context = AlignContext(source, target, options=checked, seed=seed)
    if card.per == "task":
        context = replace(context, task=task, vector=vector or {})
    plugin, sees = get_aligner(aligner), card.looks_at(checked)
    if sees == "nothing":
        return plugin.align(context)
    shown = (images or Images({})).shown_to(aligner, sees, target.the_card())

    def work(size: int) -> Transport:
        return plugin.align(replace(context, images=replace(shown, batch_size=size)))

    with full_float32():
        return BatchSize(shown.batch_size).fit(work)
