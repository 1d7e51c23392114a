"""The two bases of a transport, in memory and as files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from taskgrid.alignment.maps import End
from taskgrid.errors import LineageError
from taskgrid.models.card import ModelCard, check_expert
from taskgrid.store.atomic import read_json
from taskgrid.store.weights import digest_state, load_state
from taskgrid.vectors import TaskVector


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


@dataclass(frozen=True)
class SideFiles:
    """A base as files.

    Attributes:
        card: its model card.
        base: theta_0.
    """

    card: Path
    base: Path

    def read(self) -> Side:
        """Read both.

        Raises:
            ArtifactError: if a file is missing or damaged.
        """
        return Side(load_state(self.base)[0], ModelCard.from_json(read_json(self.card)))


def read_vector(there: Side, expert: Path, task: str) -> TaskVector:
    """Read an expert of a base as its task vector.

    Raises:
        ArtifactError: if the file is missing or damaged.
        LineageError: if it is another task's or another base's.
    """
    state, lineage = load_state(expert)
    check_expert(lineage, there.the_card(), task)
    if lineage.get("task", task) != task:
        raise LineageError(
            f"{expert} is the expert of task {lineage['task']!r}, not of {task!r}; tasks are found by "
            "their names, which must mean the same in both runs"
        )
    return TaskVector.between(there.base, state, lineage)
