"""Statistics from files: made, checked, in the keys of rows, and read by the methods that need them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from taskgrid.data.manifest import SplitManifest
from taskgrid.errors import LineageError
from taskgrid.evaluation.opening.engines import engine_on_demand
from taskgrid.evaluation.opening.files import GridFiles, open_files
from taskgrid.evaluation.opening.references import read_method
from taskgrid.evaluation.plan.planner import Plan, make_plan
from taskgrid.evaluation.plan.runner import run_plan
from taskgrid.merging import merge
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.inference import logits_of
from taskgrid.results import frame_of
from taskgrid.statistics.written import StatisticFiles, write_statistic
from taskgrid.store.images import ImageStore
from taskgrid.store.weights import load_state
from tests.unit.evaluation.opening.test_files import Flow
from tests.unit.example_grid import world

NEEDS = {"fisher": "fisher", "regmean": "gram"}


def make(flow: Flow, task: str, name: str, seed: int = 0) -> Path:
    """Make a statistic; return the file of its tensors."""
    files, at = flow.files[task], flow.folder / task / name
    assert files.expert is not None
    write_statistic(
        StatisticFiles(
            flow.folder / "base.json", files.expert, files.split, files.images, files.head
        ),
        at.with_suffix(".safetensors"),
        at.with_suffix(".json"),
        task=task,
        name=name,
        options={"images": 8},
        seed=seed,
    )
    known = {name: at.with_suffix(".json")}
    flow.manifests[task] = replace(flow.manifests[task], statistics=known)
    flow.files[task] = replace(files, statistics={name: at.with_suffix(".safetensors")})
    return at.with_suffix(".safetensors")


def plan(flow: Flow, method: str) -> Plan:
    return make_plan(flow.setting(), read_method(method, {}, 0), ["a+b"], ("0.70",))


@pytest.mark.parametrize("method", NEEDS)
def test_rows_are_those_of_the_model_merged_by_hand(tmp_path: Path, method: str) -> None:
    flow, name = Flow(tmp_path, world("ab")), NEEDS[method]
    made = {task: load_state(make(flow, task, name))[0] for task in "ab"}
    planned = plan(flow, method)
    files = GridFiles(tmp_path / "base.json", tmp_path / "base.safetensors", flow.files)
    material = open_files(files, planned.setting, {})
    with engine_on_demand(
        material, planned.setting, planned.method, device="cpu", batch_size=64
    ) as opened:
        rows = frame_of(run_plan(planned, flow.store, opened).table)
    small = flow.small
    state = merge(method, small.base, small.experts, 0.7, statistics={name: made})
    encoder = ImageEncoder.from_card(small.card, state)
    for task in "ab":
        store = ImageStore.open(flow.files[task].images)
        chosen = store.rows(SplitManifest.read(flow.files[task].split).ids("val"))
        logits = logits_of(encoder, small.tasks[task].head, store.pixels[chosen])
        right = int((logits.argmax(1) == torch.from_numpy(store.labels[chosen])).sum())
        row = rows[(rows.task == task) & (rows.split == "val") & (rows.method == method)]
        assert row.correct.tolist() == [right]


def test_a_statistic_drawn_anew_gives_new_keys(tmp_path: Path) -> None:
    flow = Flow(tmp_path, world("ab"))
    for task in "ab":
        make(flow, task, "fisher")
    first = plan(flow, "fisher").merge_key(("a", "b"))
    make(flow, "b", "fisher")
    assert plan(flow, "fisher").merge_key(("a", "b")) == first
    make(flow, "b", "fisher", seed=1)
    assert plan(flow, "fisher").merge_key(("a", "b")) != first


def test_a_statistic_of_an_older_expert_is_refused(tmp_path: Path) -> None:
    flow = Flow(tmp_path, world("ab"))
    for task in "ab":
        make(flow, task, "gram")
    known = flow.manifests["a"].statistics
    flow.manifests["b"] = replace(flow.manifests["b"], statistics=known)
    with pytest.raises(LineageError, match="'gram' of task 'b' was made from expert"):
        flow.setting()


def test_a_missing_statistic_is_named_before_anything_is_measured(tmp_path: Path) -> None:
    flow = Flow(tmp_path, world("ab"))
    make(flow, "a", "gram")
    with pytest.raises(LineageError, match="needs the statistic 'gram' of task 'b'"):
        plan(flow, "regmean").merge_key(("a", "b"))
