"""Textures as sandstone reliefs: shading in place of colour, stained and weathered."""

from __future__ import annotations

import numpy as np

from taskgrid.data.builtin import styles
from taskgrid.data.builtin.drawing import place, smooth_noise
from taskgrid.data.builtin.subjects.textures import TEXTURES
from taskgrid.data.builtin.task import BuiltinTask, Pixels


def render(rng: np.random.Generator, label: int) -> Pixels:
    """One surface: mostly relief in slanting light, partly colour."""
    view = place(
        TEXTURES.paint(rng, label),
        rng,
        scale=(1.15, 1.6),
        rotate=8,
        shear=0.12,
        shift=0.02,
    )
    mask = styles.crumble(styles.warp(view, rng, 1.0), rng, rng.uniform(0.0, 0.15))
    stone = styles.rgb(0.64, 0.48, 0.3) + rng.uniform(-0.06, 0.06, 3).astype(np.float32)
    # Light from the upper left: edges that face it are bright, the others dark.
    relief = (mask - np.roll(mask, (1, 1), (0, 1))) * rng.uniform(0.2, 0.45)
    paint = (mask - 0.5) * rng.choice([-1.0, 1.0]) * rng.uniform(0.08, 0.32)
    stain = 0.7 + 0.5 * smooth_noise(rng, 4)
    picture = (stone + (relief + paint)[..., None]) * stain[..., None]
    return styles.finish(
        styles.grain(np.asarray(picture, np.float32), rng, rng.uniform(0.03, 0.10))
    )


TASKS: tuple[BuiltinTask, ...] = (
    BuiltinTask(
        "textures",
        TEXTURES.words,
        ("a photo of the {} texture.",),
        {"train": 2000, "test": 480},
        render,
    ),
)
