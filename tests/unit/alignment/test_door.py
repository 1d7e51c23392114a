"""Experts of another base, brought over in memory; without alignment, and by a planted permutation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from taskgrid import plugins
from taskgrid.alignment import AlignContext, Axes, Side, Transport, aligners, transport
from taskgrid.alignment.maps import End
from taskgrid.errors import ConfigError, LineageError
from taskgrid.evaluation import evaluate_grid
from taskgrid.merging import merge
from taskgrid.models.card import ModelCard
from taskgrid.plugins.cards import AlignerCard
from taskgrid.store.weights import State, digest_state
from tests.unit.alignment.test_spaces import features, group_element, tower
from tests.unit.example_grid import World, world


def other(base: State, seed: int = 1) -> State:
    """A base of the same shape from other random numbers."""
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(tensor.shape, generator=generator) for key, tensor in base.items()}


@pytest.fixture(scope="module")
def small() -> World:
    return world(("a", "b"))


def test_without_alignment_the_vector_is_added_as_it_is(small: World) -> None:
    there = other(small.base)
    experts = transport("none", small.base, small.experts, there)
    assert experts.keys() == small.experts.keys()
    for task, expert in experts.items():
        assert list(expert) == list(there)
        for key, tensor in expert.items():
            exact = [
                x[key].numpy().astype(np.float64) for x in (there, small.experts[task], small.base)
            ]
            # The vector is float32, and the sum rounded once.
            tau = (exact[1] - exact[2]).astype(np.float32).astype(np.float64)
            assert np.array_equal(tensor.numpy(), (exact[0] + tau).astype(np.float32))


def test_experts_of_another_base_are_refused_until_they_are_brought_over(small: World) -> None:
    there = other(small.base)
    card = replace(small.card, base=digest_state(there))
    tasks = {
        name: replace(
            task, head=replace(task.head, lineage={**task.head.lineage, **card.lineage()})
        )
        for name, task in small.tasks.items()
    }
    for ask in (
        lambda experts: merge("task_arithmetic", there, experts, 0.4),
        lambda experts: evaluate_grid(there, card, tasks, experts=experts, lambdas=[0, 1]),
    ):
        with pytest.raises(LineageError, match="'a' does not come from this base"):
            ask(small.experts)
        brought = transport(
            "none", small.base, small.experts, there, source_card=small.card, target_card=card
        )
        assert len(ask(brought))


def test_one_base_to_itself_gives_the_experts_back(small: World) -> None:
    for task, expert in transport("none", small.base, small.experts, small.base).items():
        for key, tensor in expert.items():
            torch.testing.assert_close(tensor, small.experts[task][key], rtol=2**-22, atol=1e-6)


def test_bases_that_differ_in_kind_are_refused_unless_an_option_allows_it(small: World) -> None:
    there = other(small.base)
    card = replace(small.card, base=digest_state(there), activation="quick_gelu")
    both = {"source_card": small.card, "target_card": card}
    with pytest.raises(
        LineageError, match=r"computes with gelu, the target with quick_gelu; `activation"
    ):
        transport("none", small.base, small.experts, there, **both)
    assert transport("none", small.base, small.experts, there, activation="any", **both)
    renamed = {**both, "target_card": replace(card, activation="gelu", layout="transformers")}
    with pytest.raises(LineageError, match="in layout open_clip, the target in transformers"):
        transport("none", small.base, small.experts, there, **renamed)


def test_what_both_bases_have_is_carried_where_an_option_allows_it(small: World) -> None:
    there = other(small.base)
    there["positional_embedding"] = torch.zeros(10, 16)
    more = there.pop("ln_post.bias")
    there["ln_post.shift"] = more
    with pytest.raises(
        LineageError, match=r"'ln_post\.bias' has shape \(16,\) .* is not there in the"
    ):
        transport("none", small.base, small.experts, there)
    expert = transport("none", small.base, small.experts, there, tensors="shared")["a"]
    still = {key for key in there if torch.equal(expert[key], there[key])}
    assert still == {"positional_embedding", "ln_post.shift"}
    with pytest.raises(LineageError, match="share no tensor"):
        transport(
            "none", {"x": torch.ones(2)}, {"a": {"x": torch.ones(2)}}, there, tensors="shared"
        )


def test_a_wrong_call_is_answered(small: World) -> None:
    assert "none" in aligners()
    with pytest.raises(ConfigError, match="unknown aligner 'nine'; did you mean 'none'"):
        transport("nine", small.base, small.experts, small.base)
    with pytest.raises(ConfigError, match="option 'tensors' of aligner 'none' is 'some'"):
        transport("none", small.base, small.experts, small.base, tensors="some")
    with pytest.raises(ConfigError, match="no expert to transport"):
        transport("none", small.base, {}, small.base)
    with pytest.raises(LineageError, match="use the card of this base"):
        transport("none", small.base, small.experts, other(small.base), target_card=small.card)


# ------------------------------------------------------------------ an aligner that knows the way


class Planted:
    """Finds by weights how the hidden units of the target's MLPs are those of the source, permuted."""

    def align(self, context: AlignContext) -> Transport:
        axes: dict[str, tuple[torch.Tensor | None, ...]] = dict.fromkeys(
            context.target.end.shapes, ()
        )
        assert not context.task and context.source.the_card().tower["vision_cfg"]["layers"] == 2
        for key in axes:
            if key.endswith("mlp.c_fc.weight"):
                rows = torch.cdist(context.target.base[key], context.source.base[key])
                index = rows.argmin(dim=1)
                axes[key] = axes[key.replace("weight", "bias")] = (index,)
                axes[key.replace("c_fc", "c_proj")] = (None, index)
        return context.transport_by(axes)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = plugins.load
    monkeypatch.setattr(
        plugins,
        "load",
        lambda kind, name: (
            SimpleNamespace(ALIGNER=Planted()) if kind == "aligner" else real(kind, name)
        ),
    )
    monkeypatch.setattr(
        "taskgrid.plugins.cards.read_card", lambda kind, name: AlignerCard(title="Planted")
    )
    yield


