"""Saved views name what records hold, in the form that MLflow's pages read."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qs, urlsplit

import pytest

from taskgrid.tracking.building.experts import expert_record, with_test_scores
from taskgrid.tracking.building.merges import subset_records
from taskgrid.tracking.records import RecordKind
from taskgrid.tracking.views import VIEWS, View, pages
from tests.unit.example_tables import example

EVERY = [(kind, view) for kind, views in VIEWS.items() for view in views]
OF_MLFLOW = {"Duration", "Dataset"}


@pytest.fixture(scope="module")
def there() -> dict[RecordKind, set[str]]:
    """Return the metrics and tags that runs of each kind have."""
    tables = example(tasks=2, seeds=(0,), lambdas=("0.00", "1.00"), steps=3)
    history = [(1, "train/loss", 1.0), (1, "val/accuracy", 0.5)]
    trained = expert_record(
        {}, {"model": "small-clip", "task": "digits", "mode": "standard", "seed": 0}, history
    )
    found = {
        "subset": subset_records(tables.grid, tables.selected),
        "expert": with_test_scores([trained], tables.grid),
    }
    return {
        kind: {key for one in records for key in (*one.tags, *(m.key for m in one.metrics))}
        for kind, records in found.items()
    }


@pytest.mark.parametrize(("kind", "view"), EVERY, ids=lambda each: getattr(each, "key", each))
def test_a_view_shows_what_is_there(
    kind: RecordKind, view: View, there: dict[RecordKind, set[str]]
) -> None:
    named = {name for _, name, _ in view.columns} | {view.sort}
    for chart in view.charts:
        named |= {chart[key]["key"] for key in ("xaxis", "yaxis") if key in chart}
        named |= {chart[key] for key in ("metricKey", "selectedXAxisMetricKey") if key in chart}
    assert named <= there[kind] | OF_MLFLOW


@pytest.mark.parametrize(("kind", "view"), EVERY, ids=lambda each: getattr(each, "key", each))
def test_a_view_is_what_the_pages_read(kind: RecordKind, view: View) -> None:
    saved = json.loads(view.value(1))
    assert saved["name"] == view.name and isinstance(saved["createdAt"], int)
    state = json.loads(saved["state"])
    (section,) = state["compareRunSections"]
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == {section["uuid"]}
    uuids = [chart["uuid"] for chart in state["compareRunCharts"]]
    assert len(set(uuids)) == len(uuids) == len(view.charts)
    for column in state["selectedColumns"]:
        assert re.fullmatch(r"(metrics|tags|params|attributes)\.`[^`]+`", column)
    # As much as MLflow takes as a tag of an experiment.
    assert len(view.tag) <= 250 and len(view.value(1)) <= 20000


def test_links_open_the_runs_with_the_view_and_its_charts() -> None:
    found = dict(pages({"subset": "3", "expert": "2"}))
    assert list(found) == ["Chosen points", "Curves over λ", "Experts"]
    link = urlsplit(found["Curves over λ"].removeprefix("/#"))
    assert link.path == "/experiments/3/runs"
    assert parse_qs(link.query) == {
        "workflowType": ["machine_learning"],
        "viewStateShareKey": ["curves"],
        "compareRunsMode": ["CHART"],
    }
    assert dict(pages({})) == {}
