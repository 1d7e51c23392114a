"""Statistics that are sums over images."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from taskgrid.errors import LineageError

IMAGES = "images"
"""Name of the number of images in a statistic (``statistics.seam.IMAGES``; what merges does not follow
how statistics are computed: their digests are in the keys)."""


def number_of_images(statistic: Mapping[str, torch.Tensor], what: str) -> int:
    """Return of how many images a statistic is a sum.

    Args:
        statistic: sums by name, and the number of images.
        what: what the message calls it.

    Raises:
        LineageError: if it does not say.
    """
    count = int(statistic[IMAGES]) if IMAGES in statistic else 0
    if count < 1:
        raise LineageError(
            f"the statistic {what} does not say how many images it is a sum over; compute it again"
        )
    return count
