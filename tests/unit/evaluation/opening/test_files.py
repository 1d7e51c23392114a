"""From files to rows as the rules do it: manifests, plan, files, engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from taskgrid.data.manifest import DatasetManifest
from taskgrid.data.splits import SplitRule, make_split
from taskgrid.errors import ArtifactError, LineageError
from taskgrid.evaluation import EvaluationTask, evaluate_grid
from taskgrid.evaluation.engine.material import Material
from taskgrid.evaluation.opening.engines import engine_on_demand
from taskgrid.evaluation.opening.files import GridFiles, TaskFiles, open_files
from taskgrid.evaluation.opening.references import TaskManifests, read_method, read_setting
from taskgrid.evaluation.plan.planner import Plan, make_plan
from taskgrid.evaluation.plan.runner import Result, run_plan, run_reference
from taskgrid.evaluation.plan.setting import Setting
from taskgrid.provenance import digest_file
from taskgrid.results import frame_of
from taskgrid.store.atomic import write_json
from taskgrid.store.images import ImageStore, PreparedImage, pixel_digest, write_images
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.weights import load_state, save_state
from taskgrid.vectors import TaskVector
from tests.unit.example_grid import SIZE, World, world

LAMBDAS = ("0.00", "0.50", "1.00")


class Flow:
    """The files of a small grid, and the two steps that turn them into rows."""

    def __init__(self, folder: Path, small: World) -> None:
        self.folder, self.small = folder, small
        self.files: dict[str, TaskFiles] = {}
        self.manifests: dict[str, TaskManifests] = {}
        save_state(folder / "base.safetensors", small.base, small.card.lineage())
        write_json(folder / "base.json", small.card.to_json())
        for task in small.tasks:
            self._write(task)

    def _write(self, task: str) -> None:
        at, small = self.folder / task, self.small
        at.mkdir()
        files = TaskFiles(
            *(at / n for n in ("images.arrow", "split.json", "head", "expert", "tau"))
        )
        names = ("dataset.json", "split.json", "head.json", "tau.json", "expert.json")
        manifests = TaskManifests(*(at / name for name in names))
        self.files[task], self.manifests[task] = files, manifests
        random = np.random.default_rng(len(task) + ord(task[0]))
        # The file's order is not the split's: ids are sorted there.
        names = [f"{random.integers(10**9)}" for _ in range(60)]
        index = write_images(
            files.images,
            (
                PreparedImage(name, int(label), "train" if i < 40 else "test", pixel_digest(p), p)
                for i, (name, label, p) in enumerate(
                    zip(
                        names,
                        random.integers(0, 4, 60),
                        random.integers(0, 256, (60, SIZE, SIZE, 3), dtype=np.uint8),
                        strict=True,
                    )
                )
            ),
            SIZE,
        )
        dataset = DatasetManifest(
            task=task,
            classes=tuple("wxyz"),
            templates=("a {}",),
            counts={"train": 40, "test": 20},
            digest=index.content_digest(),
            images=digest_file(files.images),
            image_size=SIZE,
            interpolation="bicubic",
        )
        write_json(manifests.dataset, dataset.__dict__)
        split = make_split(task, index, dataset.classes)
        split.write(files.split)
        head = self.small.tasks[task].head
        head_digest = head.save(files.head)
        write_json(manifests.head, {**head.lineage, "digest": head_digest})
        lineage = {
            **small.card.lineage(),
            "kind": "expert",
            "task": task,
            "split": split.digest,
            "head": head_digest,
        }
        assert files.expert is not None
        assert files.vector is not None
        assert manifests.expert is not None
        assert manifests.vector is not None
        expert = save_state(files.expert, small.experts[task], lineage)
        write_json(manifests.expert, {**lineage, "digest": expert})
        vector = TaskVector.between(small.base, small.experts[task], {**lineage, "digest": expert})
        write_json(manifests.vector, {**vector.lineage, "digest": vector.save(files.vector)})

    def setting(self, **more: Any) -> Setting:
        return read_setting(
            model="model",
            mode="standard",
            seed=0,
            precision="fp32",
            card=self.small.card,
            tasks=self.manifests,
            **more,
        )

    def plan(self) -> Plan:
        return make_plan(
            self.setting(), read_method("task_arithmetic", {}, 0), ["a", "a+b"], LAMBDAS
        )

    def material(self, setting: Setting) -> Material:
        at = self.folder
        files = GridFiles(at / "base.json", at / "base.safetensors", self.files)
        return open_files(files, setting, {})

    def reference(self) -> Result:
        setting = self.setting()
        with engine_on_demand(self.material(setting), setting, device="cpu", batch_size=8) as bench:
            return run_reference(setting, self.store, bench)

    def run(self, plan: Plan | None = None) -> Result:
        plan = plan or self.plan()
        material = self.material(plan.setting)
        with engine_on_demand(
            material, plan.setting, plan.method, device="cpu", batch_size=8
        ) as bench:
            return run_plan(plan, self.store, bench)

    @property
    def store(self) -> OutcomeStore:
        return OutcomeStore(self.folder / "store")


@pytest.fixture
def flow(tmp_path: Path) -> Flow:
    return Flow(tmp_path, world("ab"))


def examples(flow: Flow, task: str, split: str) -> tuple[Any, Any]:
    import json

    files = flow.files[task]
    store, manifest = ImageStore.open(files.images), json.loads(files.split.read_text())
    rows = store.rows(manifest[split])
    return store.pixels[rows], store.labels[rows]


def test_files_give_the_rows_that_memory_gives(flow: Flow) -> None:
    small = flow.small
    tasks = {
        task: EvaluationTask(
            small.tasks[task].head, examples(flow, task, "val"), examples(flow, task, "test")
        )
        for task in "ab"
    }
    expected = evaluate_grid(
        small.base,
        small.card,
        tasks,
        experts=small.experts,
        subsets=[["a"], ["a", "b"]],
        lambdas=LAMBDAS,
        batch_size=8,
    ).drop(columns="key")
    found = [flow.reference().table, flow.run().table]
    for table in found:
        frame = frame_of(table).drop(columns="key")
        part = expected[expected["method"].isin(frame["method"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(frame, part)


def test_a_second_run_opens_no_file_of_weights(flow: Flow) -> None:
    flow.run()
    for files in flow.files.values():
        assert files.vector is not None
        files.vector.unlink()
        files.images.unlink()
    assert flow.run().evaluated == 0


def test_a_block_finds_the_experts_that_the_reference_measured(flow: Flow) -> None:
    flow.reference()
    flow.files = {task: replace(files, expert=None) for task, files in flow.files.items()}
    assert flow.run().evaluated > 0


def test_without_expert_and_reference_the_sentence_says_which_rule_to_run(flow: Flow) -> None:
    flow.files = {task: replace(files, expert=None) for task, files in flow.files.items()}
    with pytest.raises(LineageError, match="expert of task 'a' are not in the store; run the ref"):
        flow.run()


@pytest.mark.parametrize("what", ["vector", "expert", "head", "base"])
def test_files_that_changed_after_the_plan_are_refused(what: str, flow: Flow) -> None:
    plan, setting = flow.plan(), flow.setting()
    path = flow.folder / "base.safetensors" if what == "base" else getattr(flow.files["a"], what)
    state, lineage = load_state(path)
    lineage.pop("digest")
    save_state(path, {name: tensor + 1 for name, tensor in state.items()}, lineage)
    with pytest.raises(
        LineageError, match=r"changed after the plan was made \(digest \w{32}, planned"
    ):
        flow.run(plan)
    assert flow.setting() == setting


def test_images_that_changed_after_the_plan_are_refused(flow: Flow) -> None:
    plan = flow.plan()
    flow.files["a"] = replace(flow.files["a"], images=flow.files["b"].images)
    with pytest.raises(LineageError, match="the images of task 'a' changed"):
        flow.run(plan)


def test_a_split_that_changed_after_the_plan_is_refused(flow: Flow) -> None:
    plan = flow.plan()
    index = ImageStore.open(flow.files["a"].images).index
    other = make_split("a", index, tuple("wxyz"), SplitRule(seed=1))
    assert len(other.val) == plan.setting.tasks["a"].parts["val"].n
    other.write(flow.files["a"].split)
    with pytest.raises(LineageError, match="the val split of task 'a' changed"):
        flow.run(plan)


def test_a_damaged_file_is_named(flow: Flow) -> None:
    plan = flow.plan()
    path = flow.files["b"].vector
    assert path is not None
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="tau is damaged"):
        flow.run(plan)
    # What was measured before it is kept.
    assert flow.store.find(
        request.key for task in "ab" for request in [plan.setting.zeroshot(task, "val")]
    )
