"""The lattice of a plan on a budget: rows that are measured and rows that are predicted, in one table.

What is measured is stored under the keys of the grid, so the grid finds it again; the logits behind it
are kept beside, so that it is not measured again for the budget either. What is predicted is in the
table alone; its rows say ``interpolated`` and hold a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from taskgrid.errors import ConfigError
from taskgrid.evaluation.budget.anova import core_numbers
from taskgrid.evaluation.budget.book import ImageSet
from taskgrid.evaluation.budget.budget import Prediction, predict_lattice
from taskgrid.evaluation.budget.findings import Report
from taskgrid.evaluation.engine.listening import Listens
from taskgrid.evaluation.plan import keys
from taskgrid.evaluation.plan.planner import Plan
from taskgrid.evaluation.plan.rows import PlannedRow, grid_table, sort_rows
from taskgrid.evaluation.plan.setting import Request, Split
from taskgrid.lattice.budgets import BudgetSpec
from taskgrid.lattice.points import lambda_value
from taskgrid.lattice.subsets import parse_subset, subset_number, subset_of_number
from taskgrid.machine.meter import OpenTally, Silent
from taskgrid.store.outcome import Outcome, Outcomes, Takes


class KeptLogits(Protocol):
    """Where logits are found again: ``store.logits.LogitsStore``, or memory."""

    def find(self, key: str) -> NDArray[np.float32] | None:
        """Return the logits ``(n, C)`` of a key, or None."""
        ...

    def add(self, key: str, logits: NDArray[np.float32]) -> None:
        """Keep logits under a key."""
        ...


@dataclass(frozen=True)
class PredictedGrid:
    """What came of a budget.

    Attributes:
        table: the rows, columns ``rows.GRID``, role ``lattice``.
        reports: what is known about the predictions, by lambda.
    """

    table: pa.Table
    reports: dict[str, Report]


def predict_plan(
    plan: Plan,
    spec: BudgetSpec,
    split: Split,
    bench: Listens,
    store: Outcomes,
    *,
    logits: KeptLogits | None = None,
    progress: OpenTally | None = None,
) -> PredictedGrid:
    """Measure as many merges of a plan as the budget allows, and predict the others.

    Args:
        plan: subsets and lambdas; each lambda has a budget of its own. Curves and studies of the plan
            have no part in it.
        spec: the budget.
        split: which images.
        bench: measures.
        store: where outcomes are kept.
        logits: where logits are kept; None keeps them in memory, to the end of the budget.
        progress: makes a counter of images from a label and a total, which is an upper limit here.

    Raises:
        ConfigError: if a lambda is zero, the budget is too small, or the plan measures tangent models,
            whose whole lattice is exact anyway.
    """
    if plan.setting.tangent is not None:
        raise ConfigError(
            "tangent models need no budget: their whole lattice is exact; leave it out"
        )
    if plan.method.card.gives != "model" or plan.method.card.coefficient != "scale":
        raise ConfigError(
            f"merge method {plan.method.name!r} has no model that lambda moves; leave it out of the budget"
        )
    if any(not lambda_value(scale) for scale in plan.lambdas):
        raise ConfigError("at lambda 0 every merge is the base; give the budget other lambdas")
    tables, reports = [], {}
    images = spec.budget * sum(ref.parts[split].n for ref in plan.setting.tasks.values())
    for scale in plan.lambdas:
        counter = progress(f"lambda {scale}", images) if progress else Silent()
        with counter as count:
            work = _Work(plan, scale, split, bench, store, logits, count.advance)
            found = work.predict(spec)
        tables.append(work.table(found))
        reports[scale] = found.report
    return PredictedGrid(sort_rows(pa.concat_tables(tables)), reports)


class _Work:
    def __init__(
        self,
        plan: Plan,
        scale: str,
        split: Split,
        bench: Listens,
        store: Outcomes,
        logits: KeptLogits | None,
        advance: Callable[[int], None],
    ) -> None:
        self._plan = plan
        self._scale = scale
        self._split: Split = split
        self._bench = bench
        self._store = store
        self._logits = logits
        self._advance = advance
        self._order = plan.setting.experts
        self._outcomes: dict[str, Outcome] = {}

    def predict(self, spec: BudgetSpec) -> Prediction:
        numbers = [
            subset_number(parse_subset(subset), self._order) for subset in self._plan.subsets
        ]
        experts = [self._plan.setting.expert(task, task, self._split) for task in self._order]
        core = [
            self._request(subset_of_number(number, self._order), task)
            for number in core_numbers(len(self._order))
            for task in self._order
        ]
        # All that may be asked for at once: a look into a large store takes its time.
        targets = [
            self._request(subset, task)
            for subset in map(parse_subset, self._plan.subsets)
            for task in (self._order if self._plan.outside else subset)
        ]
        wanted = {request.key for request in (*experts, *core, *targets)}
        self._outcomes |= self._store.find(wanted)
        with self._store.writer() as writer:
            sets = [
                ImageSet(
                    task,
                    self._bench.labels(task, self._split),
                    lambda subset, task=task: self._hear(self._request(subset, task), writer),  # type: ignore[misc]
                )
                for task in self._order
            ]
            found = predict_lattice(self._order, sets, numbers, spec, outside=self._plan.outside)
            for request in experts:
                if request.key not in self._outcomes:
                    self._listen(request, writer)
        return found

    def _hear(self, request: Request, writer: Takes) -> NDArray[np.float32]:
        """Return the logits of a row, from where they are kept or from a pass over its images."""
        if (kept := self._kept(request)) is not None:
            return kept
        logits = self._listen(request, writer).astype(np.float32)
        self._advance(request.n)
        if self._logits is None:
            return logits
        # The key anew: the pass may have halved the batch.
        key = self._key(request)
        self._logits.add(key, logits)
        # As a file, so that memory need not hold it.
        kept = self._logits.find(key)
        return logits if kept is None else kept

    def _kept(self, request: Request) -> NDArray[np.float32] | None:
        """Return logits that are kept and whose row is stored."""
        kept = self._logits.find(self._key(request)) if self._logits is not None else None
        if kept is None or len(kept) != request.n:
            return None
        return kept if request.key in self._outcomes else None

    def _listen(self, request: Request, writer: Takes) -> NDArray[Any]:
        outcome, logits = self._bench.listen(request)
        # Measured elsewhere already: kept as it was.
        if outcome.key not in self._outcomes:
            self._outcomes[outcome.key] = outcome
            writer.add(outcome)
        return logits

    def _key(self, request: Request) -> str:
        return keys.logits_key(row=request.key, machine=self._bench.machine)

    def table(self, found: Prediction) -> pa.Table:
        plan, evaluated = self._plan, self._points(found.evaluated)
        code = keys.budget_code()
        lines, outcomes, bounds = [], dict(self._outcomes), {}
        for row in found.rows:
            request = self._request(row.subset, row.task)
            if not row.exact:
                point = keys.predicted_key(plan.merge_key(row.subset), self._scale, evaluated, code)
                own = plan.setting.request(request.weights, point, row.task, self._split).key
                outcomes[request.key] = Outcome(own, row.n, row.correct, row.nll, row.ece, row.hits)
                bounds[own] = row.bound
            lines.append(
                PlannedRow(
                    request,
                    plan.method.name,
                    plan.method.shown,
                    row.subset,
                    self._scale,
                    "lattice",
                )
            )
        return grid_table(plan.setting, lines, outcomes, bounds)

    def _request(self, subset: tuple[str, ...], task: str) -> Request:
        if not subset:
            return self._plan.setting.zeroshot(task, self._split)
        return self._plan.merged(subset, self._scale, task, self._split)

    def _points(self, evaluated: Sequence[tuple[str, ...]]) -> list[str]:
        return [self._plan.point_key(subset, self._scale, "") for subset in evaluated]
