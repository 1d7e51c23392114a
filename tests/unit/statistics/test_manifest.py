"""What is known of a statistic, and what it is refused with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from taskgrid.errors import ArtifactError, LineageError
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
USED = {"task": "a", "expert": "e", "head": "h", "split": "s"}


def test_written_and_read_again(tmp_path: Path) -> None:
    MADE.write(tmp_path / "a.json")
    assert read_statistic(tmp_path / "a.json", card=CARD, **USED) == MADE
    assert not MADE.transductive
    assert replace(MADE, part="test").transductive


@pytest.mark.parametrize("entry", ["expert", "head", "split"])
def test_of_something_else_it_is_refused(tmp_path: Path, entry: str) -> None:
    MADE.write(tmp_path / "a.json")
    with pytest.raises(LineageError, match=f"statistic 'fisher' of task 'a'.*{entry}.*other"):
        read_statistic(tmp_path / "a.json", card=CARD, **{**USED, entry: "other"})
    with pytest.raises(LineageError, match="another base weights"):
        read_statistic(tmp_path / "a.json", card=replace(CARD, base="other"), **USED)


def test_a_head_that_was_not_seen_is_not_compared(tmp_path: Path) -> None:
    lineage = {name: value for name, value in MADE.lineage.items() if name != "head"}
    replace(MADE, lineage=lineage).write(tmp_path / "a.json")
    assert read_statistic(tmp_path / "a.json", card=CARD, **{**USED, "head": "other"}).digest == "d"


def test_other_json_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"digest": "d"})
    with pytest.raises(ArtifactError, match="no manifest of a statistic"):
        StatisticManifest.read(tmp_path / "a.json")
