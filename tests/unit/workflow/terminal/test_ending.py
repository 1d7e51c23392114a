"""What is said when all is done."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from taskgrid.store.atomic import write_json
from taskgrid.workflow.terminal.ending import ending, places, printed

SUMMARY = """\
model,mode,seed,method,options,row,size,scale,accuracy,accuracy_low,accuracy_high,normalized,storage_mb,published,a,b
m,standard,0,zeroshot,{},zeroshot,0,,0.6690,,,0.7310,0,,0.6139,0.7241
m,standard,0,expert,{},expert,1,,0.9180,,,1.0000,0,,0.9694,0.8666
m,standard,0,ties,"{""density"":0.2}",size,2,,0.9,,,0.9,0,,,
m,standard,0,ties,"{""density"":0.2}",all,2,1.2000,0.7760,0.7580,0.7930,0.8450,0,,0.8,0.752
"""


def rows(text: str) -> tuple[list[dict[str, str]], list[str]]:
    reader = csv.DictReader(io.StringIO(text))
    return list(reader), list(reader.fieldnames or ())


def test_the_table_is_that_of_a_paper() -> None:
    assert printed(*rows(SUMMARY)) == [
        "test accuracy in %        a     b              average  normalised",
        "zero-shot              61.4  72.4                 66.9        73.1",
        "experts                96.9  86.7                 91.8       100.0",
        "TIES, all 2, λ = 1.20  80.0  75.2  77.6 (75.8 to 79.3)        84.5",
    ]


def test_where_tasks_do_not_fit_averages_are_shown_alone() -> None:
    assert printed(*rows(SUMMARY), width=60)[1] == (
        "zero-shot                             66.9        73.1"
    )


def test_runs_and_options_are_named_where_there_are_several() -> None:
    more = SUMMARY.splitlines()[-1].replace("standard", "lora").replace("0.2}", "0.1}")
    titles = [line.split("  ")[0] for line in printed(*rows(SUMMARY + more))]
    assert titles[1] == "m standard 0: zero-shot"
    assert titles[3:] == [
        "m standard 0: TIES density=0.2, all 2, λ = 1.20",
        "m lora 0: TIES density=0.1, all 2, λ = 1.20",
    ]


def test_without_a_summary_only_places_are_named(tmp_path: Path) -> None:
    assert printed([], []) == []
    assert ending(tmp_path).splitlines() == list(places(tmp_path))


def test_pages_that_are_there_and_the_registry_are_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    results = tmp_path / "a folder" / "results"
    (results / "registry").mkdir(parents=True)
    (results / "report.html").touch()
    lines = list(places(results.parent, {}))
    assert lines[1] == f"report   {(results / 'report.html').as_uri()}" and "%20" in lines[1]
    assert lines[2].startswith("runs     make ui, then http://127.0.0.1:5000/")
    write_json(results / "registry/sync.json", {"uri": "http://mlflow.example:5000"})
    assert list(places(results.parent, {}))[2] == "runs     http://mlflow.example:5000"
    there = {"MLFLOW_TRACKING_URI": "https://user:secret@x"}
    assert "secret" not in list(places(results.parent, there))[2]
