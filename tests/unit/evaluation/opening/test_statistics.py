"""Statistics from files: made, checked, in the keys of rows, and read by the methods that need them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from taskgrid.data.manifest import SplitManifest
from taskgrid.errors import LineageError
from taskgrid.evaluation import evaluate_grid
from taskgrid.evaluation.opening.engines import engine_on_demand
from taskgrid.evaluation.opening.files import GridFiles, TaskFiles, open_files
from taskgrid.evaluation.opening.references import read_method
from taskgrid.evaluation.plan.planner import Plan, make_plan
from taskgrid.evaluation.plan.runner import run_plan
from taskgrid.evaluation.plan.setting import Setting
from taskgrid.merging import merge
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.inference import logits_of
from taskgrid.results import frame_of
from taskgrid.statistics.manifest import StatisticManifest
from taskgrid.statistics.written import ShownFiles, StatisticFiles, write_statistic
from taskgrid.store.atomic import read_json, write_json
from taskgrid.store.images import ImageStore
from taskgrid.store.weights import digest_state, load_state
from tests.unit.evaluation.opening.test_files import Flow
from tests.unit.example_grid import world
from tests.unit.example_statistics import computed

NEEDS = {"fisher": "fisher", "regmean": "gram"}


def make(flow: Flow, task: str, name: str, seed: int = 0) -> Path:
    """Make a statistic; return the file of its tensors."""
    files, at = flow.files[task], flow.folder / task / name
    assert files.expert is not None
    write_statistic(
        StatisticFiles(flow.folder / "base.json", files.expert, {task: shown(files)}),
        at.with_suffix(".safetensors"),
        at.with_suffix(".json"),
        name=name,
        options={"images": 8},
        seed=seed,
    )
    known = {**flow.manifests[task].statistics, name: at.with_suffix(".json")}
    flow.manifests[task] = replace(flow.manifests[task], statistics=known)
    flow.files[task] = replace(files, statistics={name: at.with_suffix(".safetensors")})
    return at.with_suffix(".safetensors")


def shown(files: TaskFiles) -> ShownFiles:
    return ShownFiles(files.split, files.images, files.head)


def make_of_base(flow: Flow, *tasks: str, split: str = "train") -> Path:
    """Make the base's Fisher information on images of some tasks; return the file of its tensors."""
    at = flow.folder / "fisher_base"
    write_statistic(
        StatisticFiles(
            flow.folder / "base.json",
            flow.folder / "base.safetensors",
            {task: shown(flow.files[task]) for task in tasks},
        ),
        at.with_suffix(".safetensors"),
        at.with_suffix(".json"),
        name="fisher_base",
        options={"images": 8, "split": split},
    )
    return at.with_suffix(".safetensors")


def setting(flow: Flow) -> Setting:
    return flow.setting(statistics={"fisher_base": flow.folder / "fisher_base.json"})


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


def test_a_statistic_of_the_base_adds_up_its_tasks_and_is_in_the_keys(tmp_path: Path) -> None:
    flow = Flow(tmp_path, world("abc"))
    fishers = {task: load_state(make(flow, task, "fisher"))[0] for task in "ab"}
    apart = [load_state(make_of_base(flow, task))[0] for task in "bc"]
    manifest = StatisticManifest.read(tmp_path / "fisher_base.json")
    assert {"c.split", "c.head"} <= manifest.lineage.keys() and "b.head" not in manifest.lineage
    together = load_state(path := make_of_base(flow, "c", "b"))[0]
    assert int(together["images"]) == 16
    for key, tensor in together.items():
        torch.testing.assert_close(tensor, apart[0][key] + apart[1][key])
    method = read_method("ubgm", {}, 0)
    planned = make_plan(setting(flow), method, ["a+b"], ("0.70",))
    files = GridFiles(
        *(tmp_path / f"base.{kind}" for kind in ("json", "safetensors")),
        flow.files,
        statistics={"fisher_base": path},
    )
    sources = open_files(files, planned.setting, {}).sources(dict, method.needs)  # type: ignore[arg-type]
    assert sources.statistic is not None
    assert digest_state(sources.statistic("fisher_base", "")) == digest_state(together)
    assert digest_state(sources.statistic("fisher", "b")) == digest_state(fishers["b"])
    make_of_base(flow, "c")
    other = make_plan(setting(flow), method, ["a+b"], ("0.70",))
    assert other.merge_key(("a", "b")) != planned.merge_key(("a", "b"))
    with pytest.raises(LineageError, match="statistic 'fisher_base' changed after the plan"):
        open_files(files, planned.setting, {}).sources(dict, method.needs).statistic(
            "fisher_base", ""
        )  # type: ignore
    with pytest.raises(LineageError, match="needs the statistic 'fisher_base' of the base"):
        make_plan(flow.setting(), method, ["a+b"], ("0.70",))


def test_a_statistic_of_the_base_knows_what_it_was_made_from(tmp_path: Path) -> None:
    flow = Flow(tmp_path, world("ab"))
    make_of_base(flow, "b", split="test")
    assert read_method("ubgm", {}, 0, statistics=[tmp_path / "fisher_base.json"]).transductive
    known = read_json(tmp_path / "fisher_base.json")
    write_json(tmp_path / "fisher_base.json", known | {"b.head": "other"})
    with pytest.raises(LineageError, match=r"of the base comes from another b\.head: other"):
        setting(flow)
    expert = flow.files["a"].expert
    assert expert is not None
    (tmp_path / "base.safetensors").write_bytes(expert.read_bytes())
    with pytest.raises(LineageError, match="the base comes from another base weights"):
        make_of_base(flow, "b")


def test_evaluate_grid_takes_it_as_one_state() -> None:
    small = world("ab")
    fishers = {task: computed("fisher", small, task, images=4) for task in "ab"}
    of_base = {key: 3 * tensor for key, tensor in fishers["a"].items()}
    rows = evaluate_grid(
        small.base,
        small.card,
        small.tasks,
        experts=small.experts,
        methods=["ubgm"],
        subsets=["a+b"],
        lambdas=[0.7],
        statistics={"fisher": fishers, "fisher_base": of_base},
    )
    given = {"fisher": fishers, "fisher_base": of_base}
    encoder = ImageEncoder.from_card(
        small.card, merge("ubgm", small.base, small.experts, 0.7, statistics=given)
    )
    for task, own in small.tasks.items():
        right = int(
            (logits_of(encoder, own.head, own.val[0]).argmax(1).numpy() == own.val[1]).sum()
        )
        row = rows[(rows.task == task) & (rows.split == "val") & (rows.method == "ubgm")]
        assert row.correct.tolist() == [right]
