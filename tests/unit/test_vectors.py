"""Laws of task vectors, against NumPy in float64."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from taskgrid.errors import ArtifactError, LineageError
from taskgrid.store.weights import State, digest_state, save_state
from taskgrid.vectors import TaskVector, add_scaled

SHAPES = {
    "conv1.weight": (2, 3),
    "transformer.resblocks.0.ln_1.bias": (4,),
    "transformer.resblocks.1.mlp.c_fc.weight": (3, 2),
    "proj": (5,),
}
ULP = 2.0**-23

finite = st.floats(-4, 4, width=32)
factors = st.floats(-3, 3)


def states(elements: st.SearchStrategy[float] = finite) -> st.SearchStrategy[State]:
    sizes = [math.prod(shape) for shape in SHAPES.values()]

    def cut(values: np.ndarray) -> State:
        parts = torch.from_numpy(values).split(sizes)
        pairs = zip(SHAPES.items(), parts, strict=True)
        return {name: part.reshape(shape).clone() for (name, shape), part in pairs}

    return hnp.arrays(np.float32, sum(sizes), elements=elements).map(cut)


def vectors() -> st.SearchStrategy[TaskVector]:
    return states().map(lambda deltas: TaskVector(deltas, {"base": "b"}))


def random_state(seed: int, scale: float = 1.0) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def flat(state: State) -> np.ndarray:
    return np.concatenate([state[name].numpy().astype(np.float64).ravel() for name in SHAPES])


def bits(state: State) -> str:
    return digest_state(state)


@settings(max_examples=40)
@given(states(), states())
def test_lambda_zero_gives_the_base_bit_for_bit(base: State, expert: State) -> None:
    merged = TaskVector.between(base, expert).apply_to(base, 0.0)
    assert bits(merged) == bits(base)


def test_lambda_zero_keeps_negative_zero() -> None:
    base = {"w": torch.tensor([-0.0, 1.0])}
    vector = TaskVector.between(base, {"w": torch.tensor([1.0, 1.0])})
    assert bits(vector.apply_to(base, 0.0)) == bits(base)


@settings(max_examples=40)
@given(states(), states())
def test_lambda_one_gives_the_expert_within_the_rounding_of_the_difference(
    base: State, expert: State
) -> None:
    merged = TaskVector.between(base, expert).apply_to(base, 1.0)
    delta = flat(expert) - flat(base)
    exact = (delta.astype(np.float32) == delta) & (flat(base) + delta == flat(expert))
    error = np.abs(flat(merged) - flat(expert))
    assert np.all(error[exact] == 0)
    # Half a unit in the last place of the difference, and half a one of the result.
    assert np.all(error <= ULP / 2 * (np.abs(delta) + np.abs(flat(expert))) + 2.0**-149)


@settings(max_examples=40)
@given(states(), states(st.floats(-(2.0**-6), 2.0**-6, width=32)))
def test_lambda_one_gives_a_nearby_expert_bit_for_bit(base: State, moves: State) -> None:
    # Weights that move by a few percent: Sterbenz's lemma makes the difference exact.
    base = {name: 1 + tensor.abs() for name, tensor in base.items()}
    expert = {name: base[name] * (1 + moves[name]) for name in base}
    merged = TaskVector.between(base, expert).apply_to(base, 1.0)
    assert bits(merged) == bits(expert)


@settings(max_examples=40)
@given(states(), states(), factors)
def test_affine_in_lambda(base: State, expert: State, scale: float) -> None:
    vector = TaskVector.between(base, expert)
    expected = flat(base) + scale * flat(vector.deltas)
    ours = flat(vector.apply_to(base, scale))
    assert np.all(np.abs(ours - expected) <= ULP / 2 * np.abs(expected) + 2.0**-149)


@settings(max_examples=30)
@given(vectors(), vectors(), vectors(), factors, factors)
def test_vector_space_laws(a: TaskVector, b: TaskVector, c: TaskVector, x: float, y: float) -> None:
    def same(left: TaskVector, right: TaskVector, bound: float = 0.0) -> bool:
        return bool(np.all(np.abs(flat(left.deltas) - flat(right.deltas)) <= bound))

    zero = a - a
    assert flat(zero.deltas).any() == np.False_
    assert same(a + b, b + a)
    assert same(a + zero, a)
    assert same(a + (-a), zero)
    negative = -a
    assert same(-negative, a)
    assert same(a - b, a + (-b))
    assert same(1 * a, a)
    assert same(-1 * a, -a)
    assert same(x * a, a * x)
    size = 4 * (abs(x) + abs(y) + 3) ** 2
    assert same((a + b) + c, a + (b + c), 4 * ULP * size)
    assert same(x * (a + b), x * a + x * b, 4 * ULP * size)
    assert same((x + y) * a, x * a + y * a, 4 * ULP * size)
    assert same(x * (y * a), (x * y) * a, 4 * ULP * size)


@settings(max_examples=40)
@given(vectors(), st.floats(0.25, 4))
def test_division(a: TaskVector, x: float) -> None:
    expected = (flat(a.deltas) / x).astype(np.float32)
    assert np.array_equal(flat((a / x).deltas), expected.astype(np.float64))


@settings(max_examples=40)
@given(vectors(), factors)
def test_multiplication_is_that_of_float64_rounded_once(a: TaskVector, x: float) -> None:
    expected = (flat(a.deltas) * x).astype(np.float32)
    assert np.array_equal(flat((x * a).deltas), expected.astype(np.float64))


def test_builtin_sum_and_other_operands() -> None:
    parts = [TaskVector(random_state(seed)) for seed in range(3)]
    by_hand = parts[0] + parts[1] + parts[2]
    assert np.array_equal(flat(sum(parts).deltas), flat(by_hand.deltas))
    for wrong in (lambda: parts[0] + 1, lambda: 1 + parts[0], lambda: parts[0] * parts[1]):
        with pytest.raises(TypeError):
            wrong()


@settings(max_examples=40)
@given(st.lists(vectors(), min_size=1, max_size=5), st.randoms())
def test_sum_does_not_depend_on_order(parts: list[TaskVector], random: object) -> None:
    shuffled = list(parts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    total = TaskVector.sum(parts)
    assert bits(total.deltas) == bits(TaskVector.sum(shuffled).deltas)
    expected = np.sum([flat(part.deltas) for part in parts], axis=0)
    assert np.all(np.abs(flat(total.deltas) - expected) <= ULP / 2 * np.abs(expected) + 1e-15)


def test_sum_is_rounded_once() -> None:
    # One by one in float32, each of the small ones would vanish.
    parts = [
        TaskVector({"w": torch.tensor([x])}) for x in (1.0, 2.0**-25, 2.0**-25, 2.0**-25, 2.0**-25)
    ]
    assert TaskVector.sum(parts).deltas["w"].item() == 1.0 + 2.0**-23
    with pytest.raises(LineageError, match="at least one"):
        TaskVector.sum([])


@settings(max_examples=40)
@given(vectors(), vectors())
def test_norm_dot_and_cosine_against_numpy(a: TaskVector, b: TaskVector) -> None:
    x, y = flat(a.deltas), flat(b.deltas)
    size = float(np.abs(x) @ np.abs(y))
    assert a.dot(b) == pytest.approx(float(x @ y), rel=1e-12, abs=1e-12 * size + 1e-300)
    assert a.norm() == pytest.approx(float(np.linalg.norm(x)), rel=1e-12)
    if a.norm() * b.norm() > 0:
        expected = float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))
        assert a.cosine(b) == pytest.approx(expected, abs=1e-12)
        assert a.cosine(a) == pytest.approx(1.0, abs=1e-15)
        assert -1 <= a.cosine(-a) <= 1
    else:
        assert math.isnan(a.cosine(b))


def test_dot_is_accumulated_in_float64() -> None:
    # In float32 the ones would be lost beside 2^24.
    values = torch.cat([torch.tensor([2.0**12]), torch.ones(1000)])
    vector = TaskVector({"w": values})
    assert vector.dot(vector) == 2.0**24 + 1000


def test_half_precision_bases_are_rounded_once() -> None:
    base = {"w": torch.linspace(-1, 1, 101).to(torch.float16)}
    expert = {"w": (base["w"].float() * 1.01).to(torch.float16)}
    vector = TaskVector.between(base, expert)
    assert vector.deltas["w"].dtype == torch.float32
    assert bits(vector.apply_to(base)) == bits(expert)
    expected = (base["w"].double() + 0.3 * vector.deltas["w"].double()).to(torch.float16)
    assert torch.equal(vector.apply_to(base, 0.3)["w"], expected)


def test_tensors_that_are_not_floating_must_agree_and_are_kept() -> None:
    base = {"w": torch.ones(2), "steps": torch.tensor([3])}
    expert = {"w": torch.zeros(2), "steps": torch.tensor([3])}
    vector = TaskVector.between(base, expert)
    assert set(vector.deltas) == {"w"}
    assert torch.equal(vector.apply_to(base, 0.5)["steps"], base["steps"])
    with pytest.raises(LineageError, match=r"'steps'.*\[3\] in the base, \[4\] in the expert"):
        TaskVector.between(base, expert | {"steps": torch.tensor([4])})


def test_nothing_shares_memory_with_the_base() -> None:
    base = random_state(0)
    before = bits(base)
    for scale in (0.0, 1.0):
        merged = TaskVector.between(base, random_state(1)).apply_to(base, scale)
        for tensor in merged.values():
            tensor.fill_(7)
    assert bits(base) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("proj"), r"lacks 'proj'"),
        (lambda s: s.update(more=torch.ones(1)), r"has 'more'"),
        (lambda s: s.update(proj=torch.ones(6)), r"'proj' has shape \(5,\).*\(6,\)"),
        (lambda s: s.update(proj=s["proj"].double()), r"'proj' is torch.float32.*torch.float64"),
        (lambda s: s["proj"].__setitem__(0, math.nan), r"not finite in 'proj'"),
    ],
)
def test_experts_that_do_not_fit_are_refused(change: object, words: str) -> None:
    base, expert = random_state(0), random_state(1)
    change(expert)  # type: ignore[operator]
    with pytest.raises(LineageError, match=words):
        TaskVector.between(base, expert, {"task": "mnist"})


def test_vectors_of_other_bases_are_refused() -> None:
    base, other = random_state(0), random_state(9)
    a = TaskVector.between(base, random_state(1), {"task": "mnist"})
    b = TaskVector.between(other, random_state(2), {"task": "svhn"})
    words = f"base: {digest_state(base)} .mnist. and {digest_state(other)} .svhn."
    for operation in (
        lambda: a + b,
        lambda: a - b,
        lambda: a.dot(b),
        lambda: a.cosine(b),
        lambda: TaskVector.sum([a, b]),
        lambda: sum([a, b]),
    ):
        with pytest.raises(LineageError, match=words):
            operation()
    with pytest.raises(LineageError, match=f"{digest_state(base)}.*{digest_state(other)}"):
        a.apply_to(other)
    quick = TaskVector(a.deltas, a.lineage | {"activation": "quick_gelu"})
    plain = TaskVector(a.deltas, a.lineage | {"activation": "gelu"})
    with pytest.raises(LineageError, match=r"activation: quick_gelu .* gelu"):
        quick + plain


def test_an_expert_of_another_base_is_refused() -> None:
    base = random_state(0)
    with pytest.raises(LineageError, match=f"base ffff.*{digest_state(base)}"):
        TaskVector.between(base, random_state(1), {"base": "ffff"})


def test_vectors_of_other_shapes_are_refused() -> None:
    a = TaskVector(random_state(0))
    for key, tensor in (("proj", torch.ones(6)), ("extra", torch.ones(1))):
        with pytest.raises(LineageError, match=f"'{key}'"):
            a + TaskVector(a.deltas | {key: tensor})
        with pytest.raises(LineageError, match=f"'{key}'"):
            a.apply_to(a.deltas | {key: tensor})


def test_lineage_follows_the_arithmetic(tmp_path: Path) -> None:
    base = random_state(0)
    shared = {"activation": "gelu", "mode": "standard"}
    a = TaskVector.between(base, random_state(1), shared | {"task": "mnist", "digest": "e1"})
    b = TaskVector.between(base, random_state(2), shared | {"task": "svhn", "digest": "e2"})
    assert a.lineage["expert"] == "e1"
    assert a.lineage["kind"] == "taskvector"
    assert a.lineage["base"] == digest_state(base)
    both = (a + b).lineage
    assert both == {**shared, "base": digest_state(base), "kind": "taskvector"}
    # A scaled vector is no longer the difference of that expert.
    assert "expert" not in (0.5 * a).lineage
    assert (-a).lineage["task"] == "mnist"


def test_file_round_trip(tmp_path: Path) -> None:
    base = random_state(0)
    vector = TaskVector.between(base, random_state(1), {"task": "mnist"})
    content = vector.save(tmp_path / "v.safetensors")
    again = TaskVector.load(tmp_path / "v.safetensors")
    assert content == vector.digest() == again.digest()
    assert again.lineage == {**vector.lineage, "digest": content}
    save_state(tmp_path / "x.safetensors", base, {"kind": "expert"})
    with pytest.raises(ArtifactError, match="'expert', not a task vector"):
        TaskVector.load(tmp_path / "x.safetensors")


def test_norm_table_against_numpy() -> None:
    base, expert = random_state(0), random_state(1)
    table = TaskVector.between(base, expert).norm_table(base)
    assert [row.layer for row in table] == ["embedding", "block 0", "block 1", "output", "total"]
    delta = {name: (expert[name] - base[name]).numpy().astype(np.float64) for name in base}
    block = table[2]
    name = "transformer.resblocks.1.mlp.c_fc.weight"
    assert block.size == 6
    assert block.norm == pytest.approx(np.linalg.norm(delta[name]))
    assert block.base_norm == pytest.approx(np.linalg.norm(base[name].numpy().astype(np.float64)))
    assert block.relative == pytest.approx(block.norm / block.base_norm)
    total = np.sqrt(sum((d**2).sum() for d in delta.values()))
    assert table[-1].norm == pytest.approx(total)
    assert table[-1].size == 21


def test_add_scaled_writes_in_place() -> None:
    base, delta = torch.randn(5), torch.randn(5)
    out = torch.empty(5)
    returned = add_scaled(base, delta, 0.3, out)
    assert returned.data_ptr() == out.data_ptr()
    assert torch.equal(out, (base.double() + 0.3 * delta.double()).float())
    add_scaled(base, delta, 0.0, out)
    assert torch.equal(out, base)
