"""What a format of experts is, and what it makes of a checkpoint before it is held against the base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from taskgrid.experts.source import ExpertFile
from taskgrid.models.card import ModelCard
from taskgrid.store.weights import Lineage, State


@dataclass(frozen=True)
class Converted:
    """An image tower in open_clip's layout.

    Attributes:
        state: its tensors, in the dtypes of the file.
        lineage: entries that say how it was brought into the layout.
        notes: sentences for a person: what was left out, taken from elsewhere or not known.
        proven: whether its own header says that it belongs to the base.
    """

    state: State
    lineage: Lineage
    notes: tuple[str, ...] = ()
    proven: bool = False


class Convert(Protocol):
    """Converts a checkpoint of one format."""

    def __call__(
        self, checkpoint: ExpertFile, card: ModelCard, base: Mapping[str, torch.Tensor], what: str
    ) -> Converted:
        """Return the image tower; refuse with a LineageError what does not fit the card."""
        ...


@dataclass(frozen=True)
class ExpertFormat:
    """A format of experts.

    Attributes:
        convert: brings a checkpoint into open_clip's layout.
        usual: names that its files have in a repository or folder, the most usual first.
        beside: configurations that a repository of this format has beside the weights.
    """

    convert: Convert
    usual: tuple[str, ...]
    beside: tuple[str, ...] = ()
