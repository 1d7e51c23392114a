"""Road signs in bad weather: dusk, fog, rain, half hidden behind leaves."""

from __future__ import annotations

import numpy as np

from taskgrid.data.builtin import styles
from taskgrid.data.builtin.drawing import place, smooth_noise
from taskgrid.data.builtin.subjects.signs import SIGNS
from taskgrid.data.builtin.task import BuiltinTask, Pixels


def render(rng: np.random.Generator, label: int) -> Pixels:
    """One sign against trees or sky."""
    sky = styles.rgb(0.5, 0.6, 0.7) + rng.uniform(-0.15, 0.15, 3).astype(np.float32)
    trees = styles.rgb(0.15, 0.3, 0.12) + rng.uniform(-0.1, 0.1, 3).astype(np.float32)
    view = place(SIGNS.paint(rng, label), rng, scale=(0.65, 1.0), rotate=12, shear=0.2, shift=0.12)
    picture = styles.over(view, styles.mottled(sky, trees, rng, 7))
    leaves = np.clip((smooth_noise(rng, 8) - rng.uniform(0.7, 0.95)) * 8, 0, 1)
    picture = styles.ink_on(leaves, trees, picture)
    picture = styles.fog(picture, rng, rng.uniform(0.1, 0.5))
    if rng.random() < 0.5:
        picture = styles.night(picture, rng, rng.uniform(0.35, 0.7))
    picture = styles.scratch(picture, rng, rng.uniform(0.0, 0.3))
    picture = styles.blur(picture, rng, rng.uniform(0.1, 0.3))
    return styles.finish(styles.grain(picture, rng, rng.uniform(0.02, 0.12)))


TASKS: tuple[BuiltinTask, ...] = (
    BuiltinTask(
        "road_signs",
        SIGNS.words,
        ("a photo of the {} sign.",),
        {"train": 2000, "test": 480},
        render,
    ),
)
