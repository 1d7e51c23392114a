"""Shapes hatched with a pencil on squared paper."""

from __future__ import annotations

import numpy as np

from taskgrid.data.builtin import styles
from taskgrid.data.builtin.drawing import SIZE, place
from taskgrid.data.builtin.subjects.shapes import SHAPES
from taskgrid.data.builtin.task import BuiltinTask, Pixels


def render(rng: np.random.Generator, label: int) -> Pixels:
    """One shape: shaky border, slanted hatching inside, blue squares behind."""
    view = place(SHAPES.paint(rng, label), rng, scale=(0.9, 1.25), rotate=7, shear=0.08, shift=0.06)
    mask = styles.warp(view, rng, 0.8, 6)
    rows, cols = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    strokes = np.clip(np.sin((rows + cols * rng.uniform(0.3, 1.0)) * rng.uniform(1.0, 1.8)), 0, 1)
    ink = np.clip(0.7 * styles.outline(mask, 0.9) + 0.6 * mask * strokes, 0, 1)
    pitch, start = rng.uniform(4.5, 7), rng.uniform(0, 6, 2)
    ruled = np.minimum((rows + start[0]) % pitch, (cols + start[1]) % pitch) < 1
    paper = styles.ink_on(
        ruled.astype(np.float32) * 0.45,
        styles.rgb(0.45, 0.6, 0.85),
        styles.flat(np.full(3, 0.94, np.float32)),
    )
    pencil = np.full(3, rng.uniform(0.25, 0.5), np.float32)
    picture = styles.ink_on(styles.crumble(ink, rng, rng.uniform(0.0, 0.2)), pencil, paper)
    return styles.finish(styles.grain(picture, rng, rng.uniform(0.03, 0.12)))


TASKS: tuple[BuiltinTask, ...] = (
    BuiltinTask(
        "shapes", SHAPES.words, ("a photo of the {} shape.",), {"train": 2000, "test": 480}, render
    ),
)
