"""One grid, many ways to it: in one block or several, killed and resumed, after a task was added."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from taskgrid.evaluation import evaluate_grid
from taskgrid.evaluation.engine.engine import Engine
from taskgrid.evaluation.plan.setting import Request
from taskgrid.store.outcome import Outcome
from tests.unit.example_grid import World, world

ROOT = Path(__file__).parents[4]

KILLED = """
import os, signal, sys, torch
from taskgrid.evaluation import evaluate_grid
from taskgrid.evaluation.engine.engine import Engine
from taskgrid.store.outcomes import OutcomeStore, OutcomeWriter
from tests.unit.example_grid import world

# As in the tests: the sums of a matrix product depend on it.
torch.set_num_threads(1)
# Stored at once, however fast the machine is.
OutcomeStore.writer = lambda self: OutcomeWriter(self, 0.0)
small, left, measure = world(), [int(sys.argv[2])], Engine._measure

def counted(self, *arguments):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return measure(self, *arguments)

Engine._measure = counted
evaluate_grid(
    small.base, small.card, small.tasks, experts=small.experts, store=sys.argv[1], batch_size=5
)
"""


def grid(small: World, **options: Any) -> pd.DataFrame:
    frame = evaluate_grid(
        small.base, small.card, small.tasks, experts=small.experts, batch_size=5, **options
    )
    return frame.sort_values(["method", "size", "subset", "point", "task", "split"]).reset_index(
        drop=True
    )


@pytest.fixture(scope="module")
def whole() -> pd.DataFrame:
    return grid(world())


@pytest.mark.parametrize("rows", [0, 40, 150])
def test_a_grid_killed_midway_ends_with_the_same_bits(
    whole: pd.DataFrame, tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(rows)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    measured: list[str] = []
    real = Engine._measure

    def measure(self: Engine, request: Request, *more: Any) -> Outcome:
        measured.append(request.key)
        return real(self, request, *more)

    monkeypatch.setattr(Engine, "_measure", measure)
    pd.testing.assert_frame_equal(grid(world(), store=tmp_path), whole, check_exact=True)
    # What was measured before the kill was found, and nothing else.
    assert len(measured) == whole["key"].nunique() - rows


def test_blocks_give_the_bits_of_the_whole(whole: pd.DataFrame, tmp_path: Path) -> None:
    blocks = [[("a", "b", "c"), ("b",)], [("a",), ("b", "c")], [("c",), ("a", "b"), ("a", "c")]]
    parts = [
        grid(world(), subsets=block, store=tmp_path / str(i)) for i, block in enumerate(blocks)
    ]
    merged = pd.concat(parts).drop_duplicates(["method", "subset", "point", "task", "split"])
    merged = merged.sort_values(["method", "size", "subset", "point", "task", "split"])
    pd.testing.assert_frame_equal(merged.reset_index(drop=True), whole, check_exact=True)


def test_a_task_more_changes_no_bit_of_the_others(whole: pd.DataFrame) -> None:
    more = grid(world(("a", "b", "c", "d")))
    known = set(whole["key"])
    again = more[more["key"].isin(known)].drop_duplicates("key").set_index("key")
    before = whole.drop_duplicates("key").set_index("key")
    columns = ["n", "correct", "nll", "ece"]
    pd.testing.assert_frame_equal(
        again[columns].sort_index(), before[columns].sort_index(), check_exact=True
    )
