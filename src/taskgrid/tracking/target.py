"""Where a registry is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from taskgrid.provenance.digests import digest
from taskgrid.sentences import without_secrets
from taskgrid.tracking.project import project_of

HOST, PORT = "127.0.0.1", 5000
LOCAL = f"http://{HOST}:{PORT}"
"""Where `make ui` shows a registry of this machine."""
RUNS = "/#/experiments?workflowType=machine_learning"
"""The page, behind an address, from which runs are reached: MLflow's front page is for language models."""


@dataclass(frozen=True)
class Target:
    """Where a registry is.

    Attributes:
        uri: MLflow tracking URI.
        artifacts: folder for the artifacts of a local store; None leaves them to the server.
        lock: file that keeps two processes from writing at once.
        results: the results folder.
        project: the name of that folder's runs, among those of others.
        experiment: name of the MLflow experiment, and beginning of the others' names.
    """

    uri: str = field(repr=False)
    artifacts: Path | None
    lock: Path
    results: Path
    project: str
    experiment: str = "taskgrid"

    @property
    def is_remote(self) -> bool:
        """Whether the registry is a server."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def shown(self) -> str:
        """The URI without a user's name, password and tokens."""
        return shown_uri(self.uri)

    def told(self, text: str) -> str:
        """Return a text of MLflow or a database without what the URI keeps secret."""
        text = text.replace(self.uri, self.shown)
        password = self.uri.partition("://")[2].rpartition("@")[0].partition(":")[2]
        for secret in filter(None, (password, unquote(password))):
            text = text.replace(secret, "***")
        return without_secrets(text)


def shown_uri(uri: str) -> str:
    """Return a tracking URI without a user's name, password and tokens."""
    scheme, separator, rest = uri.partition("://")
    # The address of a file has neither host nor user, and its path may well hold an @.
    host = rest if rest.startswith("/") else rest.rpartition("@")[2]
    return without_secrets(f"{scheme}{separator}{host}")


def withheld(uri: str | None) -> dict[str, str]:
    """Return what a job must find in its environment to reach a URI of which it is told the shown form.

    So that no password stands in a command line, a log or a record of what a job was given.
    """
    return {} if uri is None or uri == shown_uri(uri) else {_variable(shown_uri(uri)): uri}


def _variable(shown: str) -> str:
    # Two modules of one workflow may have registries of their own.
    return f"TASKGRID_TRACKING_URI_{digest(shown)[:12].upper()}"


def resolve_target(
    uri: str | None,
    experiment: str = "taskgrid",
    *,
    results: str | Path = "results",
    environ: Mapping[str, str] = os.environ,
) -> Target:
    """Decide where the registry is: ``MLFLOW_TRACKING_URI``, else ``uri``, else SQLite in ``results``.

    Args:
        uri: the configured tracking URI, or its shown form where the environment holds what is `withheld`.
        experiment: name of the MLflow experiment.
        results: the results folder.
        environ: the environment.
    """
    folder = Path(results).resolve()
    if uri is not None:
        uri = environ.get(_variable(uri), uri)
    chosen = environ.get("MLFLOW_TRACKING_URI") or uri or f"sqlite:///{folder / 'mlflow.db'}"
    lock = folder / "registry" / "sync.lock"
    path = chosen.removeprefix("sqlite:///")
    if path != chosen:
        database = Path(path).resolve()
        # A question mark would begin a query: such a folder is named from the working folder.
        written = os.path.relpath(database) if "?" in str(database) else database
        return Target(
            uri=f"sqlite:///{written}",
            artifacts=database.parent / "mlartifacts",
            lock=database.with_name(f"{database.name}.lock"),
            results=folder,
            project=project_of(folder),
            experiment=experiment,
        )
    return Target(chosen, None, lock, folder, project_of(folder), experiment)
