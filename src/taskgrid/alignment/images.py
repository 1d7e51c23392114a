"""Images that an aligner is shown: some of the training split, for both networks, with labels or without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from taskgrid.errors import ConfigError, DataError, LineageError
from taskgrid.models.card import ModelCard
from taskgrid.models.heads import Head, check_head
from taskgrid.models.inference import normalizer, to_device
from taskgrid.plugins.cards import Sees
from taskgrid.statistics.seam import Examples
from taskgrid.store.images import Pixels


@dataclass(frozen=True)
class Batch:
    """Some images of a task.

    Attributes:
        task: whose they are.
        pixels: ``(B, S, S, 3)`` uint8.
        inputs: ``(B, 3, S, S)`` float32, what the target's network is given, on the device.
        source_inputs: the same for the source's network: means and deviations are each base's own.
        labels: ``(B,)`` int64 true classes, on the device; -1 for an aligner that sees no labels.
    """

    task: str
    pixels: Pixels
    inputs: torch.Tensor
    source_inputs: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Images:
    """All images that an aligner is shown.

    Attributes:
        examples: task -> its images.
        heads: task -> its head in the target's run, for an aligner that sees labels.
        device: where networks are run.
        batch_size: images per pass, at most; results depend on it in their last bits only.
    """

    examples: Mapping[str, Examples]
    heads: Mapping[str, Head] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch_size: int = 32

    def __len__(self) -> int:
        return sum(map(len, self.examples.values()))

    def shown_to(self, aligner: str, sees: Sees, target: ModelCard) -> Images:
        """Return these for an aligner: labels and heads are hidden where it does not look at them.

        Args:
            aligner: its name.
            sees: what it looks at.
            target: the card of the base whose heads they are.

        Raises:
            ConfigError: if a head is missing.
            DataError: if there are no images.
            LineageError: if a head is another model's.
        """
        if not len(self):
            raise DataError(f"aligner {aligner!r} needs at least one image; give it some of a task")
        if sees == "images":
            hidden = {
                task: Examples(one.pixels, np.full_like(one.labels, -1))
                for task, one in self.examples.items()
            }
            return replace(self, examples=hidden, heads={})
        for task in self.examples:
            if task not in self.heads:
                raise ConfigError(
                    f"aligner {aligner!r} looks at labels of task {task!r}; give the head of that task, too"
                )
            check_head(self.heads[task], target)
        return replace(
            self, heads={task: self.heads[task].to(self.device) for task in self.examples}
        )

    def batches(self, source: ModelCard, target: ModelCard) -> Iterator[Batch]:
        """Yield the images, task by task in the order of their names, ``batch_size`` at a time.

        Args:
            source: the card of the source's base.
            target: the card of the target's.

        Raises:
            LineageError: if the two take images of different sizes.
        """
        if source.image_size != target.image_size:
            raise LineageError(
                f"the source takes images of {source.image_size} pixels, the target of "
                f"{target.image_size}; what they make of the same image cannot be compared, use an aligner "
                "that sees weights alone"
            )
        theirs, ours = (normalizer(card.mean, card.std, self.device) for card in (source, target))
        for task, examples in sorted(self.examples.items()):
            for start in range(0, len(examples), self.batch_size):
                part = slice(start, start + self.batch_size)
                pixels = examples.pixels[part]
                labels = torch.from_numpy(examples.labels[part]).to(self.device)
                images = to_device(pixels, self.device)
                yield Batch(task, pixels, ours(images), theirs(images), labels)
