"""Masks: which entries matter to a task, and how methods keep that, eight weights to a byte."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from taskgrid.merging.seam import Prepared

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


def matters(own: torch.Tensor, merged: torch.Tensor, mask_lambda: float) -> torch.Tensor:
    """Return where entries of a merged vector matter to a task: |tau_t| > lambda_t |tau_MTL - tau_t|.

    Wang et al., "Localizing Task Information" (ICML 2024), equation 4.

    Args:
        own: a tensor of tau_t.
        merged: the same tensor of tau_MTL, float64.
        mask_lambda: lambda_t.
    """
    own = own.double()
    return own.abs() > mask_lambda * (merged - own).abs()


def masked_direction(
    prepared: Prepared, whole: str, task: str, names: Iterable[str], factor: float = 1.0
) -> Prepared:
    """Return a task's part of a vector that all tasks share, float64.

    Args:
        prepared: ``{whole}/{name}``, the vector, and ``mask/{task}/{name}``, packed.
        whole: what the vector is called there.
        task: whose mask is laid over it.
        names: tensors; those that the vector does not have are left out.
        factor: multiplies it.
    """
    direction = {}
    for name in names:
        if f"{whole}/{name}" in prepared:
            vector = prepared[f"{whole}/{name}"].double()
            mask = unpack(prepared[f"mask/{task}/{name}"], vector.shape)
            direction[name] = torch.where(mask, vector * factor, 0)
    return direction
