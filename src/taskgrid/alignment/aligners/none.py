"""No alignment: the task vector of another base, added as it is. The control for every aligner.

    theta = theta_0' + (theta_t - theta_0)

Two trainings from different initialisations name their channels differently, so this is expected to do
no good; what an aligner is worth is what it is better than this.
"""

from __future__ import annotations

from taskgrid.alignment.maps import Transport
from taskgrid.alignment.seam import AlignContext
from taskgrid.errors import LineageError
from taskgrid.plugins.cards import AlignerCard
from taskgrid.plugins.options import Option

CARD = AlignerCard(
    title="No alignment",
    options={
        "activation": Option(
            default="same",
            choices=("same", "any"),
            about="`any` also adds vectors of a network with another activation function",
        ),
        "tensors": Option(
            default="all",
            choices=("all", "shared"),
            about="`shared` carries the tensors that both bases have in one shape, and leaves the others "
            "of the target as they are",
        ),
    },
)


class NoAlignment:
    """Gives the identity."""

    def align(self, context: AlignContext) -> Transport:
        """Return the identity on the tensors of both bases; refuses bases that differ in kind."""
        self._check_cards(context)
        source, target = context.source.end.shapes, context.target.end.shapes
        shared = [key for key, shape in target.items() if source.get(key) == shape]
        if context.options.tensors == "all":
            for key in sorted(source.keys() | target.keys()):
                if source.get(key) != target.get(key):
                    raise LineageError(
                        f"without alignment a vector fits a base of its own shape only: {key!r} "
                        f"{_shape(source.get(key))} in the source, {_shape(target.get(key))} in the target; "
                        "`tensors: shared` carries the others"
                    )
        if not shared:
            raise LineageError("the two bases share no tensor; nothing can be carried as it is")
        return context.transport_by(dict.fromkeys(shared, ()))

    def _check_cards(self, context: AlignContext) -> None:
        source, target = context.source.card, context.target.card
        if source is None or target is None:
            return
        if source.layout != target.layout:
            raise LineageError(
                f"the source names its tensors in layout {source.layout}, the target in {target.layout}; "
                "an aligner that knows both must bring vectors over"
            )
        if context.options.activation == "same" and source.activation != target.activation:
            raise LineageError(
                f"the source computes with {source.activation}, the target with {target.activation}; "
                "`activation: any` adds its vectors all the same"
            )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "is not there" if shape is None else f"has shape {shape}"


ALIGNER = NoAlignment()
