"""What is known of a statistic, and what it is refused with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from taskgrid.errors import ArtifactError, LineageError
from taskgrid.models.card import ModelCard
from taskgrid.statistics.manifest import StatisticManifest, read_statistic
from taskgrid.store.atomic import write_json
from tests.unit.example_grid import world

CARD = world(("a",), val=1, test=1).card
MADE = StatisticManifest(
    digest="d",
    statistic="fisher",
    part="train",
    images=7,
    options={"images": 7, "labels": "exact"},
    lineage={**CARD.lineage(), "task": "a", "expert": "e", "head": "h", "split": "s"},
)
USED = {"head": "h", "split": "s"}


def read(folder: Path, expert: str = "e", card: ModelCard = CARD, **used: str) -> StatisticManifest:
    return read_statistic(
        folder / "a.json", card=card, task="a", expert=expert, used={**USED, **used}
    )


def test_written_and_read_again(tmp_path: Path) -> None:
    MADE.write(tmp_path / "a.json")
    assert read(tmp_path) == MADE
    assert not MADE.transductive
    assert replace(MADE, part="test").transductive


@pytest.mark.parametrize("entry", ["expert", "head", "split"])
def test_of_something_else_it_is_refused(tmp_path: Path, entry: str) -> None:
    MADE.write(tmp_path / "a.json")
    with pytest.raises(LineageError, match=f"statistic 'fisher' of task 'a'.*{entry}.*other"):
        read(tmp_path, **{entry: "other"})
    with pytest.raises(LineageError, match="another base weights"):
        read(tmp_path, card=replace(CARD, base="other"))


def test_a_head_that_was_not_seen_is_not_compared(tmp_path: Path) -> None:
    lineage = {name: value for name, value in MADE.lineage.items() if name != "head"}
    replace(MADE, lineage=lineage).write(tmp_path / "a.json")
    assert read(tmp_path, head="other").digest == "d"


def test_one_of_the_base_is_compared_with_every_task_that_it_saw(tmp_path: Path) -> None:
    lineage = {**CARD.lineage(), "a.head": "h", "a.split": "s", "b.head": "i", "b.split": "t"}
    replace(MADE, lineage=lineage).write(tmp_path / "base.json")
    # Of the tasks of a block it may have seen none, or others too.
    for used in ({}, {"a.head": "h", "a.split": "s"}, {"c.head": "x", "b.split": "t"}):
        assert read_statistic(tmp_path / "base.json", card=CARD, used=used).digest == "d"
    with pytest.raises(LineageError, match=r"'fisher' of the base comes from another b\.split"):
        read_statistic(tmp_path / "base.json", card=CARD, used={"b.split": "s"})
    MADE.write(tmp_path / "a.json")
    with pytest.raises(LineageError, match="of the base was made from expert e"):
        read_statistic(tmp_path / "a.json", card=CARD)


def test_other_json_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"digest": "d"})
    with pytest.raises(ArtifactError, match="no manifest of a statistic"):
        StatisticManifest.read(tmp_path / "a.json")
