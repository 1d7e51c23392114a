"""The merger seam, and the laws that every registered method must keep."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from taskgrid.errors import ConfigError, LineageError
from taskgrid.lattice.points import format_lambda, lambda_value
from taskgrid.merging import MergeContext, get_merger, merge, methods
from taskgrid.merging.bases.additive import Additive, weighted_sum
from taskgrid.models import ImageEncoder
from taskgrid.models.inference import features_of
from taskgrid.store.weights import State, digest_state
from taskgrid.vectors import TaskVector, subtract
from tests.unit.example_models import SIZE, tiny_clip

ADDITIVE = ("task_arithmetic", "average")
LAMBDAS = (-1.0, 0.0, 0.05, 0.3, 1.0, 2.0)


def near(base: State, seed: int, size: float = 0.02) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + size * tensor.abs().mean() * torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in base.items()
    }


@pytest.fixture
def base(tmp_path: Path) -> State:
    return tiny_clip(tmp_path).visual_state() | {"counter": torch.tensor([5])}


@pytest.fixture
def experts(base: State) -> dict[str, State]:
    return {task: near(base, seed) for seed, task in enumerate(("svhn", "dtd", "mnist", "cars"))}


def coefficient(method: str, scale: float, count: int) -> float:
    return {"task_arithmetic": scale, "average": scale / count}[method]


def brute_force(method: str, base: State, experts: dict[str, State], scale: float) -> State:
    """The formula in NumPy, in float64, from the weights themselves."""
    merged = {}
    for name, tensor in base.items():
        if not tensor.is_floating_point():
            merged[name] = tensor
            continue
        start = tensor.numpy().astype(np.float64)
        total = np.sum(
            [e[name].numpy().astype(np.float64) - start for e in experts.values()], axis=0
        )
        merged[name] = torch.from_numpy(start + coefficient(method, scale, len(experts)) * total)
    return merged


def rounding(base: State, experts: dict[str, State], weight: float) -> dict[str, torch.Tensor]:
    """What rounding each task vector to float32 can move a merge by."""
    return {
        name: 2.0**-24
        * abs(weight)
        * sum((e[name].double() - tensor.double()).abs() for e in experts.values())
        for name, tensor in base.items()
        if tensor.is_floating_point()
    }


def close(ours: State, exact: State, slack: dict[str, torch.Tensor]) -> bool:
    """Whether ``ours`` is ``exact`` rounded once, but for the slack of each weight."""
    return all(
        bool(
            (
                (ours[name].double() - exact[name].double()).abs()
                <= (2.0**-24 * exact[name].double().abs() + slack[name]) * 1.001 + 2.0**-149
            ).all()
        )
        if name in slack
        else torch.equal(ours[name], exact[name])
        for name in exact
    )


def test_the_methods_there_are() -> None:
    assert set(ADDITIVE) <= set(methods())
    assert methods() == tuple(sorted(methods()))
    for name in methods():
        merger = get_merger(name)
        assert merger.name == name
        assert isinstance(merger.needs, frozenset)


@pytest.mark.parametrize("method", ADDITIVE)
@pytest.mark.parametrize("scale", LAMBDAS)
def test_methods_against_brute_force(
    method: str, scale: float, base: State, experts: dict[str, State]
) -> None:
    slack = rounding(base, experts, coefficient(method, scale, len(experts)))
    exact = brute_force(method, base, experts, scale)
    assert close(merge(method, base, experts, scale), exact, slack)


@pytest.mark.parametrize("method", methods())
def test_law_lambda_zero_is_the_base_bit_for_bit(
    method: str, base: State, experts: dict[str, State]
) -> None:
    assert digest_state(merge(method, base, experts, 0.0)) == digest_state(base)


@pytest.mark.parametrize("method", ADDITIVE)
def test_law_one_expert_at_lambda_one_is_that_expert(method: str, base: State) -> None:
    # The expert's weights are near the base's, so their difference is exact but for sign changes.
    expert = near(base, 3)
    merged = merge(method, base, {"mnist": expert}, 1.0)
    exact = {
        name: (expert[name] - base[name]).double() == expert[name].double() - base[name].double()
        for name in base
    }
    assert all(torch.equal(merged[n][exact[n]], expert[n][exact[n]]) for n in base)
    assert np.mean([m.double().mean().item() for m in exact.values()]) > 0.9
    wide = {
        n: torch.maximum(base[n].abs(), expert[n].abs())
        for n in base
        if base[n].is_floating_point()
    }
    assert all(((merged[n] - expert[n]).abs() <= 2.0**-23 * wide[n]).all() for n in wide)


def test_law_average_of_copies_is_the_copy(base: State) -> None:
    expert = near(base, 3)
    copies = dict.fromkeys(("a", "b", "c", "d"), expert)
    assert digest_state(merge("average", base, copies, 1.0)) == digest_state(
        merge("average", base, {"a": expert}, 1.0)
    )


def test_average_at_lambda_one_is_the_mean(base: State, experts: dict[str, State]) -> None:
    mean = {
        name: torch.stack([expert[name].double() for expert in experts.values()]).mean(0)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in base.items()
    }
    assert close(merge("average", base, experts, 1.0), mean, rounding(base, experts, 1 / 4))


@pytest.mark.parametrize("method", methods())
def test_law_order_of_tasks_is_irrelevant(
    method: str, base: State, experts: dict[str, State]
) -> None:
    first = digest_state(merge(method, base, experts, 0.3))
    for order in itertools.islice(itertools.permutations(experts), 1, 24, 5):
        assert digest_state(merge(method, base, {t: experts[t] for t in order}, 0.3)) == first


@pytest.mark.parametrize("method", methods())
def test_law_keys_shapes_dtypes_and_inputs_are_kept(
    method: str, base: State, experts: dict[str, State]
) -> None:
    before = digest_state(base), [digest_state(expert) for expert in experts.values()]
    merged = merge(method, base, experts, 0.7)
    assert {n: (t.shape, t.dtype) for n, t in merged.items()} == {
        n: (t.shape, t.dtype) for n, t in base.items()
    }
    assert torch.equal(merged["counter"], base["counter"])
    assert all(torch.isfinite(tensor).all() for tensor in merged.values())
    for tensor in merged.values():
        tensor.zero_()
    assert (digest_state(base), [digest_state(expert) for expert in experts.values()]) == before


@pytest.mark.parametrize("method", methods())
def test_law_apply_writes_in_place_and_leaves_prepared_alone(
    method: str, base: State, experts: dict[str, State]
) -> None:
    merger = get_merger(method)
    options = merger.Options()
    vectors = {task: subtract(base, expert, task) for task, expert in experts.items()}
    prepared = merger.prepare(MergeContext(base, vectors, options))
    out = {name: torch.full_like(tensor, 9) for name, tensor in base.items()}
    places = {name: tensor.data_ptr() for name, tensor in out.items()}
    # Any walk over lambda, back and forth, gives what a fresh merge gives.
    for scale in (0.3, 1.0, 0.0, 0.3):
        returned = merger.apply(base, prepared, scale, options, out)
        assert returned is out
        assert {name: tensor.data_ptr() for name, tensor in out.items()} == places
        assert digest_state(out) == digest_state(merge(method, base, experts, scale))


def test_apply_drives_a_resident_encoder(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    base = clip.visual_state()
    experts = {task: near(base, seed, 0.1) for seed, task in enumerate(("a", "b"))}
    merger = get_merger("task_arithmetic")
    vectors = {task: subtract(base, expert, task) for task, expert in experts.items()}
    prepared = merger.prepare(MergeContext(base, vectors))
    resident = ImageEncoder.from_card(clip.card(), base)
    pixels = torch.randint(0, 256, (4, SIZE, SIZE, 3), dtype=torch.uint8)
    seen = []
    for scale in (0.0, 0.5, 1.0):
        merger.apply(base, prepared, scale, merger.Options(), resident.live_state())
        fresh = ImageEncoder.from_card(clip.card(), merge("task_arithmetic", base, experts, scale))
        seen.append(features_of(resident, pixels))
        assert torch.equal(seen[-1], features_of(fresh, pixels))
    assert not torch.equal(seen[0], seen[1])


def test_task_arithmetic_is_the_sum_of_task_vectors(base: State, experts: dict[str, State]) -> None:
    weights = {name: tensor for name, tensor in base.items() if tensor.is_floating_point()}
    vectors = [TaskVector.between(weights, {n: e[n] for n in weights}) for e in experts.values()]
    by_hand = TaskVector.sum(vectors).apply_to(weights, 0.3)
    merged = merge("task_arithmetic", base, experts, 0.3)
    assert close(merged, by_hand, rounding(weights, experts, 3 * 0.3))


@pytest.mark.parametrize("method", ADDITIVE)
def test_an_additive_method_is_the_sum_its_weights_say(
    method: str, base: State, experts: dict[str, State]
) -> None:
    merger = get_merger(method)
    assert isinstance(merger, Additive)
    vectors = {task: subtract(base, expert, task) for task, expert in experts.items()}
    prepared = merger.prepare(MergeContext(base, vectors))
    weights = merger.weights(sorted(experts))
    assert list(weights) == sorted(experts)
    for name, tensor in prepared.items():
        exact = sum(weights[t] * vectors[t][name].numpy().astype(np.float64) for t in weights)
        np.testing.assert_allclose(tensor.numpy(), exact, rtol=1e-13, atol=1e-18)


def test_weights_act_in_float64() -> None:
    vectors = [{"w": torch.tensor([x])} for x in (1.0, 3.0, 7.0)]
    total = weighted_sum(list(zip((0.1, 1 / 3, 2.5), vectors, strict=True)))
    assert total["w"].item() == (0.1 * 1.0 + (1 / 3) * 3.0) + 2.5 * 7.0


def test_todays_bits_of_the_additive_methods() -> None:
    # Rows in people's stores were measured on merges with these bits.
    random = np.random.default_rng(11)

    def state() -> State:
        return {
            name: torch.from_numpy(random.standard_normal(shape).astype(np.float32))
            for name, shape in (("a", (5, 7)), ("b", (11,)))
        }

    base = state()
    experts = {task: state() for task in ("x", "y", "z")}
    found = {
        method: [digest_state(merge(method, base, experts, scale)) for scale in (0.3, 1.0)]
        for method in ADDITIVE
    }
    assert found == {
        "task_arithmetic": [
            "8c11af3f1ee6ab904e25e0b91b8e805e",
            "1edbf37d9e525b274f6dc4ed75e18ba5",
        ],
        "average": ["58a78f9f0dda2ce90f5e222309f011ac", "5eaff0f1818268c9a4cd3229e742b70e"],
    }


def test_the_sum_is_not_rounded_in_between() -> None:
    # Added in float32, the small one would vanish beside the first.
    experts = {
        task: {"w": torch.tensor([x])} for task, x in (("a", 1.0), ("b", 2.0**-25), ("c", -1.0))
    }
    merged = merge("task_arithmetic", {"w": torch.tensor([0.0])}, experts, 1.0)
    assert merged["w"].item() == 2.0**-25


def test_lambdas_as_text_change_nothing(base: State, experts: dict[str, State]) -> None:
    text = format_lambda(0.1 + 0.2)
    assert digest_state(merge("average", base, experts, lambda_value(text))) == digest_state(
        merge("average", base, experts, 0.3)
    )


def test_half_precision_bases(experts: dict[str, State], base: State) -> None:
    half = {n: t.half() if t.is_floating_point() else t for n, t in base.items()}
    halves = {
        task: {n: t.half() if t.is_floating_point() else t for n, t in expert.items()}
        for task, expert in experts.items()
    }
    merged = merge("task_arithmetic", half, halves, 0.3)
    exact = brute_force("task_arithmetic", half, halves, 0.3)
    for name, tensor in exact.items():
        if tensor.is_floating_point():
            assert torch.equal(merged[name], tensor.half())


def test_mistakes_are_told_in_one_sentence(base: State, experts: dict[str, State]) -> None:
    with pytest.raises(ConfigError, match=r"'task_arithmetik'; did you mean 'task_arithmetic'"):
        merge("task_arithmetik", base, experts)
    with pytest.raises(ConfigError, match=r"'average' has no option 'density'"):
        merge("average", base, experts, density=0.2)
    with pytest.raises(ConfigError, match="at least one expert"):
        merge("average", base, {})
    broken = experts | {"dtd": {n: t for n, t in experts["dtd"].items() if n != "proj"}}
    with pytest.raises(LineageError, match=r"expert 'dtd' lacks 'proj'"):
        merge("average", base, broken)


def test_options_are_frozen_and_canonical() -> None:
    options = get_merger("average").Options()
    assert json.dumps(options.model_dump(mode="json")) == "{}"
    with pytest.raises(ValidationError):
        options.surprise = 1


def test_statistics_must_be_declared(base: State) -> None:
    context = MergeContext(base, {}, statistics={"fisher": 3})
    assert context.statistic("fisher") == 3
    with pytest.raises(LineageError, match=r"'moments'.*`needs`"):
        context.statistic("moments")
