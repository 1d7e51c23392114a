"""The trained curve: its formula, its ends, the gradient, and a barrier that it goes round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from taskgrid.errors import ConfigError, LineageError, TrainingError
from taskgrid.evaluation import learn_coefficients
from taskgrid.machine.meter import Silent
from taskgrid.merging import merge
from taskgrid.merging.learning import Learning, LearningProblem, LearningTask
from taskgrid.merging.methods import bezier
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.models.heads import Head
from taskgrid.plugins.options import Options
from taskgrid.store.weights import State, digest_state
from tests.unit.example_grid import world
from tests.unit.merging.methods.labelled import Counting
from tests.unit.merging.methods.test_adamerging import IMAGES, TASKS, network
from tests.unit.merging.methods.test_atlas import NAMES, labelled

TS = (0.0, 0.1, 0.25, 0.5, 0.8, 1.0)


def checked(**options: object) -> Options:
    return MergeRecipe.of("bezier", options).options


def learned(problem: LearningProblem, seed: int = 0, **options: object) -> Learning:
    return bezier.MERGER.learn(problem, checked(**options), seed, Silent())


def drawn(seed: int, size: float = 1.0) -> State:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"m": (5, 4), "b": (7,)}
    return {name: size * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def three() -> tuple[State, dict[str, State], State]:
    """A base, two experts, and a bend, all float32."""
    counter, start = {"counter": torch.tensor(3)}, drawn(0)
    experts = {
        task: {name: start[name] + step for name, step in drawn(seed, 0.1).items()} | counter
        for seed, task in ((1, "a"), (2, "b"))
    }
    return start | counter, experts, {f"bend/{name}": one for name, one in drawn(9, 0.1).items()}


# --- the curve -------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", TS)
def test_it_is_the_quadratic_curve_through_the_middle(t: float) -> None:
    base, experts, bend = three()
    merged = merge("bezier", base, experts, t, learned=bend)
    for name in ("m", "b"):
        a, b = (experts[task][name].double().numpy() for task in "ab")
        middle = (a + b) / 2 + bend[f"bend/{name}"].double().numpy()
        curve = (1 - t) ** 2 * a + 2 * t * (1 - t) * middle + t**2 * b
        # Task vectors are kept in float32.
        np.testing.assert_allclose(merged[name].numpy(), curve, rtol=0, atol=5e-7)
    assert torch.equal(merged["counter"], base["counter"])


def test_its_ends_are_the_experts_however_it_is_bent() -> None:
    base, experts, bend = three()
    far = {name: 1e6 * tensor for name, tensor in bend.items()}
    for t, task in ((0.0, "a"), (1.0, "b")):
        merged = merge("bezier", base, experts, t, learned=far)
        alone = merge("task_arithmetic", base, {task: experts[task]}, 1.0)
        assert digest_state(merged) == digest_state(alone)
        for name in ("m", "b"):
            torch.testing.assert_close(merged[name], experts[task][name], rtol=0, atol=3e-7)


@pytest.mark.parametrize("t", TS)
def test_unbent_it_has_the_bits_of_the_straight_line(t: float) -> None:
    base, experts, bend = three()
    flat = {name: torch.zeros_like(tensor) for name, tensor in bend.items()}
    straight = merge("task_arithmetic", base, experts, {"a": 1 - t, "b": t})
    assert digest_state(merge("bezier", base, experts, t, learned=flat)) == digest_state(straight)


def test_the_first_expert_is_that_of_the_first_name() -> None:
    base, experts, bend = three()
    turned = {"b": experts["b"], "a": experts["a"]}
    merged = [merge("bezier", base, each, 0.0, learned=bend) for each in (experts, turned)]
    assert digest_state(merged[0]) == digest_state(merged[1])


def test_what_was_not_learned_is_said() -> None:
    base, experts, bend = three()
    with pytest.raises(LineageError, match="no bend of tensor 'm' was learned for a and b; give"):
        merge("bezier", base, experts, 0.5, learned={"bend/b": bend["bend/b"]})
    with pytest.raises(ConfigError, match="merges 2 tasks, but a has 1"):
        merge("bezier", base, {"a": experts["a"]}, 0.5, learned=bend)


# --- what is learned -------------------------------------------------------------------------------


def objective(problem: LearningProblem, bend: Mapping[str, NDArray[np.float64]], t: float) -> float:
    """The mean over both tasks of the cross-entropy on the curve, written out."""
    a, b = (problem.tasks[task].vector for task in TASKS)
    state = {
        name: problem.base[name]
        + (1 - t) * a[name]
        + t * b[name]
        + 2 * t * (1 - t) * torch.from_numpy(bend[name])
        for name in NAMES
    }
    total = 0.0
    for task in TASKS:
        own = problem.tasks[task]
        assert own.labels is not None
        features = network(state, own.inputs(np.arange(IMAGES))).numpy()
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        logits = features @ own.head.weight.numpy().T
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        total -= np.log(p[np.arange(IMAGES), own.labels.numpy()]).mean() / 2
    return float(total)


@pytest.mark.parametrize("t", [0.3, 0.5, 0.8])
def test_the_gradient_is_that_of_finite_differences(t: float) -> None:
    problem, random = labelled(), np.random.default_rng(1)
    at = {name: random.normal(scale=0.3, size=problem.base[name].shape) for name in NAMES}
    bend = {name: torch.from_numpy(value.copy()).requires_grad_() for name, value in at.items()}
    rows = dict.fromkeys(TASKS, np.arange(IMAGES))
    loss = bezier.add_gradient(problem, bend, t, rows)
    assert loss == pytest.approx(objective(problem, at, t), abs=1e-12)
    for name in NAMES:
        found = bend[name].grad
        assert found is not None
        towards = random.normal(size=at[name].shape)
        up, down = (
            objective(problem, at | {name: at[name] + s * 1e-5 * towards}, t) for s in (1, -1)
        )
        assert abs(up - down) > 1e-8
        assert float((found.numpy() * towards).sum()) == pytest.approx((up - down) / 2e-5, rel=1e-5)


def ring() -> LearningProblem:
    """All is right where x lies on the unit circle, as both experts do; the line cuts the corner."""

    def features(state: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        size = 1 - 6 * ((state["x"] ** 2).sum() - 1) ** 2
        return torch.stack([torch.ones(len(inputs)).double(), size.expand(len(inputs))], dim=1)

    def task(place: int) -> LearningTask:
        head = Head(torch.tensor([[0.0, 3.0], [0.0, -3.0]]).double(), ("right", "wrong"), {})
        right = torch.zeros(4, dtype=torch.int64)
        vector = {"x": torch.eye(2)[place].double()}
        return LearningTask(vector, head, 4, lambda rows: torch.zeros(len(rows), 3, 1, 1), right)

    base = {"x": torch.zeros(2).double()}
    return LearningProblem(base, {"a": task(0), "b": task(1)}, features)


def barrier(problem: LearningProblem, bend: State) -> tuple[float, list[float]]:
    """The barrier by loss along a curve, and the loss on it."""
    leaves = {"x": bend["bend/x"].double().requires_grad_()}
    rows = dict.fromkeys("ab", np.arange(4))
    ts = np.linspace(0, 1, 41)
    losses = [bezier.add_gradient(problem, leaves, float(t), rows) for t in ts]
    return max(losses - (1 - ts) * losses[0] - ts * losses[-1]), losses


def test_a_trained_curve_goes_round_the_barrier_of_the_line() -> None:
    problem = ring()
    line, straight = barrier(problem, {"bend/x": torch.zeros(2)})
    found = learned(problem, steps=400, lr=0.01, batch_size=4)
    curve, bent = barrier(problem, found.tensors)
    assert line > 2 and curve < 0.1 * line
    # The ends do not move.
    assert (bent[0], bent[-1]) == (straight[0], straight[-1])
    losses = [loss for _, loss in found.history]
    first, last = np.mean(losses[:40]), np.mean(losses[-40:])
    assert last < 0.3 * first


def test_without_steps_it_is_the_line_and_another_seed_another_curve() -> None:
    flat = learned(labelled(), steps=0)
    assert flat.history == () and not any(tensor.any() for tensor in flat.tensors.values())
    assert {name.removeprefix("bend/") for name in flat.tensors} == set(NAMES)
    one, again, other = (
        digest_state(learned(labelled(), seed, steps=3).tensors) for seed in (0, 0, 1)
    )
    assert one == again != other


def test_images_to_pass_are_those_that_are_told() -> None:
    tally, problem, options = Counting(), labelled(), checked(steps=3, batch_size=5)
    bezier.MERGER.learn(problem, options, 0, tally)
    assert sum(tally.counts) == bezier.MERGER.images_to_pass(problem, options) == 30


def test_a_loss_that_is_not_finite_is_said() -> None:
    problem = labelled()
    lost = {name: torch.full_like(t, torch.nan) for name, t in problem.tasks["a"].vector.items()}
    tasks = {**problem.tasks, "a": replace(problem.tasks["a"], vector=lost)}
    with pytest.raises(TrainingError, match="the loss of a and b is nan at step 0, t = 0"):
        learned(replace(problem, tasks=tasks), steps=2)


def test_it_never_sees_test_images() -> None:
    with pytest.raises(ConfigError, match="images"):
        checked(images="test")
    assert checked().images == "train"


@pytest.mark.parametrize("evaluation", ["plain", "tangent"])
def test_a_real_tower_is_bent_in_every_tensor(evaluation: str) -> None:
    small = world(("a", "b"))
    found = learn_coefficients(
        "bezier",
        small.base,
        small.card,
        {name: replace(task, train=task.val) for name, task in small.tasks.items()},
        experts=small.experts,
        evaluation=evaluation,  # type: ignore[arg-type]
        steps=2,
        batch_size=4,
    )
    assert set(found) == {f"bend/{name}" for name in small.base}
    moved = [name for name, tensor in found.items() if tensor.any()]
    assert len(moved) > 0.8 * len(found)
    merged = merge("bezier", small.base, small.experts, 0.5, learned=found)
    assert all(torch.isfinite(tensor).all() for tensor in merged.values())
