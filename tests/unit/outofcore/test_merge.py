"""Merging out of core: the same bits as in memory, in bounded memory."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import load_file, save_file

from taskgrid.errors import ArtifactError, ConfigError, LineageError
from taskgrid.merging import MergeContext, merge
from taskgrid.merging.bases.additive import Line
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.merging.seam import Sources
from taskgrid.outofcore import windows
from taskgrid.outofcore.checked import load_weights
from taskgrid.outofcore.merge import Output, stream_merge
from taskgrid.outofcore.shards import TensorReader, TensorSpec, WeightFiles
from taskgrid.outofcore.streams import write_stream
from taskgrid.plugins.cards import statistic_card
from taskgrid.store.weights import State, digest_state, load_state, save_state
from taskgrid.vectors import TaskVector, add_scaled, subtract
from tests.unit.example_mergers import given_to, recipe_of

METHODS = ("task_arithmetic", "average")
TASKS = ("svhn", "dtd", "mnist")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LAYOUT = {
    "class_embedding": (),
    "conv1.weight": (7, 3, 2, 2),
    "empty": (0, 5),
    "ln.bias": (1,),
    "mlp.weight": (23, 11),
}
MANY = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut tensors of a few hundred elements as those of millions are cut; do not wait for disks."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(windows, "_SLICE", 8)
    monkeypatch.setattr(windows, "_LONGEST", 24)


def model(seed: int, dtypes: Sequence[torch.dtype] = (torch.float32,), size: float = 1.0) -> State:
    generator = torch.Generator().manual_seed(seed)
    state: State = {
        name: (size * torch.randn(shape, generator=generator)).to(dtypes[i % len(dtypes)])
        for i, (name, shape) in enumerate(LAYOUT.items())
    }
    return state | {"steps": torch.tensor(5), "mask": torch.tensor([[True, False, True]])}


def near(base: State, seed: int) -> State:
    return {
        name: (tensor + step.to(tensor.dtype)) if tensor.is_floating_point() else tensor
        for (name, tensor), step in zip(base.items(), model(seed, size=0.02).values(), strict=True)
    }


def stored(path: Path, state: State, shard_bytes: int | None = None) -> Path:
    """Write a state as another program would: any order, no lineage, perhaps in shards."""
    specs = [TensorSpec.of(name, tensor) for name, tensor in state.items()]
    with write_stream(path, specs, {}, shard_bytes=shard_bytes) as writer:
        for name, tensor in state.items():
            writer.write(name, 0, memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
    return path.parent if shard_bytes else path


def same(left: State, right: State) -> bool:
    return left.keys() == right.keys() and all(
        left[k].dtype == right[k].dtype
        and left[k].shape == right[k].shape
        and torch.equal(
            left[k].reshape(-1).view(torch.uint8), right[k].reshape(-1).view(torch.uint8)
        )
        for k in left
    )


@MANY
@given(data=st.data(), method=st.sampled_from(METHODS), seed=st.integers(0, 999))
def test_every_layout_gives_the_bits_of_the_merge_in_memory(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, method: str, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    dtypes = data.draw(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=4))
    base = model(seed, dtypes)
    experts = {task: near(base, seed + i + 1) for i, task in enumerate(TASKS)}
    cuts = st.one_of(st.none(), st.integers(1, 1500))
    order = data.draw(st.permutations(list(base)))
    files = {
        name: stored(
            folder / name / "model.safetensors",
            {
                key: state[key]
                for key in (order if name == "base" else data.draw(st.permutations(order)))
            },
            data.draw(cuts),
        )
        for name, state in {"base": base, **experts}.items()
    }
    points = data.draw(
        st.lists(
            st.tuples(
                st.lists(st.sampled_from(TASKS), min_size=1, unique=True),
                st.sampled_from([-0.5, 0.0, 0.3, 1.0, 2.25]),
            ),
            min_size=1,
            max_size=4,
        )
    )
    outputs = [
        Output(folder / "out" / f"{i}.safetensors", tuple(tasks), scale)
        for i, (tasks, scale) in enumerate(points)
    ]
    digests = stream_merge(
        method,
        files["base"],
        {task: files[task] for task in TASKS},
        outputs,
        shard_bytes=data.draw(cuts),
        threads=data.draw(st.integers(1, 3)),
        max_bytes=windows._SLACK + data.draw(st.integers(1200, 20_000)),
    )
    for output, digest in zip(outputs, digests, strict=True):
        found = output.path if output.path.exists() else Path(f"{output.path}.index.json")
        merged, lineage = load_weights(found)
        chosen = {task: experts[task] for task in output.tasks}
        assert same({key: merged[key] for key in base}, merge(method, base, chosen, output.scale))
        assert list(WeightFiles.open(found).specs) == order
        assert lineage["digest"] == digest == digest_state(merged)
        assert lineage["subset"] == "+".join(sorted(output.tasks))


FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)


@settings(max_examples=300)
@given(pair=hnp.arrays(np.float32, (2, 6), elements=FLOATS))
def test_float32_differences_need_no_float64(pair: np.ndarray[Any, Any]) -> None:
    before, after = torch.from_numpy(pair.copy())
    exact = (after.double() - before.double()).float()
    assert torch.equal((after - before).view(torch.int32), exact.view(torch.int32))


@MANY
@given(
    values=hnp.arrays(np.float32, (4, 37), elements=FLOATS),
    scale=st.floats(-2, 2).map(lambda x: round(x, 6)),
)
def test_values_of_any_size_give_the_same_bits(
    tmp_path: Path, values: np.ndarray[Any, Any], scale: float
) -> None:
    base, *experts = ({"w": row.clone()} for row in torch.from_numpy(values))
    found = dict(zip(TASKS, experts, strict=True))
    in_memory = merge("task_arithmetic", base, found, scale)
    assume(bool(torch.isfinite(in_memory["w"]).all()))
    files = {name: stored(tmp_path / f"{name}.st.safetensors", s) for name, s in found.items()}
    target = tmp_path / "out.safetensors"
    stream_merge(
        "task_arithmetic", stored(tmp_path / "base.safetensors", base), files, [Output(target, TASKS, scale)]
    )  # fmt: skip
    assert same(load_state(target)[0], in_memory)


@pytest.fixture
def base() -> State:
    return model(0)


@pytest.fixture
def experts(base: State) -> dict[str, State]:
    return {task: near(base, i + 1) for i, task in enumerate(TASKS)}


@pytest.fixture
def own(tmp_path: Path, base: State, experts: dict[str, State]) -> tuple[Path, dict[str, Path]]:
    """Base and experts as the workflow writes them."""
    identity = {"layout": "open_clip", "activation": "gelu", "architecture": "tiny"}
    digest = save_state(tmp_path / "base.safetensors", base, {"kind": "base", **identity})
    for task, state in experts.items():
        lineage = {"kind": "expert", "task": task, **identity, "base": digest}
        save_state(tmp_path / f"{task}.safetensors", state, lineage)
    return tmp_path / "base.safetensors", {t: tmp_path / f"{t}.safetensors" for t in experts}


def test_the_file_is_the_one_that_save_state_writes(
    tmp_path: Path, own: tuple[Path, dict[str, Path]], base: State, experts: dict[str, State]
) -> None:
    path, files = own
    target = tmp_path / "out.safetensors"
    stream_merge("average", path, files, [Output(target, TASKS, 0.5, {"mode": "standard"})])
    merged, lineage = load_state(target)
    assert lineage == {
        "kind": "merged",
        "method": "average",
        "options": '{"weights":null}',
        "subset": "dtd+mnist+svhn",
        "point": "0.50",
        "base": digest_state(base),
        "experts": json.dumps(
            {task: digest_state(experts[task]) for task in sorted(TASKS)}, separators=(",", ":")
        ),
        "layout": "open_clip",
        "activation": "gelu",
        "architecture": "tiny",
        "mode": "standard",
        "digest": digest_state(merged),
    }
    save_state(tmp_path / "twin.safetensors", merge("average", base, experts, 0.5), lineage)
    assert target.read_bytes() == (tmp_path / "twin.safetensors").read_bytes()


def test_task_vectors_serve_as_well_as_experts(
    tmp_path: Path, own: tuple[Path, dict[str, Path]], base: State, experts: dict[str, State]
) -> None:
    path, files = own
    for task in ("dtd", "svhn"):
        found, lineage = load_state(files[task])
        files[task] = tmp_path / f"{task}.tau.safetensors"
        TaskVector.between(base, found, lineage).save(files[task])
    target = tmp_path / "out.safetensors"
    stream_merge("task_arithmetic", path, files, [Output(target, TASKS, 0.3)])
    assert same(load_state(target)[0], merge("task_arithmetic", base, experts, 0.3))


def test_inputs_are_read_once_whatever_the_number_of_outputs(
    tmp_path: Path, own: tuple[Path, dict[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, files = own
    read = 0
    real = TensorReader.read_into

    def counted(self: TensorReader, buffer: memoryview, name: str, offset: int = 0) -> None:
        nonlocal read
        read += len(buffer)
        real(self, buffer, name, offset)

    monkeypatch.setattr(TensorReader, "read_into", counted)
    outputs = [
        Output(tmp_path / f"{len(tasks)}-{scale}.safetensors", tasks, scale)
        for tasks in (TASKS, TASKS[:2])
        for scale in (0.1, 0.2, 0.3)
    ]
    stream_merge("task_arithmetic", path, files, outputs)
    assert read == WeightFiles.open(path).nbytes * (1 + len(files))


class PerTensor(Line):
    """Adds the sum of the task vectors, each tensor of it centred: needs whole tensors."""

    def prepare(self, context: MergeContext) -> State:
        total = {
            key: sum(vector[key].double() for vector in context.vectors.values())
            for key in next(iter(context.vectors.values()))
        }
        assert all(total[key].shape == context.base[key].shape for key in total)
        return {key: t - t.mean() if t.numel() else t for key, t in total.items()}


def made_up(monkeypatch: pytest.MonkeyPatch, recipe: MergeRecipe) -> MergeRecipe:
    """Merge with a method that is not registered."""
    monkeypatch.setattr(MergeRecipe, "of", lambda *given: recipe)
    return recipe


def in_memory(
    recipe: MergeRecipe, base: State, experts: dict[str, State], output: Output, **more: Any
) -> State:
    """What an output holds, by the recipe's own hands."""
    vectors = {task: subtract(base, state, task) for task, state in experts.items()}
    sources = Sources(vectors.__getitem__, **more)
    prepared = recipe.prepare(base, sources, output.tasks, output.point.named)
    return recipe.apply(base, prepared, output.point.lambda_value, task=output.task)


