"""The exact tangent grid against float64 brute force, and what stays the same whatever is walked."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from taskgrid import plugins
from taskgrid.errors import ConfigError
from taskgrid.evaluation import evaluate_grid
from taskgrid.evaluation.engine import engine as plain_engine
from taskgrid.evaluation.engine.material import Material
from taskgrid.evaluation.opening.engines import engine_on_demand
from taskgrid.evaluation.opening.files import GridFiles, open_files
from taskgrid.evaluation.opening.references import read_method, read_setting
from taskgrid.evaluation.plan import keys
from taskgrid.evaluation.plan.planner import Plan, make_plan
from taskgrid.evaluation.plan.runner import run_plan, run_reference
from taskgrid.evaluation.plan.setting import Request
from taskgrid.evaluation.tangent import engine as tangent_engine
from taskgrid.evaluation.tangent.engine import TangentEngine
from taskgrid.evaluation.tangent.line import Projected
from taskgrid.merging import MergeContext, Prepared
from taskgrid.merging.bases.additive import Line, add_direction
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.models.batches import BatchSize
from taskgrid.models.heads import Head
from taskgrid.models.tower import build_tower
from taskgrid.plugins.options import Options
from taskgrid.store.features import FeatureStore
from taskgrid.store.outcome import Outcome
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.weights import State
from tests.unit.evaluation.engine.test_engine import naive_ece
from tests.unit.evaluation.opening.test_files import Flow
from tests.unit.example_grid import MEAN, STD, World, held, memory, world
from tests.unit.example_mergers import recipe_of
from tests.unit.example_plans import method, setting

LAMBDAS = ("0.00", "0.30", "1.00")
TASK_ARITHMETIC = plugins.load("merger", "task_arithmetic").MERGER


@pytest.fixture(scope="module")
def small() -> World:
    return world()


# --- oracle: float64 throughout, J d by differentiating backwards twice, formulas written out --------


class Oracle:
    def __init__(self, small: World) -> None:
        self.small = small
        self.tower = build_tower(small.card).double()
        self.tower.load_state_dict({name: t.double() for name, t in small.base.items()})
        self.names = [name for name, _ in self.tower.named_parameters()]
        self.features: dict[tuple[str, str, str], tuple[torch.Tensor, torch.Tensor]] = {}

    def images(self, task: str, split: str) -> torch.Tensor:
        pixels = self.small.tasks[task].part(split)[0]  # type: ignore[arg-type]
        channels = [(pixels[..., c] / 255.0 - MEAN[c]) / STD[c] for c in range(3)]
        return torch.from_numpy(np.stack(channels, axis=1))

    def along(self, task: str, split: str, expert: str) -> tuple[torch.Tensor, torch.Tensor]:
        """f_0 and J tau: tau . d/dv (v^T f), differentiated by v."""
        if (task, split, expert) not in self.features:
            base, other = self.small.base, self.small.experts[expert]
            weights = {n: p.detach().requires_grad_() for n, p in self.tower.named_parameters()}
            with sdpa_kernel(SDPBackend.MATH):
                value = torch.func.functional_call(self.tower, weights, (self.images(task, split),))
                dual = torch.zeros_like(value, requires_grad=True)
                back = torch.autograd.grad(
                    (value * dual).sum(), list(weights.values()), create_graph=True
                )
                taus = [(other[n] - base[n]).double() for n in self.names]
                moved = sum((g * tau).sum() for g, tau in zip(back, taus, strict=True))
                (slope,) = torch.autograd.grad(moved, dual)
            self.features[task, split, expert] = (value.detach(), slope)
        return self.features[task, split, expert]

    def row(self, weights: dict[str, float], scale: float, task: str, split: str) -> dict[str, Any]:
        each = {t: self.along(task, split, t) for t in weights}
        start = next(iter(each.values()))[0]
        features = start + scale * sum(w * each[t][1] for t, w in weights.items())
        head = self.small.tasks[task].head.weight.double()
        labels = self.small.tasks[task].part(split)[1]  # type: ignore[arg-type]
        hits, nll, confidence = [], [], []
        for feature, label in zip(features, labels, strict=True):
            logits = (head @ (feature / feature.norm())).tolist()
            odds = [math.exp(value) for value in logits]
            probabilities = [value / math.fsum(odds) for value in odds]
            best = max(range(len(odds)), key=odds.__getitem__)
            assert sorted(logits)[-1] - sorted(logits)[-2] > 1e-4, "a near tie; choose another seed"
            hits.append(best == label)
            nll.append(-math.log(probabilities[label]))
            confidence.append(probabilities[best])
        return {
            "correct": sum(hits),
            "nll": math.fsum(nll) / len(nll),
            "ece": naive_ece(hits, confidence),
        }


@pytest.fixture(scope="module")
def oracle(small: World) -> Oracle:
    return Oracle(small)


def grid(small: World, **options: Any) -> pd.DataFrame:
    given = {"experts": small.experts, "lambdas": LAMBDAS, "evaluation": "tangent", **options}
    return evaluate_grid(small.base, small.card, given.pop("tasks", small.tasks), **given)


@pytest.mark.parametrize("name", ["task_arithmetic", "average"])
def test_the_whole_grid_equals_brute_force(name: str, small: World, oracle: Oracle) -> None:
    frame = grid(small, methods=[name], curves_on=("val", "test"), batch_size=5)
    rows = frame[(frame["method"] == name) & (frame["point"] != "0.00")]
    assert len(rows) == 2 * 2 * sum(math.comb(3, k) * k for k in (1, 2, 3))
    for row in rows.itertuples():
        subset = row.subset.split("+")
        weight = {"task_arithmetic": 1.0, "average": 1.0 / len(subset)}[name]
        expected = oracle.row(dict.fromkeys(subset, weight), float(row[8]), row.task, row.split)
        assert row.correct == expected["correct"]
        assert row.nll == pytest.approx(expected["nll"], rel=1e-5)
        assert row.ece == pytest.approx(expected["ece"], abs=1e-5)


def test_experts_are_tangent_models_and_the_base_is_itself(small: World, oracle: Oracle) -> None:
    frame, plain = grid(small, subsets=[["a"]]), grid(small, subsets=[["a"]], evaluation="plain")
    for row in frame[frame["method"] == "expert"].itertuples():
        expected = oracle.row({row.subset: 1.0}, 1.0, row.task, row.split)
        assert row.correct == expected["correct"]
        assert row.nll == pytest.approx(expected["nll"], rel=1e-5)
    # The base is its own tangent model: the very rows, keys and bits of a plain run.
    for rows in (
        [f[f["method"] == "zeroshot"].reset_index(drop=True) for f in (frame, plain)],
        [
            f[(f["point"] == "0.00") & (f["split"] == "val")].reset_index(drop=True)
            for f in (frame, plain)
        ],
    ):
        columns = [c for c in rows[0] if c != "normalized_accuracy"]
        pd.testing.assert_frame_equal(rows[0][columns], rows[1][columns])
    moved = [f[f["point"] == "1.00"]["key"] for f in (frame, plain)]
    assert not set(moved[0]) & set(moved[1])


# --- keys ----------------------------------------------------------------------------------------


def test_tangent_rows_have_keys_of_their_own(tmp_path: Path) -> None:
    plan = make_plan(setting(), method(), ["a+b"], ["0.00", "0.50"])
    other = replace(plan, setting=replace(plan.setting, tangent=keys.tangent_code()))
    assert (plan.setting.evaluation, other.setting.evaluation) == ("plain", "tangent")
    for ours, theirs, same in (
        (plan.setting.zeroshot("a", "val"), other.setting.zeroshot("a", "val"), True),
        (plan.merged(("a",), "0.00", "a", "val"), other.merged(("a",), "0.00", "a", "val"), True),
        (plan.setting.expert("a", "a", "val"), other.setting.expert("a", "a", "val"), False),
        (plan.merged(("a",), "0.50", "a", "val"), other.merged(("a",), "0.50", "a", "val"), False),
    ):
        assert (ours.key == theirs.key) is same
    edited = replace(plan, setting=replace(plan.setting, tangent="edited"))
    assert other.setting.expert("a", "a", "val") != edited.setting.expert("a", "a", "val")
    other.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == other
    assert other.setting.restrict(["a"]).evaluation == "tangent"


def test_the_tangent_kernel_is_the_code_between_directions_and_outcomes() -> None:
    from taskgrid.provenance import code_closure

    kernel = set(code_closure("taskgrid.evaluation.tangent.line"))
    assert {"taskgrid.evaluation.engine.measure", "taskgrid.models.linearized"} <= kernel
    for module in (
        "engine.engine",
        "tangent.engine",
        "engine.resident",
        "plan.runner",
        "plan.planner",
        "grid",
    ):
        assert f"taskgrid.evaluation.{module}" not in kernel
    assert "taskgrid.evaluation.tangent.line" in code_closure(
        "taskgrid.evaluation.opening.references"
    )
    assert keys.tangent_code() != keys.kernel_code()


# --- the engine ------------------------------------------------------------------------------------


def engine(small: World, merger: Any = None, **options: Any) -> TangentEngine:
    material = memory(small)
    given = {"batch_size": 5, **options}
    plain = MergeRecipe.of("task_arithmetic", {})
    options_ = dict(plain.options)
    ready = recipe_of(merger, merger.name, options_) if merger is not None else plain
    where = held(small).setting("tiny", "linear", 0, "fp32", "tangent")
    return TangentEngine(material, where, ready, **given)


def plan_for(small: World, name: str = "task_arithmetic") -> Plan:
    where = held(small).setting("tiny", "linear", 0, "fp32", "tangent")
    subsets = ["+".join(s) for k in (1, 2, 3) for s in itertools.combinations("abc", k)]
    return make_plan(where, method(name), subsets, LAMBDAS)


def requests_of(plan: Plan) -> list[Request]:
    where = plan.setting
    found = [where.zeroshot(t, s) for t in "abc" for s in ("val", "test")]  # type: ignore[arg-type]
    found += [where.expert(e, t, "test") for e in "abc" for t in "abc"]
    found += [
        plan.merged(tuple(subset.split("+")), scale, task, "val")
        for subset in plan.subsets
        for scale in ("0.30", "1.00")
        for task in "abc"
    ]
    return found


def answers(one: TangentEngine, requests: Any) -> dict[str, Outcome]:
    return {item.key: item for item in one.evaluate(list(requests), lambda count: None)}


def test_outcomes_are_the_same_bits_whatever_the_walk(small: World, tmp_path: Path) -> None:
    requests = requests_of(plan_for(small))
    expected = answers(engine(small), requests)
    assert len(expected) == len(requests)
    assert answers(engine(small), reversed(requests)) == expected
    shuffled = list(requests)
    np.random.default_rng(0).shuffle(shuffled)  # type: ignore[arg-type]
    one, parts = engine(small, store=FeatureStore(tmp_path)), {}
    for start in range(0, len(shuffled), 7):
        parts |= answers(one, shuffled[start : start + 7])
    assert parts == expected
    assert answers(engine(small, store=FeatureStore(tmp_path)), requests) == expected
    assert answers(engine(small, resident_bytes=0), requests) == expected
    for request in requests[-3:]:
        alone = answers(engine(small), [request])
        assert alone[request.key] == expected[request.key]


def test_an_appended_task_changes_no_bit_of_the_others(small: World) -> None:
    larger = grid(world(("a", "b", "c", "d")))
    without = larger[
        ~larger["subset"].str.contains("d", regex=False) & (larger["task"] != "d")
    ].reset_index(drop=True)
    pd.testing.assert_frame_equal(without, grid(small), check_like=True)


def test_a_pass_is_made_once_for_each_vector_and_image_set(
    small: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    along = tangent_engine.features_along

    def counted(encoder: Any, pixels: Any, direction: Any, **options: Any) -> torch.Tensor:
        passes.append(len(pixels))
        return along(encoder, pixels, direction, **options)

    monkeypatch.setattr(tangent_engine, "features_along", counted)
    first = grid(small, methods=["task_arithmetic", "average"], store=tmp_path)
    # Three vectors on val and test of three tasks, whatever the subsets, lambdas and methods.
    assert sorted(passes) == 9 * [13] + 9 * [21]
    more = grid(small, lambdas=[0.05, 0.7], subsets=[["a", "c"]], store=tmp_path)
    assert len(passes) == 18
    assert set(more["point"]) == {"0.00", "0.05", "0.70", "1.00"}
    pd.testing.assert_frame_equal(
        grid(small, methods=["task_arithmetic", "average"], store=tmp_path), first
    )


class Watched:
    """A store of features in memory that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.kept: dict[str, torch.Tensor] = {}

    def find(self, key: str) -> torch.Tensor | None:
        self.asked.append(key)
        return self.kept.get(key)

    def add(self, key: str, features: torch.Tensor) -> None:
        self.kept[key] = features


