"""The grid as one call: states, heads and arrays in, a table of rows out; no files, no workflow."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray

from taskgrid import plugins
from taskgrid.errors import ConfigError, DataError, LineageError
from taskgrid.evaluation.arguments import (
    check_choices,
    read_device,
    read_lambdas,
    read_names,
    read_subsets,
)
from taskgrid.evaluation.curves.tracing import CurveSpec
from taskgrid.evaluation.engine.engine import Engine
from taskgrid.evaluation.engine.material import LabelledImages
from taskgrid.evaluation.opening.references import read_curves, read_method, tower_of
from taskgrid.evaluation.plan import keys
from taskgrid.evaluation.plan.planner import make_plan
from taskgrid.evaluation.plan.rows import sort_rows, unique_rows
from taskgrid.evaluation.plan.runner import Bench, OpenCounter, Store, run_plan, run_reference
from taskgrid.evaluation.plan.setting import SPLITS, Evaluation, Part, Setting, Split, TaskRef
from taskgrid.evaluation.tangent.engine import Features, TangentEngine
from taskgrid.lattice.subsets import subset_name
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.models.batches import BatchChoice
from taskgrid.models.card import ModelCard
from taskgrid.models.heads import Head, check_head
from taskgrid.provenance.digests import digest, digest_bytes
from taskgrid.store.features import FeatureStore
from taskgrid.store.outcomes import Outcome, OutcomeStore
from taskgrid.store.weights import State, digest_state
from taskgrid.studies.seam import Study
from taskgrid.vectors import TaskVector, subtract

_LAMBDAS = tuple(step / 10 for step in range(11))

Examples = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images ``(n, S, S, 3)`` uint8 at the model's size, and their labels ``(n,)``."""


@dataclass(frozen=True)
class EvaluationTask:
    """A task to evaluate on.

    Attributes:
        head: its zero-shot head.
        val: the images that lambda is chosen on.
        test: the images that the chosen model is measured on.
    """

    head: Head
    val: Examples
    test: Examples

    def part(self, split: Split) -> Examples:
        """Return the images of a split."""
        return self.val if split == "val" else self.test


def evaluate_grid(
    base: State,
    card: ModelCard,
    tasks: Mapping[str, EvaluationTask],
    *,
    experts: Mapping[str, State] | None = None,
    vectors: Mapping[str, TaskVector] | None = None,
    methods: Iterable[str] | Mapping[str, Mapping[str, Any]] = ("task_arithmetic",),
    subsets: Iterable[Iterable[str] | str] | None = None,
    lambdas: Iterable[float | str] = _LAMBDAS,
    studies: Sequence[str] = ("addition",),
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
    progress: OpenCounter | None = None,
) -> pd.DataFrame:
    """Evaluate merges of task subsets at every lambda, and the base and the experts beside them.

    Every lambda is measured on validation; test is read for the lambda that each study chooses
    (column ``role`` says ``selected``), unless ``curves_on`` asks for more.

    Args:
        base: theta_0.
        card: its model card.
        tasks: heads and images of the tasks, by name.
        experts: task -> theta_t. Give these or ``vectors``.
        vectors: task -> tau_t; the expert is then theta_0 + tau_t.
        methods: names of merge methods, or a mapping from names to options.
        subsets: which tasks to merge, as lists of tasks or as names (``a+b``); by default every
            non-empty subset of the experts' tasks.
        lambdas: scaling coefficients.
        studies: what is asked of the grid.
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
        DataError: if images and labels do not fit together.
    """
    curved = cast(tuple[Split, ...], read_names("curves_on", curves_on))
    check_choices(
        batch_size=batch_size,
        precision=precision,
        evaluation=evaluation,
        curves_on=curved,
        curves=curves,
    )
    device, scales, studies = (
        read_device(device),
        read_lambdas(lambdas),
        read_names("studies", studies),
    )
    material = _Memory(
        base, card, dict(tasks), _vectors(base, experts, vectors), dict(experts or {})
    )
    merges = read_subsets(subsets) if subsets is not None else _all_subsets(material.vectors)
    setting = material.setting(model, mode, seed, precision, evaluation)
    outcomes: Store = OutcomeStore(store) if store is not None else _MemoryStore()
    features: Features = (
        FeatureStore(Path(store, "features")) if store is not None else _MemoryFeatures()
    )
    named = (
        methods
        if isinstance(methods, Mapping)
        else {name: {} for name in read_names("methods", methods)}
    )

    def engine(recipe: MergeRecipe | None = None) -> Bench:
        if evaluation == "tangent":
            return TangentEngine(
                material, setting, recipe, device=device, batch_size=batch_size, store=features
            )
        return Engine(
            material,
            recipe,
            device=device,
            batch_size=batch_size,
            precision=precision,
            compiled=compiled,
        )

    spec = read_curves(curves.nodes, curves.tolerance) if curves is not None else None
    # Every request is planned, and so refused where it has to be, before the first image is measured.
    work = []
    for name, options in named.items():
        method = read_method(name, options, seed)
        plan = make_plan(
            setting,
            method,
            merges,
            scales,
            studies=studies,
            curves_on=curved,
            outside=outside,
            curves=spec,
        )
        work.append((plan, MergeRecipe.of(name, options, method.seed)))
    asked: list[Study] = [plugins.load("study", study).STUDY for study in studies]
    tables = [run_reference(setting, outcomes, engine, progress).table]
    for plan, recipe in work:
        tables.append(run_plan(plan, outcomes, partial(engine, recipe), asked, progress).table)
    frame: pd.DataFrame = unique_rows(sort_rows(pa.concat_tables(tables))).to_pandas()
    return frame.astype({"seed": "Int64"})


