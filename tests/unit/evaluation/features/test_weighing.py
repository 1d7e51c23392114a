"""Norms of weights against sums by hand, and along a line against a parabola."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from taskgrid.evaluation.features.weighing import Norms, weight_norms
from taskgrid.store.weights import State
from taskgrid.vectors import TaskVector
from tests.unit.example_mergers import near
from tests.unit.example_models import tiny_clip


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> tuple[State, State]:
    base = tiny_clip(tmp_path_factory.mktemp("clip")).visual_state()
    return base, near(base, 3, 0.05)


def found(base: State, state: State) -> dict[tuple[str, str], Norms]:
    return {(one.layer, one.part): one for one in weight_norms(base, state)}


def length(*tensors: np.ndarray) -> float:
    return float(np.sqrt(sum((tensor.astype(np.float64) ** 2).sum() for tensor in tensors)))


def test_parts_are_those_of_the_layer(states: tuple[State, State]) -> None:
    base, expert = ({key: tensor.numpy() for key, tensor in state.items()} for state in states)
    norms, at = found(*states), "transformer.resblocks.1"
    for place, part in enumerate("qkv"):
        own = slice(16 * place, 16 * (place + 1))
        rows = [f"{at}.attn.in_proj_weight", f"{at}.attn.in_proj_bias"]
        one = norms["block 1", part]
        assert one.norm == pytest.approx(length(*(expert[key][own] for key in rows)), rel=1e-12)
        assert one.norm_base == pytest.approx(length(*(base[key][own] for key in rows)), rel=1e-12)
        moved = [expert[key][own].astype(float) - base[key][own].astype(float) for key in rows]
        assert one.norm_delta == pytest.approx(length(*moved), rel=1e-12)
    mlp = [f"{at}.mlp.{name}.{kind}" for name in ("c_fc", "c_proj") for kind in ("weight", "bias")]
    assert norms["block 1", "mlp"].norm == pytest.approx(length(*(expert[key] for key in mlp)))
    assert norms["output", "projection"].norm == pytest.approx(length(expert["proj"]))
    assert (norms["embedding", "embedding"].depth, norms["block 1", "k"].depth) == (0, 2)


def test_all_parts_are_all_weights(states: tuple[State, State]) -> None:
    base, expert = states
    *parts, whole = weight_norms(base, expert)
    assert (whole.layer, whole.depth, whole.part) == ("all", None, "all")
    for name in ("norm", "norm_base", "norm_delta"):
        squares = sum(getattr(one, name) ** 2 for one in parts)
        assert getattr(whole, name) == pytest.approx(np.sqrt(squares), rel=1e-12)
    assert whole.norm == pytest.approx(length(*(tensor.numpy() for tensor in expert.values())))


def test_along_a_vector_squares_are_a_parabola(states: tuple[State, State]) -> None:
    base = {key: tensor.double() for key, tensor in states[0].items()}
    vector = TaskVector.between(*states)
    a = sum(float(base[key].square().sum()) for key in base)
    b = sum(float((base[key] * vector.deltas[key].double()).sum()) for key in base)
    c = vector.norm() ** 2
    for scale in (-1.0, 0.0, 0.3, 2.0):
        moved = {key: tensor + scale * vector.deltas[key].double() for key, tensor in base.items()}
        whole = weight_norms(base, moved)[-1]
        assert whole.norm**2 == pytest.approx(a + 2 * scale * b + scale**2 * c, rel=1e-12)
        assert whole.norm_delta == pytest.approx(abs(scale) * np.sqrt(c), rel=1e-9)


def test_a_base_that_is_not_moved_has_gone_nowhere(states: tuple[State, State]) -> None:
    base, _ = states
    assert {one.norm_delta for one in weight_norms(base, base)} == {0.0}
    integers = {**base, "count": torch.tensor(3)}
    assert weight_norms(integers, integers) == weight_norms(base, base)
