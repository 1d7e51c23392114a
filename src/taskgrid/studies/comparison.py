"""Methods compared on the same merge: which are as good as the best one, and what do they cost.

All entries of a method in the configuration, whatever their options, are one family. Of each the entry
with the largest mean of normalised accuracy on **validation** is chosen, at its own chosen point, as
lambda is chosen among points; of equal ones the first by its options. Its accuracy on test, the mean over
tasks, is then compared with that of the best family of its kind: of those with a single model, or of those
with more. Both saw the same images, so the test is paired (``paired.difference_p_value``), and corrected by
Holm for the families of the kind. A family is tied with the best unless the corrected p is below ``alpha``;
one that is in truth as good as any is then kept with a probability of 1 - alpha or more, although
the best was found on these images. Transductive families are compared, and are never the best.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from taskgrid.errors import ArtifactError, ConfigError, DataError
from taskgrid.lattice.subsets import subset_name
from taskgrid.plugins.cards import Column, MergerCard, StudyCard, TableCard, merger_card
from taskgrid.plugins.options import Option
from taskgrid.provenance.digests import derive_seed
from taskgrid.store.intervals import Pair
from taskgrid.store.outcome import Outcome
from taskgrid.store.paired import (
    difference_p_value,
    holm,
    mean_difference,
    mean_difference_interval,
)
from taskgrid.studies.choosing import best_normalized
from taskgrid.studies.rows import laid_out
from taskgrid.studies.seam import Curves, Field, Reading, Results

CARD = StudyCard(
    title="Merge methods compared",
    paper="Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 1979",
    options={
        "tasks": Option(
            default=None,
            kind="names",
            about="the tasks whose merge is compared; null is all that have an expert",
        ),
        "study": Option(default="addition", about="the study whose chosen points are compared"),
        "alpha": Option(default=0.05, above=0, most=0.5, about="level of the tests"),
        "draws": Option(default=20000, least=100, most=1_000_000, about="draws of a test"),
    },
    tables={
        "methods": TableCard(
            row="a merge method, with the options and the point that validation chose, on the merge of all "
            "tasks; sorted by `accuracy`",
            columns={
                "model": None,
                "mode": None,
                "seed": None,
                "method": None,
                "options": None,
                "entries": Column(
                    kind="integer",
                    about="how many entries of the method, of other options, validation chose from",
                ),
                "point": None,
                "scale": None,
                "at_edge": None,
                "val_normalized": None,
                "accuracy": None,
                "accuracy_low": None,
                "accuracy_high": None,
                "normalized": None,
                "normalized_low": None,
                "normalized_high": None,
                "best": Column(
                    kind="text",
                    about="the method of the largest accuracy among those of its kind (of one model, or of "
                    "more), which the line is compared with",
                ),
                "difference": Column(kind="number", about="`accuracy` minus that of `best`"),
                "difference_low": None,
                "difference_high": None,
                "p": Column(
                    kind="number",
                    about="p-value of no difference from `best`: McNemar's test, stratified by task; null "
                    "for the best itself",
                ),
                "p_holm": Column(kind="number", about="`p`, corrected by Holm for the methods of the kind"),
                "tied": Column(
                    kind="flag", about="whether it is the best of its kind or cannot be told from it"
                ),
                "gives": Column(
                    kind="text",
                    about="one `model`; a model `per_task`; one model and corrections of its `features` per "
                    "task; or `logits` of all experts",
                ),
                "sees": Column(
                    kind="text",
                    about="what the merge itself sees of data: `nothing`, `images` without labels, or "
                    "`labels`; options and point are chosen on labelled validation images in any case",
                ),
                "transductive": None,
                "prepare_seconds": None,
                "bits_per_weight": None,
                "storage_mb": None,
            },
        )
    },
    figures=("methods",),
)  # fmt: skip

_RUN = ("model", "mode", "seed")
_COSTS = ("prepare_seconds", "bits_per_weight", "storage_mb")
_LEVEL = 0.95


class Comparison(Reading):
    """The study ``comparison``: a line per method, from the grid and the stored outcomes."""

    def check(self, field: Field, subsets: Container[tuple[str, ...]]) -> None:
        """Refuse a grid that lacks the merge that is compared."""
        wanted = tuple(sorted(self.options.tasks or field.trained))
        if wanted not in subsets:
            raise ConfigError(
                f"study 'comparison' compares methods on the merge of {subset_name(wanted)}, which is not "
                "on the grid; add it to grid.subsets.include, or name other tasks in its options"
            )

    def table(self, name: str, results: Results) -> pa.Table:
        """Return the table of methods.

        Raises:
            DataError: if nothing was chosen for the merge, or a row is missing.
            ArtifactError: if an outcome behind a row is not stored any more.
        """
        own = results.grid[results.grid["method"] == "expert"]
        subset = subset_name(self.options.tasks or own["subset"].unique())
        chosen = results.selected
        chosen = chosen[(chosen["study"] == self.options.study) & (chosen["subset"] == subset)]
        if chosen.empty:
            raise DataError(
                f"study {self.options.study!r} chose no point for the merge of {subset}; evaluate it, or "
                "name other `tasks` in the options of the study 'comparison'"
            )
        rows: list[dict[str, Any]] = []
        for _, part in chosen.groupby(list(_RUN), sort=True):
            lines = [_family(one, results) for _, one in part.groupby("method", sort=True)]
            rows += self._compared(lines, results)
        return laid_out(CARD.tables[name], rows)

    def _compared(self, lines: Sequence[_Line], results: Results) -> list[dict[str, Any]]:
        found = results.find({key for line in lines for key in line.keys})
        kinds = [
            [line for line in lines if (line.card.gives == "model") is one] for one in (True, False)
        ]
        rows = [row for kind in kinds if kind for row in self._kind(kind, found, results)]
        return sorted(rows, key=lambda row: (-row["accuracy"], row["method"]))

    def _kind(
        self, lines: Sequence[_Line], found: Mapping[str, Outcome], results: Results
    ) -> list[dict[str, Any]]:
        fair = [line for line in lines if not line.transductive] or lines
        best = max(fair, key=lambda line: line.row["test_accuracy"])
        others = [line for line in lines if line is not best]
        pairs = {line.method: _pairs(line, best, found) for line in others}
        tests = [
            difference_p_value(
                pairs[line.method],
                draws=self.options.draws,
                seed=derive_seed("comparison", *line.keys, *best.keys),
            )
            for line in others
        ]
        known = dict(zip(pairs, zip(tests, holm(tests), strict=True), strict=True))
        return [
            {
                **line.cells(),
                **_costs(line, results.costs),
                **_beside_best(pairs.get(line.method)),
                "best": best.method,
                "p": known.get(line.method, (None,))[0],
                "p_holm": known.get(line.method, (None,))[-1],
                "tied": line is best or known[line.method][1] >= self.options.alpha,
            }
            for line in lines
        ]


@dataclass(frozen=True)
class _Line:
    """A family at the entry that validation chose.

    Attributes:
        row: its row in the table of chosen points.
        entries: of how many it was chosen.
        keys: of its rows on test, by task.
        transductive: whether test images took part.
    """

    row: Mapping[str, Any]
    entries: int
    keys: tuple[str, ...]
    transductive: bool

    @property
    def method(self) -> str:
        return str(self.row["method"])

    @property
    def card(self) -> MergerCard:
        return merger_card(self.method)

    def cells(self) -> dict[str, Any]:
        row = self.row
        names = (*_RUN, "method", "options", "point", "scale", "at_edge", "val_normalized")
        ends = ("", "_low", "_high")
        return {
            **{name: row[name] for name in names},
            **{f"accuracy{end}": row[f"test_accuracy{end}"] for end in ends},
            **{f"normalized{end}": row[f"test_normalized{end}"] for end in ends},
            "entries": self.entries,
            "gives": self.card.gives,
            "sees": self.card.sees(json.loads(row["options"])),
            "transductive": self.transductive,
        }


def _family(entries: pd.DataFrame, results: Results) -> _Line:
    """Choose among the entries of a method on validation, as a point is chosen."""
    ordered = entries.sort_values(["options", "about"]).to_dict("records")
    tasks = tuple(str(ordered[0]["tasks"]).split("+"))
    measured = [_at(results.grid, entry, "val") for entry in ordered]
    experts = _at(results.grid, {**ordered[0], "method": "expert", "options": "{}"}, "val", *_RUN)
    curves = Curves(
        subset=tasks,
        points=tuple(str(entry["options"]) for entry in ordered),
        tasks=tasks,
        n=_counts(measured[0], tasks, "n"),
        correct=np.stack([_counts(rows, tasks, "correct") for rows in measured]),
        expert=_counts(experts[experts["subset"] == experts["task"]], tasks, "correct"),
        zeroshot=np.zeros(len(tasks), dtype=np.int64),
    )
    entry = ordered[best_normalized(curves, range(len(ordered)))]
    test = _at(results.grid, entry, "test").set_index("task").loc[list(tasks)]
    named = {str(name): value for name, value in entry.items()}
    return _Line(named, len(ordered), tuple(test["key"]), bool(test["transductive"].any()))


def _at(grid: pd.DataFrame, at: Mapping[Any, Any], split: str, *names: str) -> pd.DataFrame:
    """Return the rows of a point on a split; of some of what names it, where that is said."""
    same = grid["split"] == split
    for name in (*(names or (*_RUN, "subset", "point")), "method", "options"):
        same &= (grid[name] == at[name]).fillna(False).astype(bool)
    return grid[same]


def _counts(rows: pd.DataFrame, tasks: Sequence[str], column: str) -> Any:
    known = dict(zip(rows["task"], rows[column], strict=True))
    lacking = [task for task in tasks if task not in known]
    if lacking:
        raise DataError(
            f"the grid lacks a row on task {lacking[0]!r} behind a chosen point; run the eval rule of its "
            "block again"
        )
    return np.array([known[task] for task in tasks], dtype=np.int64)


def _pairs(line: _Line, best: _Line, found: Mapping[str, Outcome]) -> list[Pair]:
    if lost := [key for key in (*line.keys, *best.keys) if key not in found]:
        raise ArtifactError(
            f"{len(lost)} outcomes behind {line.method} and {best.method} are not in the store any more; "
            "delete their rows under results/eval and run again"
        )
    return [
        Pair.of(found[own].hits(), found[other].hits(), derive_seed("bootstrap", own, other))
        for own, other in zip(line.keys, best.keys, strict=True)
    ]


def _beside_best(pairs: Sequence[Pair] | None) -> dict[str, float | None]:
    if pairs is None:
        return {"difference": 0.0, "difference_low": None, "difference_high": None}
    interval = mean_difference_interval(pairs, level=_LEVEL)
    return {
        "difference": mean_difference(pairs),
        "difference_low": interval.low,
        "difference_high": interval.high,
    }


def _costs(line: _Line, costs: pd.DataFrame | None) -> dict[str, float | None]:
    """Return what a line cost, where that is known."""
    if costs is None:
        return dict.fromkeys(_COSTS)
    same = pd.Series(True, index=costs.index)
    for name in (*_RUN, "method", "options", "subset"):
        same &= (costs[name] == line.row[name]).fillna(False).astype(bool)
    rows = costs.loc[same, [*_COSTS]].dropna(axis="columns", how="all").to_dict("records")
    return {name: rows[0].get(name) if rows else None for name in _COSTS}


STUDY = Comparison
