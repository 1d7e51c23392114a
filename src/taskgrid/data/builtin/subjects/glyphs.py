"""Subjects that fonts draw: digits, letters, Greek letters, icons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from taskgrid.data.builtin.drawing import TEXT_FONTS, glyph
from taskgrid.data.builtin.subjects import Family, Paint

DIGIT_WORDS: tuple[str, ...] = tuple("0123456789")
LETTER_WORDS: tuple[str, ...] = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")

GREEK: Mapping[str, str] = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "Δ", "theta": "θ", "lambda": "λ", "mu": "μ",
    "pi": "π", "sigma": "Σ", "phi": "φ", "psi": "ψ", "omega": "Ω",
}  # fmt: skip

ICONS: Mapping[str, str] = {
    "heart": "♥", "star": "★", "spade": "♠", "club": "♣", "sun": "☀", "cloud": "☁", "umbrella": "☂",
    "snowman": "☃", "snowflake": "❄", "telephone": "☎", "envelope": "✉", "pencil": "✏", "scissors": "✂",
    "airplane": "✈", "anchor": "⚓", "flag": "⚑", "skull": "☠", "radiation": "☢", "biohazard": "☣",
    "peace": "☮", "yin yang": "☯", "smile": "☺", "moon": "☾", "king": "♚", "queen": "♛", "rook": "♜",
    "bishop": "♝", "knight": "♞", "pawn": "♟", "music": "♫", "recycling": "♻", "wheelchair": "♿",
    "gear": "⚙", "scales": "⚖", "flower": "✿", "lightning": "⚡", "check mark": "✔", "cross mark": "✘",
    "pointing hand": "☞", "peace hand": "✌", "atom": "⚛", "lily": "⚜", "swords": "⚔", "hot spring": "♨",
    "hammer": "⚒", "infinity": "∞", "mouse": "🐭", "cat": "🐱", "monkey": "🐵", "clover": "☘",
}  # fmt: skip


def _text_painter(texts: Sequence[str], fonts: Sequence[str] = TEXT_FONTS) -> Paint:
    def paint(rng: np.random.Generator, index: int) -> Image.Image:
        return glyph(texts[index], fonts[int(rng.integers(len(fonts)))])

    return paint


DIGITS = Family("digits", "the digit {}", DIGIT_WORDS, _text_painter(DIGIT_WORDS))
LETTERS = Family("letters", "the letter {}", LETTER_WORDS, _text_painter(LETTER_WORDS))
GREEKS = Family(
    "greek",
    "the greek letter {}",
    tuple(GREEK),
    _text_painter(tuple(GREEK.values()), TEXT_FONTS[:15]),
)
PICTURES = Family(
    "icons", "the {} icon", tuple(ICONS), _text_painter(tuple(ICONS.values()), ("DejaVuSans",))
)
