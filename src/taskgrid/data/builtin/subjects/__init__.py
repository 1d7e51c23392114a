"""Families of subjects: what a picture shows, apart from its style.

A family knows its subjects' words, the phrase that captions use for them, and how to draw each.
Tasks take families (or parts of them) and render them in a style of their own; the pre-training
corpus mixes all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

Paint = Callable[[np.random.Generator, int], Image.Image]


@dataclass(frozen=True)
class Family:
    """Subjects of one kind.

    ``phrase`` has one ``{}`` for the word ("the digit {}"). ``paint(rng, index)`` gives a drawing
    (see ``drawing.py``): an ink mask (mode ``L``) or a coloured subject (``RGBA``). ``full``
    families fill the whole canvas: a view of them must not show its border. ``largest`` is the
    largest scale at which every part of the subject stays in the picture.
    """

    name: str
    phrase: str
    words: tuple[str, ...]
    paint: Paint
    full: bool = False
    largest: float = 1.3

    def index(self, word: str) -> int:
        """Position of a word."""
        return self.words.index(word)
