"""Storage against what a merge by hand keeps, counted in bytes."""

from __future__ import annotations

import pytest
import torch

from taskgrid import plugins
from taskgrid.merging.bases.masks import pack
from taskgrid.plugins.cards import MergerCard, merger_card
from taskgrid.plugins.storage import Storage, Tower

WEIGHTS, TASKS = 4096, 8
TOWER = Tower(WEIGHTS, 96)


def test_masks_and_a_vector_are_counted_as_they_are_packed() -> None:
    vector = torch.zeros(WEIGHTS, dtype=torch.float32)
    mask = pack(torch.ones(WEIGHTS, dtype=torch.bool))
    kept = vector.nbytes + TASKS * mask.nbytes
    storage = merger_card("tall_mask").storage
    assert storage.megabytes(TOWER, TASKS, {}) == kept / 1e6
    assert storage.bits_per_weight(TOWER, TASKS, {}) == 40
    # Two maps of rank 16 for each task, and a model in place of the base.
    surgery = merger_card("surgery").storage
    assert surgery.megabytes(TOWER, TASKS, {"rank": 16}) == 4 * TASKS * 2 * 16 * 96 / 1e6
    # A square map of features for each task.
    assert merger_card("fs_merge").storage.megabytes(TOWER, TASKS, {}) == 4 * TASKS * 96**2 / 1e6
    # EMR has a float32 rescaler for each task besides.
    assert merger_card("emr").storage.megabytes(TOWER, TASKS, {}) == (kept + 4 * TASKS) / 1e6
    assert (
        merger_card("logit_ensemble").storage.megabytes(TOWER, TASKS, {}) == 4 * WEIGHTS * 8 / 1e6
    )


def test_some_options_leave_a_single_model() -> None:
    zipit = merger_card("zipit").storage
    assert zipit.bits_per_weight(TOWER, TASKS, {"layers": "all", "beta": 0.1}) == 0
    assert zipit.bits_per_weight(TOWER, TASKS, {"layers": 2, "beta": 0.1}) == 32 * TASKS


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        (Storage(shared=32, task=1), "32 + T bits per weight"),
        (Storage(shared=32, task=1, numbers=1), "32 + T bits per weight, T numbers"),
        (Storage(task=32), "32 T bits per weight"),
        (Storage(numbers=3), "3 T numbers"),
        (Storage(rank="rank"), "2 rank d T numbers"),
        (Storage(square=True), "d² T numbers"),
        (
            Storage(task=32, single_if={"layers": "all"}),
            "32 T bits per weight at most, nothing with layers: all",
        ),
        (Storage(), "nothing"),
    ],
)
def test_it_is_said_as_a_formula(storage: Storage, words: str) -> None:
    assert storage.words() == words


def test_whoever_gives_more_than_one_model_says_what_is_kept() -> None:
    for name in plugins.names("merger"):
        card = merger_card(name)
        assert (card.storage.megabytes(TOWER, TASKS, {"rank": 1}) > 0) == (card.gives != "model"), (
            name
        )
    with pytest.raises(ValueError, match="says what it keeps"):
        MergerCard(title="x", gives="per_task")
    with pytest.raises(ValueError, match="says what it keeps"):
        MergerCard(title="x", storage=Storage(task=1))
