"""The merged vector inside another method: the sum of task vectors, or their merge by TIES."""

from __future__ import annotations

from taskgrid.merging.bases.additive import given_weight, weighted_sum
from taskgrid.merging.bases.election import Voter, elect, thresholds
from taskgrid.merging.seam import MergeContext, Prepared
from taskgrid.plugins.cards import Scope
from taskgrid.plugins.options import Options


def merged_vector(context: MergeContext) -> Prepared:
    """Return what the option ``of`` says, ``sum`` or ``ties``, in float64.

    Options of ``ties`` that the card does not have are at that method's defaults; weights multiply the
    vectors before all else.
    """
    options, vectors = context.options, context.vectors
    weights = dict.fromkeys(vectors, 1.0)
    if "weights" in options:
        weights = {task: given_weight(options, task) for task in vectors}
    if options.of == "sum":
        return weighted_sum([(weights[task], vector) for task, vector in vectors.items()])
    trim = options.get("trim", "global")
    voters = [
        Voter(vector, thresholds(vector, options.density, trim), weights[task], abs(weights[task]))
        for task, vector in vectors.items()
    ]
    return elect(voters, options.combine, options.get("zero_sign", "majority"))


def scope_of(options: Options) -> Scope:
    """Return what must be seen at once: TIES trims globally, and looks for the majority sign."""
    return "element" if options.of == "sum" else "model"
