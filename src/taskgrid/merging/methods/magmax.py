"""MagMax: of each weight's entries the one of largest magnitude; theta = theta_0 + lambda * tau.

Marczak et al., "MagMax: Leveraging Model Merging for Seamless Continual Learning" (ECCV 2024), section 4.
"""

from __future__ import annotations

import torch

from taskgrid.merging.bases.additive import Line
from taskgrid.merging.bases.algebra import Fold
from taskgrid.merging.seam import Prepared
from taskgrid.plugins.cards import MergerCard

CARD = MergerCard(
    title="MagMax",
    paper="Marczak et al., MagMax, ECCV 2024, section 4",
    scope="element",
)


class MagMax(Fold, Line):
    """Adds the entries of largest magnitude, times lambda."""

    def begin(self, lifted: Prepared) -> Prepared:
        """Return the first task's vector."""
        return {name: delta.clone() for name, delta in lifted.items()}

    def step(self, total: Prepared, lifted: Prepared, *, reuse: bool) -> Prepared:
        """Return the larger entries; of equal magnitudes the later task's."""
        return {
            name: torch.where(delta.abs() >= total[name].abs(), delta, total[name])
            for name, delta in lifted.items()
        }


MERGER = MagMax()
