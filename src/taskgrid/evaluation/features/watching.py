"""Watching the networks of a run: one pass over the images of each task, then tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from taskgrid.errors import DataError
from taskgrid.evaluation.engine.resident import Resident
from taskgrid.evaluation.features.edits import Asked, Edit, Network, all_edits
from taskgrid.evaluation.features.looking import Sight, look
from taskgrid.evaluation.features.rows import (
    Row,
    Seen,
    bias_rows,
    norm_rows,
    pixel_rows,
    similarity_rows,
    table_of,
    weight_rows,
)
from taskgrid.evaluation.opening.files import GridFiles, open_files
from taskgrid.evaluation.plan.choices import Chosen
from taskgrid.evaluation.plan.setting import Setting
from taskgrid.machine.meter import OpenTally, Tally
from taskgrid.models.batches import BatchSize
from taskgrid.models.inference import full_float32, normalizer, to_device
from taskgrid.models.tower import build_tower
from taskgrid.plugins.cards import study_card
from taskgrid.statistics.seam import chosen_rows
from taskgrid.store.images import PixelRows

_BATCH = 32
"""Images per pass: what all layers of the base give for them is held while the others pass."""


def watch(
    files: GridFiles,
    setting: Setting,
    asked: Asked,
    chosen: Sequence[Chosen],
    device: torch.device,
    progress: OpenTally,
) -> dict[str, pa.Table]:
    """Look at the base, the experts and the merges of a run.

    On a task's images are looked at the base, the task's own expert, and the merges that the task is in.

    Args:
        files: base, vectors, heads, images, statistics; what was learned by ``METHOD/SUBSET``.
        setting: what they should hold.
        asked: what is looked at.
        chosen: what studies chose.
        device: where to compute.
        progress: makes a counter of images from a label and a total.

    Returns:
        The tables of the study ``features`` by name.

    Raises:
        ArtifactError: if nothing was chosen for a merge.
        DataError: if a task has no training images.
        DeviceError: if the device has no memory for one image.
        LineageError: if a file is not what the setting says, or the tower is no vision transformer of
            open_clip.
    """
    material = open_files(replace(files, learned={}), setting, {})
    resident = Resident(material, device, vectors=material.vector_count)
    run = {"model": setting.model, "mode": setting.mode, "seed": setting.seed}
    images = {
        task: _taken(task, material.tasks[task].images("train"), asked.images, setting.seed)
        for task in setting.experts
    }
    tower = build_tower(resident.card).to(device)
    found: dict[str, list[Row]] = {name: [] for name in study_card("features").tables}
    with full_float32(), torch.inference_mode():
        edits = tuple(all_edits(files, setting, asked, chosen, resident))
        total = sum(len(rows) * len(_networks(edits, task)) for task, rows in images.items())
        with progress("features", total) as tally:
            for task, pixels in images.items():
                seen = look_at(tower, resident, edits, task, pixels, tally)
                found["norms"] += norm_rows(seen)
                found["pixels"].append(pixel_rows(seen))
                found["similarity"] += similarity_rows(seen)
                found["bias"] += bias_rows(seen)
        for edit in edits:
            found["weights"] += weight_rows(resident.base, edit)
    return {name: table_of(name, run, rows) for name, rows in found.items()}


def look_at(
    tower: nn.Module,
    resident: Resident,
    edits: Sequence[Edit],
    task: str,
    images: PixelRows,
    tally: Tally,
) -> Seen:
    """Look at all networks that there are on a task's images.

    Args:
        tower: the tower that weights are put into.
        resident: the base and its card.
        edits: the edits of the run.
        task: the task.
        images: its images.
        tally: is told of images that are done.
    """
    networks = _networks(edits, task)
    states = [each.edit.state(each.point, task) for each in networks if each.edit is not None]
    prepare = normalizer(resident.card.mean, resident.card.std, resident.device)

    def batches(size: int) -> Iterator[torch.Tensor]:
        for start in range(0, len(images), size):
            yield prepare(to_device(images[start : start + size], resident.device))

    def passed(size: int) -> tuple[Sight, ...]:
        return look(tower, resident.base, states, batches(size), tally)

    sights = BatchSize(_BATCH).fit(passed)
    return Seen(task, len(images), np.array(images[:1][0]), networks, sights)


def _networks(edits: Sequence[Edit], task: str) -> tuple[Network, ...]:
    """Return what is looked at on a task's images, the base first."""
    own = [edit for edit in edits if task in edit.subset]
    return (Network(), *(Network(edit, point) for edit in own for point in edit.points))


def _taken(task: str, images: PixelRows, wanted: int, seed: int) -> PixelRows:
    """Return as many images as are wanted, in order."""
    if not len(images):
        raise DataError(f"task {task!r} has no train images to look at its networks with")
    return PixelRows(images.pixels, images.rows[chosen_rows(len(images), wanted, seed)])
