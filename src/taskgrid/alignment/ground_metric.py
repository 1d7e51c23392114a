"""What channels of two vision transformers are compared by: weights that write them, or activations.

A channel's weights are rows, with biases, read through the maps of what lies before them; its activations
are standardised, so that squared distances are 2 (1 - rho) for each image and token. The residual stream is
compared as a whole, or as it starts and branch by branch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Protocol, TypeAlias

import torch
from torch import nn

from taskgrid.alignment.maps import Axes
from taskgrid.alignment.seam import AlignContext
from taskgrid.alignment.spaces import RES, Axis, SpaceMap, Spaces
from taskgrid.alignment.taps import joint_moments
from taskgrid.models.encoder import ImageEncoder
from taskgrid.store.weights import State

SpaceMaps: TypeAlias = Mapping[str, SpaceMap]
"""Space -> its map; a space that is not named stays as it is."""


@dataclass(frozen=True)
class Branch:
    """An attention or an MLP between the residual stream and itself.

    Attributes:
        block: number of its block.
        name: ``attn`` or ``mlp``.
        reads: tensors that read the stream, the LayerNorm among them.
        writes: tensors that write what is added to it.
        before: tensors that wrote what is there before.
    """

    block: int
    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    before: tuple[str, ...]


@dataclass(frozen=True)
class Flow:
    """The tensors of a tower in the order of a pass.

    Attributes:
        starts: those that the residual stream begins with.
        branches: those of the blocks.
        ends: those that read what comes out.
    """

    starts: tuple[str, ...]
    branches: tuple[Branch, ...]
    ends: tuple[str, ...]

    @classmethod
    def of(cls, spaces: Spaces) -> Flow:
        """Return the flow of a tower."""

        def named(*starts: str) -> tuple[str, ...]:
            return tuple(key for key in spaces.axes if key.startswith(starts))

        starts, branches = named(*_STARTS), []
        before = named("ln_pre.") or starts
        for block in range(spaces.blocks):
            for name, reads, writes in _BRANCHES:
                inside = f"transformer.resblocks.{block}."
                read, written = (
                    named(*(inside + part for part in parts)) for parts in (reads, writes)
                )
                branches.append(Branch(block, name, read, written, before))
                before += written
        return cls(starts, tuple(branches), named("ln_post.", "proj"))


_STARTS = ("conv1.", "class_embedding", "positional_embedding", "ln_pre.")
_BRANCHES = (
    ("attn", ("ln_1.", "attn.in_proj"), ("attn.out_proj", "ls_1.")),
    ("mlp", ("ln_2.", "mlp.c_fc"), ("mlp.c_proj", "ls_2.")),
)


class GroundMetric(Protocol):
    """Squared distances ``(n, m)`` of n channels of the source and m of the target, float64."""

    def stream(self, whole: bool) -> torch.Tensor:
        """Return those of the residual stream, of all of it or as it starts."""
        ...

    def inside(self, space: str, branch: Branch, known: SpaceMaps) -> torch.Tensor:
        """Return those of a space of a branch; the map of the stream before it is known."""
        ...

    def added(self, branch: Branch, known: SpaceMaps) -> torch.Tensor:
        """Return those of what a branch adds to the stream; the maps of its spaces are known."""
        ...

    def sizes(self, branch: Branch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how large the target's channels are before a branch, and in what it adds, ``(m,)`` both."""
        ...


