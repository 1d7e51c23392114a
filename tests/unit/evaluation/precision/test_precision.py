from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taskgrid.config.experiment import Experiment
from taskgrid.config.root import Config
from taskgrid.errors import ArtifactError, ConfigError, LineageError
from taskgrid.evaluation import evaluate_grid
from taskgrid.evaluation.engine.engine import Engine
from taskgrid.evaluation.engine.material import LabelledImages
from taskgrid.evaluation.plan.planner import Plan, make_plan
from taskgrid.evaluation.plan.setting import Request
from taskgrid.evaluation.precision.proof import Digests, Proof, admit
from taskgrid.evaluation.precision.proving import (
    comparisons,
    drawn,
    few_images,
    passes,
    prove_with_engines,
)
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.inference import features_of
from taskgrid.store.outcome import Outcome
from tests.unit.exact_comparison import brute_force
from tests.unit.example_grid import World, held, memory, world
from tests.unit.example_plans import method

# --- proofs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> World:
    return world(val=40)


def plan_of(small: World, scale: str = "0.30") -> Plan:
    setting = held(small).setting("m", "standard", 0, "bf16", "plain")
    return make_plan(setting, method("task_arithmetic"), ["+".join(small.tasks)], [scale])


def ready() -> MergeRecipe:
    return MergeRecipe.of("task_arithmetic", {})


def prove(small: World, **options: Any) -> Proof:
    chosen: dict[str, Any] = {"images": 30, "tolerance": 0.5, "batch_size": 16, **options}
    return prove_with_engines(plan_of(small), memory(small), ready(), **chosen)


def test_what_is_proven_is_what_the_engine_measures(small: World) -> None:
    proof = prove(small, images=1000)
    assert [(one.kind, one.task) for one in proof.comparisons] == [
        (kind, task) for kind in ("base", "experts", "merge") for task in "abc"
    ]
    merged = {key: t.double() for key, t in small.base.items()}
    for state in small.experts.values():
        merged = {
            k: t + 0.3 * (state[k].double() - small.base[k].double()) for k, t in merged.items()
        }
    states = {
        "base": dict.fromkeys("abc", small.base),
        "experts": small.experts,
        "merge": {task: {k: t.float() for k, t in merged.items()} for task in "abc"},
    }
    for one in proof.comparisons:
        encoder = ImageEncoder.from_card(small.card, states[one.kind][one.task]).eval()
        head = small.tasks[one.task].head
        pixels, labels = small.tasks[one.task].val
        logits = []
        for precision in ("fp32", "bf16"):
            features = features_of(encoder, pixels, batch_size=16, precision=precision).double()
            unit = features / features.norm(dim=1, keepdim=True)
            logits.append((unit @ head.weight.double().T).numpy())
        expected = brute_force(*logits, labels)
        assert one.n == len(labels)
        assert one.largest == pytest.approx(expected["largest"], abs=0.02)
        assert one.correct == expected["correct"]
        assert one.largest > 0.01  # bf16 is bf16 on a CPU, too
    assert sum(one.n for one in proof.comparisons) * 2 == passes(plan_of(small), 1000)


def test_in_bf16_the_grid_keeps_most_labels(small: World) -> None:
    frames = {
        precision: evaluate_grid(
            small.base,
            small.card,
            small.tasks,
            experts=small.experts,
            lambdas=[0.3, 1.0],
            precision=precision,
        )
        for precision in ("fp32", "bf16")
    }
    one, two = frames["fp32"], frames["bf16"]
    assert not set(one["key"]) & set(two["key"])
    every = one.merge(two, on=["method", "subset", "point", "task", "split"], how="inner")
    assert len(every) > 50
    assert every["nll_x"].ne(every["nll_y"]).all()
    off = (every["correct_x"] - every["correct_y"]).abs().sum() / every["n_x"].sum()
    assert off < 0.05


