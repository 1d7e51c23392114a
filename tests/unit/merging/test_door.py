"""Merging by hand: what is refused, and what the points of a merge are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import taskgrid.merging
from taskgrid import plugins
from taskgrid.errors import ConfigError, LineageError
from taskgrid.lattice.points import format_lambda, lambda_value
from taskgrid.merging import MergeContext, merge, merge_per_task, methods
from taskgrid.merging.bases.additive import Line, weighted_sum
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Prepared
from taskgrid.plugins.cards import statistic_card
from taskgrid.store.weights import State, digest_state
from tests.unit.example_mergers import near, recipe_of


@pytest.fixture
def base() -> State:
    generator = torch.Generator().manual_seed(0)
    return {
        "proj": torch.randn(5, 7, generator=generator),
        "bias": torch.randn(3, generator=generator),
        "steps": torch.tensor([5]),
    }


@pytest.fixture
def experts(base: State) -> dict[str, State]:
    return {task: near(base, seed) for seed, task in enumerate(("svhn", "dtd"))}


def test_the_methods_there_are() -> None:
    there = {"average", "emr", "logit_ensemble", "tall_mask", "task_arithmetic", "ties"}
    assert there <= set(methods()) and methods() == tuple(sorted(methods()))


def test_lambdas_as_text_change_nothing(base: State, experts: dict[str, State]) -> None:
    text = format_lambda(0.1 + 0.2)
    assert digest_state(merge("average", base, experts, lambda_value(text))) == digest_state(
        merge("average", base, experts, 0.3)
    )


def test_a_lambda_by_hand_may_be_any_number(base: State, experts: dict[str, State]) -> None:
    found = merge("task_arithmetic", base, experts, 1 / 3)
    direction = sum(expert["proj"].double() - base["proj"].double() for expert in experts.values())
    torch.testing.assert_close(found["proj"], (base["proj"] + direction / 3).float())
    assert digest_state(merge("task_arithmetic", base, experts)) == digest_state(
        merge("task_arithmetic", base, experts, 0.3)
    )


def test_mistakes_are_told_in_one_sentence(base: State, experts: dict[str, State]) -> None:
    with pytest.raises(ConfigError, match=r"'task_arithmetik'; did you mean 'task_arithmetic'"):
        merge("task_arithmetik", base, experts)
    with pytest.raises(ConfigError, match=r"'average' has no option 'density'"):
        merge("average", base, experts, density=0.2)
    with pytest.raises(ConfigError, match="at least one expert"):
        merge("average", base, {})
    with pytest.raises(ConfigError, match="merges logits, not weights"):
        merge("logit_ensemble", base, experts)
    broken = experts | {"dtd": {n: t for n, t in experts["dtd"].items() if n != "proj"}}
    with pytest.raises(LineageError, match=r"expert 'dtd' lacks 'proj'"):
        merge("average", base, broken)


@pytest.mark.parametrize("scale", [{"dtd": 0.3}, {"dtd": 0.3, "svhn": 0.3, "cars": 0.3}, {}])
def test_coefficients_are_one_for_each_expert(
    scale: dict[str, float], base: State, experts: dict[str, State]
) -> None:
    with pytest.raises(ConfigError, match=r"but dtd, svhn are merged; give one for each"):
        merge("average", base, experts, scale)


@pytest.mark.parametrize("scale", [float("nan"), {"dtd": 1.0, "svhn": float("inf")}])
def test_lambda_is_a_finite_number(scale: Any, base: State, experts: dict[str, State]) -> None:
    with pytest.raises(ConfigError, match="is not a finite number"):
        merge("average", base, experts, scale)


class Informed(Line):
    """Weighs task vectors by what is known of each, and by what was learned."""

    def prepare(self, context: MergeContext) -> Prepared:
        return weighted_sum(
            [
                (
                    float(context.statistic("mass", task)["mass"])
                    * context.learned_coefficient(task, "proj"),
                    vector,
                )
                for task, vector in context.vectors.items()
            ]
        )


def test_a_method_gets_the_statistics_and_the_coefficients_that_its_card_asks_for(
    base: State, experts: dict[str, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(Informed(), "informed", needs=("mass",), learned=True)
    monkeypatch.setattr(MergeRecipe, "of", lambda *given: recipe)
    card = statistic_card("gram")
    monkeypatch.setattr("taskgrid.merging.recipe.statistic_card", lambda name: card)
    mass = {"mass": {t: {"mass": torch.tensor(m)} for t, m in (("dtd", 2.0), ("svhn", -1.0))}}
    # One per floating tensor, by name: bias, proj.
    learned = {"dtd": torch.tensor([9.0, 0.5]), "svhn": torch.tensor(3.0)}
    found = merge("informed", base, experts, 1.0, statistics=mass, learned=learned)
    delta = {task: expert["bias"].double() - base["bias"] for task, expert in experts.items()}
    expected = base["bias"] + 2.0 * 0.5 * delta["dtd"] - 1.0 * 3.0 * delta["svhn"]
    torch.testing.assert_close(found["bias"], expected.float())
    with pytest.raises(LineageError, match=r"needs statistics of data \(mass\); give `statistics`"):
        merge("informed", base, experts, learned=learned)
    with pytest.raises(LineageError, match="needs the statistic 'mass' of task 'dtd'"):
        merge("informed", base, experts, statistics={"mass": {}}, learned=learned)
    with pytest.raises(LineageError, match="learns from images; let the workflow's rule `learn`"):
        merge("informed", base, experts, statistics=mass)
    with pytest.raises(LineageError, match="no coefficients were learned for task 'svhn'"):
        merge("informed", base, experts, statistics=mass, learned={"dtd": torch.tensor(1.0)})


def test_statistics_must_be_declared(base: State) -> None:
    context = MergeContext(base, {}, statistics={"fisher": {"dtd": base}})
    assert context.statistic("fisher", "dtd") is base
    with pytest.raises(LineageError, match=r"'moments' of the base.*`needs`"):
        context.statistic("moments")


def test_a_task_is_asked_where_there_is_a_model_for_each_and_only_there() -> None:
    per_task, single = MergeRecipe.of("emr", {}), MergeRecipe.of("ties", {})
    per_task.check_task(["a", "b"], "a")
    single.check_task(["a", "b"], None)
    with pytest.raises(ConfigError, match="a model for each of a, b, and none is named"):
        per_task.check_task(["b", "a"], None)
    with pytest.raises(ConfigError, match="and 'c' is not one of them"):
        per_task.check_task(["a", "b"], "c")
    with pytest.raises(ConfigError, match="a single model; leave out the task 'a'"):
        single.check_task(["a", "b"], "a")


def test_each_model_of_a_method_per_task_is_its_own(base: State, experts: dict[str, State]) -> None:
    found = merge_per_task("emr", base, experts)
    assert sorted(found) == ["dtd", "svhn"]
    assert digest_state(found["dtd"]) != digest_state(found["svhn"])


def test_loading_a_method_does_not_take_the_place_of_the_list() -> None:
    plugins.load("merger", "average")
    assert "average" in taskgrid.merging.methods()
