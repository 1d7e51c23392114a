"""FS-Merge through the engine: learned from the images of the tasks, measured with a map for each."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from taskgrid.errors import ConfigError
from taskgrid.evaluation import evaluate_grid, learn_coefficients
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.inference import features_of
from tests.unit.example_grid import world

OPTIONS = {"rank": 3, "steps": 60, "lr": 0.01, "batch_size": 8, "images": "val"}


def test_rows_are_of_the_folded_model_with_a_map_for_each_task() -> None:
    small = world(("a", "b", "c"))
    merged = {task: small.tasks[task] for task in ("a", "b")}
    experts = {task: small.experts[task] for task in merged}
    learned = learn_coefficients(
        "fs_merge", small.base, small.card, merged, experts=experts, **OPTIONS
    )
    asked = {"methods": {"fs_merge": OPTIONS}, "learned": {"fs_merge": {"a+b": learned}}}
    grid = partial(
        evaluate_grid, small.base, small.card, small.tasks, experts=small.experts, subsets=["a+b"]
    )
    rows = grid(**asked)
    rows = rows[rows["method"] == "fs_merge"]
    assert set(rows["task"]) == {"a", "b"} and set(rows["point"]) == {"1.00"}
    assert not rows["transductive"].any()
    state = {key: learned[f"merged/{key}"] for key in small.base}
    encoder = ImageEncoder.from_card(small.card, state)
    for name, task in merged.items():
        images, labels = task.test
        turned = learned[f"output/{name}"].numpy()
        assert np.abs(turned - np.eye(len(turned))).max() > 0.01
        z = features_of(encoder, images).numpy() @ turned.T
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        right = ((z @ task.head.weight.numpy().T).argmax(axis=1) == labels).sum()
        row = rows[(rows["task"] == name) & (rows["split"] == "test")]
        assert list(row["correct"]) == [right]
    with pytest.raises(ConfigError, match="'fs_merge' changes features; tangent models"):
        grid(**asked, evaluation="tangent")
