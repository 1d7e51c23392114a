"""Plausible result tables for tests of rooms that only read tables: no model is involved.

The shapes and columns are those of the grid, selected, conflicts, history and published tables. Accuracy
follows a simple law: a task vector lifts its own task towards the expert, the others in the merge
push back with the square of lambda.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import pandas as pd

from tests.unit.example_features import Rows, watched

TASKS = ("digits", "glyphs", "signs", "street", "textures", "counting", "shapes", "clutter")
LAMBDAS = tuple(f"{value / 10:.2f}" for value in range(11))
METHODS = ("task_arithmetic", "average")


@dataclass(frozen=True)
class Example:
    """The tables that figures and run records read."""

    grid: pd.DataFrame
    selected: pd.DataFrame
    conflicts: pd.DataFrame
    history: pd.DataFrame
    published: pd.DataFrame
    values: pd.DataFrame
    targets: pd.DataFrame
    quadruples: pd.DataFrame
    compared: pd.DataFrame
    watched: dict[str, pd.DataFrame]
    curves: pd.DataFrame
    paths: pd.DataFrame
    joined: pd.DataFrame

    def tables(self) -> dict[str, pd.DataFrame]:
        return {
            "grid": self.grid,
            "selected": self.selected,
            "conflicts": self.conflicts,
            "history": self.history,
            "published": self.published,
            "shapley/values": self.values,
            "negation/targets": self.targets,
            "analogy/quadruples": self.quadruples,
            "comparison/methods": self.compared,
            **{f"features/{name}": table for name, table in self.watched.items()},
            "transfer/curves": self.curves,
            "barriers/paths": self.paths,
            "barriers/pairs": self.joined,
        }


def task_names(count: int) -> tuple[str, ...]:
    """Return ``count`` task names; beyond eight they are as long as real ones get."""
    extra = tuple(f"benchmark_task_{index:02d}" for index in range(count))
    return (TASKS + extra)[:count]


def example(
    tasks: int = 5,
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = (0, 1),
    models: Sequence[str] = ("small-clip",),
    modes: Sequence[str] = ("standard",),
    subsets: Sequence[Sequence[str]] | None = None,
    lambdas: Sequence[str] = LAMBDAS,
    options: Sequence[str] = ("{}",),
    steps: int = 200,
) -> Example:
    """Return tables of every subset of ``tasks`` tasks (or of ``subsets``)."""
    names = task_names(tasks)
    chosen = subsets if subsets is not None else all_subsets(names)
    grid, selected, conflicts, history, values = [], [], [], [], []
    targets, quadruples, curves, paths = [], [], [], []
    seen: list[Rows] = []
    for model in models:
        truth = _Truth(names, model)
        grid += truth.zeroshot()
        for mode, seed in itertools.product(modes, seeds):
            grid += truth.experts(mode, seed)
            conflicts += truth.conflicts(mode, seed)
            history += truth.histories(mode, seed, steps)
            seen.append(watched(names, model, mode, seed, methods, options))
            curves += truth.curves(seed) if mode == modes[0] else []
            for method, option, subset in itertools.product(methods, options, chosen):
                swept = lambdas if method != "average" else lambdas[len(lambdas) // 2 :]
                rows = truth.merged(mode, seed, method, option, tuple(sorted(subset)), swept)
                grid += rows
                selected.append(_select(rows, truth))
            for method, option in itertools.product(methods, options):
                values += truth.values(mode, seed, method, option)
                targets += truth.negations(mode, seed, method, option)
                quadruples += truth.analogies(mode, seed, method, option)
                joined = [sorted(subset) for subset in chosen if len(subset) == 2]
                paths += truth.paths(mode, seed, method, option, joined)
    published = _published(pd.DataFrame(grid), pd.DataFrame(selected))
    tables = map(pd.DataFrame, (grid, selected, conflicts, history))
    compared = _compared(pd.DataFrame(selected))
    inside = {name: pd.DataFrame([row for one in seen for row in one[name]]) for name in seen[0]}
    highest = [{**row, "barrier": row["excess"]} for row in paths if row["t"] == 0.5]
    own = map(pd.DataFrame, (values, targets, quadruples, compared))
    aligned = map(pd.DataFrame, (curves, paths, highest))
    return Example(*tables, published, *own, inside, *aligned)


def interpolated(given: Example, every: int = 3, bound: float = 0.01) -> Example:
    """Return the tables with two of ``every`` three lambdas interpolated, but for chosen points."""
    grid = given.grid
    order = {text: place for place, text in enumerate(sorted(grid["point"].unique()))}
    on = ["model", "mode", "seed", "method", "options", "subset", "point"]
    marked = grid.merge(given.selected[on].assign(chosen=True), on=on, how="left")
    between = (
        ~grid["method"].isin(("zeroshot", "expert"))
        & (grid["point"].map(order) % every != 0)
        & marked["chosen"].isna().to_numpy()
    )
    return replace(
        given, grid=grid.assign(interpolated=between, bound=np.where(between, bound, np.nan))
    )


def all_subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    return [
        subset
        for size in range(1, len(names) + 1)
        for subset in itertools.combinations(sorted(names), size)
    ]


class _Truth:
    def __init__(self, names: tuple[str, ...], model: str) -> None:
        self.names = names
        self.model = model
        random = np.random.default_rng([len(names), len(model)])
        self.zero = dict(zip(names, random.uniform(0.15, 0.6, len(names)), strict=True))
        self.expert = dict(zip(names, random.uniform(0.86, 0.985, len(names)), strict=True))
        self.clash = random.uniform(0.02, 0.12, (len(names), len(names)))
        self.clash = (self.clash + self.clash.T) / 2

    def zeroshot(self) -> list[dict[str, object]]:
        return [
            self._row(None, None, "zeroshot", "{}", (), "0.00", task, split, self.zero[task])
            for task in self.names
            for split in ("val", "test")
        ]

    def experts(self, mode: str, seed: int) -> list[dict[str, object]]:
        rows = []
        for expert, task, split in itertools.product(self.names, self.names, ("val", "test")):
            accuracy = self._expert(task, seed, split)
            if expert != task:
                accuracy = max(0.05, self.zero[task] - 0.8 * self._clash(expert, task))
            rows.append(
                self._row(mode, seed, "expert", "{}", (expert,), "1.00", task, split, accuracy)
            )
        return rows

    def merged(
        self,
        mode: str,
        seed: int,
        method: str,
        options: str,
        subset: tuple[str, ...],
        lambdas: Sequence[str],
    ) -> list[dict[str, object]]:
        rows = []
        for text, task, split in itertools.product(lambdas, self.names, ("val", "test")):
            scale = float(text) / (len(subset) if method == "average" else 1)
            own = 1 - (1 - min(scale, 1.2)) ** 3 if task in subset else 0.0
            cost = sum(self._clash(other, task) for other in subset if other != task)
            accuracy = self.zero[task] + own * (self._expert(task, seed, split) - self.zero[task])
            accuracy = float(np.clip(accuracy - cost * scale**2 * 1.8, 0.05, 0.999))
            rows.append(self._row(mode, seed, method, options, subset, text, task, split, accuracy))
        return rows

    def values(self, mode: str, seed: int, method: str, options: str) -> list[dict[str, object]]:
        gains = {
            task: (self._expert(task, seed, "test") - self.zero[task]) / len(self.names)
            for task in self.names
        }
        kept = 0.7 if method == "average" else 0.85
        return [
            {
                "model": self.model,
                "mode": mode,
                "seed": seed,
                "method": method,
                "options": options,
                "task": task,
                "value": kept * gain,
                "share": gain / sum(gains.values()),
                "low": kept * gain - 0.006,
                "high": kept * gain + 0.006,
                "level": 0.95,
                "alone": gain,
            }
            for task, gain in gains.items()
        ]

    def negations(self, mode: str, seed: int, method: str, options: str) -> list[dict[str, object]]:
        left = 0.45 if method == "average" else 0.3
        return [
            {
                **{"model": self.model, "mode": mode, "seed": seed},
                **{"method": method, "options": options, "task": task},
                **{"point": "-0.50", "scale": -0.5, "at_edge": False, "n": 400},
                # Of the third task nothing is forgotten without harm.
                "met": place != 2,
                "zeroshot": self.zero[task],
                "accuracy": (left + 0.02 * seed) * self.zero[task],
                "drop": (1 - left - 0.02 * seed) * self.zero[task],
                "low": (1 - left - 0.02 * seed) * self.zero[task] - 0.03,
                "high": (1 - left - 0.02 * seed) * self.zero[task] + 0.03,
                "level": 0.95,
                "flips": 200,
                "control": "catalogue",
                "control_n": 800,
                "control_zeroshot": 0.62,
                "control_accuracy": 0.6 if place != 2 else 0.5,
                "keep": 0.95,
                "control_kept": 0.6 / 0.62 if place != 2 else 0.5 / 0.62,
                "control_flips": 90,
            }
            for place, task in enumerate(self.names)
        ]

    def analogies(self, mode: str, seed: int, method: str, options: str) -> list[dict[str, object]]:
        square = (*self.names, *TASKS[::-1])[:4]
        turned = [square[turn:] + square[:turn] for turn in range(min(4, len(self.names)))]
        return [
            {
                **{"model": self.model, "mode": mode, "seed": seed},
                **{"method": method, "options": options},
                **dict(zip(("a", "b", "c", "task"), tasks, strict=True)),
                **{"point": "0.50", "x": 0.5, "met": place != 1, "at_edge": False, "n": 400},
                "zeroshot": 0.4 + 0.05 * place,
                "accuracy": (0.6 if place != 1 else 0.42) + 0.01 * seed,
                "gain": (0.6 if place != 1 else 0.42) + 0.01 * seed - 0.4 - 0.05 * place,
                "low": (0.6 if place != 1 else 0.42) + 0.01 * seed - 0.44 - 0.05 * place,
                "high": (0.6 if place != 1 else 0.42) + 0.01 * seed - 0.36 - 0.05 * place,
                "level": 0.95,
                "flips": 150,
                "others": 0.5 + 0.02 * place,
                # The fourth one has no expert.
                "expert": None if place == 3 else 0.9,
            }
            for place, tasks in enumerate(turned)
        ]

    def curves(self, seed: int) -> list[dict[str, object]]:
        zero, own = (np.mean(list(each.values())) for each in (self.zero, self.expert))
        gains = {("none", None): -0.1, ("rebasin", None): 0.1}
        for place, images in enumerate((1, 4, 16, 64)):
            gains["orthogonal", images] = 0.1 + 0.12 * place
            gains["few_shot", images] = 0.02 + 0.2 * place
        return [
            {
                **{"model": self.model, "seed": seed, "aligner": aligner, "options": "{}"},
                **{"images": images, "repeats": 3, "coefficient": coefficient},
                "accuracy": zero + share * (own - zero) + 0.01 * seed,
                "accuracy_low": zero + share * (own - zero) + 0.01 * seed - 0.02,
                "accuracy_high": zero + share * (own - zero) + 0.01 * seed + 0.03,
                "zeroshot": zero,
                "ceiling": own,
            }
            for (aligner, images), gain in gains.items()
            for coefficient, share in (("one", gain), ("chosen", max(gain, 0.0) + 0.05))
        ]

    def paths(
        self, mode: str, seed: int, method: str, options: str, pairs: Sequence[Sequence[str]]
    ) -> list[dict[str, object]]:
        bent = 0.6 if method == "average" else 2.0
        return [
            {
                **{"model": self.model, "mode": mode, "seed": seed},
                **{"method": method, "options": options, "subset": f"{a}+{b}", "t": t},
                "excess": (bent * self._clash(a, b) - 0.05) * 4 * t * (1 - t) + 0.002 * seed,
                "low": (bent * self._clash(a, b) - 0.05) * 4 * t * (1 - t) - 0.02,
                "high": (bent * self._clash(a, b) - 0.05) * 4 * t * (1 - t) + 0.02,
            }
            for a, b in pairs
            for t in (0.0, 0.25, 0.5, 0.75, 1.0)
        ]

    def conflicts(self, mode: str, seed: int) -> list[dict[str, object]]:
        rows = []
        pairs = itertools.combinations_with_replacement(sorted(self.names), 2)
        for (a, b), (depth, layer) in itertools.product(pairs, enumerate((*LAYERS, "all"))):
            whole = layer == "all"
            near = self._clash(a, b) * (1.5 + 0.05 * seed) - 0.04
            cosine = 1.0 if a == b else near * (1.0 if whole else 0.4 + 0.2 * depth)
            matrices = layer != "embedding"
            rows.append(
                {
                    **{"model": self.model, "mode": mode, "seed": seed, "task_a": a, "task_b": b},
                    **{"layer": layer, "depth": None if whole else depth},
                    "gram": 0.2 * cosine,
                    "cosine": cosine,
                    "sign_agreement": 0.5 + cosine / 2,
                    "overlap": (1.0 if a == b else 0.2 + 2 * abs(cosine)) if matrices else None,
                    "rank": 16 if matrices else None,
                    "norm_ratio": 1.0 if a == b else 0.7 + 5 * self._clash(a, b),
                }
            )
        return rows

    def histories(self, mode: str, seed: int, steps: int) -> list[dict[str, object]]:
        rows = []
        every = max(steps // 10, 1)
        for index, task in enumerate(self.names):
            random = np.random.default_rng([index, seed])
            for step in range(1, steps + 1):
                done = step / steps
                loss = 2.2 * np.exp(-4 * done) + 0.25 + random.gamma(2, 0.06)
                rate = 1e-3 * min(step / (0.1 * steps), 0.5 * (1 + np.cos(np.pi * done)))
                measured = {"train/loss": loss, "train/lr": rate}
                if step % every == 0 or step == 1:
                    gain = 1 - np.exp(-5 * done)
                    lift = gain * (self.expert[task] - self.zero[task])
                    measured["val/accuracy"] = self.zero[task] + lift
                rows += [
                    {
                        "model": self.model,
                        "mode": mode,
                        "seed": seed,
                        "task": task,
                        "step": step,
                        "metric": metric,
                        "value": float(value),
                    }
                    for metric, value in measured.items()
                ]
        return rows

    def _expert(self, task: str, seed: int, split: str) -> float:
        return self.expert[task] - 0.004 * seed - (0.003 if split == "test" else 0.0)

    def _clash(self, a: str, b: str) -> float:
        return float(self.clash[self.names.index(a), self.names.index(b)])

    def _row(
        self,
        mode: str | None,
        seed: int | None,
        method: str,
        options: str,
        subset: tuple[str, ...],
        text: str,
        task: str,
        split: str,
        accuracy: float,
    ) -> dict[str, object]:
        n = 400 if split == "test" else 200
        correct = round(accuracy * n)
        ceiling = round(self._expert(task, seed or 0, split) * n) / n
        return {
            "model": self.model,
            "mode": mode,
            "seed": seed,
            "method": method,
            "options": options,
            "subset": "+".join(subset),
            "size": len(subset),
            "point": text,
            "scale": float(text),
            "task": task,
            "in_subset": task in subset,
            "split": split,
            "role": "reference" if method in ("zeroshot", "expert") else "selection",
            "n": n,
            "correct": correct,
            "accuracy": correct / n,
            "accuracy_low": max(correct / n - 0.03, 0.0),
            "accuracy_high": min(correct / n + 0.03, 1.0),
            "normalized_accuracy": None if mode is None else correct / n / ceiling,
            "nll": float(-np.log(max(correct / n, 0.05))),
            "ece": 0.05,
            "key": f"{mode}-{seed}-{method}-{options}-{'+'.join(subset)}-{text}-{task}-{split}",
            "interpolated": False,
            "bound": None,
            "transductive": False,
        }


LAYERS = ("embedding", *(f"block {number}" for number in range(4)), "output")
"""Layers of the tower, from pixels to features."""

LINEAGES = {"paper": (-0.02, 0.01), "tall_masks": (0.004,)}
"""Lineages of published numbers, and by how much the numbers of their sources are off."""


def _published(grid: pd.DataFrame, selected: pd.DataFrame) -> pd.DataFrame:
    """Return numbers beside zero-shot, the experts and the largest merge of each run."""
    test = grid[grid["split"] == "test"]
    reference = test["method"].isin(("zeroshot", "expert"))
    own = (test["method"] == "zeroshot") | (test["subset"] == test["task"])
    largest = selected[selected["size"] == selected["size"].max()]
    on = ["model", "mode", "seed", "method", "options", "subset", "point"]
    merged = test[test["in_subset"]].merge(largest[on], on=on)
    tasks = pd.concat([test[reference & own], merged], ignore_index=True)
    tasks = tasks.assign(run=tasks["accuracy"], run_low=tasks["accuracy"] - 0.03)
    names = "+".join(sorted(tasks["task"].unique()))
    tasks.loc[tasks["method"].isin(("zeroshot", "expert")), "subset"] = names
    by = ["model", "mode", "seed", "method", "options", "subset"]
    means = tasks.groupby(by, as_index=False, dropna=False)[["run", "run_low"]].mean()
    both = pd.concat([tasks, means.assign(task="average", split="test")], ignore_index=True)
    first = sorted(tasks["task"].unique())[0]
    same = ["model", "mode", "method", "options", "subset", "task"]
    printed = both.groupby(same, dropna=False)["run"].transform("first")
    parts = [
        both.assign(
            lineage=lineage,
            source=f"table {place}",
            metric="accuracy",
            lambda_rule=np.where(both["method"].isin(("zeroshot", "expert")), "", "val"),
            run_high=both["run"] + 0.03,
            published=printed + off,
            problem=(both["method"] == "zeroshot") & (both["task"] == first) & (place == 0),
            note="",
        )
        for lineage, offs in LINEAGES.items()
        for place, off in enumerate(offs)
    ]
    return pd.concat(parts, ignore_index=True)


def _select(rows: list[dict[str, object]], truth: _Truth) -> dict[str, object]:
    first = rows[0]
    points = sorted({str(row["point"]) for row in rows})
    inside = [row for row in rows if row["in_subset"]]

    def mean(column: str, split: str, point: str) -> float:
        at = (row for row in inside if row["point"] == point and row["split"] == split)
        return fmean(row[column] for row in at)  # type: ignore[misc]

    best = max(points, key=lambda point: mean("normalized_accuracy", "val", point))
    accuracy, normalized = (
        mean(name, "test", best) for name in ("accuracy", "normalized_accuracy")
    )
    return {
        **{name: first[name] for name in ("model", "mode", "seed", "method", "options")},
        "subset": first["subset"],
        "size": first["size"],
        "study": "addition",
        "rule": "first maximum of mean normalised accuracy on val",
        "about": "",
        "point": best,
        "scale": float(best),
        "val_accuracy": mean("accuracy", "val", best),
        "val_normalized": mean("normalized_accuracy", "val", best),
        "test_accuracy": accuracy,
        "test_normalized": normalized,
        "test_accuracy_low": accuracy - 0.015,
        "test_accuracy_high": accuracy + 0.015,
        "test_normalized_low": normalized - 0.017,
        "test_normalized_high": normalized + 0.017,
        "tasks": first["subset"],
        "at_edge": best in (points[0], points[-1]),
        "met": True,
    }


def _compared(selected: pd.DataFrame) -> list[dict[str, object]]:
    """Methods on the largest subset; what each sees, keeps and costs follows from its place."""
    largest = selected[selected["size"] == selected["size"].max()]
    rows = []
    for at, (_, row) in enumerate(largest.iterrows()):
        ends = ("", "_low", "_high")
        rows.append(
            {
                **{
                    name: row[name]
                    for name in ("model", "mode", "seed", "method", "options", "point")
                },
                **{f"accuracy{end}": row[f"test_accuracy{end}"] for end in ends},
                "tied": at % 3 == 0,
                "gives": "per_task" if at % 5 == 4 else "model",
                "sees": ("nothing", "images", "labels")[at % 3],
                "transductive": at % 7 == 6,
                "prepare_seconds": 0.01 * 3**at if at % 4 != 3 else float("nan"),
                "storage_mb": 4.1 if at % 5 == 4 else 0.0,
            }
        )
    return rows
