"""A little world of tangent models: logits affine in the coefficients, and their grid by brute force."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from taskgrid.evaluation.tangent.line import LogitLine

MODEL, MODE, SEED = "small-clip", "linear", 0
OPTIONS = '{"normalize":false,"weights":null}'
LAMBDAS = ("0.00", "0.25", "0.50", "0.75", "1.00")


@dataclass(frozen=True)
class Images:
    """Logits of a task's images at theta_0, their derivatives by each coefficient, true classes."""

    start: np.ndarray
    slopes: np.ndarray
    labels: np.ndarray

    def right(self, point: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return which images are right at some coefficients: of equal logits the first class wins."""
        logits = self.start + self.slopes @ np.asarray(point, dtype=np.float64)
        return (logits.argmax(axis=1) == self.labels) & ~np.isnan(logits).any(axis=1)


@dataclass(frozen=True)
class Affine:
    """Images of some tasks, each of which has a vector; an engine's ``Lines``."""

    images: Mapping[str, Images]

    @property
    def tasks(self) -> list[str]:
        return sorted(self.images)

    def line(self, subset: Sequence[str], task: str, split: str) -> LogitLine:
        assert split == "val", "a person who drags a coefficient about may see no test image"
        (moving,) = subset
        own = self.images[task]
        slope = torch.from_numpy(own.slopes[:, :, self.tasks.index(moving)])
        length = torch.ones(3, len(own.labels), dtype=torch.float64)
        return LogitLine(torch.from_numpy(own.start), slope, length, torch.from_numpy(own.labels))

    def correct(self, task: str, coefficients: Mapping[str, float]) -> int:
        point = [coefficients.get(name, 0.0) for name in self.tasks]
        return int(self.images[task].right(point).sum())

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the grid of all subsets on validation, and what is chosen: the largest mean count."""
        rows = [self._row("zeroshot", "", "1.00", task, {}) for task in self.tasks]
        rows += [
            self._row("expert", own, "1.00", task, {own: 1.0})
            for own in self.tasks
            for task in self.tasks
        ]
        chosen = []
        for size in range(1, len(self.tasks) + 1):
            for subset in itertools.combinations(self.tasks, size):
                name, sums = "+".join(subset), []
                for point in LAMBDAS:
                    at = dict.fromkeys(subset, float(point))
                    swept = [self._row("task_arithmetic", name, point, task, at) for task in subset]
                    rows += swept
                    sums.append(sum(row["correct"] / row["n"] for row in swept))
                chosen.append(_choice(name, LAMBDAS[int(np.argmax(sums))]))
        return pd.DataFrame(rows), pd.DataFrame(chosen)

    def _row(
        self, method: str, subset: str, point: str, task: str, at: Mapping[str, float]
    ) -> dict[str, Any]:
        key = f"{method}/{subset}/{point}/{task}"
        return {
            "model": MODEL,
            "mode": None if method == "zeroshot" else MODE,
            "seed": None if method == "zeroshot" else SEED,
            "method": method,
            "options": OPTIONS if method == "task_arithmetic" else "{}",
            "subset": subset,
            "point": point,
            "task": task,
            "in_subset": task in subset.split("+"),
            "split": "val",
            "role": "selection",
            "n": len(self.images[task].labels),
            "correct": self.correct(task, at),
            "key": key.encode().hex()[:32],
            "interpolated": False,
            "bound": None,
        }


def affine(
    tasks: int = 3, images: int = 120, classes: int = 6, seed: int = 0, reach: float = 1.0
) -> Affine:
    """Return a world in which each vector pulls its own task's images to their class, others at random."""
    generator, names, found = np.random.default_rng(seed), "abcdefghij"[:tasks], {}
    for at, name in enumerate(names):
        labels = generator.integers(0, classes, images)
        start = generator.normal(size=(images, classes))
        slopes = reach * generator.normal(size=(images, classes, tasks))
        slopes[np.arange(images), labels, at] += 4
        found[name] = Images(start, slopes, labels)
    return Affine(found)


def _choice(subset: str, point: str) -> dict[str, Any]:
    return {
        "model": MODEL,
        "mode": MODE,
        "seed": SEED,
        "method": "task_arithmetic",
        "options": OPTIONS,
        "subset": subset,
        "study": "addition",
        "about": "",
        "tasks": subset,
        "point": point,
        "rule": "first maximum of mean accuracy on val",
        "at_edge": point in (LAMBDAS[0], LAMBDAS[-1]),
        "met": True,
        "test_accuracy_low": None,
        "test_accuracy_high": None,
    }


def settings(tasks: Sequence[str], *, sums: bool = True) -> dict[str, Any]:
    """Return what ``workflow.settings.explorer.page`` says of the world's one method."""
    method = {
        "label": "task_arithmetic",
        "name": "task_arithmetic",
        "options": {"normalize": False, "weights": None},
        "gives": "model",
        "sum": sums,
    }
    return {"tasks": list(tasks), "methods": [method], "files": []}


def held(page: str) -> Any:
    """Return what an explorer's page holds."""
    (data,) = re.findall(r'id="data">([^<]*)<', page)
    return json.loads(gzip.decompress(base64.b64decode(data)))
