"""The curves of a training, recorded without waiting for the device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from taskgrid.errors import TrainingError
from taskgrid.finetuning.recipe import Recipe
from taskgrid.store.weights import State


class DivergedError(TrainingError):
    """A loss or a gradient is not finite."""


@dataclass(frozen=True)
class History:
    """A training's curves as a long table.

    Attributes:
        rows: ``(step, metric, value)``; ``step`` counts finished updates. Metrics are
            ``train/loss`` (with the mode's penalty), ``train/penalty`` (where there is one),
            ``train/lr``, ``train/grad_norm`` (before clipping; steps 1 to N) and ``val/accuracy``
            (steps 0 to N).
    """

    rows: tuple[tuple[int, str, float], ...]

    def curve(self, metric: str) -> list[tuple[int, float]]:
        """Return ``(step, value)`` of one metric."""
        return [(step, value) for step, name, value in self.rows if name == metric]


class Recorder:
    """Collects curves on the device; looks at them only when asked.

    Args:
        task: task name, for messages.
        recipe: the recipe, which knows the learning rates.
        total: steps in all.
        device: where losses are computed.
    """

    def __init__(self, task: str, recipe: Recipe, total: int, device: torch.device) -> None:
        self._task = task
        self._recipe = recipe
        self._total = total
        self._train = torch.full((total, 2), math.nan, device=device)
        self._penalty = torch.full((total,), math.nan, device=device)
        self._val: list[tuple[int, float]] = []
        self._checked = 0

    def train(
        self,
        step: int,
        loss: torch.Tensor,
        grad_norm: torch.Tensor,
        penalty: torch.Tensor | None = None,
    ) -> None:
        """Record update ``step`` (counted from 0)."""
        self._train[step, 0] = loss
        self._train[step, 1] = grad_norm
        if penalty is not None:
            self._penalty[step] = penalty

    def val(self, step: int, accuracy: float) -> None:
        """Record the validation accuracy after ``step`` updates."""
        self._val.append((step, accuracy))

    def newest(self) -> list[tuple[int, str, float]]:
        """Return the newest rows of the history so far, for people to watch. Waits for the device."""
        rows: list[tuple[int, str, float]] = []
        if step := self._checked:
            rows.append((step, "train/loss", float(self._train[step - 1, 0])))
            rows.append((step, "train/lr", self._recipe.learning_rate(step - 1, self._total)))
        if self._val:
            step, accuracy = self._val[-1]
            rows.append((step, "val/accuracy", accuracy))
        return rows

    def check(self, step: int) -> None:
        """Verify that the first ``step`` updates stayed finite. Waits for the device.

        Raises:
            DivergedError: names the task, the first bad step and its learning rate.
        """
        # What is not finite in a penalty is not finite in the loss.
        fresh = self._train[self._checked : step].cpu()
        bad = (~torch.isfinite(fresh)).any(dim=1).nonzero()
        if len(bad):
            index = int(bad[0])
            at = self._checked + index
            loss, norm = fresh[index].tolist()
            raise DivergedError(
                f"fine-tuning on task {self._task!r} diverged at step {at + 1} of {self._total} "
                f"(loss {loss:g}, gradient norm {norm:g}, learning rate "
                f"{self._recipe.learning_rate(at, self._total):.3g}); lower `lr` or lengthen the warm-up"
            )
        self._checked = step

    def pack(self, step: int) -> State:
        """Return the curves of the first ``step`` updates as tensors."""
        val = torch.tensor(self._val, dtype=torch.float64).reshape(-1, 2)
        penalty = torch.tensor(self._penalties(step), dtype=torch.float64).reshape(-1, 2)
        return {"train": self._train[:step].cpu(), "penalty": penalty, "val": val}

    def restore(self, curves: State) -> None:
        """Put back what ``pack`` took out."""
        done = len(curves["train"])
        self._train[:done] = curves["train"].to(self._train.device)
        for index, value in curves["penalty"].tolist():
            self._penalty[int(index)] = value
        self._val = [(int(step), value) for step, value in curves["val"].tolist()]
        self._checked = done

    def history(self) -> History:
        """Return the whole history, ordered by step."""
        rows: list[tuple[int, str, float]] = []
        for index, (loss, norm) in enumerate(self._train.cpu().tolist()):
            rate = self._recipe.learning_rate(index, self._total)
            rows.append((index + 1, "train/loss", loss))
            rows.append((index + 1, "train/lr", rate))
            rows.append((index + 1, "train/grad_norm", norm))
        rows += [
            (index + 1, "train/penalty", value) for index, value in self._penalties(self._total)
        ]
        rows += [(step, "val/accuracy", value) for step, value in self._val]
        return History(tuple(sorted(rows, key=lambda row: row[0])))

    def _penalties(self, step: int) -> list[tuple[int, float]]:
        """Return ``(index, value)`` of the first ``step`` updates that had a penalty."""
        values = enumerate(self._penalty[:step].tolist())
        return [(index, value) for index, value in values if not math.isnan(value)]
