"""Where experts lie and what people have there: shards, adapters, links, pointers, training states."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from taskgrid.errors import ArtifactError, LineageError, RemoteError, TaskgridError
from taskgrid.experts.read import read_expert
from taskgrid.experts.source import ExpertSource, locate
from taskgrid.store.weights import save_state
from tests.unit.example_checkpoints import STAND_INS, in_shards, under
from tests.unit.example_hub import as_json, as_safetensors, put
from tests.unit.experts.test_read import BASE, CARD, DEAD, VISION, cache, near, read, same, theirs

__all__ = ["cache"]  # a fixture

EXPERT = near()
USUAL = ("model.safetensors", "pytorch_model.bin")


def one_sentence(error: BaseException) -> bool:
    return "\n" not in str(error) and len(str(error)) < 600


# --- shards --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_shards_are_found_in_a_folder_by_index_and_by_one_of_them(
    tmp_path: Path, name: str
) -> None:
    index = in_shards(tmp_path, theirs(EXPERT, projection=True), name)
    (tmp_path / "config.json").write_bytes(as_json(VISION))
    shard = next(tmp_path.glob("*-00002-of-*"))
    lineages = []
    for location, file in [(tmp_path, None), (tmp_path, index.name), (index, None), (shard, None)]:
        found = read(location, "transformers", file=file)
        assert same(found.state, EXPERT)
        lineages.append(found.lineage)
    assert all(lineage == lineages[0] for lineage in lineages)
    assert lineages[0]["file"] == index.name
    # The digest is one of all files: a shard that changes is another expert.
    shard.write_bytes(
        in_shards(tmp_path / "b", theirs(near(0.01), projection=True), name)
        .with_name(shard.name)
        .read_bytes()
    )
    assert read(tmp_path, "transformers").lineage["file_sha256"] != lineages[0]["file_sha256"]


def test_shards_of_a_repository_are_fetched_with_their_index(cache: Path, tmp_path: Path) -> None:
    in_shards(tmp_path / "x", theirs(EXPERT))
    files = {path.name: path.read_bytes() for path in (tmp_path / "x").iterdir()}
    put(cache, "someone/sharded", {"config.json": as_json(VISION), **files})
    for file in (None, "model.safetensors.index.json", "model-00001-of-00003.safetensors"):
        found = read("someone/sharded", "transformers", file=file)
        assert same(found.state, EXPERT | {"proj": BASE["proj"]})
        assert found.lineage["file"] == "model.safetensors.index.json"


def test_shards_that_lost_some_of_them_are_named(tmp_path: Path) -> None:
    index = in_shards(tmp_path, EXPERT)
    (tmp_path / "model-00003-of-00003.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"model-00003-of-00003\.safetensors is missing"):
        read(tmp_path)
    index.unlink()
    for location in (tmp_path, tmp_path / "model-00001-of-00003.safetensors"):
        with pytest.raises(
            ArtifactError, match=r"their index model\.safetensors\.index\.json is missing"
        ):
            read(location)


# --- what is no expert ---------------------------------------------------------------------------

LORA = {
    f"base_model.model.vision_model.encoder.layers.{layer}.self_attn.q_proj.lora_{part}.weight": t
    for layer in range(2)
    for part, t in {"A": torch.ones(2, 16), "B": torch.ones(16, 2)}.items()
}


@pytest.mark.parametrize("format", ["transformers", "open_clip", "task_vectors"])
def test_an_adapter_is_named_with_what_to_do(tmp_path: Path, cache: Path, format: str) -> None:
    save_file(LORA, str(tmp_path / "adapter_model.safetensors"))
    (tmp_path / "adapter_config.json").write_text("{}")
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    put(cache, "someone/lora", files)
    for location in (tmp_path, tmp_path / "adapter_model.safetensors", "someone/lora"):
        with pytest.raises(LineageError, match=r"is a LoRA adapter.*merge_and_unload") as caught:
            read(location, format)
        assert one_sentence(caught.value)


@pytest.mark.parametrize("format", ["transformers", "open_clip", "task_vectors"])
@pytest.mark.parametrize("name", ["lfs", "page", "message", "gzip", "npz"])
def test_stand_ins_are_called_what_they_are(tmp_path: Path, name: str, format: str) -> None:
    content, words = STAND_INS[name]
    for ending in (".safetensors", ".pt", ""):
        path = tmp_path / f"expert{ending}"
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=words) as caught:
            read(path, format)
        assert one_sentence(caught.value)
    index = in_shards(tmp_path / "s", EXPERT)
    index.with_name("model-00002-of-00003.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match=f"model-00002.*{words}"):
        read(index, format)


def test_a_folder_says_what_it_holds(tmp_path: Path) -> None:
    for name in ("weights.pt", "b.SAFETENSORS", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(
        ArtifactError, match=r"it holds b\.SAFETENSORS, weights\.pt; name the right"
    ):
        read(tmp_path)


def test_addresses_and_links_to_nowhere_are_explained(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ArtifactError, match="write hf-hub:a/b for the hub's"):
        read("https://huggingface.co/a/b")
    (tmp_path / "link").symlink_to(tmp_path / "gone.pt")
    with pytest.raises(ArtifactError, match="a link to nowhere"):
        read(tmp_path / "link")
    with pytest.raises(ArtifactError, match="does not exist"):
        read("folder/expert.SAFETENSORS")
    with pytest.raises(RemoteError, match=r"config\.json, model\.safetensors of a/b at main"):
        read("a/b", "transformers")


# --- what is one, by whatever name -----------------------------------------------------------------


def as_safe(state: Any) -> bytes:
    return as_safetensors(state)


@pytest.mark.parametrize("write", [as_safe, pickle.dumps])
@pytest.mark.parametrize("name", ["a.SAFETENSORS", "a.pt", "a.safetensors", "a", "a.v1.0"])
def test_an_ending_says_nothing(tmp_path: Path, name: str, write: Callable[[Any], bytes]) -> None:
    (tmp_path / name).write_bytes(write(EXPERT))
    (tmp_path / "link").symlink_to(name)
    for path in (tmp_path / name, tmp_path / "link"):
        assert same(read(path).state, EXPERT)


def test_what_lies_beside_the_target_of_a_link_counts(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "config.json").write_bytes(as_json({**VISION, "hidden_act": "quick_gelu"}))
    save_file(theirs(EXPERT), str(tmp_path / "real" / "model.safetensors"))
    (tmp_path / "link").symlink_to(tmp_path / "real" / "model.safetensors")
    with pytest.raises(LineageError, match="trained with QuickGELU"):
        read(tmp_path / "link", "transformers")


TRAINING = {
    "epoch": 3,
    "global_step": 1200,
    "best_acc": np.float64(0.93),
    "best": torch.tensor(0.93),
    "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.9)}},
    "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3, 3), "step": torch.tensor(4.0)}}}],
    "lr_schedulers": [{"_last_lr": [np.float64(1e-4)], "last_epoch": 3}],
    "loops": {"fit_loop": {"state_dict": {}}},
    "hyper_parameters": {"lr": 1e-5},
    "rng_state": torch.get_rng_state(),
    "loss": torch.ones(7),
    "class_weights": torch.ones(10),
}


@pytest.mark.parametrize("prefix", ["model.visual.", "module.visual.", "model._orig_mod.visual."])
def test_a_training_s_state_beside_an_expert_is_left_out(tmp_path: Path, prefix: str) -> None:
    root = prefix.removesuffix("visual.")
    state = under(prefix, EXPERT) | under(root, DEAD)
    torch.save({"state_dict": state, **TRAINING}, tmp_path / "last.ckpt")
    found = read(tmp_path / "last.ckpt")
    assert same(found.state, EXPERT)
    assert any("of a training's state" in note for note in found.notes)
    torch.save(
        {"state_dict": under(root, theirs(EXPERT, projection=True)), **TRAINING}, tmp_path / "b.pt"
    )
    assert same(read(tmp_path / "b.pt", "transformers").state, EXPERT)


def test_what_may_belong_to_the_model_is_refused(tmp_path: Path) -> None:
    torch.save(
        {"model": under("visual.", EXPERT), "cache": {"keys": torch.ones(3)}}, tmp_path / "a.pt"
    )
    with pytest.raises(LineageError, match=r"holds 'cache\.keys'"):
        read(tmp_path / "a.pt")
    torch.save({"model": EXPERT, "ema": EXPERT}, tmp_path / "b.pt")
    with pytest.raises(LineageError, match=r"several image towers \('ema\.', 'model\.'\)"):
        read(tmp_path / "b.pt")


# --- numbers -------------------------------------------------------------------------------------


def test_a_base_that_holds_no_numbers_is_blamed_itself(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(as_json(VISION))
    save_file(theirs(EXPERT), str(tmp_path / "model.safetensors"))
    broken = {**BASE, "proj": BASE["proj"].clone()}
    broken["proj"][3, 2] = torch.nan
    with pytest.raises(LineageError, match=r"^the base \(tiny .*\) has values in 'proj'") as caught:
        read_expert("transformers", str(tmp_path), "mnist", CARD, broken)
    assert "expert" not in str(caught.value)


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    save_file({**EXPERT, "proj": EXPERT["proj"].to(torch.int8)}, str(tmp_path / "a.safetensors"))
    with pytest.raises(LineageError, match="'proj' as int8, but the base as float32"):
        read(tmp_path / "a.safetensors")


def test_an_expert_of_this_project_is_checked_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "expert.pt"
    save_state(path, EXPERT, {"kind": "expert", "task": "mnist", **CARD.lineage()})
    assert same(read(path).state, EXPERT)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(TaskgridError, match="another digest"):
        read(path)


def test_the_digest_of_one_file_is_the_file_s(tmp_path: Path) -> None:
    save_file(EXPERT, str(tmp_path / "model.safetensors"))
    found = locate(ExpertSource(str(tmp_path)), USUAL)
    content = (tmp_path / "model.safetensors").read_bytes()
    assert found.provenance["file_sha256"] == hashlib.sha256(content).hexdigest()
