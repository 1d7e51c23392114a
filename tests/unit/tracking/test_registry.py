"""Synchronising asks for little: no MLflow until it writes, and none at all where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from taskgrid.tracking.records import RunRecord
from taskgrid.tracking.registry import sync_records
from taskgrid.tracking.target import resolve_target


def test_records_need_no_mlflow_and_no_torch() -> None:
    code = (
        "import sys; import taskgrid.tracking.building.merges, taskgrid.tracking.registry\n"
        "assert not {'mlflow', 'torch', 'matplotlib'} & set(sys.modules)"
    )
    source = Path(__file__).resolve().parents[3] / "src"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(source)})


def test_without_mlflow_records_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "taskgrid.tracking.mlflow_store", raising=False)
    for name in [*(name for name in sys.modules if name.startswith("mlflow.")), "mlflow"]:
        monkeypatch.setitem(sys.modules, name, None)
    target = resolve_target(None, results=tmp_path, environ={})
    record = RunRecord("e1", "expert", "one")
    report = sync_records([record, record], target, environ={})
    assert (report.status, report.delayed, report.created) == ("delayed", 2, 0)
    assert "mlflow is not installed" in report.sentence()
    assert list(tmp_path.iterdir()) == []


def test_only_modules_named_for_it_import_mlflow() -> None:
    source = Path(__file__).resolve().parents[3] / "src" / "taskgrid"
    importers = {
        path.name
        for path in source.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip().startswith(("import mlflow", "from mlflow"))
    }
    assert importers == {path.name for path in (source / "tracking").glob("mlflow_*.py")}
