"""Distances and sizes by hand, from the weights of open_clip's own tower and from what goes through it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from taskgrid.alignment.canonical import canonical
from taskgrid.alignment.ground_metric import (
    ByActivations,
    ByWeights,
    Flow,
    additions,
    score_factor,
)
from taskgrid.alignment.seam import AlignContext
from taskgrid.alignment.spaces import RES, spaces_of
from taskgrid.alignment.taps import observe
from taskgrid.models.encoder import ImageEncoder
from taskgrid.store.weights import State
from tests.unit.alignment.aligners.test_ot import other, shown, side
from tests.unit.alignment.test_spaces import permutation, tower

BLOCK = "transformer.resblocks.1"


def base(state: State) -> State:
    return {key: tensor.float() for key, tensor in state.items()}


@pytest.fixture
def by_weights() -> ByWeights:
    spaces = tower()[2]
    return ByWeights((spaces, spaces), (canonical(tower()[1]), canonical(other())), Flow.of(spaces))


@pytest.fixture(scope="module")
def by_activations() -> ByActivations:
    images = shown().shown_to("ot", "images", side(base(tower()[1])).the_card())
    return ByActivations(AlignContext(side(base(tower()[1])), side(base(other())), images=images))


def apart(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    return np.array([[((a - b) ** 2).sum() for b in two] for a in one])


def test_every_tensor_is_met_once() -> None:
    flow, axes = Flow.of(tower()[2]), tower()[2].axes
    met = [*flow.starts, *flow.ends]
    for branch in flow.branches:
        met += [*branch.reads, *branch.writes]
    assert sorted(met) == sorted(axes)
    assert [(one.block, one.name) for one in flow.branches] == [
        (0, "attn"), (0, "mlp"), (1, "attn"), (1, "mlp"),
    ]  # fmt: skip
    assert all(axes[key][0].reads is False for one in flow.branches for key in one.writes)


def test_rows_and_biases_are_compared_through_the_map_of_the_stream(by_weights: ByWeights) -> None:
    order, branch = permutation(16, 1), by_weights.flow.branches[2]
    both = [
        {name: state[f"{BLOCK}.attn.in_proj_{name}"].numpy() for name in ("weight", "bias")}
        for state in by_weights.states
    ]
    both[0]["weight"] = both[0]["weight"][:, order.numpy()]
    for at, name in enumerate("qkv"):
        rows = slice(16 * at, 16 * at + 16)
        plain = [np.c_[one["weight"][rows], one["bias"][rows]] for one in both]
        found = by_weights.inside(f"1.{name}", branch, {RES: order})
        np.testing.assert_allclose(found.numpy(), apart(*plain), rtol=0, atol=1e-12)


def test_what_a_branch_adds_is_compared_through_its_own_map(by_weights: ByWeights) -> None:
    order, branch = permutation(64, 1), by_weights.flow.branches[3]
    plain = [
        np.c_[state[f"{BLOCK}.mlp.c_proj.weight"], state[f"{BLOCK}.mlp.c_proj.bias"]]
        for state in by_weights.states
    ]
    plain[0] = plain[0][:, [*order.tolist(), 64]]
    found = by_weights.added(branch, {"1.mlp": order})
    np.testing.assert_allclose(found.numpy(), apart(*plain), rtol=0, atol=1e-12)


def test_the_stream_is_compared_by_what_writes_it_alone(by_weights: ByWeights) -> None:
    starts = [
        np.c_[
            state["conv1.weight"].flatten(1),
            state["class_embedding"],
            state["positional_embedding"].T,
            state["ln_pre.weight"],
            state["ln_pre.bias"],
        ]
        for state in by_weights.states
    ]
    found = by_weights.stream(whole=False)
    np.testing.assert_allclose(found.numpy(), apart(*starts), rtol=0, atol=1e-12)
    more = [
        np.stack(
            [
                state[key].numpy()
                for key in sorted(state)
                if key.endswith(("out_proj.bias", "c_proj.bias"))
                or ("ln_" in key and "ln_pre" not in key)
            ],
            axis=1,
        )
        for state in by_weights.states
    ]
    assert more[0].shape == (16, 4 + 10)
    np.testing.assert_allclose(
        by_weights.stream(whole=True).numpy(), apart(*starts) + apart(*more), rtol=0, atol=1e-12
    )


def test_sizes_from_weights_are_lengths_of_rows_in_the_target(by_weights: ByWeights) -> None:
    state = by_weights.states[1]
    first, second = (
        state["transformer.resblocks.0.attn.out_proj.weight"].square().sum(dim=1)
        + state["transformer.resblocks.0.attn.out_proj.bias"].square(),
        state["transformer.resblocks.0.mlp.c_proj.weight"].square().sum(dim=1)
        + state["transformer.resblocks.0.mlp.c_proj.bias"].square(),
    )
    start = state["ln_pre.weight"].square() + state["ln_pre.bias"].square()
    before, added = by_weights.sizes(by_weights.flow.branches[1])
    torch.testing.assert_close(before, (start + first).sqrt())
    torch.testing.assert_close(added, second.sqrt())


def test_a_stream_is_what_it_starts_with_and_what_branches_add() -> None:
    source = side(base(tower()[1]))
    encoder = ImageEncoder.from_card(source.the_card(), source.base)
    inputs = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    seen, stream = additions(encoder, inputs), observe(encoder, inputs)
    total = seen["0.attn.before"]
    for at in range(2):
        for name in ("attn", "mlp"):
            torch.testing.assert_close(seen[f"{at}.{name}.before"], total)
            total = total + seen[f"{at}.{name}"]
        torch.testing.assert_close(total, stream[f"{at}.res"])
    assert not encoder.tower.transformer.resblocks[0].ls_1._forward_hooks


def test_activations_are_compared_by_their_correlations(by_activations: ByActivations) -> None:
    context, flow = by_activations.context, Flow.of(tower()[2])
    whole = next(iter(context.batches()))
    source, target = (
        {**additions(encoder, inputs), **observe(encoder, inputs)}
        for encoder, inputs in (
            (context.encoder(context.source), whole.source_inputs),
            (context.encoder(context.target), whole.inputs),
        )
    )

    def by_hand(tap: str) -> np.ndarray:
        rows = [seen[tap].double().flatten(0, 1).numpy() for seen in (source, target)]
        size = rows[0].shape[1]
        return 2 - 2 * np.corrcoef(rows[0].T, rows[1].T)[:size, size:]

    branch = flow.branches[2]
    for found, wanted in (
        (by_activations.stream(whole=False), by_hand("0.attn.before")),
        (by_activations.stream(whole=True), (by_hand("0.res") + by_hand("1.res")) / 2),
        (by_activations.inside("1.k", branch, {}), by_hand("1.k")),
        (by_activations.added(branch, {}), by_hand("1.attn")),
    ):
        np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-5)
    before, added = by_activations.sizes(branch)
    means = [target[tap].abs().mean(dim=(0, 1)).double() for tap in ("1.attn.before", "1.attn")]
    torch.testing.assert_close(before / added, means[0] / means[1], rtol=1e-5, atol=0)


def test_scores_of_wider_heads_are_kept() -> None:
    narrow = tower()[2]
    shapes = {key: tuple(one.shape) for key, one in tower()[1].items()}
    wide = spaces_of(side(tower()[1], head_width=16).the_card(), shapes)
    assert (narrow.heads, wide.heads) == (2, 1)
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    factor = score_factor(narrow, wide, "0.q")
    twice = [factor * part.repeat_interleave(2) for part in (query, key)]
    torch.testing.assert_close(twice[0] @ twice[1] / 16**0.5, query @ key / 8**0.5)
    assert score_factor(narrow, wide, "0.k") == factor
    assert factor * score_factor(wide, narrow, "0.q") == pytest.approx(1, abs=1e-12)
    assert score_factor(narrow, wide, "0.v") == score_factor(narrow, wide, "0.mlp") == 1.0
