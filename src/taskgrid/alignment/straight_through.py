"""Matching by a loss at the midpoint, with gradients that pass straight through the matching.

    min over renamings P of L((theta_A + P(theta_B)) / 2)

P has no gradient. A shadow of A is trained in its place: the loss is that of P = the best renaming of B for
the shadow, and the gradient goes to the shadow as if P(B) were the shadow itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch

from taskgrid.alignment.maps import Axes
from taskgrid.alignment.matching import Maps, match_weights
from taskgrid.alignment.spaces import Spaces
from taskgrid.store.weights import State

Loss: TypeAlias = Callable[[State], torch.Tensor]
"""Loss of weights, float32 tensors that take gradients."""


def straight_through(
    spaces: Spaces,
    target: State,
    source: State,
    losses: Sequence[Loss],
    *,
    steps: int,
    lr: float,
    residual: bool = True,
) -> tuple[Maps, tuple[float, ...]]:
    """Return the renaming of the source's channels with the smallest loss at the midpoint that was met.

    Ainsworth et al., Git Re-Basin, ICLR 2023, section 3.3. The shadow begins at the target, so that the
    first renaming is that of ``match_weights``: what is returned has never a larger loss.

    Args:
        spaces: the spaces of both.
        target: A, at best ``canonical``.
        source: B, the same.
        losses: terms of the loss, the same ones in each step: of a batch each, so that one graph is
            held at a time.
        steps: steps of Adam; each matches weights once.
        lr: learning rate of Adam, of each tensor in units of its root mean square in A.
        residual: whether the channels of the residual stream are renamed, too.

    Returns:
        The renaming, and the loss before the first step and after each.

    Raises:
        LineageError: if the weights, or what the gradients make of the shadow, are not finite.
    """
    shadow = {key: target[key].float().clone() for key in spaces.axes}
    optimiser = torch.optim.Adam(
        [{"params": [one], "lr": lr * float(one.square().mean().sqrt())} for one in shadow.values()]
    )
    best = found = match_weights(spaces, target, source, residual=residual).maps
    history: list[float] = []
    for step in range(steps + 1):
        if step:
            found = match_weights(spaces, shadow, source, residual=residual, start=found).maps
        loss, gradients = _at_midpoint(spaces, target, source, found, losses)
        if loss < min(history, default=torch.inf):
            best = found
        history.append(loss)
        for key, one in shadow.items():
            one.grad = gradients.get(key)
        optimiser.step()
    return best, tuple(history)


def _at_midpoint(
    spaces: Spaces, target: State, source: State, found: Maps, losses: Sequence[Loss]
) -> tuple[float, State]:
    """Return the loss between a network and a renamed one, and its gradients by the renamed one."""
    renamed = Axes(spaces.axes_by(found))(source)
    middle = {
        key: ((target[key] + one) / 2).float().requires_grad_() for key, one in renamed.items()
    }
    total = 0.0
    for loss in losses:
        value = loss(middle)
        value.backward()  # type: ignore[no-untyped-call]
        total += float(value.detach())
    gradients = {key: one.grad for key, one in middle.items()}
    return total, {key: one / 2 for key, one in gradients.items() if one is not None}
