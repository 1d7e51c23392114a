"""From results to run records: what is logged, under which names. Pure; no registry is involved.

Names that a person meets in the registry:

- curves over lambda (a subset): ``val/mean_accuracy``, ``val/mean_normalized``,
  ``val/accuracy/<task>``, at step ``scale_step(scale)``; the same under ``test/`` where the
  configuration asks for test curves; points whose tasks have coefficients of their own lie on none;
- the chosen point (a subset): ``chosen/scale``, ``chosen/val_normalized``,
  ``chosen/test_accuracy``, ``chosen/test_normalized``, ..., single tasks under
  ``chosen_tasks/test_accuracy/``; for a study other than ``addition`` the study's name stands in
  place of ``chosen``, with what it is about behind it where it asks several questions;
- training (an expert): ``train/loss``, ``train/lr``, ``val/accuracy`` over steps, and
  ``start/val_accuracy``, ``final/val_accuracy``.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from taskgrid.lattice.points import point_order, read_point
from taskgrid.provenance.digests import canonical_json, digest
from taskgrid.tracking.records import Artifact, Dataset, Metric, RunRecord

STEPS_PER_UNIT = 1000
"""Steps are whole numbers: lambda 0.3 is step 300."""

_REFERENCES = ("zeroshot", "expert")
_MERGE = ["model", "mode", "seed", "method", "options", "subset"]
_CHOSEN = ("test_normalized", "test_accuracy", "val_normalized", "val_accuracy")
_LINEAGE = ("base", "source_base", "text", "split", "head", "digest", "layout", "activation")


def scale_step(scale: float) -> int:
    """Return the step at which a coefficient is logged."""
    return round(scale * STEPS_PER_UNIT)


def expert_point(settings: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the ``point_id`` of a fine-tuning, and what it is named by."""
    mode = settings.get("mode_label") or settings["mode"]
    named = {"model": settings["model"], "mode": mode, "seed": str(settings["seed"])}
    named["task"] = settings["task"]
    return "/".join(["expert", *named.values()]), named


def expert_record(
    manifest: Mapping[str, Any],
    settings: Mapping[str, Any],
    rows: Iterable[tuple[int, str, float]],
    seconds: float | None = None,
    *,
    started: str | None = None,
    weights: str | None = None,
    artifacts: Sequence[Artifact] = (),
) -> RunRecord:
    """Return the record of one fine-tuning.

    Args:
        manifest: the expert's manifest: lineage digests, ``counts`` of its split, ``steps``.
        settings: ``model``, ``task``, ``mode``, ``seed``, ``recipe`` and, optionally,
            ``mode_label``, ``mode_options``.
        rows: its history: (step, metric, value).
        seconds: how long it took.
        started: when it began (ISO 8601).
        weights: path of its weights; they are named, not copied.
        artifacts: files a person opens: the manifest.
    """
    point_id, named = expert_point(settings)
    history = sorted(rows)
    accuracy = [value for _, metric, value in history if metric == "val/accuracy"]
    # A ready-made expert has no history.
    ends = [("start", accuracy[0]), ("final", accuracy[-1])] if accuracy else []
    lineage = {key: str(manifest[key]) for key in _LINEAGE if key in manifest}
    options = _flat(settings.get("mode_options") or {}, "mode.")
    if "aligner" in settings:
        options = {"aligner": settings["aligner"], **_flat(settings["options"], "aligner.")}
    return RunRecord(
        point_id=point_id,
        kind="expert",
        name=named["task"],
        params={**named, **_flat(settings.get("recipe") or {}), **options},
        metrics=_finite(
            [
                *(Metric(metric, value, step) for step, metric, value in history),
                *(Metric(f"{end}/val_accuracy", value) for end, value in ends),
            ]
        ),
        tags={
            **named,
            "kind": "expert",
            "lineage": digest(lineage),
            **{f"lineage.{key}": value for key, value in lineage.items()},
            **({"weights": weights} if weights else {}),
        },
        datasets=tuple(
            Dataset(named["task"], str(manifest["split"]), part)
            for part in ("train", "val")
            if "split" in manifest
        ),
        artifacts=tuple(artifacts),
        started=started,
        seconds=seconds,
    )


