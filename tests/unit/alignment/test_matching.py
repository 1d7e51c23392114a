"""Matching: planted renamings come back exactly, best ones are best by brute force, and barriers fall."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from taskgrid.alignment.canonical import canonical
from taskgrid.alignment.maps import Axes
from taskgrid.alignment.matching import Maps, match_moments, match_weights, merge_many
from taskgrid.alignment.spaces import RES, Spaces, attention_spaces, mlp_space
from taskgrid.errors import ConfigError, LineageError
from taskgrid.store.weights import State
from tests.unit.alignment.test_spaces import error, group_element, tower
from tests.unit.alignment.trained_networks import (
    barrier,
    blank_tower,
    digits,
    loss_of,
    mlp_spaces,
    mlps,
    points,
    some_digits,
    towers,
    trained,
)


def renamed(spaces: Spaces, state: State, maps: Maps) -> State:
    return Axes(spaces.axes_by(maps))(state)


def same(one: Maps, two: Maps) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[space], two[space]) for space in one)


def product(one: State, two: State) -> float:
    return sum(float(np.vdot(one[key].numpy(), two[key].numpy())) for key in one)


def wide(seed: int) -> tuple[State, Spaces]:
    """A random tower of width 64."""
    module, spaces = blank_tower(seed)
    return canonical({key: one.detach() for key, one in module.state_dict().items()}), spaces


# ------------------------------------------------------------------------------------ planted


def test_a_planted_renaming_is_found_exactly() -> None:
    _, state, spaces = tower()
    for seed in range(20):
        planted = group_element(spaces, 1000 * seed)
        target = canonical(renamed(spaces, state, planted))
        found = match_weights(spaces, target, canonical(state))
        assert same(found.maps, planted), seed
        assert found.moved > 0.5


def test_a_planted_renaming_is_found_under_noise() -> None:
    state, spaces = wide(0)
    for seed in range(5):
        planted = group_element(spaces, 1000 * seed)
        generator = torch.Generator().manual_seed(seed)
        noisy = {
            key: one + one.std() * torch.randn(one.shape, generator=generator, dtype=one.dtype)
            for key, one in renamed(spaces, state, planted).items()
        }
        assert same(match_weights(spaces, noisy, state).maps, planted), seed


def test_a_planted_renaming_is_found_on_a_fine_tuned_copy() -> None:
    module, spaces, one, _ = towers()
    module.load_state_dict({key: tensor.float() for key, tensor in one.items()})
    tuned = trained(module, some_digits, 5, steps=20)
    planted = group_element(spaces, 3)
    target = canonical(renamed(spaces, tuned, planted))
    assert same(match_weights(spaces, target, canonical(one)).maps, planted)
    # Trained from one base, networks name their channels alike: nothing is to be renamed.
    assert match_weights(spaces, canonical(tuned), canonical(one)).moved == 0


def test_what_is_renamed_to_itself_merges_to_itself_and_comes_back() -> None:
    state, spaces = wide(0)
    other = renamed(spaces, state, group_element(spaces, 3))
    maps = match_weights(spaces, state, other).maps
    there = Axes(spaces.axes_by(maps))
    for key, one in there(other).items():
        assert torch.equal((state[key] + one) / 2, state[key])
    back = there.inverse()(there(other))
    assert all(torch.equal(back[key], other[key]) for key in other)


# --------------------------------------------------------------------------- the best there is


def test_attention_is_matched_as_well_as_brute_force_does() -> None:
    heads, width = 2, 3
    names = attention_spaces(0)
    spaces = Spaces({}, dict.fromkeys(names, heads * width), heads, blocks=1)
    inside = list(itertools.permutations(range(width)))

    def worth(
        table: np.ndarray, order: tuple[int, ...], rows: tuple[tuple[int, ...], ...]
    ) -> float:
        index = [head * width + row for head, own in zip(order, rows, strict=True) for row in own]
        return float(table[np.arange(heads * width), index].sum())

    for seed in range(5):
        random = np.random.default_rng(seed)
        tables = {name: random.normal(size=(heads * width,) * 2) for name in names}
        moments = {name: torch.from_numpy(table) for name, table in tables.items()}
        found = match_moments(spaces, moments)
        got = sum(float(table[np.arange(6), found[name]].sum()) for name, table in tables.items())
        best = max(
            max(worth(tables["0.q"] + tables["0.k"], order, rows) for rows in both)
            + max(worth(tables["0.v"], order, rows) for rows in both)
            for order in itertools.permutations(range(heads))
            for both in [list(itertools.product(inside, repeat=heads))]
        )
        assert got == pytest.approx(best, rel=1e-12)
        assert torch.equal(found["0.q"], found["0.k"])


def test_no_channel_leaves_its_head() -> None:
    (one, spaces), (two, _) = wide(0), wide(1)
    maps = match_weights(spaces, one, two).maps
    for block in range(spaces.blocks):
        for space in attention_spaces(block):
            width = spaces.sizes[space] // spaces.heads
            for head in maps[space].reshape(spaces.heads, width) // width:
                assert len(head.unique()) == 1
    module = blank_tower(1)[0].double()
    image = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    outputs = [
        torch.func.functional_call(module, state, (image,))
        for state in (two, renamed(spaces, two, maps))
    ]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)


def test_with_the_residual_stream_left_alone_the_best_of_all_is_found() -> None:
    spaces = mlp_spaces(5)
    generator = torch.Generator().manual_seed(0)
    shapes = {"first.weight": (5, 32), "first.bias": (5,), "second.weight": (5, 5)}
    shapes |= {"second.bias": (5,), "third.weight": (10, 5), "third.bias": (10,)}
    one, two = (
        {key: torch.randn(shape, generator=generator).double() for key, shape in shapes.items()}
        for _ in range(2)
    )
    found = match_weights(spaces, one, two, residual=False)
    assert torch.equal(found.maps[RES], torch.arange(5))
    best = max(
        product(one, renamed(spaces, two, {mlp_space(0): torch.tensor(index)}))
        for index in itertools.permutations(range(5))
    )
    assert found.history[-1] == pytest.approx(best, rel=1e-12)


def test_no_step_makes_it_worse() -> None:
    (one, spaces), (two, _) = wide(0), wide(1)
    found = match_weights(spaces, one, two)
    assert len(found.history) > spaces.blocks
    assert np.all(np.diff(found.history) > 0)
    assert found.history[0] == pytest.approx(product(one, two), rel=1e-9)
    assert found.history[-1] == pytest.approx(
        product(one, renamed(spaces, two, found.maps)), rel=1e-9
    )
    again = match_weights(spaces, one, two, start=found.maps)
    assert same(again.maps, found.maps) and len(again.history) == 1


def test_dead_channels_keep_their_names() -> None:
    state, spaces = wide(0)
    for name in ("c_fc.weight", "c_fc.bias"):
        state[f"transformer.resblocks.0.mlp.{name}"][[3, 50, 8]] = 0
    state["transformer.resblocks.0.mlp.c_proj.weight"][:, [3, 50, 8]] = 0
    assert match_weights(spaces, state, state).moved == 0


def test_weights_that_are_not_finite_are_refused() -> None:
    state, spaces = wide(0)
    spoiled = {**state, "proj": state["proj"] * torch.nan}
    with pytest.raises(LineageError, match="space 'res' cannot be matched"):
        match_weights(spaces, state, spoiled)


# ----------------------------------------------------------------------------------- many


def test_many_models_are_matched_to_one_another() -> None:
    _, state, spaces = tower()
    state = canonical(state)
    copies = [renamed(spaces, state, group_element(spaces, 1000 * seed)) for seed in range(3)]
    maps, mean = merge_many(spaces, copies)
    assert error(mean) < 1e-10
    own = [renamed(spaces, copy, one) for copy, one in zip(copies, maps, strict=True)]
    for key in own[0]:
        torch.testing.assert_close(own[0][key], own[1][key], rtol=0, atol=1e-12)
        torch.testing.assert_close(own[0][key], own[2][key], rtol=0, atol=1e-12)


def test_many_models_get_nearer_and_end_where_none_gains() -> None:
    states = [wide(seed)[0] for seed in range(3)]
    spaces = wide(0)[1]
    maps, mean = merge_many(spaces, states, seed=1)
    own = [renamed(spaces, state, one) for state, one in zip(states, maps, strict=True)]

    def together(models: list[State]) -> float:
        return sum(product(a, b) for a, b in itertools.combinations(models, 2))

    assert together(own) > together(states)
    for at, one in enumerate(own):
        others = [other for place, other in enumerate(own) if place != at]
        rest = {key: (others[0][key] + others[1][key]) / 2 for key in one}
        assert match_weights(spaces, rest, one).moved == 0
    for key, one in mean.items():
        torch.testing.assert_close(one, sum(other[key] for other in own) / 3, rtol=1e-12, atol=0)
    assert same(merge_many(spaces, states, seed=1)[0][2], maps[2])


def test_one_model_alone_is_matched_to_none() -> None:
    state, spaces = wide(0)
    with pytest.raises(ConfigError, match="two or more, not 1"):
        merge_many(spaces, [state])


# ----------------------------------------------------------------------------- activations


def correlation(one: np.ndarray, two: np.ndarray) -> torch.Tensor:
    with np.errstate(invalid="ignore"):  # of a channel that never changes
        found = np.nan_to_num(np.corrcoef(one.T, two.T))
    return torch.from_numpy(found[: one.shape[1], one.shape[1] :])


def seen(module: nn.Module, state: State, images: torch.Tensor) -> Mapping[str, np.ndarray]:
    """What is in the spaces of a tower, images times tokens by channels; the stream, at its end."""
    found: dict[str, np.ndarray] = {}
    module = module.float()
    module.load_state_dict({key: one.float() for key, one in state.items()})

    def hear(spaces: tuple[str, ...], attention: nn.Module | None = None):
        def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            if attention is not None:
                output = functional.linear(output, attention.in_proj_weight, attention.in_proj_bias)
            for space, one in zip(spaces, output.chunk(len(spaces), dim=-1), strict=True):
                found[space] = one.detach().double().flatten(0, 1).numpy()

        return hook

    handles = []
    for at, block in enumerate(module.transformer.resblocks):
        handles += [
            block.ln_1.register_forward_hook(hear(attention_spaces(at), block.attn)),
            block.mlp.gelu.register_forward_hook(hear((mlp_space(at),))),
            block.register_forward_hook(hear((RES,))),
        ]
    with torch.no_grad():
        module(images)
    for handle in handles:
        handle.remove()
    return found


def moments_of(module: nn.Module, one: State, two: State) -> dict[str, torch.Tensor]:
    images = digits()[0][:200]
    ours, theirs = (seen(module, state, images) for state in (one, two))
    return {space: correlation(ours[space], theirs[space]) for space in ours}


def test_a_planted_renaming_is_found_by_what_channels_do() -> None:
    module, spaces, one, two = towers()
    planted = group_element(spaces, 3)
    moments = moments_of(module, renamed(spaces, one, planted), one)
    assert same(match_moments(spaces, moments), planted)
    # And a network is matched as well under other names: the merge is the same function.
    first = renamed(spaces, two, match_moments(spaces, moments_of(module, one, two)))
    disguised = renamed(spaces, two, planted)
    second = renamed(spaces, disguised, match_moments(spaces, moments_of(module, one, disguised)))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_spaces_without_moments_keep_their_names() -> None:
    module, spaces, one, two = towers()
    moments = moments_of(module, one, two)
    del moments[RES]
    maps = match_moments(spaces, moments)
    assert torch.equal(maps[RES], torch.arange(spaces.sizes[RES]))
    assert not torch.equal(maps["0.mlp"], torch.arange(spaces.sizes["0.mlp"]))


# -------------------------------------------------------------------------------- barriers


def test_barriers_between_mlps_fall() -> None:
    width = 256
    module, one, two = mlps(width)
    spaces = mlp_spaces(width)
    loss = loss_of(module, *points(torch.Generator().manual_seed(99), 2000))
    inputs = points(torch.Generator().manual_seed(98), 2000)[0]

    def hidden(state: State) -> dict[str, np.ndarray]:
        first = functional.linear(
            inputs.double(), state["first.weight"], state["first.bias"]
        ).relu()
        second = functional.linear(first, state["second.weight"], state["second.bias"]).relu()
        return {RES: first.numpy(), mlp_space(0): second.numpy()}

    ours, theirs = hidden(one), hidden(two)
    moments = {space: correlation(ours[space], theirs[space]) for space in ours}
    naive = barrier(loss, one, two)
    by_weights = barrier(loss, one, renamed(spaces, two, match_weights(spaces, one, two).maps))
    by_moments = barrier(loss, one, renamed(spaces, two, match_moments(spaces, moments)))
    assert naive > 0.1
    assert by_weights < 0.5 * naive
    assert by_moments <= by_weights + 0.05


def test_barriers_between_towers_fall() -> None:
    module, spaces, one, two = towers()
    one, two = canonical(one), canonical(two)
    loss = loss_of(module, *digits())
    naive = barrier(loss, one, two)
    by_weights = barrier(loss, one, renamed(spaces, two, match_weights(spaces, one, two).maps))
    by_moments = match_moments(spaces, moments_of(module, one, two))
    assert by_weights < naive
    assert barrier(loss, one, renamed(spaces, two, by_moments)) < naive
