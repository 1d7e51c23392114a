from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from taskgrid.errors import TrainingError
from taskgrid.evaluation.learning import open_problem
from taskgrid.machine.meter import Silent
from taskgrid.merging.bases.affine_search import AffineLogits, affine_logits, minimum, solved
from taskgrid.merging.learning import LearningProblem
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.models.linearized import LinearizedEncoder
from tests.unit.example_grid import held, world

SUBSET = ("a", "b")


def made_up(tasks: int, seed: int, images: int = 30, classes: int = 4) -> AffineLogits:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    slopes = random.normal(size=(tasks, images, classes))
    # Directions that help on the whole, so that the optimum lies inside.
    slopes[:, np.arange(images), labels] += 0.8
    return AffineLogits(random.normal(size=(images, classes)), slopes, labels)


def loss(each: list[AffineLogits], at: NDArray[np.float64]) -> float:
    """Mean cross-entropy, image by image."""
    total = 0.0
    for one in each:
        for row, label in enumerate(one.labels):
            z = one.start[row] + sum(
                c * slope[row] for c, slope in zip(at, one.slopes, strict=True)
            )
            total += (np.log(np.exp(z).sum()) - z[label]) / len(one.labels) / len(each)
    return float(total)


def test_the_gradient_is_that_of_finite_differences() -> None:
    one, at = made_up(3, 0), np.array([0.2, -0.4, 0.7])
    value, gradient = one.cross_entropy(at)
    assert value == pytest.approx(loss([one], at), abs=1e-12)
    for place, step in enumerate(1e-5 * np.eye(3)):
        slope = (loss([one], at + step) - loss([one], at - step)) / 2e-5
        assert gradient[place] == pytest.approx(slope, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_no_point_of_a_grid_is_better(seed: int) -> None:
    each = [made_up(2, 10 * seed + place) for place in range(2)]
    best = minimum(each, 1.5)
    least = loss(each, best)
    assert all(
        least <= loss(each, np.array(at))
        for at in itertools.product(np.linspace(0, 1.5, 16), repeat=2)
    )
    for step in 1e-3 * np.eye(2):
        for near in (best + step, best - step):
            assert loss(each, np.clip(near, 0, 1.5)) >= least


def test_an_optimum_inside_is_flat_and_one_at_an_end_leads_out() -> None:
    inside = minimum([made_up(2, 0)], 50.0)
    assert inside.min() > 0 and inside.max() < 50
    assert np.abs(made_up(2, 0).cross_entropy(inside)[1]).max() < 1e-6
    narrow = minimum([made_up(2, 0)], 0.1)
    assert narrow.max() == 0.1 and made_up(2, 0).cross_entropy(narrow)[1].max() < 0


def test_images_that_can_be_told_apart_take_it_to_the_end() -> None:
    labels = np.array([0, 1, 0])
    slopes = np.eye(2)[labels][None]
    one = AffineLogits(np.zeros((3, 2)), np.concatenate([slopes, -slopes]), labels)
    assert minimum([one], 2.0).tolist() == [2.0, 0.0]


def test_what_is_no_number_is_an_error() -> None:
    one = made_up(2, 0)
    one.slopes[0, 0, 0] = np.nan
    with pytest.raises(TrainingError, match="found no optimum; see whether the experts diverged"):
        minimum([one], 1.0)


@pytest.fixture(scope="module")
def tangent() -> LearningProblem:
    small = world(SUBSET)
    setting = held(small).setting("m", "linear", 0, "fp32", "tangent")
    recipe, device = MergeRecipe.of("search", {}), torch.device("cpu")
    return open_problem(held(small).material(), setting, recipe, SUBSET, device)


def test_logits_are_those_of_the_tangent_model_up_to_the_length_of_features(
    tangent: LearningProblem,
) -> None:
    assert tangent.tangent
    encoder = tangent.features.args[0]  # type: ignore[attr-defined]
    assert isinstance(encoder, LinearizedEncoder)
    at = np.array([0.7, -1.3])
    state = {
        name: tensor
        + sum(c * tangent.tasks[t].vector[name] for c, t in zip(at, SUBSET, strict=True))
        for name, tensor in tangent.base.items()
    }
    for task in SUBSET:
        rows = np.arange(tangent.tasks[task].count)
        found = affine_logits(tangent, task, 5, Silent())
        z = found.start + np.tensordot(at, found.slopes, axes=1)
        with torch.no_grad():
            inputs = tangent.tasks[task].inputs(rows)
            length, origin = (
                tangent.features(one, inputs).norm(dim=1, keepdim=True).numpy()
                for one in (state, tangent.base)
            )
            logits = tangent.logits(state, task, rows).numpy()
        np.testing.assert_allclose(z, logits * length / origin, rtol=0, atol=2e-3)
        assert np.abs(z - found.start).max() > 0.1


def test_solving_tells_the_loss_at_the_base_and_at_the_optimum(tangent: LearningProblem) -> None:
    found = solved(tangent, 1.0, 64, Silent())
    each = [affine_logits(tangent, task, 64, Silent()) for task in SUBSET]
    best = np.array([float(found.coefficients[task]) for task in SUBSET])
    assert [step for step, _ in found.history] == [0, 1]
    assert found.history[0][1] == pytest.approx(loss(each, np.zeros(2)), rel=1e-9)
    assert found.history[1][1] == pytest.approx(loss(each, best), rel=1e-9)
    for at in itertools.product(np.linspace(0, 1, 6), repeat=2):
        assert loss(each, np.array(at)) >= found.history[1][1] - 1e-12
