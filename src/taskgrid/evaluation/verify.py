"""A ready-made expert must reproduce its own task before it may be merged.

Checkpoints of the literature are swapped, fine-tuned from another base, or measured with other class
names more often than one would think; a merge of them still yields numbers. The expert is put to the
test images of its own task, with the kernel and the head that the grid uses, and refused where its
accuracy, chance allowed for, is below what was published, or below the base's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import torch

from taskgrid.errors import DataError, LineageError
from taskgrid.evaluation.engine.material import LabelledImages
from taskgrid.evaluation.engine.measure import score
from taskgrid.models.batches import BatchChoice, fitted, passing
from taskgrid.models.card import ModelCard, check_expert
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.heads import Head, check_head
from taskgrid.models.linearized import LinearizedEncoder

_LEVEL = 0.95


@dataclass(frozen=True)
class Check:
    """What is asked of an expert.

    Attributes:
        expected: the accuracy that it should have; None asks for the base's on the same images.
        tolerance: how far below it the accuracy may be, beside what chance allows for.
    """

    expected: float | None = None
    tolerance: float = 0.02


@dataclass(frozen=True)
class Verification:
    """An expert on the test images of its own task.

    Attributes:
        task: the task.
        n: number of test images.
        correct: how many it classifies correctly.
        low: lower end of the accuracy's 95 % interval (Wilson 1927).
        high: upper end.
        expected: the accuracy that was expected.
        rule: where that comes from: ``published`` (the configuration) or ``zero-shot`` (the base).
        tolerance: how far below it the accuracy may be.
        expert: digest of the expert.
        base: digest of the base.
        head: digest of the head.
        precision: ``fp32`` or ``bf16``.
        tangent: whether the expert was put into the tangent model, as it was trained.
    """

    task: str
    n: int
    correct: int
    low: float
    high: float
    expected: float
    rule: Literal["published", "zero-shot"]
    tolerance: float
    expert: str
    base: str
    head: str
    precision: str
    tangent: bool

    @property
    def accuracy(self) -> float:
        """Share of the images that are classified correctly."""
        return self.correct / self.n

    @property
    def passed(self) -> bool:
        """Whether the accuracy may be what is expected, less the tolerance."""
        return self.high >= self.expected - self.tolerance

    @property
    def above(self) -> bool:
        """Whether the accuracy is certainly higher than the published one, tolerance included."""
        return self.rule == "published" and self.low > self.expected + self.tolerance

    def to_json(self) -> dict[str, Any]:
        """Return the values for the manifest ``verified.json``."""
        return {**asdict(self), "accuracy": self.accuracy, "above": self.above}


def verify_expert(
    card: ModelCard,
    base: Mapping[str, torch.Tensor],
    expert: Mapping[str, torch.Tensor],
    lineage: Mapping[str, str],
    head: Head,
    images: LabelledImages,
    check: Check,
    *,
    task: str,
    device: torch.device | str = "cpu",
    batch_size: BatchChoice = "auto",
    precision: str = "fp32",
) -> Verification:
    """Put an expert to the test images of its own task.

    An expert that was trained as a tangent model (``trained_as: linear`` in its lineage) is put into
    the tangent model at theta_0.

    Args:
        card: the base's card.
        base: theta_0.
        expert: theta_t.
        lineage: the expert's lineage, with its digest.
        head: the task's head.
        images: the task's test images.
        check: what is asked of it.
        task: the task's name.
        device: where to compute.
        batch_size: images per forward pass; ``auto`` takes what fits.
        precision: ``fp32`` or ``bf16``.

    Raises:
        DataError: if there are no test images, or their labels do not fit the head.
        LineageError: if expert or head belong to another base, or the expert does not reproduce its
            task; names both accuracies and what to check.
    """
    check_expert(lineage, card, task)
    check_head(head, card)
    _check_images(images, head, task)
    tangent = lineage.get("trained_as") == "linear"
    kind = LinearizedEncoder if tangent else ImageEncoder
    encoder = kind.from_card(card, base).to(torch.device(device)).eval().requires_grad_(False)
    head = head.to(device)
    probe = passing(encoder, torch.device(device), precision)
    size = fitted(batch_size, torch.device(device), probe)

    def correct_of(batch_size: int) -> int:
        hits = score(
            encoder,
            head,
            images,
            torch.from_numpy(images.labels.copy()).to(device),
            batch_size=batch_size,
            precision=precision,
        ).hits
        return int(hits.sum())

    expected = check.expected
    if expected is None:
        expected = size.fit(correct_of) / len(images)
    encoder.load(expert)
    hits = size.fit(correct_of)
    low, high = _interval(hits, len(images))
    found = Verification(
        task=task,
        n=len(images),
        correct=hits,
        low=low,
        high=high,
        expected=expected,
        rule="zero-shot" if check.expected is None else "published",
        tolerance=check.tolerance,
        expert=lineage["digest"],
        base=card.base,
        head=str(head.lineage.get("digest", "")),
        precision=precision,
        tangent=tangent,
    )
    if not found.passed:
        raise LineageError(_refusal(found))
    return found


def _refusal(found: Verification) -> str:
    wanted = (
        f"the base's own zero-shot accuracy is {found.expected:.2%}"
        if found.rule == "zero-shot"
        else f"{found.expected:.2%} is expected"
    )
    return (
        f"the expert of task {found.task!r} does not reproduce its task: it classifies "
        f"{found.accuracy:.2%} of {found.n} test images correctly (at most {found.high:.2%} with "
        f"{_LEVEL:.0%} confidence), but {wanted}, with a tolerance of {found.tolerance:.2%}; check "
        "whether it is the checkpoint of another task, was fine-tuned from another base, or was "
        "measured with other classes, prompts or images"
    )


def _check_images(images: LabelledImages, head: Head, task: str) -> None:
    if not len(images):
        raise DataError(f"task {task!r} has no test images to verify its expert on")
    low, high = int(images.labels.min()), int(images.labels.max())
    if low < 0 or high >= len(head.classes):
        raise DataError(
            f"task {task!r}: its test labels go from {low} to {high}, but its head has "
            f"{len(head.classes)} classes; correct the task's class names"
        )


def _interval(correct: int, n: int) -> tuple[float, float]:
    """Return the Wilson interval of a share; `analysis.intervals`, a floor above, has it for arrays."""
    z = NormalDist().inv_cdf((1 + _LEVEL) / 2)
    share, spread = correct / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / spread
    half = z / spread * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At both ends the formula gives 0 and 1 but for rounding, and rounding must refuse nobody.
    return centre - half if correct else 0.0, centre + half if correct < n else 1.0
