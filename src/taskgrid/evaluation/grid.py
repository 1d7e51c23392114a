"""The grid as one call: states, heads and arrays in, a table of rows out; no files, no workflow."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import torch

from taskgrid.evaluation.arguments import (
    check_choices,
    read_device,
    read_named,
    read_names,
    read_points,
    read_subsets,
)
from taskgrid.evaluation.curves.taking import Taker
from taskgrid.evaluation.opening.engines import open_engine
from taskgrid.evaluation.opening.memory import (
    EvaluationTask,
    Held,
    HeldFeatures,
    HeldOutcomes,
    vectors_of,
)
from taskgrid.evaluation.opening.references import read_curves, read_method
from taskgrid.evaluation.plan.asking import StudyRef, check_studies
from taskgrid.evaluation.plan.planner import make_plan
from taskgrid.evaluation.plan.rows import sort_rows, unique_rows
from taskgrid.evaluation.plan.runner import run_plan, run_reference
from taskgrid.evaluation.plan.setting import Evaluation, Split
from taskgrid.lattice.nodes import CurveSpec
from taskgrid.lattice.subsets import parse_subset, subset_name
from taskgrid.machine.meter import OpenTally
from taskgrid.merging.seam import Learned, Statistics
from taskgrid.models.batches import BatchChoice
from taskgrid.models.card import ModelCard
from taskgrid.store.features import FeatureStore
from taskgrid.store.outcome import Outcomes
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.weights import State
from taskgrid.studies.seam import Field
from taskgrid.vectors import TaskVector

__all__ = ["EvaluationTask", "evaluate_grid"]

_LAMBDAS = tuple(step / 10 for step in range(11))


def evaluate_grid(
    base: State,
    card: ModelCard,
    tasks: Mapping[str, EvaluationTask],
    *,
    experts: Mapping[str, State] | None = None,
    vectors: Mapping[str, TaskVector] | None = None,
    methods: Iterable[str] | Mapping[str, Mapping[str, Any]] = ("task_arithmetic",),
    subsets: Iterable[Iterable[str] | str] | None = None,
    lambdas: Iterable[float | str | Mapping[str, float]] = _LAMBDAS,
    studies: Iterable[str] | Mapping[str, Mapping[str, Any]] = ("addition",),
    statistics: Statistics | None = None,
    learned: Mapping[str, Mapping[str, Learned]] | None = None,
    curves_on: Sequence[Split] = ("val",),
    outside: bool = False,
    model: str = "model",
    mode: str = "standard",
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch_size: BatchChoice = "auto",
    precision: str = "fp32",
    compiled: bool = False,
    evaluation: Evaluation = "plain",
    curves: CurveSpec | None = None,
    store: str | Path | None = None,
    progress: OpenTally | None = None,
) -> pd.DataFrame:
    """Evaluate merges of task subsets at every lambda, and the base and the experts beside them.

    Every lambda is measured on validation; test is read for the lambda that each study chooses
    (column ``role`` says ``selected``), unless ``curves_on`` asks for more.

    ``taskgrid.notebook.open_results`` gives base, card, tasks and experts of a finished run.

    Args:
        base: theta_0.
        card: its model card.
        tasks: heads and images of the tasks, by name; those without an expert are controls.
        experts: task -> theta_t. Give these or ``vectors``.
        vectors: task -> tau_t; the expert is then theta_0 + tau_t.
        methods: names of merge methods, or a mapping from names to options.
        subsets: which tasks to merge, as lists of tasks or as names (``a+b``); by default every
            non-empty subset of the experts' tasks.
        lambdas: scaling coefficients; a mapping has one for each task, and is measured for the subset
            of these tasks alone.
        studies: what is asked of the grid: names, or a mapping from names to options.
        statistics: name -> task -> statistic, for methods that need any; of a statistic of the base,
            name -> statistic.
        learned: merge method -> name of a subset -> coefficients that it learned for it.
        curves_on: splits on which every lambda is measured; ``val`` must be one of them.
        outside: measure chosen points on the tasks outside their subset, too.
        model: name for the table.
        mode: name for the table.
        seed: seed for the table and for methods that draw.
        device: where to compute.
        batch_size: images per forward pass; ``auto`` takes what fits (a constant on a CPU).
        precision: ``fp32``, or ``bf16`` for an encoder under autocast; nothing is proven of it here, see
            ``evaluation.proving``. Tangent models are measured in ``fp32`` alone.
        compiled: whether whole batches pass through ``torch.compile``; tangent models never do.
        evaluation: ``tangent`` measures experts and merges as tangent models at theta_0.
        curves: how sweeps over lambda are interpolated; None measures every point. Columns
            ``interpolated`` and ``bound`` tell what was interpolated, and how good it is.
        store: folder of an outcome store; what is found there is not measured again.
        progress: makes a counter of images from a label and a total, e.g. ``Progress``.

    Returns:
        One row per (grid point, task, split); columns as in ``results/tables/grid.parquet``.

    Raises:
        ConfigError: if a name or an option is unknown, a value cannot be, or there is nothing to merge.
        DeviceError: if there is no such device.
        LineageError: if experts, vectors or heads do not belong to the base.
        DataError: if images are not as the model takes them, or do not fit to their labels.
    """
    curved = cast(tuple[Split, ...], read_names("curves_on", curves_on))
    check_choices(
        batch_size=batch_size,
        precision=precision,
        evaluation=evaluation,
        curves_on=curved,
        curves=curves,
    )
    device, (scales, points) = read_device(device), read_points(lambdas)
    held = Held(
        base,
        card,
        dict(tasks),
        vectors_of(base, experts, vectors),
        dict(experts or {}),
        statistics or {},
        learned or {},
    )
    merges = read_subsets(subsets) if subsets is not None else _all_subsets(held.vectors)
    setting = held.setting(model, mode, seed, precision, evaluation)
    outcomes: Outcomes = OutcomeStore(store) if store is not None else HeldOutcomes()
    engine = partial(
        open_engine,
        setting=setting,
        device=device,
        batch_size=batch_size,
        compiled=compiled,
        features=FeatureStore(Path(store, "features")) if store is not None else HeldFeatures(),
    )
    asked = [StudyRef(name, name, dict(own)) for name, own in read_named("studies", studies)]
    known = Field(setting.experts, setting.controls)
    check_studies(asked, known, [{parse_subset(name) for name in merges}])
    spec = read_curves(curves.nodes, curves.tolerance) if curves is not None else None
    # Every request is planned, and so refused where it has to be, before the first image is measured.
    plans = [
        make_plan(
            setting,
            read_method(name, options, seed, learned=held.learned_digests(name)),
            merges,
            scales,
            points=points,
            studies=asked,
            curves_on=curved,
            outside=outside,
            curves=spec,
        )
        for name, options in read_named("methods", methods)
    ]
    bare = partial(engine, held.material())
    tables = [run_reference(setting, outcomes, bare, progress).table]
    for plan in plans:
        take = Taker(plan) if plan.curves is not None else None
        opened = partial(engine, held.material(plan.method.name), method=plan.method)
        tables.append(run_plan(plan, outcomes, opened, progress, take=take).table)
    frame: pd.DataFrame = unique_rows(sort_rows(pa.concat_tables(tables))).to_pandas()
    return frame.astype({"seed": "Int64"})


def _all_subsets(tasks: Iterable[str]) -> tuple[str, ...]:
    names = sorted(tasks)
    return tuple(
        subset_name(subset)
        for size in range(1, len(names) + 1)
        for subset in itertools.combinations(names, size)
    )
