"""Checkpoints as byte ranges: read like safetensors reads them, written like save_state writes them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from taskgrid.errors import ArtifactError
from taskgrid.outofcore.checked import load_weights
from taskgrid.outofcore.shards import (
    DTYPES,
    TensorReader,
    TensorSpec,
    WeightFiles,
    index_path,
    shard_of,
)
from taskgrid.outofcore.streams import check_space, write_stream
from taskgrid.store.weights import State, digest_state, load_state, save_state

LINEAGE = {"kind": "merged", "base": "ab" * 16}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for disks."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def filled(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Any bytes at all, but zeros and ones where a dtype has no other."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randint(0, 256, (*shape, dtype.itemsize), dtype=torch.uint8, generator=generator)
    if dtype == torch.bool:
        return raw[..., 0] > 127
    return (
        raw.view(-1).view(dtype).reshape(shape) if raw.numel() else torch.empty(shape, dtype=dtype)
    )


SHAPES = st.sampled_from([(), (0,), (0, 3), (1,), (7,), (3, 5), (2, 3, 4)])
NAMES = st.text('abzé."', min_size=1, max_size=4)
STATES = st.dictionaries(
    NAMES, st.tuples(st.sampled_from(sorted(DTYPES)), SHAPES), min_size=1, max_size=7
).map(
    lambda layout: {
        name: filled(DTYPES[dtype], shape, seed)
        for seed, (name, (dtype, shape)) in enumerate(layout.items())
    }
)
FILES = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def same(left: State, right: State) -> bool:
    return left.keys() == right.keys() and all(
        left[k].dtype == right[k].dtype
        and left[k].shape == right[k].shape
        and raw(left[k]) == raw(right[k])
        for k in left
    )


def write(
    path: Path,
    state: State,
    specs: list[TensorSpec],
    *,
    step: int = 5,
    arrival: Any = None,
    **how: Any,
) -> str:
    """Write a state in pieces of ``step`` bytes, tensors in order of ``arrival``."""
    with write_stream(path, specs, LINEAGE, **how) as writer:
        for spec in arrival or specs:
            data = memoryview(raw(state[spec.name]))
            for offset in range(0, len(data), step):
                writer.write(spec.name, offset, data[offset : offset + step])
        return writer.digest()


def specs_of(state: State) -> list[TensorSpec]:
    return [TensorSpec.of(name, tensor) for name, tensor in state.items()]


@FILES
@given(state=STATES)
def test_a_checkpoint_is_what_safetensors_says_it_is(tmp_path: Path, state: State) -> None:
    save_file(state, tmp_path / "x.safetensors", metadata={"a": "b"})
    found = WeightFiles.open(tmp_path / "x.safetensors")
    assert found.metadata == {"a": "b"} and found.lineage == {}
    assert found.nbytes == sum(len(raw(tensor)) for tensor in state.values())
    with safe_open(tmp_path / "x.safetensors", "pt") as oracle, TensorReader(found) as reader:
        assert set(oracle.keys()) == set(found.specs)
        for name, spec in found.specs.items():
            tensor = oracle.get_tensor(name)
            assert (spec.torch_dtype, spec.shape) == (tensor.dtype, tuple(tensor.shape))
            held = bytearray(spec.nbytes)
            reader.read_into(memoryview(held), name)
            assert bytes(held) == raw(tensor)


@FILES
@given(state=STATES, data=st.data())
def test_a_stream_writes_the_file_that_save_state_writes(
    tmp_path: Path, state: State, data: st.DataObject
) -> None:
    save_state(tmp_path / "whole.safetensors", state, LINEAGE)
    specs = list(WeightFiles.open(tmp_path / "whole.safetensors").specs.values())
    arrival = data.draw(st.permutations(specs))
    step = data.draw(st.integers(1, 40))
    digest = write(tmp_path / "pieces.safetensors", state, specs, step=step, arrival=arrival)
    assert digest == digest_state(state)
    whole, pieces = (tmp_path / f"{name}.safetensors" for name in ("whole", "pieces"))
    assert pieces.read_bytes() == whole.read_bytes()


@FILES
@given(state=STATES, limit=st.integers(1, 200), data=st.data())
def test_shards_are_states_of_their_own_and_together_the_whole(
    tmp_path_factory: pytest.TempPathFactory, state: State, limit: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    path = folder / "model.safetensors"
    specs = specs_of(state)
    digest = write(path, state, specs, shard_bytes=limit, arrival=data.draw(st.permutations(specs)))
    assert digest == digest_state(state)
    files = sorted(folder.glob("*.safetensors"))
    merged: State = {}
    for file in files:
        part, lineage = load_state(file)
        assert lineage["base"] == LINEAGE["base"]
        assert len(part) == 1 or sum(len(raw(t)) for t in part.values()) <= limit
        merged |= part
    assert same(merged, state)
    for opened_by in (folder, index_path(path) if len(files) > 1 else path):
        whole, lineage = load_weights(opened_by)
        assert same(whole, state) and lineage == {**LINEAGE, "digest": digest}
        assert list(WeightFiles.open(opened_by).specs) == list(state)
    if len(files) > 1:
        index = json.loads(index_path(path).read_text())
        assert index["metadata"]["total_size"] == sum(len(raw(t)) for t in state.values())
        assert [f.name for f in files] == sorted(set(index["weight_map"].values()))
        assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"


def test_transformers_reads_the_shards(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        image_size=4, patch_size=2,
    )  # fmt: skip
    model = transformers.CLIPVisionModel(config)
    model.save_pretrained(tmp_path / "one")
    state = load_file(tmp_path / "one" / "model.safetensors")
    target = tmp_path / "many"
    write(
        target / "model.safetensors", state, specs_of(state),
        shard_bytes=500, metadata={"format": "pt"},
    )  # fmt: skip
    assert len(list(target.glob("*.safetensors"))) > 2
    config.save_pretrained(target)
    loaded = transformers.CLIPVisionModel.from_pretrained(target)
    assert same(loaded.state_dict(), model.state_dict())


def test_what_is_not_written_whole_does_not_appear(tmp_path: Path) -> None:
    spec = TensorSpec("a", "F32", (3,))
    with (
        pytest.raises(ValueError, match="4 bytes of 'a'"),
        write_stream(tmp_path / "x.safetensors", [spec], LINEAGE) as writer,
    ):
        writer.write("a", 0, memoryview(bytes(8)))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    old = {"a": torch.ones(3)}
    write(path, old, specs_of(old))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ArtifactError, match=r"x\.safetensors: the disk is full"):
        write(path, old, specs_of(old))
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]
    assert same(load_state(path)[0], old)


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite

    def short(descriptor: int, data: memoryview, offset: int) -> int:
        return real(descriptor, data if offset == 0 else data[:3], offset)

    monkeypatch.setattr(os, "pwrite", short)
    state = {"a": torch.arange(200.0)}
    digest = write(tmp_path / "x.safetensors", state, specs_of(state), step=100)
    assert load_state(tmp_path / "x.safetensors")[1]["digest"] == digest


def test_what_cannot_fit_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"1152921504\.6 GB are needed, .* GB are free"):
        check_space([tmp_path / "new" / "x.safetensors"], 1 << 60)


def test_what_goes_to_one_disk_must_fit_there_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / str(i) / "deep" / "x.safetensors" for i in range(3)]
    other = Path("/proc/x.safetensors")
    assert other.parent.stat().st_dev != tmp_path.stat().st_dev
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=300))
    check_space([*paths, other], 100)
    with pytest.raises(ArtifactError, match="cannot write to the disk of"):
        check_space(paths, 101)
    check_space([*paths[:2], other], 101)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("before", "after"), [(None, 8), (8, None), (8, 20)])
def test_an_earlier_state_is_replaced_whole(
    tmp_path: Path, before: int | None, after: int | None
) -> None:
    old = {name: torch.zeros(2) for name in "abcde"}
    new = {name: torch.ones(2) for name in "abcde"}
    path = tmp_path / "model.safetensors"
    (tmp_path / "other.safetensors").touch()
    write(path, old, specs_of(old), shard_bytes=before)
    write(path, new, specs_of(new), shard_bytes=after)
    assert same(load_weights(tmp_path)[0], new)
    count = 5 if after == 8 else 1 if after is None else 3
    files = {file.name for file in tmp_path.iterdir()} - {
        "other.safetensors",
        index_path(path).name,
    }
    assert len(files) == count and index_path(path).exists() == (count > 1)


KILLED = """
import os, sys, time
from pathlib import Path
from taskgrid.outofcore.shards import TensorSpec
from taskgrid.outofcore.streams import write_stream
with write_stream(Path(sys.argv[1]), [TensorSpec("a", "F32", (1000,))], {}, shard_bytes=None) as w:
    w.write("a", 0, memoryview(bytes(2000)))
    print("half", flush=True)
    time.sleep(60)
