"""Training batches: which images, which boxes are cut out of them, and how they reach the device.

A batch is a function of (seed, task, mode, step) and of the samples alone. On a CPU it is made when
it is asked for; for a GPU whose memory does not hold the samples, the next batch is read and copied
while the present one trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from taskgrid.finetuning.augment import crop, draw_boxes
from taskgrid.finetuning.recipe import Recipe
from taskgrid.models.card import ModelCard
from taskgrid.models.inference import Pixels, to_device, to_input
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.originals import OriginalStore

Item = TypeVar("Item")

_RESIDENT_SHARE = 0.25
_ROWS_AT_A_TIME = 1024


@dataclass(frozen=True)
class Originals:
    """Where the originals of samples are.

    Attributes:
        store: the originals.
        places: ``(N,)`` the place of each sample's original in the store, -1 for one that has none:
            its prepared image is all there is of it.
    """

    store: OriginalStore
    places: NDArray[np.int64]


@dataclass(frozen=True)
class Samples:
    """Images with labels.

    Attributes:
        pixels: ``(N, S, S, 3)`` uint8, prepared.
        labels: ``(N,)`` whole numbers.
        originals: what random crops are cut from; None cuts them from ``pixels``.
    """

    pixels: Pixels
    labels: NDArray[Any]
    originals: Originals | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Batch:
    """Some training images, on the device.

    Attributes:
        pixels: ``(B, H, W, 3)`` uint8.
        boxes: ``(B, 4)`` what is to be cut out of each: top, left, height, width; None for all.
        labels: ``(B,)`` int64.
    """

    pixels: torch.Tensor
    boxes: torch.Tensor | None
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def parts(self, size: int) -> Iterator[Batch]:
        """Yield the batch in parts of ``size`` images; the last may be smaller."""
        for start in range(0, len(self), size):
            chosen = slice(start, start + size)
            boxes = None if self.boxes is None else self.boxes[chosen]
            yield Batch(self.pixels[chosen], boxes, self.labels[chosen])

    def cropped(self, side: int) -> torch.Tensor:
        """Return the crops, ``(B, side, side, 3)``, float32 or (if nothing is cut) uint8."""
        return self.pixels if self.boxes is None else crop(self.pixels, self.boxes, (side, side))

    def prepared(self, card: ModelCard) -> torch.Tensor:
        """Return the crops as a tower takes them, ``(B, 3, S, S)`` float32, normalised."""
        return to_input(self.cropped(card.image_size), card.mean, card.std)


class Feed:
    """Hands out the batches of a training, whatever step is asked for.

    Args:
        samples: the training images.
        recipe: the recipe.
        root: the seed from which order and boxes follow.
        total: steps in all; None has no end.
        device: where batches go.
        keep: whether a GPU with room for all samples keeps them.
    """

    def __init__(
        self,
        samples: Samples,
        recipe: Recipe,
        root: int,
        total: int | None,
        device: torch.device,
        *,
        keep: bool = True,
    ) -> None:
        self._samples = samples
        self._recipe = recipe
        self._root = root
        self._device = device
        self._order = Order(root, len(samples))
        self._per_epoch = recipe.steps_per_epoch(len(samples))
        self._side = int(samples.pixels[:1].shape[1])
        self._originals = _cropped_originals(samples, recipe)
        self._resident: tuple[torch.Tensor, torch.Tensor] | None = None
        self._ahead: Ahead[tuple[Batch, Any]] | None = None
        if device.type != "cuda":
            return
        uncut = keep and self._originals is None
        pixels = resident(samples.pixels, device) if uncut else None
        if isinstance(pixels, torch.Tensor) and pixels.is_cuda:
            labels = torch.as_tensor(np.array(samples.labels), dtype=torch.int64)
            self._resident = pixels, labels.to(device)
        else:
            self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._ahead = Ahead(self._send, total)

    def images(self, step: int) -> int:
        """Return how many images the first ``step`` batches hold."""
        epochs, batches = divmod(step, self._per_epoch)
        count = len(self._samples)
        return epochs * count + min(batches * self._recipe.batch_size, count)

    def batch(self, step: int) -> Batch:
        """Return the batch of update ``step`` (counted from 0), on the device."""
        if self._ahead is not None:
            batch, sent = self._ahead.take(step)
            here = torch.cuda.current_stream(self._device)
            here.wait_event(sent)
            for tensor in (batch.pixels, batch.boxes, batch.labels):
                if tensor is not None:
                    tensor.record_stream(here)
            return batch
        if self._resident is not None:
            index, boxes = self._draw(step)
            placed = index.to(self._device, non_blocking=True)
            pixels, labels = self._resident
            return Batch(pixels[placed], boxes, labels[placed])
        return self._read(step)

    def close(self) -> None:
        """Forget what was read ahead."""
        if self._ahead is not None:
            self._ahead.close()

    def _draw(self, step: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the sample numbers of a batch and its boxes, in pixels of the uncut images."""
        epoch, place = divmod(step, self._per_epoch)
        index = self._order.batch(epoch, place, self._recipe.batch_size)
        smallest = self._recipe.crop_scale
        if smallest >= 1:
            return index, None
        generator = torch.Generator().manual_seed(derive_seed("crop", self._root, step))
        sizes = self._sizes(index)
        return index, draw_boxes(len(index), sizes[:, 0], sizes[:, 1], smallest, generator)

    def _read(self, step: int) -> Batch:
        """Return a batch in the memory of the CPU."""
        index, boxes = self._draw(step)
        labels = torch.as_tensor(np.array(self._samples.labels[index.numpy()]), dtype=torch.int64)
        samples = self._samples
        if self._originals is not None and boxes is not None:
            pixels, boxes = self._windows(self._originals, index, boxes)
        elif isinstance(samples.pixels, torch.Tensor):
            pixels = samples.pixels[index]
        elif self._device.type == "cuda":
            pixels = self._canvas(len(index), self._side, self._side)
            for place, number in enumerate(index.tolist()):
                pixels.numpy()[place] = samples.pixels[number : number + 1][0]
        else:
            pixels = torch.from_numpy(np.array(samples.pixels[index.numpy()]))
        return Batch(pixels, boxes, labels)

    def _windows(
        self, originals: Originals, index: torch.Tensor, boxes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return of each original the pixels that its box touches, and the box within them."""
        store, prepared = originals.store, self._samples.pixels
        sizes = self._sizes(index).numpy()
        shapes = self._known(originals.store.shapes, index)
        start, end = boxes[:, :2].numpy(), (boxes[:, :2] + boxes[:, 2:]).numpy()
        first, last = start * shapes // sizes, -(-end * shapes // sizes)
        canvas = self._canvas(len(index), *(last - first).max(axis=0).tolist())
        view = canvas.numpy()
        for place, number in enumerate(index.tolist()):
            found = int(originals.places[number])
            image = store.pixels(found) if found >= 0 else prepared[number : number + 1][0]
            (top, left), (bottom, right) = first[place], last[place]
            view[place, : bottom - top, : right - left] = image[top:bottom, left:right]
        scale = shapes / sizes
        spans = np.concatenate([start * scale - first, (end - start) * scale], axis=1)
        return canvas, torch.from_numpy(spans)

    def _sizes(self, index: torch.Tensor) -> torch.Tensor:
        """Return ``(B, 2)`` heights and widths of the images that boxes are drawn in."""
        known = None if self._originals is None else self._originals.store.sizes
        return torch.from_numpy(self._known(known, index))

    def _known(self, values: NDArray[np.int64] | None, index: torch.Tensor) -> NDArray[np.int64]:
        """Return heights and widths of originals; where there is none, of the prepared image."""
        if self._originals is None or values is None:
            return np.full((len(index), 2), self._side, dtype=np.int64)
        places = self._originals.places[index.numpy()]
        return np.where((places >= 0)[:, None], values[places], self._side)

    def _canvas(self, *shape: int) -> torch.Tensor:
        return torch.empty((*shape, 3), dtype=torch.uint8, pin_memory=self._device.type == "cuda")

    def _send(self, step: int) -> tuple[Batch, Any]:
        """Copy a batch to the GPU on a stream of its own; return it with the event of its arrival."""
        batch = self._read(step)
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            pixels = batch.pixels.to(self._device, non_blocking=True)
            labels = batch.labels.to(self._device, non_blocking=True)
            boxes = batch.boxes
            if boxes is not None:
                boxes = boxes.to(self._device, non_blocking=True)
            return Batch(pixels, boxes, labels), self._stream.record_event()


class Ahead(Generic[Item]):
    """Makes the next item in a thread while the present one is in use.

    Args:
        make: makes item ``k``; called in one thread alone.
        total: number of items; None has no end.
    """

    def __init__(self, make: Callable[[int], Item], total: int | None) -> None:
        self._make = make
        self._total = total
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._coming: dict[int, Future[Item]] = {}

    def take(self, number: int) -> Item:
        """Return an item and begin with the one after it."""
        coming = self._coming.pop(number, None) or self._pool.submit(self._make, number)
        ends = self._total is not None and number + 1 >= self._total
        if not ends and number + 1 not in self._coming:
            self._coming[number + 1] = self._pool.submit(self._make, number + 1)
        return coming.result()

    def close(self) -> None:
        """Make no more."""
        self._pool.shutdown(cancel_futures=True)


class Order:
    """The order of the training images: one permutation per epoch, each a function of the seed."""

    def __init__(self, root: int, count: int) -> None:
        self._root = root
        self._count = count
        self._epoch = -1
        self._permutation = torch.empty(0, dtype=torch.int64)

    def batch(self, epoch: int, place: int, size: int) -> torch.Tensor:
        """Return the sample numbers of batch ``place`` of an epoch."""
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(derive_seed("order", self._root, epoch))
            self._permutation = torch.randperm(self._count, generator=generator)
            self._epoch = epoch
        return self._permutation[place * size : (place + 1) * size]


def resident(pixels: Pixels, device: torch.device) -> Pixels:
    """Return pixels in the memory of a GPU where they fit well, else as they are.

    They are copied in pieces: a memory map may be larger than the memory of the CPU.
    """
    if device.type != "cuda" or not len(pixels):
        return pixels
    free, _ = torch.cuda.mem_get_info(device)
    if len(pixels) * pixels[:1].nbytes >= free * _RESIDENT_SHARE:
        return pixels
    placed = torch.empty((len(pixels), *pixels[:1].shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(pixels), _ROWS_AT_A_TIME):
        piece = pixels[start : start + _ROWS_AT_A_TIME]
        placed[start : start + len(piece)] = to_device(piece, device)
    return placed


def _cropped_originals(samples: Samples, recipe: Recipe) -> Originals | None:
    """Return the originals that crops are cut from, if there is any to be cut."""
    found = samples.originals
    needed = recipe.crop_scale < 1 and found is not None and bool((found.places >= 0).any())
    return found if needed else None
