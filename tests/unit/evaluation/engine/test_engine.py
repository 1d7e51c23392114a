from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from taskgrid import plugins
from taskgrid.data.preprocess import prepare
from taskgrid.errors import ConfigError, DataError, DeviceError, LineageError
from taskgrid.evaluation import EvaluationTask, evaluate_grid
from taskgrid.evaluation.engine.engine import Engine
from taskgrid.evaluation.engine.material import LabelledImages
from taskgrid.evaluation.engine.measure import expected_calibration_error, score
from taskgrid.evaluation.engine.resident import Resident
from taskgrid.evaluation.plan.planner import Plan, make_plan
from taskgrid.evaluation.plan.setting import BASE, Request, Weights
from taskgrid.lattice.nodes import CurveSpec
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.heads import Head
from taskgrid.models.tower import build_tower
from taskgrid.provenance import digest
from taskgrid.store.outcome import Outcome
from taskgrid.store.weights import State, digest_state
from taskgrid.vectors import TaskVector
from tests.unit.example_grid import MEAN, STD, World, held, memory, world
from tests.unit.example_plans import method

LAMBDAS = ("0.00", "0.30", "1.00")


@pytest.fixture(scope="module")
def small() -> World:
    return world()


# --- oracle: float64, one image at a time, formulas written out -------------------------------------


def oracle(state: dict[str, torch.Tensor], small: World, task: str, split: str) -> dict[str, Any]:
    tower = build_tower(small.card).double()
    tower.load_state_dict({name: tensor.double() for name, tensor in state.items()})
    tower.eval()
    weight = small.tasks[task].head.weight.double().numpy()
    pixels, labels = small.tasks[task].part(split)  # type: ignore[arg-type]
    hits, nll, confidence = [], [], []
    for image, label in zip(pixels, labels, strict=True):
        channels = [(image[:, :, c] / 255.0 - MEAN[c]) / STD[c] for c in range(3)]
        with torch.no_grad():
            feature = tower(torch.from_numpy(np.stack(channels))[None])[0].numpy()
        logits = weight @ (feature / math.sqrt(sum(feature**2)))
        odds = [math.exp(value) for value in logits]
        probabilities = [value / math.fsum(odds) for value in odds]
        best = max(range(len(odds)), key=odds.__getitem__)
        margin = sorted(probabilities)[-1] - sorted(probabilities)[-2]
        assert margin > 1e-5, "the example has a near tie; choose another seed"
        hits.append(best == label)
        nll.append(-math.log(probabilities[label]))
        confidence.append(probabilities[best])
    return {
        "hits": hits,
        "correct": sum(hits),
        "nll": math.fsum(nll) / len(nll),
        "ece": naive_ece(hits, confidence),
    }


def naive_ece(hits: list[bool], confidence: list[float], bins: int = 15) -> float:
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = [i for i, value in enumerate(confidence) if low < value <= high]
        if inside:
            right = sum(hits[i] for i in inside) / len(inside)
            sure = sum(confidence[i] for i in inside) / len(inside)
            total += len(inside) / len(hits) * abs(right - sure)
    return total


def merged(small: World, subset: Iterable[str], scale: float, name: str) -> dict[str, torch.Tensor]:
    experts = [small.experts[task] for task in subset]
    share = {"task_arithmetic": 1.0, "average": 1.0 / len(experts)}[name]
    return {
        key: (
            base.double() + scale * share * sum((e[key] - base).double() for e in experts)  # type: ignore[union-attr]
        ).float()
        for key, base in small.base.items()
    }


@pytest.mark.parametrize("name", ["task_arithmetic", "average"])
def test_the_whole_grid_equals_brute_force(name: str, small: World) -> None:
    frame = evaluate_grid(
        small.base,
        small.card,
        small.tasks,
        experts=small.experts,
        methods=[name],
        lambdas=map(float, LAMBDAS),
        curves_on=("val", "test"),
        batch_size=5,
    )
    rows = frame[frame["method"] == name]
    assert len(rows) == 2 * 3 * sum(math.comb(3, k) * k for k in (1, 2, 3))
    for row in rows.itertuples():
        state = merged(small, row.subset.split("+"), float(row[8]), name)
        expected = oracle(state, small, row.task, row.split)
        assert row.correct == expected["correct"]
        assert row.nll == pytest.approx(expected["nll"], rel=1e-4)
        assert row.ece == pytest.approx(expected["ece"], abs=1e-4)


