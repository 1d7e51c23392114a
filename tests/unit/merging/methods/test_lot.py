"""LOT Merging against NumPy's least squares on the stacked inputs of every layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from taskgrid.errors import ConfigError, LineageError
from taskgrid.merging import merge
from taskgrid.store.weights import State

Array = NDArray[np.float64]

FC, SCALE, BIAS = "mlp.c_fc.weight", "ln_1.weight", "ln_1.bias"
SHAPES = {"conv1.weight": (5, 3, 2, 2), FC: (7, 6), SCALE: (6,), BIAS: (6,), "proj": (6, 4)}
LINEAR = ("conv1.weight", FC, "proj")
TASKS = ("a", "b", "c")


def draw(*shape: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def width(key: str) -> int:
    return SHAPES[key][0] if key in ("proj", SCALE) else int(np.prod(SHAPES[key][1:]))


def inputs(task: str, key: str, rows: int = 20) -> Array:
    seed = 100 * TASKS.index(task) + list(SHAPES).index(key)
    spread = np.logspace(-0.5, 0.5, width(key))
    return draw(rows, width(key), seed=seed) * spread


BASE: State = {
    key: torch.from_numpy(draw(*shape, seed=7)).float() for key, shape in SHAPES.items()
} | {"counter": torch.tensor(3)}
EXPERTS = {
    task: {
        key: tensor + 0.1 * torch.from_numpy(draw(*SHAPES[key], seed=30 + place)).float()
        if key in SHAPES
        else tensor
        for key, tensor in BASE.items()
    }
    for place, task in enumerate(TASKS)
}


def grams(rows: int = 20) -> dict[str, State]:
    found: dict[str, State] = {}
    for task in TASKS:
        found[task] = {
            key: torch.from_numpy(inputs(task, key, rows).T @ inputs(task, key, rows))
            for key in LINEAR
        }
        found[task][SCALE] = torch.from_numpy((inputs(task, SCALE, rows) ** 2).sum(0))
    return found


def merged(given: dict[str, State] | None = None, scale: float = 1.0, **options: Any) -> State:
    return merge("lot", BASE, EXPERTS, scale, statistics={"gram": given or grams()}, **options)


def change(task: str, key: str) -> Array:
    return (EXPERTS[task][key].double() - BASE[key].double()).numpy()


def as_map(key: str, weight: Array) -> Array:
    return weight if key == "proj" else weight.reshape(len(weight), -1).T


@pytest.mark.parametrize("key", LINEAR)
@pytest.mark.parametrize("rows", [20, 1])
def test_least_drift_of_features_by_least_squares(key: str, rows: int) -> None:
    # One row of each task leaves directions without any input: the smallest solution is the pseudoinverse's.
    stacked = np.concatenate([inputs(task, key, rows) for task in TASKS])
    outputs = np.concatenate(
        [inputs(task, key, rows) @ as_map(key, change(task, key)) for task in TASKS]
    )
    wanted = np.linalg.lstsq(stacked, outputs, rcond=None)[0]
    found = (merged(grams(rows))[key].double() - BASE[key].double()).numpy()
    np.testing.assert_allclose(as_map(key, found), wanted, rtol=0, atol=2e-6)


def test_scales_of_norms_by_least_squares_entry_by_entry() -> None:
    found = (merged()[SCALE].double() - BASE[SCALE].double()).numpy()
    for j in range(len(found)):
        stacked = np.concatenate([inputs(task, SCALE)[:, [j]] for task in TASKS])
        outputs = np.concatenate(
            [inputs(task, SCALE)[:, j] * change(task, SCALE)[j] for task in TASKS]
        )
        wanted = np.linalg.lstsq(stacked, outputs, rcond=None)[0]
        np.testing.assert_allclose(found[j], wanted[0], rtol=0, atol=1e-6)


def test_what_has_no_inputs_is_averaged_and_regmean_averages_scales() -> None:
    average, found = merge("average", BASE, EXPERTS, 1.0), merged()
    assert torch.equal(found[BIAS], average[BIAS]) and torch.equal(
        found["counter"], BASE["counter"]
    )
    assert not torch.allclose(found[SCALE], average[SCALE], atol=1e-4)
    regmean = merge("regmean", BASE, EXPERTS, 1.0, statistics={"gram": grams()}, off_diagonal=1.0)
    assert torch.equal(regmean[SCALE], average[SCALE])
    assert all(torch.equal(regmean[key], found[key]) for key in LINEAR)


def test_a_scale_whose_inputs_are_always_zero_stays() -> None:
    silent = grams()
    for state in silent.values():
        state[SCALE][2] = 0.0
    assert merged(silent)[SCALE][2] == BASE[SCALE][2]


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="off_diagonal"):
        merged(off_diagonal=0.9)
    with pytest.raises(LineageError, match="needs statistics of data"):
        merge("lot", BASE, EXPERTS, 1.0)
    wrong = grams()
    wrong["b"][SCALE] = torch.ones(5)
    with pytest.raises(LineageError, match="'gram' of task 'b' does not fit the weight"):
        merged(wrong)
