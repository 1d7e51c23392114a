"""Road signs, in their own colours."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from taskgrid.data.builtin.drawing import CANVAS, Colour, arrow_points, box, glyph, regular_polygon
from taskgrid.data.builtin.subjects import Family

SIGN_WORDS: tuple[str, ...] = (
    "stop", "yield", "no entry", "speed limit", "no parking", "no stopping", "turn left", "turn right",
    "straight ahead", "priority road", "danger", "crossroads", "parking", "hospital", "dead end",
    "end of limit",
)  # fmt: skip

RED: Colour = (200, 20, 30)
BLUE: Colour = (20, 70, 170)
WHITE: Colour = (245, 245, 245)
BLACK: Colour = (15, 15, 15)
YELLOW: Colour = (245, 200, 30)
R = 24.0


def _arrow(draw: ImageDraw.ImageDraw, degrees: float) -> None:
    draw.polygon(arrow_points(degrees, 15, 4), fill=WHITE)


def paint_sign(rng: np.random.Generator, index: int) -> Image.Image:
    """RGBA drawing of a sign."""
    word = SIGN_WORDS[index]
    image = Image.new("RGBA", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(image)
    m = CANVAS / 2
    if word == "stop":
        draw.polygon(regular_polygon(8, R + 1, 22.5), fill=RED)
        draw.rectangle((m - 15, m - 4, m + 15, m + 4), fill=WHITE)
        for x in (-8, 0, 8):
            draw.rectangle((m + x - 1, m - 4, m + x, m + 4), fill=RED)
    elif word == "yield":
        draw.polygon(regular_polygon(3, R + 3, 180), fill=RED)
        draw.polygon(regular_polygon(3, R - 10, 180), fill=WHITE)
    elif word == "no entry":
        draw.ellipse(box(R), fill=RED)
        draw.rectangle((m - 16, m - 5, m + 16, m + 5), fill=WHITE)
    elif word == "speed limit":
        draw.ellipse(box(R), fill=RED)
        draw.ellipse(box(R - 6), fill=WHITE)
        number = ("20", "30", "50", "60", "70", "80", "90")[rng.integers(7)]
        image.paste(BLACK, (0, 0), glyph(number, "DejaVuSans-Bold", 25))
    elif word in ("no parking", "no stopping"):
        draw.ellipse(box(R), fill=RED)
        draw.ellipse(box(R - 6), fill=BLUE)
        draw.line((m - 15, m - 15, m + 15, m + 15), fill=RED, width=6)
        if word == "no stopping":
            draw.line((m + 15, m - 15, m - 15, m + 15), fill=RED, width=6)
    elif word in ("turn left", "turn right", "straight ahead"):
        draw.ellipse(box(R), fill=BLUE)
        _arrow(draw, {"turn left": -90.0, "turn right": 90.0, "straight ahead": 0.0}[word])
    elif word == "priority road":
        draw.polygon(regular_polygon(4, R + 4), fill=WHITE)
        draw.polygon(regular_polygon(4, R - 3), fill=YELLOW)
    elif word in ("danger", "crossroads"):
        draw.polygon(regular_polygon(3, R + 4), fill=RED)
        draw.polygon(regular_polygon(3, R - 6), fill=WHITE)
        if word == "danger":
            draw.rectangle((m - 2, m - 9, m + 2, m + 2), fill=BLACK)
            draw.rectangle((m - 2, m + 4, m + 2, m + 7), fill=BLACK)
        else:
            draw.line((m - 6, m - 5, m + 6, m + 7), fill=BLACK, width=4)
            draw.line((m + 6, m - 5, m - 6, m + 7), fill=BLACK, width=4)
    elif word in ("parking", "hospital", "dead end"):
        draw.rectangle((m - 21, m - 21, m + 21, m + 21), fill=BLUE)
        if word == "dead end":
            draw.rectangle((m - 3, m - 10, m + 3, m + 21), fill=WHITE)
            draw.rectangle((m - 13, m - 14, m + 13, m - 7), fill=RED)
        else:
            image.paste(
                WHITE, (0, 0), glyph("P" if word == "parking" else "H", "DejaVuSans-Bold", 30)
            )
    else:
        draw.ellipse(box(R), fill=BLACK)
        draw.ellipse(box(R - 3), fill=WHITE)
        draw.line((m + 15, m - 15, m - 15, m + 15), fill=BLACK, width=7)
    return image


SIGNS = Family("signs", "the {} sign", SIGN_WORDS, paint_sign)
