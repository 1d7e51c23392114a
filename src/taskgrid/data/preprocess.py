"""The deterministic half of preprocessing: all that happens before normalisation."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

from taskgrid.errors import DataError
from taskgrid.sentences import unknown
from taskgrid.store.images import Pixels
from taskgrid.store.originals import CROP_RATIO

_FILTERS: Final = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}

OVERSAMPLING: Final = 1.5
"""Pixels kept per pixel of a random crop: at one, resizing twice would blur what trains."""


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
        raise DataError(unknown("interpolation", interpolation, _FILTERS))
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


def whole(pixels: Pixels, size: int) -> Pixels:
    """Return all of an image, as finely as random crops of ``size`` pixels need it.

    Each axis is resized (bicubic, with antialiasing) for itself, and only where it has more pixels
    than needed: the largest crop keeps ``OVERSAMPLING * size`` of them. So the map from a box of
    the image to a box of the result is a scaling of each axis, and a small image stays as it is.

    Args:
        pixels: ``H x W x 3`` uint8, RGB.
        size: side of the crops after they are resized.

    Returns:
        ``h x w x 3`` uint8 with ``h <= H`` and ``w <= W``.
    """
    height, width = pixels.shape[:2]
    enough = round(OVERSAMPLING * size)
    tall = _fewer(height, min(height, width / CROP_RATIO[0]), enough)
    wide = _fewer(width, min(width, height * CROP_RATIO[1]), enough)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    # One axis at a time: versions of Pillow differ in which axis they take first.
    for target in ((wide, height), (wide, tall)):
        if target != image.size:
            image = image.resize(target, Image.Resampling.BICUBIC)
    return np.asarray(image)


def _fewer(length: int, largest_crop: float, enough: int) -> int:
    return min(length, round(length * enough / largest_crop))
