"""The record of a whole grid."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from taskgrid.provenance.digests import digest
from taskgrid.tracking.building.fields import finite, flat, joined, number, span
from taskgrid.tracking.building.merges import MERGE, merged_rows
from taskgrid.tracking.records import Artifact, Metric, RunRecord


def grid_record(
    grid: pd.DataFrame,
    selected: pd.DataFrame,
    *,
    name: str = "grid",
    settings: Mapping[str, Any] | None = None,
    artifacts: Sequence[Artifact] = (),
    study: str = "addition",
) -> RunRecord:
    """Return the record of a whole grid: what it spans, and its scores against subset size.

    The curves ``curve/test_normalized/<method>`` and ``curve/test_accuracy/<method>`` have the number of
    merged tasks as step (each subset at its own point, chosen on validation; mean over subsets and seeds),
    with the model and the mode in front of the method where there are several, and its options behind it
    where it was run with others too.

    Args:
        grid: rows of the grid.
        selected: the chosen points.
        name: the grid's name.
        settings: further settings to show.
        artifacts: figures, tables, the configuration.
        study: whose choices are shown.
    """
    merges = merged_rows(grid)
    points = merges[[*MERGE, "point"]].drop_duplicates()
    several = [key for key in ("model", "mode") if merges[key].nunique() > 1]
    chosen = selected[selected["study"] == study]
    labels = _labels(chosen)
    metrics = [
        Metric(f"curve/{score}/{_series(key, several, labels)}", value, int(key[-1]))
        for score in ("test_accuracy", "test_normalized")
        for key, value in _means(chosen, ["model", "mode", "method", "options", "size"], score)
    ]
    own = grid[(grid["method"] == "expert") & (grid["subset"] == grid["task"])]
    zero = grid[grid["method"] == "zeroshot"]
    for label, rows, keys in (("expert", own, several), ("zeroshot", zero, several[:1])):
        test = rows[rows["split"] == "test"]
        for key, value in _means(test, keys or ["split"], "accuracy"):
            words = [label, *(key if keys else ())]
            metrics.append(Metric(f"accuracy/test_{'/'.join(words)}", value))
    spans = {key: joined(merges[key]) for key in ("model", "mode", "seed", "method")}
    return RunRecord(
        point_id=f"grid/{name}",
        kind="grid",
        name=name,
        params={
            **flat(settings or {}),
            **spans,
            "tasks": joined(merges["task"]),
            "scales": span(points["point"]),
            "subsets": str(points["subset"].nunique()),
            "points": str(len(points)),
        },
        metrics=finite(metrics),
        tags={
            "kind": "grid",
            "study": study,
            "lineage": digest(sorted(merges["key"].astype(str))),
        },
        artifacts=tuple(artifacts),
    )


def _labels(chosen: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return what methods are called, by name and options."""
    pairs = chosen[["method", "options"]].drop_duplicates()
    count = pairs["method"].value_counts()
    labels = {}
    for method, options in pairs.itertuples(index=False):
        named = flat(json.loads(options or "{}")) if count[method] > 1 else {}
        labels[method, options] = " ".join(
            [method, *(f"{key} {value}" for key, value in named.items())]
        )
    return labels


def _series(
    key: Sequence[Any], several: Sequence[str], labels: Mapping[tuple[str, str], str]
) -> str:
    model, mode, method, options, _ = key
    words = [str(model)] * ("model" in several) + [str(mode)] * ("mode" in several)
    return "/".join([*words, labels[method, options]])


def _means(
    rows: pd.DataFrame, keys: Sequence[str], score: str
) -> list[tuple[tuple[Any, ...], float]]:
    groups = rows.groupby(list(keys), sort=True)
    return [(tuple(key), number(part[score].mean())) for key, part in groups]
