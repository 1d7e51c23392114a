"""The table of spaces and the free directions, on open_clip's own tower: what they say changes no output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from torch.func import functional_call

from taskgrid.alignment.canonical import canonical
from taskgrid.alignment.maps import Axes
from taskgrid.alignment.spaces import (
    RES,
    Pair,
    SpaceMap,
    Spaces,
    attention_spaces,
    mlp_space,
    spaces_of,
    vit_spaces,
)
from taskgrid.errors import LineageError
from taskgrid.models.tower import build_tower
from taskgrid.store.weights import State
from tests.unit.example_models import SIZE, tiny_clip


@cache
def tower() -> tuple[torch.nn.Module, State, Spaces]:
    """A tower of two blocks in float64, with random LayerNorms; its state and spaces."""
    with TemporaryDirectory() as folder:
        clip = tiny_clip(Path(folder))
    state = {key: tensor.double() for key, tensor in clip.visual_state().items()}
    module = build_tower(clip.card()).double()
    return (
        module,
        state,
        spaces_of(clip.card(), {key: tuple(one.shape) for key, one in state.items()}),
    )


def features(state: Mapping[str, torch.Tensor]) -> torch.Tensor:
    images = torch.randn(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(9)).double()
    return functional_call(tower()[0], dict(state), (images,))


def error(state: Mapping[str, torch.Tensor]) -> float:
    return float((features(state) - features(tower()[1])).abs().max())


def moved(maps: Mapping[str, SpaceMap]) -> State:
    _, state, spaces = tower()
    return Axes(spaces.axes_by(maps))(state)


def permutation(size: int, seed: int) -> torch.Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def group_element(spaces: Spaces, seed: int) -> dict[str, torch.Tensor]:
    """A random member of the tower's group: heads change places as wholes, and channels inside them."""
    maps = {RES: permutation(spaces.sizes[RES], seed)}
    for block in range(spaces.blocks):
        names, order = attention_spaces(block), permutation(spaces.heads, seed + 10 * block + 1)
        width = spaces.sizes[names[0]] // spaces.heads
        for at, inner in enumerate(("qk", "v")):
            index = torch.cat(
                [
                    int(head) * width + permutation(width, seed + 100 * block + 7 * slot + at)
                    for slot, head in enumerate(order)
                ]
            )
            maps |= dict.fromkeys(names[:2] if inner == "qk" else names[2:], index)
        maps[mlp_space(block)] = permutation(spaces.sizes[mlp_space(block)], seed + 50 + block)
    return maps


@pytest.mark.parametrize("seed", range(3))
def test_a_member_of_the_group_leaves_the_function(seed: int) -> None:
    maps = group_element(tower()[2], seed)
    assert error(moved(maps)) < 1e-12
    assert not torch.equal(moved(maps)["proj"], tower()[1]["proj"])


def test_indices_and_matrices_are_the_same_maps() -> None:
    spaces = tower()[2]
    hard = group_element(spaces, 5)
    unit = {space: torch.eye(size, dtype=torch.float64) for space, size in spaces.sizes.items()}
    soft = {space: Pair(unit[space][index], unit[space][index].T) for space, index in hard.items()}
    one, two = moved(hard), moved(soft)
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_doubled_hidden_units_with_halved_weights_leave_the_function() -> None:
    # M and U are told apart: new units are copies, and what reads them shares the weight.
    space, size = mlp_space(0), tower()[2].sizes[mlp_space(0)]
    unit = torch.eye(size, dtype=torch.float64)
    twice = Pair(torch.cat([unit, unit]), torch.cat([unit, unit], dim=1) / 2)
    state = moved({space: twice})
    assert state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0] == 2 * size
    hidden = tower()[0].transformer.resblocks[0].mlp
    wide = torch.nn.Sequential(
        torch.nn.Linear(16, 2 * size), hidden[1], torch.nn.Linear(2 * size, 16)
    )
    for at, name in ((0, "c_fc"), (2, "c_proj")):
        for part in ("weight", "bias"):
            setattr(
                wide[at],
                part,
                torch.nn.Parameter(state[f"transformer.resblocks.0.mlp.{name}.{part}"]),
            )
    inputs = torch.randn(7, 16, dtype=torch.float64)
    narrow = functional_call(
        hidden,
        {
            f"{name}.{part}": tower()[1][f"transformer.resblocks.0.mlp.{name}.{part}"]
            for name in ("c_fc", "c_proj")
            for part in ("weight", "bias")
        },
        (inputs,),
    )
    torch.testing.assert_close(wide(inputs), narrow, rtol=1e-12, atol=1e-12)