def test_a_method_that_sees_whole_tensors_gets_them(
    tmp_path: Path,
    own: tuple[Path, dict[str, Path]],
    base: State,
    experts: dict[str, State],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = made_up(monkeypatch, recipe_of(PerTensor(), "centred", scope="tensor"))
    path, files = own
    output = Output(tmp_path / "out.safetensors", TASKS, 0.7)
    stream_merge("centred", path, files, [output])
    assert same(load_state(output.path)[0], in_memory(recipe, base, experts, output))
    with pytest.raises(ConfigError, match=r"'centred' needs 6\.3 MB .* largest tensor .* 6\.3 MB"):
        stream_merge("centred", path, files, [output], max_bytes=windows._SLACK + 9)


def test_a_method_that_sees_the_whole_model_is_refused(
    tmp_path: Path, own: tuple[Path, dict[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The whole model is what a card stands for that says nothing.
    made_up(monkeypatch, recipe_of(PerTensor()))
    path, files = own
    with pytest.raises(ConfigError, match=r"looks at all tensors.*taskgrid\.merging\.merge.* GB"):
        stream_merge("x", path, files, [Output(tmp_path / "out.safetensors", TASKS, 0.7)])
    assert not (tmp_path / "out.safetensors").exists()


def test_a_method_that_merges_logits_is_refused(
    tmp_path: Path, own: tuple[Path, dict[str, Path]]
) -> None:
    with pytest.raises(ConfigError, match=r"merges logits, not weights.*evaluate it"):
        stream_merge("logit_ensemble", *own, [Output(tmp_path / "out.safetensors", TASKS, 1.0)])


WHOLE_MERGES = {
    "element": ("tall_mask", {}, [1.0]),
    "tensor": (
        "ties",
        {"trim": "tensor", "zero_sign": "positive"},
        [0.3, {"svhn": 0.5, "dtd": -1}],
    ),
}


@pytest.mark.parametrize("scope", WHOLE_MERGES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_methods_of_every_scope_have_the_bits_of_the_merge_in_memory(
    tmp_path: Path, scope: str, dtype: torch.dtype
) -> None:
    base = model(3, [dtype])
    experts = {task: near(base, i + 7) for i, task in enumerate(TASKS)}
    files = {n: stored(tmp_path / f"{n}.st.safetensors", s) for n, s in experts.items()}
    method, options, points = WHOLE_MERGES[scope]
    recipe = MergeRecipe.of(method, options)
    assert recipe.scope == scope
    outputs = [
        Output(
            tmp_path / f"{i}-{j}.safetensors",
            tuple(point) if isinstance(point, dict) else TASKS,
            point,
            task=task if recipe.per_task else None,
        )
        for i, point in enumerate(points)
        for j, task in enumerate(TASKS if recipe.per_task else TASKS[:1])
    ]
    stream_merge(method, stored(tmp_path / "base.safetensors", base), files, outputs, **options)
    for output in outputs:
        merged, lineage = load_state(output.path)
        assert same({k: merged[k] for k in base}, in_memory(recipe, base, experts, output))
        assert lineage.get("task") == output.task
    found = [load_state(output.path)[1]["point"] for output in outputs]
    assert found == (["1.00"] * 3 if recipe.per_task else ["0.30", "dtd:-1.00,svhn:0.50"])


@pytest.mark.parametrize(
    ("method", "output", "words"),
    [
        ("tall_mask", (TASKS, 1.0), "gives a model for each of .* none is named"),
        ("tall_mask", (TASKS, 1.0, "cars"), "'cars' is not one of them"),
        ("tall_mask", (TASKS, 0.5, "dtd"), "has no coefficient; its only point is 1.00"),
        ("average", (TASKS, 1.0, "dtd"), "gives a single model; leave out the task 'dtd'"),
        (
            "average",
            (TASKS, {"dtd": 1.0, "svhn": 2.0}),
            "given for dtd, svhn, but dtd, mnist, svhn are",
        ),
        (
            "average",
            (TASKS, {"dtd": 1.0, "svhn": 1.0}),
            "given for dtd, svhn, but dtd, mnist, svhn are",
        ),
    ],
)
def test_outputs_that_a_method_does_not_have_are_refused(
    tmp_path: Path, own: tuple[Path, dict[str, Path]], method: str, output: Any, words: str
) -> None:
    tasks, scale, *task = output
    asked = Output(tmp_path / "x.safetensors", tasks, scale, task=task[0] if task else None)
    with pytest.raises(ConfigError, match=words):
        stream_merge(method, *own, [asked])
    assert not asked.path.exists()


class Weighted(Line):
    """Weighs every entry by a statistic of its task over a number that all entries share."""

    def prepare(self, context: MergeContext) -> State:
        total: State = {}
        for task, vector in context.vectors.items():
            said, every = context.statistic("mass", task), context.statistic("scale")
            for key, delta in vector.items():
                factor = said[key].double() * said["count"] * every[f"{key}.gain"].sum()
                learned = context.learned_coefficient(task, key)
                total[key] = total.get(key, 0) + factor * delta * learned
        found = context.learned or {}
        return {key: move + found[key] if key in found else move for key, move in total.items()}


@pytest.mark.parametrize(
    ("method", "options", "scope"),
    [
        ("fisher", {}, "element"),
        ("regmean", {}, "tensor"),
        ("lot", {}, "tensor"),
        ("ubgm", {"delta": 1e-3}, "element"),
    ],
)
def test_statistics_in_files_give_the_merge_in_memory(
    tmp_path: Path,
    own: tuple[Path, dict[str, Path]],
    base: State,
    experts: dict[str, State],
    method: str,
    options: dict[str, Any],
    scope: str,
) -> None:
    recipe = MergeRecipe.of(method, options)
    assert recipe.scope == scope
    known, files = given_to(recipe, base, TASKS)["statistics"], {}
    for name, own_states in known.items():
        of_base = statistic_card(name).per == "base"
        found = {}
        for task, state in ({"": own_states} if of_base else own_states).items():
            found[task] = tmp_path / f"{name}-{task}.safetensors"
            save_state(found[task], state, {"kind": "statistic"})
        files[name] = found[""] if of_base else found
    for scale in (0.7, {"svhn": 0.5, "dtd": -0.05, "mnist": 0.3}):
        output = Output(tmp_path / "out.safetensors", TASKS, scale)
        stream_merge(method, *own, [output], statistics=files, **options)
        in_memory = merge(method, base, experts, scale, statistics=known, **options)
        assert same(load_state(output.path)[0], in_memory)


class Statistic(NamedTuple):
    per: str


@pytest.mark.parametrize("scope", ["element", "tensor"])
def test_statistics_and_learned_coefficients_pass_by_with_their_tensors(
    tmp_path: Path,
    own: tuple[Path, dict[str, Path]],
    base: State,
    experts: dict[str, State],
    monkeypatch: pytest.MonkeyPatch,
    scope: str,
) -> None:
    card = {"scope": scope, "needs": ("mass", "scale"), "learned": True}
    recipe = made_up(monkeypatch, recipe_of(Weighted(), "weighted", **card))
    kinds = {"mass": Statistic("task"), "scale": Statistic("base")}
    monkeypatch.setattr("taskgrid.merging.recipe.statistic_card", kinds.__getitem__)
    weights = [key for key, tensor in base.items() if tensor.is_floating_point()]
    random = torch.Generator().manual_seed(5)
    known: dict[tuple[str, str], State] = {
        ("mass", task): {key: torch.rand(base[key].shape, generator=random) for key in weights}
        | {"count": torch.tensor(3.0 + i)}
        for i, task in enumerate(TASKS)
    }
    known["scale", ""] = {f"{key}.gain": torch.rand(4, generator=random) for key in weights}
    paths = {place: tmp_path / f"{'-'.join(place)}.safetensors" for place in known}
    for place, state in known.items():
        save_state(paths[place], state, {"kind": "statistic"})
    files = {"mass": {task: paths["mass", task] for task in TASKS}, "scale": paths["scale", ""]}

    def learned(tasks: tuple[str, ...]) -> dict[str, torch.Tensor]:
        per_tensor = torch.arange(1.0, len(weights) + 1)
        coefficients = {
            task: per_tensor / len(tasks) if i else torch.tensor(0.5)
            for i, task in enumerate(tasks)
        }
        return coefficients | {key: torch.sin(base[key].double()) for key in weights[::2]}

    outputs = [
        Output(tmp_path / f"{i}.safetensors", tasks, scale)
        for i, (tasks, scale) in enumerate([(TASKS, 0.3), (TASKS[:2], {"svhn": 2.0, "dtd": -0.5})])
    ]
    path, experts_files = own
    given: dict[str, Any] = {"statistics": files, "learned": learned}
    stream_merge("weighted", path, experts_files, outputs, **given)
    for output in outputs:
        expected = in_memory(
            recipe, base, experts, output,
            statistic=lambda name, task: known[name, task], learned=learned,
        )  # fmt: skip
        assert same(load_state(output.path)[0], expected)
    with pytest.raises(ConfigError, match=r"raise it to"):
        needed = windows._SLACK + 2 * 4 * 4 * len(weights)
        stream_merge("weighted", path, experts_files, outputs, **given, max_bytes=needed)
    with pytest.raises(
        ConfigError, match=r"needs the statistic 'mass' of task 'dtd'; give its file"
    ):
        stream_merge("weighted", path, experts_files, outputs, statistics={}, learned=learned)
    swapped = {"mass": paths["scale", ""], "scale": files["mass"]}
    for wrong, words in ((swapped, "'mass' of task 'dtd'"), (files | {"scale": {}}, "of the base")):
        with pytest.raises(ConfigError, match=f"needs the statistic .*{words}; give its file"):
            stream_merge("weighted", path, experts_files, outputs, statistics=wrong)
    with pytest.raises(LineageError, match="rule `learn`"):
        stream_merge("weighted", path, experts_files, outputs, statistics=files)
    save_state(paths["mass", "dtd"], known["mass", "dtd"], {"kind": "statistic", "base": "f" * 32})
    with pytest.raises(LineageError, match="'mass' of task 'dtd' comes from another base weights"):
        stream_merge("weighted", path, experts_files, outputs, **given)


def test_a_float64_base_is_not_changed_by_a_merge() -> None:
    base = torch.ones(3, dtype=torch.float64)
    assert add_scaled(base, torch.ones(3), 2.0).tolist() == [3, 3, 3]
    assert base.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ln.bias": None}, "expert 'dtd' lacks 'ln.bias'"),
        ({"more": torch.ones(1)}, "expert 'dtd' has 'more', which the base lacks"),
        ({"ln.bias": torch.ones(2)}, r"'ln.bias' has shape \(1,\) in the base, but \(2,\) in expert 'dtd'"),
        ({"ln.bias": torch.ones(1).half()}, "'ln.bias' is F16 in expert 'dtd', but should be F32"),
        ({"steps": torch.tensor(6)}, "expert 'dtd' changes 'steps'"),
        ({"mlp.weight": torch.full((23, 11), torch.nan)}, "not finite in 'mlp.weight'"),
        ({"ln.bias": torch.tensor([torch.inf])}, "not finite in 'ln.bias'"),
    ],
)  # fmt: skip
def test_an_expert_that_does_not_fit_is_named(
    tmp_path: Path, base: State, change: dict[str, torch.Tensor | None], words: str
) -> None:
    expert = {k: v for k, v in {**near(base, 1), **change}.items() if v is not None}
    files = [stored(tmp_path / f"{i}.safetensors", s) for i, s in enumerate((base, expert))]
    output = Output(tmp_path / "out" / "x.safetensors", ("dtd",), 1.0)
    with pytest.raises(LineageError, match=words):
        stream_merge("average", files[0], {"dtd": files[1]}, [output])
    assert not any(output.path.parent.iterdir()) if output.path.parent.exists() else True


def test_a_sum_that_overflows_float32_is_no_alarm(tmp_path: Path) -> None:
    base, expert = {"w": torch.zeros(6)}, {"w": torch.full((6,), 2.0**127)}
    files = [stored(tmp_path / f"{i}.safetensors", s) for i, s in enumerate((base, expert))]
    target = tmp_path / "out.safetensors"
    stream_merge("average", files[0], {"dtd": files[1]}, [Output(target, ("dtd",), 1.0)])
    assert same(load_state(target)[0], expert)


def test_experts_of_another_base_are_refused(
    tmp_path: Path, own: tuple[Path, dict[str, Path]]
) -> None:
    path, files = own
    state, lineage = load_state(files["dtd"])
    save_state(files["dtd"], state, {**lineage, "base": "f" * 32})
    with pytest.raises(
        LineageError, match="expert of task 'dtd' comes from another base weights: fff"
    ):
        stream_merge("average", path, files, [Output(tmp_path / "x.safetensors", TASKS, 1.0)])


@pytest.mark.parametrize(
    ("outputs", "options", "words"),
    [
        ([("x", ("dtd", "cars"), 1.0)], {}, "needs an expert of task 'cars'; there are: svhn, dtd"),
        ([("x", (), 1.0)], {}, "without experts"),
        ([("x", TASKS, 1.0), ("x", TASKS, 0.5)], {}, "asked for 2 times"),
        ([("x", TASKS, 1.0), ("there/../x", TASKS, 0.5)], {}, "asked for 2 times"),
        ([], {}, "no outputs are asked for"),
        (
            [("folder", TASKS, 1.0)],
            {},
            r"folder\.safetensors is a folder; name a \.safetensors file",
        ),
        ([("x", ("dtd", "dtd"), 1.0)], {}, "'dtd' occurs twice"),
        ([("x", TASKS, float("nan"))], {}, "not a finite number"),
        ([("x", TASKS, 1.0)], {"density": 3}, "has no option 'density'"),
        (
            [("x", TASKS, 1.0)],
            {"max_bytes": 1000},
            r"needs 6\.3 MB .* 3 experts, but max_bytes allows 0\.0 MB; raise it to \d{7}$",
        ),
    ],
)
def test_what_does_not_make_sense_is_refused(
    tmp_path: Path,
    own: tuple[Path, dict[str, Path]],
    outputs: list[tuple[str, tuple[str, ...], float]],
    options: dict[str, Any],
    words: str,
) -> None:
    path, files = own
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "there").mkdir()
    asked = [Output(tmp_path / f"{name}.safetensors", tasks, s) for name, tasks, s in outputs]
    with pytest.raises(ConfigError, match=words):
        stream_merge("task_arithmetic", path, files, asked, **options)
    assert not (tmp_path / "x.safetensors").exists()


def test_a_bound_has_the_name_and_the_unit_that_its_user_knows(
    tmp_path: Path, own: tuple[Path, dict[str, Path]]
) -> None:
    path, files = own
    outputs = [Output(tmp_path / "x.safetensors", TASKS, 1.0)]
    with pytest.raises(windows.BoundError) as caught:
        stream_merge("average", path, files, outputs, max_bytes=1000)
    enough = int(str(caught.value).rpartition(" ")[2])
    said = str(caught.value.called("export.max_mb", 1 << 20))
    assert "but export.max_mb allows 0.0 MB; raise it to 7" in said and "max_bytes" not in said
    stream_merge("average", path, files, outputs, max_bytes=enough)
    with pytest.raises(windows.BoundError):
        stream_merge("average", path, files, outputs, max_bytes=enough - 1)


def test_a_path_may_be_text(tmp_path: Path, own: tuple[Path, dict[str, Path]]) -> None:
    path, files = own
    target = str(tmp_path / "x.safetensors")
    stream_merge("average", str(path), files, [Output(target, TASKS, 1.0)])  # type: ignore[arg-type]
    assert load_state(target)


@pytest.mark.parametrize("folders", ["{}.safetensors", "{}/model.safetensors"])
def test_outputs_that_do_not_fit_on_the_disk_are_not_begun(
    tmp_path: Path,
    own: tuple[Path, dict[str, Path]],
    base: State,
    monkeypatch: pytest.MonkeyPatch,
    folders: str,
) -> None:
    path, files = own
    each = sum(tensor.nbytes for tensor in base.values())
    outputs = [
        Output(tmp_path / "out" / folders.format(scale), TASKS, scale) for scale in (0.3, 0.5, 0.7)
    ]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=3 * each - 1))
    with pytest.raises(ArtifactError, match="cannot write to the disk of"):
        stream_merge("average", path, files, outputs)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=3 * each))
    stream_merge("average", path, files, outputs)


