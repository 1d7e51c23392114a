"""Features and logits of many images, with no synchronisation per batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from taskgrid.models.card import ModelCard
from taskgrid.models.heads import Head


class PixelRows:
    """Some rows of a pixel array, in an order of their own, read when asked for.

    Args:
        pixels: ``(M, S, S, 3)`` uint8 array, which may be memory-mapped.
        rows: ``(N,)`` row numbers.
    """

    def __init__(self, pixels: NDArray[Any], rows: NDArray[Any]) -> None:
        self._pixels = pixels
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: slice | NDArray[Any]) -> NDArray[Any]:
        chosen: NDArray[Any] = self._pixels[self._rows[index]]
        return chosen


Pixels: TypeAlias = torch.Tensor | NDArray[Any] | PixelRows
"""``(N, S, S, 3)`` uint8: a tensor on any device, an array (memory-mapped or not), or rows of one."""


class Encodes(Protocol):
    """Anything that turns images into features: an encoder, or what is being fine-tuned."""

    @property
    def card(self) -> ModelCard:
        """The card of the base model."""
        ...

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return features ``(B, D)``."""
        ...

    def eval(self) -> Any:
        """Switch to evaluation mode."""
        ...


def to_input(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Turn stored pixels into a tower's input, bit for bit as torchvision's transforms do.

    Args:
        pixels: ``(B, S, S, 3)``, uint8 or float on the scale [0, 255].
        mean: channel means on the scale [0, 1].
        std: channel standard deviations on the scale [0, 1].

    Returns:
        ``(B, 3, S, S)`` float32 on the device of ``pixels``.
    """
    shift = torch.tensor(mean, dtype=torch.float32).to(pixels.device, non_blocking=True)
    scale = torch.tensor(std, dtype=torch.float32).to(pixels.device, non_blocking=True)
    images = pixels.permute(0, 3, 1, 2).to(torch.float32).contiguous() / 255
    return images.sub_(shift.view(3, 1, 1)).div_(scale.view(3, 1, 1))


def iter_features(
    encoder: Encodes,
    pixels: Pixels,
    *,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
) -> Iterator[torch.Tensor]:
    """Yield the features ``(B, D)`` of images in order, float32 on the device.

    Batches are cut at fixed places, so the values depend on weights, pixels and batch size alone,
    never on what was computed before. Nothing waits for the device between batches.

    Args:
        encoder: the image encoder, already on ``device``; switched to evaluation mode.
        pixels: ``(N, S, S, 3)`` uint8.
        batch_size: images per forward pass.
        device: where the encoder is.
        precision: ``bf16`` runs the encoder under autocast, on every kind of device; its weights and
            its features are float32 all the same.
    """
    device = torch.device(device)
    encoder.eval()
    card = encoder.card
    half = precision == "bf16"
    for start in range(0, len(pixels), batch_size):
        # Entered per batch: a generator must not leave the caller in inference mode.
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype=torch.bfloat16, enabled=half),
        ):
            batch = to_device(pixels[start : start + batch_size], device)
            features = encoder(to_input(batch, card.mean, card.std)).float()
        yield features


def features_of(
    encoder: Encodes,
    pixels: Pixels,
    *,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
) -> torch.Tensor:
    """Return the features ``(N, D)`` of all images; arguments as for ``iter_features``."""
    batches = iter_features(
        encoder, pixels, batch_size=batch_size, device=device, precision=precision
    )
    found = list(batches)
    return torch.cat(found) if found else torch.empty(0)


def logits_of(
    encoder: Encodes,
    head: Head,
    pixels: Pixels,
    *,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
) -> torch.Tensor:
    """Return the logits ``(N, C)`` of all images under a head; arguments as for ``iter_features``."""
    head = head.to(device)
    found = []
    for features in iter_features(
        encoder, pixels, batch_size=batch_size, device=device, precision=precision
    ):
        with torch.inference_mode():
            found.append(head.logits(features))
    return torch.cat(found) if found else torch.empty(0, len(head.classes))


def to_device(pixels: torch.Tensor | NDArray[Any], device: torch.device) -> torch.Tensor:
    """Return pixels as a tensor on a device; arrays are copied, so a memory map is only read."""
    if isinstance(pixels, torch.Tensor):
        return pixels.to(device, non_blocking=True)
    tensor = torch.from_numpy(np.array(pixels))
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