def test_reference_rows_equal_brute_force(small: World) -> None:
    frame = evaluate_grid(
        small.base, small.card, small.tasks, experts=small.experts, subsets=[["a"]], lambdas=[1]
    )
    for row in frame[frame["method"] == "zeroshot"].itertuples():
        assert row.correct == oracle(small.base, small, row.task, row.split)["correct"]
    experts = frame[frame["method"] == "expert"]
    assert len(experts) == 3 * 3 * 2
    for row in experts.itertuples():
        expected = oracle(small.experts[row.subset], small, row.task, row.split)
        assert row.correct == expected["correct"]
        own = oracle(small.experts[row.task], small, row.task, row.split)
        assert row.normalized_accuracy == pytest.approx(expected["correct"] / own["correct"])


def test_the_chosen_lambda_is_that_of_brute_force(small: World) -> None:
    lambdas = [f"{step / 10:.2f}" for step in range(11)]
    frame = evaluate_grid(
        small.base, small.card, small.tasks, experts=small.experts, lambdas=lambdas
    )
    own = {t: oracle(small.experts[t], small, t, "val")["correct"] for t in small.tasks}
    for subset in (["a"], ["a", "b"], ["a", "b", "c"]):
        scores = [
            sum(
                oracle(merged(small, subset, float(x), "task_arithmetic"), small, t, "val")[
                    "correct"
                ]
                / own[t]
                for t in subset
            )
            for x in lambdas
        ]
        best = max(range(11), key=lambda i: (round(scores[i], 9), -i))
        test = frame[
            (frame["subset"] == "+".join(subset))
            & (frame["split"] == "test")
            & (frame["method"] == "task_arithmetic")
        ]
        assert set(test["point"]) == {lambdas[best]}
        assert set(test["role"]) == {"selected"}


# --- measures --------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.booleans(), st.floats(0.0, 1.0, exclude_min=True)), min_size=1, max_size=60
    )
)
def test_calibration_error_equals_the_naive_one(samples: list[tuple[bool, float]]) -> None:
    hits, confidence = zip(*samples, strict=True)
    # A bin's edge is a float; both sides must put a value that sits on it into the same bin.
    clear = [c for c in confidence if abs(c * 15 - round(c * 15)) > 1e-9]
    assume(len(clear) == len(confidence))
    found = expected_calibration_error(np.array(hits), np.array(confidence))
    assert found == pytest.approx(naive_ece(list(hits), list(confidence)), abs=1e-12)


def test_calibration_error_at_the_edges() -> None:
    sure = np.array([1.0, 1.0, 1.0, 1.0])
    assert expected_calibration_error(np.array([True] * 4), sure) == 0
    assert expected_calibration_error(np.array([False] * 4), sure) == 1
    assert expected_calibration_error(np.array([True, False, True, False]), sure) == 0.5
    assert math.isnan(expected_calibration_error(np.array([True]), np.array([math.nan])))
    # A bin holds its upper edge: 0.2 and 0.3 are in different ones of five.
    gap = expected_calibration_error(np.array([True, False]), np.array([0.2, 0.3]), bins=5)
    assert gap == pytest.approx((0.8 + 0.3) / 2)


def _scores(small: World, state: State, task: str = "a") -> Any:
    encoder = ImageEncoder.from_card(small.card, state)
    pixels, labels = small.tasks[task].val
    return score(
        encoder,
        small.tasks[task].head,
        pixels,
        torch.from_numpy(labels),
        batch_size=4,
        precision="fp32",
    )


def test_a_diverged_model_gets_nothing_right_and_says_so(small: World) -> None:
    broken = {name: torch.full_like(tensor, math.nan) for name, tensor in small.base.items()}
    scores = _scores(small, broken)
    assert not scores.hits.any()
    assert math.isnan(scores.mean_nll)
    assert math.isnan(scores.calibration_error)


def test_measuring_leaves_inference_mode_when_it_is_done(small: World) -> None:
    _scores(small, small.base)
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("batch_size", [-1, 4])
def test_images_that_did_not_pass_are_no_result(small: World, batch_size: int) -> None:
    pixels, labels = small.tasks["a"].val
    with pytest.raises(DataError, match="of 13 images passed"):
        score(
            ImageEncoder.from_card(small.card, small.base),
            small.tasks["a"].head,
            pixels[:10],
            torch.from_numpy(labels),
            batch_size=batch_size,
            precision="fp32",
        )


