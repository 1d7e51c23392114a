"""The aligner seam: two bases in, a transport of task vectors from the one to the other out.

An aligner is one module with a ``CARD`` and an ``ALIGNER``, and one line in the registry. No lambda is in
its work: the experts that it makes stand in the target's run like any others, and every method and
lambda is applied to them there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch

from taskgrid import plugins
from taskgrid.alignment.images import Batch, Images
from taskgrid.alignment.maps import Axes, TensorMap, Transport
from taskgrid.alignment.sides import Side
from taskgrid.alignment.taps import correlations, observe
from taskgrid.errors import LineageError
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.heads import Head
from taskgrid.plugins.options import Options
from taskgrid.store.weights import State


@dataclass(frozen=True, eq=False)
class AlignContext:
    """What an aligner may look at. It is asked once for the bases, or for each task; its card says which.

    Attributes:
        source: the base that the task vector belongs to.
        target: the base that it is brought to.
        task: the task; empty where one transport is asked for that all tasks share.
        vector: its task vector at the source, float32; empty with it.
        options: the aligner's options.
        seed: for aligners that draw; derive from it with ``provenance.derive_seed``.
        images: what it is shown, where its card says that it looks at any.
    """

    source: Side
    target: Side
    task: str = ""
    vector: State = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    seed: int = 0
    images: Images | None = None

    def transport_by(self, axes: Mapping[str, TensorMap]) -> Transport:
        """Return the transport with a map along each axis of each tensor (``maps.Axes``)."""
        return Transport(self.source.end, self.target.end, Axes(axes))

    def the_images(self) -> Images:
        """Return what is shown.

        Raises:
            LineageError: if nothing is; `sees` on the card asks for it.
        """
        if self.images is None:
            raise LineageError("this aligner is shown no images; its card must say what it `sees`")
        return self.images

    def the_head(self, task: str = "") -> Head:
        """Return the head of a task in the target's run, on the device; of ``self.task`` if none is named.

        Raises:
            LineageError: if it is not shown; `sees: labels` on the card asks for heads.
        """
        heads, name = self.the_images().heads, task or self.task
        if name not in heads:
            raise LineageError(
                f"this aligner is shown no head of task {name!r}; its card must say that it sees `labels`, "
                "and images of that task be given"
            )
        return heads[name]

    def batches(self) -> Iterator[Batch]:
        """Yield the images as both networks are given them; can be asked again.

        Raises:
            LineageError: if nothing is shown, a card is missing, or the bases take images of two sizes.
        """
        return self.the_images().batches(self.source.the_card(), self.target.the_card())

    def encoder(self, side: Side) -> ImageEncoder:
        """Return the network of a base, frozen, on the device.

        Raises:
            LineageError: if its card is missing.
        """
        return ImageEncoder.from_card(side.the_card(), side.base).to(self.the_images().device)

    def moments(self) -> dict[str, torch.Tensor]:
        """Return how the channels of both bases go together on the images, in one pass.

        Returns:
            Space -> ``(n_target, n_source)`` float64 correlations on the CPU, as ``taps.correlations``.

        Raises:
            LineageError: as ``batches``, or if the towers are not vision transformers of one depth that cut
                images into the same tokens.
        """
        ours, theirs = self.encoder(self.target), self.encoder(self.source)
        seen = (
            (observe(ours, batch.inputs), observe(theirs, batch.source_inputs))
            for batch in self.batches()
        )
        return {space: found.cpu() for space, found in correlations(seen).items()}


class Aligner(Protocol):
    """An aligner; what others must know of it stands on its card."""

    def align(self, context: AlignContext) -> Transport:
        """Return the transport.

        Raises:
            LineageError: if this aligner cannot bring the one base's vectors to the other; says what
                differs.
        """
        ...


def get_aligner(name: str) -> Aligner:
    """Return an aligner by name.

    Raises:
        ConfigError: if there is none of that name; the text lists those that exist.
    """
    return cast(Aligner, plugins.load("aligner", name).ALIGNER)
