"""Looking at networks: one pass over images for all of them, the base's once per batch.

Of each place the norm of every token is summed over images in float64, so that how they are cut into batches
matters in the last bits only. Class tokens behind blocks, and the features, are kept of every image, for what
compares networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from taskgrid.evaluation.features.places import Place, pass_through
from taskgrid.machine.meter import Tally

State = Mapping[str, torch.Tensor]


@dataclass(eq=False)
class Sight:
    """What was seen of a network.

    Attributes:
        count: images.
        sums: place -> norm of each token, summed over images, ``(tokens,)`` float64; of the base of what
            it gives, of others of what they give more than the base.
        first: the same of the first image alone.
        kept: place -> class token of each image, ``(B, channels)`` for each batch, on the CPU.
    """

    count: int = 0
    sums: dict[Place, torch.Tensor] = field(default_factory=dict)
    first: dict[Place, torch.Tensor] = field(default_factory=dict)
    kept: dict[Place, list[torch.Tensor]] = field(default_factory=dict)

    def norms(self, place: Place) -> torch.Tensor:
        """Return the norm of each token, mean over images, ``(tokens,)``."""
        return self.sums[place] / self.count

    def features(self, place: Place) -> torch.Tensor:
        """Return the class token of each image, ``(n, channels)`` float64."""
        return torch.cat(self.kept[place]).double()

    def add(self, place: Place, seen: torch.Tensor, base: torch.Tensor | None) -> None:
        """Take in what was seen of a batch.

        Args:
            place: where.
            seen: ``(B, tokens, channels)``.
            base: what the base gives there; None for the base itself.
        """
        moved = seen.double() if base is None else seen.double() - base.double()
        norms = moved.norm(dim=-1)
        if place in self.sums:
            self.sums[place] += norms.sum(dim=0)
        else:
            self.sums[place], self.first[place] = norms.sum(dim=0), norms[0].clone()
        # What the class token is before the first block, no image has changed.
        if place.part == "block" and place.depth:
            self.kept.setdefault(place, []).append(seen[:, 0].cpu())


def look(
    tower: nn.Module,
    base: State,
    states: Sequence[State],
    batches: Iterable[torch.Tensor],
    tally: Tally,
) -> tuple[Sight, ...]:
    """Pass images through the base and through other networks.

    Args:
        tower: open_clip's vision transformer, in evaluation mode.
        base: theta_0.
        states: the other networks' weights.
        batches: inputs ``(B, 3, S, S)``, at least one.
        tally: is told of images that are done, one for each network.

    Returns:
        What was seen of the base, then of each of the others.

    Raises:
        LineageError: if the tower is no such transformer.
    """
    seen_of_base, *others = sights = tuple(Sight() for _ in range(1 + len(states)))
    for inputs in batches:
        known: dict[Place, torch.Tensor] = {}
        pass_through(tower, base, inputs, known.__setitem__)
        for place, seen in known.items():
            seen_of_base.add(place, seen, None)
        for sight, state in zip(others, states, strict=True):
            pass_through(tower, state, inputs, partial(_compare, sight, known))
        for sight in sights:
            sight.count += len(inputs)
        tally.advance(len(sights) * len(inputs))
    return sights


def _compare(
    sight: Sight, known: Mapping[Place, torch.Tensor], place: Place, seen: torch.Tensor
) -> None:
    sight.add(place, seen, known[place])
