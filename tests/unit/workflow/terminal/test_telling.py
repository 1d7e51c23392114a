"""What jobs run on, as it is said to a logger."""

from __future__ import annotations

import sys

import pytest

from taskgrid.workflow.terminal.telling import machine


@pytest.mark.parametrize(
    ("cores", "nodes", "gpus", "place", "at_once"),
    [
        (1, None, 0, "1 core", (1, 1)),
        (16, None, 4, "16 cores and 4 GPUs", (4, 16)),
        (2, None, 4, "2 cores and 4 GPUs", (2, 2)),
        (2, 100, 4, "a cluster, 100 jobs at once", (100, 100)),
        (2, sys.maxsize, 0, "a cluster", (sys.maxsize, sys.maxsize)),
    ],
)
def test_gpus_limit_what_asks_for_one(
    cores: int, nodes: int | None, gpus: int, place: str, at_once: tuple[int, int]
) -> None:
    found = machine(cores, nodes, gpus)
    assert found.place == place
    assert (found.at_once("finetune"), found.at_once("figure")) == at_once
