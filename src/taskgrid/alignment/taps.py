"""What goes through a vision transformer's spaces of channels, and how the channels of two go together.

A tap is a place where a space of ``alignment.spaces`` is seen. Queries, keys, values and hidden units (these
behind the activation) are seen once, and their taps have the names of their spaces; the residual stream is
seen behind each block, at ``L.res``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from taskgrid.alignment.spaces import RES, attention_spaces, mlp_space
from taskgrid.errors import LineageError

Hear: TypeAlias = Callable[[str, torch.Tensor], None]
"""Is told the name of a tap, and what is seen there, ``(N, tokens, channels)``."""

Seen: TypeAlias = Mapping[str, torch.Tensor]
"""Tap -> ``(N, tokens, channels)``."""

_STILL = 1e-6
"""A channel that varies by less than this share of its size is dead: float32 resolves no more."""


def stream_tap(block: int) -> str:
    """Return the name of the residual stream behind a block."""
    return f"{block}.{RES}"


def space_of(tap: str) -> str:
    """Return the space that is seen at a tap."""
    return RES if tap.endswith(f".{RES}") else tap


def observe(tower: nn.Module, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Pass images through a tower and return what is seen at each tap.

    Args:
        tower: an image tower as open_clip makes it, or a module around one that is called ``tower``.
        inputs: ``(N, 3, S, S)``, as the tower takes them.

    Returns:
        Tap -> ``(N, tokens, channels)``, in the order of the pass.

    Raises:
        LineageError: if it is no vision transformer of open_clip.
    """
    seen: dict[str, torch.Tensor] = {}
    with torch.no_grad(), listening(tower, seen.__setitem__):
        tower(inputs)
    return seen


@contextmanager
def listening(tower: nn.Module, hear: Hear) -> Iterator[None]:
    """Tell what is seen at each tap of a tower whenever it runs, with gradients where it has any.

    Raises:
        LineageError: if it is no vision transformer of open_clip.
    """
    transformer = getattr(getattr(tower, "tower", tower), "transformer", None)
    blocks = getattr(transformer, "resblocks", None)
    if blocks is None:
        raise LineageError(
            "alignment looks into the vision transformers of open_clip; this tower is none, use an aligner "
            "that sees weights alone"
        )
    handles: list[RemovableHandle] = []
    for at, block in enumerate(blocks):
        # Its output is what attention takes: queries, keys and values are made of it again, for the
        # attention itself shows none of them.
        handles += [
            block.ln_1.register_forward_hook(partial(_attention, hear, at, block.attn)),
            block.mlp.c_proj.register_forward_pre_hook(partial(_hidden, hear, mlp_space(at))),
            block.register_forward_hook(partial(_output, hear, stream_tap(at))),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _attention(
    hear: Hear, block: int, attention: Any, _module: nn.Module, _inputs: Any, normed: torch.Tensor
) -> None:
    joint = functional.linear(normed, attention.in_proj_weight, attention.in_proj_bias)
    for space, one in zip(attention_spaces(block), joint.chunk(3, dim=-1), strict=True):
        hear(space, one)


def _hidden(hear: Hear, tap: str, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    hear(tap, inputs[0])


def _output(hear: Hear, tap: str, _module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
    hear(tap, output)


@dataclass(eq=False)
class Moments:
    """First and second moments of the channels of two taps, over images and tokens, in float64.

    They are added up batch by batch about the mean so far, so that a large mean costs no digits.

    Attributes:
        means: of the channels of each, ``(n,)`` and ``(m,)``.
        squares: sums of squared deviations from them, the same.
        products: sums of products of deviations, ``(n, m)``.
        count: images times tokens so far.
    """

    means: tuple[torch.Tensor, torch.Tensor]
    squares: tuple[torch.Tensor, torch.Tensor]
    products: torch.Tensor
    count: int = 0

    @classmethod
    def between(cls, one: torch.Tensor, two: torch.Tensor) -> Moments:
        """Return the moments of nothing yet, for channels and a device like these."""
        n, m = one.shape[-1], two.shape[-1]
        zeros = partial(torch.zeros, dtype=torch.float64, device=one.device)
        return cls((zeros(n), zeros(m)), (zeros(n), zeros(m)), zeros(n, m))

    def add(self, one: torch.Tensor, two: torch.Tensor) -> None:
        """Add what was seen of the same images, ``(N, tokens, n)`` and ``(N, tokens, m)``.

        Raises:
            LineageError: if the images are not cut into the same tokens.
        """
        if one.shape[:-1] != two.shape[:-1]:
            raise LineageError(
                f"the one tower cuts an image into {one.shape[1]} tokens, the other into {two.shape[1]}; "
                "what they make of images cannot be compared, use an aligner that sees weights alone"
            )
        rows = [seen.reshape(-1, seen.shape[-1]).double() for seen in (one, two)]
        count = len(rows[0])
        total, shared = self.count + count, self.count * count / (self.count + count)
        steps = [side.mean(dim=0) - mean for side, mean in zip(rows, self.means, strict=True)]
        rows = [side - side.mean(dim=0) for side in rows]
        self.products.addmm_(rows[0].T, rows[1]).addr_(*steps, alpha=shared)
        for side, step, mean, squares in zip(rows, steps, self.means, self.squares, strict=True):
            squares.add_(side.square().sum(dim=0)).add_(step.square(), alpha=shared)
            mean.add_(step, alpha=count / total)
        self.count = total

    def covariance(self) -> torch.Tensor:
        """Return the covariances ``(n, m)``, of all images and tokens that were added."""
        return self.products / self.count

    def correlation(self) -> torch.Tensor:
        """Return the correlations ``(n, m)``, in [-1, 1]; those of a channel that never changes are 0."""
        one, two = (
            torch.where(
                squares > _STILL**2 * (squares + self.count * mean.square()), squares.rsqrt(), 0.0
            )
            for mean, squares in zip(self.means, self.squares, strict=True)
        )
        return (self.products * one[:, None] * two).clamp(-1.0, 1.0)


def joint_moments(pairs: Iterable[tuple[Seen, Seen]]) -> dict[str, Moments]:
    """Return the moments of what two towers, or one with itself, make of images.

    Args:
        pairs: what was seen of a batch in the one and in the other, by tap.

    Raises:
        LineageError: if the towers have other taps, or cut images into other tokens.
    """
    found: dict[str, Moments] = {}
    for first, second in pairs:
        if first.keys() != second.keys():
            depths = [sum(space_of(tap) == RES for tap in seen) for seen in (first, second)]
            raise LineageError(
                f"the one tower has {depths[0]} blocks, the other {depths[1]}; channels are compared block "
                "by block, use an aligner that can do without"
            )
        for tap, one in first.items():
            if tap not in found:
                found[tap] = Moments.between(one, second[tap])
            found[tap].add(one, second[tap])
    return found


def correlations(pairs: Iterable[tuple[Seen, Seen]]) -> dict[str, torch.Tensor]:
    """Return how the channels of two towers go together: space -> ``(n, m)`` float64 correlations.

    The residual stream is seen behind each block, and its correlations are the mean of those there: its
    channels are the same ones all through the tower. Arguments and errors as for ``joint_moments``.
    """
    taps: dict[str, list[torch.Tensor]] = {}
    for tap, moments in joint_moments(pairs).items():
        taps.setdefault(space_of(tap), []).append(moments.correlation())
    return {space: torch.stack(found).mean(dim=0) for space, found in taps.items()}
