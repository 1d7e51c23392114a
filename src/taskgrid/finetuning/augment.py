"""The papers' one augmentation, a mild random resized crop, on whole batches of uint8 images.

Crop and resize of one image are two small matrix products, ``R @ image @ C.T``, with a row of
bicubic weights per output pixel; a batch is one batched product, fast on a CPU and on a GPU.
"""

from __future__ import annotations

import math

import torch

_ATTEMPTS = 10
_RATIO = (3 / 4, 4 / 3)
_CUBIC = -0.5
"""Keys' parameter, as in Pillow."""


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
    count, height, width, channels = pixels.shape
    boxes = draw_boxes(count, height, width, smallest, generator).to(pixels.device)
    rows = resize_weights(boxes[:, 0], boxes[:, 2], height)
    columns = resize_weights(boxes[:, 1], boxes[:, 3], width)
    images = pixels.float()
    # Pillow resizes along the rows first and rounds to uint8 in between.
    across = _whole(columns @ images.permute(0, 2, 1, 3).reshape(count, width, height * channels))
    across = across.view(count, width, height, channels).permute(0, 2, 1, 3)
    down = _whole(rows @ across.reshape(count, height, width * channels))
    return down.view(count, height, width, channels)


def draw_boxes(
    count: int, height: int, width: int, smallest: float, generator: torch.Generator
) -> torch.Tensor:
    """Draw crop boxes.

    Ten times an area share is drawn uniformly and an aspect ratio log-uniformly; the first box that
    fits is placed uniformly. Where none fits, the largest central box with a ratio in range is used.

    Returns:
        ``(count, 4)`` int64: top, left, height, width.
    """
    draws = torch.rand(count, _ATTEMPTS, 2, generator=generator, dtype=torch.float64)
    places = torch.rand(count, 2, generator=generator, dtype=torch.float64)
    area = height * width * (smallest + (1 - smallest) * draws[..., 0])
    low, high = math.log(_RATIO[0]), math.log(_RATIO[1])
    ratio = torch.exp(low + (high - low) * draws[..., 1])
    tall = torch.sqrt(area / ratio).round().long()
    wide = torch.sqrt(area * ratio).round().long()
    fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
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


def resize_weights(start: torch.Tensor, length: torch.Tensor, size: int) -> torch.Tensor:
    """Return the matrices that cut ``[start, start + length)`` out of ``size`` pixels and resize it.

    Args:
        start: ``(B,)`` first pixel of each interval.
        length: ``(B,)`` length of each interval, at most ``size``.
        size: pixels before and after.

    Returns:
        ``(B, size, size)`` float32; row ``i`` holds the bicubic weights of output pixel ``i``, which
        sum to one and are zero outside the interval.
    """
    zoom = (length.double() / size).view(-1, 1, 1)
    pixel = torch.arange(size, device=start.device, dtype=torch.float64)
    centre = (pixel.view(1, -1, 1) + 0.5) * zoom
    source = pixel.view(1, 1, -1) - start.view(-1, 1, 1)
    weights = _cubic(source + 0.5 - centre)
    inside = (source >= 0) & (source < length.view(-1, 1, 1))
    weights = weights * inside
    return (weights / weights.sum(dim=2, keepdim=True)).float()


def _whole(values: torch.Tensor) -> torch.Tensor:
    return values.add_(0.5).floor_().clamp_(0, 255)


def _central(height: int, width: int) -> tuple[int, int]:
    ratio = width / height
    if ratio < _RATIO[0]:
        return round(width / _RATIO[0]), width
    if ratio > _RATIO[1]:
        return height, round(height * _RATIO[1])
    return height, width


def _cubic(distance: torch.Tensor) -> torch.Tensor:
    x = distance.abs()
    near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    far = ((_CUBIC * x - 5 * _CUBIC) * x + 8 * _CUBIC) * x - 4 * _CUBIC
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
