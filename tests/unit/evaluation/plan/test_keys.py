from __future__ import annotations

from typing import Any

import pytest

from taskgrid.evaluation.plan import keys

CONTEXT = {"images": "i", "head": "h", "tower": "t", "precision": "fp32", "kernel": "k"}
FEATURES: dict[str, Any] = {
    "images": "i",
    "tower": "t",
    "precision": "fp32",
    "kernel": "k",
    "base": "b",
    "direction": None,
    "machine": {"batch_size": 5, "device": "cpu", "torch": "2"},
}
MERGE: dict[str, Any] = {
    "method": "ties",
    "options": {"density": 0.2},
    "code": "c",
    "base": "b",
    "vectors": ["u", "v"],
    "seed": None,
    "statistics": [],
}
TOWER: dict[str, Any] = {
    "layout": "open_clip",
    "tower": {"width": 16},
    "activation": "gelu",
    "image_size": 224,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.2, 0.2, 0.2),
}


@pytest.mark.parametrize("name", CONTEXT)
def test_a_context_depends_on_each_of_its_parts(name: str) -> None:
    assert keys.context_key(**CONTEXT) != keys.context_key(**{**CONTEXT, name: "other"})


@pytest.mark.parametrize("name", FEATURES)
def test_features_depend_on_each_of_their_parts(name: str) -> None:
    other = {"machine": {"batch_size": 6, "device": "cpu", "torch": "2"}}.get(name, "other")
    assert keys.features_key(**FEATURES) != keys.features_key(**{**FEATURES, name: other})


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("method", "dare"),
        ("options", {"density": 0.3}),
        ("code", "edited"),
        ("base", "other"),
        ("vectors", ["u"]),
        ("vectors", ["v", "u"]),
        ("seed", 7),
        ("statistics", ["fisher"]),
    ],
)
def test_a_merge_depends_on_each_of_its_parts(name: str, other: Any) -> None:
    assert keys.merge_key(**MERGE) != keys.merge_key(**{**MERGE, name: other})


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("layout", "hf"),
        ("tower", {"width": 32}),
        ("activation", "quick_gelu"),
        ("image_size", 336),
        ("mean", (0.5, 0.5, 0.4)),
        ("std", (0.2, 0.2, 0.3)),
    ],
)
def test_a_tower_is_more_than_its_weights(name: str, other: Any) -> None:
    assert keys.tower_key(**TOWER) != keys.tower_key(**{**TOWER, name: other})


def test_images_are_a_file_and_an_order() -> None:
    found = {keys.images_key(file, ids) for file in "ab" for ids in "cd"}
    assert len(found) == 4


def test_points_of_merges_differ_in_merge_coefficients_and_whose_model_it_is() -> None:
    points = {keys.point_key(merge, scale) for merge in "xy" for scale in (0.1, -0.1)}
    points |= {keys.point_key("x", None, [0.1, 0.2]), keys.point_key("x", None, [0.2, 0.1])}
    points |= {keys.point_key("x", 0.1, None, vector) for vector in ("one", "two")}
    assert len(points) == 8


def test_a_row_depends_on_weights_and_context() -> None:
    rows = {keys.row_key(weights, context) for weights in "ab" for context in "cd"}
    assert len(rows) == 4
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in rows)


def test_an_edit_of_plumbing_changes_no_number_and_any_other_edit_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closure = {
        "taskgrid.evaluation.engine.measure": "1",
        "taskgrid.store.atomic": "2",
        "taskgrid.models": "2",
        "taskgrid.new": "3",
    }

    def code() -> str:
        monkeypatch.setattr(keys, "code_closure", lambda *_: dict(closure))
        return keys.kernel_code()

    before = code()
    closure["taskgrid.store.atomic"] = "edited"
    assert code() == before
    closure["taskgrid.models"] = "one more name to export"
    assert code() == before
    closure["taskgrid.new"] = "edited"
    assert code() != before


def test_the_kernel_is_the_code_between_pixels_and_outcomes() -> None:
    from taskgrid.provenance import code_closure

    kernel = set(code_closure("taskgrid.evaluation.engine.measure"))
    assert {
        "taskgrid.evaluation.engine.measure",
        "taskgrid.models.encoder",
        "taskgrid.models.heads",
        "taskgrid.models.inference",
        "taskgrid.models.tower",
    } <= kernel
    # What walks, plans and writes may be edited without evaluating anything again.
    for module in ("engine", "runner", "planner", "rows", "grid"):
        assert f"taskgrid.evaluation.{module}" not in kernel


def test_whoever_plans_runs_again_when_the_kernel_changes() -> None:
    from taskgrid.provenance import code_closure

    assert "taskgrid.evaluation.engine.measure" in code_closure(
        "taskgrid.evaluation.opening.references"
    )
