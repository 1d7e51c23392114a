"""Where a registry is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


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
