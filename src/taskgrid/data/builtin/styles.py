"""Styles: how a subject comes to look on the picture.

Three kinds, all pure: functions on an ink mask (``size`` x ``size``, 0..1), composition of ink and
background, and effects on a picture (``size`` x ``size`` x 3, 0..1). ``strength`` runs from 0
(nothing) to 1 (barely readable); the pre-training corpus uses low strengths, the tasks higher ones
or several effects at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from taskgrid.data.builtin.drawing import SIZE, FloatArray, smooth_noise

Effect = Callable[[FloatArray, np.random.Generator, float], FloatArray]

COLOURS: Mapping[str, tuple[float, float, float]] = {
    "red": (0.85, 0.10, 0.12),
    "green": (0.10, 0.60, 0.20),
    "blue": (0.12, 0.25, 0.80),
    "yellow": (0.95, 0.85, 0.15),
    "orange": (0.95, 0.50, 0.08),
    "purple": (0.50, 0.15, 0.65),
    "pink": (0.95, 0.55, 0.70),
    "cyan": (0.15, 0.75, 0.80),
    "brown": (0.45, 0.26, 0.10),
    "black": (0.06, 0.06, 0.06),
    "white": (0.96, 0.96, 0.96),
    "gray": (0.50, 0.50, 0.50),
}


def rgb(red: float, green: float, blue: float) -> FloatArray:
    """A colour; channels in [0, 1]."""
    return np.array([red, green, blue], np.float32)


def named_colour(name: str, rng: np.random.Generator, spread: float = 0.07) -> FloatArray:
    """A random shade of a named colour: RGB in [0, 1]."""
    shade = np.asarray(COLOURS[name]) + rng.uniform(-spread, spread, 3)
    return np.asarray(np.clip(shade, 0, 1), np.float32)


def distance(first: FloatArray, second: FloatArray) -> float:
    """Largest channel difference of two colours."""
    return float(np.abs(first - second).max())


def contrasting(
    rng: np.random.Generator, ink: FloatArray, least: float = 0.35
) -> tuple[str, FloatArray]:
    """A named colour that stands off from ``ink``: its name and a shade of it."""
    names = list(COLOURS)
    for _ in range(20):
        name = names[rng.integers(len(names))]
        shade = named_colour(name, rng)
        if distance(shade, ink) >= least and abs(float(shade.mean() - ink.mean())) >= least / 2:
            return name, shade
    return (
        ("white", named_colour("white", rng))
        if ink.mean() < 0.5
        else ("black", named_colour("black", rng))
    )


# --- ink masks ---------------------------------------------------------------------------------


def outline(mask: FloatArray, width: float = 1.0) -> FloatArray:
    """Keep the border of the ink only."""
    soft = ndimage.gaussian_filter(mask, 0.5 * width)
    edge = ndimage.gaussian_gradient_magnitude(soft, 0.6 * width)
    return np.asarray(np.clip(edge / max(float(edge.max()), 1e-6) * 1.3, 0, 1), np.float32)


def thicken(mask: FloatArray, amount: float) -> FloatArray:
    """Bolder (positive) or thinner (negative) ink, about ``amount`` pixels."""
    soft = ndimage.gaussian_filter(mask, 0.4 + abs(amount))
    level = 0.5 - 0.35 * float(np.clip(amount, -0.9, 0.9))
    return np.asarray(np.clip((soft - level) * 3 + 0.5, 0, 1), np.float32)


def warp(mask: FloatArray, rng: np.random.Generator, pixels: float, cells: int = 4) -> FloatArray:
    """Bend the picture smoothly by up to ``pixels``; mask or picture."""
    size = mask.shape[0]
    dy = (smooth_noise(rng, cells, size) - 0.5) * 2 * pixels
    dx = (smooth_noise(rng, cells, size) - 0.5) * 2 * pixels
    rows, cols = np.mgrid[0:size, 0:size].astype(np.float32)
    where = [rows + dy, cols + dx]
    if mask.ndim == 2:
        return np.asarray(ndimage.map_coordinates(mask, where, order=1, mode="nearest"), np.float32)
    planes = [
        ndimage.map_coordinates(mask[..., k], where, order=1, mode="nearest")
        for k in range(mask.shape[2])
    ]
    return np.stack(planes, axis=-1)


def crumble(mask: FloatArray, rng: np.random.Generator, share: float) -> FloatArray:
    """Lose a share of the ink in patches, as chalk or worn paint does."""
    grain = 0.6 * smooth_noise(rng, 12, mask.shape[0]) + 0.4 * rng.random(
        mask.shape, dtype=np.float32
    )
    level = np.quantile(grain, share) if share > 0 else -1.0
    return np.asarray((mask * np.clip((grain - level) * 6 + 0.5, 0, 1)), np.float32)


def dots(mask: FloatArray, pitch: float, phase: tuple[float, float] = (0.0, 0.0)) -> FloatArray:
    """Break the ink into a grid of dots, as a dot-matrix printer or a halftone does."""
    rows, cols = np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]].astype(np.float32)
    lattice = np.cos(2 * np.pi * (rows / pitch + phase[0])) + np.cos(
        2 * np.pi * (cols / pitch + phase[1])
    )
    return np.asarray((mask * np.clip(0.55 + 0.6 * lattice, 0, 1)), np.float32)


# --- composition -------------------------------------------------------------------------------


def flat(colour: FloatArray, size: int = SIZE) -> FloatArray:
    """A picture of one colour."""
    return np.asarray(np.broadcast_to(colour, (size, size, 3)), np.float32)


def gradient(
    first: FloatArray, second: FloatArray, rng: np.random.Generator, size: int = SIZE
) -> FloatArray:
    """A linear blend of two colours in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    rows, cols = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    ramp = np.clip(rows * np.sin(angle) + cols * np.cos(angle) + 0.5, 0, 1)[..., None]
    return np.asarray((first * (1 - ramp) + second * ramp), np.float32)


