"""Alignments from files: the images that are chosen, what the manifest says, and the transport by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from taskgrid.alignment import transport
from taskgrid.alignment.aligning import AlignmentFiles, write_alignment
from taskgrid.alignment.kept import read_transport
from taskgrid.alignment.sides import SideFiles
from taskgrid.data.manifest import SplitManifest
from taskgrid.errors import LineageError
from taskgrid.models.card import ModelCard
from taskgrid.provenance.digests import derive_seed
from taskgrid.statistics.seam import Examples, chosen_rows
from taskgrid.statistics.written import ShownFiles
from taskgrid.store.atomic import read_json
from taskgrid.store.images import ImageStore
from taskgrid.store.weights import digest_state
from tests.unit.alignment.test_door import other
from tests.unit.alignment.test_written import side
from tests.unit.alignment.toys import looking
from tests.unit.evaluation.opening.test_files import Flow
from tests.unit.example_grid import world

SETTINGS: dict[str, Any] = {
    "aligner": "looking",
    "options": {"labels": True},
    "seed": 2,
    "task": "a",
    "calibration": {"images": 8, "draw": 0},
}


class Desk:
    """The files of an alignment: experts of the flow's base are brought to another one."""

    def __init__(self, folder: Path) -> None:
        self.flow = Flow(folder, world(("a", "b")))
        small = self.flow.small
        self.there = other(small.base)
        self.source = SideFiles(folder / "base.json", folder / "base.safetensors")
        self.target = side(folder, "target", small, self.there)
        self.out, self.manifest = folder / "bases.safetensors", folder / "bases.json"

    def align(self, *tasks: str, heads: bool = True, **changes: Any) -> dict[str, Any]:
        """Write an alignment that is shown images of some tasks; return its manifest."""
        settings = {**SETTINGS, **changes}
        shown = {
            task: ShownFiles(
                self.flow.files[task].split,
                self.flow.files[task].images,
                self.flow.files[task].head if heads else None,
            )
            for task in tasks
        }
        expert = self.flow.files["a"].expert if settings["task"] else None
        files = AlignmentFiles(self.source, self.target, expert, shown)
        said = write_alignment(files, self.out, self.manifest, settings)
        found: dict[str, Any] = read_json(self.manifest)
        assert found["digest"] in said
        return found


@pytest.fixture
def desk(tmp_path: Path, toys: None) -> Desk:
    return Desk(tmp_path)


def rows_shown(at: int = -1) -> list[np.ndarray]:
    return [np.asarray(batch.pixels) for batch in looking.SHOWN[at].batches()]


def test_it_is_the_transport_by_hand_on_the_chosen_training_images(desk: Desk) -> None:
    manifest, small, files = desk.align("a"), desk.flow.small, desk.flow.files["a"]
    store, split = ImageStore.open(files.images), SplitManifest.read(files.split)
    train = store.rows(split.ids("train"))
    rows = train[chosen_rows(len(train), 8, derive_seed("alignment", 2, 0, "a"))]
    assert len(rows) == 8
    by_hand = transport(
        "looking",
        small.base,
        {"a": small.experts["a"]},
        desk.there,
        source_card=small.card,
        target_card=ModelCard.from_json(read_json(desk.target.card)),
        images={"a": Examples(store.pixels[rows], store.labels[rows])},
        heads={"a": small.tasks["a"].head},
        seed=2,
        labels=True,
    )["a"]
    ends = desk.source.read().end, desk.target.read().end
    found, lineage = read_transport(desk.out, *ends)
    vector = {
        key: (small.experts["a"][key].double() - tensor.double()).float()
        for key, tensor in small.base.items()
    }
    moved = found.expert(desk.there, vector)
    assert all(torch.equal(moved[key], by_hand[key]) for key in by_hand)
    assert lineage["digest"] == manifest["digest"]


def test_the_manifest_says_what_was_seen(desk: Desk) -> None:
    found, small = desk.align("a", "b"), desk.flow.small
    assert (found["base"], found["source_base"]) == (digest_state(desk.there), small.card.base)
    assert (found["kind"], found["aligner"], found["seed"]) == ("alignment", "looking", "2")
    assert json.loads(found["aligner_options"]) == {"labels": True}
    assert json.loads(found["calibration"]) == {"images": 8, "draw": 0}
    assert found["source_expert"] == digest_state(small.experts["a"])
    for task in "ab":
        split = SplitManifest.read(desk.flow.files[task].split)
        assert found[f"{task}.split"] == split.digest and found[f"{task}.head"]
    plain = desk.align(
        aligner="none", options={"activation": "same", "tensors": "all"}, task="", calibration={}
    )
    assert not {"task", "source_expert", "a.split"} & plain.keys() and plain["calibration"] == "{}"


def test_more_images_contain_the_fewer_and_another_draw_has_others(desk: Desk) -> None:
    def drawn(images: int, draw: int) -> set[bytes]:
        desk.align("a", calibration={"images": images, "draw": draw})
        return {image.tobytes() for batch in rows_shown() for image in batch}

    four, sixteen, others = drawn(4, 0), drawn(16, 0), drawn(4, 1)
    assert four < sixteen and (len(four), len(sixteen)) == (4, 16)
    assert len(others) == 4 and others != four
    split = SplitManifest.read(desk.flow.files["a"].split)
    store = ImageStore.open(desk.flow.files["a"].images)
    train = {image.tobytes() for image in store.pixels[store.rows(split.ids("train"))]}
    assert drawn(0, 0) == train


def test_images_beside_the_tasks_own_change_nothing_of_those_that_were_named(desk: Desk) -> None:
    alone = desk.align("b")
    shown = rows_shown()
    assert [batch.task for batch in looking.SHOWN[-1].batches()] == ["b"]
    assert alone["digest"] == desk.align("b")["digest"]
    assert all(np.array_equal(*pair) for pair in zip(shown, rows_shown(), strict=True))


def test_without_labels_no_head_is_needed(desk: Desk) -> None:
    found = desk.align("a", heads=False, options={"labels": False})
    assert "a.head" not in found
    assert all((batch.labels == -1).all() for batch in looking.SHOWN[-1].batches())


def test_an_expert_of_another_task_is_refused_before_anything_is_written(desk: Desk) -> None:
    with pytest.raises(LineageError, match="is the expert of task 'a', not of 'b'"):
        desk.align("b", task="b")
    assert not desk.out.exists()
