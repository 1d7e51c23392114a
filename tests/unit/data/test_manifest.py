"""Manifests of images and splits: what they hold, and who depends on them alone."""

import json
from pathlib import Path

import pytest

from taskgrid import plugins
from taskgrid.data.manifest import DatasetManifest, SplitManifest
from taskgrid.data.splits import make_split
from taskgrid.errors import ArtifactError
from taskgrid.provenance.code import code_closure
from taskgrid.store.atomic import write_json
from taskgrid.store.images import ImageIndex

SCRIPTS = Path(__file__).parents[3] / "scripts"
ROOM = "taskgrid.data."


def pets() -> SplitManifest:
    """A split of 65 images, two of which have the same pixels."""
    ids = tuple(f"{n:05d}" for n in range(65))
    origins = ("train",) * 60 + ("test",) * 5
    digests = tuple(f"pixels of {max(n, 1)}" for n in range(65))
    index = ImageIndex(ids, tuple(n % 2 for n in range(65)), origins, digests)
    return make_split("pets", index, ("cat", "dog"))


def room(script: str, *modules: str) -> set[str]:
    """The modules of the room that a script's results depend on."""
    closure = code_closure(SCRIPTS / f"{script}.py", *modules)
    return {name.removeprefix(ROOM) for name in closure if name.startswith(ROOM)}


@pytest.mark.parametrize(
    "script",
    [
        *("finetune", "head", "merge", "eval", "reference", "export", "predict", "continuous"),
        *("precision", "verify_expert", "record_block", "margins"),
    ],
)
def test_what_comes_after_the_data_depends_on_their_manifests_alone(script: str) -> None:
    kinds: tuple[plugins.Kind, ...] = ("mode", "merger", "study")
    chosen = [plugins.module_of(kind, name) for kind in kinds for name in plugins.names(kind)]
    assert room(script, *chosen) <= {"manifest"}


def test_a_split_depends_on_no_source() -> None:
    assert room("split") == {"manifest", "splits"}


def test_decoding_depends_on_the_chosen_source_and_on_no_configuration() -> None:
    closure = code_closure(SCRIPTS / "dataset.py", plugins.module_of("source", "npz"))
    assert f"{ROOM}sources.npz" in closure
    others = {"builtin", "folder", "parquet", "published"}
    assert not {f"{ROOM}sources.{name}" for name in others} & set(closure)
    assert not [name for name in closure if name.startswith("taskgrid.config")]


def test_a_split_manifest_is_written_and_read(tmp_path):
    path = tmp_path / "pets.json"
    found = pets()
    found.write(path)
    assert SplitManifest.read(path) == found
    value = json.loads(path.read_text())
    assert value["counts"] == found.counts
    assert value["train"] == list(found.train)
    assert found.ids("val") == found.val


@pytest.mark.parametrize("split_name", ["train", "val", "test"])
def test_an_altered_split_manifest_is_refused(tmp_path, split_name):
    path = tmp_path / "pets.json"
    pets().write(path)
    value = json.loads(path.read_text())
    value[split_name].pop()
    path.write_text(json.dumps(value))
    with pytest.raises(
        ArtifactError, match=r"pets\.json is damaged \(its bytes do not match its seal"
    ):
        SplitManifest.read(path)
    del value["seal"]
    write_json(path, value)
    with pytest.raises(ArtifactError, match=r"pets\.json is damaged \(its ids have digest"):
        SplitManifest.read(path)


@pytest.mark.parametrize("value", [{}, {"task": "pets"}, {"counts": {}, "train": 3}])
def test_a_file_that_is_no_split_manifest_is_refused(tmp_path, value):
    path = tmp_path / "pets.json"
    write_json(path, value)
    with pytest.raises(ArtifactError, match=r"pets\.json .*is no split manifest"):
        SplitManifest.read(path)


def test_a_dataset_manifest_of_something_else_is_refused(tmp_path):
    write_json(tmp_path / "dataset.json", {"task": "pets"})
    with pytest.raises(ArtifactError, match=r"dataset\.json .*is no manifest of a dataset"):
        DatasetManifest.read(tmp_path / "dataset.json")
