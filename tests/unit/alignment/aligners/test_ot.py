"""Transport by plans on open_clip's own tower: planted channels, unequal widths, what breaks a function."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call

from taskgrid.alignment import Side, Transport, transport
from taskgrid.alignment.door import transport_of
from taskgrid.alignment.images import Images
from taskgrid.alignment.maps import Axes
from taskgrid.alignment.spaces import RES, Pair, SpaceMap, attention_spaces, mlp_space, spaces_of
from taskgrid.errors import DataError, LineageError
from taskgrid.merging import merge
from taskgrid.models.card import ModelCard
from taskgrid.models.tower import build_tower
from taskgrid.statistics.seam import Examples
from taskgrid.store.weights import State, digest_state
from tests.unit.alignment.test_spaces import error, features, group_element, moved, tower
from tests.unit.example_models import SIZE, tiny_clip

POLICIES = ("stream", "mean", "only_resid", "no_resid", "weighted_scalar", "weighted_matrix")


@cache
def card() -> ModelCard:
    with TemporaryDirectory() as folder:
        return tiny_clip(Path(folder)).card()


def side(state: Mapping[str, torch.Tensor], **vision: Any) -> Side:
    """A base with its card; ``vision`` is what its tower has in the place of the tiny one's."""
    config = {**card().tower, "vision_cfg": {**card().tower["vision_cfg"], **vision}}
    return Side(state, replace(card(), tower=config, base=digest_state(state)))


def shown(count: int = 24) -> Images:
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    return Images({"a": Examples(pixels, np.zeros(count, dtype=np.int64))})


def found(source: Side, target: Side, **options: Any) -> Transport:
    images = shown() if options.get("from") == "activations" else None
    return transport_of("ot", source, target, options=options, images=images)


