"""Two bases that share nothing, an expert of the first, and a few labelled images for the second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from taskgrid.alignment.door import transport_of
from taskgrid.alignment.images import Images
from taskgrid.alignment.maps import Transport
from taskgrid.alignment.sides import Side
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.inference import to_input
from taskgrid.statistics.seam import Examples
from taskgrid.store.weights import State, digest_state
from tests.unit.example_grid import CLASSES, SIZE, world

ATTENTION = ("attn.in_proj_weight", "attn.out_proj.weight")


@dataclass(frozen=True)
class Pair:
    """The two bases, a vector of the first for task ``a``, and images of that task."""

    source: Side
    target: Side
    vector: State
    images: Images

    def transport(self, aligner: str, **options: Any) -> Transport:
        return transport_of(
            aligner, self.source, self.target, "a", self.vector, options, 3, self.images
        )

    def expert(self, aligner: str, **options: Any) -> State:
        return self.transport(aligner, **options).expert(self.target.base, self.vector)

    def features(self, state: Mapping[str, torch.Tensor]) -> torch.Tensor:
        card = self.target.the_card()
        pixels = torch.from_numpy(self.images.examples["a"].pixels)
        with torch.no_grad():
            return ImageEncoder.from_card(card, state)(to_input(pixels, card.mean, card.std))

    def loss(self, state: Mapping[str, torch.Tensor]) -> float:
        logits = self.images.heads["a"].logits(self.features(state))
        labels = torch.from_numpy(self.images.examples["a"].labels)
        return float(functional.cross_entropy(logits, labels))


def pair(kind: str = "full", count: int = 12) -> Pair:
    """Return two bases, and a vector that is ``full``, of ``attention`` alone, or of rank two in it."""
    small = world(("a",))
    generator = torch.Generator().manual_seed(5)
    there = {
        key: 0.3 * torch.randn(tensor.shape, generator=generator)
        for key, tensor in small.base.items()
    }
    vector = {key: small.experts["a"][key] - tensor for key, tensor in small.base.items()}
    if kind != "full":
        for key, delta in vector.items():
            vector[key] = delta if key.endswith(ATTENTION) else torch.zeros_like(delta)
    if kind == "lora":
        for key, delta in vector.items():
            if key.endswith(ATTENTION):
                blocks = delta.reshape(-1, 16, 16)
                vector[key] = (blocks[:, :, :2] @ blocks[:, :2, :]).reshape(delta.shape)
    random = np.random.default_rng(7)
    pixels = random.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    examples = Examples(pixels, random.integers(0, CLASSES, count))
    return Pair(
        Side(small.base, small.card),
        Side(there, replace(small.card, base=digest_state(there))),
        vector,
        Images({"a": examples}, {"a": small.tasks["a"].head}),
    )


def blocks(state: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the attention projections as one stack ``(M, d, d)`` in float64."""
    found = [tensor for key, tensor in sorted(state.items()) if key.endswith(ATTENTION)]
    return torch.cat([one.double().reshape(-1, one.shape[1], one.shape[1]) for one in found])