"""


def test_a_killed_writer_leaves_nothing_that_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    state = {"a": torch.ones(1000)}
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "half\n"
        # While it lives, its file is left alone.
        write(path, state, specs_of(state), step=1000)
        assert len(list(tmp_path.iterdir())) == 2
        process.send_signal(signal.SIGKILL)
    assert same(load_state(path)[0], state)
    write(path, state, specs_of(state), step=1000)
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


KILLED_PUBLISHING = """
import os, sys
from pathlib import Path
from taskgrid.outofcore import streams
from taskgrid.outofcore.shards import TensorSpec
from taskgrid.store.weights import State
count, real = 0, streams.publish
def publish(*paths):
    global count
    if count == int(sys.argv[3]):
        os.kill(os.getpid(), 9)
    count += 1
    real(*paths)
streams.publish = publish
specs = [TensorSpec(name, "F32", (2,)) for name in "abcdef"]
with streams.write_stream(sys.argv[1], specs, {}, shard_bytes=int(sys.argv[2])) as writer:
    for spec in specs:
        writer.write(spec.name, 0, memoryview(bytes(8)))
"""


def kill_while_publishing(path: Path, shard_bytes: int, published: int) -> None:
    words = [str(path), str(shard_bytes), str(published)]
    done = subprocess.run([sys.executable, "-c", KILLED_PUBLISHING, *words], check=False)
    assert done.returncode == -signal.SIGKILL


def test_what_was_published_before_a_kill_goes_whatever_the_size_of_shards(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    state = {name: torch.ones(2) for name in "abcdef"}
    # Another program's shards, another model's shards, what others work on.
    foreign = [tmp_path / "model-00001-of-00009.safetensors", tmp_path / "notes.txt"]
    save_file(state, foreign[0])
    foreign[1].touch()
    write(tmp_path / "model2.safetensors", state, specs_of(state), shard_bytes=24)
    foreign += list(tmp_path.glob("model2*"))
    foreign += [
        tmp_path / ".model.safetensors.x.tmp",
        tmp_path / ".model2.safetensors.abcdefgh.tmp",
    ]
    for folder in foreign[-2:]:
        folder.mkdir()
    for published in range(1, 4):
        kill_while_publishing(path, 16, published)
        assert len(list(tmp_path.iterdir())) == len(foreign) + published + 1
        write(path, state, specs_of(state), shard_bytes=24)
        shards = [tmp_path / f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
        assert {*tmp_path.iterdir()} == {*foreign, *shards, index_path(path)}
        assert same(load_weights(tmp_path)[0], state)


def test_a_shard_without_its_index_is_no_checkpoint(tmp_path: Path) -> None:
    kill_while_publishing(tmp_path / "model.safetensors", 24, 1)
    shard = tmp_path / "model-00001-of-00002.safetensors"
    for opened_by in (tmp_path, shard):
        with pytest.raises(ArtifactError, match=r"one of several.*model\.safetensors\.index\.json"):
            load_weights(opened_by)


def test_a_folder_with_an_index_of_another_name_is_opened_by_it(tmp_path: Path) -> None:
    state = {name: torch.ones(2) for name in "abcdef"}
    write(tmp_path / "merged.safetensors", state, specs_of(state), shard_bytes=24)
    assert same(load_weights(tmp_path)[0], state)
    assert len(WeightFiles.open(tmp_path / "merged-00002-of-00002.safetensors").specs) == 3
    (tmp_path / "merged-00002-of-00002.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"00002-of-00002\.safetensors is missing"):
        load_weights(tmp_path)


def test_shards_are_known_by_their_names() -> None:
    names = {
        "model-00002-of-00003.safetensors": "model.safetensors",
        "a-00001-of-00002-00002-of-00010.safetensors": "a-00001-of-00002.safetensors",
        "model-00001-of-00001.safetensors": None,
        "model-1-of-2.safetensors": None,
        "model.safetensors": None,
    }
    assert {name: shard_of(Path(name)) for name in names} == names


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
def test_one_file_at_a_time_is_open(tmp_path: Path) -> None:
    state = {f"{i:02d}": torch.full((2,), float(i)) for i in range(40)}
    specs = specs_of(state)
    with write_stream(tmp_path / "m.safetensors", specs, LINEAGE, shard_bytes=8) as writer:
        before = open_files()
        # Tensors whose turn in the digest comes late are read back from files that are closed.
        for spec in reversed(specs):
            writer.write(spec.name, 0, memoryview(raw(state[spec.name])))
            assert open_files() <= before + 1
    assert same(load_weights(tmp_path)[0], state)


def _header(**entries: Any) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no safetensors header"),
        (b"\xff" * 16, "no safetensors header"),
        ((3).to_bytes(8, "little") + b"[1]", "header cannot be read"),
        ((5).to_bytes(8, "little") + b"{nope", "header cannot be read"),
        (_header(a=GOOD) + bytes(7), "its header speaks of"),
        (_header(a=GOOD) + bytes(9), "its header speaks of"),
        (_header(a={**GOOD, "shape": [3]}) + bytes(8), "'a' has 8 bytes, its shape needs 12"),
        *(
            (_header(a={**GOOD, "shape": shape}) + bytes(8), "in whole numbers")
            for shape in ([-2], [2.0], [True, 2], [2**70], [1e400, 0], [1] * 65)
        ),
        (_header(a={**GOOD, "data_offsets": [0, 8.0]}) + bytes(8), "in whole numbers"),
        (_header(a={**GOOD, "shape": [2**62, 2**62]}) + bytes(8), "its shape needs"),
        (_header(a={**GOOD, "shape": 2}) + bytes(8), "header cannot be read"),
        ((10**5).to_bytes(8, "little") + b'{"a":' + b"[" * 10**5, "header cannot be read"),
        ((17 << 20).to_bytes(8, "little") + b" " * (17 << 20), "is no list of tensors"),
        (_header(a={**GOOD, "data_offsets": [4, 12]}) + bytes(12), "'a' does not begin"),
        (_header(a=GOOD, b=GOOD) + bytes(8), "'b' does not begin"),
        (_header(a={"dtype": "F32"}) + bytes(8), "header cannot be read"),
        (_header(a={**GOOD, "dtype": "F4"}) + bytes(8), "'a' as F4, which is not supported"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match=words) as caught:
        WeightFiles.open(tmp_path / "x.safetensors")
    assert "x.safetensors" in str(caught.value)


def test_a_file_cut_short_after_it_was_opened_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    found = WeightFiles.open(path)
    os.truncate(path, 3000)
    with TensorReader(found) as reader, pytest.raises(ArtifactError, match="ends too early"):
        reader.read_into(memoryview(bytearray(4000)), "a")


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({}, "no index of shards"),
        ({"weight_map": ["a"]}, "no index of shards"),
        ({"weight_map": {"a": "../x.safetensors"}}, "outside its folder"),
        ({"weight_map": {"a": 3}}, "outside its folder"),
        ({"weight_map": {"a": ""}}, "outside its folder"),
        ({"weight_map": {"a": ".."}}, "outside its folder"),
        ({"weight_map": {"a": "y.safetensors"}}, r"y\.safetensors is missing"),
        ({"weight_map": {"b": "x.safetensors"}}, r"says that x\.safetensors holds 'b'"),
    ],
)
def test_a_wrong_index_is_named(tmp_path: Path, index: object, words: str) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ArtifactError, match=words):
        WeightFiles.open(tmp_path)


def test_metadata_may_be_null(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    index = {"metadata": None, "weight_map": {"a": "x.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert list(WeightFiles.open(tmp_path).specs) == ["a"]
    (tmp_path / "y.safetensors").write_bytes(_header(a=GOOD, __metadata__=None) + bytes(8))
    assert list(load_file(tmp_path / "y.safetensors")) == ["a"]
    assert list(WeightFiles.open(tmp_path / "y.safetensors").specs) == ["a"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nope", "its lineage cannot be read"),
        ("[1]", "its lineage cannot be read"),
        ('{"digest": 5}', "its lineage cannot be read"),
        ("{}", "its lineage has no digest"),
        ('{"kind": "base"}', "its lineage has no digest"),
    ],
)
def test_a_lineage_that_is_none_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(2)}, path, metadata={"taskgrid": text})
    for read in (load_state, load_weights):
        with pytest.raises(ArtifactError, match=rf"x\.safetensors is damaged \({words}"):
            read(path)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is missing"):
        WeightFiles.open(tmp_path / "none.safetensors")
    (tmp_path / "x.pt").touch()
    with pytest.raises(ArtifactError, match="never unpickles"):
        WeightFiles.open(tmp_path / "x.pt")
    with pytest.raises(ArtifactError, match="holds 0 safetensors files"):
        WeightFiles.open(tmp_path)
    for name in "ab":
        save_file({"a": torch.ones(2)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(ArtifactError, match="holds 2 safetensors files"):
        WeightFiles.open(tmp_path)
