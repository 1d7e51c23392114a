"""Textures: ink masks that fill the canvas."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from taskgrid.data.builtin.drawing import CANVAS, smooth_noise
from taskgrid.data.builtin.subjects import Family

TEXTURE_WORDS: tuple[str, ...] = (
    "striped", "lined", "diagonal", "chequered", "dotted", "grid", "zigzag", "wavy", "brick", "concentric",
    "radial", "woven", "marbled", "speckled", "honeycomb", "scaly",
)  # fmt: skip


def _field(word: str, rng: np.random.Generator) -> Any:
    rows, cols = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float32)
    y, x = rows + rng.uniform(0, 40), cols + rng.uniform(0, 40)
    p = rng.uniform(11, 18)
    wave = np.float32(2 * np.pi / p)
    if word == "striped":
        return np.sin(x * wave)
    if word == "lined":
        return np.sin(y * wave)
    if word == "diagonal":
        return np.sin((x + y) * wave * 0.75)
    if word == "chequered":
        return np.sin(x * wave * 0.7) * np.sin(y * wave * 0.7) * 4
    if word == "dotted":
        return np.cos(x * wave) + np.cos(y * wave) - 0.9
    if word == "grid":
        return np.maximum(np.cos(x * wave), np.cos(y * wave)) - 0.75
    if word == "zigzag":
        return np.sin((y + np.abs((x % p) - p / 2) * 1.4) * wave)
    if word == "wavy":
        return np.sin((y + 0.25 * p * np.sin(x * wave * 0.8)) * wave)
    if word == "brick":
        row = np.floor(y / p)
        joint = np.minimum(y % p, p - y % p) / p
        shifted = (x + row * p) % (2 * p)
        upright = np.minimum(shifted, 2 * p - shifted) / p
        return np.minimum(joint, upright) * 6 - 0.8
    centre_y, centre_x = CANVAS / 2 + rng.uniform(-8, 8, 2)
    if word == "concentric":
        return np.sin(np.hypot(rows - centre_y, cols - centre_x) * wave)
    if word == "radial":
        arms = int(rng.integers(6, 10))
        return np.sin(np.arctan2(rows - centre_y, cols - centre_x) * arms + rng.uniform(0, 6))
    if word == "woven":
        across = (np.floor(x / p) + np.floor(y / p)) % 2
        return np.where(across == 0, np.sin(x * wave * 2), np.sin(y * wave * 2))
    if word == "marbled":
        veins = (
            smooth_noise(rng, 5, CANVAS) * 4
            + (x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1)) / 40
        )
        return np.sin(veins * 5)
    if word == "speckled":
        return (rng.random((CANVAS // 4, CANVAS // 4)).repeat(4, 0).repeat(4, 1) - 0.75).astype(
            np.float32
        ) * 6
    if word == "honeycomb":
        waves = [
            np.cos((x * c + y * s) * wave * 1.15)
            for c, s in ((1.0, 0.0), (-0.5, 0.866), (-0.5, -0.866))
        ]
        return 1.1 - np.sum(waves, axis=0) * 0.9 - 0.9
    row = np.floor(y / (p * 0.6))
    along = (x + (row % 2) * p / 2) % p - p / 2
    down = y % (p * 0.6)
    return np.abs(np.hypot(along, down) - p * 0.5) * -0.5 + 0.8


def paint_texture(rng: np.random.Generator, index: int) -> Image.Image:
    """Ink mask of a texture with random pitch and phase."""
    field = np.clip(_field(TEXTURE_WORDS[index], rng) * 1.5 + 0.5, 0, 1)
    return Image.fromarray((field * 255).astype(np.uint8))


TEXTURES = Family("textures", "the {} texture", TEXTURE_WORDS, paint_texture, full=True)
