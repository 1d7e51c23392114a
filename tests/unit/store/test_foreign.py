"""Files of weights are known by their bytes; what is none is called what it is."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from taskgrid.errors import ArtifactError
from taskgrid.store.foreign import check_size, kind_of
from tests.unit.example_checkpoints import STAND_INS, in_shards

ENDINGS = ["", ".safetensors", ".SAFETENSORS", ".pt", ".bin", ".v2"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_weights_are_known_whatever_their_name(tmp_path: Path, ending: str) -> None:
    state = {"a": torch.ones(3)}
    path, link = tmp_path / f"weights{ending}", tmp_path / "link"
    link.symlink_to(path)
    save_file(state, str(path))
    assert kind_of(path) == kind_of(link) == "safetensors"
    for zipped in (True, False):
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        assert kind_of(path) == "pickle"
    for protocol in range(6):
        path.write_bytes(pickle.dumps(state, protocol))
        assert kind_of(path) == "pickle", protocol
    path.write_bytes(in_shards(tmp_path / "shards", state).read_bytes())
    assert kind_of(path) == "index"


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", STAND_INS)
def test_what_is_no_weights_is_called_what_it_is(tmp_path: Path, name: str, ending: str) -> None:
    content, words = STAND_INS[name]
    path = tmp_path / f"weights{ending}"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{path.name} is {words}") as caught:
        kind_of(path)
    assert "\n" not in str(caught.value) and "damaged" not in str(caught.value)


def test_an_ending_counts_where_the_bytes_say_nothing(tmp_path: Path) -> None:
    for name, kind in {"a.safetensors": "safetensors", "b.Json": "index", "c.pt": "pickle"}.items():
        for content in (b"", bytes(100), b"\xd0\x1f\0"):
            (tmp_path / name).write_bytes(content)
            assert kind_of(tmp_path / name) == kind


def test_places_without_a_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(ArtifactError, match=r"link is missing \(a link to nowhere\)"):
        kind_of(tmp_path / "link")
    with pytest.raises(ArtifactError, match=r"gone is missing"):
        kind_of(tmp_path / "gone")
    (tmp_path / "b.safetensors").touch()
    with pytest.raises(ArtifactError, match=r"a folder; name the file of weights in it \(b\.safe"):
        kind_of(tmp_path)


def test_tensors_that_come_to_more_than_their_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(1000))
    check_size(tmp_path / "a", [1000, 1000])
    with pytest.raises(ArtifactError, match=r"4\.4e\+12 bytes, though the file has 1000"):
        check_size(tmp_path / "a", [4, 1 << 42])
