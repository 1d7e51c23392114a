"""Base models from repositories of the hub: both layouts, offline, and what is refused."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from taskgrid.config.architectures import local_weights
from taskgrid.errors import ArtifactError, ConfigError, LineageError, RemoteError
from taskgrid.models.clip import Clip, load_clip
from taskgrid.models.hub.repository import Reference
from taskgrid.store.weights import digest_state
from tests.unit.example_checkpoints import in_shards, under
from tests.unit.example_hub import COMMIT, as_json, as_safetensors, put
from tests.unit.example_models import SIZE, tiny_config, write_tiny

REPOSITORY = "someone/tiny-clip"
AT = f"hf-hub:{REPOSITORY}@{COMMIT}"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub and no network."""
    folder = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


def open_clip_files(state: dict[str, torch.Tensor], **changes: Any) -> dict[str, bytes]:
    preprocess = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear"}
    config = {"model_cfg": {**tiny_config(), **changes}, "preprocess_cfg": preprocess}
    return {
        "open_clip_config.json": as_json(config),
        "open_clip_model.safetensors": as_safetensors(state),
    }


def load(folder: Path, pretrained: str = AT) -> Clip:
    return load_clip("tiny", pretrained, resources=folder)


def as_bin(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def test_an_open_clip_repository_is_loaded_with_its_preprocessing(
    tmp_path: Path, cache: Path
) -> None:
    state = write_tiny(tmp_path)
    put(cache, REPOSITORY, open_clip_files(state))
    clip = load(tmp_path)
    shipped = load_clip("tiny", "s0", resources=tmp_path)
    assert (clip.visual_digest, clip.text_digest) == (shipped.visual_digest, shipped.text_digest)
    assert (clip.mean, clip.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert clip.interpolation == "bilinear"
    assert clip.card().pretrained == AT


def test_a_branch_is_written_down_as_the_commit_it_was(tmp_path: Path, cache: Path) -> None:
    put(cache, REPOSITORY, open_clip_files(write_tiny(tmp_path)), ref="main")
    for name in (f"hf-hub:{REPOSITORY}", f"hf-hub:{REPOSITORY}@main"):
        assert load(tmp_path, name).pretrained == AT


@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "module"])
def test_weights_as_bin_are_read_as_tensors(tmp_path: Path, cache: Path, wrapped: str) -> None:
    state = write_tiny(tmp_path)
    files = open_clip_files(state)
    del files["open_clip_model.safetensors"]
    content: Any = {
        "plain": state,
        "state_dict": {"epoch": 3, "state_dict": state},
        "module": {f"module.{key}": tensor for key, tensor in state.items()},
    }[wrapped]
    put(cache, REPOSITORY, files | {"open_clip_pytorch_model.bin": as_bin(content)})
    loaded = load(tmp_path).model.state_dict()
    assert digest_state(loaded) == digest_state(state)


def test_a_plain_pickle_with_a_training_s_state_is_read_as_tensors(
    tmp_path: Path, cache: Path
) -> None:
    state = write_tiny(tmp_path)
    files = open_clip_files(state)
    del files["open_clip_model.safetensors"]
    beside = {"optimizer": {"state": {0: torch.ones(3)}}, "best": {Path("a"), 0.5}}
    content = pickle.dumps({"state_dict": under("module.", state), **beside})
    put(cache, REPOSITORY, files | {"open_clip_pytorch_model.bin": content})
    assert digest_state(load(tmp_path).model.state_dict()) == digest_state(state)


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_shards_of_a_repository_are_fetched_by_their_index(
    tmp_path: Path, cache: Path, name: str
) -> None:
    state = write_tiny(tmp_path)
    files = open_clip_files(state)
    del files["open_clip_model.safetensors"]
    in_shards(tmp_path / "shards", state, name)
    files |= {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()}
    put(cache, REPOSITORY, files)
    clip = load(tmp_path)
    assert digest_state(clip.model.state_dict()) == digest_state(state)
    assert (clip.pretrained, clip.interpolation) == (AT, "bilinear")


