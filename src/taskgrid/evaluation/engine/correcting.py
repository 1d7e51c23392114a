"""Heads that see what a merge method makes of features: so the kernel need not know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch

from taskgrid.models.heads import Head


@dataclass(frozen=True)
class CorrectingHead(Head):
    """A head behind a function of features.

    Attributes:
        correct: features ``(B, D)`` -> features ``(B, D)``.
    """

    correct: Callable[[torch.Tensor], torch.Tensor]

    @classmethod
    def behind(cls, correct: Callable[[torch.Tensor], torch.Tensor], head: Head) -> Self:
        """Return a head behind a function."""
        return cls(head.weight, head.classes, head.lineage, correct)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits ``(B, C)`` of what becomes of features ``(B, D)``."""
        return super().logits(self.correct(features))
