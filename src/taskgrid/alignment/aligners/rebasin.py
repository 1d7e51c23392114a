"""Git Re-Basin: the source's channels are renamed to be those of the target.

    theta = theta_0' + P(theta_t - theta_0),   P a renaming of channels that leaves what the source computes

P is that of the largest <theta_0', P(theta_0)>, or that whose channels behave alike on images, or that with
the smallest loss halfway between theta_0' and P(theta_0). It is of the bases: every task gets the same.
"""

from __future__ import annotations

import torch
from torch.func import functional_call
from torch.nn import functional

from taskgrid.alignment.canonical import canonical
from taskgrid.alignment.images import Batch
from taskgrid.alignment.maps import Transport
from taskgrid.alignment.matching import Maps, match_moments, match_weights
from taskgrid.alignment.seam import AlignContext
from taskgrid.alignment.spaces import RES, Spaces, spaces_of
from taskgrid.alignment.straight_through import Loss, straight_through
from taskgrid.errors import LineageError
from taskgrid.plugins.cards import AlignerCard
from taskgrid.plugins.options import Option
from taskgrid.store.weights import State

CARD = AlignerCard(
    title="Git Re-Basin",
    paper="Ainsworth et al., Git Re-Basin, ICLR 2023, section 3",
    options={
        "by": Option(
            default="weights",
            choices=("weights", "activations", "straight_through"),
            about="what is compared: weights; what channels do on images; or the loss halfway, on labelled "
            "images",
            origin="the paper's 3.2; the others are its 3.1 and 3.3",
        ),
        "residual": Option(
            default="match",
            choices=("match", "identity"),
            about="`identity` leaves the channels of the residual stream, which trainings of one base share",
        ),
        "steps": Option(
            default=50, kind="integer", least=0, about="with `straight_through`, steps of Adam"
        ),
        "lr": Option(
            default=0.1,
            above=0,
            about="with `straight_through`, its learning rate, in units of each tensor's root mean square",
        ),
    },
    sees_if={"by": {"activations": "images", "straight_through": "labels"}},
)


class Rebasin:
    """Finds the renaming for the two bases."""

    def align(self, context: AlignContext) -> Transport:
        """Return the renaming; refuses towers that differ in kind or shape."""
        spaces = _spaces(context)
        return context.transport_by(spaces.axes_by(_maps(context, spaces)))


def _maps(context: AlignContext, spaces: Spaces) -> Maps:
    options, residual = context.options, context.options.residual == "match"
    if options.by == "activations":
        moments = context.moments()
        return match_moments(
            spaces, {space: one for space, one in moments.items() if residual or space != RES}
        )
    target, source = (canonical(side.base) for side in (context.target, context.source))
    if options.by == "weights":
        return match_weights(spaces, target, source, residual=residual).maps
    return straight_through(
        spaces,
        target,
        source,
        _losses(context),
        steps=options.steps,
        lr=options.lr,
        residual=residual,
    )[0]


def _losses(context: AlignContext) -> list[Loss]:
    """Return each batch's part of the mean cross-entropy of the target's heads."""
    tower, images = context.encoder(context.target).tower, context.the_images()

    def of(batch: Batch) -> Loss:
        def loss(state: State) -> torch.Tensor:
            there = {key: one.to(images.device) for key, one in state.items()}
            features = functional_call(tower, there, (batch.inputs,))
            logits = context.the_head(batch.task).logits(features)
            return functional.cross_entropy(logits, batch.labels, reduction="sum") / len(images)

        return loss

    return [of(batch) for batch in context.batches()]


def _spaces(context: AlignContext) -> Spaces:
    source, target = (context.source.the_card(), context.target.the_card())
    theirs, ours = (
        spaces_of(card, side.end.shapes)
        for card, side in ((source, context.source), (target, context.target))
    )
    if source.activation != target.activation:
        raise LineageError(
            f"the source computes with {source.activation}, the target with {target.activation}, and no "
            "other names of channels make the one the other; only aligner `none` with `activation: any` "
            "adds its vectors all the same"
        )
    shapes = context.source.end.shapes, context.target.end.shapes
    for key in sorted(shapes[0].keys() | shapes[1].keys()):
        if shapes[0].get(key) != shapes[1].get(key):
            words = [str(own.get(key, "not there")) for own in shapes]
            raise LineageError(
                f"channels are renamed only between towers of one shape, but {key!r} is {words[0]} in the "
                f"source and {words[1]} in the target; use an aligner for unequal widths, or `none`"
            )
    if theirs.heads != ours.heads:
        raise LineageError(
            f"the source has {theirs.heads} heads in a block, the target {ours.heads}; channels are renamed "
            "only between towers of one shape"
        )
    return ours


ALIGNER = Rebasin()
