"""How fast a training trains: the time of its updates, and of nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Pace:
    """A stopwatch that runs while updates are made and rests during validation and saving.

    Args:
        device: where updates are computed; their end is waited for when the watch rests.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._device = device
        self._since: float | None = None
        self._marks: list[tuple[int, float]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run within the block."""
        self._since = time.perf_counter()
        try:
            yield
        finally:
            self._stop()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Rest within the block, if the watch runs at all."""
        ran = self._since is not None
        self._stop()
        try:
            yield
        finally:
            if ran:
                self._since = time.perf_counter()

    def mark(self, step: int) -> None:
        """Note how much time the first ``step`` updates took; the watch must be resting."""
        self._marks.append((step, self.seconds))

    def curve(self) -> list[tuple[int, float]]:
        """Return ``(step, seconds)`` of each mark."""
        return list(self._marks)

    def pack(self) -> torch.Tensor:
        """Return the marks as a tensor."""
        return torch.tensor(self._marks, dtype=torch.float64).reshape(-1, 2)

    def restore(self, seconds: float, marks: torch.Tensor) -> None:
        """Put back what a checkpoint holds."""
        self.seconds = seconds
        self._marks = [(int(step), value) for step, value in marks.tolist()]

    def _stop(self) -> None:
        if self._since is None:
            return
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds += time.perf_counter() - self._since
        self._since = None
