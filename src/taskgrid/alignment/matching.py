"""Matching: which channel of one network is which of another one (Ainsworth et al., Git Re-Basin, ICLR 2023).

Scores say how much alike channel i of the target and channel j of the source are. The renaming with the
largest sum of scores is a linear assignment, solved exactly; in an attention, where heads change places as
wholes, it is an assignment of heads over assignments inside each pair of them. Scores of activations are
given. Scores of weights depend on the names in the spaces at the other ends of the weights, so that one
space is matched after the other until none gains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from taskgrid.alignment.maps import Axes
from taskgrid.alignment.spaces import RES, Spaces, attention_spaces, mlp_space
from taskgrid.errors import ConfigError, LineageError
from taskgrid.provenance import derive_seed
from taskgrid.store.weights import State

Maps: TypeAlias = Mapping[str, torch.Tensor]
"""Space -> int64 ``(n,)``: channel i is the source's channel at index[i]."""

_Floats: TypeAlias = NDArray[np.float64]
_Index: TypeAlias = NDArray[np.int64]

_ROUNDING = 1e-10
"""A smaller share of the scores is no gain: equal renamings, those of dead channels, leave the old one."""


@dataclass(frozen=True, eq=False)
class Matched:
    """A matching by weights.

    Attributes:
        maps: how the source's channels are renamed; all spaces.
        history: <target, renamed source> before the first step, and after each that gained.
    """

    maps: Maps
    history: tuple[float, ...]

    @property
    def moved(self) -> float:
        """Share of all channels that have another number than before."""
        index = torch.cat([one - torch.arange(len(one)) for one in self.maps.values()])
        return float((index != 0).double().mean())


def match_weights(
    spaces: Spaces,
    target: State,
    source: State,
    *,
    residual: bool = True,
    start: Maps | None = None,
) -> Matched:
    """Return the renaming of the source's channels that is best for <target, renamed source> (algorithm 1).

    The residual stream comes first: begun elsewhere, a planted renaming is missed now and then. For a given
    stream the blocks do not touch one another, so that each is then at its optimum, and the end is reached
    when the stream gains nothing more. No step makes the product smaller.

    Args:
        spaces: the spaces of both.
        target: theta_0', at best ``canonical``.
        source: theta_0, the same; both have the shapes of ``spaces``.
        residual: whether the channels of the residual stream are renamed, too. Where they keep their
            names, what is returned is the best of all renamings.
        start: renaming to begin at; left out, every channel has its own name.

    Raises:
        LineageError: if the weights are not finite.
    """
    maps = {**_unmoved(spaces), **(start or {})}
    history = [_product(target, Axes(spaces.axes_by(maps))(source))]

    def gains(group: Sequence[str]) -> bool:
        scores = {space: _scores(spaces, space, target, source, maps) for space in group}
        found = _assigned(scores, spaces.heads)
        before, after = (
            [_taken(one, own[space]) for space, one in scores.items()] for own in (maps, found)
        )
        gain = float(torch.cat(after).sum() - torch.cat(before).sum())
        if gain <= _ROUNDING * float(torch.cat(after).abs().sum()):
            return False
        maps.update(found)
        history.append(history[-1] + gain)
        return True

    stream, *blocks = _groups(spaces)
    if residual:
        gains(stream)
    while True:
        for group in blocks:
            gains(group)
        if not (residual and gains(stream)):
            return Matched(maps, tuple(history))


def match_moments(spaces: Spaces, moments: Mapping[str, torch.Tensor]) -> Maps:
    """Return the renaming of the source's channels that goes best with what was seen of them (section 3.1).

    Args:
        spaces: the spaces of both.
        moments: space -> ``(n, n)`` float64, how channels of the target, in rows, go together with those
            of the source. A space that is not there keeps its names; queries, keys and values of a block
            are there together or not at all.

    Raises:
        LineageError: if the moments are not finite.
    """
    maps = _unmoved(spaces)
    for group in _groups(spaces):
        if group[0] in moments:
            maps |= _assigned({space: moments[space] for space in group}, spaces.heads)
    return maps