@pytest.mark.parametrize("which", ["features_at_origin", "features_along", "score"])
def test_a_pass_without_room_begins_again_with_half_the_images(
    small: World, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    requests, few = requests_of(plan_for(small)), Watched()
    if which != "score":
        # The base is measured first; here it is the passes of tangent models that find no room.
        requests = [r for r in requests if r.weights.kind != "base"]
    expected = answers(engine(small, batch_size=3, store=few), requests)
    # The base is measured by what measures networks as they are.
    place = plain_engine if which == "score" else tangent_engine
    real, sizes = getattr(place, which), []

    def starved(*given: Any, batch_size: int, **options: Any) -> Any:
        sizes.append(batch_size)
        if batch_size > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(*given, batch_size=batch_size, **options)

    monkeypatch.setattr(place, which, starved)
    store = Watched()
    found = answers(engine(small, batch_size=12, store=store), requests)
    assert sizes[:3] == [12, 6, 3]
    assert set(sizes[3:]) == {3}
    if which == "features_at_origin":
        # Directions come first: those of the first image set had passed with the size before.
        assert found.keys() == expected.keys()
        return
    assert found == expected
    # Features are kept, and found again, under the size of the passes that made them.
    assert store.kept.keys() == few.kept.keys()
    assert all(torch.equal(store.kept[key], few.kept[key]) for key in few.kept)
    before = len(sizes)
    assert answers(engine(small, batch_size=3, store=store), requests) == expected
    assert len(sizes) == (before if which == "features_along" else before + 6)


@pytest.mark.parametrize("which", ["along", "apply"])
def test_own_passes_of_a_merge_begin_again_with_half_the_images(
    small: World, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    merger = OnALine() if which == "along" else Curved()
    requests = [r for r in requests_of(plan_for(small)) if r.weights.kind == "merge"]
    expected = answers(engine(small, merger, batch_size=3), requests)
    real = tangent_engine.features_along

    def starved(*given: Any, batch_size: int, **options: Any) -> torch.Tensor:
        if batch_size > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(*given, batch_size=batch_size, **options)

    monkeypatch.setattr(tangent_engine, "features_along", starved)
    assert answers(engine(small, merger, batch_size=12), requests) == expected


def test_a_tangent_model_is_probed_along_a_direction(
    small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests, probed = requests_of(plan_for(small))[:3], []
    expected = answers(engine(small), requests)

    def fitted(asked: Any, device: torch.device, probe: Any, **options: Any) -> BatchSize:
        assert (asked, device.type, options) == ("auto", "cpu", {})
        probed.append(probe(8))
        return BatchSize(5)

    monkeypatch.setattr(tangent_engine, "fitted", fitted)
    assert answers(engine(small, batch_size="auto"), requests) == expected
    assert probed[0].shape == (8, 12)
    assert not probed[0].any()


class OnALine(Line):
    """Task arithmetic that does not say that it is a sum."""

    name = "on_a_line"

    def prepare(self, context: MergeContext) -> Prepared:
        return TASK_ARITHMETIC.prepare(context)


class Curved:
    """Task arithmetic at lambda squared, which no line describes."""

    name = "curved"
    weighs = False

    def prepare(self, context: MergeContext) -> Prepared:
        return TASK_ARITHMETIC.prepare(context)

    def apply(
        self, base: State, prepared: Prepared, scale: float, options: Options, out: Any = None
    ) -> State:
        return add_direction(base, prepared, scale**2, out)


@pytest.mark.parametrize("merger", [OnALine(), Curved()], ids=lambda m: m.name)
def test_methods_that_are_no_sums_are_answered_as_exactly(
    merger: Any, small: World, oracle: Oracle
) -> None:
    requests = [r for r in requests_of(plan_for(small)) if r.weights.kind == "merge"]
    found = answers(engine(small, merger), requests)
    for request in requests:
        scale = float(request.weights.point)
        expected = oracle.row(
            dict.fromkeys(request.weights.subset, 1.0),
            scale**2 if merger.name == "curved" else scale,
            request.task,
            request.split,
        )
        assert found[request.key].correct == expected["correct"]
        assert found[request.key].nll == pytest.approx(expected["nll"], rel=1e-5)


def test_lines_are_those_of_the_head(small: World, oracle: Oracle) -> None:
    subset = ("a", "c")
    value, _ = oracle.along("b", "val", "a")
    slope = sum(oracle.along("b", "val", task)[1] for task in subset)
    head = small.tasks["b"].head
    scales = torch.linspace(-1, 2, 7, dtype=torch.float64)
    exact = torch.stack(
        [functional.normalize(value + x * slope, dim=-1) @ head.weight.double().T for x in scales]
    )
    for merger in (None, OnALine()):
        found = engine(small, merger).line(subset, "b", "val").logits(scales)
        torch.testing.assert_close(found, exact, rtol=0, atol=1e-4)
    with pytest.raises(ConfigError, match="'curved' does not move on a line"):
        engine(small, Curved()).line(subset, "b", "val")


def test_features_of_no_length_and_of_no_number() -> None:
    head = Head(torch.eye(2), ("x", "y"), {})
    start = torch.tensor([[3.0, 4.0], [0.0, 0.0], [math.nan, 1.0]])
    along = {"a": torch.tensor([[-3.0, -4.0], [0.0, 0.0], [1.0, 1.0]])}
    line = Projected.of(head, start, along, torch.tensor([0, 0, 1])).line({"a": 1.0})
    for scale in (0.0, 1.0, 2.0):
        expected = functional.normalize(start + scale * along["a"], dim=-1).double()
        torch.testing.assert_close(
            line.logits(torch.tensor([scale], dtype=torch.float64))[0],
            expected,
            equal_nan=True,
            rtol=1e-7,
            atol=1e-7,
        )
    at_one = list(line.scores([0.5, 1.0]))[1]
    # Equal logits go to the first class, as in measure.score.
    assert at_one.hits.tolist() == [True, True, False]
    assert math.isnan(at_one.nll[2])
    assert math.isnan(at_one.calibration_error)


def test_features_of_another_batch_size_are_not_taken(small: World, tmp_path: Path) -> None:
    setting_ = held(small).setting("tiny", "linear", 0, "fp32", "tangent")
    store = FeatureStore(tmp_path)
    for size, files in ((5, 1), (4, 2), (5, 2)):
        one = TangentEngine(memory(small), setting_, batch_size=size, store=store)
        list(one.evaluate([setting_.expert("a", "a", "val")], lambda count: None))
        assert one.machine["batch_size"] == size
        assert len(list(tmp_path.iterdir())) == 2 * files


def test_a_setting_of_networks_is_refused(small: World) -> None:
    material = memory(small)
    with pytest.raises(ValueError, match="measures networks as they are"):
        TangentEngine(material, held(small).setting("tiny", "standard", 0, "fp32", "plain"))


# --- from files, as the rules do it --------------------------------------------------------------------


def test_from_manifests_to_rows(tmp_path: Path, small: World) -> None:
    flow = Flow(tmp_path, small)
    store, features = OutcomeStore(tmp_path / "store"), tmp_path / "features"
    card = small.card
    named = {"model": "model", "mode": "posthoc", "seed": 0, "precision": "fp32", "card": card}
    bare = {task: replace(m, vector=None) for task, m in flow.manifests.items()}
    where = read_setting(tasks=bare, evaluation="tangent", **named)
    assert all(ref.vector is None for ref in where.tasks.values())

    def material(of: Any) -> Material:
        files = {t: replace(f, vector=None) if of is where else f for t, f in flow.files.items()}
        opened = GridFiles(tmp_path / "base.json", tmp_path / "base.safetensors", files)
        return open_files(opened, of, {})

    with engine_on_demand(
        material(where), where, device="cpu", batch_size=5, store=tmp_path
    ) as bench:
        reference = run_reference(where, store, bench)
    assert reference.evaluated == 6 + 18
    plan = make_plan(
        read_setting(tasks=flow.manifests, evaluation="tangent", **named),
        read_method("task_arithmetic", {}, 0),
        ["a", "a+b"],
        LAMBDAS,
    )
    ready = (material(plan.setting), plan.setting, plan.method)
    before = sorted(features.iterdir())
    with engine_on_demand(*ready, device="cpu", batch_size=5, store=tmp_path) as bench:
        result = run_plan(plan, store, bench)
    # All features of the grid were needed for the reference rows already.
    assert sorted(features.iterdir()) == before
    frame = result.table.to_pandas()
    one = frame[(frame["subset"] == "a") & (frame["point"] == "1.00") & (frame["split"] == "val")]
    own = reference.table.to_pandas()
    own = own[(own["method"] == "expert") & (own["subset"] == "a") & (own["task"] == "a")]
    assert set(one["correct"]) == set(own[own["split"] == "val"]["correct"])
    # A damaged file of features is as good as none.
    for path in before:
        path.write_bytes(path.read_bytes()[:-5])
    again = OutcomeStore(tmp_path / "again")
    with engine_on_demand(*ready, device="cpu", batch_size=5, store=tmp_path) as bench:
        assert run_plan(plan, again, bench).table == result.table