def other(seed: int = 1) -> State:
    """A base from other random numbers, as large as the tower's own."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: tensor.std().nan_to_num(1.0)
        * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        for key, tensor in tower()[1].items()
    }


def same(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in two)


# ------------------------------------------------------------------ planted renamings


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("residual", POLICIES)
def test_a_planted_renaming_is_found_and_carries_the_base_to_its_renamed_self(
    residual: str, seed: int
) -> None:
    # Branches and stream have the same plan, so that all policies agree.
    target = moved(group_element(tower()[2], seed))
    for options in ({}, {"qk": "separate"}, {"heads": "crossing"}):
        carried = found(side(tower()[1]), side(target), residual=residual, **options)
        assert same(carried.exact(tower()[1]), target)


@pytest.mark.parametrize("residual", POLICIES)
def test_a_planted_renaming_is_found_by_activations(residual: str) -> None:
    state = {key: tensor.float() for key, tensor in tower()[1].items()}
    target = Axes(tower()[2].axes_by(group_element(tower()[2], 4)))(state)
    carried = found(side(state), side(target), residual=residual, **{"from": "activations"})
    assert same(carried(state), target)


def test_with_the_stream_as_it_is_the_rest_of_a_renaming_is_found() -> None:
    maps = {space: one for space, one in group_element(tower()[2], 2).items() if space != RES}
    carried = found(side(tower()[1]), side(moved(maps)), residual="identity")
    assert same(carried.exact(tower()[1]), moved(maps))


@pytest.mark.parametrize("residual", POLICIES)
def test_a_base_is_carried_to_itself_as_it_is(residual: str) -> None:
    base = side(tower()[1])
    assert same(found(base, base, residual=residual).exact(tower()[1]), tower()[1])


def test_soft_plans_come_near_a_planted_renaming_as_the_entropy_goes() -> None:
    target = moved(group_element(tower()[2], 1))
    off = []
    for reg in (0.01, 0.05, 0.2):
        carried = found(side(tower()[1]), side(target), solver="sinkhorn", reg=reg)
        exact = carried.exact(tower()[1])
        off.append(max(float((exact[key] - target[key]).abs().max()) for key in target))
    assert off == sorted(off) and off[0] < 1e-4 and off[-1] > 0.1


# ------------------------------------------------------------------ the function


@pytest.mark.parametrize("choice", [{}, {"residual": "identity"}, {"from": "activations"}])
def test_whatever_the_target_what_is_carried_computes_the_same(choice: dict[str, str]) -> None:
    state = {key: tensor.float() for key, tensor in tower()[1].items()}
    target = {key: tensor.float() for key, tensor in other().items()}
    carried = found(side(state), side(target), **choice).exact(state)
    # The tower's weights are float32 numbers.
    assert error(carried) < 1e-12
    assert not torch.equal(carried["transformer.resblocks.0.mlp.c_fc.bias"], state["ln_post.bias"])


@pytest.mark.parametrize(
    "choice",
    [
        {"heads": "crossing"},
        {"qk": "separate"},
        {"solver": "sinkhorn"},
        *({"residual": name} for name in POLICIES[1:]),
    ],
)
def test_what_the_paper_does_breaks_the_function(choice: dict[str, str]) -> None:
    """Not of planted channels, but of networks that differ, as here.

    Channels that cross heads, queries that do not meet their keys, branches that write to other channels
    than are read, and means of channels behind which there is a LayerNorm.
    """
    carried = found(side(tower()[1]), side(other()), **choice)
    assert error(carried.exact(tower()[1])) > 1e-2


@pytest.mark.parametrize("choice", [{}, {"residual": "mean"}, {"from": "activations"}])
def test_the_names_of_the_sources_channels_say_nothing(choice: dict[str, str]) -> None:
    state = {key: tensor.float() for key, tensor in tower()[1].items()}
    renamed = Axes(tower()[2].axes_by(group_element(tower()[2], 6)))(state)
    target = side({key: tensor.float() for key, tensor in other().items()})
    one, two = (found(side(base), target, **choice)(base) for base in (state, renamed))
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=0, atol=1e-6)


# ------------------------------------------------------------------ unequal widths


def copies(index: torch.Tensor, size: int, stretch: float = 1.0) -> Pair:
    """New channels that are copies of old ones; what reads them shares the weight."""
    into = torch.eye(size, dtype=torch.float64)[index]
    return Pair(stretch * into, into.T / into.sum(dim=0)[:, None] / stretch)


WIDER: Mapping[str, dict[str, Any]] = {
    "more heads": {"width": 32, "head_width": 8, "mlp_ratio": 4.0},
    "wider heads": {"width": 32, "head_width": 16, "mlp_ratio": 2.0},
    "more hidden units": {"mlp_ratio": 8.0},
}


def widened(kind: str) -> tuple[Side, State]:
    """The tower with channels that are copied, in a random order, computing the same; its base and state."""
    spaces, maps = tower()[2], dict[str, SpaceMap]()
    twice = torch.arange(32) // 2
    if kind != "more hidden units":
        heads = torch.arange(32) // 16 * 8 + torch.arange(32) % 8
        inner, stretch = (heads, 1.0) if kind == "more heads" else (twice, 0.5**0.25)
        maps[RES] = copies(twice, 16)
        for block in range(2):
            for name, factor in zip(attention_spaces(block), (stretch, stretch, 1.0), strict=True):
                maps[name] = copies(inner, 16, factor)
    if kind != "wider heads":
        maps |= {mlp_space(block): copies(torch.arange(128) // 2, 64) for block in range(2)}
    plain = Axes(spaces.axes_by(maps))(tower()[1])
    wide = side(plain, **WIDER[kind])
    wider = spaces_of(wide.the_card(), wide.end.shapes)
    state = Axes(wider.axes_by(group_element(wider, 3)))(plain)
    return side(state, **WIDER[kind]), state


@pytest.mark.parametrize("kind", WIDER)
@pytest.mark.parametrize("residual", POLICIES)
def test_a_planted_wider_tower_is_reached_and_left(kind: str, residual: str) -> None:
    wide, state = widened(kind)
    # It is the same function, or there would be nothing to reproduce.
    module = build_tower(wide.the_card()).double()
    images = torch.randn(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(9)).double()
    computed = functional_call(module, state, (images,))
    torch.testing.assert_close(computed, features(tower()[1]), rtol=0, atol=1e-12)
    narrow = side(tower()[1])
    for source, target in ((narrow, wide), (wide, narrow)):
        carried = found(source, target, residual=residual).exact(source.base)
        for key, tensor in target.base.items():
            torch.testing.assert_close(carried[key], tensor, rtol=0, atol=1e-12)


def test_a_wider_tower_is_found_by_activations() -> None:
    wide, state = widened("more hidden units")
    wide = side(
        {key: tensor.float() for key, tensor in state.items()}, **WIDER["more hidden units"]
    )
    narrow = side({key: tensor.float() for key, tensor in tower()[1].items()})
    for source, target in ((narrow, wide), (wide, narrow)):
        assert same(found(source, target, **{"from": "activations"})(source.base), target.base)


# ------------------------------------------------------------------ fusing


@cache
def small() -> tuple[State, Side]:
    """A base in float32, as merges take them, and a renamed one."""
    state = {key: tensor.float() for key, tensor in tower()[1].items()}
    return state, side(Axes(tower()[2].axes_by(group_element(tower()[2], 8)))(state))


def carried_whole(**options: Any) -> State:
    state, anchor = small()
    return transport(
        "ot",
        state,
        {"a": state},
        anchor.base,
        source_card=side(state).card,
        target_card=anchor.card,
        carry="model",
        **options,
    )["a"]


def test_a_renamed_model_fused_with_its_anchor_is_the_anchor() -> None:
    anchor = small()[1].base
    fused = merge("average", anchor, {"a": carried_whole(), "anchor": anchor})
    assert same(fused, anchor)


def test_all_of_the_anchor_is_the_anchor_and_nothing_of_it_what_was_carried() -> None:
    # (1 - alpha) W' + alpha W, with lambda 1 - alpha: alpha lives in the merge.
    anchor, soft = small()[1].base, carried_whole(solver="sinkhorn", reg=0.03)
    assert not same(soft, anchor)
    assert same(merge("task_arithmetic", anchor, {"a": soft}, 0.0), anchor)
    for key, tensor in merge("task_arithmetic", anchor, {"a": soft}, 1.0).items():
        torch.testing.assert_close(tensor, soft[key], rtol=0, atol=1e-6)


# ------------------------------------------------------------------ refusals


def test_bases_that_differ_in_more_than_their_widths_are_refused() -> None:
    state = tower()[1]
    base = side(state)
    quick = replace(base.the_card(), activation="quick_gelu")
    with pytest.raises(LineageError, match="gelu, the target with quick_gelu; no plan"):
        found(base, Side(state, quick))
    deeper = {
        **state,
        **{
            key.replace("resblocks.1", "resblocks.2"): tensor
            for key, tensor in state.items()
            if "resblocks.1" in key
        },
    }
    with pytest.raises(LineageError, match=r"resblocks\.2.*' is not there in the source and has"):
        found(base, side(deeper, layers=3))
    longer = {**state, "positional_embedding": torch.zeros(10, 16)}
    with pytest.raises(LineageError, match=r"\(5, 16\) in the source and has shape \(10, 16\)"):
        found(base, side(longer))
    with pytest.raises(LineageError, match="`residual: identity` needs one width"):
        found(base, widened("more heads")[0], residual="identity")
    with pytest.raises(LineageError, match="give their cards"):
        found(Side(state), base)
    broken = {**state, "class_embedding": torch.full((16,), torch.nan)}
    with pytest.raises(LineageError, match="give bases without NaN"):
        found(base, side(broken))


def test_without_images_activations_cannot_be_compared() -> None:
    base = side(tower()[1])
    with pytest.raises(DataError, match="aligner 'ot' needs at least one image"):
        transport_of("ot", base, base, options={"from": "activations"})


def test_permutations_need_no_pot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ot", None)
    base = side(tower()[1])
    assert found(base, side(other()))
    with pytest.raises(ImportError):
        found(base, base, solver="sinkhorn")
