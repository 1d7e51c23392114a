"""The pre-training corpus: images of all subjects in many mild styles, with true captions.

An image is a pure function of (seed, index). It is kept with the facts that were used to draw it:
its subject, its styles, the colour of its ink. Captions are composed from those facts and mention
some of them, so that whether a caption is true of *another* image is known as well: the loss treats
every true pair as a positive.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taskgrid.data.builtin import styles
from taskgrid.data.builtin.drawing import SIZE, FloatArray, place
from taskgrid.data.builtin.subjects import Family
from taskgrid.data.builtin.subjects.catalogue import FAMILIES, phrases
from taskgrid.data.builtin.task import generator

INK_STYLES: tuple[str, ...] = ("outlined", "bent", "halftone", "crumbled", "bold", "thin")
STYLES: tuple[str, ...] = (*INK_STYLES, *styles.EFFECTS)
"""Adjectives of captions; bit ``i`` of an image's ``styles`` says that style ``i`` was applied."""

COLOUR_NAMES: tuple[str, ...] = tuple(styles.COLOURS)
NOTHING = -1

PLAIN_TEMPLATES: tuple[str, ...] = (
    "a photo of {}.",
    "a picture of {}.",
    "an image of {}.",
    "a drawing of {}.",
    "{}.",
)
STYLED_TEMPLATES: tuple[str, ...] = (
    "a {style} photo of {subject}.",
    "a {style} picture of {subject}.",
    "{subject}, {style}.",
)
FAMILY_WEIGHTS: dict[str, float] = {
    "digits": 0.16, "letters": 0.18, "greek": 0.05, "icons": 0.19, "shapes": 0.09, "counts": 0.08,
    "textures": 0.10, "signs": 0.09, "flags": 0.06,
}  # fmt: skip
"""Share of images per family: rather by how hard a subject is to learn than by the number of subjects."""


@dataclass(frozen=True)
class Facts:
    """What is true of an image: subject number, bit set of styles, ink colour (or ``NOTHING``)."""

    subject: int
    styles: int
    colour: int


@dataclass(frozen=True)
class Claims:
    """What a caption says: a subject, at most one style, one colour (``NOTHING``: silent)."""

    subject: int
    style: int
    colour: int
    text: str


@dataclass(frozen=True)
class Corpus:
    """Images (N x side x side x 3, uint8) with their facts (one array per fact, length N)."""

    pixels: NDArray[np.uint8]
    subjects: NDArray[np.int64]
    styles: NDArray[np.int64]
    colours: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pixels)

    def facts(self, index: int) -> Facts:
        """Facts of one image."""
        return Facts(int(self.subjects[index]), int(self.styles[index]), int(self.colours[index]))


def _style_ink(mask: FloatArray, rng: np.random.Generator, full: bool) -> tuple[FloatArray, int]:
    """Mild changes of the ink, with the bits of those that were made."""
    made = 0
    roll = rng.random(5)
    if not full and roll[0] < 0.12:
        mask, made = styles.outline(mask, rng.uniform(0.8, 1.4)), made | 1
    elif not full and roll[1] < 0.3:
        amount = rng.uniform(-0.7, 0.9)
        mask = styles.thicken(mask, amount)
        made |= 16 if amount > 0.3 else 32 if amount < -0.3 else 0
    if roll[2] < 0.3:
        pixels = rng.uniform(1.0, 4.0)
        mask = styles.warp(mask, rng, pixels)
        made |= 2 if pixels > 2 else 0
    if roll[3] < 0.08:
        mask = styles.dots(mask, rng.uniform(2.3, 3.6), (rng.random(), rng.random()))
        made |= 4
    elif roll[4] < 0.10:
        mask, made = styles.crumble(mask, rng, rng.uniform(0.1, 0.4)), made | 8
    return mask, made


def _background(colour: FloatArray, rng: np.random.Generator) -> FloatArray:
    roll = rng.random()
    if roll < 0.5:
        return styles.flat(colour)
    other = np.clip(colour + rng.uniform(-0.25, 0.25, 3), 0, 1).astype(np.float32)
    return (
        styles.gradient(colour, other, rng) if roll < 0.75 else styles.mottled(colour, other, rng)
    )


def _view(family: Family, word: int, rng: np.random.Generator) -> FloatArray:
    drawing = family.paint(rng, word)
    if family.full:
        return place(drawing, rng, scale=(1.15, 1.6), rotate=6, shear=0.05, shift=0.02)
    shift = 0.08 if family.largest > 1 else 0.03
    return place(drawing, rng, scale=(0.75, family.largest), rotate=12, shear=0.15, shift=shift)


