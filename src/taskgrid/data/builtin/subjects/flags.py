"""Flags of countries, in their own colours, plain enough for small pictures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from taskgrid.data.builtin.drawing import CANVAS, Colour, box
from taskgrid.data.builtin.subjects import Family

WHITE: Colour = (245, 245, 245)
RED: Colour = (205, 25, 40)
BLUE: Colour = (20, 50, 150)
GREEN: Colour = (15, 130, 65)
BLACK: Colour = (15, 15, 15)
YELLOW: Colour = (250, 205, 20)
ORANGE: Colour = (250, 130, 30)
SKY: Colour = (0, 105, 190)

BANDS: Mapping[str, tuple[bool, tuple[Colour, ...]]] = {
    "france": (True, (BLUE, WHITE, RED)),
    "italy": (True, (GREEN, WHITE, RED)),
    "ireland": (True, (GREEN, WHITE, ORANGE)),
    "belgium": (True, (BLACK, YELLOW, RED)),
    "nigeria": (True, (GREEN, WHITE, GREEN)),
    "germany": (False, (BLACK, RED, YELLOW)),
    "netherlands": (False, (RED, WHITE, BLUE)),
    "russia": (False, (WHITE, BLUE, RED)),
    "austria": (False, (RED, WHITE, RED)),
    "hungary": (False, (RED, WHITE, GREEN)),
    "poland": (False, (WHITE, RED)),
    "ukraine": (False, (SKY, YELLOW)),
}
"""Banded flags: upright bands or not, and their colours."""

CROSSES: Mapping[str, tuple[Colour, Colour]] = {
    "sweden": (SKY, YELLOW),
    "finland": (WHITE, BLUE),
    "denmark": (RED, WHITE),
}
FLAG_WORDS: tuple[str, ...] = (*BANDS, *CROSSES, "japan")
LEFT, TOP, WIDTH, HEIGHT = 6, 15, 52, 34


def paint_flag(rng: np.random.Generator, index: int) -> Image.Image:
    """RGBA drawing of a flag, 52 x 34 pixels."""
    word = FLAG_WORDS[index]
    image = Image.new("RGBA", (CANVAS, CANVAS))
    draw = ImageDraw.Draw(image)
    if word in BANDS:
        upright, colours = BANDS[word]
        for k, colour in enumerate(colours):
            start, stop = k / len(colours), (k + 1) / len(colours)
            area = (
                (LEFT + WIDTH * start, TOP, LEFT + WIDTH * stop, TOP + HEIGHT)
                if upright
                else (LEFT, TOP + HEIGHT * start, LEFT + WIDTH, TOP + HEIGHT * stop)
            )
            draw.rectangle(area, fill=colour)
        return image
    ground, figure = CROSSES.get(word, (WHITE, RED))
    draw.rectangle((LEFT, TOP, LEFT + WIDTH, TOP + HEIGHT), fill=ground)
    if word == "japan":
        draw.ellipse(box(11, (CANVAS / 2, CANVAS / 2)), fill=figure)
    else:
        draw.rectangle((LEFT + 16, TOP, LEFT + 24, TOP + HEIGHT), fill=figure)
        draw.rectangle((LEFT, TOP + 13, LEFT + WIDTH, TOP + 21), fill=figure)
    return image


FLAGS = Family("flags", "the flag of {}", FLAG_WORDS, paint_flag)
