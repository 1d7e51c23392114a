"""What is seen inside a tower, against a vision transformer written out in NumPy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from torch import nn

from taskgrid.errors import LineageError
from taskgrid.evaluation.features.looking import Sight, look
from taskgrid.evaluation.features.places import Place, pass_through
from taskgrid.machine.meter import Silent
from taskgrid.models.tower import build_tower
from taskgrid.store.weights import State
from taskgrid.vectors import TaskVector
from tests.unit.example_mergers import near
from tests.unit.example_models import SIZE, tiny_clip

HEADS, PATCH, IMAGES = 2, 4, 7


@cache
def tower() -> tuple[nn.Module, State]:
    """A tower of two blocks with random LayerNorms, and its state."""
    with TemporaryDirectory() as folder:
        clip = tiny_clip(Path(folder))
    return build_tower(clip.card()), clip.visual_state()


@cache
def images() -> torch.Tensor:
    return torch.randn(IMAGES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))


def batches(size: int, inputs: torch.Tensor) -> Iterator[torch.Tensor]:
    yield from inputs.split(size)


def doubled() -> tuple[nn.Module, State, State]:
    """The tower in float64, its state, and that of an expert."""
    module, state = tower()
    base = {key: tensor.double() for key, tensor in state.items()}
    return build_like(module).double(), base, near(base, 5, 0.1)


def build_like(module: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(module)


def normed(x: np.ndarray, state: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * state[f"{name}.weight"] + state[f"{name}.bias"]


def by_hand(state: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> dict[Place, np.ndarray]:
    """Every place of a vision transformer, one formula after the other."""
    w = {key: tensor.double().numpy() for key, tensor in state.items()}
    x = inputs.double().numpy()
    n, side, width = len(x), SIZE // PATCH, w["class_embedding"].size
    cut = (
        x.reshape(n, 3, side, PATCH, side, PATCH)
        .transpose(0, 2, 4, 1, 3, 5)
        .reshape(n, -1, 3 * PATCH**2)
    )
    patches = cut @ w["conv1.weight"].reshape(width, -1).T
    first = np.broadcast_to(w["class_embedding"], (n, 1, width))
    h = normed(np.concatenate([first, patches], axis=1) + w["positional_embedding"], w, "ln_pre")
    seen = {Place("embedding", 0): h}
    for block in range(2):
        at = f"transformer.resblocks.{block}"

        def place(part: str, block: int = block) -> Place:
            return Place(f"block {block}", block + 1, part)

        a = normed(h, w, f"{at}.ln_1")
        joint = a @ w[f"{at}.attn.in_proj_weight"].T + w[f"{at}.attn.in_proj_bias"]
        q, k, v = np.split(joint, 3, axis=-1)
        mixed = []
        for one, two, three in zip(*(np.split(s, HEADS, axis=-1) for s in (q, k, v)), strict=True):
            scores = np.exp(one @ two.transpose(0, 2, 1) / math.sqrt(width // HEADS))
            mixed.append(scores / scores.sum(-1, keepdims=True) @ three)
        joined = np.concatenate(mixed, axis=-1)
        attention = joined @ w[f"{at}.attn.out_proj.weight"].T + w[f"{at}.attn.out_proj.bias"]
        h = h + attention
        hidden = (
            normed(h, w, f"{at}.ln_2") @ w[f"{at}.mlp.c_fc.weight"].T + w[f"{at}.mlp.c_fc.bias"]
        )
        hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        mlp = hidden @ w[f"{at}.mlp.c_proj.weight"].T + w[f"{at}.mlp.c_proj.bias"]
        h = h + mlp
        seen |= {place("q"): q, place("k"): k, place("v"): v}
        seen |= {place("attention"): attention, place("mlp"): mlp, place("block"): h}
    features = normed(h, w, "ln_post")[:, :1] @ w["proj"]
    return seen | {Place("output", 3): features}


def test_every_place_is_what_the_formulas_say() -> None:
    module, base, _ = doubled()
    found: dict[Place, torch.Tensor] = {}
    pass_through(module, base, images().double(), found.__setitem__)
    wanted = by_hand(base, images())
    assert found.keys() == wanted.keys()
    for place, seen in found.items():
        np.testing.assert_allclose(seen.numpy(), wanted[place], rtol=1e-10, atol=1e-11)
    # Nobody listens any more.
    assert not [one for one in module.modules() if one._forward_hooks or one._forward_pre_hooks]


def test_norms_are_means_of_what_the_formulas_say() -> None:
    module, base, expert = doubled()
    of_base, of_expert = look(module, base, [expert], batches(3, images().double()), Silent())
    before, after = by_hand(base, images()), by_hand(expert, images())
    assert of_base.sums.keys() == of_expert.sums.keys() == before.keys()
    for place in before:
        moved = np.linalg.norm(after[place] - before[place], axis=-1)
        size = np.linalg.norm(before[place], axis=-1)
        assert moved.max() > 1e-3
        for sight, wanted in ((of_base, size), (of_expert, moved)):
            np.testing.assert_allclose(sight.norms(place), wanted.mean(axis=0), rtol=1e-9)
            np.testing.assert_allclose(sight.first[place], wanted[0], rtol=1e-9)
    # What is compared later: class tokens behind blocks, and the features.
    blocks = [place for place in before if place.part == "block" and place.depth]
    assert list(of_expert.kept) == blocks and len(blocks) == 3
    for place in blocks:
        np.testing.assert_allclose(of_expert.features(place), after[place][:, 0], rtol=1e-9)


def test_a_vector_of_zeros_moves_nothing_at_all() -> None:
    module, base = tower()
    nothing = TaskVector({key: torch.zeros_like(tensor) for key, tensor in base.items()})
    states = [nothing.apply_to(base, scale) for scale in (0.0, 0.3, 1.0)]
    _, *sights = look(module, base, states, batches(3, images()), Silent())
    for sight in sights:
        assert all(not norms.any() for norms in (*sight.sums.values(), *sight.first.values()))


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_batches_change_nothing(size: int) -> None:
    module, base, expert = doubled()
    inputs = images().double()
    whole = look(module, base, [expert], batches(IMAGES, inputs), Silent())
    cut = look(module, base, [expert], batches(size, inputs), Silent())
    for one, other in zip(whole, cut, strict=True):
        assert (one.count, other.count) == (IMAGES, IMAGES)
        for place in one.sums:
            torch.testing.assert_close(one.norms(place), other.norms(place), rtol=1e-12, atol=0)
        for place in one.kept:
            torch.testing.assert_close(
                one.features(place), other.features(place), rtol=1e-12, atol=1e-13
            )


def test_each_network_passes_once_for_each_batch() -> None:
    module, base, expert = doubled()
    passed: list[int] = []
    handle = module.register_forward_hook(
        lambda _module, inputs, _out: passed.append(len(inputs[0]))
    )
    told: list[int] = []

    class Told(Silent):
        def advance(self, count: int = 1) -> None:
            told.append(count)

    look(module, base, [expert, base], batches(3, images().double()), Told())
    handle.remove()
    assert passed == [3, 3, 3, 3, 3, 3, 1, 1, 1] and told == [9, 9, 3]


def test_what_is_seen_is_added_up_in_float64() -> None:
    sight, place = Sight(count=2), Place("block 0", 1)
    # In float32 the small one would be lost beside the large one.
    for value in (3e8, 1.0):
        sight.add(place, torch.tensor([[[value, 0.0]]], dtype=torch.float32), None)
    assert sight.sums[place].tolist() == [300000001.0]


def test_another_tower_is_refused() -> None:
    with pytest.raises(LineageError, match="study 'features' looks into the vision transformers"):
        pass_through(nn.Linear(3, 3), {}, images(), lambda *_: None)