def permuted(state: State, seed: int) -> State:
    """The same network with its hidden units in another order."""
    found = dict(state)
    for key in state:
        if key.endswith("mlp.c_fc.weight"):
            order = torch.randperm(len(state[key]), generator=torch.Generator().manual_seed(seed))
            for name, axis in (
                (key, 0),
                (key.replace("weight", "bias"), 0),
                (key.replace("c_fc", "c_proj"), 1),
            ):
                found[name] = state[name].index_select(axis, order)
            seed += 1
    return found


def test_a_planted_permutation_carries_each_expert_to_its_permuted_self(
    small: World, planted: None
) -> None:
    there = permuted(small.base, 3)
    card: ModelCard = replace(small.card, base=digest_state(there))
    moved = transport(
        "planted", small.base, small.experts, there, source_card=small.card, target_card=card
    )
    for task, expert in moved.items():
        wanted = permuted(small.experts[task], 3)
        for key, tensor in expert.items():
            torch.testing.assert_close(tensor, wanted[key], rtol=2**-22, atol=1e-6)
    assert not all(torch.equal(there[key], small.base[key]) for key in there)


def test_a_model_that_is_carried_whole_is_its_permuted_self_bit_for_bit(
    small: World, planted: None
) -> None:
    there = permuted(small.base, 3)
    card: ModelCard = replace(small.card, base=digest_state(there))
    cards = {"source_card": small.card, "target_card": card}
    moved = transport("planted", small.base, small.experts, there, carry="model", **cards)
    for task, expert in moved.items():
        wanted = permuted(small.experts[task], 3)
        assert all(torch.equal(expert[key], wanted[key]) for key in wanted)


def test_a_model_carried_by_an_exact_symmetry_is_the_same_function() -> None:
    _, base, spaces = tower()
    noise = torch.Generator().manual_seed(7)
    expert = {key: one + 0.1 * torch.randn(one.shape, generator=noise) for key, one in base.items()}
    target = {key: one.flip(0) for key, one in base.items()}
    axes = Axes(spaces.axes_by(group_element(spaces, 2)))
    found = Transport(End.of(base, "one"), End.of(target, "two"), axes)
    carried = found.model(target, expert)
    assert (features(carried) - features(expert)).abs().max() < 1e-12
    # The function is the expert's, whatever the target's base is; of the vector nothing like it holds.
    vector = {key: expert[key] - base[key] for key in base}
    assert (features(found.expert(target, vector)) - features(expert)).abs().max() > 1e-3


def test_what_is_not_carried_of_a_model_is_the_bases_own(small: World) -> None:
    there = other(small.base)
    there["positional_embedding"] = torch.zeros(10, 16)
    found = transport("none", small.base, small.experts, there, carry="model", tensors="shared")[
        "a"
    ]
    for key, tensor in found.items():
        own = there if key == "positional_embedding" else small.experts["a"]
        assert torch.equal(tensor, own[key])


def test_an_aligner_that_needs_cards_asks_for_them(small: World) -> None:
    with pytest.raises(LineageError, match="give their cards"):
        Side(small.base).the_card()
