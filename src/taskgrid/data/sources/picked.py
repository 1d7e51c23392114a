"""Some images of another source: the first of a seeded permutation, in the source's own order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from taskgrid.data.sources.seam import Entry, Source
from taskgrid.store.images import SPLITS, Split

_SEED = 0


@dataclass(frozen=True)
class Pick:
    """Images of a split.

    Attributes:
        origin: the split of the source that they are in.
        rows: their places in it, increasing; None takes all.
    """

    origin: Split
    rows: Sequence[int] | None = None


class PickedSource(Source):
    """Some images of another source, maybe in other splits; the rest is never decoded."""

    def __init__(self, source: Source, picks: Mapping[Split, Pick]) -> None:
        """Take images of ``source``; ``picks`` says which make up each split."""
        self._source = source
        self._picks = picks
        self.classes = source.classes
        self.templates = source.templates
        self.notes = source.notes

    def splits(self) -> tuple[Split, ...]:
        """Return the splits that images were picked for."""
        return tuple(split for split in SPLITS if split in self._picks)

    def count(self, split: Split) -> int:
        """Return the number of images picked for a split."""
        pick = self._picks[split]
        return self._source.count(pick.origin) if pick.rows is None else len(pick.rows)

    def entries(self, split: Split) -> Iterator[Entry]:
        """Yield the picked images, in the order of their source."""
        pick = self._picks[split]
        if pick.rows is None:
            return self._source.entries(pick.origin)
        return self._source.chosen(pick.origin, pick.rows)

    def chosen(self, split: Split, rows: Sequence[int]) -> Iterator[Entry]:
        """Yield some of the picked images."""
        pick = self._picks[split]
        inner = rows if pick.rows is None else [pick.rows[row] for row in rows]
        return self._source.chosen(pick.origin, inner)


def limited(source: Source, limit: int) -> Source:
    """Return at most ``limit`` images of each split of a source.

    They are drawn with seed 0 over the source's own order; those of a smaller limit are among those
    of a larger one.
    """
    counts = {split: source.count(split) for split in source.splits()}
    if max(counts.values(), default=0) <= limit:
        return source
    return PickedSource(
        source, {split: Pick(split, draw(count, limit)) for split, count in counts.items()}
    )


def draw(count: int, limit: int) -> tuple[int, ...] | None:
    """Return ``limit`` of ``count`` places, increasing; None if all are taken."""
    if count <= limit:
        return None
    # The legacy generator: numpy promises that its numbers never change.
    order = np.random.RandomState(_SEED).permutation(count)
    return tuple(sorted(order[:limit].tolist()))
