"""Bringing a registry level with the records.

Nothing here fails a workflow. A registry that cannot be reached, or a machine without MLflow, is
brought level later; the records stay with the results.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, MutableMapping, Sequence

from taskgrid.tracking.models import RegisteredModel
from taskgrid.tracking.records import RunRecord
from taskgrid.tracking.report import SyncReport
from taskgrid.tracking.target import Target

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


def be_quiet(environ: MutableMapping[str, str] = os.environ) -> None:
    """Tell MLflow, before it is imported, to be quiet and quick to give up."""
    for name, value in _SURROUNDINGS.items():
        environ.setdefault(name, value)


def sync_records(
    records: Iterable[RunRecord],
    target: Target,
    *,
    models: Sequence[RegisteredModel] = (),
    whole_grid: bool = False,
    advance: Callable[[int], None] = lambda _: None,
    environ: MutableMapping[str, str] = os.environ,
) -> SyncReport:
    """Bring a registry level with records; never raises for what the registry does.

    Args:
        records: the records.
        target: the registry.
        models: models to register.
        whole_grid: the records are all there are; runs of other points are tagged
            ``in_grid = false``.
        advance: called with 1 after each record.
        environ: the environment, which is told to keep MLflow quiet and quick to give up.
    """
    be_quiet(environ)
    if target.artifacts is not None:
        # Else the path of `mlruns` in the working folder is written down, which may move.
        environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = "mlflow-artifacts:/"
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
    return MlflowRegistry(target).sync(
        waiting, models=models, whole_grid=whole_grid, advance=advance
    )
