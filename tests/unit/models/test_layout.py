"""Layers and parts of a tower, on the keys that open_clip's towers really have."""

from __future__ import annotations

import open_clip
import pytest
import torch
from open_clip.model import CLIP

from taskgrid.models.layout import layer_of, layers, part_of, projection_of


def keys_of(architecture: str) -> list[str]:
    with torch.device("meta"):
        model = CLIP(**open_clip.get_model_config(architecture))
    return list(model.visual.state_dict())


@pytest.mark.parametrize(
    ("key", "layer", "part"),
    [
        ("conv1.weight", "embedding", "embedding"),
        ("class_embedding", "embedding", "embedding"),
        ("positional_embedding", "embedding", "embedding"),
        ("ln_pre.weight", "embedding", "norm"),
        ("transformer.resblocks.3.attn.in_proj_weight", "block 3", "attention"),
        ("transformer.resblocks.3.attn.out_proj.bias", "block 3", "attention"),
        ("transformer.resblocks.11.mlp.c_fc.weight", "block 11", "mlp"),
        ("transformer.resblocks.0.ln_1.bias", "block 0", "norm"),
        ("ln_post.bias", "output", "norm"),
        ("proj", "output", "projection"),
        ("layer2.1.conv1.weight", "layer2.1", "other"),
        ("layer2.1.bn1.weight", "layer2.1", "norm"),
        ("attnpool.q_proj.weight", "output", "attention"),
        ("trunk.blocks.7.attn.qkv.weight", "block 7", "attention"),
        ("trunk.patch_embed.proj.weight", "embedding", "embedding"),
        ("trunk.norm.weight", "output", "norm"),
        ("head.proj.weight", "output", "projection"),
    ],
)
def test_known_keys(key: str, layer: str, part: str) -> None:
    assert (layer_of(key), part_of(key)) == (layer, part)


@pytest.mark.parametrize(
    ("key", "projection"),
    [
        ("transformer.resblocks.3.attn.in_proj_weight", "qkv"),
        ("transformer.resblocks.3.attn.in_proj_bias", "qkv"),
        ("transformer.resblocks.3.attn.out_proj.weight", "attention_out"),
        ("transformer.resblocks.11.mlp.c_fc.weight", "mlp_in"),
        ("transformer.resblocks.11.mlp.c_proj.bias", "mlp_out"),
        ("trunk.blocks.0.attn.qkv.weight", "qkv"),
        ("trunk.blocks.0.attn.proj.weight", "attention_out"),
        ("trunk.blocks.0.mlp.fc2.weight", "mlp_out"),
        ("trunk.blocks.0.attn.q_norm.weight", None),
        ("transformer.resblocks.3.ln_1.weight", None),
        ("attnpool.q_proj.weight", None),
        ("proj", None),
    ],
)
def test_projections_of_blocks(key: str, projection: str | None) -> None:
    assert projection_of(key) == projection


def test_every_tensor_of_a_vit_has_a_place() -> None:
    keys = keys_of("ViT-B-32-quickgelu")
    assert layers(keys) == ("embedding", *(f"block {i}" for i in range(12)), "output")
    assert {part_of(key) for key in keys} == {
        "embedding",
        "attention",
        "mlp",
        "norm",
        "projection",
    }
    per_block = [key for key in keys if layer_of(key) == "block 5"]
    assert len(per_block) == 12


def test_attention_is_one_third_of_the_tower() -> None:
    with torch.device("meta"):
        model = CLIP(**open_clip.get_model_config("ViT-B-32-quickgelu"))
    sizes = {key: tensor.numel() for key, tensor in model.visual.state_dict().items()}
    weights = sum(
        size for key, size in sizes.items() if part_of(key) == "attention" and "bias" not in key
    )
    # Jin et al. (ICLR 2025): 28.3 M of 87.8 M.
    assert weights == 12 * 4 * 768 * 768
    assert sum(sizes.values()) == 87_849_216


def test_layers_of_a_resnet_are_in_order() -> None:
    found = layers(keys_of("RN50"))
    assert found[0] == "embedding"
    assert found[-1] == "output"
    assert found.index("layer1.0") < found.index("layer2.3") < found.index("layer4.2")
