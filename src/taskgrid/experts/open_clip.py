"""Experts in open_clip's layout: image towers, whole CLIPs, or classifiers around them.

A tower's tensors may stand below a prefix: ``visual.``, ``model.visual.``,
``image_encoder.model.visual.``, ... The prefix is the one below which the whole tower is found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch

from taskgrid.errors import LineageError
from taskgrid.experts.format import Converted, ExpertFormat
from taskgrid.experts.parts import left_out, places, the_only
from taskgrid.experts.source import ExpertFile
from taskgrid.models.card import ModelCard, check_expert
from taskgrid.models.hub.conversion import is_transformers
from taskgrid.models.layout import LAYOUT
from taskgrid.store.weights import State


def convert(
    checkpoint: ExpertFile, card: ModelCard, base: Mapping[str, torch.Tensor], what: str
) -> Converted:
    """Return the image tower of a checkpoint.

    Raises:
        LineageError: if there is no whole tower in it, or more than one, or something unknown beside
            it, or it says that it belongs to another base.
    """
    state, lineage = checkpoint.read()
    if lineage:
        if lineage.get("kind") != "expert":
            raise LineageError(
                f"{what} holds a {lineage.get('kind', 'state')}, not an expert; give the expert's file"
            )
        check_expert(lineage, card)
    found = tower_of(state, checkpoint, card, base, what, declared=bool(lineage))
    # Whoever takes its vector must know that it is far from this base by right.
    carried = {name: lineage[name] for name in ("carry",) if name in lineage}
    return replace(found, lineage={**found.lineage, **carried})


def tower_of(
    state: State,
    checkpoint: ExpertFile,
    card: ModelCard,
    base: Mapping[str, torch.Tensor],
    what: str,
    *,
    declared: bool = False,
) -> Converted:
    """Return the image tower in a state that may hold more.

    Args:
        state: the tensors of the checkpoint.
        checkpoint: where they come from.
        card: the base's card.
        base: theta_0.
        what: what the messages call the expert.
        declared: its header says its base and activation, which were compared.

    Raises:
        LineageError: see ``convert``.
    """
    prefix = _prefix(state, base, what)
    tower = {
        key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)
    }
    outside = {key: tensor for key, tensor in state.items() if not key.startswith(prefix)}
    notes = left_out(outside, prefix.removesuffix("visual."), what)
    if not checkpoint.check_declared(card, what) and not declared:
        notes.append(
            f"nothing beside it says its activation: {card.activation} was taken for granted"
        )
    said = {"source_layout": LAYOUT, "projection": "own"}
    return Converted(tower, said, tuple(notes), proven=declared)


def _prefix(state: State, base: Mapping[str, torch.Tensor], what: str) -> str:
    landmark = "conv1.weight" if "conv1.weight" in base else min(base)
    found = places(state, landmark)
    if not found:
        hint = "give a checkpoint of a CLIP"
        if is_transformers(state):
            hint = "its names are those of transformers: write format: transformers"
        elif any(re.search(r"(?:^|\.)params0\.\d+$", key) for key in state):
            hint = "its names are those of a linearised model: write format: task_vectors"
        raise LineageError(f"{what} has no image tower (no {landmark!r}); {hint}")
    whole = [place for place in found if all(f"{place}{key}" in state for key in base)]
    # Of a tower that is not whole, whoever compares it with the base names the tensor that it lacks.
    return the_only(whole, what) if whole else found[0]


FORMAT = ExpertFormat(
    convert,
    usual=("open_clip_model.safetensors", "model.safetensors", "open_clip_pytorch_model.bin"),
)