def mottled(
    first: FloatArray, second: FloatArray, rng: np.random.Generator, cells: int = 5
) -> FloatArray:
    """Two colours mixed by smooth noise."""
    field = smooth_noise(rng, cells)[..., None]
    return np.asarray((first * (1 - field) + second * field), np.float32)


def ink_on(mask: FloatArray, ink: FloatArray, background: FloatArray) -> FloatArray:
    """Compose an ink mask of one colour over a background picture."""
    cover = mask[..., None]
    return np.asarray((background * (1 - cover) + ink * cover), np.float32)


def over(rgba: FloatArray, background: FloatArray) -> FloatArray:
    """Compose a subject with colours of its own over a background picture."""
    cover = rgba[..., 3:4]
    return np.asarray((background * (1 - cover) + rgba[..., :3] * cover), np.float32)


# --- effects on pictures -------------------------------------------------------------------------


def blur(picture: FloatArray, rng: np.random.Generator, strength: float) -> FloatArray:
    """Out of focus: Gaussian of up to about 2.5 pixels."""
    sigma = 2.5 * strength
    return np.asarray(ndimage.gaussian_filter(picture, (sigma, sigma, 0)), np.float32)


def grain(picture: FloatArray, rng: np.random.Generator, strength: float) -> FloatArray:
    """Sensor noise, partly grey and partly coloured."""
    size = picture.shape[0]
    noise = rng.standard_normal((size, size, 1), dtype=np.float32) * 0.7
    noise = noise + rng.standard_normal((size, size, 3), dtype=np.float32) * 0.7
    return np.asarray((picture + noise * (0.5 * strength)), np.float32)


def fade(picture: FloatArray, rng: np.random.Generator, strength: float) -> FloatArray:
    """Less contrast, around a random grey."""
    level = rng.uniform(0.35, 0.75)
    return np.asarray((level + (picture - level) * (1 - 0.9 * strength)), np.float32)


