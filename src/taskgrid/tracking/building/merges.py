"""Records of merges: one per subset with its curve over lambda, one per grid point if that is asked for."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from taskgrid.lattice.points import point_order, read_point
from taskgrid.provenance.digests import digest
from taskgrid.tracking.building.fields import finite, flat, mean, number, percent
from taskgrid.tracking.building.identity import merge_id
from taskgrid.tracking.records import Dataset, Metric, RunRecord

STEPS_PER_UNIT = 1000
"""Steps are whole numbers: lambda 0.3 is step 300."""

MERGE = ("model", "mode", "seed", "method", "options", "subset")
"""Columns that say which merge a row is of."""

_REFERENCES = ("zeroshot", "expert")
_ADDITION = "addition"
_CHOSEN = (
    "test_accuracy",
    "test_accuracy_low",
    "test_accuracy_high",
    "test_normalized",
    "test_normalized_low",
    "test_normalized_high",
    "val_accuracy",
    "val_normalized",
)


def scale_step(scale: float) -> int:
    """Return the step at which a coefficient is logged."""
    return round(scale * STEPS_PER_UNIT)


def subset_records(
    grid: pd.DataFrame,
    selected: pd.DataFrame,
    *,
    parent: str | None = None,
    splits: Mapping[str, str] | None = None,
    spans: Mapping[str, Mapping[str, Any]] | None = None,
    machine: Mapping[str, str | int] | None = None,
    export: str | None = None,
) -> list[RunRecord]:
    """Return a record for every merge (model, mode, seed, method, subset), curves over lambda.

    Args:
        grid: rows of the grid.
        selected: the chosen points.
        parent: ``point_id`` of the grid's record.
        splits: digest of each task's split, to name the data.
        spans: ``started`` and ``seconds`` of the merges that were measured, by subset; the grid must
            then be of one model, mode, seed and method. The others have no duration.
        machine: on what those were measured: batch size, device, version of torch, commit.
        export: the command that writes a point as a file, with ``{model}``, ``{mode}``, ``{seed}``,
            ``{subset}``, ``{point}`` and, of a method with a model for each task, ``{task}`` to fill in.
    """
    chosen = _by_merge(selected)
    return [
        _subset_record(
            merge,
            rows,
            chosen.get(merge, []),
            parent=parent,
            splits=splits or {},
            span=(spans or {}).get(str(merge[5]), {}),
            machine=machine or {},
            export=export,
        )
        for merge, rows in _by_merge(merged_rows(grid)).items()
    ]


def _subset_record(
    merge: tuple[Any, ...],
    rows: Sequence[Mapping[str, Any]],
    choices: Sequence[Mapping[str, Any]],
    *,
    parent: str | None,
    splits: Mapping[str, str],
    span: Mapping[str, Any],
    machine: Mapping[str, str | int],
    export: str | None,
) -> RunRecord:
    named, tasks = _named(merge), str(merge[5]).split("+")
    addition = next((choice for choice in choices if choice["study"] == _ADDITION), None)
    command = _command(export, named, tasks, addition)
    edge = any(choice["at_edge"] for choice in choices)
    return RunRecord(
        point_id=_merge_id(merge),
        kind="subset",
        name=_name(named, tasks),
        parent=parent,
        params={
            **named,
            **_options(merge),
            "merged": str(len(tasks)),
            **_swept(rows, addition),
        },
        metrics=finite(
            [
                Metric("size", len(tasks)),
                *(metric for choice in choices for metric in _choice(choice, rows)),
                *_curves(rows),
            ]
        ),
        tags={
            **{key: value for key, value in named.items() if key != "subset"},
            "kind": "subset",
            "size": str(len(tasks)),
            "tasks": str(merge[5]),
            "study": ",".join(sorted({choice["study"] for choice in choices})),
            "rule": "; ".join(sorted({choice["rule"] for choice in choices})),
            "chosen_at_edge": str(edge).lower(),
            "lineage": digest(sorted(row["key"] for row in rows)),
            **({"export": command} if command else {}),
        },
        datasets=tuple(
            Dataset(task, splits[task], "evaluation") for task in tasks if task in splits
        ),
        note=_note(named, tasks, addition, command),
        started=span.get("started"),
        seconds=span.get("seconds"),
        machine={key: str(value) for key, value in machine.items()} if span else {},
    )


def point_records(grid: pd.DataFrame) -> list[RunRecord]:
    """Return a record for every grid point, its coefficients as parameters, below the record of its subset.

    Args:
        grid: rows of the grid.
    """
    records = []
    for merge, rows in _by_merge(merged_rows(grid)).items():
        named, tasks = _named(merge), str(merge[5]).split("+")
        by_point: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            by_point[row["point"]].append(row)
        for point in sorted(by_point, key=point_order):
            here = by_point[point]
            settings = {**named, **_coefficients(point)}
            records.append(
                RunRecord(
                    point_id=f"{_merge_id(merge)}/{point}",
                    kind="point",
                    name=f"{point} · {_name(named, tasks)}",
                    parent=_merge_id(merge),
                    params={**settings, **_options(merge), "merged": str(len(tasks))},
                    metrics=finite(
                        [
                            Metric("size", len(tasks)),
                            *(Metric(key, value) for key, value in _scores(here)),
                        ]
                    ),
                    tags={
                        **settings,
                        "kind": "point",
                        "size": str(len(tasks)),
                        "tasks": str(merge[5]),
                        "lineage": digest(sorted(row["key"] for row in here)),
                    },
                )
            )
    return records


def merged_rows(grid: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of merges, each measured on one of its own tasks."""
    inside = grid["in_subset"].astype(bool)
    return grid[~grid["method"].isin(_REFERENCES) & inside]


