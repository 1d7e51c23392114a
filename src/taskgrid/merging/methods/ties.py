"""TIES: trim each task vector, elect a sign per weight, merge the entries that have it.

Yadav et al., "TIES-Merging: Resolving Interference When Merging Models" (NeurIPS 2023), section 3 and
algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping

from taskgrid.merging.bases.additive import Line, given_weight
from taskgrid.merging.bases.algebra import Factored
from taskgrid.merging.bases.election import Voter, elect, thresholds
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import MergerCard, Scope
from taskgrid.plugins.options import Option, Options

CARD = MergerCard(
    title="TIES",
    paper="Yadav et al., TIES-Merging, NeurIPS 2023, section 3",
    options={
        "density": Option(
            default=0.2,
            above=0,
            most=1,
            about="share of each task vector's entries that trimming keeps",
            origin="the paper's k = 20 %",
        ),
        "trim": Option(
            default="global",
            choices=("global", "tensor"),
            about="whether that share is of the whole vector or of every tensor",
            origin="the paper; mergekit trims every tensor",
        ),
        "combine": Option(
            default="mean",
            choices=("mean", "sum", "max"),
            about="what becomes of the entries of the elected sign",
            origin="the paper; FusionBench sums",
        ),
        "zero_sign": Option(
            default="majority",
            choices=("majority", "positive"),
            about="the sign where the entries add up to exactly zero",
            origin="the paper's code; mergekit takes +",
        ),
        "weights": Option(
            default=None,
            kind="numbers",
            about="weight of each task, by name, in the election and in what is combined; null gives 1",
            origin="mergekit",
        ),
    },
)


class Ties(Factored, Line):
    """Adds the merged direction, times lambda."""

    weighs = True

    def scope(self, options: Options) -> Scope:
        """Return what must be seen at once: global trimming and majorities need the whole model."""
        whole = options.trim == "global" or options.zero_sign == "majority"
        return "model" if whole else "tensor"

    def lift(self, alone: MergeContext) -> Prepared:
        """Return the magnitudes from which on the entries of a task are kept."""
        (vector,) = alone.vectors.values()
        return thresholds(vector, alone.options.density, alone.options.trim)

    def join(self, factors: Mapping[str, Prepared], context: MergeContext) -> Prepared:
        """Return the direction; a point's coefficients count in the election, not in a mean."""
        options, voters = context.options, []
        for task, least in factors.items():
            weight = given_weight(options, task)
            factor = weight * context.coefficient(task)
            voters.append(Voter(context.vectors[task], least, factor, abs(weight)))
        return elect(voters, options.combine, options.zero_sign)


MERGER = Ties()
