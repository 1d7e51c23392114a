"""Studies run from question to table: on made-up accuracies that follow a law, and on real weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from taskgrid.analysis.selection import select
from taskgrid.evaluation.plan.asking import StudyRef
from taskgrid.evaluation.plan.choices import Chosen
from taskgrid.evaluation.plan.planner import make_plan
from taskgrid.evaluation.plan.rows import sort_rows
from taskgrid.evaluation.plan.runner import run_plan, run_reference
from taskgrid.evaluation.plan.setting import Request, Setting, Split
from taskgrid.models.tower import build_tower
from taskgrid.results import frame_of
from taskgrid.store.outcome import Outcome
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.weights import State
from taskgrid.studies.seam import Brought, Results
from taskgrid.studies.tables import study_table
from tests.unit.example_features import measured
from tests.unit.example_grid import MEAN, STD, World
from tests.unit.example_plans import method

Law = Callable[[Request], float]


@dataclass
class LawBench:
    """Answers with the accuracy that a law gives: the first images are right, the others one class off."""

    law: Law
    asked: list[Request] = field(default_factory=list)

    def open(self) -> LawBench:
        return self

    def evaluate(
        self, requests: Sequence[Request], advance: Callable[[int], None]
    ) -> Iterator[Outcome]:
        for request in requests:
            self.asked.append(request)
            hits = np.arange(request.n) < round(self.law(request) * request.n)
            yield Outcome.of(request.key, hits, 0.5, 0.1, predicted=(~hits).astype(np.int64))
            advance(request.n)


@dataclass(frozen=True)
class Ran:
    """A grid that studies were asked of."""

    grid: pd.DataFrame
    choices: Sequence[Chosen]
    selected: pd.DataFrame
    store: OutcomeStore
    tasks: tuple[str, ...]

    def of(self, label: str) -> list[Chosen]:
        return [chosen for chosen in self.choices if chosen.study == label]

    def measured(self, subset: str, task: str) -> dict[str, int]:
        """Return correct validation images by point."""
        rows = self.grid[(self.grid["subset"] == subset) & (self.grid["task"] == task)]
        merges = rows[(rows["split"] == "val") & ~rows["method"].isin(("zeroshot", "expert"))]
        return dict(zip(merges["point"], merges["correct"], strict=True))

    def results(self, label: str) -> Results:
        # As if the experts had been brought from another base: of one study that is what is asked.
        brought = {"standard": Brought("none")}
        return Results(
            label, self.grid, self.selected, self.store.find, self.tasks, brought=brought
        )

    def table(self, study: str, name: str, options: Mapping[str, Any]) -> pa.Table:
        results = replace(self.results(study), measured=measured(study, name))
        return study_table(study, options, name, results)


def ran(
    folder: Any,
    law: Law,
    ours: Setting,
    studies: Mapping[str, Mapping[str, Any]],
    subsets: Sequence[str],
    lambdas: Sequence[str] = ("0.00", "0.50", "1.00"),
    merger: str = "task_arithmetic",
) -> Ran:
    """Run studies on a law."""
    store, bench = OutcomeStore(folder), LawBench(law)
    refs = [StudyRef(name, name, dict(options)) for name, options in studies.items()]
    plan = make_plan(ours, method(merger), subsets, lambdas, studies=refs)
    result = run_plan(plan, store, bench.open)
    reference = run_reference(ours, store, bench.open).table
    grid = sort_rows(pa.concat_tables([reference, result.table]))
    selected = select(grid, result.choices, store.find)
    return Ran(frame_of(grid), result.choices, frame_of(selected), store, tuple(ours.tasks))


def predictions(state: State, small: World, task: str, split: Split) -> np.ndarray:
    """Return the classes that a state predicts, in float64 and one image at a time."""
    tower = build_tower(small.card).double().eval()
    tower.load_state_dict({name: tensor.double() for name, tensor in state.items()})
    weight = small.tasks[task].head.weight.double().numpy()
    found = []
    for image in small.tasks[task].part(split)[0]:
        channels = [(image[:, :, c] / 255.0 - MEAN[c]) / STD[c] for c in range(3)]
        with torch.no_grad():
            feature = tower(torch.from_numpy(np.stack(channels))[None])[0].numpy()
        found.append(int((weight @ feature).argmax()))
    return np.array(found)


def moved(small: World, by: Mapping[str, float]) -> State:
    """Return theta_0 + sum_t c_t (theta_t - theta_0), in float64."""
    return {
        key: sum(
            (c * (small.experts[task][key].double() - base.double()) for task, c in by.items()),
            base.double(),
        ).float()
        for key, base in small.base.items()
    }


def correct(state: State, small: World, task: str, split: Split) -> int:
    """Return how many images of a task a state gets right."""
    labels = small.tasks[task].part(split)[1]
    return int((predictions(state, small, task, split) == labels).sum())
