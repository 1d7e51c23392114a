"""Registered models as plain data: what is registered, under which name, with which card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskgrid.errors import ArtifactError, TrackingError
from taskgrid.store.atomic import read_json
from taskgrid.tracking.building.fields import percent
from taskgrid.tracking.records import Artifact, RunRecord
from taskgrid.tracking.target import LOCAL

FOLDER = "model"
"""Where in its run a model lies."""
CARD = "README.md"
CURRENT = "current"
"""The alias of the version that counts now."""

_ABOUT = "taskgrid"


@dataclass(frozen=True)
class RegisteredModel:
    """A model for the registry.

    Attributes:
        name: what it is called there.
        point_id: of the record whose run it belongs to.
        digest: of its weights.
        files: its weights, and what open_clip builds it by.
        card: what it is, its numbers and how to load it, in Markdown.
        tags: what to search for.
    """

    name: str
    point_id: str
    digest: str
    files: tuple[Artifact, ...]
    card: str
    tags: Mapping[str, str]


def registered_models(
    configs: Iterable[str | Path], records: Sequence[RunRecord], experiment: str
) -> list[RegisteredModel]:
    """Return the models that lie beside some ``open_clip_config.json``.

    Args:
        configs: these files.
        records: what their numbers come from.
        experiment: beginning of the models' names.

    Raises:
        ArtifactError: if a file is damaged.
        TrackingError: if no record is of a model.
    """
    known = {record.point_id: record for record in records}
    models = []
    for config in map(Path, configs):
        try:
            about = read_json(config)[_ABOUT]
            name, point_id, digest = (
                f"{experiment}.{about['name']}",
                about["record"],
                about["digest"],
            )
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"{config} does not say what it is of; delete it and run again"
            ) from error
        if point_id not in known:
            raise TrackingError(
                f"no record is of the model {name}; run the workflow, which writes it"
            )
        record = known[point_id]
        tags = {key: record.tags[key] for key in _TAGS if key in record.tags}
        models.append(
            RegisteredModel(
                name=name,
                point_id=point_id,
                digest=digest,
                # What is compared is the digest of the weights: a gigabyte is not read for another.
                files=tuple(
                    Artifact(str(path), digest)
                    for path in (config, *sorted(config.parent.glob("*.safetensors")))
                ),
                card=card(name, record, about),
                tags=tags,
            )
        )
    return models


def card(name: str, record: RunRecord, about: Mapping[str, Any]) -> str:
    """Return a model's card.

    Args:
        name: what it is called in the registry.
        record: what is known of it.
        about: ``architecture``, ``pretrained`` and ``digest``, and ``point`` of a merge.
    """
    numbers = {metric.key: metric.value for metric in record.metrics}
    expert = record.kind == "expert"
    head = "accuracy/test" if expert else "chosen/test_accuracy"
    rows = [_row(_what(record), numbers, head)]
    tasks = record.tags["tasks"].split("+") if not expert else []
    rows += [_row(task, numbers, "chosen_tasks/test_accuracy", f"/{task}") for task in tasks]
    lineage = {
        "base": f"{about['architecture']}, {about['pretrained']}",
        "weights": about["digest"],
        **{key: value for key, value in sorted(record.tags.items()) if key.startswith("lineage")},
    }
    options = {
        key.partition(".")[2]: value
        for key, value in sorted(record.params.items())
        if key.startswith("option.")
    }
    made = ", ".join(f"{key} {value}" for key, value in options.items())
    return "\n".join(
        [
            f"# {name}",
            "",
            f"{_sentence(record, about)}{f' Options: {made}.' if made else ''}",
            "",
            "| test | accuracy | 95 % interval |",
            "| --- | --- | --- |",
            *rows,
            "",
            "Measured with the zero-shot heads of the base, on the test split, which chose nothing.",
            "",
            "## Load",
            "",
            "```python",
            "import mlflow, open_clip",
            "",
            f'mlflow.set_tracking_uri("{LOCAL}")  # of `make ui`, or your server',
            f'folder = mlflow.artifacts.download_artifacts("models:/{name}@{CURRENT}")',
            'model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")',
            'tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")',
            "```",
            "",
            "## Lineage",
            "",
            *(f"- {key}: `{value}`" for key, value in lineage.items()),
            "",
        ]
    )


_TAGS = ("kind", "model", "mode", "seed", "method", "tasks", "task", "size", "lineage")


def _what(record: RunRecord) -> str:
    return record.tags["task"] if record.kind == "expert" else "mean over its tasks"


def _sentence(record: RunRecord, about: Mapping[str, Any]) -> str:
    named = {key: record.tags[key] for key in ("model", "mode", "seed")}
    where = f"{named['model']}, mode {named['mode']}, seed {named['seed']}"
    if record.kind == "expert":
        return f"The expert for {record.tags['task']} ({where})."
    tasks = record.tags["tasks"].replace("+", ", ")
    return f"`{record.tags['method']}` of {tasks} at λ {about['point']} ({where})."


def _row(what: str, numbers: Mapping[str, float], head: str, tail: str = "") -> str:
    value, low, high = (numbers.get(f"{head}{end}{tail}") for end in ("", "_low", "_high"))
    if value is None:
        return f"| {what} | not measured | |"
    between = "" if low is None or high is None else f"{percent(low)} to {percent(high)}"
    return f"| {what} | {percent(value)} | {between} |"
