"""The networks of a run, from files to tables: each number against the networks themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from taskgrid.errors import ArtifactError
from taskgrid.evaluation.features.edits import Asked
from taskgrid.evaluation.features.watching import watch
from taskgrid.evaluation.learning import learn, learned_file
from taskgrid.evaluation.opening.files import GridFiles
from taskgrid.evaluation.plan.choices import Chosen
from taskgrid.machine.meter import Silent
from taskgrid.merging import merge, merge_per_task
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.inference import features_of
from taskgrid.plugins.cards import plugin_options, shown_options
from taskgrid.provenance.digests import canonical_json
from taskgrid.statistics.seam import chosen_rows
from taskgrid.store.atomic import write_json
from taskgrid.store.weights import State, save_state
from taskgrid.vectors import TaskVector
from tests.unit.evaluation.opening.test_files import Flow
from tests.unit.example_grid import world

CPU = torch.device("cpu")
SURGERY = {"images": "train", "steps": 30, "rank": 3, "lr": 0.05}
METHODS: Mapping[str, tuple[str, Mapping[str, Any], str]] = {
    "task_arithmetic": ("task_arithmetic", {}, "0.50"),
    "tall_mask": ("tall_mask", {}, "1.00"),
    "surgery": ("surgery", SURGERY, "1.00"),
}
IMAGES = 9


def chosen(name: str, options: Mapping[str, Any], point: str) -> Chosen:
    shown = canonical_json(shown_options(name, plugin_options("merger", name, options)))
    return Chosen(
        **{"model": "model", "mode": "standard", "seed": 0, "method": name, "options": shown},
        **{"subset": "a+b", "study": "addition", "rule": "", "about": "", "tasks": ("a", "b")},
        **{"point": point, "at_edge": False, "met": True},
    )


class Run:
    """A run of two tasks, the second of which has learned nothing."""

    def __init__(self, folder: Path) -> None:
        small = world(("a", "b"))
        self.small = replace(small, experts={**small.experts, "b": small.base})
        self.flow = Flow(folder, self.small)
        self.setting, self.learned = self.flow.setting(), folder / "coefficients.json"
        self.material = self.flow.material(self.setting)
        recipe = MergeRecipe.of("surgery", SURGERY)
        self.learning = learn(
            self.material, self.setting, recipe, ("a", "b"), CPU, lambda *_: Silent()
        )
        save_state(folder / "tensors.safetensors", self.learning.tensors, {"kind": "learned"})
        write_json(self.learned, learned_file(self.setting, recipe, ("a", "b"), self.learning))

    def watch(
        self, methods: Sequence[str] = tuple(METHODS), **more: Any
    ) -> dict[str, pd.DataFrame]:
        at = self.flow.folder
        learned = {"surgery/a+b": self.learned} if "surgery" in methods else {}
        files = GridFiles(
            at / "base.json", at / "base.safetensors", self.flow.files, learned=learned
        )
        specs = {
            label: {"name": name, "options": options, "needs": {}, "subsets": ["a+b"]}
            for label, (name, options, *_) in METHODS.items()
            if label in methods
        }
        asked = Asked(**{"study": "addition", "images": IMAGES, **more}, methods=specs)
        points = [chosen(*METHODS[label]) for label in METHODS]
        found = watch(files, self.setting, asked, points, CPU, lambda *_: Silent())
        return {name: table.to_pandas() for name, table in found.items()}

    def images(self, task: str) -> np.ndarray:
        every = self.material.tasks[task].images("train")
        return every[:][chosen_rows(len(every), IMAGES, 0)]

    def features(self, state: State, task: str) -> np.ndarray:
        encoder = ImageEncoder.from_card(self.small.card, state)
        return features_of(encoder, self.images(task)).double().numpy()

    def networks(self, task: str) -> dict[str, State]:
        """Each network as its own door makes it."""
        base, experts = self.small.base, self.small.experts
        per_task = merge_per_task("tall_mask", base, experts, 1.0)
        return {
            "zeroshot": base,
            "expert": experts[task],
            "task_arithmetic": merge("task_arithmetic", base, experts, 0.5),
            "tall_mask": per_task[task],
            "surgery": merge("task_arithmetic", base, experts, 0.3),
        }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def seen(run: Run) -> dict[str, pd.DataFrame]:
    return run.watch(weights_at=(0.0, 1.0))


@pytest.mark.parametrize("task", ["a", "b"])
def test_the_bias_is_the_distance_from_the_experts_features(
    run: Run, seen: dict[str, pd.DataFrame], task: str
) -> None:
    rows = seen["bias"][seen["bias"]["task"] == task].set_index("method")
    features = {name: run.features(state, task) for name, state in run.networks(task).items()}
    assert set(rows.index) == set(features) and set(rows["n"]) == {IMAGES}
    for name, found in features.items():
        apart = found - features["expert"]
        assert rows.loc[name, "l1"] == pytest.approx(np.abs(apart).mean(), rel=1e-4, abs=1e-7)
        wanted = np.linalg.norm(apart, axis=1).mean()
        assert rows.loc[name, "l2"] == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    down, up = (run.learning.tensors[f"{part}/{task}"].double().numpy() for part in ("down", "up"))
    z = features["surgery"]
    left = np.abs(z - np.maximum(z @ down.T, 0) @ up.T - features["expert"]).mean()
    assert rows.loc["surgery", "l1_left"] == pytest.approx(left, rel=1e-4, abs=1e-7)
    if task == "a":
        # It was learned on these images: something is gone.
        assert left < 0.95 * rows.loc["surgery", "l1"]
    assert rows.drop("surgery")["l1_left"].isna().all()


def test_an_expert_that_learned_nothing_is_the_base_exactly(seen: dict[str, pd.DataFrame]) -> None:
    norms = seen["norms"]
    moved = norms.groupby(["task", "method"])["norm_delta"].max()
    assert (
        moved["b", "expert"] == 0 and (moved["a"] > 0).all() and moved["b", "task_arithmetic"] > 0
    )
    assert (norms["norm_base"] > 0).all() and (norms["n"] == IMAGES).all()
    still = seen["bias"].set_index(["task", "method"])["l1"]
    assert still["b", "zeroshot"] == 0 < still["a", "zeroshot"]


def test_norms_of_features_are_those_of_the_networks(
    run: Run, seen: dict[str, pd.DataFrame]
) -> None:
    rows = seen["norms"]
    rows = rows[(rows["layer"] == "output") & (rows["task"] == "a")].set_index("method")
    networks = {name: run.features(state, "a") for name, state in run.networks("a").items()}
    for name in rows.index:
        lengths = np.linalg.norm(networks[name] - networks["zeroshot"], axis=1)
        assert rows.loc[name, "norm_delta"] == pytest.approx(lengths.mean(), rel=1e-4)
        assert rows.loc[name, "sample_delta"] == pytest.approx(lengths[0], rel=1e-4)
    parts = seen["norms"].groupby("layer")["part"].unique().map(sorted).to_dict()
    every = ["attention", "block", "k", "mlp", "q", "v"]
    assert parts == {
        **{"embedding": ["block"], "output": ["block"]},
        **{"block 0": every, "block 1": every},
    }
    assert seen["norms"].groupby("layer")["token"].max().to_dict() == {
        **{"embedding": 4, "block 0": 4, "block 1": 4, "output": 0}
    }


def test_pairs_of_networks_are_compared_where_images_change_the_class_token(
    run: Run, seen: dict[str, pd.DataFrame]
) -> None:
    rows = seen["similarity"]
    assert set(rows["layer"]) == {"block 0", "block 1", "output"}
    own = rows[(rows["method"] == rows["other_method"])]
    assert np.allclose(own["cka"], 1) and np.allclose(own["cosine"], 1)
    last = rows[(rows["layer"] == "output") & (rows["task"] == "a")]
    assert len(last) == 5 * 6 / 2
    pair = last[(last["method"] == "zeroshot") & (last["other_method"] == "expert")].iloc[0]
    x, y = (run.features(run.networks("a")[name], "a") for name in ("zeroshot", "expert"))
    one, two = x - x.mean(axis=0), y - y.mean(axis=0)
    shared, sizes = np.linalg.norm(one.T @ two) ** 2, [np.linalg.norm(z.T @ z) for z in (one, two)]
    assert pair["cka"] == pytest.approx(shared / np.prod(sizes), rel=1e-4)
    cosines = (x * y).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert pair["cosine"] == pytest.approx(cosines.mean(), rel=1e-5)


def test_weights_are_measured_along_lambda(run: Run, seen: dict[str, pd.DataFrame]) -> None:
    whole = seen["weights"][seen["weights"]["layer"] == "all"]
    points = whole.groupby("method")["point"].unique().map(sorted).to_dict()
    assert points == {
        "expert": ["0.00", "1.00"],
        "task_arithmetic": ["0.00", "0.50", "1.00"],
        # Neither has a coefficient of its own.
        "tall_mask": ["1.00"],
        "surgery": ["1.00"],
    }
    assert not whole[whole["point"] == "0.00"]["norm_delta"].any()
    expert = whole[(whole["method"] == "expert") & (whole["point"] == "1.00")].set_index("subset")
    vector = TaskVector.between(run.small.base, run.small.experts["a"])
    assert expert.loc["a", "norm_delta"] == pytest.approx(vector.norm(), rel=1e-6)
    assert expert.loc["b", "norm_delta"] == 0
    # Of a method with a model for each task, each of them; of others one.
    assert set(whole[whole["method"] == "tall_mask"]["task"]) == {"a", "b"}
    assert whole[whole["method"] != "tall_mask"]["task"].isna().all()


def test_the_first_image_is_kept(run: Run, seen: dict[str, pd.DataFrame]) -> None:
    rows = seen["pixels"][seen["pixels"]["task"] == "a"].sort_values(["pixel_y", "pixel_x"])
    wanted = run.images("a")[0]
    assert np.array_equal(rows[["red", "green", "blue"]].to_numpy().reshape(wanted.shape), wanted)


def test_further_coefficients_are_looked_at_beside_the_chosen_one(run: Run) -> None:
    found = run.watch(["task_arithmetic", "surgery"], lambdas=(0.0, 0.5, 2.0))
    rows = found["bias"].groupby(["method", "point"])["chosen"].first()
    assert rows.to_dict() == {
        ("zeroshot", "0.00"): True,
        **{("expert", point): point == "1.00" for point in ("0.00", "0.50", "1.00", "2.00")},
        **{("task_arithmetic", point): point == "0.50" for point in ("0.00", "0.50", "2.00")},
        ("surgery", "1.00"): True,
    }
    still = found["norms"].groupby("point")["norm_delta"].max()
    assert still["0.00"] == 0 and still["0.50"] > 0


def test_how_many_images_are_looked_at_changes_none_of_them(run: Run) -> None:
    every = run.watch(["task_arithmetic"], images=0)
    n = len(run.material.tasks["a"].images("train"))
    assert n > IMAGES and set(every["bias"]["n"]) == {n}


def test_a_merge_for_which_nothing_was_chosen_is_named(run: Run) -> None:
    with pytest.raises(
        ArtifactError, match=r"study 'negation' chose no point for the merge of a\+b"
    ):
        run.watch(study="negation")
