"""Exact sliders: what decides about the images of tangent models, small enough for a page.

Margins become whole numbers of one to three bytes, times a scale of their image. Rounding moves a margin at
coefficients c by no more than half a scale times (1 + sum_t |c_t|), so an image whose least margin is
larger is right, one with a margin below minus that is wrong, and any other is told apart from both: the
page then gives the range of the count. Nothing is guessed.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from taskgrid.lattice.points import read_point
from taskgrid.results import read_frame

Floats = NDArray[np.float64]
Run: TypeAlias = tuple[str, str, int]
"""Model, mode and seed."""

_WIDTHS = (3, 2, 1)
_BYTES = 2_400_000
"""What the margins of all runs may take together: a page of 5 MB holds them and the grid of eight tasks."""

_START, _BY = "start", "by "


@dataclass(frozen=True)
class Part:
    """What decides about the validation images of one task.

    Attributes:
        right: images that are right whatever the coefficients are.
        counts: rivals of each image about which the coefficients decide, (n,).
        margins: of each rival g at c = 0 and its derivatives, (R, 1 + T).
    """

    right: int
    counts: NDArray[np.int64]
    margins: Floats

    def rounded(self, width: int) -> Rounded:
        """Return the margins as whole numbers of ``width`` bytes, each image with a scale of its own."""
        starts = np.cumsum(self.counts) - self.counts
        scales = np.empty(0, dtype=np.float32)
        if len(starts):
            largest = np.maximum.reduceat(np.abs(self.margins).max(axis=1), starts)
            scales = (largest / (2 ** (8 * width - 1) - 1)).astype(np.float32)
            # Rounded up, lest the largest number become one more than there is room for.
            scales = np.nextafter(np.maximum(scales, np.finfo(np.float32).tiny), np.float32(np.inf))
        each = np.repeat(scales.astype(np.float64), self.counts)[:, None]
        whole = np.rint(self.margins / each).astype(np.int64)
        return Rounded(self.right, self.counts, starts, scales, whole, whole * each, width)


@dataclass(frozen=True)
class Rounded:
    """A part as the page holds it.

    Attributes:
        right: images that are right whatever the coefficients are.
        counts: rivals of each other image, (n,).
        starts: the first of them, (n,).
        scales: units of each image's numbers, (n,).
        whole: the numbers, (R, 1 + T).
        values: the numbers times their units.
        width: bytes of a number.
    """

    right: int
    counts: NDArray[np.int64]
    starts: NDArray[np.int64]
    scales: NDArray[np.float32]
    whole: NDArray[np.int64]
    values: Floats
    width: int

    def count(self, point: Floats) -> tuple[int, int]:
        """Return between which numbers the right answers at some coefficients lie, as the page does."""
        if not len(self.counts):
            return self.right, self.right
        margin = self.values[:, 0] + self.values[:, 1:] @ point
        least = np.minimum.reduceat(margin, self.starts)
        rounding = 0.500001 * self.scales.astype(np.float64) * (1 + np.abs(point).sum())
        sure = self.right + int(np.count_nonzero(least > rounding))
        return sure, sure + int(np.count_nonzero(np.abs(least) <= rounding))

    def packed(self) -> dict[str, Any]:
        """Return it as the page reads it: bytes as base64, a plane for each byte of a number."""
        numbers = self.whole.ravel()
        planes = [((numbers >> (8 * at)) & 255).astype(np.uint8) for at in range(self.width)]
        return {
            "right": self.right,
            "counts": _text(self.counts.astype("<u2")),
            "scales": _text(self.scales.astype("<f4")),
            "planes": [_text(plane) for plane in planes],
        }


@dataclass(frozen=True)
class Margins:
    """What decides about the images of one run of tangent models.

    Attributes:
        run: model, mode and seed.
        table: the rule's table, ``evaluation.tangent.margins``.
    """

    run: Run
    table: pd.DataFrame

    @cached_property
    def moving(self) -> list[str]:
        """The tasks whose coefficients are free."""
        return [name.removeprefix(_BY) for name in map(str, self.table) if name.startswith(_BY)]

    @cached_property
    def parts(self) -> dict[str, Part]:
        """What decides, by the task whose images they are."""
        return {str(task): self._part(rows) for task, rows in self.table.groupby("task", sort=True)}

    def _part(self, rows: pd.DataFrame) -> Part:
        open_rows = rows[rows["right"].isna()]
        columns = [_START, *(f"{_BY}{name}" for name in self.moving)]
        return Part(
            right=int((rows["right"] == True).sum()),  # noqa: E712 - null is neither
            counts=np.array(open_rows.groupby("image", sort=True).size(), dtype=np.int64),
            margins=open_rows.sort_values("image", kind="stable")[columns].to_numpy(np.float64),
        )

    @property
    def ends(self) -> tuple[float, float]:
        """Between which coefficients the margins hold."""
        return float(self.table["low"].min()), float(self.table["high"].max())

    def bytes(self, width: int) -> int:
        """Return what the margins take on the page, before they are text."""
        parts = self.parts.values()
        return sum(width * part.margins.size + 6 * len(part.counts) for part in parts)


def read_margins(files: Sequence[Mapping[str, Any]]) -> list[Margins]:
    """Read the margins of runs.

    Args:
        files: of each run its ``model``, ``mode``, ``seed`` and ``path``.

    Raises:
        ArtifactError: if a file is missing or damaged.
    """
    return [
        Margins((one["model"], one["mode"], int(one["seed"])), read_frame(one["path"]))
        for one in files
    ]


def fitted(
    margins: Sequence[Margins], rows: pd.DataFrame, place: Mapping[str, int]
) -> dict[Run, dict[str, Any]]:
    """Return the margins of runs as the page reads them, as fine as there is room for.

    Args:
        margins: of each run.
        rows: grid rows of plain sums of task vectors, ``task`` as its place; all that lie between the
            ends of the margins are compared with what these answer.
        place: the place of each task.

    Returns:
        By run; none where even the coarsest do not fit.
    """
    fits = [width for width in _WIDTHS if sum(one.bytes(width) for one in margins) <= _BYTES]
    if not fits:
        return {}
    width = fits[0]
    return {one.run: _packed(one, width, rows, place) for one in margins}


def _packed(
    margins: Margins, width: int, rows: pd.DataFrame, place: Mapping[str, int]
) -> dict[str, Any]:
    low, high = margins.ends
    model, mode, seed = margins.run
    own = (rows["model"] == model) & (rows["mode"] == mode) & (rows["seed"] == seed)
    parts = {place[task]: part.rounded(width) for task, part in margins.parts.items()}
    off = _differences(margins, rows[own & (rows["split"] == "val")], parts)
    return {
        "moving": [place[name] for name in margins.moving],
        "low": low,
        "high": high,
        "width": width,
        "compared": len(off),
        "differing": int(np.count_nonzero(off)),
        "largest": int(off.max(initial=0)),
        "parts": [{"task": task, **part.packed()} for task, part in parts.items()],
    }


def _differences(
    margins: Margins, rows: pd.DataFrame, parts: Mapping[int, Rounded]
) -> NDArray[np.int64]:
    """Return by how many images measured rows lie outside of what the margins answer."""
    (low, high), found = margins.ends, []
    measured = rows[~rows["interpolated"].astype(bool) & rows["task"].isin(list(parts))]
    names = ["subset", "point", "task", "correct"]
    for subset, text, task, correct in measured[names].to_numpy():
        merged, at = str(subset).split("+"), read_point(str(text))
        own = {name: at.of(name) for name in merged}
        point = np.array([own.get(name, 0.0) for name in margins.moving])
        if not own.keys() <= set(margins.moving) or point.min() < low or point.max() > high:
            continue
        least, most = parts[int(task)].count(point)
        found.append(max(least - int(correct), int(correct) - most, 0))
    return np.array(found, dtype=np.int64)


def _text(numbers: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(numbers).tobytes()).decode()
