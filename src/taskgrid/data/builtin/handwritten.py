"""Real data: scikit-learn's 8 x 8 handwritten digits, in the package's order.

They are 1,797 images of the UCI set. The first 1,437 are train, the last 360 test: mostly other
writers, as the set keeps the order in which it was collected.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from sklearn.datasets import load_digits

from taskgrid.data.builtin.subjects.glyphs import DIGIT_WORDS
from taskgrid.data.builtin.task import BuiltinTask, Pixels

TRAIN, TEST = 1437, 360


@cache
def _digits() -> tuple[Pixels, list[int]]:
    bunch = load_digits()
    grey = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3), [int(label) for label in bunch.target]


def _stored(split: str, index: int) -> tuple[int, Pixels]:
    pixels, labels = _digits()
    position = index if split == "train" else TRAIN + index
    return labels[position], pixels[position].copy()


TASKS: tuple[BuiltinTask, ...] = (
    BuiltinTask(
        name="handwritten",
        classes=DIGIT_WORDS,
        templates=("a photo of the digit {}.",),
        counts={"train": TRAIN, "test": TEST},
        stored=_stored,
    ),
)
