"""Encoded images to RGB pixels."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from taskgrid.errors import DataError
from taskgrid.store.images import Pixels

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""What counts as an image file; torchvision's list."""

FORMATS: Final = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of what is decoded, whatever a file is called. Each is read within this process;
left to itself Pillow hands PostScript to Ghostscript, which runs it."""

MOST_PIXELS: Final = 50_000_000
"""The largest image that is decoded: a camera's 48 million pixels, and some 200 MB of memory."""

_POINTER = b"version https://git-lfs"
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError, KeyError, OverflowError),
    *(struct.error, zlib.error, RuntimeError),
)
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError)


def decode_image(data: bytes | Path, name: str) -> Pixels:
    """Decode an image to ``H x W x 3`` uint8.

    It is turned to RGB right away, as torchvision's datasets do and the papers did: transparency is
    dropped, grey is repeated, the EXIF orientation is not applied, and of an animation the first
    frame counts.

    Args:
        data: the encoded bytes, or the file that holds them.
        name: what to call the image in an error.

    Raises:
        DataError: if the image is truncated, unreadable or in none of `FORMATS`, has more than
            `MOST_PIXELS`, or more than 8 bits per channel.
    """
    with (
        _explained(name, data),
        _opened(data) as stream,
        Image.open(stream, formats=FORMATS) as image,
    ):
        check_size(name, image.height, image.width)
        image.load()
        if image.mode == "F" or image.mode.startswith("I"):
            raise DataError(
                f"image {name} has more than 8 bits per channel (mode {image.mode}); "
                "convert it to 8 bits, so that the range is your choice"
            )
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def check_size(name: str, height: int, width: int) -> None:
    """Refuse an image that is too large to be decoded, before it is.

    Raises:
        DataError: if it has more than `MOST_PIXELS`.
    """
    if width * height > MOST_PIXELS:
        raise DataError(
            f"image {name} has {width} x {height} pixels, more than the {MOST_PIXELS // 10**6} "
            "million that are decoded; make it smaller or take it out"
        )


@contextmanager
def _opened(data: bytes | Path) -> Iterator[IO[bytes]]:
    if isinstance(data, bytes):
        yield io.BytesIO(data)
        return
    # A pipe would be waited for, for ever.
    if not data.is_file():
        raise FileNotFoundError(
            f"a link to {data.readlink()}, where nothing is" if data.is_symlink() else "no file"
        )
    with data.open("rb") as stream:
        yield stream


@contextmanager
def _explained(name: str, data: bytes | Path) -> Iterator[None]:
    try:
        yield
    except _BOMB as error:
        raise DataError(
            f"image {name} is too large to be decoded ({error or 'no memory'}); make it smaller or "
            "take it out"
        ) from error
    except UnidentifiedImageError as error:
        if _is_pointer(data):
            raise DataError(
                f"image {name} is a pointer of Git LFS in place of the image; run `git lfs pull` "
                "where it came from"
            ) from error
        raise DataError(
            f"image {name} cannot be read (not an image); replace it by one of a format that is "
            f"read ({', '.join(FORMATS)}), or take it out"
        ) from error
    except _DAMAGE as error:
        raise DataError(
            f"image {name} cannot be read ({' '.join(str(error).split())}); replace it or take it out"
        ) from error


def _is_pointer(data: bytes | Path) -> bool:
    if isinstance(data, bytes):
        return data.startswith(_POINTER)
    with data.open("rb") as stream:
        return stream.read(len(_POINTER)) == _POINTER
