"""Run records keep what they say through a file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskgrid.errors import ArtifactError, TrackingError
from taskgrid.store.atomic import write_json
from taskgrid.tracking.building.merges import subset_records
from taskgrid.tracking.records import (
    Artifact,
    Dataset,
    Metric,
    RunRecord,
    read_records,
    write_records,
)
from tests.unit.example_tables import Example, example


@pytest.fixture(scope="module")
def small() -> Example:
    return example(tasks=3, seeds=(0,), lambdas=("0.00", "0.30", "1.00"), steps=5)


texts = st.text(max_size=20)


numbers = st.floats(allow_nan=False, allow_infinity=False)


files = st.sampled_from(["figure.png", "results/figures/figure.pdf"])


metrics = st.builds(Metric, st.text(min_size=1, max_size=10), numbers, st.integers(-5, 10**6))


records = st.builds(
    RunRecord,
    point_id=texts,
    kind=st.sampled_from(["grid", "expert", "subset", "point"]),
    name=texts,
    parent=st.none() | texts,
    params=st.dictionaries(texts, texts, max_size=3),
    metrics=st.lists(metrics, max_size=6, unique_by=lambda m: (m.key, m.step)).map(tuple),
    tags=st.dictionaries(texts, texts, max_size=3),
    note=texts,
    datasets=st.lists(st.builds(Dataset, texts, texts, texts), max_size=2).map(tuple),
    artifacts=st.lists(st.builds(Artifact, files, texts), max_size=2).map(tuple),
    started=st.none() | st.just("2026-01-02T03:04:05+00:00"),
    seconds=st.none() | st.floats(0, 1e6),
    machine=st.dictionaries(texts, texts, max_size=3),
)


@given(records)
def test_json_keeps_the_content(record: RunRecord) -> None:
    again = RunRecord.from_json(json.loads(json.dumps(record.to_json())))
    assert again.content_key == record.content_key
    assert sorted(again.metrics) == sorted(record.metrics)
    assert (again.started, again.seconds, again.parent, again.machine) == (
        record.started,
        record.seconds,
        record.parent,
        record.machine,
    )


@given(records)
def test_times_and_places_do_not_change_the_content(record: RunRecord) -> None:
    moved = tuple(Artifact(f"/elsewhere/{Path(p).name}", sha) for p, sha in record.artifacts)
    fields = {**vars(record), "started": "2030-01-01T00:00:00+00:00", "seconds": 7.0}
    fields["machine"] = {"device": "another"}
    fields.pop("content_key", None)
    other = RunRecord(**{**fields, "artifacts": moved, "metrics": record.metrics[::-1]})
    assert other.content_key == record.content_key


@pytest.mark.parametrize(
    "change",
    [
        {"params": {"lr": "2"}},
        {"metrics": (Metric("loss", 1.0, 0),)},
        {"metrics": (Metric("loss", 2.0, 1),)},
        {"tags": {"kind": "x"}},
        {"datasets": (Dataset("a", "2", "train"),)},
        {"artifacts": (Artifact("x/f.png", "2"),)},
        {"name": "other"},
        {"parent": "grid/other"},
    ],
)
def test_everything_else_changes_the_content(change: dict[str, object]) -> None:
    base = {
        "point_id": "p",
        "kind": "expert",
        "name": "n",
        "params": {"lr": "1"},
        "metrics": (Metric("loss", 2.0, 0),),
        "datasets": (Dataset("a", "1", "train"),),
        "artifacts": (Artifact("x/f.png", "1"),),
    }
    assert RunRecord(**base).content_key != RunRecord(**{**base, **change}).content_key


def test_a_metric_that_is_not_finite_is_refused() -> None:
    with pytest.raises(TrackingError, match="metric 'loss' of p is nan at step 3"):
        RunRecord("p", "expert", "n", metrics=(Metric("loss", math.nan, 3),))


def test_file_round_trip_and_damage(tmp_path: Path, small: Example) -> None:
    written = subset_records(small.grid, small.selected, parent="grid/grid")
    path = tmp_path / "run.json"
    write_records(path, written)
    assert [r.content_key for r in read_records(path)] == [r.content_key for r in written]
    first = path.read_bytes()
    write_records(path, written)
    assert path.read_bytes() == first
    write_json(path, {"schema": 99, "records": []})
    with pytest.raises(ArtifactError, match="schema 99, not 2; delete it"):
        read_records(path)
    write_json(path, {"schema": 2, "records": [{"point_id": 3}]})
    with pytest.raises(ArtifactError, match="no file of run records"):
        read_records(path)
    path.write_bytes(first[:100])
    with pytest.raises(ArtifactError, match=r"run\.json"):
        read_records(path)


def test_artifact_digest_and_missing_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    assert Artifact.of(tmp_path / "a.json").digest == Artifact.of(tmp_path / "a.json").digest
    with pytest.raises(ArtifactError, match=r"b\.json cannot be read"):
        Artifact.of(tmp_path / "b.json")
