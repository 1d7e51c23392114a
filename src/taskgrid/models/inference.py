"""Features and logits of many images, with no synchronisation per batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from taskgrid.models.card import ModelCard
from taskgrid.models.heads import Head
from taskgrid.store.images import PixelRows

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
    return normalizer(mean, std, pixels.device)(pixels)


def normalizer(
    mean: Sequence[float], std: Sequence[float], device: torch.device
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return ``to_input`` for one mean and one std, which are brought to the device once."""
    shift, scale = (
        torch.tensor(values, dtype=torch.float32).to(device, non_blocking=True).view(3, 1, 1)
        for values in (mean, std)
    )

    def prepare(pixels: torch.Tensor) -> torch.Tensor:
        images = pixels.permute(0, 3, 1, 2).to(torch.float32).contiguous() / 255
        return images.sub_(shift).div_(scale)

    return prepare


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute in float32 what is float32, whatever the process lets matrix products and convolutions do.

    torch lets cuDNN convolutions use TF32 by default, which is not what "fp32" promises.
    """
    backends: Any = torch.backends
    switches = (
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.cuda.matmul,
        backends.mkldnn.conv,
        backends.mkldnn.matmul,
    )
    kept = [switch.fp32_precision for switch in switches]
    convolutions, products = _older_switches()
    # torch refuses to read the older switches while they and the newer ones disagree: both are set.
    if convolutions is not None:
        backends.cudnn.allow_tf32 = False
    if products is not None:
        torch.set_float32_matmul_precision("highest")
    for switch in switches:
        switch.fp32_precision = "ieee"
    try:
        yield
    finally:
        if convolutions is not None:
            backends.cudnn.allow_tf32 = convolutions
        if products is not None:
            torch.set_float32_matmul_precision(products)
        # Last, for the older switches turn the newer ones, too.
        for switch, precision in zip(switches, kept, strict=True):
            switch.fp32_precision = precision


def _older_switches() -> tuple[bool | None, str | None]:
    """Return how cuDNN and matrix products are set; None where a caller has set the newer ones alone."""
    found: list[Any] = []
    for read in (lambda: torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision):
        try:
            found.append(read())
        except RuntimeError:
            found.append(None)
    return found[0], found[1]


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
    prepare = normalizer(encoder.card.mean, encoder.card.std, device)
    half = precision == "bf16"
    for start in range(0, len(pixels), batch_size):
        # Entered per batch: a generator must not leave the caller in inference mode.
        with (
            full_float32(),
            torch.inference_mode(),
            torch.autocast(device.type, dtype=torch.bfloat16, enabled=half),
        ):
            batch = to_device(pixels[start : start + batch_size], device)
            features = encoder(prepare(batch)).float()
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


def iter_logits(
    encoder: Encodes,
    head: Head,
    pixels: Pixels,
    *,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
) -> Iterator[torch.Tensor]:
    """Yield the logits ``(B, C)`` of images in order under a head that is on the device.

    Other arguments as for ``iter_features``.
    """
    for features in iter_features(
        encoder, pixels, batch_size=batch_size, device=device, precision=precision
    ):
        with full_float32(), torch.inference_mode():
            logits = head.logits(features)
        yield logits


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
    batches = iter_logits(
        encoder, head.to(device), pixels, batch_size=batch_size, device=device, precision=precision
    )
    found = list(batches)
    return torch.cat(found) if found else torch.empty(0, len(head.classes))


def to_device(pixels: torch.Tensor | NDArray[Any], device: torch.device) -> torch.Tensor:
    """Return pixels as a tensor on a device; arrays are copied, so a memory map is only read."""
    if isinstance(pixels, torch.Tensor):
        return pixels.to(device, non_blocking=True)
    tensor = torch.from_numpy(np.array(pixels))
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