def subset_records(
    grid: pd.DataFrame,
    selected: pd.DataFrame,
    *,
    parent: str | None = None,
    splits: Mapping[str, str] | None = None,
    spans: Mapping[str, Mapping[str, Any]] | None = None,
    machine: Mapping[str, str | int] | None = None,
) -> list[RunRecord]:
    """Return a record for every merge (model, mode, seed, method, subset), curves over lambda.

    Args:
        grid: rows of the grid.
        selected: the chosen points.
        parent: ``point_id`` of the grid's record.
        splits: digest of each task's split, to name the data.
        spans: ``started`` and ``seconds`` of the merges that were measured, by subset; the grid must
            then be of one model, mode, seed and method. The others have no duration.
        machine: on what those were measured: batch size, device, version of torch.
    """
    chosen = _by_merge(selected)
    records = []
    for merge, rows in _by_merge(_merges(grid)).items():
        named, options = _named(merge), json.loads(merge[4] or "{}")
        tasks = str(merge[5]).split("+")
        choices = chosen.get(merge, [])
        # The chosen point first: the registry's plots begin with the metric that was logged first.
        metrics = [metric for choice in choices for metric in _choice(choice, rows)]
        metrics += _curves(rows)
        edge = any(choice["at_edge"] for choice in choices)
        span = (spans or {}).get(str(merge[5]), {})
        records.append(
            RunRecord(
                point_id=merge_id(merge),
                kind="subset",
                name=f"{merge[5]} · {merge[3]}",
                parent=parent,
                params={
                    **named,
                    **_flat(options, f"{merge[3]}."),
                    "size": str(len(tasks)),
                    "scales": _span(row["point"] for row in rows),
                },
                metrics=_finite(metrics),
                tags={
                    **{key: value for key, value in named.items() if key != "subset"},
                    "kind": "subset",
                    "size": str(len(tasks)),
                    "tasks": str(merge[5]),
                    "study": ",".join(sorted({choice["study"] for choice in choices})),
                    "rule": "; ".join(sorted({choice["rule"] for choice in choices})),
                    "chosen_at_edge": str(edge).lower(),
                    "lineage": digest(sorted(row["key"] for row in rows)),
                },
                datasets=tuple(
                    Dataset(task, splits[task], "evaluation")
                    for task in tasks
                    if splits and task in splits
                ),
                started=span.get("started"),
                seconds=span.get("seconds"),
                machine={key: str(value) for key, value in (machine or {}).items()} if span else {},
            )
        )
    return records