@pytest.fixture
def few_files() -> Iterator[None]:
    """Forty more files may be opened."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as held:
        # The next one has the lowest free number, so there is no gap below the last.
        taken = [held.enter_context(Path("/dev/null").open()) for _ in range(100)]
        last = max(stream.fileno() for stream in taken)
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, before[1]))
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        for stream in sorted(taken, key=lambda stream: stream.fileno())[-40:]:
            stream.close()
        yield


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
@pytest.mark.usefixtures("few_files")
def test_many_shards_of_many_outputs_need_few_open_files(
    tmp_path: Path, base: State, experts: dict[str, State]
) -> None:
    base = {f"{i:02d}.{key}": tensor for i in range(8) for key, tensor in base.items()}
    expert = {f"{i:02d}.{key}": t for i in range(8) for key, t in experts["dtd"].items()}
    path, file = (
        stored(tmp_path / "b.safetensors", base),
        stored(tmp_path / "e.safetensors", expert),
    )

    def outputs(count: int) -> list[Output]:
        return [
            Output(tmp_path / "out" / str(i) / "model.safetensors", ("dtd",), i / 100)
            for i in range(count)
        ]

    stream_merge("average", path, {"dtd": file}, outputs(12), shard_bytes=100)
    for output in outputs(12):
        assert len(list(output.path.parent.glob("*.safetensors"))) > 30
        merged, _ = load_weights(output.path.parent)
        in_memory = merge("average", base, {"dtd": expert}, output.scale)
        assert same({key: merged[key] for key in base}, in_memory)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(ArtifactError, match=r"too many files are open: write fewer.*ulimit -n"):
        stream_merge("average", path, {"dtd": file}, outputs(60), shard_bytes=100)
    assert not [*(tmp_path / "out").rglob("*.*")]


def test_a_full_disk_leaves_no_output(
    tmp_path: Path, own: tuple[Path, dict[str, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, files = own
    real, calls = os.pwrite, 0

    def filling(*arguments: Any) -> int:
        nonlocal calls
        calls += 1
        if calls > 40:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, "pwrite", filling)
    outputs = [Output(tmp_path / "out" / f"{i}.safetensors", TASKS, i / 10) for i in range(5)]
    with pytest.raises(ArtifactError, match="the disk is full"):
        stream_merge("task_arithmetic", path, files, outputs)
    assert list((tmp_path / "out").iterdir()) == []


MEASURED = """
import json, re, sys
from pathlib import Path
from taskgrid.outofcore.merge import Output, stream_merge

