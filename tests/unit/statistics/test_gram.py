"""Gram matrices against the inputs of a forward pass that is written out by hand, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.inference import to_input
from taskgrid.statistics.gram import mixed_heads
from taskgrid.store.weights import State
from tests.unit.example_grid import MEAN, SIZE, STD, World, world
from tests.unit.example_statistics import computed

PATCH, WIDTH, HEADS = 4, 16, 2


@pytest.fixture(scope="module")
def small() -> World:
    return world(("a",), val=5)


def by_hand(state: State, pixels: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs of every linear map and scale, rows below one another, and the features."""
    weights = {key: tensor.double().numpy() for key, tensor in state.items()}
    inputs: dict[str, list[np.ndarray]] = {}

    def through(key: str, rows: np.ndarray, bias: str | None = None) -> np.ndarray:
        inputs.setdefault(key, []).append(rows)
        weight = weights[key]
        matrix = weight if key == "proj" else weight.reshape(len(weight), -1).T
        return np.asarray(rows @ matrix + (weights[bias] if bias else 0.0))

    def norm(name: str, rows: np.ndarray) -> np.ndarray:
        centred = rows - rows.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        inputs.setdefault(f"{name}.weight", []).append(scaled)
        return np.asarray(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"])

    def gelu(rows: np.ndarray) -> np.ndarray:
        return torch.nn.functional.gelu(torch.from_numpy(rows)).numpy()

    features = []
    for image in (pixels / 255.0 - np.array(MEAN)) / np.array(STD):
        channels, side = image.transpose(2, 0, 1), SIZE // PATCH
        patches = [
            channels[:, PATCH * i : PATCH * (i + 1), PATCH * j : PATCH * (j + 1)].reshape(-1)
            for i in range(side)
            for j in range(side)
        ]
        embedded = through("conv1.weight", np.stack(patches))
        rows = np.concatenate([weights["class_embedding"][None], embedded])
        rows = norm("ln_pre", rows + weights["positional_embedding"])
        for block in range(2):
            name = f"transformer.resblocks.{block}"
            seen = norm(f"{name}.ln_1", rows)
            joint = through(f"{name}.attn.in_proj_weight", seen, f"{name}.attn.in_proj_bias")
            mixed = []
            for head in range(HEADS):
                query, key, value = (
                    joint[:, part * WIDTH :][:, head * 8 : head * 8 + 8] for part in range(3)
                )
                scores = np.exp(query @ key.T / np.sqrt(8))
                mixed.append(scores / scores.sum(1, keepdims=True) @ value)
            rows = rows + through(
                f"{name}.attn.out_proj.weight",
                np.concatenate(mixed, axis=1),
                f"{name}.attn.out_proj.bias",
            )
            hidden = through(
                f"{name}.mlp.c_fc.weight", norm(f"{name}.ln_2", rows), f"{name}.mlp.c_fc.bias"
            )
            rows = rows + through(
                f"{name}.mlp.c_proj.weight", gelu(hidden), f"{name}.mlp.c_proj.bias"
            )
        features.append(through("proj", norm("ln_post", rows)[:1])[0])
    return {key: np.concatenate(found) for key, found in inputs.items()}, np.stack(features)


def test_against_a_forward_pass_by_hand(small: World) -> None:
    pixels = small.tasks["a"].val[0]
    inputs, features = by_hand(small.experts["a"], pixels)
    encoder = ImageEncoder.from_card(small.card, small.experts["a"])
    shown = to_input(torch.from_numpy(pixels), MEAN, STD)
    np.testing.assert_allclose(encoder(shown).numpy(), features, rtol=1e-4, atol=1e-5)
    found = computed("gram", small, "a")
    assert int(found.pop("images")) == 5
    assert found.keys() == inputs.keys()
    for key, rows in inputs.items():
        exact = (rows**2).sum(0) if "ln_" in key else rows.T @ rows
        np.testing.assert_allclose(
            found[key].numpy(), exact, rtol=0, atol=2e-6 * np.abs(exact).max(), err_msg=key
        )


def test_every_weight_that_multiplies_has_one(small: World) -> None:
    found = computed("gram", small, "a")
    matrices = {key for key, tensor in small.base.items() if tensor.ndim > 1}
    scales = {key for key in small.base if "ln_" in key and key.endswith("weight")}
    assert found.keys() == (matrices - {"positional_embedding"}) | scales | {"images"}
    assert {key for key in found if found[key].ndim == 1} == scales


@pytest.mark.parametrize("masked", [False, True])
def test_what_attention_hands_to_its_output(masked: bool) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        attention = nn.MultiheadAttention(12, 3, batch_first=True).double().eval()
        tokens = torch.randn(2, 5, 12, dtype=torch.float64)
    mask = torch.full((5, 5), -torch.inf, dtype=torch.float64).triu(1) if masked else None
    out = attention(tokens, tokens, tokens, need_weights=False, attn_mask=mask)[0]
    mixed = mixed_heads(attention, tokens, mask)
    torch.testing.assert_close(attention.out_proj(mixed), out)
