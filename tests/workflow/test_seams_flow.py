"""Every seam of merging through Snakemake: rows are those of ``merge()`` by hand on the same files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from taskgrid.data.manifest import SplitManifest
from taskgrid.lattice.points import read_point
from taskgrid.merging import merge, merge_per_task
from taskgrid.models.card import ModelCard
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.heads import Head
from taskgrid.models.inference import logits_of
from taskgrid.store.atomic import read_json
from taskgrid.store.images import ImageStore, PixelRows
from taskgrid.store.weights import State, load_state
from tests.workflow.conftest import Checkout

RUN = "taskgrid-vit-4-s0/standard/0"
OWN = "a:0.30,b:-0.50"
WEIGHTS = {"a": 1.0, "b": 0.5, "c": -0.25}
SUBSETS = {"include": [["a", "b"]]}
METHODS: list[Any] = [
    {"name": "task_arithmetic", "label": "weighted", "options": {"weights": WEIGHTS}},
    "fisher",
    "regmean",
    # Points that take a task away may have no minimum.
    {"name": "ubgm", "lambdas": [0.5], "points": []},
    "tall_mask",
    "emr",
    "logit_ensemble",
    {"name": "adamerging", "options": {"steps": 3, "batch_size": 4, "level": "task"}},
]
LEARNED = f"results/learned/{RUN}/adamerging/a+b/coefficients.json"


@pytest.fixture(scope="module")
def flow(finished: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which every kind of method was evaluated."""
    checkout = finished.copy_to(tmp_path_factory.mktemp("seams") / "checkout")
    checkout.config["grid"] |= {
        "methods": METHODS,
        "points": [{"a": 0.3, "b": -0.5}],
        "subsets": SUBSETS,
    }
    checkout.config["statistics"] = [
        {"name": "fisher", "options": {"images": 8}},
        {"name": "gram", "label": "inputs", "options": {"images": 8}},
        {"name": "fisher_base", "label": "prior", "options": {"images": 4, "of": "trained"}},
    ]
    assert checkout.run("tables").rules["learn"] == 1
    return checkout


class Hand:
    """The files of a run, merged and measured by hand."""

    def __init__(self, results: Path) -> None:
        self.results = results
        model = results / "models" / "taskgrid-vit-4-s0"
        self.card = ModelCard.from_json(read_json(model / "base.json"))
        self.base = load_state(model / "base.safetensors")[0]
        self.experts = {
            task: load_state(results / "experts" / RUN / task / "expert.safetensors")[0]
            for task in "ab"
        }

    def statistics(self, needs: Mapping[str, str]) -> dict[str, dict[str, State] | State]:
        return {name: self._statistic(label) for name, label in needs.items()}

    def _statistic(self, label: str) -> dict[str, State] | State:
        of_base = self.results / f"statistics/taskgrid-vit-4-s0/base/{label}.safetensors"
        if of_base.exists():
            return load_state(of_base)[0]
        folder = self.results / "statistics" / RUN / label
        return {task: load_state(folder / f"{task}.safetensors")[0] for task in "ab"}

    def logits(self, state: State, task: str) -> tuple[torch.Tensor, np.ndarray]:
        store = ImageStore.open(self.results / "data" / "24px" / task / "images.arrow")
        rows = store.rows(SplitManifest.read(self.results / f"splits/24px/{task}.json").ids("test"))
        head = Head.load(self.results / "heads" / "taskgrid-vit-4-s0" / f"{task}.safetensors")
        encoder = ImageEncoder.from_card(self.card, state)
        pixels = PixelRows(store.pixels, rows)
        found = logits_of(encoder, head, pixels, batch_size=64, device="cpu", precision="fp32")
        return found, store.labels[rows]

    def correct(self, state: State, task: str) -> int:
        logits, labels = self.logits(state, task)
        return int((logits.argmax(dim=1).numpy() == labels).sum())


@pytest.fixture(scope="module")
def hand(flow: Checkout) -> Hand:
    return Hand(flow / "results")


def rows_of(flow: Checkout, method: str, split: str = "test") -> pd.DataFrame:
    grid = flow.table("grid.parquet")
    return grid[(grid["method"] == method) & (grid["subset"] == "a+b") & (grid["split"] == split)]


@pytest.mark.parametrize(
    ("method", "options", "needs"),
    [
        ("task_arithmetic", {"weights": WEIGHTS}, None),
        ("fisher", {}, {"fisher": "fisher"}),
        ("regmean", {}, {"gram": "inputs"}),
        ("ubgm", {}, {"fisher": "fisher", "fisher_base": "prior"}),
    ],
)
def test_rows_of_one_model_are_those_of_merge(
    flow: Checkout, hand: Hand, method: str, options: Any, needs: dict[str, str] | None
) -> None:
    statistics = hand.statistics(needs) if needs else None
    rows = rows_of(flow, method)
    assert len(rows) == 2
    for row in rows.to_dict("records"):
        point = read_point(row["point"])
        scale = dict(point.named) or point.lambda_value
        state = merge(method, hand.base, hand.experts, scale, statistics=statistics, **options)
        assert hand.correct(state, row["task"]) == row["correct"]


def test_a_statistic_of_the_base_is_made_once_of_the_tasks_that_it_names(hand: Hand) -> None:
    (prior,) = hand.statistics({"fisher_base": "prior"}).values()
    assert prior["images"] == 12
    manifest = read_json(hand.results / "statistics/taskgrid-vit-4-s0/base/prior.json")
    assert {f"{task}.head" for task in "abc"} <= manifest.keys() and "expert" not in manifest


