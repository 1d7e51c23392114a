"""What less than float32 costs: the same images through the same weights, in both precisions.

A comparison counts and measures, and decides nothing. A proof collects the comparisons of a set of
experts and says whether they pass: a reduced precision is refused where accuracy moves by more than a
tolerance and by more than chance explains.

A class can only change where it was a close call. If no logit of an image moves by more than d, its
largest one in float32 is at most 2 d above the one that overtakes it; every change of a class is
held against that law. Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from taskgrid.errors import ArtifactError, ConfigError, LineageError
from taskgrid.evaluation.planner import Setting
from taskgrid.store.atomic import read_json, write_json

_LEVEL = 0.95

Kind = Literal["base", "experts", "merge"]
"""Which weights: the base, each expert on its own task, one merge of all tasks."""

TOGETHER = ""
"""Stands in the place of a task where the images of all tasks are counted together."""


@dataclass(frozen=True)
class Flip:
    """An image whose class differs.

    Attributes:
        image: its place among the images that were compared.
        before: its class in float32; -1 where a logit is not a number.
        after: its class in the reduced precision; -1 where a logit is not a number.
        margin: how far the largest logit is above the second one in float32.
        difference: how far the logit that moved most has moved.
    """

    image: int
    before: int
    after: int
    margin: float
    difference: float

    @property
    def explained(self) -> bool:
        """Whether it was a close call: the margin is at most twice the difference."""
        return self.after >= 0 and self.margin <= 2 * self.difference


@dataclass(frozen=True)
class Comparison:
    """One set of images through one set of weights, in float32 and in a reduced precision.

    Attributes:
        kind: which weights.
        task: whose images and head; ``TOGETHER`` for those of all tasks.
        n: number of images.
        largest: largest difference of a logit.
        mean: mean over the images of their mean difference of a logit.
        correct: images that float32 classifies correctly.
        only_fp32: those of them that the reduced precision does not.
        only_reduced: images that only the reduced precision classifies correctly.
        changed: images whose class differs, right or wrong.
        unexplained: those of them that were no close call; there should be none.
        broken: images with a logit that is no finite number, but is one in float32.
        flips: the images whose class differs; empty for those of all tasks.
    """

    kind: Kind
    task: str
    n: int
    largest: float
    mean: float
    correct: int
    only_fp32: int
    only_reduced: int
    changed: int
    unexplained: int
    broken: int
    flips: tuple[Flip, ...] = ()

    @property
    def correct_reduced(self) -> int:
        """Images that the reduced precision classifies correctly."""
        return self.correct - self.only_fp32 + self.only_reduced

    @property
    def difference(self) -> float:
        """Accuracy in the reduced precision less accuracy in float32, as a fraction."""
        return (self.only_reduced - self.only_fp32) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of ``difference``, had other images been drawn."""
        return paired_interval(self.only_fp32, self.only_reduced, self.n)

    def passes(self, tolerance: float) -> bool:
        """Say whether accuracy may be within a tolerance, chance allowed for, and all are numbers."""
        low, high = self.interval
        return not self.broken and low <= tolerance and high >= -tolerance


def compare(
    kind: Kind,
    task: str,
    exact: NDArray[Any],
    reduced: NDArray[Any],
    labels: NDArray[np.int64],
) -> Comparison:
    """Compare two sets of logits of the same images.

    The class of an image is that of its largest logit, the first of equal ones; an image with a logit
    that is not finite has none and is never right.

    Args:
        kind: which weights.
        task: whose images and head.
        exact: logits in float32, ``(n, C)``.
        reduced: logits in the reduced precision, ``(n, C)``.
        labels: true classes, ``(n,)``.
    """
    if exact.shape != reduced.shape or exact.shape[:1] != labels.shape or not len(labels):
        raise ValueError(
            f"logits of shapes {exact.shape} and {reduced.shape} and {len(labels)} labels do not "
            "belong to the same images"
        )
    # In float64 the difference of two float32 numbers of like size is exact.
    first, second = exact.astype(np.float64), reduced.astype(np.float64)
    before, after = _classes(first), _classes(second)
    both = (before >= 0) & (after >= 0)
    moved = np.abs(np.where(both[:, None], second, 0.0) - np.where(both[:, None], first, 0.0))
    right, right_after = before == labels, after == labels
    flips = tuple(
        Flip(
            image=int(image),
            before=int(before[image]),
            after=int(after[image]),
            margin=_margin(first[image]) if before[image] >= 0 else 0.0,
            difference=float(moved[image].max()),
        )
        for image in np.flatnonzero(before != after)
    )
    return Comparison(
        kind=kind,
        task=task,
        n=len(labels),
        largest=float(moved.max()),
        mean=float(moved.mean()),
        correct=int(right.sum()),
        only_fp32=int((right & ~right_after).sum()),
        only_reduced=int((right_after & ~right).sum()),
        changed=len(flips),
        unexplained=sum(not flip.explained for flip in flips),
        broken=int(((before >= 0) & (after < 0)).sum()),
        flips=flips,
    )


