"""Exact sliders against brute force, and what rounding to few bytes may never do."""

from __future__ import annotations

import base64

import numpy as np
import pandas as pd
import pytest

from taskgrid.evaluation.tangent.margins import margins_table
from taskgrid.explorer import exact
from taskgrid.explorer.exact import Margins, fitted
from tests.unit.example_margins import MODE, MODEL, SEED, Affine, affine

RUN = (MODEL, MODE, SEED)


def margins_of(world: Affine) -> Margins:
    return Margins(RUN, margins_table(world, world.tasks, world.tasks, 0.0, 1.0).to_pandas())


def numbered(world: Affine) -> tuple[pd.DataFrame, dict[str, int]]:
    grid, _ = world.tables()
    place = {task: at for at, task in enumerate(world.tasks)}
    merged = grid[grid["method"] == "task_arithmetic"]
    return merged.assign(task=merged["task"].map(place)), place


@pytest.mark.parametrize("width", [1, 2, 3])
def test_the_range_of_a_count_holds_the_count(width: int) -> None:
    world, open_images = affine(images=400), 0
    parts = {task: part.rounded(width) for task, part in margins_of(world).parts.items()}
    for point in np.random.default_rng(2).uniform(0, 1, (60, 3)):
        for task in world.tasks:
            least, most = parts[task].count(point)
            true = int(world.images[task].right(point).sum())
            assert least <= true <= most
            open_images += most - least
    share = open_images / (60 * 3 * 400)
    # As wide as the rounding: 1/127 of the largest margin, and 1/256 of that with each byte more.
    assert share <= 0.1 / 256 ** (width - 1)
    assert (width > 1) or share > 0


def test_three_bytes_are_exact_on_every_point_of_the_grid() -> None:
    world = affine(images=400)
    rows, place = numbered(world)
    found = fitted([margins_of(world)], rows, place)[RUN]
    assert found["width"] == 3
    assert (found["compared"], found["differing"], found["largest"]) == (len(rows), 0, 0)
    assert (found["low"], found["high"], found["moving"]) == (0.0, 1.0, [0, 1, 2])


def test_rows_of_other_models_are_noticed() -> None:
    world = affine(images=400)
    rows, place = numbered(world)
    rows.loc[rows.index[5], "correct"] += 7
    found = fitted([margins_of(world)], rows, place)[RUN]
    assert (found["differing"], found["largest"]) == (1, 7)


def test_rows_beyond_the_box_are_not_compared() -> None:
    world = affine(images=50)
    rows, place = numbered(world)
    rows.loc[rows.index[:3], "point"] = "1.50"
    assert fitted([margins_of(world)], rows, place)[RUN]["compared"] == len(rows) - 3


def test_margins_are_as_fine_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = affine(images=50)
    rows, place = numbered(world)
    margins = margins_of(world)
    for room, width in ((margins.bytes(2), 2), (margins.bytes(1), 1), (margins.bytes(1) - 1, None)):
        monkeypatch.setattr(exact, "_BYTES", room)
        found = fitted([margins], rows, place)
        assert (found[RUN]["width"] if found else None) == width


@pytest.mark.parametrize("width", [1, 2, 3])
def test_what_is_packed_is_what_was_rounded(width: int) -> None:
    part = margins_of(affine(images=50)).parts["a"]
    packed = part.rounded(width).packed()
    planes = [np.frombuffer(base64.b64decode(text), np.uint8) for text in packed["planes"]]
    sizes = [plane.astype(np.int64) << (8 * at) for at, plane in enumerate(planes)]
    whole = np.sum(sizes, axis=0)
    whole = np.where(whole >= 1 << (8 * width - 1), whole - (1 << (8 * width)), whole)
    counts = np.frombuffer(base64.b64decode(packed["counts"]), "<u2")
    scales = np.frombuffer(base64.b64decode(packed["scales"]), "<f4").astype(np.float64)
    values = whole.reshape(part.margins.shape) * np.repeat(scales, counts)[:, None]
    half = np.repeat(scales, counts)[:, None] / 2
    assert (np.abs(values - part.margins) <= half * 1.000001).all()


def test_images_that_nothing_decides_about_take_no_room() -> None:
    world = affine(images=50)
    start = world.images["a"].start
    start[np.arange(50), world.images["a"].labels] += 1000
    part = margins_of(world).parts["a"]
    assert (part.right, len(part.counts), part.margins.size) == (50, 0, 0)
    assert part.rounded(3).count(np.ones(3)) == (50, 50)
    assert part.rounded(2).packed()["planes"] == ["", ""]
