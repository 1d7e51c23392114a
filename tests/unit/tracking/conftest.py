"""Registries for tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from taskgrid.tracking.registry import sync_records
from taskgrid.tracking.target import Target, resolve_target

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with MLflow's tables; making one takes seconds, copying it none."""
    folder = tmp_path_factory.mktemp("store")
    assert sync_records([], resolve_target(None, results=folder, environ={})).status == "level"
    return folder / "mlflow.db"


@pytest.fixture
def target(empty_store: Path, tmp_path: Path) -> Target:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return resolve_target(None, results=tmp_path, environ={})