def together(parts: Sequence[Comparison]) -> Comparison:
    """Count the images of several tasks together; the weights are of one kind, no image counts twice."""
    n = sum(part.n for part in parts)
    return Comparison(
        kind=parts[0].kind,
        task=TOGETHER,
        n=n,
        largest=max(part.largest for part in parts),
        mean=math.fsum(part.mean * part.n for part in parts) / n,
        correct=sum(part.correct for part in parts),
        only_fp32=sum(part.only_fp32 for part in parts),
        only_reduced=sum(part.only_reduced for part in parts),
        changed=sum(part.changed for part in parts),
        unexplained=sum(part.unexplained for part in parts),
        broken=sum(part.broken for part in parts),
    )


def paired_interval(
    only_first: int, only_second: int, n: int, level: float = _LEVEL
) -> tuple[float, float]:
    """Return the interval of a difference of accuracies, second less first, on the same images.

    The adjusted Wald interval of Bonett and Price (2012): one discordant image of each kind is added.
    It does not shrink to nothing where no image is discordant.

    Args:
        only_first: images that only the first classifies correctly.
        only_second: images that only the second does.
        n: number of images.
        level: coverage.
    """
    z, total = NormalDist().inv_cdf((1 + level) / 2), n + 2
    first, second = (only_first + 1) / total, (only_second + 1) / total
    centre = second - first
    half = z * math.sqrt((first + second - centre * centre) / total)
    return max(-1.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Probe:
    """The merge that is looked at.

    Attributes:
        method: its method.
        subset: name of the merged tasks.
        scale: lambda as text.
        key: key of its weights.
    """

    method: str
    subset: str
    scale: str
    key: str


@dataclass(frozen=True)
class Digests:
    """What was compared.

    Attributes:
        base: digest of the base's state.
        tower: key of the architecture.
        kernel: digest of the code that measures.
        experts: task -> digest of its expert.
        vectors: task -> digest of its task vector.
        heads: task -> digest of its head.
        images: task -> key of its validation images, from which those compared were drawn.
    """

    base: str
    tower: str
    kernel: str
    experts: dict[str, str]
    vectors: dict[str, str]
    heads: dict[str, str]
    images: dict[str, str]

    @classmethod
    def of(cls, setting: Setting) -> Self:
        """Return the digests of a setting, as far as it has experts."""
        tasks = {task: ref for task, ref in setting.tasks.items() if ref.expert is not None}
        return cls(
            base=setting.base,
            tower=setting.tower,
            kernel=setting.kernel,
            experts={task: str(ref.expert) for task, ref in tasks.items()},
            vectors={task: ref.vector for task, ref in tasks.items() if ref.vector is not None},
            heads={task: ref.head for task, ref in tasks.items()},
            images={task: ref.parts["val"].images for task, ref in tasks.items()},
        )


@dataclass(frozen=True)
class Proof:
    """That a reduced precision will do for a base, its experts and their merges.

    Attributes:
        precision: the reduced precision, ``bf16``.
        device: kind of device, ``cpu`` or ``cuda``.
        machine: its name.
        torch: version of torch.
        batch_size: images per forward pass.
        compiled: whether batches of the reduced precision were compiled.
        tolerance: largest difference of accuracies that is allowed, as a fraction.
        digests: what was compared.
        probe: the merge among it; None where the grid has no lambda but zero.
        comparisons: one for each kind of weights and task.
    """

    precision: str
    device: str
    machine: str
    torch: str
    batch_size: int
    compiled: bool
    tolerance: float
    digests: Digests
    probe: Probe | None
    comparisons: tuple[Comparison, ...]
    format: Literal[1] = field(default=1, kw_only=True)

    @cached_property
    def totals(self) -> tuple[Comparison, ...]:
        """Each kind of weights with the images of all tasks together, where there are several."""
        kinds = dict.fromkeys(one.kind for one in self.comparisons)
        groups = [[one for one in self.comparisons if one.kind == kind] for kind in kinds]
        return tuple(together(group) for group in groups if len(group) > 1)

    @property
    def refused(self) -> tuple[Comparison, ...]:
        """What does not pass; a single task before all tasks together."""
        every = (*self.comparisons, *self.totals)
        return tuple(one for one in every if not one.passes(self.tolerance))

    @property
    def passed(self) -> bool:
        """Whether everything passes."""
        return not self.refused

    def insist(self) -> None:
        """Refuse a proof that did not pass.

        Raises:
            ConfigError: names the worst task, both accuracies, and what to do.
        """
        if self.passed:
            return
        worst = max(self.refused, key=lambda one: (one.broken, abs(one.difference)))
        raise ConfigError(_refusal(worst, self.precision, self.tolerance, len(self.refused)))

    def sentence(self) -> str:
        """Say what was found, for a log."""
        images = sum(one.n for one in self.comparisons)
        changed = sum(one.changed for one in self.comparisons)
        largest = max(one.largest for one in self.comparisons)
        accuracy = max(abs(one.difference) for one in self.comparisons)
        return (
            f"{self.precision} on {self.machine}: {changed} of {images} classes differ from fp32, "
            f"largest difference of a logit {largest:.3g}, of an accuracy {100 * accuracy:.2f} points"
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return one table row per comparison, and per kind of weights with all tasks together."""
        return [_row(one, self) for one in (*self.comparisons, *self.totals)]

    def write(self, path: str | Path) -> None:
        """Write the proof as JSON, with what follows from it; equal proofs give equal bytes.

        Raises:
            ArtifactError: if the file system refuses to write.
        """
        stated = {"passed": self.passed, "rows": self.rows()}
        write_json(path, {**_PROOF.dump_python(self, mode="json"), "stated": stated})

    @classmethod
    def read(cls, path: str | Path) -> Proof:
        """Read a proof.

        Raises:
            ArtifactError: if the file is missing or not a proof of this version.
        """
        value = read_json(path)
        try:
            return _PROOF.validate_python(value)
        except ValidationError:
            raise ArtifactError(
                f"{path} is not a proof that this version reads; delete it and run again"
            ) from None


_PROOF = TypeAdapter(Proof)


def admit(path: str | Path | None, setting: Setting, device: str) -> None:
    """Let an evaluation begin: in fp32 always, in less only with a proof of the very same weights.

    Args:
        path: the proof's file; None where there is none.
        setting: what is evaluated.
        device: kind of the device on which it is, ``cpu`` or ``cuda``.

    Raises:
        ArtifactError: if the proof is missing or damaged.
        ConfigError: if there is no proof, or it did not pass.
        LineageError: if it was made of something else or on another kind of device.
    """
    if setting.precision == "fp32":
        return
    if path is None:
        raise ConfigError(
            f"evaluation in {setting.precision} needs a proof that it does what fp32 does; "
            "run the precision rule first"
        )
    proof = Proof.read(path)
    for what, found, wanted in _claims(proof, setting, device):
        if found != wanted:
            raise LineageError(
                f"the proof {path} was made for {what} {found}, but {wanted} is in use; "
                "delete it and run again"
            )
    proof.insist()


def _claims(
    proof: Proof, setting: Setting, device: str
) -> Iterable[tuple[str, str | None, str | None]]:
    proven = proof.digests
    yield "precision", proof.precision, setting.precision
    yield "device", proof.device, device
    yield "base", proven.base, setting.base
    yield "architecture", proven.tower, setting.tower
    yield "code", proven.kernel, setting.kernel
    for task, ref in setting.tasks.items():
        if ref.expert is not None:
            yield f"the expert of task {task!r}:", proven.experts.get(task), ref.expert
            yield f"the head of task {task!r}:", proven.heads.get(task), ref.head


_WEIGHTS: dict[Kind, str] = {
    "base": "the base classifies",
    "experts": "the expert classifies",
    "merge": "the merge of all tasks classifies",
}


def _refusal(worst: Comparison, precision: str, tolerance: float, count: int) -> str:
    where = f"on task {worst.task!r}"
    weights = _WEIGHTS[worst.kind]
    if worst.task == TOGETHER:
        where = "on all tasks together"
        weights = weights.replace("the expert classifies", "the experts classify")
    more = f" (and {count - 1} more)" if count > 1 else ""
    if worst.broken:
        return (
            f"precision {precision} is refused: {where}{more} {weights} {worst.broken} of {worst.n} "
            f"validation images with numbers that are not finite, which they are in fp32; "
            "use evaluation.precision: fp32"
        )
    low, high = worst.interval
    return (
        f"precision {precision} is refused: {where}{more} {weights} {_share(worst.correct_reduced, worst.n)} "
        f"of {worst.n} validation images correctly in {precision}, but {_share(worst.correct, worst.n)} "
        f"in fp32 (between {100 * low:+.2f} and {100 * high:+.2f} points with {_LEVEL:.0%} confidence), "
        f"and {100 * tolerance:.2f} points are allowed; use evaluation.precision: fp32, or raise "
        "evaluation.proof.tolerance"
    )


def _share(correct: int, n: int) -> str:
    return f"{correct / n:.2%}"


def _row(one: Comparison, proof: Proof) -> dict[str, Any]:
    low, high = one.interval
    return {
        "weights": one.kind,
        "task": one.task or "all",
        "n": one.n,
        "fp32_accuracy": one.correct / one.n,
        "accuracy": one.correct_reduced / one.n,
        "difference": one.difference,
        "difference_low": low,
        "difference_high": high,
        "changed": one.changed,
        "unexplained": one.unexplained,
        "largest_logit_difference": one.largest,
        "mean_logit_difference": one.mean,
        "passed": one.passes(proof.tolerance),
    }


def _classes(logits: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the class of each image; -1 where a logit is not finite."""
    found: NDArray[np.int64] = logits.argmax(axis=1).astype(np.int64)
    found[~np.isfinite(logits).all(axis=1)] = -1
    return found


def _margin(logits: NDArray[np.float64]) -> float:
    if len(logits) < 2:
        return 0.0
    second, best = np.partition(logits, -2)[-2:]
    return float(best - second)
