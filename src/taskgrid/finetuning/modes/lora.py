"""LoRA fine-tuning: a low-rank change of the attention projections trains; the tower stays as it is.

    W = W_0 + (alpha / r) B A,      A (r, columns), B (rows, r)

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (ICLR 2022), section 4.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.func import functional_call

from taskgrid.errors import TrainingError
from taskgrid.finetuning.modes.seam import Others, Trainee
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.layout import projection_of
from taskgrid.plugins.cards import ModeCard
from taskgrid.plugins.options import Option, Options
from taskgrid.store.weights import State

CARD = ModeCard(
    title="LoRA fine-tuning",
    paper="Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, section 4.1",
    recipe={"lr": 3e-4},
    factors=True,
    options={
        "rank": Option(
            default=16,
            about="the rank r of the change",
            least=1,
            most=65_536,
            origin="FusionBench and CrossModelTransfer",
        ),
        "alpha": Option(
            default=32.0,
            about="the change is scaled by alpha / r",
            above=0,
            origin="FusionBench and CrossModelTransfer",
        ),
        "targets": Option(
            default="qkvo",
            about="what changes: query, key, value and output projections; queries and values; or "
            "the projections of attention and MLP",
            choices=("qkvo", "qv", "all"),
            origin="CrossModelTransfer; FusionBench changes q and v",
        ),
    },
)

_PARTS: Mapping[str, tuple[str, ...]] = {
    "qkvo": ("q", "k", "v", "attention_out"),
    "qv": ("q", "v"),
    "all": ("q", "k", "v", "attention_out", "mlp_in", "mlp_out"),
}


@dataclass(frozen=True)
class _Target:
    """A matrix that changes: some rows of a tensor of the tower."""

    name: str
    key: str
    rows: slice


class LowRank(Trainee):
    """The encoder with W_0 + (alpha / r) B A in place of some of its matrices.

    A is drawn uniformly from +-1 / sqrt(columns), as in the authors' code, and B is zero: training
    begins at the base.

    Args:
        encoder: the encoder, frozen.
        targets: the matrices.
        options: ``rank`` and ``alpha``.
        seed: of A.
    """

    def __init__(
        self, encoder: ImageEncoder, targets: tuple[_Target, ...], options: Options, seed: int
    ) -> None:
        super().__init__(encoder)
        self._targets = targets
        self._scale = options.alpha / options.rank
        weights = dict(encoder.tower.named_parameters())
        generator = torch.Generator().manual_seed(seed)
        self.a = nn.ParameterList()
        self.b = nn.ParameterList()
        for target in targets:
            rows, columns = weights[target.key][target.rows].shape
            drawn = torch.rand(options.rank, columns, generator=generator)
            self.a.append(nn.Parameter((2 * drawn - 1) / columns**0.5))
            self.b.append(nn.Parameter(torch.zeros(rows, options.rank)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features of the changed tower."""
        # Multiplied out in float32 under autocast, too: what trains is what is kept.
        with torch.autocast(images.device.type, enabled=False):
            changed = {f"tower.{key}": tensor for key, tensor in self._changed().items()}
        return cast(torch.Tensor, functional_call(self.encoder, changed, (images,)))

    def visual_state(self) -> State:
        """Return the tower with the factors multiplied out."""
        with torch.no_grad():
            return self.encoder.state() | self._changed()

    def factors(self) -> State:
        """Return A as it is and B times alpha / r."""
        found = {}
        with torch.no_grad():
            for target, a, b in self._factors():
                found[f"{target.name}.A"] = a.clone()
                found[f"{target.name}.B"] = b * self._scale
        return found

    def _changed(self) -> State:
        changed: State = {}
        weights = dict(self.encoder.tower.named_parameters())
        for target, a, b in self._factors():
            if target.key not in changed:
                changed[target.key] = weights[target.key].clone()
            changed[target.key][target.rows] += self._scale * (b @ a)
        return changed

    def _factors(self) -> Iterator[tuple[_Target, torch.Tensor, torch.Tensor]]:
        return zip(self._targets, self.a, self.b, strict=True)


class Lora:
    """Trains factors of the change of some projections in every block; biases stay."""

    def prepare(
        self, encoder: ImageEncoder, options: Options, seed: int, others: Others
    ) -> Trainee:
        """Return the frozen encoder with factors beside it.

        Raises:
            TrainingError: if the tower has none of the targets.
        """
        wanted = _PARTS[options.targets]
        targets = tuple(target for part, target in _matrices(encoder.tower) if part in wanted)
        if not targets:
            raise TrainingError(
                f"image tower {encoder.card.architecture!r} has no projection that mode 'lora' with "
                f"targets {options.targets!r} changes; take another mode"
            )
        return LowRank(encoder, targets, options, seed)


def _matrices(tower: nn.Module) -> Iterator[tuple[str, _Target]]:
    """Yield every projection by itself: a fused one is three."""
    for key, weight in tower.named_parameters():
        part = projection_of(key)
        if part is None or not key.endswith("weight"):
            continue
        if part != "qkv":
            yield part, _Target(key, key, slice(None))
            continue
        width = len(weight) // 3
        for place, name in enumerate("qkv"):
            rows = slice(place * width, (place + 1) * width)
            yield name, _Target(f"{key}.{name}", key, rows)


MODE = Lora()
