"""transformers' layout to open_clip's and back, held against the two libraries themselves."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.model import CLIP

from taskgrid.errors import LineageError
from taskgrid.models.card import ModelCard
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.hub.conversion import (
    clip_to_open_clip,
    is_transformers,
    to_open_clip,
    to_transformers,
)
from taskgrid.models.tower import build_tower

transformers = pytest.importorskip("transformers", reason="the dev extra installs transformers")

# Small relatives of the papers' three towers: the same ratios of patch, image, heads and depth.
LIKE_B32 = {"image_size": 64, "patch_size": 32, "width": 32, "layers": 3, "head_width": 8}
LIKE_B16 = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 3, "head_width": 8}
LIKE_L14 = {"image_size": 56, "patch_size": 14, "width": 48, "layers": 5, "head_width": 12}


def card_of(vision: dict[str, Any], *, embed_dim: int = 20, quick: bool = False) -> ModelCard:
    return ModelCard(
        architecture="small",
        pretrained="random",
        activation="quick_gelu" if quick else "gelu",
        tower={"embed_dim": embed_dim, "vision_cfg": vision, "quick_gelu": quick},
        image_size=vision["image_size"],
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        interpolation="bicubic",
        logit_scale=100.0,
        base="base",
        text="text",
    )


def vision_config(card: ModelCard) -> Any:
    vision = card.tower["vision_cfg"]
    return transformers.CLIPVisionConfig(
        hidden_size=vision["width"],
        intermediate_size=4 * vision["width"],
        num_hidden_layers=vision["layers"],
        num_attention_heads=vision["width"] // vision["head_width"],
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        projection_dim=card.tower["embed_dim"],
        hidden_act=card.activation,
    )


def randomised(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Norms start at exactly one and zero and biases at zero: an exchange of two would not show."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2 if parameter.ndim > 1 else 0.5)
    return model.eval().requires_grad_(False)


def projected(card: ModelCard, seed: int = 0) -> Any:
    return randomised(transformers.CLIPVisionModelWithProjection(vision_config(card)), seed)


def far(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left - right).abs().max() / left.abs().max())


@pytest.mark.parametrize("quick", [True, False], ids=["quick_gelu", "gelu"])
@pytest.mark.parametrize("vision", [LIKE_B32, LIKE_B16, LIKE_L14], ids=["b32", "b16", "l14"])
def test_a_converted_tower_gives_the_features_of_transformers(
    vision: dict[str, Any], quick: bool
) -> None:
    card = card_of(vision, quick=quick)
    theirs = projected(card)
    converted = to_open_clip(theirs.state_dict(), card)
    images = torch.randn(3, 3, card.image_size, card.image_size)
    with torch.inference_mode():
        expected = theirs(pixel_values=images).image_embeds
        found = ImageEncoder.from_card(card, converted)(images)
        assert far(expected, found) < 1e-5
        # The test would see the other activation.
        other = card_of(vision, quick=not quick)
        assert far(expected, ImageEncoder.from_card(other, converted)(images)) > 1e-3


@pytest.mark.parametrize("quick", [True, False], ids=["quick_gelu", "gelu"])
def test_an_open_clip_tower_gives_its_features_in_transformers(quick: bool) -> None:
    card = card_of(LIKE_L14, quick=quick)
    tower = randomised(build_tower(card))
    model = transformers.CLIPVisionModelWithProjection(vision_config(card))
    model.load_state_dict(to_transformers(tower.state_dict()), strict=True)
    images = torch.randn(3, 3, card.image_size, card.image_size)
    with torch.inference_mode():
        assert far(tower(images), model.eval()(pixel_values=images).image_embeds) < 1e-5


def test_the_real_size_of_vit_b_32() -> None:
    config = open_clip.get_model_config("ViT-B-32-quickgelu")
    card = card_of(
        {"head_width": 64, **config["vision_cfg"]}, embed_dim=config["embed_dim"], quick=True
    )
    # Its own defaults are openai/clip-vit-base-patch32.
    theirs = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig())
    converted = to_open_clip(theirs.eval().state_dict(), card)
    # Radford et al.'s tower has 87,849,216 weights; without its projection 87,456,000.
    assert sum(tensor.numel() for tensor in converted.values()) == 87_849_216
    assert sum(t.numel() for key, t in converted.items() if key != "proj") == 87_456_000
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        expected = theirs(pixel_values=images).image_embeds
        assert far(expected, ImageEncoder.from_card(card, converted)(images)) < 1e-5


@settings(max_examples=15)
@given(
    heads=st.integers(1, 3),
    head_width=st.sampled_from([4, 6]),
    layers=st.integers(1, 11),
    embed_dim=st.integers(3, 9),
    seed=st.integers(0, 9),
    dtype=st.sampled_from([torch.float32, torch.float16]),
)
def test_there_and_back_changes_no_bit(
    heads: int, head_width: int, layers: int, embed_dim: int, seed: int, dtype: torch.dtype
) -> None:
    vision = {
        "image_size": 8,
        "patch_size": 4,
        "width": heads * head_width,
        "layers": layers,
        "head_width": head_width,
    }
    card = card_of(vision, embed_dim=embed_dim)
    state = randomised(build_tower(card), seed).to(dtype).state_dict()
    again = to_open_clip(to_transformers(state), card)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)
    assert {tensor.dtype for tensor in again.values()} == {dtype}


def test_a_vision_model_without_projection_lacks_proj_and_nothing_else() -> None:
    card = card_of(LIKE_B32)
    whole = to_open_clip(projected(card).state_dict(), card)
    bare = transformers.CLIPVisionModel(vision_config(card)).state_dict()
    # Releases up to 4 write the prefix, later ones do not.
    plain = {key.removeprefix("vision_model."): tensor for key, tensor in bare.items()}
    for state in (plain, {f"vision_model.{key}": tensor for key, tensor in plain.items()}):
        found = to_open_clip(state, card)
        assert whole.keys() - found.keys() == {"proj"}
        assert not found.keys() - whole.keys()


def test_the_converse_is_a_vision_models_state() -> None:
    card = card_of(LIKE_B32)
    state = {k: t for k, t in randomised(build_tower(card)).state_dict().items() if k != "proj"}
    bare = transformers.CLIPVisionModel(vision_config(card)).state_dict()
    names = {key.removeprefix("vision_model.") for key in bare}
    assert {key.removeprefix("vision_model.") for key in to_transformers(state)} == names


def test_a_whole_clip_encodes_images_and_texts_alike() -> None:
    card = card_of(LIKE_B16, quick=True)
    text = {"context_length": 12, "vocab_size": 60, "width": 24, "heads": 2, "layers": 2}
    config = transformers.CLIPConfig(
        vision_config=vision_config(card).to_dict(),
        text_config={
            "hidden_size": 24,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "vocab_size": 60,
            "max_position_embeddings": 12,
            "projection_dim": 20,
            "hidden_act": "quick_gelu",
            "bos_token_id": 58,
            "eos_token_id": 59,
            "pad_token_id": 0,
        },
        projection_dim=20,
    )
    theirs = randomised(transformers.CLIPModel(config))
    # Older releases saved these as well.
    extra = {
        "vision_model.embeddings.position_ids": torch.arange(5)[None],
        "text_model.embeddings.position_ids": torch.arange(12)[None],
    }
    ours = CLIP(embed_dim=20, vision_cfg=LIKE_B16, text_cfg=text, quick_gelu=True)
    ours.load_state_dict(clip_to_open_clip({**theirs.state_dict(), **extra}), strict=True)
    ours.eval()
    images = torch.randn(2, 3, 32, 32)
    tokens = torch.randint(1, 58, (4, 12))
    tokens[:, 0] = 58
    # The end of the text is the largest number, which is where both read.
    tokens[torch.arange(4), torch.tensor([11, 5, 8, 3])] = 59
    with torch.inference_mode():
        output = theirs(input_ids=tokens, pixel_values=images)
        pictures = ours.encode_image(images, normalize=True)
        assert far(output.image_embeds, pictures) < 1e-5
        assert far(output.text_embeds, ours.encode_text(tokens, normalize=True)) < 1e-5
    # The image tower alone leaves the text tower out.
    tower = to_open_clip({**theirs.state_dict(), **extra}, card)
    assert all(torch.equal(tower[key], ours.visual.state_dict()[key]) for key in tower)
    assert tower.keys() == ours.visual.state_dict().keys()


def test_layouts_are_told_apart() -> None:
    card = card_of(LIKE_B32)
    theirs = projected(card).state_dict()
    assert is_transformers(theirs)
    assert is_transformers({k.removeprefix("vision_model."): 0 for k in theirs})
    assert not is_transformers(to_open_clip(theirs, card))


def _broken(change: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    first = "vision_model.encoder.layers.0."
    if change == "missing":
        del state[f"{first}layer_norm2.bias"]
    elif change == "no k":
        del state[f"{first}self_attn.k_proj.weight"]
    elif change == "unknown":
        state["vision_model.more"] = torch.zeros(1)
    elif change == "classifier":
        state["classifier.weight"] = torch.zeros(1)
    elif change == "shape":
        state["visual_projection.weight"] = state["visual_projection.weight"].T.contiguous()
    elif change == "deeper":
        key = f"{first}layer_norm2.bias"
        state[key.replace("layers.0", "layers.3")] = state[key]
    elif change == "uneven":
        # The three together have the right size.
        state[f"{first}self_attn.q_proj.bias"] = torch.zeros(33)
        state[f"{first}self_attn.k_proj.bias"] = torch.zeros(31)
    return state


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("missing", r"the file lack 'encoder\.layers\.0\.layer_norm2\.bias', which .*'small'"),
        ("no k", r"the file lack 'vision_model\.encoder\.layers\.0\.self_attn\.k_proj\.weight'"),
        ("unknown", r"the file hold 'vision_model\.more'"),
        ("classifier", r"the file hold 'classifier\.weight'"),
        ("shape", r"shape \(20, 32\) for 'proj' .*needs \(32, 20\)"),
        ("deeper", r"the file hold 'encoder\.layers\.3\.layer_norm2\.bias'"),
        ("uneven", r"different shapes in .*layers\.0\.self_attn.*\(31,\), \(32,\), \(33,\)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change: str, sentence: str) -> None:
    card = card_of(LIKE_B32)
    state = _broken(change, dict(projected(card).state_dict()))
    with pytest.raises(LineageError, match=sentence) as caught:
        to_open_clip(state, card, "the file")
    assert "\n" not in str(caught.value)


def test_another_size_is_refused_by_both_shapes() -> None:
    state = projected(card_of(LIKE_B16)).state_dict()
    with pytest.raises(
        LineageError, match=r"\(32, 3, 16, 16\) for 'conv1\.weight'.*\(32, 3, 32, 32\)"
    ):
        to_open_clip(state, card_of(LIKE_B32))


def test_a_tower_that_transformers_does_not_have_is_refused() -> None:
    with torch.device("meta"):
        resnet = CLIP(**open_clip.get_model_config("RN50")).visual.state_dict()
    with pytest.raises(LineageError, match=r"conv1|bn1|attnpool|layer1"):
        to_transformers(resnet)
