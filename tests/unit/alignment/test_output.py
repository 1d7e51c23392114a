"""Features brought under other heads: the classes that are predicted, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from taskgrid.alignment import transport
from taskgrid.alignment.output import output_map, with_output
from taskgrid.errors import ConfigError, LineageError
from taskgrid.models.heads import Head
from tests.unit.alignment.aligners.example_bases import pair

TASKS = ("a", "b")


def heads(width: int, seed: int, classes: int = 3, scale: float = 30.0) -> dict[str, Head]:
    draws = np.random.default_rng(seed)
    found = {}
    for task in TASKS:
        rows = torch.tensor(draws.normal(size=(classes, width)))
        names = tuple(f"{task}{place}" for place in range(classes))
        unit = rows / rows.norm(dim=1, keepdim=True)
        found[task] = Head((scale * unit).float(), names, {"task": task})
    return found


def test_features_get_the_logits_that_they_had_up_to_their_norm() -> None:
    theirs, ours = heads(8, 0), heads(10, 1, scale=70.0)
    found, missed = output_map(theirs, ours)
    assert found.shape == (10, 8) and missed < 1e-12
    features = np.random.default_rng(2).normal(size=(50, 8))
    moved = features @ found.numpy().T
    for task in TASKS:
        own, there = theirs[task].weight.double().numpy(), ours[task].weight.double().numpy()
        assert np.allclose(features @ own.T / 30, moved @ there.T / 70, atol=1e-6)
    # Of least norm: no other map that does the same is shorter.
    rows = np.concatenate([ours[task].weight.double().numpy() for task in TASKS])
    within = rows.T @ np.linalg.solve(rows @ rows.T, rows)
    assert np.allclose(within @ found.numpy(), found.numpy(), atol=1e-6)


def test_more_classes_than_features_are_met_as_well_as_can_be() -> None:
    theirs, ours = heads(6, 0, classes=7), heads(6, 1, classes=7)
    found, missed = output_map(theirs, ours)
    (a, b) = (
        np.concatenate([each[task].weight.double().numpy() / 30 for task in TASKS])
        for each in (theirs, ours)
    )
    best, *_ = np.linalg.lstsq(b, a, rcond=None)
    assert np.allclose(found.numpy(), best, atol=1e-6)
    assert missed == pytest.approx(np.linalg.norm(b @ best - a) / np.linalg.norm(a), rel=1e-6)
    assert missed > 0.1


def test_a_model_that_is_carried_whole_predicts_what_it_did() -> None:
    between = pair()
    width = between.source.base["proj"].shape[1]
    theirs, ours = heads(width, 3), heads(width, 4)
    expert = {key: tensor + between.vector[key] for key, tensor in between.source.base.items()}
    moved = transport(
        "none",
        between.source.base,
        {"a": expert},
        between.target.base,
        carry="model",
        heads=ours,
        source_heads=theirs,
    )["a"]
    before, after = between.features(expert), between.features(moved)
    unmapped = ours["a"].logits(before).argmax(dim=1)
    for task in TASKS:
        wanted = theirs[task].logits(before).argmax(dim=1)
        assert torch.equal(ours[task].logits(after).argmax(dim=1), wanted)
    assert not torch.equal(ours["a"].logits(after).argmax(dim=1), unmapped)


def test_what_has_no_output_to_map_is_refused() -> None:
    between = pair()
    width = between.source.base["proj"].shape[1]
    found, _ = output_map(heads(width, 0), heads(width, 1))
    planted = between.transport("few_shot", steps=1)
    with pytest.raises(LineageError, match="carries `proj` of a vision transformer"):
        with_output(planted, found)
    once = with_output(between.transport("none"), found)
    with pytest.raises(LineageError, match="carries `proj`"):
        with_output(once, found)
    with pytest.raises(ConfigError, match="use carry='model'"):
        transport(
            "none",
            between.source.base,
            {"a": between.source.base},
            between.target.base,
            source_heads=heads(width, 0),
        )


def test_heads_of_other_classes_or_tasks_are_refused() -> None:
    theirs, ours = heads(8, 0), heads(8, 1, classes=4)
    with pytest.raises(
        LineageError, match="the heads of task 'a' at both bases have other classes"
    ):
        output_map(theirs, ours)
    with pytest.raises(LineageError, match="the same tasks, at least one"):
        output_map(theirs, {"a": ours["a"]})
    with pytest.raises(LineageError, match="the same tasks, at least one"):
        output_map({}, {})
