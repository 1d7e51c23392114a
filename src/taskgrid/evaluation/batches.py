"""How many images pass at a time: what was asked for, less once the device has run out of memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import torch

from taskgrid.errors import DeviceError

Result = TypeVar("Result")


class BatchSize:
    """A batch size that is halved when the device runs out of memory, and stays so.

    Attributes:
        size: images per pass.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def fit(self, work: Callable[[int], Result]) -> Result:
        """Do some work with as many images per pass as fit.

        Args:
            work: is given the number of images per pass; begun again from its start when it runs out
                of memory, so that no result mixes two sizes.

        Raises:
            DeviceError: if a single image does not fit.
        """
        while True:
            try:
                return work(self.size)
            except torch.OutOfMemoryError as error:
                self._halve(error)

    def _halve(self, error: torch.OutOfMemoryError) -> None:
        if self.size == 1:
            raise DeviceError(
                "the device has no memory for one image beside the model; use a larger one, or the CPU "
                "(device: cpu)"
            ) from error
        tried, self.size = self.size, self.size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        print(
            f"out of memory with {tried} images per pass, going on with {self.size}; set "
            f"evaluation.batch_size to {self.size} to begin there",
            file=sys.stderr,
        )
