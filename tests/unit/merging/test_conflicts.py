"""What task vectors are to each other, against NumPy written out weight by weight."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from taskgrid.merging import conflicts as module
from taskgrid.merging.conflicts import ALL, Conflict, conflicts

Array = NDArray[np.float64]
QKV, CONV, POST = "transformer.resblocks.1.attn.in_proj_weight", "conv1.weight", "ln_post.bias"
WIDE = "transformer.resblocks.1.mlp.c_proj.weight"
SHAPES = {CONV: (6, 3, 2, 2), QKV: (72, 24), WIDE: (24, 96), POST: (24,)}
LAYERS = {"embedding": [CONV], "block 1": [QKV, WIDE], "output": [POST], ALL: [*SHAPES]}


def vectors() -> dict[str, dict[str, Array]]:
    found = {}
    for seed, task in enumerate(("svhn", "dtd", "mnist")):
        random = np.random.default_rng(seed)
        found[task] = {
            key: random.normal(size=shape).astype(np.float32).astype(np.float64)
            for key, shape in SHAPES.items()
        }
        found[task][QKV][seed, ::3] = 0
    found["dtd"][POST][:] = 0
    found["mnist"][WIDE] = -2 * found["svhn"][WIDE]
    return found


def computed(given: dict[str, dict[str, Array]]) -> dict[tuple[str, str, str], Conflict]:
    states = {
        task: {key: torch.from_numpy(value).float() for key, value in vector.items()}
        for task, vector in given.items()
    }
    return {(row.task_a, row.task_b, row.layer): row for row in conflicts(states)}


def overlap(a: Array, b: Array, rank: int) -> float:
    left, right = (np.linalg.svd(each)[0][:, :rank] for each in (a, b))
    angles = np.linalg.svd(left.T @ right, compute_uv=False)
    return float(np.mean(angles**2))


@pytest.mark.parametrize("piece", [7, 1 << 20])
def test_every_number_is_what_it_says(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECE", piece)
    given = vectors()
    found = computed(given)
    pairs = list(itertools.combinations_with_replacement(["dtd", "mnist", "svhn"], 2))
    assert list(found) == [(a, b, layer) for a, b in pairs for layer in LAYERS]
    for (task_a, task_b, layer), row in found.items():
        keys = LAYERS[layer]
        a, b = (np.concatenate([given[t][k].ravel() for k in keys]) for t in (task_a, task_b))
        assert row.gram == pytest.approx(a @ b, rel=1e-12, abs=1e-10)
        assert row.depth == {"embedding": 0, "block 1": 1, "output": 2, ALL: None}[layer]
        if not a.any() or not b.any():
            assert row.cosine is row.sign_agreement is row.overlap is None
            continue
        assert row.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-12)
        both = (a != 0) & (b != 0)
        agreed = (a[both] > 0) == (b[both] > 0)
        assert row.sign_agreement == pytest.approx(agreed.mean(), abs=1e-12)
        assert row.norm_ratio == pytest.approx(np.linalg.norm(a) / np.linalg.norm(b), rel=1e-12)
        matrices = [k for k in keys if len(SHAPES[k]) == 2]
        if not matrices:
            assert row.overlap is row.rank is None
            continue
        wanted = [overlap(given[task_a][k], given[task_b][k], rank=6) for k in matrices]
        assert row.overlap == pytest.approx(np.mean(wanted), abs=1e-9) and row.rank == 6


def test_a_vector_agrees_with_itself_and_opposes_its_negative() -> None:
    given = {"a": vectors()["svhn"], "b": {k: -v for k, v in vectors()["svhn"].items()}}
    found = computed(given)
    for layer in LAYERS:
        own, other = found["a", "a", layer], found["a", "b", layer]
        assert (own.cosine, own.sign_agreement, own.norm_ratio) == pytest.approx((1, 1, 1))
        assert (other.cosine, other.sign_agreement, other.norm_ratio) == pytest.approx((-1, 0, 1))
        assert other.overlap is None or other.overlap == pytest.approx(1)


def test_matrices_that_one_task_left_alone_have_no_overlap() -> None:
    given = vectors()
    given["dtd"][QKV][:] = 0
    found = computed(given)
    alone = overlap(given["dtd"][WIDE], given["mnist"][WIDE], rank=6)
    assert found["dtd", "mnist", "block 1"].overlap == pytest.approx(alone, abs=1e-9)
    assert found["dtd", "mnist", "output"].norm_ratio == 0
    given["dtd"][WIDE][:] = 0
    empty = computed(given)["dtd", "mnist", "block 1"]
    assert empty.overlap is None and empty.rank == 6 and empty.gram == 0


def test_directions_of_lower_rank_are_not_made_up() -> None:
    given = vectors()
    for task, column in (("dtd", 0), ("mnist", 1)):
        given[task][QKV] = np.outer(np.eye(72)[column], np.arange(24.0))
    found = computed(given)
    assert found["dtd", "dtd", "block 1"].overlap == pytest.approx(1)
    matched = overlap(given["dtd"][WIDE], given["mnist"][WIDE], rank=6)
    assert found["dtd", "mnist", "block 1"].overlap == pytest.approx(matched / 2, abs=1e-9)
