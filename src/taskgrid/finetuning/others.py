"""What a mode reads of the other tasks, made ready: their images as the loop feeds them, statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import torch

from taskgrid.errors import ConfigError, DataError
from taskgrid.finetuning.feed import Feed, Samples
from taskgrid.finetuning.modes.seam import Others
from taskgrid.finetuning.recipe import Recipe
from taskgrid.models.card import ModelCard
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.weights import State


@dataclass(frozen=True)
class OtherTasks:
    """What there is of the other tasks.

    Attributes:
        images: their training images, by task.
        statistics: name of a statistic -> task -> what was computed.
    """

    images: Mapping[str, Samples] = field(default_factory=dict)
    statistics: Mapping[str, Mapping[str, State]] = field(default_factory=dict)


@contextmanager
def opened(
    given: OtherTasks | None,
    wanted: tuple[str, ...],
    *,
    mode: str,
    card: ModelCard,
    recipe: Recipe,
    root: int,
    device: torch.device,
) -> Iterator[Others]:
    """Give a mode what its card asks for, and nothing else.

    Args:
        given: what there is; None is nothing at all, not even tasks.
        wanted: ``others`` of the mode's card.
        mode: its name, for messages.
        card: the base model's card.
        recipe: says how images are cropped.
        root: the seed from which draws follow.
        device: where images go.

    Raises:
        ConfigError: if something was asked for that is not given.
        DataError: if a task has no training images.
    """
    there = set() if given is None else {"images", *given.statistics}
    lacking = [name for name in wanted if name not in there]
    if lacking:
        raise ConfigError(
            f"fine-tuning mode {mode!r} reads {' and '.join(lacking)} of the other tasks; give them "
            "as `others`"
        )
    given = given or OtherTasks()
    images = given.images if "images" in wanted else {}
    for task, samples in images.items():
        if not len(samples):
            raise DataError(
                f"task {task!r} has no training images, which fine-tuning mode {mode!r} reads"
            )
    with ExitStack() as stack:
        draws = {
            task: _Draws(samples, card, recipe, derive_seed("other", root, task), device)
            for task, samples in images.items()
        }
        for one in draws.values():
            stack.callback(one.close)
        yield Others(draws, {name: given.statistics[name] for name in wanted if name != "images"})


class _Draws:
    """Draws batches of another task's training images."""

    def __init__(
        self, samples: Samples, card: ModelCard, recipe: Recipe, root: int, device: torch.device
    ) -> None:
        self._samples = samples
        self._card = card
        self._recipe = recipe
        self._root = root
        self._device = device
        self._feeds: dict[int, Feed] = {}

    def __call__(self, number: int, size: int) -> torch.Tensor:
        """Return batch ``number`` of ``size`` images."""
        if size not in self._feeds:
            recipe = replace(self._recipe, batch_size=size, accumulate=1)
            # Not resident: the images of all tasks would not leave room for those that train.
            self._feeds[size] = Feed(
                self._samples, recipe, self._root, None, self._device, keep=False
            )
        return self._feeds[size].batch(number).prepared(self._card)

    def close(self) -> None:
        """Stop reading ahead."""
        for feed in self._feeds.values():
            feed.close()
