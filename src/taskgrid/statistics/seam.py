"""The statistic seam: what is found out about a network on some images, before anything is merged.

A statistic is one module with a ``CARD`` and a ``STATISTIC``, and one line in the registry. It is a
state like any other: named tensors, with their number of images among them, that are stored with their
lineage and enter row keys by their digest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from taskgrid import plugins
from taskgrid.errors import DataError, LineageError
from taskgrid.machine.meter import Silent, Tally
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.heads import Head, check_head
from taskgrid.models.inference import normalizer, to_device
from taskgrid.plugins.options import Options
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.images import PixelRows, Pixels
from taskgrid.store.weights import State

IMAGES = "images"
"""Name of the tensor, ``()`` int64, that holds the number of images a statistic was computed on."""


@dataclass(frozen=True)
class Examples:
    """Images with labels.

    Attributes:
        pixels: ``(N, S, S, 3)`` uint8, an array or rows of one.
        labels: ``(N,)`` true classes.
    """

    pixels: PixelRows | NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> Examples:
        """Return some of the images; nothing is read yet."""
        if isinstance(self.pixels, PixelRows):
            return Examples(
                PixelRows(self.pixels.pixels, self.pixels.rows[rows]), self.labels[rows]
            )
        return Examples(PixelRows(self.pixels, rows), self.labels[rows])


@dataclass(frozen=True)
class Batch:
    """Some of the images.

    Attributes:
        pixels: ``(B, S, S, 3)`` uint8.
        inputs: ``(B, 3, S, S)`` float32, what the network is given, on the device.
        labels: ``(B,)`` int64 true classes, on the device.
    """

    pixels: Pixels
    inputs: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class StatisticContext:
    """What a statistic may look at.

    Attributes:
        encoder: the network with the weights in question, frozen: the expert's for a
            statistic per task, theta_0 for one per base.
        examples: the images.
        options: the statistic's options.
        head: the task's head on the encoder's device; None for a statistic whose card says that it sees none.
        seed: for statistics that draw; what they draw for an image is not to depend on the others.
        batch_size: images per pass, at most; results depend on it in their last bits only.
        tally: is told of images that are done.
    """

    encoder: ImageEncoder
    examples: Examples
    options: Options
    head: Head | None = None
    seed: int = 0
    batch_size: int = 32
    tally: Tally = field(default_factory=Silent)

    def batches(self) -> Iterator[Batch]:
        """Yield the images in order, ``batch_size`` at a time."""
        card, device = self.encoder.card, next(self.encoder.parameters()).device
        prepare = normalizer(card.mean, card.std, device)
        for start in range(0, len(self.examples), self.batch_size):
            part = slice(start, start + self.batch_size)
            pixels = self.examples.pixels[part]
            labels = torch.from_numpy(self.examples.labels[part]).to(device)
            yield Batch(pixels, prepare(to_device(pixels, device)), labels)
            self.tally.advance(len(labels))

    def sums(self, totals: Mapping[str, torch.Tensor]) -> State:
        """Return sums over the images as they are kept: float32, and the number of images beside them."""
        state = {name: total.float().cpu() for name, total in totals.items()}
        return state | {IMAGES: torch.tensor(len(self.examples))}

    def the_head(self) -> Head:
        """Return the head.

        Raises:
            LineageError: if none was given, or it belongs to another model.
        """
        if self.head is None:
            raise LineageError("this statistic looks at predictions; give the head of the task")
        check_head(self.head, self.encoder.card)
        return self.head


class Statistic(Protocol):
    """A statistic; what others must know of it stands on its card."""

    def compute(self, context: StatisticContext) -> State:
        """Return the statistic as finite tensors on the CPU, ``IMAGES`` among them."""
        ...


def get_statistic(name: str) -> Statistic:
    """Return a statistic by name.

    Raises:
        ConfigError: if there is none of that name; the text lists those that exist.
    """
    return cast(Statistic, plugins.load("statistic", name).STATISTIC)


def chosen_rows(count: int, wanted: int, seed: int) -> NDArray[np.int64]:
    """Return which of some images are looked at, in order; a larger choice contains the smaller ones.

    Args:
        count: images that there are.
        wanted: images that are asked for; 0 takes all, as does a number beyond ``count``.
        seed: what the choice is drawn from.
    """
    order = np.random.default_rng(derive_seed("statistic", seed)).permutation(count)
    return np.sort(order[: wanted or count]).astype(np.int64)


def check_finite(name: str, state: State) -> State:
    """Return a statistic that is finite.

    Raises:
        DataError: if it is not; names the tensor.
    """
    for key, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise DataError(
                f"the statistic {name!r} is not finite in {key!r}; the expert's training diverged, or an "
                "image is damaged"
            )
    return state