@dataclass(frozen=True, eq=False)
class ByWeights:
    """Distances between the weights that write a channel; sizes are their lengths.

    Attributes:
        spaces: of the source and of the target.
        states: both bases, at best ``canonical``.
        flow: of both.
    """

    spaces: tuple[Spaces, Spaces]
    states: tuple[State, State]
    flow: Flow

    def stream(self, whole: bool) -> torch.Tensor:
        """Compare what writes the stream alone: embeddings; of the whole, all LayerNorms and biases, too."""
        alone = [
            key
            for key, axes in self.spaces[0].axes.items()
            if all(axis is None or axis == Axis((RES,)) for axis in axes)
        ]
        return self._squared(RES, alone if whole else self.flow.starts, {})

    def inside(self, space: str, branch: Branch, known: SpaceMaps) -> torch.Tensor:
        """Compare the rows of what reads the stream."""
        return self._squared(space, branch.reads, known)

    def added(self, branch: Branch, known: SpaceMaps) -> torch.Tensor:
        """Compare the rows of what writes the stream."""
        return self._squared(RES, branch.writes, known)

    def sizes(self, branch: Branch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the lengths of rows: sizes for inputs that are all alike."""
        before, added = (
            self._rows(1, RES, keys, {}).norm(dim=1) for keys in (branch.before, branch.writes)
        )
        return before, added

    def _squared(self, space: str, keys: Sequence[str], known: SpaceMaps) -> torch.Tensor:
        source, target = self._rows(0, space, keys, known), self._rows(1, space, keys, {})
        source = score_factor(*self.spaces, space) * source
        lengths = source.square().sum(dim=1)[:, None] + target.square().sum(dim=1)
        return (lengths - 2 * source @ target.T).clamp(min=0.0)

    def _rows(self, side: int, space: str, keys: Sequence[str], known: SpaceMaps) -> torch.Tensor:
        """Return the weights that write each channel, ``(channels, weights)``, read through maps."""
        spaces = self.spaces[side]
        part = replace(spaces, axes={key: spaces.axes[key] for key in keys})
        moved, found = Axes(part.axes_by(known))(self.states[side]), []
        for key, axes in part.axes.items():
            for at, axis in enumerate(axes):
                if axis is not None and space in axis.spaces and not axis.reads:
                    rows = moved[key].movedim(at, 0).chunk(len(axis.spaces))
                    found.append(rows[axis.spaces.index(space)].reshape(spaces.sizes[space], -1))
        return torch.cat(found, dim=1).double()


@dataclass(frozen=True, eq=False)
class ByActivations:
    """Distances between standardised activations on the images shown; sizes are means of their absolutes.

    Attributes:
        context: what goes through both towers.
    """

    context: AlignContext

    def stream(self, whole: bool) -> torch.Tensor:
        """Compare the stream behind each block, or before the first one."""
        return _apart(self._spaces[RES] if whole else self._additions[0][_START])

    def inside(self, space: str, branch: Branch, known: SpaceMaps) -> torch.Tensor:
        """Compare what goes through a space."""
        return _apart(self._spaces[space])

    def added(self, branch: Branch, known: SpaceMaps) -> torch.Tensor:
        """Compare what a branch adds."""
        return _apart(self._additions[0][f"{branch.block}.{branch.name}"])

    def sizes(self, branch: Branch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return means of absolute activations, in units of their own."""
        name, sizes = f"{branch.block}.{branch.name}", self._additions[1]
        return sizes[f"{name}.before"], sizes[name]

    @cached_property
    def _spaces(self) -> Mapping[str, torch.Tensor]:
        return self.context.moments()

    @cached_property
    def _additions(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Correlations ``(m, n)`` of what is added and of the start, and sums of absolutes in the target."""
        context, sizes = self.context, dict[str, torch.Tensor]()
        target, source = context.encoder(context.target), context.encoder(context.source)

        def pairs() -> Iterator[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
            for batch in context.batches():
                ours = additions(target, batch.inputs)
                theirs = additions(source, batch.source_inputs)
                for tap, one in ours.items():
                    size = one.double().abs().sum(dim=(0, 1)).cpu()
                    sizes[tap] = sizes[tap] + size if tap in sizes else size
                compared = [tap for tap in ours if tap == _START or not tap.endswith(".before")]
                yield {tap: ours[tap] for tap in compared}, {tap: theirs[tap] for tap in compared}

        moments = joint_moments(pairs())
        return {tap: one.correlation().cpu() for tap, one in moments.items()}, sizes


def additions(encoder: ImageEncoder, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Pass images through a tower and return what its branches add to the residual stream.

    Args:
        encoder: an image encoder with a vision transformer of open_clip.
        inputs: ``(N, 3, S, S)``, as it takes them.

    Returns:
        ``(N, tokens, channels)``: ``L.attn`` and ``L.mlp`` what is added, ``L.attn.before`` and
        ``L.mlp.before`` the stream that it is added to.
    """
    seen: dict[str, torch.Tensor] = {}

    def taken(tap: str, _module: nn.Module, given: tuple[Any, ...]) -> None:
        seen[tap] = given[0]

    def made(tap: str, _module: nn.Module, _given: Any, output: torch.Tensor) -> None:
        seen[tap] = output

    blocks: Any = encoder.tower.get_submodule("transformer.resblocks")
    handles = []
    for at, block in enumerate(blocks):
        # Between a branch and the stream there is a scale, if only one that does nothing.
        for name, before, added in (
            ("attn", block.ln_1, block.ls_1),
            ("mlp", block.ln_2, block.ls_2),
        ):
            handles += [
                before.register_forward_pre_hook(partial(taken, f"{at}.{name}.before")),
                added.register_forward_hook(partial(made, f"{at}.{name}")),
            ]
    try:
        with torch.no_grad():
            encoder(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


_START = "0.attn.before"


def score_factor(source: Spaces, target: Spaces, space: str) -> float:
    """Return the factor on queries and on keys that keeps their scores, q . k / sqrt(width of a head).

    Where a head gets r times its width with channels that are copied, q . k is r times what it was and its
    divisor sqrt(r) times; r^(-1/4) on both sides keeps the scores. It is 1 for all other spaces.
    """
    if not space.endswith((".q", ".k")):
        return 1.0
    widths = [spaces.sizes[space] / spaces.heads for spaces in (source, target)]
    return float((widths[0] / widths[1]) ** 0.25)


def _apart(correlations: torch.Tensor) -> torch.Tensor:
    return (2 - 2 * correlations.T.double()).clamp(min=0.0).contiguous()
