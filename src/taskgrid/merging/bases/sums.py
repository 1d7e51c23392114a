"""Statistics that are sums over images."""

from __future__ import annotations

from collections.abc import Mapping

import torch

IMAGES = "images"
"""Name of the number of images in a statistic (``statistics.seam.IMAGES``; what merges does not follow
how statistics are computed: their digests are in the keys)."""


def number_of_images(statistic: Mapping[str, torch.Tensor]) -> int:
    """Return of how many images a statistic is a sum; 1 if it does not say: it is taken as it stands."""
    return int(statistic[IMAGES]) if IMAGES in statistic else 1
