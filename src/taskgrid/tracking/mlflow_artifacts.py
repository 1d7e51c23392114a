"""Where the files of runs go, so that a folder of results can move with them.

A local registry names files relative to what serves them (``mlflow-artifacts:/``), as a server's do, and the
pages are told where that is. The database, in which MLflow cannot change a place, then holds no path of a
machine.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

from mlflow.tracking import MlflowClient

from taskgrid.store.atomic import explain_os_error
from taskgrid.tracking.records import Artifact
from taskgrid.tracking.target import Target

SERVED = "mlflow-artifacts:/"
"""What stands for the folder of artifacts."""

_OLD = re.compile(r"file:.*/mlartifacts/([^/]+(?:/[0-9a-f]{32}/artifacts)?)")
"""Places of an experiment and of a run, in registries from when they were paths."""


def put_files(
    client: MlflowClient,
    target: Target,
    run: str,
    files: Sequence[Artifact],
    texts: Mapping[str, str],
    folder: str | None = None,
) -> None:
    """Put files into a run.

    Args:
        client: of the registry.
        target: the registry.
        run: the run's id.
        files: files to copy.
        texts: further files: name -> content.
        folder: where in the run.
    """
    if target.artifacts is None:
        for file in files:
            client.log_artifact(run, file.path, folder)
        for name, text in texts.items():
            client.log_text(run, text, f"{folder}/{name}" if folder else name)
        return
    if not files and not texts:
        return
    place = target.artifacts / client.get_run(run).info.artifact_uri.removeprefix(SERVED)
    place = place / folder if folder else place
    try:
        place.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(file.path, place / Path(file.path).name)
        for name, text in texts.items():
            (place / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise explain_os_error(error, place) from error


def forget_places(target: Target) -> None:
    """Name the files of an older local registry relative to what serves them, wherever it lies by now."""
    database = Path(target.uri.removeprefix("sqlite:///"))
    if target.artifacts is None or not database.is_file():
        return
    with closing(sqlite3.connect(database)) as tables, tables:
        known = {name for (name,) in tables.execute("SELECT name FROM sqlite_master")}
        if not {"experiments", "runs"} <= known:
            return
        tables.create_function("served", 1, _served, deterministic=True)
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            tables.execute(
                f"UPDATE {table} SET {column} = served({column}) WHERE {column} LIKE 'file:%/mlartifacts/%'"
            )


def _served(place: str) -> str:
    found = _OLD.fullmatch(place)
    return SERVED + unquote(found[1]) if found else place
