"""Artefacts: whole or absent, checked when read."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from taskgrid.errors import ArtifactError
from taskgrid.store.atomic import atomic_path, read_foreign_json, read_json, write_json, write_text
from taskgrid.store.weights import digest_state, load_state, read_lineage, save_state


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert leftovers(target.parent) == ["file.txt"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    write_text(target, "old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert target.read_text() == "old"
    assert leftovers(tmp_path) == ["file.txt"]


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only")]
)
def test_the_file_systems_refusal_is_explained(tmp_path: Path, code: int, words: str) -> None:
    with pytest.raises(ArtifactError, match=words) as caught, atomic_path(tmp_path / "x"):
        raise OSError(code, "no")
    assert "x" in str(caught.value)
    assert leftovers(tmp_path) == []


KILLED = """
import sys, time
from taskgrid.store.atomic import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("half", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_writer_left_goes_with_the_next_writing(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    command = [sys.executable, "-c", KILLED, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "half\n"
        write_text(target, "while it lives, its file is left alone")
        assert len(leftovers(tmp_path)) == 2
        process.kill()
    others = [".file.txt.abcdefg.tmp", ".file.txt.whole", ".other.txt.abcdefgh.tmp"]
    for name in others:
        (tmp_path / name).touch()
    write_text(target, "whole")
    assert leftovers(tmp_path) == sorted([*others, "file.txt"])


def test_a_file_that_is_taken_for_a_leftover_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, names = tempfile.mkstemp, []

    def stolen(**options: Any) -> tuple[int, str]:
        handle, name = real(**options)
        names.append(name)
        if len(names) == 1:
            Path(name).unlink()
        return handle, name

    monkeypatch.setattr(tempfile, "mkstemp", stolen)
    write_text(tmp_path / "x", "whole")
    assert len(names) == 2 and (tmp_path / "x").read_text() == "whole"
    assert leftovers(tmp_path) == ["x"]


def test_a_folder_that_is_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(ArtifactError, match="cannot write"):
        write_text(tmp_path / "results" / "x", "")


def test_files_are_as_readable_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "x", "")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_json_bytes_do_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"x": 1, "y": [2.5]})
    write_json(tmp_path / "b", {"y": [2.5], "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_json(tmp_path / "a") == {"x": 1, "y": [2.5]}


def test_bad_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"bad\.json is damaged \(it carries no seal"):
        read_json(tmp_path / "bad.json")
    for text in ("{", "[" * 100_000, "\xff"):
        (tmp_path / "bad.json").write_text(text, encoding="latin-1")
        with pytest.raises(ArtifactError, match=r"bad\.json cannot be read"):
            read_foreign_json(tmp_path / "bad.json")
    with pytest.raises(ArtifactError, match=r"none\.json is missing"):
        read_json(tmp_path / "none.json")


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "conv1.weight": torch.randn(4, 3, 2, 2, generator=generator),
        "proj": torch.randn(4, 2, generator=generator),
        "count": torch.arange(3),
        "scalar": torch.tensor(1.5),
    }


def test_weights_and_lineage_come_back(tmp_path: Path) -> None:
    content = save_state(tmp_path / "w.safetensors", state(), {"kind": "expert", "task": "digits"})
    loaded, lineage = load_state(tmp_path / "w.safetensors")
    assert lineage == {"kind": "expert", "task": "digits", "digest": content}
    assert read_lineage(tmp_path / "w.safetensors") == lineage
    assert loaded.keys() == state().keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state().items())


def test_equal_weights_give_equal_files(tmp_path: Path) -> None:
    save_state(tmp_path / "a", state(), {"x": "1", "y": "2"})
    save_state(tmp_path / "b", dict(reversed(state().items())), {"y": "2", "x": "1"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@given(st.sampled_from(["proj", "count", "scalar"]), st.data())
def test_a_digest_sees_every_byte_name_shape_and_dtype(name: str, data: st.DataObject) -> None:
    original = digest_state(state())
    changed = state()
    raw = changed[name].reshape(-1).view(torch.uint8)
    raw[data.draw(st.integers(0, raw.numel() - 1))] ^= 1
    assert digest_state(changed) != original
    renamed = {("other" if key == name else key): value for key, value in state().items()}
    assert digest_state(renamed) != original
    reshaped = {**state(), "proj": state()["proj"].reshape(2, 4)}
    assert digest_state(reshaped) != original


@pytest.mark.parametrize("damage", ["truncate", "flip", "header", "empty"])
def test_damage_is_found_and_the_file_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "expert.safetensors"
    save_state(path, state(), {"kind": "expert"})
    raw = bytearray(path.read_bytes())
    if damage == "truncate":
        raw = raw[:-5]
    elif damage == "flip":
        raw[-3] ^= 0x40
    elif damage == "header":
        raw[0] ^= 0xFF
    else:
        raw = bytearray()
    path.write_bytes(raw)
    with pytest.raises(ArtifactError, match=r"expert\.safetensors is damaged"):
        load_state(path)


def test_foreign_weights_are_not_taken_for_ours(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "foreign.safetensors")
    with pytest.raises(ArtifactError, match="no lineage"):
        load_state(tmp_path / "foreign.safetensors")
    with pytest.raises(ArtifactError, match="missing"):
        load_state(tmp_path / "none.safetensors")


def test_one_flipped_bit_of_weights_is_seen_or_without_effect(tmp_path: Path) -> None:
    path, draw = tmp_path / "expert.safetensors", random.Random(0)
    save_state(path, state(), {"kind": "expert", "task": "digits"})
    content, (loaded, lineage), seen = path.read_bytes(), load_state(path), 0
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            again, said = load_state(path)
        except ArtifactError as error:
            assert "expert.safetensors" in str(error)
            seen += 1
        else:
            # Spaces that fill the header up.
            assert said == lineage and digest_state(again) == digest_state(loaded)
    assert seen > len(content) - 8


def test_a_lineage_is_checked_without_its_tensors(tmp_path: Path) -> None:
    path = tmp_path / "expert.safetensors"
    save_state(path, state(), {"kind": "expert", "task": "digits"})
    path.write_bytes(path.read_bytes().replace(b"digits", b"digitz"))
    with pytest.raises(ArtifactError, match=r"expert\.safetensors is damaged \(its lineage has"):
        read_lineage(path)
