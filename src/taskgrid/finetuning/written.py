"""An expert as files: from the images, the head and theta_0 on disk to theta_t and what is known of it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import torch

from taskgrid.data.manifest import DatasetManifest, SplitManifest, check_images
from taskgrid.finetuning.checkpoint import discard_checkpoint
from taskgrid.finetuning.feed import Originals, Samples
from taskgrid.finetuning.loop import Finetuned, OtherTasks, Scratch, finetune
from taskgrid.finetuning.recipe import Recipe
from taskgrid.machine.devices import lease_device
from taskgrid.machine.progress import Listener, Progress
from taskgrid.models.card import ModelCard
from taskgrid.models.heads import Head
from taskgrid.plugins.cards import mode_card
from taskgrid.provenance.digests import digest as digest_of
from taskgrid.store.atomic import read_json, write_json
from taskgrid.store.images import ImageStore, PixelRows
from taskgrid.store.originals import OriginalStore
from taskgrid.store.tables import write_table
from taskgrid.store.weights import State, load_state, save_state


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
        others: other task -> what the mode reads of it: ``split``, ``dataset``, ``images`` and
            ``originals``, and statistics by name.
    """

    card: Path
    base: Path
    head: Path
    split: Path
    dataset: Path
    images: Path
    originals: Path
    others: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)


@dataclass(frozen=True)
class ExpertFiles:
    """What a fine-tuning writes. Where the mode has factors, they come to lie beside the expert.

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

    @property
    def factors(self) -> Path:
        """Where factors are."""
        return self.expert.with_name("factors.safetensors")


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
    listen: Listener = lambda _: None,
) -> Trained:
    """Fine-tune on a task; an interrupted training of the same settings is resumed.

    Args:
        files: what is read.
        out: what is written.
        settings: ``model``, ``task``, ``mode``, ``mode_label``, ``mode_options``, ``seed``, ``recipe``.
        device: ``auto``, ``cpu`` or ``cuda``.
        scratch: where trainings keep checkpoints; removed when the expert is written.
        every_seconds: time between checkpoints.
        listen: is given points of the curves as it goes; must neither wait nor raise.

    Raises:
        ArtifactError: if a file is missing or damaged.
        ConfigError: as `finetuning.loop.finetune` does.
        DataError: the same.
        LineageError: the same.
        TrainingError: the same.
    """
    task, seed = settings["task"], settings["seed"]
    own = _TaskImages(files.split, files.dataset, files.images, files.originals)
    others = _others(files.others, mode_card(settings["mode"]).others)
    train = own.train()
    lineage = {"model": settings["model"], **own.lineage(), **others.lineage()}
    recipe = Recipe.from_mapping(settings["recipe"])
    folder = scratch.joinpath(settings["model"], settings["mode_label"], str(seed), task)
    with ExitStack() as held:
        place = held.enter_context(lease_device(device))
        bar = held.enter_context(
            Progress(f"finetune {task}", recipe.total_steps(len(train)), "step", listen=listen)
        )
        done = finetune(
            ModelCard.from_json(read_json(files.card)),
            load_state(files.base)[0],
            Head.load(files.head),
            train,
            own.val(),
            recipe,
            task=task,
            mode=settings["mode"],
            mode_options=settings["mode_options"],
            others=others.material,
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
    known: dict[str, Any] = {"digest": digest, "counts": own.split.counts, "steps": done.steps}
    if done.factors:
        known["factors"] = save_state(
            out.factors, done.factors, {**done.lineage, "kind": "factors"}
        )
    write_json(out.manifest, {**done.lineage, **known})
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


class _TaskImages:
    """The decoded images of a task, and which of them train."""

    def __init__(self, split: Path, dataset: Path, images: Path, originals: Path) -> None:
        self.split = SplitManifest.read(split)
        self._images = ImageStore.open(images)
        check_images(self._images, self.split)
        # None where all images are square: then prepared images are all there is.
        self._kept = DatasetManifest.read(dataset).originals
        self._originals = originals

    def train(self) -> Samples:
        """Return training images."""
        found = self._samples("train")
        if self._kept is None:
            return found
        store = OriginalStore.open(self._originals)
        places = store.places(self._images, self._images.rows(self.split.ids("train")))
        return replace(found, originals=Originals(store, places))

    def val(self) -> Samples:
        """Return validation images."""
        return self._samples("val")

    def lineage(self) -> dict[str, str]:
        """Return the digests that the images are known by."""
        kept = {"originals": self._kept} if self._kept is not None else {}
        return {"split": self.split.digest, **kept}

    def _samples(self, name: Literal["train", "val"]) -> Samples:
        rows = self._images.rows(self.split.ids(name))
        # Rows of the memory map, which may be larger than memory.
        return Samples(PixelRows(self._images.pixels, rows), self._images.labels[rows])


@dataclass(frozen=True)
class _Others:
    """What a mode reads of the other tasks, and what it is known by."""

    material: OtherTasks
    known: Mapping[str, Mapping[str, str]]

    def lineage(self) -> dict[str, str]:
        """Return one digest of it all; nothing where nothing is read."""
        return {"others": digest_of(self.known)} if self.known else {}


def _others(files: Mapping[str, Mapping[str, Path]], wanted: tuple[str, ...]) -> _Others:
    images: dict[str, Samples] = {}
    statistics: dict[str, dict[str, State]] = {name: {} for name in wanted if name != "images"}
    known: dict[str, dict[str, str]] = {}
    for task, kinds in files.items():
        known[task] = {}
        if "images" in wanted:
            found = _TaskImages(
                *(kinds[kind] for kind in ("split", "dataset", "images", "originals"))
            )
            images[task] = found.train()
            known[task] |= found.lineage()
        for name, states in statistics.items():
            states[task], lineage = load_state(kinds[name])
            known[task][name] = lineage["digest"]
    return _Others(OtherTasks(images, statistics), known)
