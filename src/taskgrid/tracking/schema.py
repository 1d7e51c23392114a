"""Databases whose tables are of another version of MLflow than the one that is installed."""

from __future__ import annotations

import importlib.util
import re
from importlib.metadata import version
from pathlib import Path

_OTHER_TABLES = re.compile(
    r"database schema \(found version (\w+)|Can't locate revision identified by '(\w+)'"
)
"""What MLflow says, and what its migrations do."""


def other_tables(error: BaseException, shown: str) -> str | None:
    """Say what to do about a database's tables, if that is what an error of MLflow's is about.

    Args:
        error: what was raised when the database was opened.
        shown: its URI without secrets.
    """
    found = _OTHER_TABLES.search(str(error))
    if found is None:
        return None
    here = f"MLflow {version('mlflow')}"
    if not _is_known(next(filter(None, found.groups()))):
        return (
            f"the tables of {shown} are of a newer version than {here}; install that version here "
            "(`pip install --upgrade mlflow`)"
        )
    return (
        f"the tables of {shown} are of an older version than {here}; copy the database, then run `mlflow db "
        f"upgrade {shown}`"
    )


def _is_known(revision: str) -> bool:
    # An older MLflow's tables are a step on the way to this one's; each step is a file.
    spec = importlib.util.find_spec("mlflow")
    if spec is None or spec.origin is None:
        return True
    steps = Path(spec.origin).parent / "store" / "db_migrations" / "versions"
    return any(steps.glob(f"{revision}_*.py")) or not steps.is_dir()
