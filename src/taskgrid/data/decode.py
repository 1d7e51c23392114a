"""Encoded images to RGB pixels."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from taskgrid.errors import DataError
from taskgrid.store.images import Pixels

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""What counts as an image file; torchvision's list."""

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def decode_image(data: bytes | Path, name: str) -> Pixels:
    """Decode an image to ``H x W x 3`` uint8.

    It is turned to RGB right away, as torchvision's datasets do and the papers did: transparency is
    dropped, grey is repeated, the EXIF orientation is not applied, and of an animation the first
    frame counts.

    Args:
        data: the encoded bytes, or the file that holds them.
        name: what to call the image in an error.

    Raises:
        DataError: if the image is truncated or unreadable, or has more than 8 bits per channel.
    """
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            image.load()
            if image.mode == "F" or image.mode.startswith("I"):
                raise DataError(
                    f"image {name} has more than 8 bits per channel (mode {image.mode}); "
                    "convert it to 8 bits, so that the range is your choice"
                )
            return np.asarray(image.convert("RGB"))
    except Image.DecompressionBombError as error:
        raise DataError(f"image {name} is too large to be decoded safely ({error})") from error
    except _DAMAGE as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(
            f"image {name} cannot be read ({reason}); replace it or take it out"
        ) from error
