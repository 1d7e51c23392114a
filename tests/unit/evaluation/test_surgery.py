"""Features that a merge method changes, through the engine."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from taskgrid.errors import ConfigError
from taskgrid.evaluation import evaluate_grid, learn_coefficients
from taskgrid.evaluation.engine.engine import Engine
from taskgrid.evaluation.plan.setting import Request, Weights
from taskgrid.merging import merge
from taskgrid.merging.recipe import MergeRecipe
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.inference import features_of
from tests.unit.example_grid import World, held, world

OPTIONS = {"rank": 3, "steps": 40, "lr": 0.05, "images": "val"}


@pytest.fixture(scope="module")
def small() -> World:
    return world(("a", "b", "c"))


def test_rows_are_of_corrected_features(small: World) -> None:
    merged = {task: small.tasks[task] for task in ("a", "b")}
    experts = {task: small.experts[task] for task in merged}
    learned = learn_coefficients(
        "surgery", small.base, small.card, merged, experts=experts, **OPTIONS
    )
    rows = evaluate_grid(
        small.base, small.card, small.tasks, experts=small.experts, subsets=["a+b"],
        methods={"surgery": OPTIONS}, learned={"surgery": {"a+b": learned}},
    )  # fmt: skip
    rows = rows[rows["method"] == "surgery"]
    # Of a task that was not merged nothing was learned.
    assert set(rows["task"]) == {"a", "b"} and set(rows["point"]) == {"1.00"}
    assert not rows["transductive"].any()
    encoder = ImageEncoder.from_card(small.card, merge("task_arithmetic", small.base, experts, 0.3))
    recipe = MergeRecipe.of("surgery", OPTIONS)
    given = replace(held(small), learned={"surgery": {"a+b": learned}})
    engine = Engine(given.material("surgery"), recipe)
    for name, task in merged.items():
        images, labels = task.test
        z = features_of(encoder, images).numpy()
        down, up = (learned[f"{part}/{name}"].numpy() for part in ("down", "up"))
        assert np.abs(up).max() > 0.01
        mended = z - np.maximum(z @ down.T, 0) @ up.T
        mended /= np.linalg.norm(mended, axis=1, keepdims=True)
        logits = mended @ task.head.weight.numpy().T
        row = rows[(rows["task"] == name) & (rows["split"] == "test")]
        assert list(row["correct"]) == [(logits.argmax(axis=1) == labels).sum()]
        # And so are the logits that others listen to.
        weights = Weights("merge", ("a", "b"), "1.00")
        _, heard = engine.listen(Request("key", weights, name, "test", len(labels)))
        np.testing.assert_allclose(heard, logits, atol=2e-4)
        # Experts and base are measured with their own features.
        plain = Request("expert", Weights("expert", (name,), "1.00"), name, "test", len(labels))
        expert = ImageEncoder.from_card(small.card, small.experts[name])
        expected = task.head.logits(features_of(expert, images)).numpy()
        np.testing.assert_allclose(engine.listen(plain)[1], expected, atol=2e-4)


def test_what_was_learned_brings_features_nearer_to_the_expert(small: World) -> None:
    learn = partial(
        learn_coefficients, "surgery", small.base, small.card, small.tasks, experts=small.experts
    )
    learned = learn(**OPTIONS | {"steps": 200})
    merged = merge("task_arithmetic", small.base, small.experts, 0.3)
    for name, task in small.tasks.items():
        images = task.val[0]
        ours, theirs = (
            features_of(ImageEncoder.from_card(small.card, state), images)
            for state in (merged, small.experts[name])
        )
        down, up = learned[f"down/{name}"], learned[f"up/{name}"]
        after = ours - torch.relu(ours @ down.T) @ up.T
        assert (after - theirs).abs().mean() < 0.7 * (ours - theirs).abs().mean()


def test_test_images_make_rows_transductive_and_tangent_models_are_refused(small: World) -> None:
    pair = {task: small.tasks[task] for task in ("a", "b")}
    experts = {task: small.experts[task] for task in pair}
    options = {"steps": 1, "rank": 1}
    learned = learn_coefficients(
        "surgery", small.base, small.card, pair, experts=experts, **options
    )
    asked = {"methods": {"surgery": options}, "learned": {"surgery": {"a+b": learned}}}
    grid = partial(
        evaluate_grid, small.base, small.card, pair, experts=experts, subsets=["a+b"], **asked
    )
    rows = grid()
    assert rows[rows["method"] == "surgery"]["transductive"].all()
    with pytest.raises(ConfigError, match="'surgery' changes features; tangent models"):
        grid(evaluation="tangent")
