"""Icons as neon signs: glowing outlines, partly dead tubes, before a dark wall."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from taskgrid.data.builtin import styles
from taskgrid.data.builtin.drawing import place, smooth_noise
from taskgrid.data.builtin.subjects.glyphs import PICTURES
from taskgrid.data.builtin.task import BuiltinTask, Pixels

WORDS: tuple[str, ...] = (
    "heart", "star", "spade", "club", "umbrella", "telephone", "scissors", "airplane", "anchor", "skull",
    "moon", "king", "knight", "music", "flower", "lightning", "pointing hand", "lily", "cat", "snowflake",
)  # fmt: skip


def render(rng: np.random.Generator, label: int) -> Pixels:
    """One neon sign."""
    drawing = PICTURES.paint(rng, PICTURES.index(WORDS[label]))
    view = place(drawing, rng, scale=(0.85, 1.2), rotate=14, shear=0.2, shift=0.08)
    bent = styles.warp(view, rng, 1.0)
    tube = styles.outline(bent, 1.2) * rng.uniform(0.3, 0.9)
    lit = styles.crumble(
        np.maximum(tube, bent * rng.uniform(0.3, 0.75)), rng, rng.uniform(0.0, 0.25)
    )
    glow = np.clip(ndimage.gaussian_filter(lit, 2.5) * 1.5, 0, 1)
    name = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "cyan")[rng.integers(8)]
    light = styles.named_colour(name, rng)
    wall = styles.rgb(0.16, 0.1, 0.14) * (0.6 + smooth_noise(rng, 8)[..., None])
    picture = wall + glow[..., None] * light * rng.uniform(0.2, 0.6) + lit[..., None] * light * 0.7
    picture = np.asarray(picture + tube[..., None] * 0.3, np.float32)
    return styles.finish(styles.grain(picture, rng, rng.uniform(0.05, 0.15)))


TASKS: tuple[BuiltinTask, ...] = (
    BuiltinTask(
        "pictograms", WORDS, ("a photo of the {} icon.",), {"train": 2000, "test": 500}, render
    ),
)
