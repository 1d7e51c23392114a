"""Run records: all that a registry is told about an experiment, as plain data.

A registry (MLflow) can be lost, moved or unreachable; the records are kept with the results, and it
is written from them, again and again, to the same effect.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from taskgrid.errors import ArtifactError, TrackingError
from taskgrid.provenance.digests import digest, digest_file
from taskgrid.store.atomic import read_json, write_json

SCHEMA = 2
"""Version of the files written by ``write_records``."""

RecordKind = Literal["grid", "expert", "subset", "point"]
KINDS: tuple[RecordKind, ...] = get_args(RecordKind)
"""Kinds of records; a parent's kind comes before its children's."""


class Metric(NamedTuple):
    """One value of a curve, or a single value at step 0."""

    key: str
    value: float
    step: int = 0


class Dataset(NamedTuple):
    """Data that an experiment used: a task, the digest of its split, and what it was used for."""

    name: str
    digest: str
    context: str


class Artifact(NamedTuple):
    """A file that a person opens, and the digest of its content."""

    path: str
    digest: str

    @classmethod
    def of(cls, path: str | Path) -> Artifact:
        """Return the artifact of an existing file.

        Raises:
            ArtifactError: if the file cannot be read.
        """
        try:
            return cls(str(path), digest_file(path))
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class RunRecord:
    """One experiment.

    Attributes:
        point_id: which experiment it is; the same for every version of it.
        kind: ``grid``, ``expert``, ``subset`` or ``point``.
        name: what a person reads in a list.
        parent: ``point_id`` of the record it belongs under.
        params: settings, as text.
        metrics: curves and single values, all finite.
        tags: what to search for.
        datasets: data it used.
        artifacts: files a person opens; no weights.
        note: what it comes to, in Markdown; empty where there is nothing to say.
        started: when it began (ISO 8601 with offset), if known.
        seconds: how long it took, if known.
        machine: what moved the last bits of its numbers: batch size, device, version of torch; nothing
            where none was measured.

    Raises:
        TrackingError: if a metric is not finite.
    """

    point_id: str
    kind: RecordKind
    name: str
    parent: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    datasets: tuple[Dataset, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    note: str = ""
    started: str | None = None
    seconds: float | None = None
    machine: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for metric in self.metrics:
            if not math.isfinite(metric.value):
                raise TrackingError(
                    f"metric {metric.key!r} of {self.point_id} is {metric.value} at step {metric.step}; "
                    "leave out what was not measured"
                )

    @cached_property
    def content_key(self) -> str:
        """Digest of what the record says; times, machines and the places of files do not count."""
        return digest(
            {
                "point_id": self.point_id,
                "name": self.name,
                "parent": self.parent,
                "params": dict(self.params),
                "metrics": sorted(self.metrics),
                "tags": dict(self.tags),
                "datasets": sorted(self.datasets),
                "artifacts": sorted([Path(path).name, sha] for path, sha in self.artifacts),
                "note": self.note,
            }
        )

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values; curves by metric."""
        curves: dict[str, dict[str, list[float]]] = {}
        for key, value, step in self.metrics:
            curve = curves.setdefault(key, {"step": [], "value": []})
            curve["step"].append(step)
            curve["value"].append(value)
        return {
            "point_id": self.point_id,
            "content_key": self.content_key,
            "kind": self.kind,
            "name": self.name,
            "parent": self.parent,
            "params": dict(self.params),
            "metrics": curves,
            "tags": dict(self.tags),
            "datasets": [dataset._asdict() for dataset in self.datasets],
            "artifacts": [artifact._asdict() for artifact in self.artifacts],
            "note": self.note,
            "started": self.started,
            "seconds": self.seconds,
            "machine": dict(self.machine),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RunRecord:
        """Return the record that ``to_json`` described."""
        metrics = [
            Metric(key, number, step)
            for key, curve in value["metrics"].items()
            for step, number in zip(curve["step"], curve["value"], strict=True)
        ]
        return cls(
            point_id=value["point_id"],
            kind=value["kind"],
            name=value["name"],
            parent=value["parent"],
            params=value["params"],
            metrics=tuple(metrics),
            tags=value["tags"],
            datasets=tuple(Dataset(**dataset) for dataset in value["datasets"]),
            artifacts=tuple(Artifact(**artifact) for artifact in value["artifacts"]),
            note=value["note"],
            started=value["started"],
            seconds=value["seconds"],
            machine=value["machine"],
        )


def write_records(path: str | Path, records: Iterable[RunRecord]) -> None:
    """Write records to a file, atomically.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    written = {"schema": SCHEMA, "records": [record.to_json() for record in records]}
    write_json(path, written, indent=None)


def read_records(path: str | Path) -> list[RunRecord]:
    """Read records from a file.

    Raises:
        ArtifactError: if the file is missing, damaged, or of another schema.
    """
    value = read_json(path)
    if (schema := value.get("schema")) != SCHEMA:
        raise ArtifactError(
            f"{path} holds run records of schema {schema}, not {SCHEMA}; delete it and run again, which "
            "evaluates nothing"
        )
    try:
        return [RunRecord.from_json(record) for record in value["records"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} is no file of run records; delete it and run again") from error
