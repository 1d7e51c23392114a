"""ZipIt! on open_clip's own tower in float64: planted experts, M and U by hand, and through the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call

from taskgrid.alignment.maps import Axes
from taskgrid.alignment.spaces import RES, Spaces, spaces_of
from taskgrid.errors import ConfigError, LineageError, TrainingError
from taskgrid.evaluation import evaluate_grid, learn_coefficients
from taskgrid.merging import merge_per_task
from taskgrid.merging.learning import Learning, LearningProblem, LearningTask
from taskgrid.merging.methods.zipit import MERGER
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Learned, MergeContext, learned_names
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.heads import Head
from taskgrid.models.inference import features_of
from taskgrid.models.layout import layer_of
from taskgrid.models.tower import build_tower
from taskgrid.store.weights import State
from tests.unit.alignment.test_spaces import group_element
from tests.unit.example_grid import SIZE, World, world

BLOCKS, IMAGES = 2, 24
TAIL = ("block 1", "output")


class Counter:
    """A tally that can be read."""

    total = 0

    def advance(self, count: int = 1) -> None:
        self.total += count


@cache
def small() -> World:
    return world(("a", "b", "c"), val=12, test=12)


def wide(state: Mapping[str, torch.Tensor]) -> State:
    return {key: tensor.double() for key, tensor in state.items()}


@cache
def tower() -> torch.nn.Module:
    return build_tower(small().card).double()


def spaces() -> Spaces:
    return spaces_of(
        small().card, {key: tuple(tensor.shape) for key, tensor in small().base.items()}
    )


def renamed(state: State, seed: int, *, residual: bool) -> State:
    """The same function with channels in another order."""
    maps = group_element(spaces(), seed)
    if not residual:
        del maps[RES]
    return Axes(spaces().axes_by(maps))(state)


def features(state: Mapping[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = functional_call(tower(), dict(state), (images,))
    return found


def images(seed: int, count: int = IMAGES) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 3, SIZE, SIZE)))


def problem_of(experts: Mapping[str, State]) -> LearningProblem:
    base, head = wide(small().base), Head(torch.ones(1, 12), ("one",), {})

    def task_of(at: int, expert: State) -> LearningTask:
        shown = images(at)
        vector = {key: expert[key] - base[key] for key in base}
        return LearningTask(vector, head, IMAGES, lambda rows: shown[torch.from_numpy(rows)])

    tasks = {task: task_of(at, expert) for at, (task, expert) in enumerate(experts.items())}
    return LearningProblem(base, tasks, features, tower=tower())


def learned(experts: Mapping[str, State], seed: int = 0, **options: Any) -> Learning:
    recipe, problem = MergeRecipe.of("zipit", {"batch_size": 7, **options}), problem_of(experts)
    tally = Counter()
    found = MERGER.learn(problem, recipe.options, seed, tally)
    assert tally.total == MERGER.images_to_pass(problem, recipe.options)
    return found


def merged(
    experts: Mapping[str, State], given: Learned | None = None, **options: Any
) -> dict[str, State]:
    """The model of each task, in float64."""
    base = wide(small().base)
    vectors = {task: {key: one[key] - base[key] for key in base} for task, one in experts.items()}
    found = learned(experts, **options).learned if given is None else given
    checked = MergeRecipe.of("zipit", options).options
    prepared = MERGER.prepare(MergeContext(base, vectors, checked, learned=found))
    return {task: MERGER.apply_task(base, prepared, task, 1.0, checked) for task in vectors}


def close(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> None:
    for key, tensor in one.items():
        torch.testing.assert_close(tensor, two[key], rtol=0, atol=1e-9, msg=key)


@pytest.mark.parametrize("res", ["identity", "permutation", "zip"])
def test_planted_copies_make_the_first_expert(res: str) -> None:
    first = wide(small().experts["a"])
    copies = {
        task: renamed(first, seed, residual=res != "identity")
        for task, seed in (("b", 1), ("c", 2))
    }
    experts = {"a": first, **copies}
    assert max(float((copies["b"][key] - first[key]).abs().max()) for key in first) > 0.1
    for model in merged(experts, res=res).values():
        close(model, first)


def test_queries_and_keys_are_renamed_and_the_rest_zipped_as_m_and_u_say() -> None:
    experts = {task: wide(state) for task, state in small().experts.items()}
    given = learned(experts, beta=1.0, alpha=1.0).learned
    assert {name.split("/")[1] for name in given} == {*spaces().sizes} - {RES}
    groups = {name.removeprefix("groups/"): one.numpy() for name, one in given.items()}
    model, unequal = merged(experts, given)["a"], 0
    tensors = {task: {k: t.numpy() for k, t in one.items()} for task, one in experts.items()}
    for block in range(BLOCKS):
        name = f"transformer.resblocks.{block}"
        for space in ("q", "k"):
            assert all(
                sorted(groups[f"{block}.{space}/{task}"]) == [*range(16)] for task in experts
            )
        # Members of a group are averaged where it is written, and added up where it is read.
        for space, write, read, start in (
            ("mlp", "mlp.c_fc.", "mlp.c_proj.weight", 0),
            ("v", "attn.in_proj_", "attn.out_proj.weight", 32),
        ):
            names = [f"{name}.{write}{part}" for part in ("weight", "bias")]
            for group in range(spaces().sizes[f"{block}.{space}"]):
                members = [
                    (task, at)
                    for task in experts
                    for at in np.flatnonzero(groups[f"{block}.{space}/{task}"] == group)
                ]
                unequal += len(members) != len(experts)
                for key in names:
                    rows = np.mean([tensors[task][key][start + at] for task, at in members], axis=0)
                    np.testing.assert_allclose(model[key][start + group], rows, atol=1e-12)
                columns = sum(tensors[task][f"{name}.{read}"][:, at] for task, at in members)
                out = model[f"{name}.{read}"][:, group]
                np.testing.assert_allclose(out, columns / len(experts), atol=1e-12)
    assert unequal
    mean = np.mean([one["conv1.weight"] for one in tensors.values()], axis=0)
    np.testing.assert_allclose(model["conv1.weight"].numpy(), mean, atol=1e-12)


def test_values_never_leave_their_paired_heads() -> None:
    experts = {task: wide(state) for task, state in small().experts.items()}
    given = learned(experts, beta=1.0, alpha=1.0).learned
    for block in range(BLOCKS):
        for task in experts:
            heads = {
                space: given[f"groups/{block}.{space}/{task}"].view(2, 8) // 8
                for space in ("q", "k", "v")
            }
            for one in heads.values():
                assert torch.equal(one, heads["q"]) and (one == one[:, :1]).all()


def test_permutations_make_the_average_of_renamed_experts() -> None:
    experts = {task: wide(state) for task, state in small().experts.items()}
    maps = {task: group_element(spaces(), seed) for seed, task in enumerate(experts)}
    given = {
        f"groups/{space}/{task}": index.argsort()
        for task, each in maps.items()
        for space, index in each.items()
    }
    moved = [Axes(spaces().axes_by(maps[task]))(one) for task, one in experts.items()]
    wanted = {key: sum(one[key] for one in moved) / len(moved) for key in moved[0]}
    for model in merged(experts, given).values():
        close(model, wanted)


def test_nothing_zipped_leaves_every_expert_and_all_blocks_leave_one_model() -> None:
    experts = {task: wide(state) for task, state in small().experts.items()}
    assert not learned(experts, layers=0).learned
    for task, model in merged(experts, layers=0).items():
        close(model, experts[task])
    every = merged(experts)
    for options in ({}, {"layers": BLOCKS}):
        for model in merged(experts, **options).values():
            assert all(torch.equal(model[key], every["a"][key]) for key in model)


@pytest.mark.parametrize("residual", [False, True])
def test_behind_the_zip_each_task_keeps_its_own(residual: bool) -> None:
    # One front for both, in other channels, and tails of their own: nothing is lost.
    first, other = (wide(small().experts[task]) for task in ("a", "b"))
    second = {key: (other if layer_of(key) in TAIL else first)[key] for key in first}
    experts = {"a": first, "b": renamed(second, 4, residual=residual)}
    res = "permutation" if residual else "identity"
    models, shown = merged(experts, layers=1, res=res), images(9)
    for task, expert in experts.items():
        torch.testing.assert_close(
            features(models[task], shown), features(expert, shown), rtol=0, atol=1e-9
        )
    differ = {layer_of(key) for key in first if not torch.equal(models["a"][key], models["b"][key])}
    assert differ == {*TAIL}
    found = learned(experts, layers=1, res=res).learned
    assert {name.split("/")[1].split(".")[0] for name in found} == {"0", *[RES] * residual}


def test_how_many_blocks_are_held_at_once_changes_nothing() -> None:
    experts = {task: wide(small().experts[task]) for task in ("a", "b")}
    one, all_of_them = (learned(experts, res="zip", at_once=n).tensors for n in (1, 5))
    assert one.keys() == all_of_them.keys()
    assert all(torch.equal(one[name], all_of_them[name]) for name in one)


def test_images_are_drawn_from_the_seed() -> None:
    experts = {task: wide(small().experts[task]) for task in ("a", "b")}
    first, again, other = (learned(experts, seed, count=3).tensors for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_what_cannot_be_done_is_said() -> None:
    experts = {task: wide(small().experts[task]) for task in ("a", "b")}
    options = MergeRecipe.of("zipit", {}).options
    tangent = replace(problem_of(experts), tower=None)
    with pytest.raises(
        ConfigError, match="a tangent model has no layers of its own; use 'average'"
    ):
        MERGER.learn(tangent, options, 0, Counter())
    with pytest.raises(ConfigError, match="is 3, but the tower has 2 blocks"):
        learned(experts, layers=3)
    with pytest.raises(ConfigError, match=r"option 'layers'.*a whole number or all"):
        learned(experts, layers="half")
    with pytest.raises(LineageError, match=r"learned for a\+b, and a is merged"):
        merged({"a": experts["a"]}, learned(experts).learned)
    with pytest.raises(LineageError, match="learns from images"):
        merge_per_task("zipit", small().base, {"a": small().experts["a"]})
    broken = {key: tensor * 1e300 for key, tensor in experts["b"].items()}
    with pytest.raises(TrainingError, match=r"the experts of a\+b.*not finite"):
        learned({"a": experts["a"], "b": broken})


def test_rows_are_those_of_each_tasks_model() -> None:
    given = small()
    pair = {task: given.tasks[task] for task in ("a", "b")}
    experts = {task: given.experts[task] for task in pair}
    base, card = given.base, given.card
    for layers in ("all", 1):
        options = {"layers": layers, "images": "val", "count": 8}
        found = learn_coefficients("zipit", base, card, pair, experts=experts, **options)
        rows = evaluate_grid(
            base, card, given.tasks, experts=given.experts, subsets=["a+b"],
            methods={"zipit": options}, learned={"zipit": {"a+b": found}},
        )  # fmt: skip
        rows = rows[(rows["method"] == "zipit") & (rows["split"] == "test")]
        assert set(rows["task"]) == {"a", "b"} and set(rows["point"]) == {"1.00"}
        models = merge_per_task("zipit", base, experts, learned=found, **options)
        for task, model in models.items():
            encoder = ImageEncoder.from_card(card, model)
            guess = pair[task].head.logits(features_of(encoder, pair[task].test[0])).argmax(dim=1)
            row = rows[rows["task"] == task]
            assert list(row["correct"]) == [(guess.numpy() == pair[task].test[1]).sum()]
        alike = all(torch.equal(models["a"][key], models["b"][key]) for key in learned_names(base))
        assert alike == (layers == "all")
