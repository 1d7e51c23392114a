"""A ready-made expert as files: what a fine-tuning writes, and where it comes from."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from taskgrid.experts.read import read_expert
from taskgrid.experts.untrained import UntrainedFiles
from taskgrid.machine.progress import Progress
from taskgrid.models.card import ModelCard
from taskgrid.store.atomic import read_json
from taskgrid.store.weights import load_state


def import_expert(
    card: Path, base: Path, settings: Mapping[str, Any], out: UntrainedFiles
) -> list[str]:
    """Read a checkpoint, check that it belongs to the base, and write it as an expert of ours.

    Args:
        card: the base model's card.
        base: theta_0.
        settings: ``model``, ``task``, ``mode``, ``seed``, ``format``, ``source``, ``file``, ``revision``.
        out: what is written.

    Returns:
        What is to be said about it, a sentence each.

    Raises:
        ArtifactError: if a file is missing or damaged.
        LineageError: if the expert does not belong to the base.
    """
    task, started = settings["task"], time.perf_counter()
    found = read_expert(
        settings["format"],
        settings["source"],
        task,
        ModelCard.from_json(read_json(card)),
        load_state(base)[0],
        file=settings.get("file"),
        revision=settings.get("revision"),
        progress=partial(Progress, f"download {task}", unit="B"),
    )
    lineage = {
        **found.lineage,
        "model": settings["model"],
        "mode": settings["mode"],
        "seed": str(settings["seed"]),
    }
    digest = out.write(
        found.state, lineage, started, distance=found.distance, notes=list(found.notes)
    )
    away = f"{task}: {found.distance:.2%} of theta_0's norm away, digest {digest}"
    return [*(f"{task}: {note}" for note in found.notes), away]