def merge_many(
    spaces: Spaces, states: Sequence[State], *, residual: bool = True, seed: int = 0
) -> tuple[list[Maps], State]:
    """Rename the channels of many models to be each other's, and average them (MergeMany, algorithm 3).

    In rounds, each in an order of its own, every model is matched to the mean of the others until none
    gains.

    Args:
        spaces: the spaces of all of them.
        states: the models, at best ``canonical``; two or more.
        residual: whether the channels of the residual stream are renamed, too.
        seed: for the orders.

    Returns:
        How the channels of each are renamed, and the mean of the renamed ones, float64.

    Raises:
        ConfigError: if there are fewer than two models.
        LineageError: if the weights are not finite.
    """
    if len(states) < 2:
        raise ConfigError(f"models are matched to one another; give two or more, not {len(states)}")
    generator = torch.Generator().manual_seed(derive_seed("merge many", seed))
    maps: list[Maps] = [_unmoved(spaces)] * len(states)
    states = [{key: state[key].double() for key in spaces.axes} for state in states]
    moved, again = list(states), True
    while again:
        again = False
        for at in torch.randperm(len(states), generator=generator).tolist():
            others = _mean([state for place, state in enumerate(moved) if place != at])
            found = match_weights(spaces, others, states[at], residual=residual, start=maps[at])
            if len(found.history) > 1:
                again, maps[at] = True, found.maps
                moved[at] = Axes(spaces.axes_by(found.maps))(states[at])
    return maps, _mean(moved)


def _unmoved(spaces: Spaces) -> dict[str, torch.Tensor]:
    return {space: torch.arange(size) for space, size in spaces.sizes.items()}


def _groups(spaces: Spaces) -> list[tuple[str, ...]]:
    """Return the spaces that are matched at once, the residual stream first."""
    groups: list[tuple[str, ...]] = [(RES,)]
    for block in range(spaces.blocks):
        groups += [attention_spaces(block), (mlp_space(block),)]
    # Where there is no attention, as in a plain MLP, there is nothing to match in it.
    return [group for group in groups if group[0] in spaces.sizes]


def _scores(spaces: Spaces, space: str, target: State, source: State, maps: Maps) -> torch.Tensor:
    """Return, for channels i and j, the product of all that touches i and j, other axes renamed."""
    others = spaces.axes_by({name: one for name, one in maps.items() if name != space})
    size = spaces.sizes[space]
    total = torch.zeros(size, size, dtype=torch.float64)
    for key, axes in spaces.axes.items():
        for at, axis in enumerate(axes):
            if axis is None or space not in axis.spaces:
                continue
            renamed = Axes({key: others[key]})(source)[key]
            start = axis.spaces.index(space) * size
            one, two = (
                tensor.narrow(at, start, size).movedim(at, 0).reshape(size, -1).double()
                for tensor in (target[key], renamed)
            )
            total.addmm_(one, two.T)
    return total


def _assigned(scores: Mapping[str, torch.Tensor], heads: int) -> dict[str, torch.Tensor]:
    """Return the best renaming of spaces that are matched at once."""
    for space, one in scores.items():
        if not torch.isfinite(one).all():
            raise LineageError(
                f"space {space!r} cannot be matched: what is compared there is not finite; give weights "
                "without NaN and infinity"
            )
    tables = [one.double().numpy() for one in scores.values()]
    if len(tables) == 1:
        found = [_assignment(tables[0])]
    else:
        queries, keys, values = tables
        together, apart = _by_heads((queries + keys, values), heads)
        found = [together, together, apart]
    return {space: torch.from_numpy(one) for space, one in zip(scores, found, strict=True)}


def _by_heads(tables: Sequence[_Floats], heads: int) -> list[_Index]:
    """Return the best renamings with one order of heads, in which no channel leaves its head."""
    width = len(tables[0]) // heads
    cut = [one.reshape(heads, width, heads, width).swapaxes(1, 2) for one in tables]
    inside = {(i, j): [_assignment(one[i, j]) for one in cut] for i, j in np.ndindex(heads, heads)}
    worth = np.zeros((heads, heads))
    for (i, j), found in inside.items():
        for one, index in zip(cut, found, strict=True):
            worth[i, j] += one[i, j][np.arange(width), index].sum()
    order = [(i, int(j)) for i, j in enumerate(_assignment(worth))]
    return [
        np.concatenate([width * j + inside[i, j][at] for i, j in order])
        for at in range(len(tables))
    ]


def _assignment(scores: _Floats) -> _Index:
    """Return the column of each row with the largest sum of scores."""
    columns: _Index = linear_sum_assignment(scores, maximize=True)[1].astype(np.int64)
    return columns


def _taken(scores: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return scores[torch.arange(len(index)), index]


def _product(one: State, two: State) -> float:
    return sum(float((one[key].double() * two[key].double()).sum()) for key in two)


def _mean(states: Sequence[State]) -> State:
    return {key: torch.stack([state[key] for state in states]).mean(dim=0) for key in states[0]}
