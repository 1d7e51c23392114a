"""All families together, in a fixed order."""

from __future__ import annotations

from functools import cache

from taskgrid.data.builtin.subjects import Family
from taskgrid.data.builtin.subjects.flags import FLAGS
from taskgrid.data.builtin.subjects.glyphs import DIGITS, GREEKS, LETTERS, PICTURES
from taskgrid.data.builtin.subjects.shapes import COUNTS, SHAPES
from taskgrid.data.builtin.subjects.signs import SIGNS
from taskgrid.data.builtin.subjects.textures import TEXTURES

FAMILIES: tuple[Family, ...] = (
    DIGITS, LETTERS, GREEKS, PICTURES, SHAPES, COUNTS, TEXTURES, SIGNS, FLAGS,
)  # fmt: skip


@cache
def phrases() -> tuple[str, ...]:
    """What captions call each subject, family after family."""
    return tuple(family.phrase.format(word) for family in FAMILIES for word in family.words)
