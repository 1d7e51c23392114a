"""Transports as linear maps: against NumPy in float64, and their algebra."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from taskgrid.alignment import Axes, Transport
from taskgrid.alignment.maps import End, Map
from taskgrid.errors import LineageError
from taskgrid.store.weights import State

SOURCE = {"w": (3, 4), "conv": (3, 2, 2, 2), "b": (3,)}
TARGET = {"w": (5, 4), "conv": (3, 2, 2, 2), "b": (3,), "new": (2,)}
INDEX = torch.tensor([2, 0, 1])


def normal(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def vector(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
    return {key: normal(shape, seed + at) for at, (key, shape) in enumerate(shapes.items())}


LEFT, RIGHT = normal((5, 3), 10, torch.float64), normal((4, 4), 11, torch.float64)


def mapped() -> Transport:
    axes = Axes({"w": (LEFT, RIGHT), "conv": (INDEX, torch.tensor([1, 0])), "b": ()})
    return Transport(End("one", SOURCE), End("two", TARGET), axes)


def square(maps: Map, shapes: dict[str, tuple[int, ...]] = SOURCE, *names: str) -> Transport:
    source, target = names or ("one", "two")
    return Transport(End(source, shapes), End(target, shapes), maps)


def test_each_axis_is_mapped_on_its_own_in_float64() -> None:
    tau = vector(SOURCE)
    found = mapped()(tau)
    given = {key: tensor.double().numpy() for key, tensor in tau.items()}
    expected = {
        "w": LEFT.numpy() @ given["w"] @ RIGHT.numpy().T,
        "conv": given["conv"][[2, 0, 1]][:, [1, 0]],
        "b": given["b"],
        "new": np.zeros(2),
    }
    assert list(found) == list(TARGET)
    for key, tensor in found.items():
        # Rounded once: the float64 result differs from NumPy's by its own rounding at most.
        assert tensor.dtype == torch.float32
        np.testing.assert_allclose(tensor.numpy(), expected[key], rtol=2**-23, atol=0)


def test_a_transport_is_linear() -> None:
    one, two = vector(SOURCE), vector(SOURCE, 7)
    both = mapped().exact({key: 2 * one[key].double() - two[key].double() for key in one})
    apart = mapped().exact(one), mapped().exact(two)
    for key, tensor in both.items():
        torch.testing.assert_close(
            tensor, 2 * apart[0][key] - apart[1][key], rtol=1e-12, atol=1e-12
        )


def test_an_index_is_the_matrix_of_its_permutation() -> None:
    matrix = torch.eye(3, dtype=torch.float64)[INDEX]
    tau = vector(SOURCE)
    hard = square(Axes(dict.fromkeys(SOURCE, (INDEX,))))(tau)
    soft = square(Axes(dict.fromkeys(SOURCE, (matrix,))))(tau)
    assert all(torch.equal(hard[key], soft[key]) for key in SOURCE)


def test_one_transport_after_another_is_their_chain() -> None:
    second = Transport(
        End("two", TARGET), End("three", SOURCE), Axes({"w": (LEFT.T,), "b": (INDEX,)})
    )
    tau = vector(SOURCE)
    chained, apart = mapped().then(second).exact(tau), second.exact(mapped().exact(tau))
    assert all(torch.equal(chained[key], apart[key]) for key in SOURCE)
    assert torch.count_nonzero(chained["conv"]) == 0
    with pytest.raises(LineageError, match="cannot be followed by one from base two"):
        second.then(second)


def test_a_permutation_comes_back_bit_for_bit_and_a_matrix_within_rounding() -> None:
    tau = vector(SOURCE)
    hard = square(Axes({"w": (INDEX,), "conv": (INDEX, torch.tensor([1, 0])), "b": (INDEX,)}))
    back = hard.then(hard.inverse())(tau)
    assert all(torch.equal(back[key], tau[key]) for key in SOURCE)
    soft = square(Axes({"w": (None, RIGHT), "conv": (), "b": ()}), SOURCE)
    both = hard.then(Transport(hard.target, End("three", SOURCE), soft.map))
    wide = {key: tensor.double() for key, tensor in tau.items()}
    for key, tensor in both.inverse().exact(both.exact(tau)).items():
        torch.testing.assert_close(tensor, wide[key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "axes",
    [
        {"b": (torch.tensor([0, 0, 1]),)},
        {"b": (torch.ones(3, 3),)},
        {"b": (torch.ones(2, 3),)},
        {},
    ],
)
def test_what_cannot_be_undone_says_so(axes: dict[str, tuple[torch.Tensor, ...]]) -> None:
    with pytest.raises(LineageError, match=r"no inverse: .*'b'"):
        square(Axes(axes), {"b": (3,)}).inverse()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"b": None}, "the task vector lacks 'b', which base one has"),
        ({"x": torch.ones(1)}, "the task vector holds 'x', which base one does not have"),
        ({"b": torch.ones(2)}, "the task vector has shape (2,) for 'b', but base one has (3,)"),
        ({"b": torch.tensor([1.0, torch.nan, 1.0])}, "the task vector is not finite in 'b'"),
    ],
)
def test_a_vector_of_another_base_is_refused(change: State, words: str) -> None:
    wrong = {key: one for key, one in {**vector(SOURCE), **change}.items() if one is not None}
    with pytest.raises(LineageError, match=re.escape(words)):
        mapped()(wrong)


def test_what_does_not_fit_the_target_is_refused() -> None:
    wrong = Transport(End("one", SOURCE), End("two", TARGET), Axes({"w": ()}))
    with pytest.raises(LineageError, match=r"transported task vector has shape \(3, 4\) for 'w'"):
        wrong(vector(SOURCE))


def test_an_expert_is_rounded_once() -> None:
    # 1 + 2**-24 lies half-way: float32 of the map alone would lose what then decides.
    base, tau = {"b": torch.ones(1), "n": torch.tensor(3)}, {"b": torch.tensor([2.0**-24])}
    ends = End.of(base, "one"), End.of(base, "two")
    factor = torch.tensor([[1 + 2.0**-26]], dtype=torch.float64)
    found = Transport(*ends, Axes({"b": (factor,)})).expert(base, tau)
    assert found["b"].item() == 1 + 2.0**-23
    assert found["n"] is not base["n"] and torch.equal(found["n"], base["n"])
