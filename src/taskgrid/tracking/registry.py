"""Bringing a registry level with the records: where it is, and what came of it.

Nothing here fails a workflow. A registry that cannot be reached, or a machine without MLflow, is
brought level later; the records stay with the results.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from taskgrid.tracking.records import RunRecord

Status = Literal["level", "delayed", "incomplete"]

_SURROUNDINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A server that is down should cost seconds; MLflow's own defaults retry for many minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


@dataclass(frozen=True)
class Target:
    """Where a registry is.

    Attributes:
        uri: MLflow tracking URI.
        artifacts: folder for the artifacts of a local store; None leaves them to the server.
        lock: file that keeps two processes from writing at once.
        experiment: name of the MLflow experiment, and beginning of the others' names.
    """

    uri: str
    artifacts: Path | None
    lock: Path
    experiment: str = "taskgrid"

    @property
    def is_remote(self) -> bool:
        """Whether the registry is a server."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def shown(self) -> str:
        """The URI without a user's name and password."""
        scheme, separator, rest = self.uri.partition("://")
        return f"{scheme}{separator}{rest.rpartition('@')[2]}"


@dataclass(frozen=True)
class SyncReport:
    """What a synchronisation did.

    Attributes:
        uri: the registry, without credentials.
        created: runs made.
        unchanged: records that had their run already.
        superseded: older runs of a changed record, now tagged so.
        repaired: unfinished runs of an interrupted synchronisation, removed.
        retired: runs of points that are not on the grid any more, now tagged so.
        delayed: records that have to wait, for ``reason``.
        failed: a sentence for each record that the registry refused.
        reason: why records were delayed; empty if none were.
    """

    uri: str
    created: int = 0
    unchanged: int = 0
    superseded: int = 0
    repaired: int = 0
    retired: int = 0
    delayed: int = 0
    failed: tuple[str, ...] = field(default=())
    reason: str = ""

    @property
    def status(self) -> Status:
        """``level``, ``delayed`` (try again later) or ``incomplete`` (some records were refused)."""
        if self.delayed:
            return "delayed"
        return "incomplete" if self.failed else "level"

    def sentence(self) -> str:
        """Return one line for a person."""
        if self.delayed:
            return (
                f"MLflow is not up to date: {self.delayed} records wait because {self.reason}; nothing is "
                "lost, run `snakemake registry` later"
            )
        counts = {
            "new": self.created,
            "unchanged": self.unchanged,
            "superseded": self.superseded,
            "no longer on the grid": self.retired,
            "repaired": self.repaired,
            "refused": len(self.failed),
        }
        told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        return f"MLflow at {self.uri}: {told or 'nothing to log'}"

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "status": self.status,
            "uri": self.uri,
            "created": self.created,
            "unchanged": self.unchanged,
            "superseded": self.superseded,
            "repaired": self.repaired,
            "retired": self.retired,
            "delayed": self.delayed,
            "failed": list(self.failed),
            "reason": self.reason,
        }


def resolve_target(
    uri: str | None,
    experiment: str = "taskgrid",
    *,
    results: str | Path = "results",
    environ: Mapping[str, str] = os.environ,
) -> Target:
    """Decide where the registry is: ``MLFLOW_TRACKING_URI``, else ``uri``, else SQLite in ``results``.

    Args:
        uri: the configured tracking URI.
        experiment: name of the MLflow experiment.
        results: the results folder.
        environ: the environment.
    """
    folder = Path(results).resolve()
    chosen = environ.get("MLFLOW_TRACKING_URI") or uri or f"sqlite:///{folder / 'mlflow.db'}"
    lock = folder / "registry" / "sync.lock"
    path = chosen.removeprefix("sqlite:///")
    if path != chosen:
        database = Path(path).resolve()
        return Target(
            uri=f"sqlite:///{database}",
            artifacts=database.parent / "mlartifacts",
            lock=database.with_name(f"{database.name}.lock"),
            experiment=experiment,
        )
    return Target(chosen, None, lock, experiment)


def sync_records(
    records: Iterable[RunRecord],
    target: Target,
    *,
    whole_grid: bool = False,
    advance: Callable[[int], None] = lambda _: None,
    environ: MutableMapping[str, str] = os.environ,
) -> SyncReport:
    """Bring a registry level with records; never raises for what the registry does.

    Args:
        records: the records.
        target: the registry.
        whole_grid: the records are all there are; runs of other points are tagged
            ``in_grid = false``.
        advance: called with 1 after each record.
        environ: the environment, which is told to keep MLflow quiet and quick to give up.
    """
    for name, value in _SURROUNDINGS.items():
        environ.setdefault(name, value)
    waiting = list(records)
    # Imported late: two seconds that only a process which writes the registry should pay.
    try:
        from taskgrid.tracking.mlflow_store import MlflowRegistry
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "mlflow":
            raise
        return SyncReport(
            target.shown, delayed=len(waiting), reason="the package mlflow is not installed here"
        )
    return MlflowRegistry(target).sync(waiting, whole_grid=whole_grid, advance=advance)
