"""Masks as methods keep them: eight weights to a byte."""

from __future__ import annotations

import torch

_BITS = 8


def pack(mask: torch.Tensor) -> torch.Tensor:
    """Return a mask as bytes; bit i of byte j is entry 8 j + i of the flattened mask.

    Args:
        mask: bool, any shape.
    """
    flat = mask.reshape(-1)
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % _BITS)).view(-1, _BITS)
    total = torch.zeros(len(padded), dtype=torch.uint8, device=mask.device)
    for bit in range(_BITS):
        total |= padded[:, bit].to(torch.uint8) << bit
    return total


def unpack(packed: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Return the mask that ``pack`` packed.

    Args:
        packed: its bytes.
        shape: the mask's shape.
    """
    bits = torch.empty((len(packed), _BITS), dtype=torch.bool, device=packed.device)
    for bit in range(_BITS):
        bits[:, bit] = (packed >> bit) & 1
    return bits.view(-1)[: shape.numel()].view(shape)
