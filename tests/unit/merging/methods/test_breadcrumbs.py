"""Model Breadcrumbs against the masks written out row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from taskgrid.errors import ConfigError
from taskgrid.merging.recipe import MergeRecipe
from tests.unit.merging.methods.awkward import SHAPES, Arrays, models, task_vectors


def masked(row: list[float], keep: float, remove: float, order: str) -> list[float]:
    """Mask one row in two steps, each of which looks at what the one before left."""
    steps = [("remove", int(len(row) * remove)), ("keep", int(len(row) * keep))]
    left = set(range(len(row)))
    for step, count in steps if order == "remove_first" else steps[::-1]:
        # The removed are the largest of all also where others have been dropped before.
        ranked = sorted(left, key=lambda at: (-abs(row[at]), at))
        left = set(ranked[count:] if step == "remove" else ranked[:count])
    return [entry if at in left else 0.0 for at, entry in enumerate(row)]


def masked_tensor(flat: list[float], keep: float, remove: float) -> list[float]:
    """mergekit's way: ascending, `remove` off the top unless too few would be left."""
    count = len(flat)
    top = min(int(remove * count), count - int(keep * count))
    bottom = count - int(keep * count) - top
    ranked = sorted(range(count), key=lambda at: (abs(flat[at]), -at))
    left = set(ranked[bottom : count - top])
    return [entry if at in left else 0.0 for at, entry in enumerate(flat)]


def by_hand(array: NDArray[np.float64], options: dict[str, Any]) -> NDArray[np.float64]:
    keep, remove = options["keep"], options["remove"]
    if options["scope"] == "tensor":
        return np.array(masked_tensor([*array.ravel()], keep, remove)).reshape(array.shape)
    if array.ndim == 0:
        return array
    rows = array.reshape(-1, array.shape[-1])
    return np.array([masked([*row], keep, remove, options["order"]) for row in rows]).reshape(
        array.shape
    )


@settings(max_examples=80)
@given(
    arrays=task_vectors(),
    keep=st.sampled_from([0.2, 0.5, 0.8, 1.0]),
    remove=st.sampled_from([0.0, 0.1, 0.25, 0.6]),
    order=st.sampled_from(["remove_first", "keep_first"]),
    scope=st.sampled_from(["row", "tensor"]),
    pointed=st.booleans(),
)
def test_every_option_is_two_masks_and_a_sum(
    arrays: Arrays, keep: float, remove: float, order: str, scope: str, pointed: bool
) -> None:
    options = {"keep": keep, "remove": remove, "order": order, "scope": scope}
    assume(scope == "tensor" or (keep > remove if order == "keep_first" else keep + remove <= 1))
    factors = dict(zip(sorted(arrays), (0.5, -1.0, 2.0, 4.0), strict=False))
    point = factors if pointed else dict.fromkeys(arrays, 1.0)
    (found,) = models("breadcrumbs", arrays, 0.5, factors if pointed else None, **options).values()
    for name in SHAPES:
        total = sum(point[task] * by_hand(arrays[task][name], options) for task in arrays)
        np.testing.assert_array_equal(found[name], 0.5 * np.asarray(total))


def test_the_worked_example_of_both_orders() -> None:
    row = np.array([1.0, -2, 3, -4, 5])
    vector = {name: np.zeros(shape) for name, shape in SHAPES.items()} | {"b": row}
    for order, expected in (("remove_first", [0, 0, 3, -4, 0]), ("keep_first", [0, 0, 0, -4, 0])):
        (found,) = models("breadcrumbs", {"x": vector}, keep=0.4, remove=0.2, order=order).values()
        assert found["b"].tolist() == expected


def test_removing_nothing_keeps_the_largest_and_keeping_all_is_the_expert() -> None:
    random = np.random.default_rng(0)
    vector = {name: random.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    arrays: Arrays = {"x": {name: a.astype(np.float64) for name, a in vector.items()}}
    for scope in ("row", "tensor"):
        said: dict[str, Any] = {"remove": 0.0, "scope": scope}
        (found,) = models("breadcrumbs", arrays, keep=1.0, **said).values()
        assert all((found[name] == arrays["x"][name]).all() for name in SHAPES)
        (found,) = models("breadcrumbs", arrays, keep=0.2, **said).values()
        largest = np.abs(arrays["x"]["b"]).argmax()
        assert np.flatnonzero(found["b"]).tolist() == [largest]


@pytest.mark.parametrize(
    ("option", "value"), [("keep", 0), ("remove", 1), ("order", "both"), ("scope", "global")]
)
def test_wrong_options_are_refused(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"option '{option}' of merge method 'breadcrumbs'"):
        MergeRecipe.of("breadcrumbs", {option: value})


def test_whole_tensors_can_pass_by() -> None:
    assert MergeRecipe.of("breadcrumbs", {}).scope == "tensor"