def test_a_repository_of_an_adapter_is_named(tmp_path: Path, cache: Path) -> None:
    write_tiny(tmp_path)
    put(cache, REPOSITORY, {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"})
    with pytest.raises(LineageError, match=rf"{REPOSITORY} is a LoRA adapter.*merge_and_unload"):
        load(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        b"[" * 100_000,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
        b"<!DOCTYPE html>",
        b"\xff\xfe",
        b"[1]",
        b'{"model_cfg": 3}',
        b'{"model_cfg": {"vision_cfg": 3}}',
        b'{"model_cfg": {"vision_cfg": {"width": [1]}, "text_cfg": []}}',
        b'{"preprocess_cfg": [1]}',
        b'{"preprocess_cfg": {"mean": 0.5}}',
        b'{"preprocess_cfg": {"mean": [0.5, 0.5, "x"]}}',
        b'{"preprocess_cfg": {"mean": [0.5, 0.5, NaN]}}',
        b'{"preprocess_cfg": {"std": [0, 0, 0]}}',
        b'{"preprocess_cfg": {"mode": "L"}}',
        b'{"preprocess_cfg": {"interpolation": "nearest"}}',
    ],
)
def test_broken_configurations_beside_weights_are_one_sentence(
    tmp_path: Path, config: bytes
) -> None:
    save_file(write_tiny(tmp_path), str(tmp_path / "mine.safetensors"))
    (tmp_path / "open_clip_config.json").write_bytes(config)
    with pytest.raises((ArtifactError, LineageError), match=r"open_clip_config\.json") as caught:
        load(tmp_path, str(tmp_path / "mine.safetensors"))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "clip", "vision_config": "x"},
        {"model_type": "clip", "vision_config": {"hidden_act": ["gelu"]}},
        {"model_type": "clip", "vision_config": {"hidden_size": "16"}},
        {"model_type": {"a": 1}},
    ],
)
def test_broken_configurations_of_transformers_too(tmp_path: Path, config: Any) -> None:
    save_file(write_tiny(tmp_path), str(tmp_path / "mine.safetensors"))
    (tmp_path / "config.json").write_bytes(as_json(config))
    with pytest.raises(LineageError, match=r"config\.json"):
        load(tmp_path, str(tmp_path / "mine.safetensors"))
    (tmp_path / "config.json").write_bytes(as_json({"model_type": "clip"}))
    (tmp_path / "preprocessor_config.json").write_bytes(as_json({"image_std": [1, 2, 0]}))
    with pytest.raises(LineageError, match=r"preprocessor_config\.json says std"):
        load(tmp_path, str(tmp_path / "mine.safetensors"))


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("by_torch", [True, False])
def test_a_bin_that_carries_code_runs_nothing(tmp_path: Path, cache: Path, by_torch: bool) -> None:
    files = open_clip_files(write_tiny(tmp_path))
    del files["open_clip_model.safetensors"]
    touch = {"visual.proj": Touch(tmp_path / "ran")}
    content = as_bin(touch) if by_torch else pickle.dumps(touch, 2)
    put(cache, REPOSITORY, files | {"open_clip_pytorch_model.bin": content})
    with pytest.raises(ArtifactError, match="cannot be read as tensors alone") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def transformers_clip(activation: str = "gelu", *, vision_heads: int = 2) -> Any:
    transformers = pytest.importorskip("transformers", reason="the dev extra installs it")
    vision = tiny_config()["vision_cfg"]
    text = tiny_config()["text_cfg"]
    config = transformers.CLIPConfig(
        vision_config={
            "hidden_size": vision["width"],
            "intermediate_size": 4 * vision["width"],
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision_heads,
            "image_size": SIZE,
            "patch_size": vision["patch_size"],
            "hidden_act": activation,
            "projection_dim": 12,
        },
        text_config={
            "hidden_size": text["width"],
            "intermediate_size": 4 * text["width"],
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "vocab_size": text["vocab_size"],
            "max_position_embeddings": text["context_length"],
            "hidden_act": activation,
            "projection_dim": 12,
        },
        projection_dim=12,
    )
    torch.manual_seed(5)
    model = transformers.CLIPModel(config)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model.eval().requires_grad_(False)


def transformers_files(model: Any, folder: Path) -> dict[str, bytes]:
    """What transformers itself writes."""
    model.save_pretrained(folder)
    names = ("config.json", "model.safetensors")
    return {name: (folder / name).read_bytes() for name in names}


PREPROCESSOR = {
    "do_center_crop": True,
    "crop_size": SIZE,
    "image_mean": [0.2, 0.3, 0.4],
    "image_std": [0.5, 0.6, 0.7],
    "resample": 3,
}


