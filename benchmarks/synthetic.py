"""Results of an experiment that was never run: real files, random hits; see scale.py for what is made up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from taskgrid.config import Experiment
from taskgrid.config.experiment import Run
from taskgrid.data.published.reading import read_description
from taskgrid.evaluation.plan.choices import Chosen, write_choices
from taskgrid.evaluation.plan.rows import GRID, sort_rows
from taskgrid.lattice.blocks import Block
from taskgrid.lattice.points import point_scale
from taskgrid.lattice.subsets import parse_subset
from taskgrid.plugins.cards import shown_options, study_card
from taskgrid.provenance.digests import canonical_json, digest
from taskgrid.store.atomic import write_json
from taskgrid.store.intervals import wilson
from taskgrid.store.outcome import Outcome
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.tables import write_table
from taskgrid.workflow import paths
from taskgrid.workflow.settings import merge, tables

VALIDATION = 64
_CHOSEN = 6
"""Place of the point that every choice falls on."""

Line = tuple[str, str, str, str, str]
"""Subset, point, task, split and role of a row."""


class Synthetic:
    """Writes the results of blocks and runs into a folder.

    Args:
        experiment: of tasks with published data sets.
        folder: where ``results`` is made.
    """

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self.rows = 0
        self._experiment, self._folder = experiment, folder
        self._random = np.random.default_rng(0)
        self._store = OutcomeStore(folder / "results" / "store")
        self._test = {
            task: read_description(experiment.task(task).dataset).counts["test"]
            for task in experiment.tasks
        }
        self._own: dict[tuple[Run, str, str], int] = {}

    def references(self, run: Run) -> None:
        """Write the rows of the base and of all experts of a run."""
        tasks = self._experiment.tasks
        of_base = [
            ("", "0.00", task, split, "reference") for task in tasks for split in ("val", "test")
        ]
        of_experts = [
            (expert, "1.00", task, split, "reference")
            for expert in tasks
            for task in tasks
            for split in ("val", "test")
        ]
        base = self._table(Run(run.model, "", 0), "zeroshot", "{}", of_base)
        # The base is in no mode, and its rows are the same in every run.
        nothing = {
            "mode": pa.nulls(len(of_base), pa.string()),
            "seed": pa.nulls(len(of_base), pa.int64()),
        }
        for name, values in nothing.items():
            base = base.set_column(
                GRID.get_field_index(name), GRID.field(name), values.cast(GRID.field(name).type)
            )
        experts = self._table(run, "expert", "{}", of_experts)
        both = sort_rows(pa.concat_tables([base, experts]).cast(GRID))
        self._write(paths.REFERENCE_ROWS.format(**vars(run)), both)

    def block(self, run: Run, method: str, block: Block) -> None:
        """Write rows, choices and timing of a block."""
        experiment = self._experiment
        name = experiment.method(method).name
        options = canonical_json(shown_options(name, merge.options(experiment, method)))
        subsets, points = experiment.subsets(block), experiment.lambdas(method)
        chosen = points[min(_CHOSEN, len(points) - 1)]
        table = self._table(run, name, options, [*_lines(subsets, points, chosen)])
        at = {**vars(run), "method": method, "block": block.label}
        self._write(paths.BLOCK_ROWS.format(**at), sort_rows(table))
        known = {"study": "addition", "rule": study_card("addition").rule, "about": ""}
        picked = {"point": chosen, "at_edge": False, "met": True}
        write_choices(
            self._folder / paths.BLOCK_CHOICES.format(**at),
            [
                Chosen(
                    **vars(run),
                    method=name,
                    options=options,
                    subset=one,
                    tasks=parse_subset(one),
                    **known,
                    **picked,
                )
                for one in subsets
            ],
        )
        write_json(
            self._folder / paths.BLOCK_TIMING.format(**at),
            {
                "merges": {
                    one: {"started": "2026-01-01T00:00:00+00:00", "seconds": 1.0} for one in subsets
                },
                "subsets": list(subsets),
                "prepared": dict.fromkeys(subsets, 1.0),
            },
        )

    def costs(self) -> None:
        """Write the durations of statistics and of what was learned."""
        for file in tables.cost_files(self._experiment):
            if not (self._folder / file).exists():
                write_json(self._folder / file, {"seconds": 1.0})

    def _table(self, run: Run, method: str, options: str, lines: list[Line]) -> pa.Table:
        """Return rows of random hits, and store their outcomes."""
        outcomes = [self._outcome(run, method + options, line) for line in lines]
        self._store.append(outcomes)
        if method == "expert":
            for (subset, _, task, split, _), outcome in zip(lines, outcomes, strict=True):
                if subset == task:
                    self._own[run, task, split] = outcome.correct
        subset, point, task, split, role = map(list, zip(*lines, strict=True))
        n, correct = (
            np.array([getattr(one, name) for one in outcomes]) for name in ("n", "correct")
        )
        low, high = wilson(correct, n)
        own = [self._own.get((run, line[2], line[3])) for line in lines]
        columns: Mapping[str, Any] = {
            **{name: [value] * len(lines) for name, value in vars(run).items()},
            "method": [method] * len(lines),
            "options": [options] * len(lines),
            "subset": subset,
            "size": [len(parse_subset(one)) for one in subset],
            "point": point,
            "scale": list(map(point_scale, point)),
            "task": task,
            "in_subset": [line[2] in parse_subset(line[0]) for line in lines],
            "split": split,
            "role": role,
            "n": n,
            "correct": correct,
            "accuracy": correct / n,
            "accuracy_low": low,
            "accuracy_high": high,
            "normalized_accuracy": [
                one.correct / expert if expert else None
                for one, expert in zip(outcomes, own, strict=True)
            ],
            "nll": [one.nll for one in outcomes],
            "ece": [one.ece for one in outcomes],
            "key": [one.key for one in outcomes],
            "interpolated": [False] * len(lines),
            "bound": [None] * len(lines),
            "transductive": [False] * len(lines),
        }
        return pa.table(dict(columns), schema=GRID)

    def _outcome(self, run: Run, method: str, line: Line) -> Outcome:
        n = VALIDATION if line[3] == "val" else self._test[line[2]]
        hits = self._random.random(n, dtype=np.float32) < 0.7
        key = digest([*vars(run).values(), method, *line])
        correct, bits = int(np.count_nonzero(hits)), np.packbits(hits).tobytes()
        return Outcome(key, n, correct, 1.0, 0.1, bits, self._random.bytes(n))

    def _write(self, path: str, table: pa.Table) -> None:
        self.rows += table.num_rows
        write_table(self._folder / path, table)


def _lines(subsets: tuple[str, ...], points: tuple[str, ...], chosen: str) -> Iterator[Line]:
    for subset in subsets:
        for task in parse_subset(subset):
            yield from ((subset, point, task, "val", "selection") for point in points)
            yield (subset, chosen, task, "test", "selected")


def synthesise(experiment: Experiment, folder: Path) -> tuple[int, int]:
    """Write the results of a whole experiment.

    Returns:
        How many rows there are, and how many bytes of outcomes.
    """
    made = Synthetic(experiment, folder)
    for run in experiment.runs:
        made.references(run)
        for method in experiment.methods:
            for block in experiment.blocks:
                made.block(run, method, block)
    made.costs()
    store = folder / "results" / "store"
    return made.rows, sum(file.stat().st_size for file in store.iterdir())
