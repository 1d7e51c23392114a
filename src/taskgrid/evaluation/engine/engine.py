"""The resident engine: weights are written in place, images and heads stay on the device.

One encoder serves every grid point. A point costs a merge in memory and one forward pass of the
image tower per image; nothing is loaded, decoded or built twice, and no merged checkpoint is written.
The weights of a point are a pure function of the point and images pass in fixed batches, so a row is
the same bit for bit (on a CPU) whatever was measured before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from taskgrid.evaluation.engine.compiled import CompiledEncoder
from taskgrid.evaluation.engine.correcting import CorrectingHead
from taskgrid.evaluation.engine.listening import ListeningHead
from taskgrid.evaluation.engine.material import Material
from taskgrid.evaluation.engine.measure import Scores, judge, score, scores_of
from taskgrid.evaluation.engine.resident import Resident
from taskgrid.evaluation.plan.setting import Request, Split, Weights, expert_weights
from taskgrid.lattice.subsets import subset_name
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Prepared
from taskgrid.merging.walks import Walk
from taskgrid.models.batches import BatchChoice, BatchSize, fitted, passing
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.heads import Head
from taskgrid.store.outcome import Outcome

_Merge = tuple[tuple[str, ...], tuple[tuple[str, float], ...]]
"""A subset, and its tasks' own coefficients where a point names them."""


