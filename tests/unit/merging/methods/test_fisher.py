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
def test_the_mean_weighted_by_precisions(key: str) -> None:
    assert near(merged(normalize="images", floor=0.0)[key], precision_weighted(key, means(key)))
    sums = {task: FISHERS[task][key].double() for task in FISHERS}
    assert near(merged(normalize="none", floor=0.0)[key], precision_weighted(key, sums))


@pytest.mark.parametrize("key", ["weight", "bias"])
@pytest.mark.parametrize("flooring", ["clip", "add"])
def test_floored_then_divided_by_the_norm_of_all(key: str, flooring: str) -> None:
    def floored(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clamp(min=0.3) if flooring == "clip" else tensor + 0.3

    norms = {
        task: torch.cat(
            [floored(means(each)[task]).flatten() for each in ("weight", "bias")]
        ).norm()
        for task in FISHERS
    }
    precisions = {task: floored(mean) / norms[task] for task, mean in means(key).items()}
    assert near(merged(floor=0.3, flooring=flooring)[key], precision_weighted(key, precisions))


def test_weights_multiply_precisions() -> None:
    given = {"a": 2.0, "b": 0.5, "c": 1.0}
    weighed = {task: given[task] * mean for task, mean in means("weight").items()}
    found = merged(normalize="images", floor=0.0, weights=given)
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
    still = merged(fishers=blind, floor=0.0, normalize="images")
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
    uncounted = FISHERS | {"b": {"weight": FISHERS["b"]["weight"]}}
    with pytest.raises(LineageError, match="how many images"):
        merged(fishers=uncounted)
