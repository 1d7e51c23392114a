"""Slerp: the point at a share of the arc between two experts.

Shoemake, "Animating Rotation with Quaternion Curves" (SIGGRAPH 1985), section 3.3; of points that differ
in length, as mergekit has it: both lengths enter as they are.
"""

from __future__ import annotations

import math

import torch

from taskgrid.merging.bases.sphere import OnSphere, cosines
from taskgrid.merging.seam import MergeContext
from taskgrid.plugins.cards import MergerCard
from taskgrid.plugins.options import Option

CARD = MergerCard(
    title="Slerp",
    paper="Shoemake, Animating Rotation with Quaternion Curves, SIGGRAPH 1985, section 3.3",
    options={
        "t": Option(
            default=0.5,
            least=0,
            most=1,
            about="how far to go from the first task to the second, in the order of their names",
        ),
        "on": Option(
            default="task_vectors",
            choices=("task_vectors", "weights"),
            about="what the arc joins: the task vectors, or the experts' weights",
            origin="mergekit and FusionBench take weights, between which the angles are tiny",
        ),
    },
    scope="tensor",
    tasks=2,
)

COLLINEAR = 0.9995
"""Points whose cosine is larger in magnitude are joined by a straight line."""


class Slerp(OnSphere):
    """Adds the direction to the point on the arc, times lambda."""

    def coefficients(self, products: torch.Tensor, context: MergeContext) -> torch.Tensor:
        """Return sin((1 - t) w) / sin w and sin(t w) / sin w, w the angle."""
        share, cosine = context.options.t, float(cosines(products)[0, 1])
        if abs(cosine) > COLLINEAR:
            return torch.tensor([1 - share, share], dtype=torch.float64)
        angle = math.acos(cosine)
        parts = [math.sin((1 - share) * angle), math.sin(share * angle)]
        return torch.tensor(parts, dtype=torch.float64) / math.sin(angle)


MERGER = Slerp()