def _by_merge(table: pd.DataFrame) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Group rows by merge; plain dictionaries, because there may be a million rows."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in table.to_dict("records"):
        merge = (*(row[key] for key in MERGE[:2]), int(row["seed"]), *(row[k] for k in MERGE[3:]))
        groups[merge].append({str(key): value for key, value in row.items()})
    return dict(groups)


def _named(merge: tuple[Any, ...]) -> dict[str, str]:
    model, mode, seed, method, _, subset = map(str, merge)
    return {"model": model, "mode": mode, "seed": seed, "method": method, "subset": subset}


def _merge_id(merge: tuple[Any, ...]) -> str:
    model, mode, seed, method, options, subset = merge
    return merge_id(model, mode, seed, method, options or "", subset)


def _name(named: Mapping[str, str], tasks: Sequence[str]) -> str:
    """Return a name whose beginning says most: lists cut it."""
    return f"{named['method']} {len(tasks)} · {', '.join(tasks)}"


def _options(merge: tuple[Any, ...]) -> dict[str, str]:
    return flat(json.loads(merge[4] or "{}"), "option.")


def _swept(rows: Sequence[Mapping[str, Any]], choice: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the chosen lambda of a method that has several; one that never varies is no parameter."""
    if choice is None or read_point(choice["point"]).named:
        return {}
    several = len({row["point"] for row in rows}) > 1
    return {"lambda": str(choice["point"])} if several else {}


def _command(
    export: str | None,
    named: Mapping[str, str],
    tasks: Sequence[str],
    choice: Mapping[str, Any] | None,
) -> str | None:
    if export is None or choice is None:
        return None
    return export.format(**named, point=choice["point"], task=tasks[0])


def _note(
    named: Mapping[str, str],
    tasks: Sequence[str],
    choice: Mapping[str, Any] | None,
    command: str | None,
) -> str:
    """Return what the run comes to, as a person reads it."""
    if choice is None:
        return ""
    at = choice["point"] if read_point(choice["point"]).named else f"λ {choice['point']}"
    said = f"{named['method']} of {', '.join(tasks)} at {at}, chosen on validation"
    accuracy, low, high = (number(choice.get(key)) for key in _CHOSEN[:3])
    if math.isfinite(accuracy):
        said += f": {percent(accuracy)} on test"
    if math.isfinite(low):
        said += f" ({percent(low)} to {percent(high)})"
    if math.isfinite(normalized := number(choice.get("test_normalized"))):
        said += f", normalised {percent(normalized)}"
    edge = " The best may lie outside of what was swept." if choice["at_edge"] else ""
    return f"{said}.{edge}" + (
        f"\n\nAs a CLIP that open_clip loads: `{command}`" if command else ""
    )


def _curves(rows: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """Return curves on validation, and on test where every scale was read there for its curve."""
    at: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if _on_curve(row) and not read_point(row["point"]).named:
            at[row["split"], row["point"]].append(row)
    axis = sorted({read_point(point).lambda_value for _, point in at})
    return [
        *(Metric("curve/lambda", scale, scale_step(scale)) for scale in axis),
        *(
            Metric(f"curve/{key}", value, scale_step(read_point(point).lambda_value))
            for (_, point), here in sorted(
                at.items(), key=lambda item: (item[0][0], point_order(item[0][1]))
            )
            for key, value in _scores(here)
        ),
    ]


def _on_curve(row: Mapping[str, Any]) -> bool:
    return row["split"] == "val" or row.get("role") == "curve"


def _scores(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Return the scores of one point by the names of their curves, one split after the other."""
    scores: list[tuple[str, float]] = []
    for split in ("test", "val"):
        here = [row for row in rows if row["split"] == split and _on_curve(row)]
        if here:
            accuracy = [row["accuracy"] for row in here]
            normalized = [row["normalized_accuracy"] for row in here]
            scores.append((f"{split}/mean_accuracy", mean(accuracy)))
            scores.append((f"{split}/mean_normalized", mean(normalized)))
            scores += [(f"{split}/accuracy/{row['task']}", row["accuracy"]) for row in here]
    return scores


def _coefficients(point: str) -> dict[str, str]:
    """Return a point as parameters: as text, and as a number where it is one."""
    return {"point": point} | ({} if read_point(point).named else {"lambda": point})


def _choice(choice: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Metric]:
    addition = choice["study"] == _ADDITION
    head = "_".join(filter(None, ["chosen" if addition else choice["study"], choice.get("about")]))
    scale = number(read_point(choice["point"]).scale)
    return [
        *(Metric(f"{head}/{key}", number(choice.get(key))) for key in _CHOSEN),
        Metric("lambda" if addition else f"{head}/scale", scale),
        *(
            Metric(f"{head}_tasks/test_{key}/{row['task']}", number(row[key]))
            for row in rows
            if row["split"] == "test" and row["point"] == choice["point"]
            for key in ("accuracy", "accuracy_low", "accuracy_high")
        ),
    ]
