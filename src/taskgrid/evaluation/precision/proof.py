"""A reduced precision needs a proof: of its experts and their merge, against float32.

A proof collects the comparisons of a set of experts and says whether they pass: a reduced precision
is refused where accuracy moves by more than a tolerance and by more than chance explains. Nothing
here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import TypeAdapter, ValidationError

from taskgrid.errors import ArtifactError, ConfigError, LineageError
from taskgrid.evaluation.plan.setting import Setting
from taskgrid.evaluation.precision.comparison import LEVEL, TOGETHER, Comparison, Kind, together
from taskgrid.store.atomic import read_json, write_json


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
        f"in fp32 (between {100 * low:+.2f} and {100 * high:+.2f} points with {LEVEL:.0%} confidence), "
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