def test_points_with_coefficients_of_their_own_are_weighted_by_hand(
    flow: Checkout, hand: Hand
) -> None:
    rows = rows_of(flow, "task_arithmetic", "val")
    own = rows[rows["point"] == OWN]
    assert len(own) == 2 and own["scale"].isna().all()
    state = {
        key: (
            tensor.double()
            + 0.3 * (hand.experts["a"][key].double() - tensor.double())
            - 0.5 * 0.5 * (hand.experts["b"][key].double() - tensor.double())
        ).to(tensor.dtype)
        for key, tensor in hand.base.items()
        if tensor.is_floating_point()
    }
    ours = merge("task_arithmetic", hand.base, hand.experts, {"a": 0.3, "b": -0.5}, weights=WEIGHTS)
    for key, tensor in state.items():
        torch.testing.assert_close(ours[key], tensor, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["tall_mask", "emr"])
def test_rows_of_a_model_per_task_are_those_of_merge_per_task(
    flow: Checkout, hand: Hand, method: str
) -> None:
    for row in rows_of(flow, method).to_dict("records"):
        scale = float(row["scale"])
        models = merge_per_task(method, hand.base, hand.experts, scale)
        assert hand.correct(models[row["task"]], row["task"]) == row["correct"]


def test_rows_of_an_ensemble_are_those_of_averaged_logits(flow: Checkout, hand: Hand) -> None:
    rows = rows_of(flow, "logit_ensemble").to_dict("records")
    assert {row["point"] for row in rows} == {"1.00"}
    for row in rows:
        both = [hand.logits(expert, row["task"]) for expert in hand.experts.values()]
        mean = torch.stack([logits for logits, _ in both]).mean(dim=0)
        assert int((mean.argmax(dim=1).numpy() == both[0][1]).sum()) == row["correct"]


def test_points_of_these_methods_are_exported(flow: Checkout, hand: Hand) -> None:
    folder = f"results/export/{RUN}"
    flow.run(
        f"{folder}/emr/a+b/1.00@a.safetensors",
        f"{folder}/ubgm/a+b/0.50.safetensors",
        f"{folder}/weighted/a+b/{OWN}.safetensors",
    )
    for name, expected in (
        ("emr/a+b/1.00@a", merge_per_task("emr", hand.base, hand.experts, 1.0)["a"]),
        (
            "ubgm/a+b/0.50",
            merge(
                "ubgm",
                hand.base,
                hand.experts,
                0.5,
                statistics=hand.statistics({"fisher": "fisher", "fisher_base": "prior"}),
            ),
        ),
        (
            f"weighted/a+b/{OWN}",
            merge(
                "task_arithmetic", hand.base, hand.experts, {"a": 0.3, "b": -0.5}, weights=WEIGHTS
            ),
        ),
    ):
        state = load_state(flow / folder / f"{name}.safetensors")[0]
        for key, tensor in expected.items():
            assert torch.equal(state[f"visual.{key}"], tensor), (name, key)
    refused = flow.snakemake(f"{folder}/emr/a+b/1.00.safetensors")
    assert refused.code != 0 and "gives a model for each task; name it behind" in refused.text


def test_coefficients_are_learned_once_and_used_by_rows_and_exports(
    flow: Checkout, hand: Hand
) -> None:
    found = flow.json(LEARNED)
    assert [step for step, _ in found["history"]] == [0, 1, 2]
    assert set(found["coefficients"]) == {"a", "b"} and found["images"] == "test"
    rows = rows_of(flow, "adamerging", "val")
    assert set(rows["point"]) == {"0.00", "0.50", "1.00", OWN} and rows["transductive"].all()
    point = f"results/export/{RUN}/adamerging/a+b/1.00.safetensors"
    flow.run(point)
    state = load_state(flow / point)[0]
    ours = merge("task_arithmetic", hand.base, hand.experts, found["coefficients"])
    for key, tensor in ours.items():
        torch.testing.assert_close(state[f"visual.{key}"], tensor, rtol=0, atol=1e-6)

    # More subsets learn their own coefficients, and what was learned stays.
    block = f"results/eval/{RUN}/adamerging/00000/rows.parquet"
    flow.config["grid"]["subsets"] = {"include": [*SUBSETS["include"], ["b"]]}
    assert flow.plan(block)["learn"] == 1
    flow.config["grid"]["subsets"] = SUBSETS


def test_nothing_is_left_to_do_and_options_of_a_statistic_run_it_again(flow: Checkout) -> None:
    assert flow.plan("tables") == {}
    flow.config["statistics"][0]["options"]["images"] = 9
    planned = flow.plan("tables")
    flow.config["statistics"][0]["options"]["images"] = 8
    assert planned["statistic"] == 2 and not {"finetune", "base_statistic"} & planned.keys()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"methods": [{"name": "ties", "options": {"densty": 0.1}}]}, "did you mean 'density'"),
        ({"methods": [{"name": "tall_mask", "lambdas": [0.3]}]}, "lambdas"),
    ],
)
def test_a_wrong_option_is_refused_before_any_job(
    flow: Checkout, change: dict[str, Any], sentence: str
) -> None:
    before = dict(flow.config["grid"])
    flow.config["grid"] = before | change
    refused = flow.snakemake("tables", "-n")
    flow.config["grid"] = before
    assert refused.code != 0 and sentence in refused.text
