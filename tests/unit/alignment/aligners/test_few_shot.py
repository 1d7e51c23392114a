"""Few-shot fine-tuning in the place of a transport: it learns, and nothing of the vector arrives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from taskgrid.alignment import transport
from taskgrid.errors import ConfigError, LineageError
from tests.unit.alignment.aligners.example_bases import ATTENTION, pair

SHORT: dict[str, Any] = {"steps": 40, "lr": 1e-3, "augment": 1.0}


def test_the_loss_on_the_few_images_falls() -> None:
    given = pair()
    assert given.loss(given.expert("few_shot", **SHORT)) < 0.5 * given.loss(given.target.base)


def test_nothing_of_the_vector_arrives() -> None:
    given = pair()
    other = replace(given, vector={key: -2 * one for key, one in given.vector.items()})
    one, two = given.expert("few_shot", **SHORT), other.expert("few_shot", **SHORT)
    assert all(torch.equal(one[key], two[key]) for key in one)
    found = given.transport("few_shot", **SHORT)
    assert not found.map.keys
    with pytest.raises(LineageError, match="no inverse"):
        found.inverse()


def test_a_whole_model_is_not_brought() -> None:
    base = {"a": pair().target.base}
    with pytest.raises(ConfigError, match="'few_shot' brings a task's vector over"):
        transport("few_shot", base["a"], base, base["a"], carry="model")


def test_the_mode_says_what_trains() -> None:
    given = pair()
    expert = given.expert("few_shot", **SHORT, mode="attention")
    moved = {key for key in expert if not torch.equal(expert[key], given.target.base[key])}
    assert moved == {key for key in expert if key.endswith(ATTENTION)}
    whole = given.expert("few_shot", **SHORT)
    assert not torch.equal(whole["proj"], given.target.base["proj"])


def test_images_are_all_that_it_depends_on() -> None:
    given, fewer = pair(), pair(count=3)
    one, two = given.expert("few_shot", **SHORT), fewer.expert("few_shot", **SHORT)
    assert not all(torch.equal(one[key], two[key]) for key in one)