@pytest.mark.parametrize("described", [True, False])
def test_a_transformers_repository_is_converted(
    tmp_path: Path, cache: Path, described: bool
) -> None:
    write_tiny(tmp_path)
    theirs = transformers_clip()
    files = transformers_files(theirs, tmp_path / "saved")
    if described:
        files["preprocessor_config.json"] = as_json(PREPROCESSOR)
    put(cache, REPOSITORY, files)
    clip = load(tmp_path)
    images = torch.randn(3, 3, SIZE, SIZE)
    tokens = clip.tokenizer(["one cat", "two dogs"])
    with torch.inference_mode():
        expected = theirs(input_ids=tokens, pixel_values=images)
        pictures = clip.model.encode_image(images, normalize=True)
        texts = clip.model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(pictures, expected.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(texts, expected.text_embeds, atol=1e-5, rtol=0)
    assert clip.logit_scale == pytest.approx(float(theirs.logit_scale.exp()))
    assert clip.mean == ((0.2, 0.3, 0.4) if described else (0.5, 0.5, 0.5))


def test_a_local_file_of_transformers_is_converted_too(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    transformers_clip().save_pretrained(tmp_path / "saved")
    weights = tmp_path / "saved" / "model.safetensors"
    clip = load_clip("tiny", str(weights), resources=tmp_path)
    assert clip.activation == "gelu"
    assert clip.visual_state().keys() == {
        key.removeprefix("visual.") for key in write_tiny(tmp_path) if key.startswith("visual.")
    }


def test_another_activation_is_refused_with_the_name_to_use(tmp_path: Path, cache: Path) -> None:
    state = write_tiny(tmp_path)
    put(cache, REPOSITORY, open_clip_files(state, quick_gelu=True))
    put(
        cache, "someone/theirs", transformers_files(transformers_clip("quick_gelu"), tmp_path / "t")
    )
    sentence = r"trained with QuickGELU, but architecture 'tiny' computes GELU.*'tiny-quickgelu'"
    for name in (AT, f"hf-hub:someone/theirs@{COMMIT}"):
        with pytest.raises(LineageError, match=sentence):
            load(tmp_path, name)
    # A local file is held to what lies beside it in the same way.
    local = cache / f"models--{REPOSITORY.replace('/', '--')}" / "snapshots" / COMMIT
    with pytest.raises(LineageError, match=sentence):
        load(tmp_path, str(local / "open_clip_model.safetensors"))


def test_heads_that_no_shape_shows_are_compared(tmp_path: Path, cache: Path) -> None:
    state = write_tiny(tmp_path)
    vision = {**tiny_config()["vision_cfg"], "head_width": 4}
    put(cache, REPOSITORY, open_clip_files(state, vision_cfg=vision))
    with pytest.raises(LineageError, match=r"vision_cfg\.head_width 4 .*'tiny' has 8"):
        load(tmp_path)
    put(cache, "a/b", transformers_files(transformers_clip(vision_heads=4), tmp_path / "t"))
    with pytest.raises(LineageError, match=r"num_attention_heads 4 .*'tiny' has 2"):
        load(tmp_path, f"hf-hub:a/b@{COMMIT}")


def test_defaults_that_transformers_leaves_out_are_known(tmp_path: Path, cache: Path) -> None:
    # As in openai/clip-vit-base-patch32: what is ViT-B/32's is not written down.
    state = write_tiny(tmp_path)
    config = {"model_type": "clip", "vision_config": {}, "text_config": {}}
    files = {"config.json": as_json(config), "model.safetensors": as_safetensors(state)}
    put(cache, REPOSITORY, files)
    with pytest.raises(LineageError, match="trained with QuickGELU"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"architecture": "vit_base", "num_classes": 0}, "nothing in someone/tiny-clip says which"),
        ({"model_type": "bert"}, "'bert' model .* not of a CLIP"),
    ],
)
def test_a_repository_of_something_else_is_refused(
    tmp_path: Path, cache: Path, config: dict[str, Any], sentence: str
) -> None:
    state = write_tiny(tmp_path)
    put(
        cache,
        REPOSITORY,
        {"config.json": as_json(config), "model.safetensors": as_safetensors(state)},
    )
    with pytest.raises(LineageError, match=sentence):
        load(tmp_path)


def test_missing_and_further_tensors_are_refused(tmp_path: Path, cache: Path) -> None:
    state = write_tiny(tmp_path)
    lacking = {key: tensor for key, tensor in state.items() if key != "visual.proj"}
    put(cache, REPOSITORY, open_clip_files(lacking))
    with pytest.raises(LineageError, match=r"lack 'visual\.proj'"):
        load(tmp_path)
    put(cache, "a/b", open_clip_files(state | {"visual.more": torch.zeros(1)}))
    with pytest.raises(LineageError, match=r"hold 'visual\.more'"):
        load(tmp_path, f"hf-hub:a/b@{COMMIT}")


def test_a_wrong_revision_and_a_damaged_file_are_one_sentence_each(
    tmp_path: Path, cache: Path
) -> None:
    put(cache, REPOSITORY, open_clip_files(write_tiny(tmp_path)))
    wrong = "f" * 40
    with pytest.raises(RemoteError, match=f"{REPOSITORY} at {wrong}"):
        load(tmp_path, f"hf-hub:{REPOSITORY}@{wrong}")
    for blob in (cache / "models--someone--tiny-clip" / "blobs").iterdir():
        blob.write_bytes(blob.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="damaged or truncated"):
        load(tmp_path)


@pytest.mark.parametrize("text", ["hf-hub:tiny", "hf-hub:a/b/c", "hf-hub:a/b@", "hf-hub:a/ b@main"])
def test_references_are_checked(text: str) -> None:
    with pytest.raises(ConfigError, match="hf-hub:owner/name@revision"):
        Reference.parse(text)


def test_the_configuration_takes_a_reference_for_no_path() -> None:
    assert local_weights("tiny", AT) is None
