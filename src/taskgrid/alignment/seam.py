"""The aligner seam: two bases in, a transport of task vectors from the one to the other out.

An aligner is one module with a ``CARD`` and an ``ALIGNER``, and one line in the registry. No lambda is in
its work: the experts that it makes stand in the target's run like any others, and every method and
lambda is applied to them there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, cast

import torch

from taskgrid import plugins
from taskgrid.alignment.maps import Axes, AxisMap, End, Transport
from taskgrid.errors import LineageError
from taskgrid.models.card import ModelCard
from taskgrid.plugins.options import Options
from taskgrid.store.weights import State, digest_state


@dataclass(frozen=True, eq=False)
class Side:
    """A base, as an aligner sees it.

    Attributes:
        base: theta_0.
        card: its model card, where it is known: activation, layout and heads are no weights.
    """

    base: Mapping[str, torch.Tensor]
    card: ModelCard | None = None

    @cached_property
    def end(self) -> End:
        """This side as an end of a transport.

        Raises:
            LineageError: if the card is that of another base.
        """
        digest = digest_state(self.base)
        if self.card is not None and self.card.base != digest:
            raise LineageError(
                f"the base given has digest {digest}, but its card says {self.card.base}; use the card "
                "of this base"
            )
        return End.of(self.base, digest)

    def the_card(self) -> ModelCard:
        """Return the card.

        Raises:
            LineageError: if none was given.
        """
        if self.card is None:
            raise LineageError(
                "this aligner must know more of both bases than their weights; give their cards"
            )
        return self.card


@dataclass(frozen=True, eq=False)
class AlignContext:
    """What an aligner may look at. It is asked once for each task.

    Attributes:
        source: the base that the task vector belongs to.
        target: the base that it is brought to.
        task: the task.
        vector: its task vector at the source, float32; an aligner that needs it is one for this task.
        options: the aligner's options.
        seed: for aligners that draw; derive from it with ``provenance.derive_seed``.
    """

    source: Side
    target: Side
    task: str
    vector: State
    options: Options = field(default_factory=Options)
    seed: int = 0

    def transport_by(self, axes: Mapping[str, tuple[AxisMap, ...]]) -> Transport:
        """Return the transport with a map along each axis of each tensor (``maps.Axes``)."""
        return Transport(self.source.end, self.target.end, Axes(axes))


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
