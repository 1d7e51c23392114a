"""The task vector of an expert, wherever it comes from."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from taskgrid.vectors import TaskVector


def vector_of(
    base: Mapping[str, torch.Tensor],
    expert: Mapping[str, torch.Tensor],
    lineage: Mapping[str, str],
) -> TaskVector:
    """Return theta_t - theta_0 in float32, as ``TaskVector.between``.

    An expert that was carried whole from another base is as far from this one as bases are from each
    other, so that it is not asked whether its matrices point where those of the base do.

    Args:
        base: theta_0.
        expert: theta_t.
        lineage: the expert's.

    Raises:
        LineageError: as ``TaskVector.between``.
    """
    if lineage.get("carry") != "model":
        return TaskVector.between(base, expert, lineage)
    # Its lineage is checked and written as that of any other.
    nothing = TaskVector.between(base, base, lineage)
    deltas = {key: (expert[key].double() - base[key].double()).float() for key in nothing.deltas}
    return TaskVector(deltas, nothing.lineage)
