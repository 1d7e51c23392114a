"""Interrupted trainings: killed, terminated, resumed, or begun anew."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch

from taskgrid.errors import TrainingError
from taskgrid.finetuning.checkpoint import discard_checkpoint
from taskgrid.finetuning.loop import Scratch
from taskgrid.finetuning.training import Training
from taskgrid.models.clip import Clip
from taskgrid.store.weights import digest_state, load_state, read_lineage
from tests.unit.example_models import tiny_clip, tiny_samples
from tests.unit.example_training import SHORT, interrupted_at, run
from tests.unit.killed_training import STEPS, outcome, train

REPOSITORY = Path(__file__).parents[3]


def test_what_is_finished_is_not_trained_again(clip: Clip, tmp_path: Path) -> None:
    recipe = replace(SHORT, steps=20, eval_every=3)
    scratch = Scratch(tmp_path / "scratch", every_steps=4)
    for step in (2, 9, 13, 16):
        with interrupted_at(step):
            run(clip, recipe, scratch=scratch)
    _, header = load_state(scratch.folder / "checkpoint.safetensors")
    assert header["step"] == "16"
    whole, again = run(clip, recipe), run(clip, recipe, scratch=scratch)
    with mock.patch.object(Training, "_update", side_effect=AssertionError("trained again")):
        once_more = run(clip, recipe, scratch=scratch)
    for found in (again, once_more):
        assert digest_state(found.state) == digest_state(whole.state)
        assert found.history == whole.history
    discard_checkpoint(scratch.folder)
    with interrupted_at(0):
        run(clip, recipe, scratch=scratch)


def test_checkpoints_of_other_settings_are_not_resumed(clip: Clip, tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "scratch")
    expected = run(clip, seed=2)
    for other in (
        lambda: run(clip, scratch=scratch),
        lambda: run(clip, replace(SHORT, lr=2e-2), seed=2, scratch=scratch),
        lambda: run(clip, seed=2, lineage={"split": "other"}, scratch=scratch),
        lambda: run(clip, seed=2, data=tiny_samples(29), scratch=scratch),
    ):
        other()
        assert digest_state(run(clip, seed=2, scratch=scratch).state) == digest_state(
            expected.state
        )


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_checkpoint_is_as_good_as_none(clip: Clip, tmp_path: Path, damage: str) -> None:
    scratch = Scratch(tmp_path / "scratch")
    expected = run(clip, scratch=scratch)
    path = scratch.folder / "checkpoint.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-100] ^= 1
    path.write_bytes({"truncate": content[:-100], "flip": content, "empty": b""}[damage])
    again = run(clip, scratch=scratch)
    assert digest_state(again.state) == digest_state(expected.state)
    assert again.history == expected.history


def test_a_diverged_training_is_not_saved(clip: Clip, tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "scratch", every_steps=1)
    diverging = replace(SHORT, lr=1e30, clip_norm=None)
    with pytest.raises(TrainingError, match=r"diverged at step 2 .*; there is no checkpoint from"):
        run(clip, diverging, scratch=Scratch(tmp_path / "none"))
    path = scratch.folder / "checkpoint.safetensors"
    said = (
        rf"diverged at step 2 .*; the last good checkpoint, of step 1, is {re.escape(str(path))}$"
    )
    for _ in ("at first", "again"):
        with pytest.raises(TrainingError, match=said):
            run(clip, diverging, scratch=scratch)
    state, _ = load_state(path)
    assert all(
        torch.isfinite(tensor).all() for tensor in state.values() if tensor.is_floating_point()
    )


def _spawn(model: Path, scratch: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.unit.killed_training", str(model), str(scratch)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"},
    )


def _wait_for_step(process: subprocess.Popen[bytes], scratch: Path, step: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, "the training ended before it could be killed"
        if _saved_step(scratch) >= step:
            return
        time.sleep(0.01)
    raise AssertionError("the training never came so far")


def _saved_step(scratch: Path) -> int:
    path = scratch / "checkpoint.safetensors"
    return int(read_lineage(path)["step"]) if path.exists() else 0


def test_killed_and_terminated_trainings_end_with_the_same_bits(tmp_path: Path) -> None:
    tiny_clip(tmp_path)
    scratch = tmp_path / "scratch"
    killed = _spawn(tmp_path, scratch)
    _wait_for_step(killed, scratch, 5)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    at_kill = _saved_step(scratch)

    asked = _spawn(tmp_path, scratch)
    _wait_for_step(asked, scratch, at_kill + 3)
    asked.send_signal(signal.SIGTERM)
    assert asked.wait() == 143
    assert at_kill < _saved_step(scratch) < STEPS

    assert outcome(train(tmp_path, scratch)) == outcome(train(tmp_path, None))
    assert [path.name for path in scratch.iterdir()] == ["checkpoint.safetensors"]
