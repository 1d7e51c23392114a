"""The table of exact best lambdas: for every subset of a plan, and for each of its tasks alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from taskgrid.errors import ArtifactError, DataError
from taskgrid.evaluation.plan.planner import Plan
from taskgrid.evaluation.plan.setting import Split
from taskgrid.evaluation.tangent.continuous import (
    Peak,
    StepCurve,
    best_scale,
    right_intervals,
    step_curve,
)
from taskgrid.lattice.points import lambda_value
from taskgrid.lattice.subsets import parse_subset
from taskgrid.provenance.digests import canonical_json
from taskgrid.store.columns import schema_of
from taskgrid.store.outcome import Outcome
from taskgrid.store.tables import read_table

if TYPE_CHECKING:
    from taskgrid.evaluation.tangent.line import LogitLine

CONTINUOUS = schema_of(
    (
        "model",
        "mode",
        "seed",
        "method",
        "options",
        "subset",
        "size",
        "task",
        "scale",
        "low",
        "high",
        "at_edge",
        "val_accuracy",
        "val_normalized",
        "test_accuracy",
        "test_normalized",
    )
)
"""Columns of the table of exact best lambdas.

``task`` is null where lambda is the best one for all tasks of the subset together, by the mean of
their accuracies relative to their experts', and the numbers are means; else it is the best one for
that task alone. ``scale`` is the middle of the plateau from ``low`` to ``high`` on which the number
of right answers on validation does not change. Test is read at the chosen lambda alone.
"""

Find = Callable[[Iterable[str]], Mapping[str, Outcome]]
"""Finds outcomes by row key, e.g. ``OutcomeStore.find``."""


class Lines(Protocol):
    """Knows the logits of a merge as functions of lambda: ``tangent_engine.TangentEngine``."""

    def line(self, subset: Sequence[str], task: str, split: Split) -> LogitLine:
        """Return the logits of the merge of a subset on an image set."""
        ...


def peaks_table(plan: Plan, lines: Lines, find: Find) -> pa.Table:
    """Return the exact best lambdas of a plan's subsets, within the range that the plan sweeps.

    Negative lambdas are left out while there are others, as in the study ``addition``.

    Args:
        plan: the block; its setting measures tangent models.
        lines: the engine that measures them.
        find: where the outcomes of the experts are.

    Raises:
        DataError: if an expert's outcome is not stored.
        ConfigError: if the method does not move on a line.
    """
    subsets = [parse_subset(name) for name in plan.subsets]
    tasks = sorted({task for subset in subsets for task in subset})
    own = _own_counts(plan, tasks, find)
    curves: dict[tuple[tuple[str, ...], str], StepCurve] = {}
    for task in tasks:
        for subset in subsets:
            if task in subset:
                curves[subset, task] = _curve(lines.line(subset, task, "val"))
    rows = [row for subset in subsets for row in _choices(plan, subset, curves, own)]
    for task in tasks:
        for subset in subsets:
            if task in subset:
                curve = _curve(lines.line(subset, task, "test"))
                for row in rows:
                    if row.subset == subset and task in row.tasks:
                        row.tested[task] = int(curve.counts([row.peak.scale])[0])
    columns: dict[str, list[object]] = {name: [] for name in CONTINUOUS.names}
    for row in rows:
        for name, value in _cells(plan, row, own).items():
            columns[name].append(value)
    return pa.table(columns, schema=CONTINUOUS)


def collect_peaks(paths: Sequence[str | Path]) -> pa.Table:
    """Read the tables of many blocks into one, in an order that does not depend on theirs.

    Raises:
        ArtifactError: if a file is missing, damaged, or has other columns.
    """
    tables = [pa.table({name: [] for name in CONTINUOUS.names}, schema=CONTINUOUS)]
    for path in paths:
        table = read_table(path)
        if table.schema != CONTINUOUS:
            raise ArtifactError(
                f"{path} has other columns than a table of best lambdas; delete it and run again"
            )
        tables.append(table)
    order = ("model", "mode", "seed", "method", "options", "size", "subset", "task")
    return (
        pa.concat_tables(tables).sort_by([(name, "ascending") for name in order]).cast(CONTINUOUS)
    )


@dataclass(frozen=True)
class _Row:
    subset: tuple[str, ...]
    tasks: tuple[str, ...]
    alone: bool
    peak: Peak
    tested: dict[str, int]


def _choices(
    plan: Plan,
    subset: tuple[str, ...],
    curves: Mapping[tuple[tuple[str, ...], str], StepCurve],
    own: Mapping[tuple[str, Split], int],
) -> Iterable[_Row]:
    low, high = _range(plan.lambdas)
    for tasks, alone in [(subset, False), *(((task,), True) for task in subset)]:
        defined = [task for task in tasks if own[task, "val"]]
        # As in the study: a task whose expert gets nothing right has no normalised accuracy.
        over = {task: own[task, "val"] if defined else _size(plan, task, "val") for task in tasks}
        compared = defined or list(tasks)
        peak = best_scale(
            [curves[subset, task] for task in compared],
            [over[task] for task in compared],
            low,
            high,
        )
        everywhere = [int(curves[subset, task].counts([peak.scale])[0]) for task in tasks]
        whole = Peak(peak.scale, peak.low, peak.high, tuple(everywhere), peak.at_edge)
        yield _Row(subset, tasks, alone, whole, {})


def _cells(plan: Plan, row: _Row, own: Mapping[tuple[str, Split], int]) -> dict[str, object]:
    setting = plan.setting
    right: dict[Split, list[int]] = {
        "val": list(row.peak.counts),
        "test": [row.tested[task] for task in row.tasks],
    }
    cells: dict[str, object] = {
        "model": setting.model,
        "mode": setting.mode,
        "seed": setting.seed,
        "method": plan.method.name,
        "options": canonical_json(plan.method.options),
        "subset": "+".join(row.subset),
        "size": len(row.subset),
        "task": row.tasks[0] if row.alone else None,
        "scale": row.peak.scale,
        "low": row.peak.low,
        "high": row.peak.high,
        "at_edge": row.peak.at_edge,
    }
    for split, counts in right.items():
        pairs = list(zip(row.tasks, counts, strict=True))
        shares = [count / _size(plan, task, split) for task, count in pairs]
        ratios = [count / own[task, split] for task, count in pairs if own[task, split]]
        cells[f"{split}_accuracy"] = float(np.mean(shares))
        cells[f"{split}_normalized"] = float(np.mean(ratios)) if ratios else None
    return cells


def _curve(line: LogitLine) -> StepCurve:
    return step_curve(
        right_intervals(
            line.start.cpu().numpy(), line.slope.cpu().numpy(), line.labels.cpu().numpy()
        )
    )


def _own_counts(plan: Plan, tasks: Sequence[str], find: Find) -> dict[tuple[str, Split], int]:
    splits: tuple[Split, ...] = ("val", "test")
    wanted = {
        (task, split): plan.setting.expert(task, task, split).key
        for task in tasks
        for split in splits
    }
    found = find(wanted.values())
    for (task, split), key in wanted.items():
        if key not in found:
            raise DataError(
                f"the {split} outcome of the expert of task {task!r} is not in the store; run the "
                f"reference rule of {plan.setting.model}, {plan.setting.mode} again"
            )
    return {place: found[key].correct for place, key in wanted.items()}


def _size(plan: Plan, task: str, split: Split) -> int:
    return plan.setting.task(task).parts[split].n


def _range(lambdas: Sequence[str]) -> tuple[float, float]:
    values = [lambda_value(text) for text in lambdas]
    kept = [value for value in values if value >= 0] or values
    return min(kept), max(kept)
