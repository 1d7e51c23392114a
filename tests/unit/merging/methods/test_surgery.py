"""Representation surgery against NumPy: forward, gradient, Adam, and an offset that was planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from taskgrid.errors import ConfigError, LineageError, TrainingError
from taskgrid.machine.meter import Silent
from taskgrid.merging.learning import Learning, LearningProblem
from taskgrid.merging.methods import surgery
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Sources
from tests.unit.merging.methods.labelled import COUNTS, TASKS, Counting, planted

Floats = NDArray[np.float64]


def features_of(problem: LearningProblem, theta: dict[str, Floats], task: str) -> Floats:
    count = COUNTS[task]
    x = problem.tasks[task].inputs(np.arange(count)).numpy().reshape(count, -1)
    found: Floats = np.tanh(x @ theta["first"]) @ theta["second"]
    return found


def moved(problem: LearningProblem, shares: dict[str, float]) -> dict[str, Floats]:
    return {
        name: problem.base[name].numpy()
        + sum(share * problem.tasks[t].vector[name].numpy() for t, share in shares.items())
        for name in ("first", "second")
    }


def by_hand(ours: Floats, theirs: Floats, down: Floats, up: Floats) -> tuple[float, Floats, Floats]:
    """The loss, and its gradient by D and by U, entry by entry of the formula."""
    hidden = ours @ down.T
    bent = np.maximum(hidden, 0)
    rest = ours - bent @ up.T - theirs
    slope = np.sign(rest) / rest.size
    return float(np.abs(rest).mean()), -((slope @ up) * (hidden > 0)).T @ ours, -slope.T @ bent


def some(seed: int) -> tuple[Floats, Floats, Floats, Floats]:
    random = np.random.default_rng(seed)
    ours, theirs = random.normal(size=(2, 9, 6))
    return ours, theirs, random.normal(size=(3, 6)), random.normal(size=(6, 3))


def test_the_gradient_is_the_formulas_and_that_of_finite_differences() -> None:
    ours, theirs, down, up = some(0)
    leaves = [torch.from_numpy(one).requires_grad_() for one in (down, up)]
    loss = surgery.distance(torch.from_numpy(ours), torch.from_numpy(theirs), *leaves)
    value, by_down, by_up = by_hand(ours, theirs, down, up)
    assert loss.item() == pytest.approx(value, rel=1e-14)
    found = [one.numpy() for one in torch.autograd.grad(loss, leaves)]
    np.testing.assert_allclose(found[0], by_down, atol=1e-15)
    np.testing.assert_allclose(found[1], by_up, atol=1e-15)
    for place, matrix in enumerate((down, up)):
        for at in np.ndindex(matrix.shape):
            step = np.zeros_like(matrix)
            step[at] = 1e-6
            ends = [[down, up], [down, up]]
            ends[0][place], ends[1][place] = matrix + step, matrix - step
            rise = by_hand(ours, theirs, *ends[0])[0] - by_hand(ours, theirs, *ends[1])[0]
            assert found[place][at] == pytest.approx(rise / 2e-6, abs=1e-8)


def test_steps_are_those_of_adam() -> None:
    ours, theirs, *_ = some(1)
    random = np.random.default_rng(7)
    drawn = [random.integers(0, 9, size=4) for _ in range(25)]
    *found, losses = surgery.fit(
        torch.from_numpy(ours), torch.from_numpy(theirs), drawn, 3, 0.01, np.random.default_rng(3)
    )
    # As torch begins a linear map, Kaiming with slope sqrt 5: uniform between +-1 / sqrt(d).
    down = np.random.default_rng(3).uniform(-(6**-0.5), 6**-0.5, (3, 6))
    now = [down, np.zeros((6, 3))]
    mean, square = [np.zeros_like(one) for one in now], [np.zeros_like(one) for one in now]
    for step, rows in enumerate(drawn, start=1):
        loss, *slopes = by_hand(ours[rows], theirs[rows], *now)
        assert losses[step - 1] == pytest.approx(loss, rel=1e-9)
        for i, slope in enumerate(slopes):
            mean[i] = 0.9 * mean[i] + 0.1 * slope
            square[i] = 0.999 * square[i] + 0.001 * slope**2
            size = np.sqrt(square[i] / (1 - 0.999**step)) + 1e-8
            now[i] = now[i] - 0.01 * mean[i] / (1 - 0.9**step) / size
    for one, expected in zip(found, now, strict=True):
        np.testing.assert_allclose(one.numpy(), expected, atol=1e-9)


def test_an_offset_of_low_rank_is_found_again() -> None:
    random = np.random.default_rng(0)
    ours = random.normal(size=(300, 10))
    down, up = random.normal(size=(2, 10)) / 3, random.normal(size=(10, 2)) / 2
    theirs = ours - np.maximum(ours @ down.T, 0) @ up.T
    drawn = [random.integers(0, 200, size=32) for _ in range(1500)]
    given = torch.from_numpy(ours), torch.from_numpy(theirs)
    *found, losses = surgery.fit(*given, drawn, 8, 0.01, np.random.default_rng(1))
    # On images that were not drawn, too.
    left = surgery.distance(given[0][200:], given[1][200:], *found)
    assert losses[0] > 0.2 and float(left) < 0.1 * losses[0]


def learned(problem: LearningProblem, seed: int = 0, **options: Any) -> Learning:
    recipe = MergeRecipe.of("surgery", {"rank": 2, "steps": 8, **options})
    return surgery.MERGER.learn(problem, recipe.options, seed, Silent())


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({}, 0.3),
        ({"of": "average", "scale": 0.5}, 0.125),
        ({"inner": {"weights": dict.fromkeys(TASKS, 2.0)}, "scale": 0.1}, 0.2),
    ],
)
def test_it_begins_with_the_distance_of_the_merged_model_to_the_experts(
    options: dict[str, Any], share: float
) -> None:
    problem, expected = planted(0), 0.0
    for task in TASKS:
        ours = features_of(problem, moved(problem, dict.fromkeys(TASKS, share)), task)
        theirs = features_of(problem, moved(problem, {task: 1.0}), task)
        expected += float(np.abs(ours - theirs).mean())
    # A batch that has every image of every task equally often.
    found = learned(problem, **options, batch_size=int(np.lcm.reduce([*COUNTS.values()])))
    assert found.history[0] == (0, pytest.approx(expected, rel=1e-12))
    assert [step for step, _ in found.history] == list(range(8))


def test_each_task_learns_its_own_and_one_seed_gives_the_same_bits() -> None:
    problem = planted(0)
    first, again, other = (learned(problem, seed) for seed in (0, 0, 1))
    names = {f"{part}/{task}" for part in ("down", "up") for task in TASKS}
    assert set(first.tensors) == names and not first.coefficients
    for name, tensor in first.tensors.items():
        assert tensor.dtype == torch.float32
        assert tensor.shape == ((2, 6) if name.startswith("down") else (6, 2))
        assert torch.equal(tensor, again.tensors[name])
        assert not torch.equal(tensor, other.tensors[name])
    assert first.history == again.history


@pytest.mark.parametrize(("steps", "passed"), [(1, 8 * 4), (1000, 78)])
def test_no_image_passes_twice_through_a_model(steps: int, passed: int) -> None:
    problem, told = planted(0), Counting()
    options = MergeRecipe.of("surgery", {"steps": steps, "batch_size": 8}).options
    surgery.MERGER.learn(problem, options, 0, told)
    assert sum(told.counts) == surgery.MERGER.images_to_pass(problem, options) == 2 * passed


def test_the_merge_is_that_of_the_method_under_it_and_features_are_corrected() -> None:
    problem = planted(0)
    vectors = {task: found.vector for task, found in problem.tasks.items()}
    tensors = learned(problem).tensors
    recipe = MergeRecipe.of("surgery", {"of": "ties", "inner": {"density": 0.5}, "scale": 0.7})
    sources = Sources(vectors.__getitem__, learned=lambda _: tensors)
    prepared = recipe.prepare(problem.base, sources, TASKS)
    under = MergeRecipe.of("ties", {"density": 0.5})
    expected = under.apply(problem.base, under.prepare(problem.base, sources, TASKS), 0.7)
    found = recipe.apply(problem.base, prepared, 1.0)
    assert all(torch.equal(found[name], expected[name]) for name in problem.base)
    z = np.random.default_rng(0).normal(size=(5, 6))
    for task in TASKS:
        down, up = (tensors[f"{part}/{task}"].double().numpy() for part in ("down", "up"))
        by_formula = z - np.maximum(z @ down.T, 0) @ up.T
        after = recipe.feature_merger.features(prepared, task, torch.from_numpy(z).float())
        np.testing.assert_allclose(after.numpy(), by_formula, atol=1e-6)


def test_what_was_learned_for_other_tasks_is_refused() -> None:
    problem = planted(0)
    vectors = {task: found.vector for task, found in problem.tasks.items()}
    sources = Sources(vectors.__getitem__, learned=lambda _: {"down/a": torch.zeros(2, 6)})
    with pytest.raises(LineageError, match="no surgery was learned for task 'a'"):
        MergeRecipe.of("surgery", {}).prepare(problem.base, sources, TASKS)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    problem = planted(0)
    problem.tasks["b"].vector["first"].fill_(torch.nan)
    with pytest.raises(TrainingError, match="features of task 'a' lead to a loss"):
        learned(problem)


def test_options_of_the_method_under_it_are_checked_and_filled_in() -> None:
    options = MergeRecipe.of("surgery", {"of": "ties", "inner": {"density": 0.5}}).options
    assert options.inner["density"] == 0.5 and options.inner["trim"] == "global"
    for wrong in ({"densty": 0.5}, {"density": 2}):
        with pytest.raises(ConfigError, match="merge method 'ties'"):
            MergeRecipe.of("surgery", {"of": "ties", "inner": wrong})
    with pytest.raises(ConfigError, match="merge method 'tie'"):
        MergeRecipe.of("surgery", {"of": "tie"})
    with pytest.raises(ConfigError, match="must be a mapping from options to values"):
        MergeRecipe.of("surgery", {"inner": 3})


@pytest.mark.parametrize(
    ("of", "inner"),
    [
        ("dare", {}), ("adamerging", {}), ("fisher", {}), ("tall_mask", {}), ("logit_ensemble", {}),
        ("surgery", {}), ("consensus", {"mask_lambda": "auto"}),
    ],
)  # fmt: skip
def test_only_what_makes_one_model_of_experts_alone_can_be_under_it(
    of: str, inner: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=f"'surgery' goes over .*but '{of}' draws, learns"):
        MergeRecipe.of("surgery", {"of": of, "inner": inner})