def memory(field):
    return int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10

folder, experts, outputs, bound = Path(sys.argv[1]), *map(int, sys.argv[2:])
names = [f"t{i:02d}" for i in range(experts)]

def run(base, expert, label, count):
    points = [Output(folder / f"{label}-{i}.safetensors", tuple(names), i / 10) for i in range(count)]
    stream_merge("task_arithmetic", folder / base, dict.fromkeys(names, folder / expert), points,
                 max_bytes=bound)

run("small-base.safetensors", "small.safetensors", "warm", 1)
before = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
run("base.safetensors", "expert.safetensors", f"out-{experts}", outputs)
print(json.dumps({"grown": memory("VmHWM") - before}))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_memory_stays_below_the_bound(tmp_path: Path) -> None:
    size, bound = 16 << 20, 24 << 20
    generator = torch.Generator().manual_seed(0)
    whole = {"a": torch.randn(size - 999, generator=generator), "b": torch.randn(999)}
    save_file(whole, tmp_path / "base.safetensors")
    save_file({k: v + 0.01 for k, v in whole.items()}, tmp_path / "expert.safetensors")
    save_file({"a": torch.zeros(99)}, tmp_path / "small-base.safetensors")
    save_file({"a": torch.ones(99)}, tmp_path / "small.safetensors")
    for experts, outputs in ((2, 2), (16, 1)):
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, str(tmp_path), str(experts), str(outputs), str(bound)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        grown = json.loads(done.stdout)["grown"]
        # A single tensor is 64 MB, all inputs are up to 1.1 GB.
        assert grown < bound, f"{grown / 2**20:.1f} MiB with {experts} experts"
    found = load_file(tmp_path / "out-2-1.safetensors")
    expert = load_file(tmp_path / "expert.safetensors")
    tau = (expert["a"] - whole["a"]).double()
    assert torch.equal(found["a"], (whole["a"].double() + 0.1 * (tau + tau)).float())