class Engine:
    """Measures weights on images; ``work.Measures`` and ``listening.Listens``.

    Args:
        material: base, experts, vectors, heads, images; each is asked for once, when first needed.
        recipe: how to merge; None where no merge is measured.
        device: where to compute.
        batch_size: images per forward pass; halved, for good, when the device runs out of memory.
            ``auto`` takes what fits.
        precision: ``fp32`` or ``bf16``.
        resident_bytes: memory that images may take on the device; None measures what is free.
        compiled: whether whole batches pass through ``torch.compile``.
        needs: the statistics that the method reads: name -> label.

    Attributes:
        prepared: seconds that the lambda-free work took, by the name of the subset. What subsets share
            counts for the one that needed it first.
    """

    def __init__(
        self,
        material: Material,
        recipe: MergeRecipe | None = None,
        *,
        device: torch.device | str = "cpu",
        batch_size: BatchChoice = "auto",
        precision: str = "fp32",
        resident_bytes: int | None = None,
        compiled: bool = False,
        needs: Mapping[str, str] | None = None,
    ) -> None:
        vectors = material.vector_count if recipe is not None else 0
        self._resident = Resident(material, torch.device(device), resident_bytes, vectors)
        self._recipe = recipe
        self._asked, self._needs = batch_size, dict(needs or {})
        self._precision = precision
        encoder = ImageEncoder.from_card(material.card, self._resident.base)
        self._encoder = encoder.to(self._resident.device).eval()
        self._live = self._encoder.requires_grad_(False).live_state()
        self._network: ImageEncoder = self._encoder
        if compiled:
            self._network = CompiledEncoder(self._encoder, lambda: self._batch_size.size)
        self._prepared: tuple[_Merge, Prepared] | None = None
        self.prepared: dict[str, float] = {}
        self._logits: dict[tuple[str, str, Split], torch.Tensor] = {}
        self._placed: Weights | None = None

    def evaluate(
        self, requests: Sequence[Request], advance: Callable[[int], None]
    ) -> Iterator[Outcome]:
        """Yield the outcome of every request, grouped so that each weights are placed once."""
        groups: dict[Weights, list[Request]] = {}
        for request in requests:
            groups.setdefault(request.weights, []).append(request)
        # One subset after the other, so that all lambdas of a subset share its preparation, and in the
        # order of a dictionary, so that most sums are another one's plus one vector.
        for weights in sorted(groups, key=lambda w: (w.kind, w.subset, w.coefficients.order)):
            for request in groups[weights]:
                if self._combines(weights):
                    yield self._combined(request)[0]
                else:
                    self._place(weights)
                    yield self._measure(request)
                advance(request.n)

    @property
    def batch_size(self) -> int:
        """Images per forward pass."""
        return self._batch_size.size

    @property
    def machine(self) -> dict[str, str | int]:
        """What moves the last bits of a logit, beside what it is of."""
        return {
            "batch_size": self.batch_size,
            "device": self._resident.device.type,
            "compiled": isinstance(self._network, CompiledEncoder) and not self._network.gave_up,
            "torch": torch.__version__,
        }

    def labels(self, task: str, split: Split) -> NDArray[np.int64]:
        """Return the true classes of an image set, (n,)."""
        return self._resident.labels(task, split).cpu().numpy()

    def listen(self, request: Request) -> tuple[Outcome, NDArray[Any]]:
        """Measure a row and return its outcome with the logits behind it, (n, C)."""
        outcome, logits = self._heard(request)
        return outcome, logits.float().cpu().numpy()

    def _heard(self, request: Request) -> tuple[Outcome, torch.Tensor]:
        if self._combines(request.weights):
            return self._combined(request)
        self._place(request.weights)
        heads: list[ListeningHead] = []

        def listening() -> Head:
            # A new one for each attempt: one that was broken off has heard too much.
            heads.append(ListeningHead.beside(self._head(request)))
            return heads[-1]

        return self._measure(request, listening), heads[-1].heard()

    def _combines(self, weights: Weights) -> bool:
        recipe = self._recipe
        return weights.kind == "merge" and recipe is not None and recipe.card.gives == "logits"

    def _combined(self, request: Request) -> tuple[Outcome, torch.Tensor]:
        """Derive a row from the logits of the experts of its subset."""
        assert self._recipe is not None
        task, split = request.task, request.split
        logits = {
            expert: self._said(Request("", expert_weights(expert), task, split, request.n))
            for expert in request.weights.subset
        }
        with torch.inference_mode():
            found = self._recipe.logit_merger.combine(logits, self._recipe.options)
            scores = scores_of(judge(found, self._resident.labels(task, split)))
        return scores.outcome(request.key), found

    def _said(self, request: Request) -> torch.Tensor:
        """Return an expert's logits on an image set, from a pass that is made once."""
        place = (request.weights.subset[0], request.task, request.split)
        if place not in self._logits:
            self._logits[place] = self._heard(request)[1]
        return self._logits[place]

    def _measure(self, request: Request, head: Callable[[], Head] | None = None) -> Outcome:
        return measure(
            request,
            self._network,
            self._resident,
            self._batch_size,
            precision=self._precision,
            head=head if head is not None else partial(self._head, request),
        )

    def _head(self, request: Request) -> Head:
        head, recipe = self._resident.head(request.task), self._recipe
        if request.weights.kind != "merge" or recipe is None or recipe.card.gives != "features":
            return head
        assert self._prepared is not None, "its weights are placed"
        merger = recipe.feature_merger
        return CorrectingHead.behind(
            partial(merger.features, self._prepared[1], request.task), head
        )

    @cached_property
    def _batch_size(self) -> BatchSize:
        # At the first pass: what is on the device already has its room.
        device = self._resident.device
        probe = passing(self._encoder, device, self._precision)
        return fitted(self._asked, device, probe)

    def _place(self, weights: Weights) -> None:
        if weights == self._placed:
            return
        # Until all are written they are neither the ones nor the others.
        self._placed = None
        with torch.inference_mode():
            if weights.kind == "base":
                self._copy(self._resident.base)
            elif weights.kind == "expert":
                self._encoder.load(self._resident.expert(weights.subset[0]))
            else:
                self._merge(weights)
        self._placed = weights

    def _merge(self, weights: Weights) -> None:
        recipe, walk = self._merging
        point = weights.coefficients
        wanted = (weights.subset, tuple(point.named.items()))
        if self._prepared is None or self._prepared[0] != wanted:
            # Let go of first: the walk may write over it.
            self._prepared = None
            begun = time.perf_counter()
            self._prepared = (wanted, walk(weights.subset, point.named))
            self._resident.arrive()
            spent = time.perf_counter() - begun
            self.prepared.setdefault(subset_name(weights.subset), spent)
        recipe.apply(
            self._resident.base,
            self._prepared[1],
            point.lambda_value,
            task=weights.task,
            out=self._live,
        )

    @cached_property
    def _merging(self) -> tuple[MergeRecipe, Walk]:
        if self._recipe is None:
            raise ValueError("this engine has no merge method")
        return self._recipe, self._resident.walk(self._recipe, self._needs)

    def _copy(self, state: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in self._live.items():
            tensor.copy_(state[name])


def measure(
    request: Request,
    encoder: ImageEncoder,
    resident: Resident,
    batch_size: BatchSize,
    *,
    precision: str,
    head: Callable[[], Head] | None = None,
) -> Outcome:
    """Measure what an encoder holds on the images of a request, in batches that fit.

    Args:
        request: whose images, and the row's key.
        encoder: holds the weights already.
        resident: labels, images, heads.
        batch_size: images per forward pass; halved when memory runs out.
        precision: ``fp32`` or ``bf16``.
        head: gives the head for each attempt; None takes the task's.
    """
    task, split = request.task, request.split
    labels, pixels = resident.labels(task, split), resident.pixels(task, split)

    def scored(size: int) -> Scores:
        return score(
            encoder,
            head() if head is not None else resident.head(task),
            pixels,
            labels,
            batch_size=size,
            precision=precision,
        )

    return batch_size.fit(scored).outcome(request.key)
