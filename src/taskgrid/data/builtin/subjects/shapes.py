"""Geometric shapes, and a number of small shapes to count."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from taskgrid.data.builtin.drawing import (
    CANVAS,
    arrow_points,
    box,
    regular_polygon,
    star_polygon,
)
from taskgrid.data.builtin.subjects import Family

SHAPE_WORDS: tuple[str, ...] = (
    "circle", "ring", "half circle", "ellipse", "triangle", "square", "diamond", "pentagon", "hexagon",
    "octagon", "rectangle", "trapezoid", "crescent", "plus", "arrow", "starburst",
)  # fmt: skip
COUNT_WORDS: tuple[str, ...] = ("one", "two", "three", "four", "five", "six", "seven", "eight")


def paint_shape(rng: np.random.Generator, index: int) -> Image.Image:
    """Ink mask of a shape of slightly random proportions."""
    image = Image.new("L", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(image)
    m, r = CANVAS / 2, rng.uniform(19, 23)
    word = SHAPE_WORDS[index]
    if word == "circle":
        draw.ellipse(box(r), fill=255)
    elif word == "ring":
        draw.ellipse(box(r), fill=255)
        draw.ellipse(box(r * rng.uniform(0.5, 0.7)), fill=0)
    elif word == "half circle":
        draw.pieslice(box(r, (m, m + 8)), 180, 360, fill=255)
    elif word == "ellipse":
        squeeze = rng.uniform(0.45, 0.62)
        draw.ellipse((m - r, m - r * squeeze, m + r, m + r * squeeze), fill=255)
    elif word in ("triangle", "square", "diamond", "pentagon", "hexagon", "octagon"):
        sides, turn = {
            "triangle": (3, 0.0), "square": (4, 45.0), "diamond": (4, 0.0), "pentagon": (5, 0.0),
            "hexagon": (6, 0.0), "octagon": (8, 22.5),
        }[word]  # fmt: skip
        draw.polygon(regular_polygon(sides, r, turn), fill=255)
    elif word == "rectangle":
        squeeze = rng.uniform(0.42, 0.58)
        draw.rectangle((m - r, m - r * squeeze, m + r, m + r * squeeze), fill=255)
    elif word == "trapezoid":
        top = r * rng.uniform(0.4, 0.6)
        draw.polygon(
            [(m - top, m - 14), (m + top, m - 14), (m + r, m + 14), (m - r, m + 14)], fill=255
        )
    elif word == "crescent":
        draw.ellipse(box(r), fill=255)
        draw.ellipse(box(r * 0.85, (m + r * 0.5, m - 2)), fill=0)
    elif word == "plus":
        w = rng.uniform(5, 8)
        draw.rectangle((m - w, m - r, m + w, m + r), fill=255)
        draw.rectangle((m - r, m - w, m + r, m + w), fill=255)
    elif word == "arrow":
        draw.polygon(arrow_points(0, r, rng.uniform(4, 7)), fill=255)
    else:
        draw.polygon(
            star_polygon(int(rng.integers(8, 13)), r, r * rng.uniform(0.45, 0.6)), fill=255
        )
    return image


def paint_count(rng: np.random.Generator, index: int) -> Image.Image:
    """Ink mask of ``index + 1`` separate dots, at random places of a 3 x 3 lattice."""
    image = Image.new("L", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(image)
    size = rng.uniform(4.5, 6.5)
    for cell in rng.permutation(9)[: index + 1]:
        x = CANVAS / 2 + (cell % 3 - 1) * 17 + rng.uniform(-2, 2)
        y = CANVAS / 2 + (cell // 3 - 1) * 17 + rng.uniform(-2, 2)
        draw.ellipse(box(size * rng.uniform(0.85, 1.15), (x, y)), fill=255)
    return image


SHAPES = Family("shapes", "the {} shape", SHAPE_WORDS, paint_shape)
COUNTS = Family("counts", "{} dots", COUNT_WORDS, paint_count, largest=1.0)