def test_channels_that_cross_heads_break_the_function() -> None:
    spaces = tower()[2]
    for names in (attention_spaces(0)[:2], attention_spaces(0)[2:]):
        size = spaces.sizes[names[0]]
        rolled = (torch.arange(size) + size // spaces.heads // 2) % size
        assert error(moved(dict.fromkeys(names, rolled))) > 1e-3


def test_queries_without_their_keys_break_the_function() -> None:
    width = tower()[2].sizes["0.q"] // tower()[2].heads
    inside = torch.cat([permutation(width, 1), width + permutation(width, 2)])
    assert error(moved(dict.fromkeys(attention_spaces(0)[:2], inside))) < 1e-12
    assert error(moved({"0.q": inside})) > 1e-3


def _key_bias(state: State) -> None:
    state["transformer.resblocks.0.attn.in_proj_bias"][16:32] += 3.0


def _constants(state: State) -> None:
    state["positional_embedding"] += torch.arange(5.0)[:, None]
    state["transformer.resblocks.0.attn.out_proj.bias"] += 2.0
    state["transformer.resblocks.1.mlp.c_proj.bias"] -= 1.5


def _value_bias(state: State) -> None:
    prefix = "transformer.resblocks.1.attn"
    shift = torch.linspace(-1, 1, 16, dtype=torch.float64)
    state[f"{prefix}.in_proj_bias"][32:] += shift
    state[f"{prefix}.out_proj.bias"] -= state[f"{prefix}.out_proj.weight"] @ shift


@pytest.mark.parametrize("change", [_key_bias, _constants, _value_bias])
def test_free_directions_are_free_and_are_taken_out(change: Callable[[State], None]) -> None:
    state = {key: tensor.clone() for key, tensor in tower()[1].items()}
    change(state)
    assert error(state) < 1e-12
    one, two = canonical(state), canonical(tower()[1])
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=0, atol=1e-12)


def test_the_canonical_form_is_the_same_function() -> None:
    assert error(canonical(tower()[1])) < 1e-12


def test_other_towers_are_refused() -> None:
    shapes = {key: tuple(one.shape) for key, one in tower()[1].items()}
    with pytest.raises(LineageError, match=r"'attn_pool\.query'"):
        vit_spaces({**shapes, "attn_pool.query": (4, 4)}, 2)
    with pytest.raises(LineageError, match="lacks tensors"):
        vit_spaces({"ln_post.weight": (16,), "transformer.resblocks.1.ln_1.weight": (16,)}, 2)
    with TemporaryDirectory() as folder:
        card = tiny_clip(Path(folder)).card()
    timm = {**card.tower, "vision_cfg": {"timm_model_name": "x"}}
    with pytest.raises(LineageError, match="aligner `none`"):
        spaces_of(replace(card, tower=timm), shapes)


def test_maps_must_fit() -> None:
    spaces = tower()[2]
    with pytest.raises(LineageError, match="no space 'x'"):
        spaces.axes_by({"x": torch.arange(3)})
    with pytest.raises(LineageError, match="has 16 channels"):
        spaces.axes_by({RES: Pair(torch.eye(3), torch.eye(3))})
