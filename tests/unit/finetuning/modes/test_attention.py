"""Attention-only fine-tuning: what moves, what does not, and how much of a ViT-B/32 it is."""

from __future__ import annotations

import pytest
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower

from taskgrid.finetuning.modes.attention import MODE
from taskgrid.finetuning.modes.seam import Others
from taskgrid.models import ImageEncoder
from taskgrid.models.card import ModelCard
from taskgrid.models.clip import Clip
from taskgrid.models.layout import projection_of
from taskgrid.plugins.cards import plugin_options
from tests.unit.example_training import run


@pytest.mark.parametrize("biases", [False, True])
def test_only_attention_projections_move(clip: Clip, biases: bool) -> None:
    base = clip.visual_state()
    expert = run(clip, mode="attention", mode_options={"biases": biases}).state
    kinds = ("weight", "bias") if biases else ("weight",)
    assert {name for name in base if not torch.equal(base[name], expert[name])} == {
        f"transformer.resblocks.{block}.attn.{projection}{kind}"
        for block in (0, 1)
        for projection in ("in_proj_", "out_proj.")
        for kind in kinds
    }
    # The rest keeps even its bytes.
    for name in base:
        if projection_of(name) not in ("qkv", "attention_out"):
            assert base[name].numpy().tobytes() == expert[name].numpy().tobytes()


@pytest.mark.parametrize(("biases", "count"), [(False, 28_311_552), (True, 28_348_416)])
def test_it_trains_a_third_of_a_vit_b_32(biases: bool, count: int) -> None:
    # alignment.md 3, AO2: 12 (4 d^2) weights, 12 (4 d) biases.
    with torch.device("meta"):
        tower = _build_vision_tower(
            512, CLIPVisionCfg(layers=12, width=768, patch_size=32, image_size=224)
        )
    card = ModelCard.__new__(ModelCard)
    options = plugin_options("mode", "attention", {"biases": biases})
    trainee = MODE.prepare(ImageEncoder(tower, card), options, 0, Others())
    assert sum(parameter.numel() for parameter in trainee.trained().values()) == count
