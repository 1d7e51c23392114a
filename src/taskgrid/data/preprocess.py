"""The deterministic half of preprocessing: all that happens before normalisation."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

from taskgrid.errors import DataError
from taskgrid.store.images import Pixels

_FILTERS: Final = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


def prepare(pixels: Pixels, size: int, interpolation: str = "bicubic") -> Pixels:
    """Resize the shorter side to ``size`` and cut out the centre.

    Equal, pixel for pixel, to open_clip's validation transform before normalisation
    (``open_clip.image_transform(size, is_train=False)`` on an RGB image): torchvision's ``Resize``
    with antialiasing, then ``CenterCrop``.

    Args:
        pixels: ``H x W x 3`` uint8, RGB.
        size: side of the result.
        interpolation: ``bicubic`` or ``bilinear``.

    Returns:
        ``size x size x 3`` uint8.

    Raises:
        DataError: if the interpolation is unknown.
    """
    if interpolation not in _FILTERS:
        raise DataError(
            f"unknown interpolation {interpolation!r}; there are: {', '.join(_FILTERS)}"
        )
    image = Image.fromarray(np.ascontiguousarray(pixels))
    width, height = image.size
    short, long = min(width, height), max(width, height)
    # torchvision truncates the longer side and rounds the crop's corner half to even.
    stretched = int(size * long / short)
    target = (size, stretched) if width <= height else (stretched, size)
    if target != image.size:
        image = image.resize(target, _FILTERS[interpolation])
    left, top = round((target[0] - size) / 2.0), round((target[1] - size) / 2.0)
    return np.asarray(image.crop((left, top, left + size, top + size)))
