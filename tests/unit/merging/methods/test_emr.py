"""EMR-Merging against the paper's equations, one weight after the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.merging.methods.awkward import SHAPES, Arrays, models, task_vectors


def by_hand(
    arrays: Arrays, rescale: str = "sums", zero_sign: str = "none"
) -> dict[str, dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]]:
    elected = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for name, shape in SHAPES.items():
        for at in np.ndindex(shape):
            entries = [vector[name][at] for vector in arrays.values()]
            sign = np.sign(sum(entries)) or (-1 if zero_sign == "negative" else 0)
            agree = [abs(entry) for entry in entries if entry * sign > 0]
            elected[name][at] = sign * max(agree, default=0)
    found = {}
    for task, vector in arrays.items():
        masked = {n: np.where(vector[n] * elected[n] > 0, elected[n], 0) for n in SHAPES}
        size = np.mean if rescale == "means" else np.sum
        own = sum(size(np.abs(vector[name])) for name in SHAPES)
        left = sum(size(np.abs(masked[name])) for name in SHAPES)
        found[task] = {name: masked[name] * (own / left if left else 1.0) for name in SHAPES}
    return found


@settings(max_examples=60)
@given(
    arrays=task_vectors(),
    rescale=st.sampled_from(["sums", "means"]),
    zero_sign=st.sampled_from(["none", "negative"]),
    scale=st.sampled_from([1.0, 0.3, -2.0]),
)
def test_elect_mask_rescale(arrays: Arrays, rescale: str, zero_sign: str, scale: float) -> None:
    found = models("emr", arrays, scale=scale, rescale=rescale, zero_sign=zero_sign)
    for task, expected in by_hand(arrays, rescale, zero_sign).items():
        for name in SHAPES:
            np.testing.assert_allclose(
                found[task][name], scale * expected[name], rtol=1e-13, atol=1e-300
            )


def test_the_rescaler_keeps_the_size_of_a_task_vector() -> None:
    random = np.random.default_rng(0)
    arrays = {
        task: {name: random.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
        for task in "xyz"
    }
    for task, model in models("emr", arrays).items():
        own = sum(np.abs(arrays[task or ""][name].astype(np.float64)).sum() for name in SHAPES)
        assert sum(np.abs(model[name]).sum() for name in SHAPES) == pytest.approx(own, rel=1e-12)


def test_where_entries_cancel_the_paper_leaves_the_base_and_its_code_takes_minus() -> None:
    arrays = {
        task: {name: np.full(shape, value) for name, shape in SHAPES.items()}
        for task, value in (("x", 0.5), ("y", -0.5))
    }
    assert all(not model["a"].any() for model in models("emr", arrays).values())
    found = models("emr", arrays, zero_sign="negative")
    assert not found["x"]["a"].any() and (found["y"]["a"] == -0.5).all()
