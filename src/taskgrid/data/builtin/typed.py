"""Typed digits and letters, each as two domains: a worn print-out, a number plate in the street.

``print_digits : street_digits :: print_letters : street_letters`` is an analogy of subject and
style.
"""

from __future__ import annotations

import numpy as np

from taskgrid.data.builtin import styles
from taskgrid.data.builtin.drawing import TEXT_FONTS, glyph, place
from taskgrid.data.builtin.subjects.glyphs import DIGIT_WORDS
from taskgrid.data.builtin.task import BuiltinTask, Pixels, Render

LETTERS: tuple[str, ...] = tuple("ABCDEFGHJKLMNPRSTXYZ")
COUNTS = {"train": 2000, "test": 500}


def _street(words: tuple[str, ...]) -> Render:
    def render(rng: np.random.Generator, label: int) -> Pixels:
        font = TEXT_FONTS[rng.integers(len(TEXT_FONTS))]
        ink = rng.random(3, dtype=np.float32)
        _, ground = styles.contrasting(rng, ink, 0.45)
        picture = styles.gradient(ground, rng.random(3, dtype=np.float32) * 0.5 + ground * 0.5, rng)
        # Neighbours of the same plate reach into the picture, as in street-number photographs.
        view = place(
            glyph(words[label], font), rng, scale=(0.7, 1.0), rotate=14, shear=0.25, shift=0.06
        )
        for side in (-1, 1):
            if rng.random() < 0.85:
                other = place(
                    glyph(words[rng.integers(len(words))], font),
                    rng,
                    scale=(0.7, 1.0),
                    rotate=6,
                    shift=0.04,
                )
                away = int(rng.integers(14, 19))
                moved = np.zeros_like(other)
                if side < 0:
                    moved[:, :-away] = other[:, away:]
                else:
                    moved[:, away:] = other[:, :-away]
                picture = styles.ink_on(moved, ink, picture)
        picture = styles.ink_on(view, ink, picture)
        picture = styles.lighting(picture, rng, rng.uniform(0, 0.5))
        picture = styles.blur(picture, rng, rng.uniform(0.1, 0.35))
        picture = styles.fade(picture, rng, rng.uniform(0.1, 0.5))
        return styles.finish(styles.grain(picture, rng, rng.uniform(0.03, 0.10)))

    return render


def _print(words: tuple[str, ...]) -> Render:
    def render(rng: np.random.Generator, label: int) -> Pixels:
        font = TEXT_FONTS[rng.integers(len(TEXT_FONTS))]
        view = place(
            glyph(words[label], font), rng, scale=(0.8, 1.15), rotate=5, shear=0.1, shift=0.06
        )
        mask = styles.thicken(view, 0.5)
        mask = styles.dots(mask, rng.uniform(3.0, 4.2), (rng.random(), rng.random()))
        mask = styles.crumble(mask, rng, rng.uniform(0.1, 0.45))
        paper = styles.mottled(styles.rgb(0.85, 0.82, 0.72), styles.rgb(0.95, 0.93, 0.9), rng)
        ink = styles.rgb(0.35, 0.3, 0.5) + rng.uniform(-0.1, 0.25, 3).astype(np.float32)
        return styles.finish(
            styles.grain(styles.ink_on(mask, ink, paper), rng, rng.uniform(0.05, 0.2))
        )

    return render


def _task(name: str, words: tuple[str, ...], noun: str, render: Render) -> BuiltinTask:
    return BuiltinTask(name, words, (f"a photo of the {noun} {{}}.",), COUNTS, render)


TASKS: tuple[BuiltinTask, ...] = (
    _task("print_digits", DIGIT_WORDS, "digit", _print(DIGIT_WORDS)),
    _task("street_digits", DIGIT_WORDS, "digit", _street(DIGIT_WORDS)),
    _task("print_letters", LETTERS, "letter", _print(LETTERS)),
    _task("street_letters", LETTERS, "letter", _street(LETTERS)),
)
