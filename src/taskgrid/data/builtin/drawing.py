"""Drawing primitives shared by the built-in tasks and the pre-training corpus.

A *drawing* is a small PIL image of ``CANVAS`` x ``CANVAS`` pixels: mode ``L`` (an ink mask, 255
where there is ink) or mode ``RGBA`` (a subject with colours of its own). Everything is a pure
function of its arguments and of the generator that is passed in. Fonts are the ones that ship with
matplotlib, so that no image depends on the machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

FloatArray = NDArray[np.float32]
Point = tuple[float, float]
Colour = tuple[int, int, int]

CANVAS = 64
"""Side of a drawing in pixels; subjects stay within its inner part so that they can be rotated."""

SIZE = 32
"""Side of a rendered image in pixels; larger than the model's input, so that resizing is real."""

TEXT_FONTS: tuple[str, ...] = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique", "DejaVuSansMono",
    "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic",
    "DejaVuSerif-BoldItalic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta",
    "cmr10", "cmss10", "cmtt10", "cmb10", "cmti10",
)  # fmt: skip
"""Fonts that have digits and Latin letters."""


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    # Basic layout: the same glyph positions whether or not the machine has libraqm.
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@cache
def glyph(text: str, font: str = "DejaVuSans", extent: int = 44) -> Image.Image:
    """Ink mask of ``text``, centred, its longer side ``extent`` pixels. Cached: do not draw on it."""
    face = _font(font, 64)
    left, top, right, bottom = face.getbbox(text)
    width, height = max(1, int(right - left)), max(1, int(bottom - top))
    raw = Image.new("L", (width, height))
    ImageDraw.Draw(raw).text((-left, -top), text, fill=255, font=face)
    scale = extent / max(width, height)
    fitted = raw.resize(
        (max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BILINEAR
    )
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(fitted, ((CANVAS - fitted.width) // 2, (CANVAS - fitted.height) // 2))
    return canvas


def regular_polygon(sides: int, radius: float, turn: float = 0.0) -> list[Point]:
    """Corners of a regular polygon about the canvas centre; ``turn`` in degrees, 0 puts a corner on top."""
    centre = CANVAS / 2
    angles = [math.radians(turn - 90 + 360 * k / sides) for k in range(sides)]
    return [(centre + radius * math.cos(a), centre + radius * math.sin(a)) for a in angles]


def star_polygon(points: int, outer: float, inner: float) -> list[Point]:
    """Corners of a star about the canvas centre, one tip on top."""
    tips = regular_polygon(points, outer)
    dents = regular_polygon(points, inner, 180 / points)
    return [corner for pair in zip(tips, dents, strict=True) for corner in pair]


def box(
    radius: float, centre: Point = (CANVAS / 2, CANVAS / 2)
) -> tuple[float, float, float, float]:
    """Bounding box of a circle."""
    return (centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius)


def rotate_points(points: Sequence[Point], degrees: float) -> list[Point]:
    """Points turned clockwise (image axes) about the canvas centre."""
    c, s, m = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), CANVAS / 2
    return [(m + c * (x - m) - s * (y - m), m + s * (x - m) + c * (y - m)) for x, y in points]


def arrow_points(degrees: float = 0.0, extent: float = 22, shaft: float = 5) -> list[Point]:
    """Outline of an arrow through the canvas centre; 0 degrees points up, angles run clockwise."""
    m, head = CANVAS / 2, extent * 0.62
    up = [
        (m, m - extent), (m + head, m - extent + head), (m + shaft, m - extent + head),
        (m + shaft, m + extent), (m - shaft, m + extent), (m - shaft, m - extent + head),
        (m - head, m - extent + head),
    ]  # fmt: skip
    return rotate_points(up, degrees)


def place(
    drawing: Image.Image,
    rng: np.random.Generator,
    *,
    scale: tuple[float, float] = (0.8, 1.15),
    rotate: float = 8.0,
    shear: float = 0.1,
    shift: float = 0.06,
    size: int = SIZE,
) -> FloatArray:
    """Draw a random affine view of a drawing.

    ``scale`` is the range of sizes, ``rotate`` the largest angle in degrees, ``shift`` the largest
    move as a fraction of the image. Returns float32 in [0, 1], ``size`` x ``size`` (masks) or
    ``size`` x ``size`` x 4 (RGBA).
    """
    factor = rng.uniform(*scale) * size / CANVAS
    angle = math.radians(rng.uniform(-rotate, rotate))
    slant = rng.uniform(-shear, shear)
    dx, dy = rng.uniform(-shift, shift, 2) * size
    # PIL wants the inverse map: output pixel -> canvas pixel.
    c, s = math.cos(angle) / factor, math.sin(angle) / factor
    a, b, d, e = c + slant * s, s, -s + slant * c, c
    mid, half = CANVAS / 2, size / 2
    coefficients = (
        a, b, mid - a * (half + dx) - b * (half + dy),
        d, e, mid - d * (half + dx) - e * (half + dy),
    )  # fmt: skip
    view = drawing.transform(
        (size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )
    return np.asarray(view, dtype=np.float32) / 255.0


def smooth_noise(rng: np.random.Generator, cells: int, size: int = SIZE) -> FloatArray:
    """Smooth random field in [0, 1]: ``cells`` x ``cells`` random values, enlarged to ``size`` x ``size``."""
    coarse = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8))
    fine = coarse.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(fine, dtype=np.float32) / 255.0
