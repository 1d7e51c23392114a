"""Counting glowing cells under a microscope."""

from __future__ import annotations

import numpy as np

from taskgrid.data.builtin import styles
from taskgrid.data.builtin.drawing import place, smooth_noise
from taskgrid.data.builtin.subjects.shapes import COUNTS
from taskgrid.data.builtin.task import BuiltinTask, Pixels


def render(rng: np.random.Generator, label: int) -> Pixels:
    """``label + 1`` cells of uneven brightness, slightly out of focus."""
    view = place(COUNTS.paint(rng, label), rng, scale=(0.8, 1.0), rotate=40, shear=0.15, shift=0.03)
    cells = styles.warp(view, rng, 1.0) * (0.6 + 0.4 * smooth_noise(rng, 5))
    dye = styles.rgb(0.15, 0.9, 0.4) + rng.uniform(-0.15, 0.15, 3).astype(np.float32)
    plasma = (0.05 + 0.25 * smooth_noise(rng, 4))[..., None] * styles.rgb(0.3, 1.0, 0.5)
    glow = np.asarray(plasma + cells[..., None] * dye, np.float32)
    picture = styles.blur(glow, rng, rng.uniform(0.1, 0.35))
    return styles.finish(styles.grain(picture, rng, rng.uniform(0.03, 0.12)))


TASKS: tuple[BuiltinTask, ...] = (
    BuiltinTask(
        "counting", COUNTS.words, ("a photo of {} dots.",), {"train": 1600, "test": 400}, render
    ),
)
