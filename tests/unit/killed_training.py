"""A small training as a process of its own, for tests that kill it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from taskgrid.finetuning.loop import Finetuned, Scratch, finetune
from taskgrid.finetuning.recipe import Recipe
from taskgrid.finetuning.training import Training
from taskgrid.models.clip import load_clip
from taskgrid.models.heads import build_head
from taskgrid.store.weights import digest_state
from tests.unit.example_models import CLASSES, TEMPLATES, tiny_samples

STEPS = 120
PAUSE = 0.03
"""Seconds per step of the process to be killed: a slow machine must not let it finish first."""


def train(model: Path, scratch: Path | None) -> Finetuned:
    """Train the model of a folder for a fixed number of steps."""
    clip = load_clip("tiny", "s0", resources=model)
    return finetune(
        clip.card(),
        clip.visual_state(),
        build_head(clip, CLASSES, TEMPLATES),
        tiny_samples(70),
        tiny_samples(40, seed=1),
        Recipe(steps=STEPS, batch_size=16, warmup_steps=10, lr=1e-2, eval_every=7),
        task="pets",
        scratch=Scratch(scratch, every_steps=1) if scratch is not None else None,
    )


def outcome(expert: Finetuned) -> dict[str, object]:
    """What must be equal however often the training was interrupted."""
    return {"digest": digest_state(expert.state), "history": expert.history}


def _slowly(update: Callable[[object], None]) -> Callable[[object], None]:
    def slow(run: object) -> None:
        time.sleep(PAUSE)
        update(run)

    return slow


if __name__ == "__main__":
    torch.set_num_threads(1)
    Training._update = _slowly(Training._update)  # type: ignore[method-assign]
    train(Path(sys.argv[1]), Path(sys.argv[2]))
