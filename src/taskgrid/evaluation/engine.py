"""The resident engine: weights are written in place, images and heads stay on the device.

One encoder serves every grid point. A point costs a merge in memory and one forward pass of the
image tower per image; nothing is loaded, decoded or built twice, and no merged checkpoint is written.
The weights of a point are a pure function of the point and images pass in fixed batches, so a row is
the same bit for bit (on a CPU) whatever was measured before it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from taskgrid.errors import DataError
from taskgrid.evaluation.material import LabelledImages, Material
from taskgrid.evaluation.measure import score
from taskgrid.evaluation.planner import Request, Split, Weights
from taskgrid.lattice import lambda_value
from taskgrid.merging.base import MergeContext, Merger, Prepared
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.heads import Head
from taskgrid.models.inference import Pixels
from taskgrid.options import Options
from taskgrid.store.outcomes import Outcome
from taskgrid.store.weights import State

_RESIDENT_SHARE = 0.5
"""Share of the memory that is free when the engine starts which images may take."""


@dataclass(frozen=True)
class Method:
    """A merge method, ready to be applied.

    Attributes:
        merger: the method.
        options: its options.
        seed: what its random draws come from.
    """

    merger: Merger
    options: Options
    seed: int = 0


@dataclass(frozen=True)
class _Examples:
    pixels: Pixels
    labels: torch.Tensor
    head: Head


class Engine:
    """Measures weights on images; a ``runner.Bench``.

    Args:
        material: base, experts, vectors, heads, images; each is asked for once, when first needed.
        method: the merge method; None where no merge is measured.
        device: where to compute.
        batch_size: images per forward pass.
        precision: ``fp32`` or ``bf16``.
        resident_bytes: memory that images may take on the device; None measures what is free.
    """

    def __init__(
        self,
        material: Material,
        method: Method | None = None,
        *,
        device: torch.device | str = "cpu",
        batch_size: int = 512,
        precision: str = "fp32",
        resident_bytes: int | None = None,
    ) -> None:
        self._material = material
        self._method = method
        self._device = torch.device(device)
        self._batch_size = batch_size
        self._precision = precision
        self._base = self._on_device(material.base())
        self._encoder = ImageEncoder.from_card(material.card, self._base).to(self._device).eval()
        self._live = self._encoder.requires_grad_(False).live_state()
        self._vectors: dict[str, State] = {}
        self._prepared: tuple[tuple[str, ...], Prepared] | None = None
        self._examples: dict[tuple[str, Split], _Examples] = {}
        self._budget = _free_bytes(self._device) if resident_bytes is None else resident_bytes

    def evaluate(
        self, requests: Sequence[Request], advance: Callable[[int], None]
    ) -> Iterator[Outcome]:
        """Yield the outcome of every request, grouped so that each weights are placed once."""
        groups: dict[Weights, list[Request]] = {}
        for request in requests:
            groups.setdefault(request.weights, []).append(request)
        # One subset after the other, so that all lambdas of a subset share its preparation.
        for weights in sorted(groups, key=lambda w: (w.kind, len(w.subset), w.subset)):
            self._place(weights)
            for request in groups[weights]:
                yield self._measure(request)
                advance(request.n)

    def _measure(self, request: Request) -> Outcome:
        examples = self._examples_of(request.task, request.split)
        scores = score(
            self._encoder,
            examples.head,
            examples.pixels,
            examples.labels,
            batch_size=self._batch_size,
            precision=self._precision,
        )
        return Outcome.of(request.key, scores.hits, scores.mean_nll, scores.calibration_error)

    def _place(self, weights: Weights) -> None:
        if weights.kind == "merge" and self._method is None:
            raise ValueError("this engine has no merge method")
        with torch.inference_mode():
            if weights.kind == "base":
                self._copy(self._base)
            elif weights.kind == "expert":
                self._encoder.load(self._material.expert(weights.subset[0]))
            elif self._method is not None:
                self._method.merger.apply(
                    self._base,
                    self._prepare(weights.subset, self._method),
                    lambda_value(weights.scale),
                    self._method.options,
                    out=self._live,
                )

    def _prepare(self, subset: tuple[str, ...], method: Method) -> Prepared:
        if self._prepared is None or self._prepared[0] != subset:
            self._prepared = None
            vectors = {task: self._vector(task) for task in subset}
            context = MergeContext(self._base, vectors, method.options, method.seed)
            self._prepared = (subset, method.merger.prepare(context))
        return self._prepared[1]

    def _vector(self, task: str) -> State:
        if task not in self._vectors:
            self._vectors[task] = self._on_device(self._material.vector(task))
        return self._vectors[task]

    def _examples_of(self, task: str, split: Split) -> _Examples:
        if (task, split) not in self._examples:
            images, head = self._material.images(task, split), self._material.head(task)
            _check_labels(task, split, images, head)
            self._examples[task, split] = _Examples(
                pixels=self._resident(images),
                labels=torch.from_numpy(images.labels.copy()).to(self._device),
                head=head.to(self._device),
            )
        return self._examples[task, split]

    def _resident(self, images: LabelledImages) -> Pixels:
        size = len(images) * int(np.prod(images.pixels.shape[1:]))
        if size > self._budget:
            # Batches are gathered from the memory map as they are needed.
            return images  # type: ignore[return-value]
        self._budget -= size
        return torch.from_numpy(images[:]).to(self._device)

    def _copy(self, state: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in self._live.items():
            tensor.copy_(state[name])

    def _on_device(self, state: Mapping[str, torch.Tensor]) -> State:
        return {name: tensor.to(self._device) for name, tensor in state.items()}


def _check_labels(task: str, split: Split, images: LabelledImages, head: Head) -> None:
    if not len(images):
        raise DataError(f"task {task!r} has no {split} images to evaluate on")
    highest = int(images.labels.max())
    if highest >= len(head.classes) or int(images.labels.min()) < 0:
        raise DataError(
            f"task {task!r}: its {split} labels go up to {highest}, but its head has "
            f"{len(head.classes)} classes; correct the task's class names"
        )


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(_RESIDENT_SHARE * free)
