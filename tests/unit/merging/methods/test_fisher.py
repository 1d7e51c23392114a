"""Fisher merging against the mean of Gaussians weighted by their precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from taskgrid.errors import ConfigError, LineageError
from taskgrid.merging import merge
from taskgrid.store.weights import State

BASE = {
    "weight": torch.linspace(-1, 1, 12).reshape(3, 4),
    "bias": torch.tensor([0.5, -2.0]),
    "running_mean": torch.tensor([1.0, 3.0]),
    "counter": torch.tensor(7),
}
COUNTS = {"a": 5, "b": 11, "c": 2}


def random(seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
        for key, tensor in BASE.items()
        if tensor.is_floating_point()
    }


EXPERTS = {
    task: BASE | {key: BASE[key] + 0.1 * noise for key, noise in random(seed).items()}
    for seed, task in enumerate("abc")
}
FISHERS: dict[str, State] = {
    task: {
        key: noise.square() * COUNTS[task]
        for key, noise in random(seed + 10).items()
        if key != "running_mean"
    }
    | {"images": torch.tensor(COUNTS[task])}
    for seed, task in enumerate("abc")
}


def merged(scale: float = 1.0, fishers: dict[str, State] | None = None, **options: Any) -> State:
    statistics = {"fisher": fishers or FISHERS}
    return merge("fisher", BASE, EXPERTS, scale, statistics=statistics, **options)


def precision_weighted(key: str, precisions: dict[str, torch.Tensor]) -> torch.Tensor:
    each = torch.stack(list(precisions.values()))
    values = torch.stack([EXPERTS[task][key].double() for task in precisions])
    return (each * values).sum(0) / each.sum(0)


def means(key: str) -> dict[str, torch.Tensor]:
    return {task: FISHERS[task][key].double() / COUNTS[task] for task in FISHERS}


def near(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return torch.allclose(found.double(), wanted, rtol=0, atol=3e-7)


@pytest.mark.parametrize("key", ["weight", "bias"])
@pytest.mark.parametrize("floor_by", ["add", "clamp"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("floor", [0.0, 0.3])
def test_the_mean_weighted_by_precisions(
    key: str, floor_by: str, normalize: bool, floor: float
) -> None:
    def precision(task: str) -> torch.Tensor:
        mean = means(key)[task]
        floored = mean.clamp(min=floor) if floor_by == "clamp" else mean + floor
        if not normalize:
            return floored
        whole = torch.cat([means(each)[task].flatten() for each in ("weight", "bias")])
        return floored / (whole.norm() + floor)

    found = merged(floor=floor, floor_by=floor_by, normalize=normalize)
    assert near(found[key], precision_weighted(key, {task: precision(task) for task in FISHERS}))


def test_by_default_the_floor_is_added_and_nothing_is_normalised() -> None:
    default, named = merged(), merged(floor=1e-6, floor_by="add", normalize=False, weights=None)
    assert all(torch.equal(default[key], named[key]) for key in default)
    with pytest.raises(ConfigError, match="floor_by"):
        merged(floor_by="clip")


def test_weights_multiply_precisions() -> None:
    given = {"a": 2.0, "b": 0.5, "c": 1.0}
    weighed = {task: given[task] * mean for task, mean in means("weight").items()}
    found = merged(floor=0.0, weights=given)
    assert near(found["weight"], precision_weighted("weight", weighed))
    with pytest.raises(ConfigError, match="no weight for task 'b'"):
        merged(weights={"a": 1.0})


def test_equal_precisions_give_the_average() -> None:
    same = dict.fromkeys("abc", FISHERS["a"])
    average = merge("average", BASE, EXPERTS, 1.0)
    assert all(near(merged(fishers=same)[key], tensor.double()) for key, tensor in average.items())


def test_where_nothing_matters_experts_are_averaged() -> None:
    blind = {
        task: {key: torch.zeros_like(tensor) for key, tensor in found.items()}
        | {"images": found["images"]}
        for task, found in FISHERS.items()
    }
    average = merge("average", BASE, EXPERTS, 1.0)
    assert near(merged(fishers=blind)["weight"], average["weight"].double())
    # Without a floor there is nothing to weigh by, and nothing moves.
    still = merged(fishers=blind, floor=0.0)
    assert torch.equal(still["weight"], BASE["weight"])


def test_what_has_no_gradient_is_averaged() -> None:
    average = merge("average", BASE, EXPERTS, 1.0)
    assert near(merged()["running_mean"], average["running_mean"].double())
    assert torch.equal(merged()["counter"], BASE["counter"])


def test_lambda_walks_the_line_from_the_base() -> None:
    half, whole = merged(0.5), merged(1.0)
    wanted = BASE["weight"].double() + 0.5 * (whole["weight"].double() - BASE["weight"].double())
    assert near(half["weight"], wanted)


def test_a_statistic_of_another_network_is_refused() -> None:
    wrong = FISHERS | {"b": FISHERS["b"] | {"weight": torch.ones(2, 2)}}
    with pytest.raises(LineageError, match="of task 'b' has shape"):
        merged(fishers=wrong)


def test_a_statistic_that_counts_no_images_is_taken_as_it_stands() -> None:
    bare = {task: {key: means(key)[task] for key in ("weight", "bias")} for task in FISHERS}
    assert near(merged(fishers=bare)["weight"], merged()["weight"].double())