# --- the engine: the same bits, whatever was done before -----------------------------------------------


def plan_for(small: World, name: str = "task_arithmetic", **options: Any) -> Plan:
    setting = held(small).setting("tiny", "standard", 0, "fp32", "plain")
    subsets = ["+".join(s) for k in (1, 2, 3) for s in itertools.combinations("abc", k)]
    return make_plan(setting, method(name), subsets, LAMBDAS, **options)


def requests_of(plan: Plan) -> list[Request]:
    setting = plan.setting
    found = [setting.zeroshot(t, s) for t in "abc" for s in ("val", "test")]  # type: ignore[arg-type]
    found += [setting.expert(e, t, "test") for e in "abc" for t in "abc"]
    found += [
        plan.merged(tuple(subset.split("+")), scale, task, "val")
        for subset in plan.subsets
        for scale in ("0.30", "1.00")
        for task in "abc"
    ]
    return found


def engine(small: World, **options: Any) -> Engine:
    material = memory(small)
    merger = MergeRecipe.of(options.pop("name", "task_arithmetic"), {})
    return Engine(material, merger, **{"batch_size": 5, **options})


def answers(one: Engine, requests: Iterable[Request]) -> dict[str, Outcome]:
    return {item.key: item for item in one.evaluate(list(requests), lambda count: None)}


def test_outcomes_are_the_same_bits_whatever_the_walk(small: World) -> None:
    requests = requests_of(plan_for(small))
    expected = answers(engine(small), requests)
    assert answers(engine(small), reversed(requests)) == expected
    shuffled = list(requests)
    np.random.default_rng(0).shuffle(shuffled)  # type: ignore[arg-type]
    one, parts = engine(small), {}
    for start in range(0, len(shuffled), 7):
        parts |= answers(one, shuffled[start : start + 7])
    assert parts == expected
    alone = answers(engine(small), [requests[-1]])
    assert alone[requests[-1].key] == expected[requests[-1].key]


def test_streamed_images_give_the_bits_of_resident_ones(small: World, tmp_path: Path) -> None:
    requests = requests_of(plan_for(small))
    expected = answers(engine(small), requests)
    assert answers(engine(small, resident_bytes=0), requests) == expected
    tasks = {}
    for name, task in small.tasks.items():
        pixels, labels = task.val
        path = tmp_path / f"{name}.npy"
        np.save(path, pixels)
        tasks[name] = replace(task, val=(np.load(path, mmap_mode="r"), labels))
    mapped = replace(small, tasks=tasks)
    assert answers(engine(mapped, resident_bytes=0), requests) == expected


def test_images_are_resident_as_long_as_their_share_lasts(small: World) -> None:
    material = memory(small)
    size = small.tasks["a"].val[0].nbytes
    resident = Resident(material, torch.device("cpu"), image_bytes=2 * size - 1)
    assert isinstance(resident.pixels("a", "val"), torch.Tensor)
    assert isinstance(resident.pixels("b", "val"), LabelledImages)
    # What was decided once stays so.
    assert isinstance(resident.pixels("a", "val"), torch.Tensor)


def test_images_are_taken_in_split_order(small: World) -> None:
    pixels, labels = small.tasks["a"].val
    order = np.random.default_rng(1).permutation(len(labels))
    images = LabelledImages(pixels, order, labels[order])
    assert np.array_equal(images[2:6], pixels[order[2:6]])
    assert len(images) == len(labels)


def test_lambda_zero_has_the_bits_of_the_base(small: World) -> None:
    request = plan_for(small).setting.zeroshot("a", "test")
    base = answers(engine(small), [request])[request.key]
    for name in ("task_arithmetic", "average"):
        other = replace(request, weights=Weights("merge", ("a", "b"), "0.00"))
        assert answers(engine(small, name=name), [other])[request.key] == base


def test_one_task_at_lambda_one_has_the_bits_of_its_expert(small: World) -> None:
    plan = plan_for(small)
    expert = plan.setting.expert("a", "a", "test")
    merge = plan.merged(("a",), "1.00", "a", "test")
    found = answers(engine(small), [expert, merge])
    assert found[expert.key].bits == found[merge.key].bits


