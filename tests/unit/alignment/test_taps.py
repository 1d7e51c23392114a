"""What is seen inside open_clip's own tower, and moments of it against NumPy in float64."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.nn import functional

from taskgrid.alignment.spaces import RES, SpaceMap
from taskgrid.alignment.taps import (
    Moments,
    correlations,
    joint_moments,
    listening,
    observe,
    space_of,
)
from taskgrid.errors import LineageError
from tests.unit.alignment.test_spaces import group_element, moved, tower
from tests.unit.example_models import SIZE


def images(count: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(count, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)


def module(maps: dict[str, SpaceMap] | None = None) -> torch.nn.Module:
    """The tower of the tests, its channels mapped."""
    own = copy.deepcopy(tower()[0])
    own.load_state_dict(tower()[1] if maps is None else moved(maps))
    return own


def rows(seen: torch.Tensor) -> np.ndarray:
    return seen.reshape(-1, seen.shape[-1]).numpy()


def test_every_space_is_seen_where_it_lives() -> None:
    own, spaces = module(), tower()[2]
    seen = observe(own, images())
    assert {space_of(tap) for tap in seen} == set(spaces.sizes)
    assert {tap for tap in seen if space_of(tap) == RES} == {"0.res", "1.res"}
    for tap, one in seen.items():
        assert one.shape == (6, 5, spaces.sizes[space_of(tap)])


def test_what_is_seen_is_what_the_tower_computes_with() -> None:
    own = module()
    seen, last = observe(own, images()), own.transformer.resblocks[1]
    heads = [seen[f"1.{name}"].view(6, 5, 2, 8).transpose(1, 2) for name in ("q", "k", "v")]
    mixed = functional.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(6, 5, 16)
    stream = seen["0.res"] + last.attn.out_proj(mixed) + last.mlp.c_proj(seen["1.mlp"])
    torch.testing.assert_close(stream, seen["1.res"], rtol=0, atol=1e-12)
    features = own.ln_post(seen["1.res"])[:, 0] @ own.proj
    torch.testing.assert_close(features, own(images()), rtol=0, atol=1e-12)


def test_weights_in_the_place_of_a_towers_own_are_what_is_seen() -> None:
    own, heard = module(), {}
    changed = {
        **own.state_dict(),
        "transformer.resblocks.0.attn.in_proj_bias": torch.ones(48).double(),
    }
    with listening(own, heard.__setitem__):
        functional_call(own, changed, (images(),))
    plain = observe(own, images())
    shift = 1 - own.transformer.resblocks[0].attn.in_proj_bias[:16]
    torch.testing.assert_close(heard["0.q"], plain["0.q"] + shift, rtol=0, atol=1e-12)
    assert not any(block._forward_hooks for block in own.transformer.resblocks)


def test_moments_are_numpys() -> None:
    own, other = module(), module(group_element(tower()[2], 3))
    one, two = observe(own, images()), observe(other, images())
    found = joint_moments([(one, two)])
    for tap, moments in found.items():
        wide = np.cov(rows(one[tap]).T, rows(two[tap]).T, bias=True)
        size = one[tap].shape[-1]
        np.testing.assert_allclose(moments.covariance().numpy(), wide[:size, size:], atol=1e-12)
        whole = np.corrcoef(rows(one[tap]).T, rows(two[tap]).T)
        np.testing.assert_allclose(moments.correlation().numpy(), whole[:size, size:], atol=1e-9)
    stream = [found[f"{block}.res"].correlation() for block in range(2)]
    torch.testing.assert_close(correlations([(one, two)])[RES], (stream[0] + stream[1]) / 2)


def test_the_size_of_batches_says_nothing() -> None:
    own, other = module(), module(group_element(tower()[2], 3))

    def by(size: int) -> dict[str, torch.Tensor]:
        parts = images(7).split(size)
        return correlations((observe(own, part), observe(other, part)) for part in parts)

    whole = by(7)
    for size in (1, 3):
        for space, found in by(size).items():
            torch.testing.assert_close(found, whole[space], rtol=0, atol=1e-10)


def test_a_large_mean_costs_no_digits() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(40, 5, 3, generator=generator, dtype=torch.float64)
    plain, far = Moments.between(one, one), Moments.between(one, one)
    for part in one.split(8):
        plain.add(part, part)
        far.add(part + 1e5, part - 1e5)
    torch.testing.assert_close(far.correlation(), plain.correlation(), rtol=0, atol=1e-9)


def test_a_renamed_tower_is_told_by_its_correlations() -> None:
    maps = group_element(tower()[2], 5)
    own, other = module(), module(maps)
    found = correlations([(observe(other, images()), observe(own, images()))])
    for space, index in maps.items():
        assert isinstance(index, torch.Tensor)
        planted = found[space][torch.arange(len(index)), index]
        torch.testing.assert_close(planted, torch.ones_like(planted), rtol=0, atol=1e-9)


@pytest.mark.parametrize("still", [0.0, 1.0, -123.456])
def test_a_channel_that_never_changes_goes_with_none(still: float) -> None:
    one = torch.randn(9, 5, 3, generator=torch.Generator().manual_seed(0))
    one[..., 1] = still
    moments = Moments.between(one, one)
    for part in one.split(4):
        moments.add(part, part)
    found = moments.correlation()
    assert torch.isfinite(found).all()
    assert not found[1].any() and not found[:, 1].any()
    assert found[0, 0] == pytest.approx(1) and found[2, 2] == pytest.approx(1)


def test_towers_that_cannot_be_compared_are_refused() -> None:
    one = observe(module(), images())
    fewer = {tap: seen for tap, seen in one.items() if tap.startswith("0.")}
    with pytest.raises(LineageError, match="has 2 blocks, the other 1"):
        joint_moments([(one, fewer)])
    shorter = {tap: seen[:, :4] for tap, seen in one.items()}
    with pytest.raises(LineageError, match=re.escape("into 5 tokens, the other into 4")):
        joint_moments([(one, shorter)])
    with pytest.raises(LineageError, match="this tower is none"):
        observe(torch.nn.Linear(2, 2), torch.ones(1, 2))
