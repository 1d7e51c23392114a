"""Loading CLIPs: shipped, open_clip's, local files; what is refused and in which words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from taskgrid.config.architectures import local_weights, weights_fingerprint
from taskgrid.errors import ArtifactError, ConfigError, LineageError
from taskgrid.models import clip as clip_module
from taskgrid.models.card import ModelCard, check_expert
from taskgrid.models.clip import load_clip
from taskgrid.provenance.listing import fingerprint
from taskgrid.store.weights import State, digest_state
from tests.unit.example_checkpoints import STAND_INS, in_shards, under
from tests.unit.example_models import SIZE, tiny_clip, tiny_config, write_tiny


def test_shipped_model_is_loaded_as_it_was_written(tmp_path: Path) -> None:
    written = write_tiny(tmp_path)
    clip = load_clip("tiny", "s0", resources=tmp_path)
    loaded = clip.model.state_dict()
    assert loaded.keys() == written.keys()
    assert all(torch.equal(loaded[key], written[key]) for key in written)
    assert (clip.image_size, clip.mean, clip.std) == (SIZE, (0.5,) * 3, (0.25,) * 3)
    assert (clip.interpolation, clip.activation) == ("bicubic", "gelu")
    assert clip.logit_scale == pytest.approx(float(written["logit_scale"].exp()))
    assert clip.tokenizer(["a cat"]).shape == (1, 12)
    assert not clip.model.training


def test_half_precision_weights_are_upcast_exactly(tmp_path: Path) -> None:
    written = write_tiny(tmp_path, dtype=torch.float16)
    loaded = load_clip("tiny", "s0", resources=tmp_path).model.state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}
    assert all(torch.equal(loaded[key], written[key].float()) for key in written)


def test_digests_separate_the_towers(tmp_path: Path) -> None:
    state = write_tiny(tmp_path)
    clip = load_clip("tiny", "s0", resources=tmp_path)
    visual = {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}
    assert clip.visual_digest == digest_state(visual) == digest_state(clip.visual_state())
    state["ln_final.bias"] += 1
    save_file(state, str(tmp_path / "tiny-other-text.safetensors"))
    other = load_clip("tiny", "other-text", resources=tmp_path)
    assert other.visual_digest == clip.visual_digest
    assert other.text_digest != clip.text_digest


def test_a_local_file_is_loaded_by_path(tmp_path: Path) -> None:
    state = write_tiny(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    save_file(state, str(elsewhere / "mine.safetensors"))
    clip = load_clip("tiny", str(elsewhere / "mine.safetensors"), resources=tmp_path)
    assert clip.visual_digest == load_clip("tiny", "s0", resources=tmp_path).visual_digest


def test_loading_leaves_the_random_state_alone(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    before = torch.get_rng_state()
    load_clip("tiny", "s0", resources=tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def test_loading_leaves_open_clip_alone(tmp_path: Path) -> None:
    known = open_clip.list_models()
    tiny_clip(tmp_path)
    assert open_clip.list_models() == known


def test_an_open_clip_model_equals_open_clip_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {"Nano": tiny_config()})
    write_tiny(tmp_path)
    weights = tmp_path / "tiny-s0.safetensors"
    tags = {"web": {"file": str(weights), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Nano", tags)
    clip = load_clip("Nano", "web", resources=tmp_path)
    theirs, _, transform = open_clip.create_model_and_transforms("Nano", pretrained="web")
    theirs.eval().requires_grad_(False)
    images = torch.randn(3, 3, SIZE, SIZE)
    texts = open_clip.get_tokenizer("Nano")(["one", "two"])
    with torch.inference_mode():
        assert torch.equal(clip.model.encode_image(images), theirs.encode_image(images))
        assert torch.equal(
            clip.model.encode_text(clip.tokenizer(["one", "two"])), theirs.encode_text(texts)
        )
    normalise = transform.transforms[-1]
    assert (clip.mean, clip.std) == (tuple(normalise.mean), tuple(normalise.std))


@pytest.mark.parametrize(
    ("architecture", "tag", "right"),
    [
        ("ViT-B-32", "openai", "ViT-B-32-quickgelu"),
        ("ViT-B-32", "laion400m_e32", "ViT-B-32-quickgelu"),
        ("ViT-L-14", "openai", "ViT-L-14-quickgelu"),
        ("ViT-B-32-quickgelu", "laion2b_s34b_b79k", "ViT-B-32"),
    ],
)
def test_wrong_activation_is_refused_and_the_right_name_told(
    architecture: str, tag: str, right: str
) -> None:
    with pytest.raises(LineageError, match=f"use architecture '{right}'$"):
        load_clip(architecture, tag)


def test_right_activation_reaches_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(config: object) -> str:
        raise OSError("no route to host\nand a long trace")

    monkeypatch.setattr(clip_module, "download_pretrained", offline)
    with pytest.raises(ArtifactError) as caught:
        load_clip("ViT-B-32-quickgelu", "openai")
    message = str(caught.value)
    assert "\n" not in message
    assert "'openai' of 'ViT-B-32-quickgelu' cannot be downloaded (no route to host)" in message


@pytest.mark.parametrize(
    ("architecture", "tag", "close"),
    [("ViT-B-33", "openai", "ViT-B-32"), ("tinny", "s0", "tiny"), ("tiny", "s00", "s0")],
)
def test_unknown_names_get_close_ones(
    tmp_path: Path, architecture: str, tag: str, close: str
) -> None:
    write_tiny(tmp_path)
    with pytest.raises(ConfigError, match=f"did you mean .*'{close}'"):
        load_clip(architecture, tag, resources=tmp_path)


# --- files as people have them ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.SAFETENSORS", "a.safetensors", "a.pt", "a", "v1.0"])
def test_a_base_is_known_whatever_its_name(tmp_path: Path, name: str) -> None:
    state = write_tiny(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    save_file(state, str(elsewhere / name))
    (tmp_path / "link").symlink_to(elsewhere / name)
    for path in (elsewhere / name, tmp_path / "link"):
        assert local_weights("tiny", str(path)) == path
        loaded = load_clip("tiny", str(path), resources=tmp_path).model.state_dict()
        assert digest_state(loaded) == digest_state(state)


def test_a_file_of_a_bare_name_is_taken_unless_it_is_a_tag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").symlink_to("tiny-s0.safetensors")
    assert load_clip("tiny", "mine", resources=tmp_path).notes
    (tmp_path / "openai").write_text("no weights")
    assert local_weights("ViT-B-32", "openai") == Path("openai")
    with pytest.raises(LineageError, match="use architecture 'ViT-B-32-quickgelu'"):
        load_clip("ViT-B-32", "openai", resources=tmp_path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_what_trainers_put_before_names_is_taken_off_a_base(tmp_path: Path, prefix: str) -> None:
    state = write_tiny(tmp_path)
    save_file(under(prefix, state), str(tmp_path / "mine.safetensors"))
    clip = load_clip("tiny", str(tmp_path / "mine.safetensors"), resources=tmp_path)
    assert digest_state(clip.model.state_dict()) == digest_state(state)


def test_a_base_in_shards(tmp_path: Path) -> None:
    state = write_tiny(tmp_path)
    index = in_shards(tmp_path / "shards", state)
    shard = index.with_name("model-00002-of-00003.safetensors")
    for path in (index, shard):
        assert local_weights("tiny", str(path)) == index
        loaded = load_clip("tiny", str(path), resources=tmp_path).model.state_dict()
        assert digest_state(loaded) == digest_state(state)
    before = weights_fingerprint("tiny", str(index))
    assert before == weights_fingerprint("tiny", str(index)) != fingerprint(shard)
    shard.write_bytes(
        in_shards(tmp_path / "b", under("b.", state)).with_name(shard.name).read_bytes()
    )
    assert weights_fingerprint("tiny", str(index)) != before


@pytest.mark.parametrize("name", STAND_INS)
def test_stand_ins_of_a_base_are_called_what_they_are(tmp_path: Path, name: str) -> None:
    write_tiny(tmp_path)
    content, words = STAND_INS[name]
    path = tmp_path / "base.safetensors"
    path.write_bytes(content)
    for read in (
        lambda: local_weights("tiny", str(path)),
        lambda: load_clip("tiny", str(path), resources=tmp_path),
    ):
        with pytest.raises(ArtifactError, match=words):
            read()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("openai/clip-vit-base-patch32", "hf-hub:openai/clip-vit-base-patch32"),
        ("openai/clip@abc", "hf-hub:openai/clip@abc"),
        ("https://huggingface.co/openai/clip", "hf-hub:openai/clip"),
        ("huggingface.co/openai/clip/tree/main", "hf-hub:openai/clip@main"),
        ("hf_hub:openai/clip", "hf-hub:openai/clip"),
        ("HF-HUB:openai/clip", "hf-hub:openai/clip"),
        ("hf://openai/clip", "hf-hub:openai/clip"),
    ],
)
def test_a_repository_without_its_prefix_is_offered(
    tmp_path: Path, written: str, meant: str
) -> None:
    write_tiny(tmp_path)
    with pytest.raises(ConfigError, match=f"is written {meant}$"):
        local_weights("tiny", written)
    with pytest.raises(ArtifactError, match=f"is written '{meant}'$"):
        load_clip("tiny", written, resources=tmp_path)


def test_what_is_no_repository_is_offered_as_none(tmp_path: Path) -> None:
    for written in ("weights/mine.safetensors", "/data/x/y", "./a/b", "a/b/c.pt", "../b/c"):
        with pytest.raises(
            ConfigError, match="is no file; give a file, an open_clip tag, or hf-hub"
        ):
            local_weights("tiny", written)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["visual.proj", "ln_final.weight"])
def test_a_base_that_holds_no_numbers_is_refused(tmp_path: Path, key: str, value: float) -> None:
    state = write_tiny(tmp_path)
    state[key].view(-1)[3] = value
    save_file(state, str(tmp_path / "tiny-s0.safetensors"))
    with pytest.raises(LineageError, match=f"s0.safetensors have values in '{key}' that are no n"):
        load_clip("tiny", "s0", resources=tmp_path)


def test_a_base_whose_activation_nothing_declares_says_so(tmp_path: Path) -> None:
    state = write_tiny(tmp_path)
    assert load_clip("tiny", "s0", resources=tmp_path).notes == ()
    folder = tmp_path / "mine"
    folder.mkdir()
    save_file(state, str(folder / "a.safetensors"))
    (note,) = load_clip("tiny", str(folder / "a.safetensors"), resources=tmp_path).notes
    assert "says its activation: gelu was taken for granted" in note
    save_file(state, str(folder / "b.safetensors"), metadata={"activation": "gelu"})
    assert load_clip("tiny", str(folder / "b.safetensors"), resources=tmp_path).notes == ()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": tiny_config()}))
    (tmp_path / "link").symlink_to(folder / "a.safetensors")
    for path in (folder / "a.safetensors", tmp_path / "link"):
        assert load_clip("tiny", str(path), resources=tmp_path).notes == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {k: t for k, t in s.items() if k.startswith("visual.")}, "image tower alone"),
        (lambda s: {"visual.x.lora_A.weight": torch.ones(1)}, "LoRA adapter.*merge_and_unload"),
        (lambda s: s | {"visual.proj": s["visual.proj"].to(torch.int8)}, "'visual.proj' as int8"),
    ],
)
def test_what_is_no_whole_base_is_named(
    tmp_path: Path, change: Callable[[State], State], words: str
) -> None:
    save_file(change(write_tiny(tmp_path)), str(tmp_path / "mine.safetensors"))
    with pytest.raises(LineageError, match=words):
        load_clip("tiny", str(tmp_path / "mine.safetensors"), resources=tmp_path)


def test_captioning_models_are_refused() -> None:
    with pytest.raises(ConfigError, match="captioning"):
        load_clip("coca_ViT-B-32", "laion2b_s13b_b90k")


def test_pickled_files_are_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"\x80\x04.")
    with pytest.raises(ConfigError, match=r"is a pickle.*never unpickles.*docs/experts\.md"):
        local_weights("tiny", str(tmp_path / "model.pt"))
    with pytest.raises(ConfigError, match="never unpickles"):
        load_clip("tiny", str(tmp_path / "model.pt"), resources=tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 100, 3000])
def test_truncated_weights_are_refused(tmp_path: Path, keep: int) -> None:
    write_tiny(tmp_path)
    path = tmp_path / "tiny-s0.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match=r"tiny-s0\.safetensors are damaged"):
        load_clip("tiny", "s0", resources=tmp_path)


def test_missing_extra_and_misshapen_weights_are_refused(tmp_path: Path) -> None:
    whole = write_tiny(tmp_path)
    path = tmp_path / "broken.safetensors"
    lacking = {key: tensor for key, tensor in whole.items() if key != "visual.proj"}
    save_file(lacking, str(path))
    with pytest.raises(LineageError, match=r"lack 'visual\.proj'"):
        load_clip("tiny", str(path), resources=tmp_path)
    save_file(whole | {"visual.more": torch.zeros(1)}, str(path))
    with pytest.raises(LineageError, match=r"hold 'visual\.more'"):
        load_clip("tiny", str(path), resources=tmp_path)
    # open_clip would silently interpolate these to the model's grid.
    save_file(whole | {"visual.positional_embedding": torch.zeros(10, 16)}, str(path))
    with pytest.raises(LineageError, match=r"\(10, 16\).*positional_embedding.*\(5, 16\)"):
        load_clip("tiny", str(path), resources=tmp_path)


def test_a_file_that_names_another_activation_is_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    path = tmp_path / "tiny-s0.safetensors"
    save_file(load_file(str(path)), str(path), metadata={"activation": "quick_gelu"})
    with pytest.raises(LineageError, match=r"quick_gelu.*gelu"):
        load_clip("tiny", "s0", resources=tmp_path)


def test_weights_prepared_otherwise_are_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    config = json.loads((tmp_path / "tiny.json").read_text())
    config["preprocess_cfg"]["resize_mode"] = "squash"
    (tmp_path / "tiny.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="squash"):
        load_clip("tiny", "s0", resources=tmp_path)


def test_card_survives_json(tmp_path: Path) -> None:
    card = tiny_clip(tmp_path, quick_gelu=True).card()
    again = ModelCard.from_json(json.loads(json.dumps(card.to_json())))
    assert again == card
    assert card.activation == "quick_gelu"
    values = card.to_json()
    del values["text"]
    with pytest.raises(ArtifactError, match="lacks text"):
        ModelCard.from_json(values)


def test_experts_of_other_bases_are_refused(tmp_path: Path) -> None:
    card = tiny_clip(tmp_path).card()
    mine = card.lineage() | {"kind": "expert", "task": "mnist"}
    check_expert(mine, card)
    check_expert(mine | {"text": "another text tower changes no expert"}, card)
    with pytest.raises(LineageError, match=f"expert of task 'mnist'.*ffff.*{card.base}"):
        check_expert(mine | {"base": "ffff"}, card)
    with pytest.raises(LineageError, match=r"task vector of task 'mnist'.*quick_gelu.*gelu"):
        check_expert(mine | {"activation": "quick_gelu", "kind": "taskvector"}, card)
    with pytest.raises(LineageError, match="says nothing about its base weights"):
        check_expert({key: mine[key] for key in mine if key != "base"}, card)


def test_random_weights_are_always_the_same_and_leave_the_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = (load_clip("taskgrid-vit-4", "random") for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.visual_digest == second.visual_digest
    assert first.visual_digest != load_clip("taskgrid-vit-4", "s0").visual_digest
    assert first.card().pretrained == "random"