def render(seed: int, index: int, side: int) -> tuple[NDArray[np.uint8], Facts]:
    """Image ``index`` of the corpus ``seed``: ``side`` x ``side`` x 3, uint8, and its facts."""
    rng = generator("taskgrid-corpus", seed, index)
    weights = np.array([FAMILY_WEIGHTS[family.name] for family in FAMILIES])
    number = int(rng.choice(len(FAMILIES), p=weights / weights.sum()))
    family = FAMILIES[number]
    word = int(rng.integers(len(family.words)))
    subject = sum(len(f.words) for f in FAMILIES[:number]) + word

    view = _view(family, word, rng)
    made, colour = 0, NOTHING
    if view.ndim == 2:
        mask, made = _style_ink(view, rng, family.full)
        # Half of the pictures are black on white or the reverse: the clean end of the range.
        if rng.random() < 0.35:
            name, ground_name = ("black", "white") if rng.random() < 0.5 else ("white", "black")
            ink, ground = styles.named_colour(name, rng), styles.named_colour(ground_name, rng)
        else:
            name = COLOUR_NAMES[rng.integers(len(COLOUR_NAMES))]
            ink = styles.named_colour(name, rng)
            _, ground = styles.contrasting(rng, ink)
        colour = COLOUR_NAMES.index(name)
        picture = styles.ink_on(mask, ink, _background(ground, rng))
    else:
        _, ground = styles.contrasting(rng, rng.random(3, dtype=np.float32), 0.0)
        picture = styles.over(view, _background(ground, rng))

    names = list(styles.EFFECTS)
    for position in rng.choice(
        len(names), size=rng.choice(4, p=(0.3, 0.4, 0.2, 0.1)), replace=False
    ):
        strength = rng.uniform(0.1, 0.5)
        picture = styles.EFFECTS[names[position]](picture, rng, strength)
        made |= 1 << (len(INK_STYLES) + int(position)) if strength > 0.2 else 0
    image = Image.fromarray(styles.finish(picture))
    if side != SIZE:
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image), Facts(subject, made, colour)


def _render_range(
    bounds: tuple[int, int], seed: int, side: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    pixels = np.empty((bounds[1] - bounds[0], side, side, 3), np.uint8)
    facts = np.empty((bounds[1] - bounds[0], 3), np.int64)
    for row, index in enumerate(range(*bounds)):
        pixels[row], truth = render(seed, index, side)
        facts[row] = truth.subject, truth.styles, truth.colour
    return pixels, facts


def build(seed: int, images: int, side: int, workers: int = 1) -> Corpus:
    """Render a corpus; the result does not depend on ``workers``."""
    step = 2000
    bounds = [(start, min(start + step, images)) for start in range(0, images, step)]
    job = partial(_render_range, seed=seed, side=side)
    pixels = np.empty((images, side, side, 3), np.uint8)
    facts = np.empty((images, 3), np.int64)
    if workers == 1:
        parts = map(job, bounds)
        for (start, stop), (some, truth) in zip(bounds, parts, strict=True):
            pixels[start:stop], facts[start:stop] = some, truth
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for (start, stop), (some, truth) in zip(bounds, pool.map(job, bounds), strict=True):
                pixels[start:stop], facts[start:stop] = some, truth
    return Corpus(pixels, facts[:, 0], facts[:, 1], facts[:, 2])


def caption(facts: Facts, rng: np.random.Generator) -> Claims:
    """A caption that is true of an image and mentions its subject, often a style, sometimes the colour."""
    subject = phrases()[facts.subject]
    applied = [i for i in range(len(STYLES)) if facts.styles >> i & 1]
    style = applied[rng.integers(len(applied))] if applied and rng.random() < 0.4 else NOTHING
    colour = facts.colour if facts.colour != NOTHING and rng.random() < 0.25 else NOTHING
    told = f"{subject} in {COLOUR_NAMES[colour]}" if colour != NOTHING else subject
    if style != NOTHING:
        template = STYLED_TEMPLATES[rng.integers(len(STYLED_TEMPLATES))]
        text = template.format(style=STYLES[style], subject=told)
    else:
        text = PLAIN_TEMPLATES[rng.integers(len(PLAIN_TEMPLATES))].format(told)
    return Claims(facts.subject, style, colour, text)


def truth(facts: Sequence[Facts], claims: Sequence[Claims]) -> NDArray[np.bool_]:
    """Which caption (column) is true of which image (row)."""
    subject, bits, colour = (
        np.array([getattr(f, k) for f in facts]) for k in ("subject", "styles", "colour")
    )
    said, style, said_colour = (
        np.array([getattr(c, k) for c in claims]) for k in ("subject", "style", "colour")
    )
    same = subject[:, None] == said[None, :]
    styled = (style[None, :] == NOTHING) | (
        (bits[:, None] >> np.maximum(style, 0)[None, :]) & 1
    ).astype(bool)
    coloured = (said_colour[None, :] == NOTHING) | (colour[:, None] == said_colour[None, :])
    return np.asarray(same & styled & coloured)


def vocabulary() -> tuple[str, ...]:
    """Captions that between them use every word of any caption."""
    subjects = phrases()
    plain = [template.format(subjects[0]) for template in PLAIN_TEMPLATES]
    styled = [
        t.format(style=style, subject=subjects[0]) for t in STYLED_TEMPLATES for style in STYLES
    ]
    coloured = [f"{subject} in {COLOUR_NAMES[0]}, " for subject in subjects]
    return (*plain, *styled, *coloured, *(f"in {name}." for name in COLOUR_NAMES))
