"""TIES against the paper's algorithm, one weight after the other."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from taskgrid.errors import ConfigError
from taskgrid.merging import merge
from taskgrid.merging.bases.election import thresholds
from taskgrid.merging.recipe import MergeRecipe
from tests.unit.merging.methods.awkward import SHAPES, Arrays, models, task_vectors


def kept_from(magnitudes: list[float], density: float, trim: str) -> float:
    """The smallest that is kept: the paper's code looks for it in the other direction, mergekit counts."""
    if trim == "global":
        dropped = len(magnitudes) - int(density * len(magnitudes))
        return sorted(magnitudes)[max(dropped, 1) - 1]
    return sorted(magnitudes, reverse=True)[max(1, int(density * len(magnitudes))) - 1]


def trimmed(vector: dict[str, NDArray[np.float64]], density: float, trim: str) -> dict[str, Any]:
    everything = [abs(x) for a in vector.values() for x in a.ravel()]
    found = {}
    for name, a in vector.items():
        own = everything if trim == "global" else [abs(x) for x in a.ravel()]
        found[name] = np.where(np.abs(a) >= kept_from(own, density, trim), a, 0)
    return found


def by_hand(
    arrays: Arrays, *, density: float = 0.2, trim: str = "global", combine: str = "mean",
    zero_sign: str = "majority", weights: dict[str, float] | None = None,
    point: dict[str, float] | None = None,
) -> dict[str, NDArray[np.float64]]:  # fmt: skip
    tasks = sorted(arrays)
    own = {task: (weights or {}).get(task, 1.0) for task in tasks}
    counted = {task: own[task] * (point or {}).get(task, 1.0) for task in tasks}
    kept = {task: trimmed(arrays[task], density, trim) for task in tasks}
    places = [(name, at) for name in SHAPES for at in np.ndindex(SHAPES[name])]
    entries = {p: [counted[t] * kept[t][p[0]][p[1]] for t in tasks] for p in places}
    signs = {p: np.sign(sum(e)) for p, e in entries.items()}
    majority = -1.0 if zero_sign == "majority" and sum(signs.values()) < 0 else 1.0
    out = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for (name, at), values in entries.items():
        sign = signs[name, at] or majority
        agree = [(v, abs(own[t])) for v, t in zip(values, tasks, strict=True) if v * sign > 0]
        if not agree:
            continue
        if combine == "mean":
            out[name][at] = sum(v for v, _ in agree) / sum(w for _, w in agree)
        elif combine == "sum":
            out[name][at] = sum(v for v, _ in agree)
        else:
            out[name][at] = max((v for v, _ in agree), key=abs)
    return out


def test_the_worked_example_of_an_election() -> None:
    # 5 and 4 outvote -6; the mean is of the two that agree.
    arrays = {
        task: {name: np.full(shape, value) for name, shape in SHAPES.items()}
        for task, value in (("x", 5.0), ("y", 4.0), ("z", -6.0))
    }
    (found,) = models("ties", arrays, density=1).values()
    assert all((found[name] == 4.5).all() for name in SHAPES)


@settings(max_examples=60)
@given(
    arrays=task_vectors(),
    density=st.sampled_from([0.01, 0.2, 0.5, 0.9, 1.0]),
    trim=st.sampled_from(["global", "tensor"]),
    combine=st.sampled_from(["mean", "sum", "max"]),
    zero_sign=st.sampled_from(["majority", "positive"]),
    weighted=st.booleans(),
    pointed=st.booleans(),
)
def test_every_option_is_the_algorithm_weight_by_weight(
    arrays: Arrays, density: float, trim: str, combine: str, zero_sign: str,
    weighted: bool, pointed: bool,
) -> None:  # fmt: skip
    said: dict[str, Any] = {
        "density": density, "trim": trim, "combine": combine, "zero_sign": zero_sign
    }  # fmt: skip
    if weighted:
        said["weights"] = dict(zip(sorted(arrays), (2.0, 0.3, -0.5, 4.0), strict=False))
    point = dict(zip(sorted(arrays), (0.5, -1.0, 2.0, 0.0), strict=False)) if pointed else None
    (found,) = models("ties", arrays, point=point, **said).values()
    expected = by_hand(arrays, point=point, **said)
    for name in SHAPES:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-15, atol=0)


def test_lambda_goes_along_a_line() -> None:
    arrays = {"x": {name: np.full(shape, 0.5) for name, shape in SHAPES.items()}}
    for scale in (-1.0, 0.3, 2.0):
        (found,) = models("ties", arrays, scale=scale).values()
        assert all((found[name] == scale * 0.5).all() for name in SHAPES)


def test_zero_sums_take_the_sign_of_the_majority() -> None:
    zeros = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    arrays = {
        "x": zeros | {"b": np.array([1.0, -2, -2, 0, 0])},
        "y": zeros | {"b": np.array([-1.0, 0, 0, 0, 0])},
    }
    for zero_sign, expected in (("majority", -1.0), ("positive", 1.0)):
        (found,) = models("ties", arrays, density=1, zero_sign=zero_sign).values()
        assert found["b"].tolist() == [expected, -2, -2, 0, 0]


def test_all_that_have_the_magnitude_at_the_cut_are_kept() -> None:
    for values in itertools.permutations([1.0, -2.0, 2.0, 2.0, 0.5]):
        least = thresholds({"b": torch.tensor(values)}, 0.4, "tensor")
        assert least["b"] == 2.0
    assert thresholds({"b": torch.zeros(0)}, 0.2, "tensor")["b"] == 0


def test_what_must_be_seen_at_once_follows_from_the_options() -> None:
    scopes = {
        (trim, zero_sign): MergeRecipe.of("ties", {"trim": trim, "zero_sign": zero_sign}).scope
        for trim in ("global", "tensor")
        for zero_sign in ("majority", "positive")
    }
    assert [key for key, scope in scopes.items() if scope != "model"] == [("tensor", "positive")]
    assert scopes["tensor", "positive"] == "tensor"


@pytest.mark.parametrize("density", [0, 1.5, "much", True])
def test_a_density_is_a_share(density: Any) -> None:
    state = {"w": torch.ones(3)}
    with pytest.raises(ConfigError, match="option 'density' of merge method 'ties'"):
        merge("ties", state, {"x": {"w": torch.zeros(3)}}, density=density)
