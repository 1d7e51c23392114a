"""Weights of files are compared with their digest before anything is computed from them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from taskgrid.errors import ArtifactError
from taskgrid.models.clip import load_clip
from taskgrid.outofcore.checked import check_weights, load_weights
from taskgrid.outofcore.export import Method, Point, export_points
from taskgrid.outofcore.shards import TensorSpec
from taskgrid.outofcore.streams import write_stream
from taskgrid.store.weights import save_state
from taskgrid.vectors import TaskVector

READERS: list[Callable[[Path], object]] = [load_weights, check_weights]


def flip(path: Path, place: int) -> None:
    """Turn one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("read", READERS)
def test_altered_shards_are_refused(read: Callable[[Path], object], tmp_path: Path) -> None:
    state = {name: torch.ones(4) for name in "ab"}
    specs = [TensorSpec.of(name, tensor) for name, tensor in state.items()]
    with write_stream(tmp_path / "model.safetensors", specs, {}, shard_bytes=16) as writer:
        for name, tensor in state.items():
            writer.write(name, 0, tensor.numpy().view("u1").data)
    read(tmp_path)
    flip(tmp_path / "model-00002-of-00002.safetensors", -1)
    with pytest.raises(ArtifactError, match="its tensors have digest"):
        read(tmp_path)


def test_pieces_are_compared_in_little_memory(tmp_path: Path) -> None:
    save_state(tmp_path / "a.safetensors", {"b": torch.rand(3_000_001), "a": torch.ones(0)}, {})
    check_weights(tmp_path / "a.safetensors")
    tracemalloc.start()
    check_weights(tmp_path / "a.safetensors")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20
    flip(tmp_path / "a.safetensors", -1)
    with pytest.raises(ArtifactError, match=r"a\.safetensors is damaged"):
        check_weights(tmp_path / "a.safetensors")


@pytest.mark.parametrize("victim", ["base", "dtd"])
def test_an_export_is_not_made_of_altered_weights(victim: str, tmp_path: Path) -> None:
    clip = load_clip("taskgrid-vit-4", "s0")
    lineage, state = clip.card().lineage(), clip.visual_state()
    save_state(tmp_path / "base.safetensors", state, {"kind": "base", **lineage})
    tau = {key: torch.zeros_like(tensor) for key, tensor in state.items()}
    TaskVector(tau, {**lineage, "task": "dtd"}).save(tmp_path / "dtd.safetensors")
    flip(tmp_path / f"{victim}.safetensors", -1)
    with pytest.raises(ArtifactError, match=rf"{victim}\.safetensors is damaged"):
        export_points(
            clip,
            tmp_path / "base.safetensors",
            {"dtd": tmp_path / "dtd.safetensors"},
            Method("average"),
            [Point(("dtd",), "1.00", tmp_path / "x.safetensors")],
        )
    assert not (tmp_path / "x.safetensors").exists()
