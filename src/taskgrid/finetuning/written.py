"""An expert as files: from the images, the head and theta_0 on disk to theta_t and what is known of it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from taskgrid.data.manifest import DatasetManifest, SplitManifest
from taskgrid.finetuning.checkpoint import discard_checkpoint
from taskgrid.finetuning.feed import Originals, Samples
from taskgrid.finetuning.loop import Finetuned, Scratch, finetune
from taskgrid.finetuning.recipe import Recipe
from taskgrid.machine.devices import lease_device
from taskgrid.machine.progress import Progress
from taskgrid.models.card import ModelCard
from taskgrid.models.heads import Head
from taskgrid.store.atomic import read_json, write_json
from taskgrid.store.images import ImageStore, PixelRows
from taskgrid.store.originals import OriginalStore
from taskgrid.store.tables import write_table
from taskgrid.store.weights import load_state, save_state


@dataclass(frozen=True)
class TrainingFiles:
    """What a fine-tuning reads.

    Attributes:
        card: the base model's card.
        base: theta_0.
        head: the task's head.
        split: the split manifest.
        dataset: the manifest of the decoded images.
        images: the decoded images.
        originals: training images as they were, for random crops.
    """

    card: Path
    base: Path
    head: Path
    split: Path
    dataset: Path
    images: Path
    originals: Path


@dataclass(frozen=True)
class ExpertFiles:
    """What a fine-tuning writes.

    Attributes:
        expert: theta_t.
        manifest: what it was made from, and its digest.
        history: the curves.
        timing: how long it took, and where; it differs from run to run, and manifests must not.
    """

    expert: Path
    manifest: Path
    history: Path
    timing: Path


@dataclass(frozen=True)
class Trained:
    """An expert that was written.

    Attributes:
        digest: the digest of its state.
        done: the training.
    """

    digest: str
    done: Finetuned

    def sentence(self, task: str) -> str:
        """Say how the training went."""
        accuracy, pace = dict(self.done.history.curve("val/accuracy")), self.done
        return (
            f"{task}: val accuracy {accuracy[0]:.3f} -> {accuracy[pace.steps]:.3f}, "
            f"{pace.images / pace.seconds:.0f} images/s, digest {self.digest}"
        )


def train_expert(
    files: TrainingFiles,
    out: ExpertFiles,
    settings: Mapping[str, Any],
    *,
    device: str = "auto",
    scratch: Path,
    every_seconds: float = 60.0,
) -> Trained:
    """Fine-tune on a task; an interrupted training of the same settings is resumed.

    Args:
        files: what is read.
        out: what is written.
        settings: ``model``, ``task``, ``mode``, ``mode_label``, ``mode_options``, ``seed``, ``recipe``.
        device: ``auto``, ``cpu`` or ``cuda``.
        scratch: where trainings keep checkpoints; removed when the expert is written.
        every_seconds: time between checkpoints.

    Raises:
        ArtifactError: if a file is missing or damaged.
        ConfigError: as `finetuning.loop.finetune` does.
        DataError: the same.
        LineageError: the same.
        TrainingError: the same.
    """
    task, seed = settings["task"], settings["seed"]
    split = SplitManifest.read(files.split)
    lineage = {"model": settings["model"], "split": split.digest}
    train, val, kept = _samples(files, split)
    if kept is not None:
        lineage["originals"] = kept
    recipe = Recipe.from_mapping(settings["recipe"])
    folder = scratch.joinpath(settings["model"], settings["mode_label"], str(seed), task)
    with ExitStack() as held:
        place = held.enter_context(lease_device(device))
        bar = held.enter_context(
            Progress(f"finetune {task}", recipe.total_steps(len(train)), "step")
        )
        done = finetune(
            ModelCard.from_json(read_json(files.card)),
            load_state(files.base)[0],
            Head.load(files.head),
            train,
            val,
            recipe,
            task=task,
            mode=settings["mode"],
            mode_options=settings["mode_options"],
            seed=seed,
            device=place,
            scratch=Scratch(folder, every_seconds=every_seconds),
            lineage=lineage,
            progress=bar,
        )
        gpu = torch.cuda.max_memory_allocated(place) if place.type == "cuda" else 0
    digest = save_state(out.expert, done.state, done.lineage)
    names = ("step", "metric", "value")
    columns = zip(names, map(list, zip(*done.history.rows, strict=True)), strict=True)
    write_table(out.history, pa.table(dict(columns)))
    write_json(
        out.manifest,
        {**done.lineage, "digest": digest, "counts": split.counts, "steps": done.steps},
    )
    write_json(
        out.timing,
        {
            "seconds": done.seconds,
            "images_per_second": done.images / done.seconds,
            "pace": done.pace,
            "gpu_gib": round(gpu / 2**30, 2),
            "device": str(place),
            "torch": torch.__version__,
            "host": platform.node(),
        },
    )
    discard_checkpoint(folder)
    return Trained(digest, done)


def _samples(files: TrainingFiles, split: SplitManifest) -> tuple[Samples, Samples, str | None]:
    """Return training and validation images, and the digest of the originals where some were kept."""
    images = ImageStore.open(files.images)
    rows, held = (images.rows(split.ids(name)) for name in ("train", "val"))
    originals: Originals | None = None
    # Only then: what is made of square images alone has the lineage it always had.
    if (kept := DatasetManifest.read(files.dataset).originals) is not None:
        store = OriginalStore.open(files.originals)
        originals = Originals(store, store.places(images, rows))
    # Rows of the memory map, which may be larger than memory.
    train = Samples(PixelRows(images.pixels, rows), images.labels[rows], originals)
    return train, Samples(PixelRows(images.pixels, held), images.labels[held]), kept
