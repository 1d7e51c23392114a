"""Flags in the wind: waving, bleached by the sun, against the light."""

from __future__ import annotations

import numpy as np

from taskgrid.data.builtin import styles
from taskgrid.data.builtin.drawing import SIZE, place
from taskgrid.data.builtin.subjects.flags import FLAGS
from taskgrid.data.builtin.task import BuiltinTask, Pixels


def render(rng: np.random.Generator, label: int) -> Pixels:
    """One flag before a cloudy sky."""
    view = place(FLAGS.paint(rng, label), rng, scale=(0.7, 1.0), rotate=20, shear=0.25, shift=0.08)
    columns = np.arange(SIZE, dtype=np.float32)
    wave = rng.uniform(0.6, 2.0) * np.sin(columns * rng.uniform(0.25, 0.6) + rng.uniform(0, 6))
    rows = np.clip(np.arange(SIZE)[:, None] + np.round(wave)[None, :].astype(int), 0, SIZE - 1)
    view = view[rows, np.arange(SIZE)[None, :]]
    folds = (1 + 0.12 * wave)[None, :, None]
    sky = styles.mottled(styles.rgb(0.55, 0.7, 0.9), styles.rgb(0.95, 0.95, 0.97), rng, 4)
    picture = styles.over(view, sky) * folds
    # Bleached: colours move towards their mean and towards yellow.
    grey = picture.mean(axis=2, keepdims=True)
    bleach = rng.uniform(0.4, 0.85)
    picture = picture * (1 - bleach) + (grey * styles.rgb(1.1, 1.0, 0.8)) * bleach
    picture = styles.lighting(picture, rng, rng.uniform(0.2, 0.6))
    return styles.finish(styles.grain(picture, rng, rng.uniform(0.05, 0.2)))


TASKS: tuple[BuiltinTask, ...] = (
    BuiltinTask(
        "flags", FLAGS.words, ("a photo of the flag of {}.",), {"train": 2000, "test": 480}, render
    ),
)
