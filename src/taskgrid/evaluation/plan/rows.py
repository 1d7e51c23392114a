"""Rows: the fact table that every other number is made from, and the file it is kept in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

from taskgrid.errors import ArtifactError
from taskgrid.evaluation.plan.setting import Request, Setting
from taskgrid.lattice.points import point_order, point_scale
from taskgrid.provenance.digests import canonical_json
from taskgrid.store.columns import schema_of
from taskgrid.store.intervals import wilson
from taskgrid.store.outcome import Outcome
from taskgrid.store.tables import read_table

Role = Literal["reference", "selection", "selected", "curve", "lattice"]
"""Why a row was measured: zero-shot or expert; to choose lambda (val); the chosen point (test); a
curve that was read from test and chose nothing; a lattice on a budget, measured and predicted rows."""

GRID = schema_of(
    (
        "model",
        "mode",
        "seed",
        "method",
        "options",
        "subset",
        "size",
        "point",
        "scale",
        "task",
        "in_subset",
        "split",
        "role",
        "n",
        "correct",
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "normalized_accuracy",
        "nll",
        "ece",
        "key",
        "interpolated",
        "bound",
        "transductive",
    )
)
"""Columns of the grid's tables. ``mode`` and ``seed`` are null for zero-shot rows.

``point`` is the coefficients as text, ``scale`` the same as a number where there is a single one. The
interval of ``accuracy`` is Wilson's, of coverage 0.95. ``bound`` limits the error of ``accuracy`` where
the row was interpolated; it is null where it was measured. ``transductive`` rows were merged with
coefficients that were learned from test images.
"""

POINT = ("model", "mode", "seed", "method", "options", "subset")
"""The columns that name a merge, without its point."""

_IDENTITY = (*POINT, "point", "task", "split")


@dataclass(frozen=True)
class PlannedRow:
    """One row before it is written: a request, the method it belongs to, and why it was made."""

    request: Request
    method: str
    options: Mapping[str, object]
    subset: tuple[str, ...]
    point: str
    role: Role
    transductive: bool = False


def grid_table(
    setting: Setting,
    lines: Iterable[PlannedRow],
    outcomes: Mapping[str, Outcome],
    bounds: Mapping[str, float] | None = None,
) -> pa.Table:
    """Return the rows of some lines, in canonical order.

    Args:
        setting: base, mode, seed, tasks.
        lines: what to write.
        outcomes: by the key of the request; those of the tasks' own experts, on the splits of the
            lines, too. That of an interpolated row has a key of its own.
        bounds: bounds on accuracy, by the keys of interpolated rows.
    """
    known = bounds or {}
    columns: dict[str, list[object]] = {name: [] for name in GRID.names}
    for line in lines:
        outcome = outcomes[line.request.key]
        zeroshot = line.method == "zeroshot"
        low, high = wilson(outcome.correct, outcome.n)
        row = (
            setting.model,
            None if zeroshot else setting.mode,
            None if zeroshot else setting.seed,
            line.method,
            canonical_json(dict(line.options)),
            "+".join(line.subset),
            len(line.subset),
            line.point,
            point_scale(line.point),
            line.request.task,
            line.request.task in line.subset,
            line.request.split,
            line.role,
            outcome.n,
            outcome.correct,
            outcome.accuracy,
            float(low),
            float(high),
            None if zeroshot else _normalized(setting, line, outcomes),
            outcome.nll,
            outcome.ece,
            outcome.key,
            outcome.key in known,
            known.get(outcome.key),
            line.transductive,
        )
        for name, value in zip(GRID.names, row, strict=True):
            columns[name].append(value)
    return sort_rows(pa.table(columns, schema=GRID))


def _normalized(
    setting: Setting, line: PlannedRow, outcomes: Mapping[str, Outcome]
) -> float | None:
    task, split = line.request.task, line.request.split
    if setting.task(task).expert is None:
        return None
    own = outcomes[setting.expert(task, task, split).key]
    # correct/correct, not accuracy/accuracy: equal counts then give exactly 1.
    return outcomes[line.request.key].correct / own.correct if own.correct else None


def sort_rows(table: pa.Table) -> pa.Table:
    """Sort rows by grid point, task and split: the same rows give the same table."""
    places = [point_order(text)[0] for text in table["point"].to_pylist()]
    order = [*(name for name in POINT if name != "subset"), "size", "subset", "place", "point"]
    order += ["task", "split"]
    keyed = table.append_column("place", pa.array(places, pa.float64()))
    return keyed.sort_by([(name, "ascending") for name in order]).drop_columns(["place"])


def collect_rows(paths: Sequence[str | Path]) -> pa.Table:
    """Read the rows of many blocks into one table; a row that stands in several is kept once.

    Raises:
        ArtifactError: if a file is missing or damaged, or two files disagree about a row.
    """
    if not paths:
        return pa.table({name: [] for name in GRID.names}, schema=GRID)
    rows = pa.concat_tables([read_rows(path) for path in paths])
    # The words of the columns are today's, whenever a block was evaluated.
    return unique_rows(sort_rows(rows)).cast(GRID)


def unique_rows(table: pa.Table) -> pa.Table:
    """Keep one of each of the rows that stand in a sorted table several times.

    Raises:
        ArtifactError: if two rows of one point, task and split have different keys.
    """
    fresh: list[bool] = []
    previous: dict[str, object] = {}
    for row in table.select([*_IDENTITY, "key"]).to_pylist():
        same = bool(previous) and all(row[name] == previous[name] for name in _IDENTITY)
        if same and row["key"] != previous["key"]:
            raise ArtifactError(
                f"two blocks disagree about {row['method']} {row['subset']} at {row['point']} "
                f"on {row['task']} ({row['split']}): one is out of date; delete results/eval and run "
                "again"
            )
        fresh.append(not same)
        previous = row
    return table.filter(pa.array(fresh, pa.bool_())).combine_chunks()


def read_rows(path: str | Path) -> pa.Table:
    """Read a table of rows.

    Raises:
        ArtifactError: if the file is missing, damaged, or has other columns.
    """
    table = read_table(path)
    if table.schema != GRID:
        raise ArtifactError(
            f"{path} has other columns than a table of rows; delete it and run again"
        )
    return table
