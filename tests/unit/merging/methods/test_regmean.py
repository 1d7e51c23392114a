"""RegMean against least squares on stacked inputs and outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from taskgrid.errors import ConfigError, LineageError
from taskgrid.merging import merge
from taskgrid.merging.bases.least_squares import solve_symmetric
from taskgrid.store.weights import State

SHAPES = {
    "conv1.weight": (5, 3, 2, 2),
    "transformer.resblocks.0.mlp.c_fc.weight": (7, 4),
    "transformer.resblocks.0.mlp.c_fc.bias": (7,),
    "proj": (6, 3),
}
LINEAR = ("conv1.weight", "transformer.resblocks.0.mlp.c_fc.weight", "proj")
TASKS = ("a", "b", "c")
ROWS = {"a": 20, "b": 35, "c": 25}


def draw(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def width(key: str) -> int:
    shape = SHAPES[key]
    return shape[0] if key == "proj" else int(torch.Size(shape[1:]).numel())


def inputs(task: str, key: str) -> torch.Tensor:
    """Rows of inputs whose entries differ in size and hang together."""
    seed = 100 * TASKS.index(task) + LINEAR.index(key)
    mixing = draw(width(key), width(key), seed=seed + 50)
    return draw(ROWS[task], width(key), seed=seed) @ mixing


BASE: State = {key: draw(*shape, seed=9).float() for key, shape in SHAPES.items()} | {
    "counter": torch.tensor(3)
}
EXPERTS = {
    task: {
        key: tensor + 0.1 * draw(*SHAPES[key], seed=20 + place).float() if key in SHAPES else tensor
        for key, tensor in BASE.items()
    }
    for place, task in enumerate(TASKS)
}
GRAMS: dict[str, State] = {
    task: {key: inputs(task, key).T @ inputs(task, key) for key in LINEAR}
    | {"images": torch.tensor(ROWS[task])}
    for task in TASKS
}


def merged(scale: float = 1.0, grams: dict[str, State] | None = None, **options: Any) -> State:
    statistics = {"gram": grams or GRAMS}
    return merge("regmean", BASE, EXPERTS, scale, statistics=statistics, **options)


def as_map(key: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if key == "proj" else tensor.double().reshape(len(tensor), -1).T


@pytest.mark.parametrize("key", LINEAR)
def test_least_squares_on_stacked_inputs(key: str) -> None:
    stacked = torch.cat([inputs(task, key) for task in TASKS])
    outputs = torch.cat([inputs(task, key) @ as_map(key, EXPERTS[task][key]) for task in TASKS])
    wanted = torch.linalg.lstsq(stacked, outputs).solution
    found = as_map(key, merged(off_diagonal=1.0, normalize="none")[key])
    assert torch.allclose(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("key", LINEAR)
def test_means_count_every_task_alike(key: str) -> None:
    rows = {task: inputs(task, key) / ROWS[task] ** 0.5 for task in TASKS}
    stacked = torch.cat(list(rows.values()))
    outputs = torch.cat([rows[task] @ as_map(key, EXPERTS[task][key]) for task in TASKS])
    wanted = torch.linalg.lstsq(stacked, outputs).solution
    assert torch.allclose(as_map(key, merged(off_diagonal=1.0)[key]), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("key", LINEAR)
def test_what_is_off_the_diagonal_is_shrunk(key: str) -> None:
    def shrunk(task: str) -> torch.Tensor:
        gram = GRAMS[task][key] / ROWS[task]
        return 0.7 * gram + 0.3 * torch.diag(gram.diagonal())

    right = sum(shrunk(task) @ as_map(key, EXPERTS[task][key]) for task in TASKS)
    wanted = torch.linalg.inv(sum(shrunk(task) for task in TASKS)) @ right
    assert torch.allclose(as_map(key, merged(off_diagonal=0.7)[key]), wanted, rtol=0, atol=1e-6)


def test_equal_inputs_give_the_average() -> None:
    average = merge("average", BASE, EXPERTS, 1.0)
    found = merged(grams=dict.fromkeys(TASKS, GRAMS["a"]))
    assert all(torch.allclose(found[key], average[key], atol=1e-6) for key in SHAPES)


def test_other_tensors_are_averaged() -> None:
    average, found = merge("average", BASE, EXPERTS, 1.0), merged()
    bias = "transformer.resblocks.0.mlp.c_fc.bias"
    assert torch.equal(found[bias], average[bias])
    assert torch.equal(found["counter"], BASE["counter"])
    assert not torch.allclose(found["proj"], average["proj"])
    inside = merged(layers="blocks")
    assert torch.equal(inside["proj"], average["proj"])
    assert torch.equal(inside["conv1.weight"], average["conv1.weight"])
    assert torch.equal(inside[LINEAR[1]], found[LINEAR[1]])


def test_parts_that_share_an_input_do_not_meddle() -> None:
    key = LINEAR[1]
    part = {task: state | {key: state[key][2:5]} for task, state in EXPERTS.items()}
    base = BASE | {key: BASE[key][2:5]}
    apart = merge("regmean", base, part, 1.0, statistics={"gram": GRAMS})
    assert torch.allclose(apart[key], merged()[key][2:5], atol=1e-6)


def test_lambda_walks_the_line_from_the_base() -> None:
    half, whole = merged(0.5), merged(1.0)
    for key in LINEAR:
        wanted = BASE[key].double() + 0.5 * (whole[key].double() - BASE[key].double())
        assert torch.allclose(half[key].double(), wanted, rtol=0, atol=3e-7)


@pytest.mark.parametrize("off_diagonal", [1.0, 0.9])
def test_inputs_that_never_occur_leave_the_base_alone(off_diagonal: float) -> None:
    key = LINEAR[1]
    silent = {task: state | {key: state[key].clone()} for task, state in GRAMS.items()}
    for state in silent.values():
        state[key][2], state[key][:, 2] = 0.0, 0.0
    found = merged(grams=silent, off_diagonal=off_diagonal)
    assert torch.equal(found[key][:, 2], BASE[key][:, 2])
    assert not torch.equal(found[key][:, 1], BASE[key][:, 1])


def test_too_few_images_give_the_smallest_change() -> None:
    rows = draw(3, 8, seed=1) * torch.logspace(-2, 2, 8, dtype=torch.float64)
    gram = rows.T @ rows
    planted = rows.T @ draw(3, 4, seed=2)
    found = solve_symmetric(gram.float().double(), gram @ planted)
    assert torch.allclose(found, planted, rtol=0, atol=1e-5 * float(planted.abs().max()))


def test_a_statistic_of_another_network_is_refused() -> None:
    for wrong in ({"proj": torch.eye(5)}, {}):
        grams = GRAMS | {"b": {key: t for key, t in GRAMS["b"].items() if key != "proj"} | wrong}
        with pytest.raises(LineageError, match="'gram' of task 'b' does not fit the weight 'proj'"):
            merged(grams=grams)


def test_the_factor_is_that_of_the_peers_and_grams_may_be_named_by_module() -> None:
    by_module = {
        task: {
            name.removesuffix(".weight"): gram for name, gram in grams.items() if name != "images"
        }
        for task, grams in GRAMS.items()
    }
    default, named = merged(grams=by_module), merged(off_diagonal=0.95, normalize="none")
    assert all(torch.equal(default[key], named[key]) for key in SHAPES)
    assert not torch.equal(default["proj"], merged(off_diagonal=0.9, normalize="none")["proj"])
    with pytest.raises(ConfigError, match="off_diagonal"):
        merged(off_diagonal=1.5)