@dataclass(frozen=True)
class _Memory:
    """Material that is in memory already."""

    theta: State
    card: ModelCard
    tasks: dict[str, EvaluationTask]
    vectors: dict[str, State]
    experts: dict[str, State] = field(default_factory=dict)

    @property
    def vector_count(self) -> int:
        return len(self.vectors)

    def base(self) -> State:
        return self.theta

    def expert(self, task: str) -> State:
        if task in self.experts:
            return self.experts[task]
        return TaskVector(self.vectors[task]).apply_to(self.theta, 1.0)

    def vector(self, task: str) -> State:
        return self.vectors[task]

    def head(self, task: str) -> Head:
        return self.tasks[task].head

    def images(self, task: str, split: Split) -> LabelledImages:
        pixels, labels = self.tasks[task].part(split)
        return LabelledImages(pixels, np.arange(len(labels)), np.asarray(labels, dtype=np.int64))

    def setting(
        self,
        model: str,
        mode: str,
        seed: int,
        precision: str,
        evaluation: Evaluation = "plain",
    ) -> Setting:
        content = digest_state(self.theta)
        if content != self.card.base:
            raise LineageError(
                f"the base given has digest {content}, but its card says {self.card.base}; "
                "use the card of this base"
            )
        unknown = sorted(self.vectors.keys() - self.tasks.keys())
        if unknown:
            raise ConfigError(f"no images and head are given for task {unknown[0]!r}")
        return Setting(
            model=model,
            mode=mode,
            seed=seed,
            base=content,
            tower=tower_of(self.card),
            kernel=keys.kernel_code(),
            precision=precision,
            tasks={task: self._ref(task) for task in sorted(self.tasks)},
            tangent=keys.tangent_code() if evaluation == "tangent" else None,
        )

    def _ref(self, task: str) -> TaskRef:
        head = self.tasks[task].head
        check_head(head, self.card)
        trained = task in self.vectors
        return TaskRef(
            head=digest_state({"weight": head.weight}),
            parts={split: _part(task, split, self.tasks[task].part(split)) for split in SPLITS},
            expert=digest_state(self.expert(task)) if trained else None,
            vector=digest_state(self.vectors[task]) if trained else None,
        )


class _MemoryStore:
    """Outcomes for as long as the call lasts."""

    def __init__(self) -> None:
        self._outcomes: dict[str, Outcome] = {}

    def find(self, keys: Iterable[str]) -> dict[str, Outcome]:
        return {key: self._outcomes[key] for key in keys if key in self._outcomes}

    @contextmanager
    def writer(self) -> Iterator[_MemoryStore]:
        yield self

    def add(self, outcome: Outcome) -> None:
        self._outcomes[outcome.key] = outcome


class _MemoryFeatures:
    """Features for as long as the call lasts."""

    def __init__(self) -> None:
        self._features: dict[str, torch.Tensor] = {}

    def find(self, key: str) -> torch.Tensor | None:
        return self._features.get(key)

    def add(self, key: str, features: torch.Tensor) -> None:
        self._features[key] = features


def _part(task: str, split: Split, examples: Examples) -> Part:
    pixels, labels = examples
    if len(pixels) != len(labels):
        raise DataError(f"task {task!r} has {len(pixels)} {split} images, but {len(labels)} labels")
    content = digest_bytes(
        np.ascontiguousarray(pixels).tobytes() + np.asarray(labels, dtype=np.int64).tobytes()
    )
    return Part(content, digest(list(range(len(labels)))), len(labels))


def _vectors(
    base: State,
    experts: Mapping[str, State] | None,
    vectors: Mapping[str, TaskVector] | None,
) -> dict[str, State]:
    if (experts is None) == (vectors is None):
        raise ConfigError("give experts or vectors, one of the two")
    if experts is not None:
        return {task: subtract(base, state, task) for task, state in experts.items()}
    content = digest_state(base)
    for task, vector in (vectors or {}).items():
        if vector.lineage.get("base", content) != content:
            raise LineageError(
                f"the vector of task {task!r} was made from base {vector.lineage['base']}, "
                f"but the base given has digest {content}; use its own base"
            )
    return {task: vector.deltas for task, vector in (vectors or {}).items()}


def _all_subsets(tasks: Iterable[str]) -> tuple[str, ...]:
    names = sorted(tasks)
    return tuple(
        subset_name(subset)
        for size in range(1, len(names) + 1)
        for subset in itertools.combinations(names, size)
    )