def test_the_engine_reports_every_image_once(small: World) -> None:
    requests, seen = requests_of(plan_for(small)), []
    for _ in engine(small).evaluate(requests, seen.append):
        pass
    assert sum(seen) == sum(request.n for request in requests)


def test_weights_are_placed_again_only_after_others_or_a_failure(
    small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    merger, placed = plugins.load("merger", "task_arithmetic").MERGER, []
    plan = plan_for(small)
    one, two = (plan.merged(("a", "b"), scale, "a", "val") for scale in ("0.30", "1.00"))
    clean = answers(engine(small), [one, two])
    real, failing = type(merger).apply, [True]

    def apply(
        self: Any, base: Any, prepared: Any, scale: float, options: Any, out: Any = None
    ) -> Any:
        placed.append(scale)
        found = real(self, base, prepared, scale, options, out)
        if scale == 1.0 and failing:
            # Half of the way: what the encoder holds is neither the old nor the new weights.
            failing.clear()
            out["conv1.weight"].zero_()
            raise torch.OutOfMemoryError("no room")
        return found

    monkeypatch.setattr(type(merger), "apply", apply)
    bench = engine(small)
    assert answers(bench, [one]) == answers(bench, [one]) == {one.key: clean[one.key]}
    assert placed == [0.3]
    with pytest.raises(torch.OutOfMemoryError):
        answers(bench, [two])
    assert answers(bench, [one, two]) == clean
    assert placed == [0.3, 1.0, 0.3, 1.0]


def test_preparation_happens_once_per_subset(small: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one, prepared = engine(small, name="average"), []
    merger = plugins.load("merger", "average").MERGER
    divided = merger.divided

    def counted(total: Any, tasks: tuple[str, ...], options: Any) -> Any:
        prepared.append(tasks)
        return divided(total, tasks, options)

    monkeypatch.setattr(merger, "divided", counted, raising=False)
    plan = plan_for(small, "average")
    merges = [r for r in requests_of(plan) if r.weights.kind == "merge"]
    answers(one, sorted(merges, key=lambda r: r.weights.point))
    assert prepared == sorted(tuple(name.split("+")) for name in plan.subsets)


class Starved:
    """A scorer on a device that holds no more than some images per pass."""

    def __init__(self, most: int) -> None:
        self.most, self.sizes = most, list[int]()

    def __call__(self, *arguments: Any, batch_size: int, precision: str) -> Any:
        self.sizes.append(batch_size)
        if batch_size > self.most:
            raise torch.OutOfMemoryError("no room")
        return score(*arguments, batch_size=batch_size, precision=precision)


def test_a_batch_that_does_not_fit_is_halved_and_stays_so(
    small: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = requests_of(plan_for(small))[:4]
    expected = answers(engine(small, batch_size=3), requests)
    starved = Starved(most=3)
    monkeypatch.setattr("taskgrid.evaluation.engine.engine.score", starved)
    assert answers(engine(small, batch_size=12), requests) == expected
    assert starved.sizes == [12, 6, 3, 3, 3, 3]
    assert "evaluation.batch_size to 3" in capsys.readouterr().err


def test_a_device_without_room_for_one_image_is_said(
    small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskgrid.evaluation.engine.engine.score", Starved(most=0))
    with pytest.raises(DeviceError, match="no memory for one image"):
        answers(engine(small), requests_of(plan_for(small))[:1])


def test_labels_that_name_no_class_are_refused(small: World) -> None:
    pixels, labels = small.tasks["a"].val
    wrong = replace(small.tasks["a"], val=(pixels, labels + 1))
    broken = replace(small, tasks={**small.tasks, "a": wrong})
    request = replace(plan_for(small).setting.zeroshot("a", "val"), weights=BASE)
    with pytest.raises(DataError, match="labels go up to 4, but its head has 4 classes"):
        answers(engine(broken), [request])


def test_an_engine_without_a_method_merges_nothing(small: World) -> None:
    material = memory(small)
    request = plan_for(small).merged(("a",), "1.00", "a", "val")
    with pytest.raises(ValueError, match="no merge method"):
        answers(Engine(material), [request])


# --- evaluate_grid -----------------------------------------------------------------------------------


def grid(small: World, **options: Any) -> pd.DataFrame:
    given_ = {"experts": small.experts, "lambdas": LAMBDAS, **options}
    return evaluate_grid(small.base, small.card, given_.pop("tasks", small.tasks), **given_)


def test_a_stored_grid_is_read_back(
    small: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = grid(small, store=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "__init__", lambda *_, **__: pytest.fail("an engine was opened"))
        pd.testing.assert_frame_equal(grid(small, store=tmp_path), first)
        pd.testing.assert_frame_equal(
            grid(small, store=tmp_path, lambdas=map(float, LAMBDAS)), first
        )
    pd.testing.assert_frame_equal(grid(small), first)


def test_vectors_stand_for_experts(small: World) -> None:
    vectors = {task: TaskVector.between(small.base, state) for task, state in small.experts.items()}
    theirs = grid(small, experts=None, vectors=vectors)
    scores = ["subset", "point", "task", "split", "correct"]
    pd.testing.assert_frame_equal(theirs[scores], grid(small)[scores])


def test_subsets_methods_and_names_are_as_asked(small: World) -> None:
    frame = grid(
        small, subsets=[["b", "a"]], methods={"average": {}}, model="m", mode="linear", seed=3
    )
    assert set(frame["method"]) == {"zeroshot", "expert", "average"}
    rows = frame[frame["method"] == "average"]
    assert set(rows["subset"]) == {"a+b"}
    assert set(rows["seed"]) == {3}
    assert set(rows["mode"]) == {"linear"}


@settings(max_examples=5)
@given(order=st.permutations(["a", "b", "c"]))
def test_the_order_of_tasks_changes_nothing(order: list[str]) -> None:
    small = world()
    shuffled = {name: small.tasks[name] for name in order}
    theirs = grid(small, tasks=shuffled, experts={name: small.experts[name] for name in order})
    pd.testing.assert_frame_equal(theirs, grid(small))


def test_what_does_not_fit_is_said(small: World) -> None:
    with pytest.raises(ConfigError, match="give experts or vectors"):
        grid(small, experts=None)
    with pytest.raises(ConfigError, match="no images and head are given for task 'c'"):
        grid(small, tasks={name: small.tasks[name] for name in "ab"})
    other = replace(small.card, base=digest("another"))
    with pytest.raises(LineageError, match="but its card says"):
        evaluate_grid(small.base, other, small.tasks, experts=small.experts)
    head = small.tasks["a"].head
    foreign = Head(head.weight, head.classes, {**head.lineage, "text": "another"})
    with pytest.raises(LineageError, match="head of task 'a' comes from another text tower"):
        grid(small, tasks={**small.tasks, "a": replace(small.tasks["a"], head=foreign)})
    pixels, labels = small.tasks["a"].val
    short = EvaluationTask(head, (pixels, labels[:-1]), small.tasks["a"].test)
    with pytest.raises(DataError, match="has 13 val images, but 12 labels"):
        grid(small, tasks={**small.tasks, "a": short})
    foreign_vector = TaskVector(
        {k: t.clone() for k, t in small.base.items()}, {"base": digest("another")}
    )
    with pytest.raises(LineageError, match="vector of task 'a' was made from base"):
        grid(small, experts=None, vectors={"a": foreign_vector})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: (x / 255, y), "are float64; give uint8 from 0 to 255"),
        (lambda x, y: (x.astype(np.int64), y), "are int64; give uint8"),
        (lambda x, y: (torch.from_numpy(x), y), "are a Tensor; give a NumPy array"),
        (lambda x, y: (x.transpose(0, 3, 1, 2), y), r"images.transpose\(0, 2, 3, 1\)"),
        (lambda x, y: (x.repeat(2, 1).repeat(2, 2), y), r"\(13, 16, 16, 3\).*prepare\(image, 8\)"),
        (lambda x, y: (x[..., 0], y), r"grey is repeated: images\[..., None\].repeat\(3"),
        (lambda x, y: (x[..., :1], y), "give RGB images of its size"),
        (lambda x, y: (x[:0], y[:0]), "give at least one image"),
        (lambda x, y: (x, y[:, None]), r"labels that are int64 of shape \(13, 1\)"),
        (lambda x, y: (x, y.astype(float)), "labels that are float64"),
        (lambda x, y: (x, y * 0 - 1), "the label -1, but its head has 4 classes"),
        (lambda x, y: (x, y * 0 + 4), "the label 4, .* labels run from 0 to 3"),
    ],
)
def test_images_of_another_form_are_answered_by_what_to_do(
    small: World, change: Callable[..., Any], words: str
) -> None:
    task = small.tasks["a"]
    given = EvaluationTask(task.head, change(*task.val), task.test)
    with pytest.raises(DataError, match=f"^task 'a': its val images .*{words}") as raised:
        grid(small, tasks={**small.tasks, "a": given})
    assert "\n" not in str(raised.value)


def test_what_the_sentences_say_to_do_helps(small: World) -> None:
    task = small.tasks["a"]
    pixels, labels = task.val
    expected = grid(small, subsets=["a"])
    for mended in (
        (255 * (pixels / 255)).round().astype("uint8"),
        pixels.transpose(0, 3, 1, 2).transpose(0, 2, 3, 1),
    ):
        given = EvaluationTask(task.head, (mended, labels.tolist()), task.test)
        frame = grid(small, subsets=["a"], tasks={**small.tasks, "a": given})
        pd.testing.assert_frame_equal(frame, expected)
    for mended in (
        np.stack([prepare(image, 8) for image in pixels.repeat(2, 1).repeat(2, 2)]),
        pixels[..., 0][..., None].repeat(3, axis=-1),
    ):
        given = EvaluationTask(task.head, (mended, labels), task.test)
        assert len(grid(small, subsets=["a"], tasks={**small.tasks, "a": given})) == len(expected)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"batch_size": -1}, ConfigError, "batch_size is -1; give a whole number of 1 or more"),
        ({"batch_size": 0}, ConfigError, "batch_size is 0"),
        ({"batch_size": True}, ConfigError, "batch_size is True"),
        ({"batch_size": "all"}, ConfigError, "batch_size is 'all'"),
        ({"precision": "fp16"}, ConfigError, "precision cannot be 'fp16'; choose 'fp32' or 'bf16'"),
        ({"evaluation": "linear"}, ConfigError, "evaluation cannot be 'linear'"),
        ({"curves_on": ("val", "train")}, ConfigError, "curves_on cannot be 'train'"),
        ({"curves_on": ("test",)}, ConfigError, "curves_on must hold val"),
        ({"curves_on": "val"}, ConfigError, "curves_on is 'val'; give a list"),
        ({"curves": {"nodes": 7}}, ConfigError, "give a CurveSpec"),
        ({"subsets": ["ab"]}, ConfigError, "task 'ab' is not one of a, b, c"),
        ({"subsets": "all"}, ConfigError, "subsets is 'all'; give a list"),
        ({"subsets": []}, ConfigError, "subsets is empty"),
        ({"subsets": [1]}, ConfigError, "a subset is 1; give a list"),
        ({"lambdas": 0.3}, ConfigError, "lambdas is 0.3; give a list of numbers"),
        ({"lambdas": ["half"]}, ConfigError, "lambdas holds 'half'; give numbers"),
        ({"lambdas": [None]}, ConfigError, "lambdas holds None"),
        ({"methods": "average"}, ConfigError, "methods is 'average'; give a list"),
        ({"methods": ["average", "tis"]}, ConfigError, "unknown merge method 'tis'"),
        ({"studies": "addition"}, ConfigError, "studies is 'addition'; give a list"),
        ({"studies": ["adition"]}, ConfigError, "unknown study 'adition'"),
        ({"device": "cuda"}, DeviceError, "'cuda' is asked for, but torch sees no such GPU"),
        ({"device": "gpu"}, DeviceError, "device 'gpu' is unknown"),
    ],
)
def test_an_argument_that_cannot_be_is_answered_by_a_sentence_before_anything_is_measured(
    small: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(error, match=words) as raised:
        grid(small, store=tmp_path, **arguments)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.rglob("*.arrow"))


def test_arguments_may_be_of_any_kind_that_says_the_same(small: World) -> None:
    expected = grid(small, subsets=[["a", "b"], ["c"]])
    same = {"batch_size": np.int64(128), "device": torch.device("cpu"), "curves": CurveSpec()}
    theirs = grid(small, subsets=iter(["b+a", ("c",)]), lambdas=np.array([0, 0.3, 1]), **same)
    pd.testing.assert_frame_equal(theirs, expected)


def test_the_base_is_named_by_its_content(small: World) -> None:
    assert small.card.base == digest_state(small.base)
