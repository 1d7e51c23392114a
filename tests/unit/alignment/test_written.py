"""A transported expert as files: what rules read of it, and the lineage of both bases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from taskgrid.alignment import transport
from taskgrid.alignment.aligning import AlignmentFiles, write_alignment
from taskgrid.alignment.sides import SideFiles
from taskgrid.alignment.written import transport_expert
from taskgrid.errors import LineageError
from taskgrid.experts.untrained import UntrainedFiles
from taskgrid.experts.vector import vector_of
from taskgrid.models.card import check_expert
from taskgrid.store.atomic import read_json, write_json
from taskgrid.store.tables import read_table
from taskgrid.store.weights import State, digest_state, load_state, save_state
from taskgrid.vectors import TaskVector
from tests.unit.alignment.test_door import other
from tests.unit.example_grid import World, world

SETTINGS: dict[str, Any] = {
    "model": "here",
    "mode": "theirs",
    "seed": 2,
    "task": "a",
    "source": {"model": "vit", "mode": "standard", "seed": 2},
}
ALIGNED: dict[str, Any] = {
    "aligner": "none",
    "options": {"activation": "same", "tensors": "all"},
    "seed": 2,
    "task": "",
    "calibration": {},
}


@pytest.fixture
def small() -> World:
    return world(("a",))


@pytest.fixture
def there(small: World) -> State:
    return other(small.base)


def side(folder: Path, name: str, small: World, base: State) -> SideFiles:
    card = replace(small.card, base=digest_state(base))
    files = SideFiles(folder / f"{name}.json", folder / f"{name}.safetensors")
    write_json(files.card, card.to_json())
    save_state(files.base, base, {"kind": "base", **card.lineage()})
    return files


def written(
    folder: Path, small: World, there: State, carry: str = "vector", **lineage: str
) -> UntrainedFiles:
    source, target = (
        side(folder, name, small, base)
        for name, base in (("source", small.base), ("target", there))
    )
    entries = {"kind": "expert", **small.card.lineage(), "task": "a", **lineage}
    save_state(folder / "theirs.safetensors", small.experts["a"], entries)
    aligned = folder / "bases.safetensors"
    write_alignment(AlignmentFiles(source, target), aligned, folder / "bases.json", ALIGNED)
    names = ("expert.safetensors", "expert.json", "history.parquet", "timing.json")
    out = UntrainedFiles(*(folder / name for name in names))
    settings = {**SETTINGS, "carry": carry}
    said = transport_expert(source, folder / "theirs.safetensors", target, aligned, settings, out)
    assert said.startswith(f"a: {carry} brought from base ")
    return out


def test_an_expert_stands_in_the_run_as_if_it_were_trained_there(
    tmp_path: Path, small: World, there: State
) -> None:
    out = written(tmp_path, small, there)
    state, lineage = load_state(out.expert)
    wanted = transport("none", small.base, small.experts, there)["a"]
    assert all(torch.equal(state[key], wanted[key]) for key in wanted)
    # What the rules that follow ask of it.
    card = side(tmp_path, "target", small, there).read().the_card()
    check_expert(lineage, card, "a")
    assert TaskVector.between(there, state, lineage).lineage["expert"] == lineage["digest"]
    assert read_table(out.history).num_rows == 0
    assert read_json(out.timing)["seconds"] > 0


def test_the_lineage_holds_both_bases_and_the_way(
    tmp_path: Path, small: World, there: State
) -> None:
    out = written(tmp_path, small, there)
    manifest = read_json(out.manifest)
    assert manifest == load_state(out.expert)[1]
    assert (manifest["base"], manifest["source_base"]) == (digest_state(there), small.card.base)
    assert manifest["source_expert"] == digest_state(small.experts["a"])
    assert (manifest["model"], manifest["mode"], manifest["seed"]) == ("here", "theirs", "2")
    assert (manifest["source_model"], manifest["source_mode"]) == ("vit", "standard")
    assert manifest["aligner"] == "none" and len(manifest["aligner_code"]) == 32
    assert json.loads(manifest["aligner_options"]) == ALIGNED["options"]
    aligned = read_json(tmp_path / "bases.json")
    assert (manifest["alignment"], manifest["carry"]) == (aligned["digest"], "vector")


def test_an_expert_that_is_carried_whole_keeps_its_weights_and_its_vector_is_the_rest(
    tmp_path: Path, small: World, there: State
) -> None:
    state, lineage = load_state(written(tmp_path, small, there, carry="model").expert)
    assert lineage["carry"] == "model"
    assert all(torch.equal(state[key], small.experts["a"][key]) for key in state)
    # As far from this base as another one is, which nobody else's expert may be.
    with pytest.raises(LineageError, match="does not come from this base"):
        TaskVector.between(there, state, lineage)
    vector = vector_of(there, state, lineage)
    assert vector.lineage["expert"] == lineage["digest"] and "digest" not in vector.lineage
    for key, delta in vector.deltas.items():
        assert torch.equal(delta, (state[key].double() - there[key].double()).float())
    with pytest.raises(LineageError, match="was trained from base"):
        vector_of(small.base, state, lineage)


@pytest.mark.parametrize(
    ("lineage", "words"),
    [
        ({"task": "b"}, "is the expert of task 'b', not of 'a'"),
        ({"base": "f00"}, "comes from another base weights: f00"),
        ({"activation": "quick_gelu"}, "comes from another activation function"),
    ],
)
def test_an_expert_of_something_else_is_refused(
    tmp_path: Path, small: World, there: State, lineage: dict[str, str], words: str
) -> None:
    with pytest.raises(LineageError, match=words):
        written(tmp_path, small, there, **lineage)
    assert not (tmp_path / "expert.safetensors").exists()
