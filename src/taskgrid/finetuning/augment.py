"""The papers' one augmentation, a mild random resized crop, on whole batches of uint8 images.

Crop and resize of one image are two small matrix products, ``R @ image @ C.T``, with a row of
bicubic weights per output pixel; a batch is one batched product, fast on a CPU and on a GPU. The
weights are functions of real numbers, so a box may begin and end anywhere, and an image that was
resized when it was decoded is cropped at the very place where its original would have been.
"""

from __future__ import annotations

import math

import torch

from taskgrid.store.originals import CROP_RATIO

_ATTEMPTS = 10
_CUBIC = -0.5
"""Keys' parameter, as in Pillow."""
_NOTHING = 1e-6
"""A pixel of which a box holds less than this lies outside of it."""


def random_resized_crop(
    pixels: torch.Tensor, smallest: float, generator: torch.Generator
) -> torch.Tensor:
    """Crop each image at random and resize the crop to the image's size.

    The boxes are drawn as torchvision's ``RandomResizedCrop(scale=(smallest, 1), ratio=(3/4, 4/3))``
    draws them; the resampling is Pillow's bicubic.

    Args:
        pixels: ``(B, H, W, 3)`` uint8 on any device.
        smallest: smallest area of the crop as a share of the image; 1 returns ``pixels``.
        generator: source of the boxes, on the CPU; devices then make no difference to them.

    Returns:
        ``(B, H, W, 3)`` float32, whole numbers in [0, 255] (uint8 ``pixels`` if nothing is cropped).
    """
    if smallest >= 1:
        return pixels
    count, height, width, _ = pixels.shape
    boxes = draw_boxes(count, height, width, smallest, generator)
    return crop(pixels, boxes, (height, width))


def crop(pixels: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Cut a box out of each image and resize it as Pillow's bicubic filter does.

    Args:
        pixels: ``(B, H, W, 3)`` uint8 on any device; what lies outside of the boxes is not looked at.
        boxes: ``(B, 4)`` top, left, height and width, whole numbers or fractions of pixels; where a
            box ends within a pixel, that pixel belongs to it.
        size: height and width of the results.

    Returns:
        ``(B, *size, 3)`` float32, whole numbers in [0, 255].
    """
    count, height, width, channels = pixels.shape
    boxes = boxes.to(pixels.device, non_blocking=True)
    rows = resize_weights(boxes[:, 0], boxes[:, 2], size[0], height)
    columns = resize_weights(boxes[:, 1], boxes[:, 3], size[1], width)
    images = pixels.float()
    # Pillow resizes along the rows first and rounds to uint8 in between. (Since version 13 it begins
    # with the columns where they shrink much more: a matter of rounding.)
    across = _whole(columns @ images.permute(0, 2, 1, 3).reshape(count, width, height * channels))
    across = across.view(count, size[1], height, channels).permute(0, 2, 1, 3)
    down = _whole(rows @ across.reshape(count, height, size[1] * channels))
    return down.view(count, *size, channels)


def draw_boxes(
    count: int,
    height: int | torch.Tensor,
    width: int | torch.Tensor,
    smallest: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Draw crop boxes.

    Ten times an area share is drawn uniformly and an aspect ratio log-uniformly; the first box that
    fits is placed uniformly. Where none fits, the largest central box with a ratio in range is used.

    Args:
        count: number of images.
        height: their height, or the height of each, ``(count,)``.
        width: their width, or the width of each.
        smallest: smallest area of a box as a share of its image.
        generator: source of the boxes, on the CPU; the draws of an image do not depend on any size.

    Returns:
        ``(count, 4)`` int64: top, left, height, width.
    """
    height, width = (torch.as_tensor(side).expand(count) for side in (height, width))
    draws = torch.rand(count, _ATTEMPTS, 2, generator=generator, dtype=torch.float64)
    places = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    area = (height * width).view(-1, 1) * (smallest + (1 - smallest) * draws[..., 0])
    low, high = math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])
    ratio = torch.exp(low + (high - low) * draws[..., 1])
    tall = torch.sqrt(area / ratio).round().long()
    wide = torch.sqrt(area * ratio).round().long()
    fits = (tall > 0) & (tall <= height.view(-1, 1)) & (wide > 0) & (wide <= width.view(-1, 1))
    first = fits.to(torch.int8).argmax(dim=1, keepdim=True)
    found = fits.any(dim=1)
    central_height, central_width = _central(height, width)
    tall = torch.where(found, tall.gather(1, first).squeeze(1), central_height)
    wide = torch.where(found, wide.gather(1, first).squeeze(1), central_width)
    top = (places[:, 0] * (height - tall + 1)).long()
    left = (places[:, 1] * (width - wide + 1)).long()
    top = torch.where(found, top, (height - central_height) // 2)
    left = torch.where(found, left, (width - central_width) // 2)
    return torch.stack([top, left, tall, wide], dim=1)


def resize_weights(
    start: torch.Tensor, length: torch.Tensor, size: int, pixels: int
) -> torch.Tensor:
    """Return the matrices that cut ``[start, start + length)`` out of some pixels and resize it.

    Args:
        start: ``(B,)`` where each interval begins; pixel ``k`` is ``[k, k + 1)``.
        length: ``(B,)`` length of each interval.
        size: pixels of the result.
        pixels: pixels there are.

    Returns:
        ``(B, size, pixels)`` float32; row ``i`` holds the bicubic weights of output pixel ``i``,
        widened where the interval shrinks. They sum to one and are zero outside the interval.
    """
    start, length = (each.double().view(-1, 1, 1) for each in (start, length))
    zoom = length / size
    widening = zoom.clamp(min=1)
    centre = (torch.arange(size, device=start.device, dtype=torch.float64) + 0.5).view(1, -1, 1)
    centre = centre * zoom
    # Of all pixels only those within two (widened) pixels count: so many at most, from this one on.
    taps = math.ceil(4 * max(pixels / size, 1)) + 1
    first = (start + centre - 2 * widening - 0.5).ceil()
    pixel = first + torch.arange(taps, device=start.device, dtype=torch.float64)
    source = pixel - start
    inside = (source > _NOTHING - 1) & (source < length - _NOTHING)
    weights = _cubic((source + 0.5 - centre) / widening) * inside
    weights = (weights / weights.sum(dim=2, keepdim=True)).float()
    matrices = torch.zeros(len(weights), size, pixels, device=weights.device)
    return matrices.scatter_add_(2, pixel.long().clamp_(0, pixels - 1), weights)


def _whole(values: torch.Tensor) -> torch.Tensor:
    return values.add_(0.5).floor_().clamp_(0, 255)


def _central(height: torch.Tensor, width: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = CROP_RATIO
    ratio = width.double() / height.double()
    tall = torch.where(ratio < low, (width.double() / low).round().long(), height)
    wide = torch.where(ratio > high, (height.double() * high).round().long(), width)
    return tall, wide


def _cubic(distance: torch.Tensor) -> torch.Tensor:
    x = distance.abs()
    near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    far = ((_CUBIC * x - 5 * _CUBIC) * x + 8 * _CUBIC) * x - 4 * _CUBIC
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
