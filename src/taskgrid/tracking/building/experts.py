"""Records of fine-tunings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from taskgrid.provenance.digests import digest
from taskgrid.tracking.building.fields import finite, flat, number, percent
from taskgrid.tracking.records import Artifact, Dataset, Metric, RunRecord

_LINEAGE = ("base", "source_base", "text", "split", "head", "digest", "layout", "activation")
_ACCURACY = "val/accuracy"
_EXPERT = ("model", "mode", "seed", "task")
_TASK = ("model", "task")


def expert_point(settings: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the ``point_id`` of a fine-tuning, and what it is named by."""
    mode = settings.get("mode_label") or settings["mode"]
    named = {"model": settings["model"], "mode": mode, "seed": str(settings["seed"])}
    named["task"] = settings["task"]
    return "/".join(["expert", *named.values()]), named


def training_curve(name: str) -> str:
    """Return the metric that a curve of a training's history is logged as."""
    return f"curve/{name}"


def expert_record(
    manifest: Mapping[str, Any],
    settings: Mapping[str, Any],
    rows: Iterable[tuple[int, str, float]],
    seconds: float | None = None,
    *,
    started: str | None = None,
    weights: str | None = None,
    artifacts: Sequence[Artifact] = (),
    machine: Mapping[str, str] | None = None,
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
        machine: what is known of where it was recorded: the commit.
    """
    point_id, named = expert_point(settings)
    history = sorted(rows)
    accuracy = [value for _, metric, value in history if metric == _ACCURACY]
    # A ready-made expert has no history.
    ends = [("val", accuracy[-1]), ("val_start", accuracy[0])] if accuracy else []
    lineage = {key: str(manifest[key]) for key in _LINEAGE if key in manifest}
    options = flat(settings.get("mode_options") or {}, "mode.")
    if "aligner" in settings:
        transport = {"aligner": settings["aligner"], **settings["options"]}
        options = flat(transport, "transport.")
    params = {"expert": named["task"], **{key: named[key] for key in ("model", "mode", "seed")}}
    return RunRecord(
        point_id=point_id,
        kind="expert",
        name=named["task"],
        params={**params, **flat(settings.get("recipe") or {}, "recipe."), **options},
        metrics=finite(
            [
                *(Metric(f"accuracy/{end}", value) for end, value in ends),
                *(Metric(training_curve(metric), value, step) for step, metric, value in history),
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
        machine=machine or {},
    )


def with_test_scores(records: Iterable[RunRecord], grid: pd.DataFrame) -> list[RunRecord]:
    """Return records, those of experts with what they do on test, which the grid's rows say.

    An expert is recorded when it is trained, and its rows are measured with those of all others.

    Args:
        records: records of any kind.
        grid: rows of the grid.
    """
    rows = grid[(grid["split"] == "test") & (grid["role"] == "reference")]
    own = rows[(rows["method"] == "expert") & (rows["subset"] == rows["task"])]
    # Zero-shot there is neither a mode nor a seed.
    found = _by(own.assign(seed=own["seed"].astype(int)), _EXPERT)
    zero = _by(rows[rows["method"] == "zeroshot"], _TASK)
    return [
        _tested(record, found[key], zero.get(_key(record.tags, _TASK)))
        if record.kind == "expert" and (key := _key(record.tags, _EXPERT)) in found
        else record
        for record in records
    ]


def _tested(record: RunRecord, own: dict[str, Any], zero: dict[str, Any] | None) -> RunRecord:
    values = {
        "test": own["accuracy"],
        "test_high": own["accuracy_high"],
        "test_low": own["accuracy_low"],
        "zeroshot_test": None if zero is None else zero["accuracy"],
    }
    scores = [Metric(f"accuracy/{key}", number(value)) for key, value in values.items()]
    low, high = percent(own["accuracy_low"]), percent(own["accuracy_high"])
    note = f"{percent(own['accuracy'])} on test ({low} to {high})"
    if zero is not None:
        note += f"; zero-shot {percent(zero['accuracy'])}"
    tags = {**record.tags, "lineage.test": str(own["key"])}
    return replace(record, metrics=(*finite(scores), *record.metrics), tags=tags, note=f"{note}.")


def _by(rows: pd.DataFrame, names: Sequence[str]) -> dict[tuple[str, ...], dict[str, Any]]:
    listed = rows.to_dict("records")
    return {_key(row, names): {str(key): value for key, value in row.items()} for row in listed}


def _key(named: Mapping[Any, Any], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(named[name]) for name in names)
