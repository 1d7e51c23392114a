"""Transport by hand: experts of one base in, experts of another out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from taskgrid import plugins
from taskgrid.alignment.maps import Transport
from taskgrid.alignment.seam import AlignContext, Side, get_aligner
from taskgrid.errors import ConfigError
from taskgrid.models.card import ModelCard
from taskgrid.plugins.cards import plugin_options
from taskgrid.store.weights import State
from taskgrid.vectors import subtract

States = Mapping[str, Mapping[str, torch.Tensor]]


def aligners() -> tuple[str, ...]:
    """Return the names of all aligners, sorted."""
    return tuple(sorted(plugins.names("aligner")))


def transport(
    aligner: str,
    source_base: Mapping[str, torch.Tensor],
    source_experts: States,
    target_base: Mapping[str, torch.Tensor],
    *,
    source_card: ModelCard | None = None,
    target_card: ModelCard | None = None,
    seed: int = 0,
    **options: Any,
) -> dict[str, State]:
    """Bring experts of one base to another: theta_0' + T(theta_t - theta_0) for each task.

    Args:
        aligner: name of an aligner; see ``aligners()``.
        source_base: theta_0, the state that the experts started from.
        source_experts: task -> theta_t, with the keys, shapes and dtypes of ``source_base``.
        target_base: theta_0', the base that they are brought to.
        source_card: model card of the source; without both cards, activations are not compared.
        target_card: model card of the target.
        seed: for aligners that draw.
        **options: the aligner's own options.

    Returns:
        task -> expert with the keys, shapes and dtypes of ``target_base``, to be merged like any other.

    Raises:
        ConfigError: if the aligner or an option is unknown, a value does not fit, or no expert is given.
        LineageError: if an expert does not fit the source, or the aligner cannot bring the one base's
            vectors to the other.

    Example:
        >>> there = transport("none", base, {"a": expert_a}, other_base)  # doctest: +SKIP
        >>> merged = merge("task_arithmetic", other_base, there, 0.4)  # doctest: +SKIP
    """
    if not source_experts:
        raise ConfigError("there is no expert to transport; give at least one")
    source, target = Side(source_base, source_card), Side(target_base, target_card)
    experts = {}
    for task, expert in source_experts.items():
        vector = subtract(source_base, expert, task)
        found = transport_of(aligner, source, target, task, vector, options, seed)
        experts[task] = found.expert(target_base, vector)
    return experts


def transport_of(
    aligner: str,
    source: Side,
    target: Side,
    task: str,
    vector: State,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Transport:
    """Return the transport that an aligner finds for a task vector.

    Args:
        aligner: name of an aligner.
        source: the base that the vector belongs to.
        target: the base that it is to be brought to.
        task: the task.
        vector: its task vector, float32.
        options: the aligner's options.
        seed: for aligners that draw.

    Raises:
        ConfigError: if the aligner or an option is unknown, or a value does not fit.
        LineageError: if the aligner cannot bring the one base's vectors to the other.
    """
    checked = plugin_options("aligner", aligner, options or {})
    return get_aligner(aligner).align(AlignContext(source, target, task, vector, checked, seed))
