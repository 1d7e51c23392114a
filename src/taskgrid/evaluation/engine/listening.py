"""Listening: a row with the logits behind it, for whatever derives rows from logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from taskgrid.evaluation.plan.setting import Request, Split
from taskgrid.models.heads import Head
from taskgrid.store.outcome import Outcome


class Listens(Protocol):
    """Measures rows and hands out the logits behind them: ``engine.Engine``."""

    def listen(self, request: Request) -> tuple[Outcome, NDArray[Any]]:
        """Return a row's outcome and its logits, (n, C)."""
        ...

    def labels(self, task: str, split: Split) -> NDArray[np.int64]:
        """Return the true classes of an image set."""
        ...

    @property
    def machine(self) -> Mapping[str, str | int]:
        """What moves the last bits of a logit, beside what it is of."""
        ...


@dataclass(frozen=True)
class ListeningHead(Head):
    """A head that keeps the logits it gave, so that the kernel that asks for them need not know.

    Attributes:
        of: the head that gives them.
        batches: the logits of each call, on their device.
    """

    of: Head
    batches: list[torch.Tensor] = field(default_factory=list)

    @classmethod
    def beside(cls, head: Head) -> Self:
        """Return a listening twin of a head."""
        return cls(head.weight, head.classes, head.lineage, head)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits ``(B, C)`` as the head does, and keep them."""
        found = self.of.logits(features)
        self.batches.append(found)
        return found

    def heard(self) -> torch.Tensor:
        """Return all logits ``(n, C)``, on their device."""
        return torch.cat(self.batches)
