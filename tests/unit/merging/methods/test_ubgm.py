"""Gradient matching against closed forms in NumPy: of quadratic losses, the exact joint minimum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from taskgrid.errors import ConfigError, LineageError
from taskgrid.merging import merge
from taskgrid.store.weights import State

TASKS = ("a", "b", "c")
SHAPES = {"weight": (6, 5), "bias": (4,)}
SCALES = (0.3, 1.0, 1.7)

Arrays = dict[str, NDArray[np.float64]]


def drawn(seed: int, transform: Callable[[Any], Any] = lambda x: x) -> State:
    random = np.random.default_rng(seed)
    return {
        key: torch.from_numpy(transform(random.standard_normal(shape)))
        for key, shape in SHAPES.items()
    }


def curvatures(seed: int) -> State:
    """Positive, over several orders of magnitude."""
    return drawn(seed, lambda x: np.exp(2 * x))


# float64, so that closed forms are met to their rounding.
BASE = drawn(0)
EXPERTS = {
    task: {key: BASE[key] + move for key, move in drawn(i + 1).items()}
    for i, task in enumerate(TASKS)
}
FISHERS = {task: curvatures(i + 11) for i, task in enumerate(TASKS)}
PRIOR = curvatures(21)
NONE = {key: torch.zeros(shape, dtype=torch.float64) for key, shape in SHAPES.items()}
NO_FISHERS = dict.fromkeys(TASKS, NONE)


def merged(
    scale: float | Mapping[str, float],
    fishers: Mapping[str, State] = FISHERS,
    prior: State = PRIOR,
    experts: Mapping[str, State] = EXPERTS,
    **options: Any,
) -> Arrays:
    given = {"fisher": dict(fishers), "fisher_base": prior}
    found = merge("ubgm", BASE, experts, scale, statistics=given, **options)
    return {key: tensor.double().numpy() for key, tensor in found.items()}


def formula(
    coefficients: Mapping[str, float],
    fishers: Mapping[str, State] = FISHERS,
    prior: State = PRIOR,
    delta: float = 1e-10,
) -> Arrays:
    found = {}
    for key, tensor in BASE.items():
        base, before = tensor.numpy(), prior[key].numpy() + delta
        own = {task: fishers[task][key].numpy() for task in TASKS}
        total = before + sum(coefficients[task] * own[task] for task in TASKS)
        found[key] = base + sum(
            coefficients[task] / total * (before + own[task]) * (EXPERTS[task][key].numpy() - base)
            for task in TASKS
        )
    return found


def same(found: Arrays, wanted: Mapping[str, Any]) -> None:
    for key in SHAPES:
        # Task vectors are float32.
        np.testing.assert_allclose(found[key], np.asarray(wanted[key]), rtol=0, atol=3e-6)


def arithmetic(scale: float) -> State:
    return merge("task_arithmetic", BASE, EXPERTS, scale)


@pytest.mark.parametrize("scale", SCALES)
def test_the_formula(scale: float) -> None:
    same(merged(scale), formula(dict.fromkeys(TASKS, scale)))
    same(merged(scale, delta=0.7), formula(dict.fromkeys(TASKS, scale), delta=0.7))


@pytest.mark.parametrize("scale", [0.3, 1.7, -0.2])
def test_of_tasks_without_curvature_it_is_task_arithmetic(scale: float) -> None:
    same(merged(scale, NO_FISHERS), arithmetic(scale))
    # Also of what has no gradient, as buffers.
    bare = {task: {"images": torch.tensor(3)} for task in TASKS}
    same(merged(scale, bare, {"images": torch.tensor(3)}), arithmetic(scale))


@pytest.mark.parametrize("scale", [0.3, 1.7, -0.2])
def test_under_an_ever_sharper_prior_it_is_task_arithmetic(scale: float) -> None:
    same(merged(scale, delta=1e12), arithmetic(scale))


@pytest.mark.parametrize("scale", SCALES)
def test_without_a_prior_it_is_the_fisher_mean_at_any_lambda(scale: float) -> None:
    means = {
        key: sum(FISHERS[t][key] * EXPERTS[t][key] for t in TASKS)
        / sum(FISHERS[t][key] for t in TASKS)
        for key in SHAPES
    }
    same(merged(scale, prior=NONE, delta=0.0), means)


def test_of_equal_curvatures_it_is_a_weighted_average() -> None:
    weights = {"a": 0.5, "b": 0.2, "c": 0.3}
    wanted = {key: sum(weights[t] * EXPERTS[t][key] for t in TASKS) for key in SHAPES}
    same(merged(1.0, dict.fromkeys(TASKS, PRIOR), weights=weights, delta=0.0), wanted)


@pytest.mark.parametrize("scale", SCALES)
def test_a_proportional_prior_only_changes_lambda(scale: float) -> None:
    own, share = FISHERS["a"], 0.4
    prior = {key: share * tensor for key, tensor in own.items()}
    effective = scale * (1 + share) / (share + scale * len(TASKS))
    same(merged(scale, dict.fromkeys(TASKS, own), prior, delta=0.0), arithmetic(effective))


@pytest.mark.parametrize("scale", [0.3, 1.7, -0.2])
def test_of_quadratic_tasks_it_is_the_joint_minimum(scale: float) -> None:
    delta, weights = 0.05, {"a": 1.0, "b": 0.5, "c": 1.5}
    # Tasks that are less sharp than the prior: at -0.2 there is still a minimum.
    fishers = {
        task: {k: h / (1 + h / (PRIOR[k] + delta)) for k, h in curvatures(31 + i).items()}
        for i, task in enumerate(TASKS)
    }
    minima = {task: drawn(41 + i, lambda x: 3 * x) for i, task in enumerate(TASKS)}
    experts, joint = {}, {}
    for key in SHAPES:
        precision, base = PRIOR[key].numpy() + delta, BASE[key].numpy()
        sharp = {task: fishers[task][key].numpy() for task in TASKS}
        where = {task: minima[task][key].numpy() for task in TASKS}

        def minimum(
            share: Mapping[str, float],
            precision: Any = precision,
            base: Any = base,
            sharp: Any = sharp,
            where: Any = where,
        ) -> Any:
            # argmin of sum_t a_t h_t (x - m_t)^2 / 2 + p (x - base)^2 / 2, number by number.
            linear = precision * base + sum(share[t] * sharp[t] * where[t] for t in share)
            return linear / (precision + sum(share[t] * sharp[t] for t in share))

        for task in TASKS:
            experts.setdefault(task, {})[key] = torch.from_numpy(minimum({task: 1.0}))
        joint[key] = minimum({task: scale * weights[task] for task in TASKS})
    found = merged(scale, fishers, experts=experts, delta=delta, weights=weights)
    same(found, joint)
    plain = merge("task_arithmetic", BASE, experts, scale, weights=weights)
    assert max(abs(plain[key].numpy() - joint[key]).max() for key in SHAPES) > 0.1


@pytest.mark.parametrize("by", [1e-6, 1e5])
def test_only_the_proportions_of_curvatures_count(by: float) -> None:
    scaled = {task: {k: by * h for k, h in own.items()} for task, own in FISHERS.items()}
    prior = {key: by * tensor for key, tensor in PRIOR.items()}
    same(merged(0.6, scaled, prior, delta=0.0), merged(0.6, delta=0.0))
    # The number of images is for people: sums are taken as they are.
    counted = {task: own | {"images": torch.tensor(9)} for task, own in FISHERS.items()}
    same(merged(0.6, counted, PRIOR | {"images": torch.tensor(2)}), merged(0.6))


@pytest.mark.parametrize(
    ("scale", "fishers", "prior"),
    [
        (-5.0, FISHERS, PRIOR),
        (0.3, NO_FISHERS, NONE),
        ({"a": -9.0, "b": 0.1, "c": 0.1}, None, None),
    ],
)
def test_what_has_no_minimum_is_refused(scale: Any, fishers: Any, prior: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"is not positive for \d+ of \d+ weights of '(weight|bias)'"
    ):
        merged(scale, fishers or FISHERS, prior or PRIOR, delta=0.0)


def test_the_base_is_a_point_whatever_the_curvatures() -> None:
    same(merged(0.0, NO_FISHERS, NONE, delta=0.0), BASE)


def test_weights_and_coefficients_of_a_point_are_coefficients() -> None:
    own = {"a": 0.6, "b": 0.0, "c": -0.01}
    fishers = FISHERS | {"c": {key: 0.1 * PRIOR[key] for key in SHAPES}}
    wanted = formula(own, fishers)
    same(merged(own, fishers), wanted)
    same(merged(1.0, fishers, weights=own), wanted)
    same(merged(2.0, fishers, weights={t: w / 2 for t, w in own.items()}), wanted)
    twice = {"a": 2.0, "b": 1.0, "c": 0.5}
    same(merged({t: own[t] / twice[t] for t in TASKS}, fishers, weights=twice), wanted)
    with pytest.raises(ConfigError, match="no weight for task 'b'"):
        merged(1.0, weights={"a": 1.0})


def test_statistics_are_given_by_task_and_of_the_base_as_one() -> None:
    both = {"fisher": FISHERS, "fisher_base": PRIOR}
    for wrong, words in (
        ({"fisher": FISHERS}, "needs the statistic 'fisher_base' of the base"),
        (both | {"fisher_base": {"": PRIOR}}, "'fisher_base' is one state, of the base"),
        (both | {"fisher": PRIOR}, "'fisher' is a state for each task"),
        (both | {"fisher": {"a": FISHERS["a"]}}, "needs the statistic 'fisher' of task 'b'"),
        (both | {"fisher_base": {"weight": torch.ones(2)}}, r"'fisher_base' has shape \(2,\)"),
    ):
        with pytest.raises(LineageError, match=words):
            merge("ubgm", BASE, EXPERTS, 0.3, statistics=wrong)


def test_options_that_cannot_be() -> None:
    for wrong in ({"delta": -1.0}, {"weights": 2}, {"dleta": 1e-3}):
        with pytest.raises(ConfigError, match="ubgm"):
            merged(0.3, **wrong)