def test_a_proof_says_the_same_twice_and_is_found_again(small: World, tmp_path: Path) -> None:
    seen: list[int] = []
    proof = prove(small, advance=seen.append)
    assert sum(seen) == passes(plan_of(small), 30) == 2 * 9 * 30
    proof.write(tmp_path / "one.json")
    prove(small).write(tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert Proof.read(tmp_path / "one.json") == proof
    written = json.loads((tmp_path / "one.json").read_text())
    assert written["stated"]["passed"] is True
    assert len(written["stated"]["rows"]) == 9 + 3
    (tmp_path / "one.json").write_text("{}")
    with pytest.raises(ArtifactError, match="delete it"):
        Proof.read(tmp_path / "one.json")


def test_at_lambda_zero_there_is_no_merge_to_look_at(small: World) -> None:
    proof = prove_with_engines(
        plan_of(small, "0.00"), memory(small), ready(), images=5, tolerance=0.9
    )
    assert proof.probe is None
    assert {one.kind for one in proof.comparisons} == {"base", "experts"}


@pytest.mark.parametrize(("fits", "whole"), [(512, 30), (16, 16)])
def test_what_is_compiled_in_the_grid_is_compiled_in_the_proof(
    small: World, monkeypatch: pytest.MonkeyPatch, fits: int, whole: int
) -> None:
    sizes: set[int] = set()

    def compile_(forward: Any, **options: Any) -> Any:
        return lambda images: (sizes.add(len(images)), forward(images))[1]

    monkeypatch.setattr(torch, "compile", compile_)
    # Sets of 30 images: a batch for 512 would never be a whole one.
    proof = prove(small, batch_size=fits, compiled=True)
    assert sizes == {whole}
    assert (proof.batch_size, proof.compiled) == (whole, True)

    def refused(*given: Any, **options: Any) -> Any:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", refused)
    assert prove(small, batch_size=fits, compiled=True).compiled is False


class Planted:
    """A bench whose experts get worse in bf16 on one task: so many of 20 images."""

    def __init__(self, precision: str, wrong: dict[str, int]) -> None:
        self.precision, self.wrong = precision, wrong

    def listen(self, request: Request) -> tuple[Outcome, Any]:
        logits = np.tile(np.array([1.0, 0.0]), (20, 1))
        if self.precision == "bf16" and request.weights.kind == "expert":
            logits[: self.wrong.get(request.task, 0)] = [0.0, 1.0]
        return Outcome(request.key, 20, 20, 0.0, 0.0, np.ones(20, dtype=bool)), logits

    def labels(self, task: str, split: str) -> Any:
        return np.zeros(20, dtype=np.int64)


def planted(small: World, tolerance: float = 0.01, **wrong: int) -> Proof:
    plan = plan_of(small)
    return Proof(
        precision="bf16",
        device="cpu",
        machine="m",
        torch="t",
        batch_size=1,
        compiled=False,
        tolerance=tolerance,
        digests=Digests.of(plan.setting),
        probe=None,
        comparisons=comparisons(plan, lambda p: Planted(p, wrong), 20, lambda count: None),
    )


def test_a_broken_tolerance_is_one_sentence_with_task_and_both_accuracies(small: World) -> None:
    proof = planted(small, b=15)
    assert not proof.passed
    with pytest.raises(ConfigError) as caught:
        proof.insist()
    message = str(caught.value)
    for words in ("'b'", "25.00%", "100.00%", "fp32", "evaluation.proof.tolerance", "1.00 points"):
        assert words in message, message
    assert "\n" not in message
    planted(small, tolerance=0.75, b=15).insist()


def test_chance_is_allowed_for_task_by_task_and_not_where_all_tasks_agree(small: World) -> None:
    planted(small, b=3).insist()
    proof = planted(small, a=3, b=3, c=3)
    assert [one.task for one in proof.refused] == [""]
    with pytest.raises(ConfigError, match=r"all tasks together.*the experts classify 85.00% of 60"):
        proof.insist()


def test_numbers_that_are_not_finite_are_refused_whatever_the_tolerance(small: World) -> None:
    proof = planted(small, tolerance=0.9)
    broken = replace(proof.comparisons[1], broken=2)
    with pytest.raises(ConfigError, match=r"task 'b'.* 2 of 20 .*not finite"):
        replace(proof, comparisons=(proof.comparisons[0], broken)).insist()


def test_only_its_own_weights_are_let_in(small: World, tmp_path: Path) -> None:
    setting, path = plan_of(small).setting, tmp_path / "precision.json"
    planted(small).write(path)
    admit(path, setting, "cpu")
    admit(None, replace(setting, precision="fp32"), "cpu")
    admit(path, setting.restrict(["a", "c"]), "cpu")
    with pytest.raises(ConfigError, match="needs a proof"):
        admit(None, setting, "cpu")
    with pytest.raises(LineageError, match="device cpu, but cuda"):
        admit(path, setting, "cuda")
    for change in ({"base": "x"}, {"tower": "x"}, {"kernel": "x"}):
        with pytest.raises(LineageError, match="delete it"):
            admit(path, replace(setting, **change), "cpu")
    for change in ({"expert": "x"}, {"head": "x"}):
        tasks = {**setting.tasks, "b": replace(setting.tasks["b"], **change)}
        with pytest.raises(LineageError, match="'b'"):
            admit(path, replace(setting, tasks=tasks), "cpu")
    more = {**setting.tasks, "d": setting.tasks["a"]}
    with pytest.raises(LineageError, match="'d'"):
        admit(path, replace(setting, tasks=more), "cpu")
    planted(small, b=20).write(path)
    with pytest.raises(ConfigError, match="refused"):
        admit(path, setting, "cpu")


# --- which images, which merge ---------------------------------------------------------------------


@given(st.integers(1, 300), st.integers(1, 300))
def test_images_are_drawn_without_repetition_and_in_order(n: int, most: int) -> None:
    places = drawn(n, most)
    assert len(places) == min(n, most)
    assert (np.diff(places) > 0).all()
    assert 0 <= places[0] <= places[-1] < n
    assert places.tolist() == drawn(n, most).tolist()


def test_images_are_drawn_from_the_whole_split(small: World) -> None:
    few = few_images(memory(small), 7)
    images, every = (one.tasks["a"].images("val") for one in (few, memory(small)))
    places = drawn(len(every), 7)
    assert places[-1] >= 20  # not the first seven
    assert isinstance(images, LabelledImages)
    assert (images.labels == every.labels[places]).all()
    assert (images[0:7] == every[0:40][places]).all()


CONFIG: dict[str, Any] = {
    "models": [{"name": "m", "architecture": "taskgrid-vit-4", "pretrained": "s0"}],
    "tasks": ["handwritten"],
    "finetune": {"recipe": {"steps": 1}},
    "grid": {"methods": ["average", "task_arithmetic"], "lambdas": [0, 0.2, 0.35, 1]},
}


@settings(max_examples=20)
@given(st.lists(st.sampled_from([0, 0.1, 0.25, 0.35, 0.5, 1.0]), min_size=1, unique=True))
def test_the_merge_is_of_the_first_method_near_the_usual_lambda(lambdas: list[float]) -> None:
    grid = {**CONFIG["grid"], "lambdas": lambdas}
    label, scale = Experiment(Config(**{**CONFIG, "grid": grid})).probe()
    assert label == "average"
    moving = [value for value in lambdas if value]
    gaps = [abs(value - 0.3) for value in moving]
    assert abs(float(scale) - 0.3) == pytest.approx(min(gaps)) if moving else scale == "0.00"


@pytest.mark.parametrize(
    "change",
    [
        {"finetune": {"recipe": {"steps": 1}, "modes": ["standard", "linear"]}},
        {"evaluation": {"precision": "bf16", "posthoc": "standard"}},
        {
            "experts": [
                {"name": "e", "format": "open_clip", "source": "{task}", "evaluation": "tangent"}
            ]
        },
    ],
)
def test_tangent_models_in_bf16_are_refused_before_anything_runs(change: Any) -> None:
    half = {"evaluation": {"precision": "bf16"}}
    Config(**{**CONFIG, **half})
    with pytest.raises(ValueError, match=r"tangent models.*use fp32"):
        Config(**{**CONFIG, **half, **change})


def test_tangent_models_in_bf16_are_refused_by_the_library(small: World) -> None:
    with pytest.raises(ConfigError, match="fp32"):
        evaluate_grid(
            small.base,
            small.card,
            small.tasks,
            experts=small.experts,
            evaluation="tangent",
            precision="bf16",
        )


def test_bf16_leaves_features_heads_and_weights_in_float32(small: World) -> None:
    encoder = ImageEncoder.from_card(small.card, small.base).eval().requires_grad_(False)
    pixels, _ = small.tasks["a"].val
    exact = features_of(encoder, pixels)
    half = features_of(encoder, pixels, precision="bf16")
    assert half.dtype == torch.float32
    assert torch.equal(half, half.bfloat16().float())  # what a bf16 matrix product gives
    assert 0 < (half - exact).norm() / exact.norm() < 0.05
    assert all(tensor.dtype == torch.float32 for tensor in encoder.state().values())
    engine = Engine(memory(small), batch_size=16, precision="bf16")
    _, logits = engine.listen(plan_of(small).setting.zeroshot("a", "val"))
    # Products with the head in bf16 would give logits of eight bits.
    assert not np.array_equal(logits, torch.from_numpy(logits).bfloat16().float().numpy())