def lighting(picture: FloatArray, rng: np.random.Generator, strength: float) -> FloatArray:
    """Uneven light: a bright and a dark side."""
    field = gradient(
        np.float32(1 - strength) * np.ones(3, np.float32),
        np.ones(3, np.float32),
        rng,
        picture.shape[0],
    )
    return np.asarray((picture * field), np.float32)


def night(picture: FloatArray, rng: np.random.Generator, strength: float) -> FloatArray:
    """Little light, bluish, with a little noise."""
    dark = picture * (1 - 0.85 * strength) * np.array([0.85, 0.92, 1.1], np.float32)
    noise = rng.standard_normal(picture.shape, dtype=np.float32) * (0.08 * strength)
    return np.asarray((dark + 0.03 + noise), np.float32)


def fog(picture: FloatArray, rng: np.random.Generator, strength: float) -> FloatArray:
    """A bright veil of uneven thickness."""
    thickness = np.clip(strength * (0.6 + 0.8 * smooth_noise(rng, 3, picture.shape[0])), 0, 0.97)[
        ..., None
    ]
    return np.asarray((picture * (1 - thickness) + 0.88 * thickness), np.float32)


def pixelate(picture: FloatArray, rng: np.random.Generator, strength: float) -> FloatArray:
    """Few large pixels: 20 a side at strength 0, 5 at strength 1."""
    cells = round(20 - 15 * strength)
    small = Image.fromarray((np.clip(picture, 0, 1) * 255).astype(np.uint8)).resize(
        (cells, cells), Image.Resampling.BOX
    )
    large = small.resize((picture.shape[1], picture.shape[0]), Image.Resampling.NEAREST)
    return np.asarray(large, dtype=np.float32) / 255.0


def scratch(picture: FloatArray, rng: np.random.Generator, strength: float) -> FloatArray:
    """Straight streaks of random colour across the picture (rain, scratches, wires)."""
    size = picture.shape[0]
    rows, cols = np.mgrid[0:size, 0:size].astype(np.float32)
    out = picture.copy()
    for _ in range(1 + int(6 * strength)):
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.45, 0.45) * size
        away = np.abs(
            (rows - size / 2) * np.cos(angle) + (cols - size / 2) * np.sin(angle) - offset
        )
        cover = np.clip(1.1 - away, 0, 1)[..., None] * rng.uniform(0.4, 0.9)
        out = out * (1 - cover) + rng.random(3, dtype=np.float32) * cover
    return np.asarray(out, np.float32)


def clutter(
    picture: FloatArray, rng: np.random.Generator, strength: float, masks: Sequence[FloatArray] = ()
) -> FloatArray:
    """Bits of other things near the border: given ink masks, or blobs and bars."""
    size = picture.shape[0]
    rows, cols = np.mgrid[0:size, 0:size].astype(np.float32)
    out = picture
    for mask in masks:
        out = ink_on(mask, rng.random(3, dtype=np.float32), out)
    for _ in range(1 + int(5 * strength)):
        angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.42, 0.6) * size
        y, x = size / 2 + away * np.sin(angle), size / 2 + away * np.cos(angle)
        tall, wide = rng.uniform(0.06, 0.2, 2) * size
        cover = ((np.abs(rows - y) < tall) & (np.abs(cols - x) < wide)).astype(np.float32)
        out = ink_on(
            cover * np.float32(rng.uniform(0.5, 1.0)), rng.random(3, dtype=np.float32), out
        )
    return out


EFFECTS: Mapping[str, Effect] = {
    "blurry": blur,
    "grainy": grain,
    "faded": fade,
    "shadowy": lighting,
    "dark": night,
    "foggy": fog,
    "pixelated": pixelate,
    "scratched": scratch,
    "cluttered": clutter,
}
"""Effects by the adjective that captions use for them."""


def finish(picture: FloatArray) -> NDArray[np.uint8]:
    """Float picture to uint8 RGB."""
    return np.asarray(np.clip(picture * 255 + 0.5, 0, 255), dtype=np.uint8)
