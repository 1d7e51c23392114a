"""The control task: every subject of every family, clean.

It plays the part that ImageNet plays in the papers.
"""

from __future__ import annotations

import numpy as np

from taskgrid.data.builtin import styles
from taskgrid.data.builtin.drawing import place
from taskgrid.data.builtin.subjects.catalogue import FAMILIES, phrases
from taskgrid.data.builtin.task import BuiltinTask, Pixels

SUBJECTS = tuple((family, word) for family in FAMILIES for word in range(len(family.words)))


def render(rng: np.random.Generator, label: int) -> Pixels:
    """One subject in plain colours on a plain ground."""
    family, word = SUBJECTS[label]
    drawing = family.paint(rng, word)
    scale = (1.15, 1.6) if family.full else (0.85, min(1.2, family.largest))
    view = place(
        drawing, rng, scale=scale, rotate=8, shear=0.08, shift=0.02 if family.full else 0.04
    )
    names = list(styles.COLOURS)
    ink = styles.named_colour(names[rng.integers(len(names))], rng)
    _, ground = styles.contrasting(rng, ink, 0.4)
    picture = (
        styles.ink_on(view, ink, styles.flat(ground))
        if view.ndim == 2
        else styles.over(view, styles.flat(ground))
    )
    return styles.finish(styles.grain(picture, rng, 0.03))


TASKS: tuple[BuiltinTask, ...] = (
    BuiltinTask(
        "catalogue",
        phrases(),
        ("a photo of {}.", "a picture of {}."),
        {"train": 850, "test": 850},
        render,
    ),
)
