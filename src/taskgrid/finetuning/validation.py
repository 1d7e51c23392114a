"""What is validated while an expert trains: the share of held-out images that it classifies right."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from taskgrid.finetuning.feed import Samples, resident
from taskgrid.finetuning.modes.seam import Trainee
from taskgrid.models.batches import BatchChoice, BatchSize, fitted, passing
from taskgrid.models.heads import Head
from taskgrid.models.inference import iter_features


class Validation:
    """Measures a trainee as the grid measures encoders.

    Args:
        trainee: what trains.
        head: the task's head, on the device.
        samples: validation images.
        precision: the recipe's.
        batch_size: images per forward pass; ``auto`` takes what fits.
        device: where to compute.
    """

    def __init__(
        self,
        trainee: Trainee,
        head: Head,
        samples: Samples,
        precision: str,
        batch_size: BatchChoice,
        device: torch.device,
    ) -> None:
        self._trainee = trainee
        self._head = head
        self._pixels = resident(samples.pixels, device)
        self._labels = torch.as_tensor(np.array(samples.labels), dtype=torch.int64).to(device)
        self._precision = precision
        self._asked = batch_size
        self._device = device

    def accuracy(self) -> float:
        """Return the share of images whose largest logit is that of their class.

        Raises:
            DeviceError: if not even one image at a time fits into the device's memory.
        """
        return self._batch_size.fit(self._correct) / len(self._labels)

    @cached_property
    def _batch_size(self) -> BatchSize:
        probe = passing(self._trainee, self._device, self._precision)
        return fitted(self._asked, self._device, probe, halved=lambda size: "")

    def _correct(self, batch_size: int) -> int:
        correct = torch.zeros((), dtype=torch.int64, device=self._device)
        start = 0
        for features in iter_features(
            self._trainee,
            self._pixels,
            batch_size=batch_size,
            device=self._device,
            precision=self._precision,
        ):
            truth = self._labels[start : start + len(features)]
            correct += (self._head.logits(features).argmax(dim=1) == truth).sum()
            start += len(features)
        return int(correct)