def point_records(grid: pd.DataFrame) -> list[RunRecord]:
    """Return a record for every grid point, its coefficients as parameters, below the record of its subset.

    Args:
        grid: rows of the grid.
    """
    records = []
    for merge, rows in _by_merge(_merges(grid)).items():
        named, options = _named(merge), json.loads(merge[4] or "{}")
        size = str(len(str(merge[5]).split("+")))
        by_point: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            by_point[row["point"]].append(row)
        for point in sorted(by_point, key=point_order):
            here = by_point[point]
            values = [Metric(key, value) for key, value in _scores(here)]
            settings = {**named, "size": size, **_coefficients(point)}
            records.append(
                RunRecord(
                    point_id=f"{merge_id(merge)}/{point}",
                    kind="point",
                    name=f"{merge[5]} · {merge[3]} · {point}",
                    parent=merge_id(merge),
                    params={**settings, **_flat(options, f"{merge[3]}.")},
                    metrics=_finite(values),
                    tags={
                        **settings,
                        "kind": "point",
                        "tasks": str(merge[5]),
                        "lineage": digest(sorted(row["key"] for row in here)),
                    },
                )
            )
    return records


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

    The curves ``test_normalized/<method>`` and ``test_accuracy/<method>`` have the number of merged
    tasks as step (each subset at its own point, chosen on validation; mean over subsets and seeds),
    with the model and the mode in front of the method where there are several.

    Args:
        grid: rows of the grid.
        selected: the chosen points.
        name: the grid's name.
        settings: further settings to show.
        artifacts: figures, tables, the configuration.
        study: whose choices are shown.
    """
    merges = _merges(grid)
    points = merges[[*_MERGE, "point"]].drop_duplicates()
    several = [key for key in ("model", "mode") if merges[key].nunique() > 1]
    chosen = selected[selected["study"] == study]
    metrics = [
        Metric(f"{score}/{_series(key, several)}", value, int(key[-1]))
        for score in ("test_accuracy", "test_normalized")
        for key, value in _means(chosen, ["model", "mode", "method", "options", "size"], score)
    ]
    own = grid[(grid["method"] == "expert") & (grid["subset"] == grid["task"])]
    zero = grid[grid["method"] == "zeroshot"]
    for label, rows, keys in (("expert", own, several), ("zeroshot", zero, several[:1])):
        test = rows[rows["split"] == "test"]
        for key, value in _means(test, keys or ["split"], "accuracy"):
            words = [label, *(key if keys else ())]
            metrics.append(Metric(f"test_accuracy/{'/'.join(words)}", value))
    spans = {key: _joined(merges[key]) for key in ("model", "mode", "seed", "method")}
    return RunRecord(
        point_id=f"grid/{name}",
        kind="grid",
        name=name,
        params={
            **_flat(settings or {}),
            **spans,
            "tasks": _joined(merges["task"]),
            "scales": _span(points["point"]),
            "subsets": str(points["subset"].nunique()),
            "points": str(len(points)),
        },
        metrics=_finite(metrics),
        tags={
            "kind": "grid",
            "study": study,
            "lineage": digest(sorted(merges["key"].astype(str))),
        },
        artifacts=tuple(artifacts),
    )


def _merges(grid: pd.DataFrame) -> pd.DataFrame:
    inside = grid["in_subset"].astype(bool)
    return grid[~grid["method"].isin(_REFERENCES) & inside]


def _by_merge(table: pd.DataFrame) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Group rows by merge; plain dictionaries, because there may be a million rows."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in table.to_dict("records"):
        merge = (*(row[key] for key in _MERGE[:2]), int(row["seed"]), *(row[k] for k in _MERGE[3:]))
        groups[merge].append({str(key): value for key, value in row.items()})
    return dict(groups)


def _named(merge: tuple[Any, ...]) -> dict[str, str]:
    model, mode, seed, method, _, subset = map(str, merge)
    return {"model": model, "mode": mode, "seed": seed, "method": method, "subset": subset}


def merge_id(merge: tuple[Any, ...]) -> str:
    """Return the ``point_id`` of a merge: its model, mode, seed, method, options and subset."""
    model, mode, seed, method, options, subset = merge
    version = f"@{digest(json.loads(options))[:8]}" if options not in ("", "{}", None) else ""
    return f"subset/{model}/{mode}/{seed}/{method}{version}/{subset}"


def _curves(rows: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """Return curves on validation, and on test where every scale was read there for its curve."""
    at: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if _on_curve(row) and not read_point(row["point"]).named:
            at[row["split"], row["point"]].append(row)
    return [
        Metric(key, value, scale_step(read_point(point).lambda_value))
        for (_, point), here in sorted(
            at.items(), key=lambda item: (item[0][0], point_order(item[0][1]))
        )
        for key, value in _scores(here)
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
            scores.append((f"{split}/mean_accuracy", _mean(accuracy)))
            scores.append((f"{split}/mean_normalized", _mean(normalized)))
            scores += [(f"{split}/accuracy/{row['task']}", row["accuracy"]) for row in here]
    return scores


def _coefficients(point: str) -> dict[str, str]:
    """Return a point as parameters: as text, and as a number where it is one."""
    return {"point": point} | ({} if read_point(point).named else {"scale": point})


def _choice(choice: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[Metric]:
    words = "chosen" if choice["study"] == "addition" else choice["study"]
    head = "_".join(filter(None, [words, choice.get("about")]))
    metrics = [Metric(f"{head}/{key}", _number(choice.get(key))) for key in _CHOSEN]
    metrics.append(Metric(f"{head}/scale", _number(read_point(choice["point"]).scale)))
    metrics += [
        Metric(f"{head}_tasks/test_accuracy/{row['task']}", row["accuracy"])
        for row in rows
        if row["split"] == "test" and row["point"] == choice["point"]
    ]
    return metrics


def _series(key: Sequence[Any], several: Sequence[str]) -> str:
    model, mode, method, options, _ = key
    words = [str(model)] * ("model" in several) + [str(mode)] * ("mode" in several)
    named = _flat(json.loads(options or "{}"))
    return "/".join([*words, " ".join([str(method), *(f"{k} {v}" for k, v in named.items())])])


def _means(
    rows: pd.DataFrame, keys: Sequence[str], score: str
) -> list[tuple[tuple[Any, ...], float]]:
    groups = rows.groupby(list(keys), sort=True)
    return [(tuple(key), _number(part[score].mean())) for key, part in groups]


def _finite(metrics: Iterable[Metric]) -> tuple[Metric, ...]:
    return tuple(metric for metric in metrics if math.isfinite(metric.value))


def _mean(values: Sequence[float | None]) -> float:
    numbers = [_number(value) for value in values]
    return math.fsum(numbers) / len(numbers)


def _number(value: Any) -> float:
    return math.nan if value is None or value is pd.NA else float(value)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as text, one entry per leaf: ``{"a": {"b": 1}}`` -> ``a.b = 1``."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else canonical_json(value)
    return flat


def _joined(values: pd.Series[Any]) -> str:
    return ", ".join(str(value) for value in sorted(values.dropna().unique()))


def _span(points: Iterable[str]) -> str:
    distinct = sorted(set(points), key=point_order)
    if len(distinct) < 2:
        return ", ".join(distinct)
    return f"{distinct[0]} to {distinct[-1]}, {len(distinct)} values"
