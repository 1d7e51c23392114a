"""Experts as files: what is read, what is written, and what it is known by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taskgrid.data.manifest import DatasetManifest, SplitManifest
from taskgrid.data.splits import make_split
from taskgrid.errors import LineageError
from taskgrid.finetuning.loop import OtherTasks
from taskgrid.finetuning.written import ExpertFiles, TrainingFiles, train_expert
from taskgrid.models.clip import Clip
from taskgrid.store.atomic import read_json, write_json
from taskgrid.store.images import ImageStore, PreparedImage, pixel_digest, write_images
from taskgrid.store.weights import digest_state, load_state, save_state
from tests.unit.example_models import SIZE, tiny_head, tiny_samples
from tests.unit.example_training import SHORT, Samples, run

RECIPE = replace(SHORT, crop_scale=1.0)


@pytest.fixture(autouse=True)
def _made(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = {name: f"{__package__}.modes.{name}" for name in ("other_images", "other_statistic")}
    monkeypatch.setattr("taskgrid.plugins.registry._outside", lambda: {"mode": modes})


def task_files(folder: Path, task: str, seed: int) -> dict[str, Path]:
    """Write the images and the split of a task."""
    at = folder / task
    at.mkdir()
    samples = tiny_samples(40, seed=seed)
    files = {
        name: at / file
        for name, file in (
            ("images", "images.arrow"),
            ("split", "split.json"),
            ("dataset", "dataset.json"),
            ("originals", "train.arrow"),
        )
    }
    index = write_images(
        files["images"],
        [
            PreparedImage(f"{i}", int(samples.labels[i]), "train", pixel_digest(pixels), pixels)
            for i, pixels in enumerate(np.asarray(samples.pixels))
        ],
        SIZE,
    )
    dataset = DatasetManifest(
        task=task,
        classes=("cat", "dog", "house"),
        templates=("a {}",),
        counts={"train": 40},
        digest=index.content_digest(),
        images="",
        image_size=SIZE,
        interpolation="bicubic",
    )
    write_json(files["dataset"], dataset.__dict__)
    make_split(task, index, dataset.classes).write(files["split"])
    return files


def images_of(files: dict[str, Path], name: Any) -> Samples:
    store = ImageStore.open(files["images"])
    rows = store.rows(SplitManifest.read(files["split"]).ids(name))
    return Samples(store.pixels[rows], store.labels[rows])


class Desk:
    """The files of a fine-tuning on `pets`, beside two other tasks."""

    def __init__(self, folder: Path, clip: Clip) -> None:
        self.folder, self.clip = folder, clip
        write_json(folder / "base.json", clip.card().to_json())
        save_state(folder / "base.safetensors", clip.visual_state(), clip.card().lineage())
        tiny_head(clip).save(folder / "head")
        self.tasks = {
            name: task_files(folder, name, seed)
            for seed, name in enumerate(("pets", "birds", "cars"))
        }

    def train(self, mode: str, others: dict[str, dict[str, Path]] | None = None) -> ExpertFiles:
        at = self.folder / mode
        out = ExpertFiles(at / "e.safetensors", at / "e.json", at / "h.parquet", at / "t.json")
        settings = {
            **{"model": "m", "task": "pets", "mode": mode, "mode_label": mode, "mode_options": {}},
            **{"seed": 0, "recipe": RECIPE.to_json()},
        }
        files = TrainingFiles(
            card=self.folder / "base.json",
            base=self.folder / "base.safetensors",
            head=self.folder / "head",
            **self.tasks["pets"],
            others=others or {},
        )
        train_expert(files, out, settings, device="cpu", scratch=self.folder / "scratch")
        return out

    def in_memory(self, mode: str, **options: Any) -> Any:
        data, val = (images_of(self.tasks["pets"], name) for name in ("train", "val"))
        return run(self.clip, RECIPE, mode=mode, data=data, val=val, **options)


@pytest.fixture
def desk(tmp_path: Path, clip: Clip) -> Desk:
    return Desk(tmp_path, clip)


def test_factors_lie_beside_the_expert_and_the_manifest_knows_them(desk: Desk) -> None:
    out = desk.train("lora")
    expected = desk.in_memory("lora")
    state, lineage = load_state(out.expert)
    assert digest_state(state) == digest_state(expected.state)
    factors, of_factors = load_state(out.factors)
    assert digest_state(factors) == digest_state(expected.factors) == of_factors["digest"]
    assert read_json(out.manifest)["factors"] == of_factors["digest"]
    assert of_factors == {**lineage, "kind": "factors", "digest": of_factors["digest"]}


def test_a_mode_without_factors_writes_none(desk: Desk) -> None:
    out = desk.train("standard")
    assert not out.factors.exists()
    manifest = read_json(out.manifest)
    assert not {"factors", "others"} & set(manifest)
    assert manifest["digest"] == digest_state(desk.in_memory("standard").state)


def test_images_of_other_tasks_are_their_training_images_and_are_in_the_lineage(desk: Desk) -> None:
    others = {task: desk.tasks[task] for task in ("birds", "cars")}
    first = read_json(desk.train("other_images", others).manifest)
    samples = {task: images_of(files, "train") for task, files in others.items()}
    expected = desk.in_memory("other_images", others=OtherTasks(samples))
    assert first["digest"] == digest_state(expected.state)
    fewer = read_json(desk.train("other_images", {"birds": others["birds"]}).manifest)
    assert fewer["others"] != first["others"]
    assert fewer["digest"] != first["digest"]


def test_statistics_of_other_tasks_are_read_and_are_in_the_lineage(desk: Desk) -> None:
    base = desk.clip.visual_state()
    found = []
    for size in (300.0, 301.0):
        states = {task: {k: size * t.abs() for k, t in base.items()} for task in ("birds", "cars")}
        others = {}
        for task, state in states.items():
            path = desk.folder / f"{task}.safetensors"
            save_state(path, state, {"kind": "statistic"})
            others[task] = {"importance": path}
        manifest = read_json(desk.train("other_statistic", others).manifest)
        expected = desk.in_memory(
            "other_statistic", others=OtherTasks(statistics={"importance": states})
        )
        assert manifest["digest"] == digest_state(expected.state)
        found.append(manifest)
    assert found[0]["others"] != found[1]["others"]


def test_images_of_another_task_train_nothing_though_their_ids_are_the_same(desk: Desk) -> None:
    desk.tasks["pets"]["images"].write_bytes(desk.tasks["birds"]["images"].read_bytes())
    with pytest.raises(LineageError, match="the split of task 'pets' was made from other images"):
        desk.train("standard")
