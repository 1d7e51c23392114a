"""Parts of a run record as MLflow has them."""

from __future__ import annotations

import json
import time
from datetime import datetime

from mlflow.entities import Dataset as MlflowDataset
from mlflow.entities import DatasetInput, InputTag

from taskgrid.tracking.records import RunRecord

_SHORT = 8


def machine_tags(record: RunRecord) -> dict[str, str]:
    """Return the tags that say where a record's numbers were measured."""
    tags = {f"machine.{key}": value for key, value in record.machine.items()}
    # MLflow's pages show it as the version of the source.
    commit = record.machine.get("commit", "").partition("-")[0]
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def times(record: RunRecord) -> tuple[int, int | None]:
    """Return start and end in milliseconds since 1970, no end where the record knows no duration.

    A run has to start some time: one that does not know when ends now, or starts now.
    """
    start = int(time.time() * 1000) - _length(record)
    if record.started:
        start = int(datetime.fromisoformat(record.started).timestamp() * 1000)
    return since(start, record)


def since(start: int, record: RunRecord) -> tuple[int, int | None]:
    """Return a start and the end that a record knows."""
    return start, None if record.seconds is None else start + _length(record)


def _length(record: RunRecord) -> int:
    return int(1000 * (record.seconds or 0))


def inputs(record: RunRecord) -> list[DatasetInput]:
    """Return the data that a record names."""
    return [
        DatasetInput(
            dataset=MlflowDataset(
                name=name,
                # As much as a column has room for beside the name; the whole digest is in the source.
                digest=digest[:_SHORT],
                source_type="taskgrid",
                source=json.dumps({"task": name, "split": digest}),
            ),
            tags=[InputTag("mlflow.data.context", context)],
        )
        for name, digest, context in record.datasets
    ]
