"""Logits of any merge from the files of a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from taskgrid.data.manifest import SplitManifest
from taskgrid.lattice.points import lambda_value
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Prepared, Sources
from taskgrid.models.card import ModelCard
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.heads import Head
from taskgrid.models.inference import logits_of
from taskgrid.store.atomic import read_json
from taskgrid.store.images import ImageStore, Split
from taskgrid.store.weights import State, load_state


class Finished:
    """The artefacts of one model, mode and seed, and an encoder that takes any merge of them.

    Args:
        results: the results folder.
        tasks: the tasks.
        model: the base model's name; by default the only one.
        mode: fine-tuning mode.
        seed: fine-tuning seed.
        method: merge method without options.
        images: at most so many images of each task and split; None means all.
        batch_size: images per forward pass.
    """

    def __init__(
        self,
        results: Path,
        tasks: Sequence[str],
        *,
        model: str | None = None,
        mode: str = "standard",
        seed: int = 0,
        method: str = "task_arithmetic",
        images: int | None = None,
        batch_size: int = 128,
    ) -> None:
        self.tasks = tuple(sorted(tasks))
        self.method = method
        self.passed = 0
        self._images = images
        self._batch_size = batch_size
        model = model or next((results / "models").iterdir()).name
        self._card = ModelCard.from_json(read_json(results / "models" / model / "base.json"))
        self._base = load_state(results / "models" / model / "base.safetensors")[0]
        vectors = results / "vectors" / model / mode / str(seed)
        self._vectors = {
            task: load_state(vectors / f"{task}.safetensors")[0] for task in self.tasks
        }
        self._heads = {
            task: Head.load(results / "heads" / model / f"{task}.safetensors")
            for task in self.tasks
        }
        self._pixels = f"{self._card.image_size}px"
        self._results = results
        self._open: dict[tuple[str, Split], tuple[NDArray[np.uint8], NDArray[np.int64]]] = {}
        self._encoder = ImageEncoder.from_card(self._card, self._base).requires_grad_(False).eval()
        self._live: State = self._encoder.live_state()
        self._prepared: dict[tuple[str, ...], Prepared] = {}
        self._placed: tuple[tuple[str, ...], float] | None = None

    def labels(self, task: str, split: Split) -> NDArray[np.int64]:
        """Return true classes."""
        return self._examples(task, split)[1]

    def logits(
        self, subset: Sequence[str], scale: str | float, task: str, split: Split
    ) -> NDArray[np.float32]:
        """Return what a merge says about a task's images, (n, C)."""
        self._place(tuple(sorted(subset)), lambda_value(str(scale)))
        pixels, _ = self._examples(task, split)
        self.passed += len(pixels)
        found = logits_of(self._encoder, self._heads[task], pixels, batch_size=self._batch_size)
        return np.asarray(found.numpy())

    def _place(self, subset: tuple[str, ...], scale: float) -> None:
        if not scale or not subset:
            subset, scale = (), 0.0
        if self._placed == (subset, scale):
            return
        recipe = MergeRecipe.of(self.method, {})
        with torch.inference_mode():
            if not subset:
                for name, tensor in self._live.items():
                    tensor.copy_(self._base[name])
            else:
                if subset not in self._prepared:
                    sources = Sources(self._vectors.__getitem__)
                    self._prepared = {subset: recipe.prepare(self._base, sources, subset)}
                recipe.apply(self._base, self._prepared[subset], scale, out=self._live)
        self._placed = (subset, scale)

    def _examples(self, task: str, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        if (task, split) not in self._open:
            store = ImageStore.open(self._results / "data" / self._pixels / task / "images.arrow")
            manifest = SplitManifest.read(self._results / "splits" / self._pixels / f"{task}.json")
            rows = store.rows(manifest.ids(split))[: self._images]
            labels = np.asarray(store.labels[rows], dtype=np.int64)
            self._open[task, split] = (np.array(store.pixels[rows]), labels)
        return self._open[task, split]
