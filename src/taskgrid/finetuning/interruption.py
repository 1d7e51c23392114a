"""Trainings that may be interrupted: saved now and then and when they are asked to end, then resumed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from taskgrid.errors import TrainingError
from taskgrid.finetuning.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from taskgrid.finetuning.history import DivergedError
from taskgrid.finetuning.training import Training
from taskgrid.machine.progress import Progress


@dataclass(frozen=True)
class Scratch:
    """Where and when a training saves its progress.

    Attributes:
        folder: a folder of this training's own.
        every_seconds: time between checkpoints.
        every_steps: also save each time this many steps are done.
    """

    folder: Path
    every_seconds: float = 60.0
    every_steps: int | None = None


def resume(run: Training, scratch: Scratch, identity: str, progress: Progress | None) -> None:
    """Train to the end, from the last checkpoint of this very training if there is one.

    Args:
        run: the training, at its beginning.
        scratch: where its checkpoints are.
        identity: digest of all that the training depends on.
        progress: counts steps, those of the checkpoint included.

    Raises:
        SystemExit: with status 143, after a checkpoint, if the process was asked to end (SIGTERM).
        TrainingError: if the training diverges; names the last checkpoint before it did.
    """
    found = load_checkpoint(scratch.folder, identity)
    if found is not None:
        run.restore(found)
        if progress is not None:
            progress.advance(found.step)
    saved_at, saved_step = time.monotonic(), run.step

    def save() -> None:
        nonlocal saved_at, saved_step
        with run.pace.resting():
            save_checkpoint(scratch.folder, run.checkpoint(), identity)
        saved_at, saved_step = time.monotonic(), run.step

    with _terminated() as terminated:

        def after_step() -> None:
            due = time.monotonic() - saved_at >= scratch.every_seconds
            if scratch.every_steps is not None:
                due = due or run.step - saved_step >= scratch.every_steps
            if due or terminated() or run.step == run.total:
                save()
            if terminated():
                raise SystemExit(128 + signal.SIGTERM)

        try:
            run.advance(progress=progress, after_step=after_step)
        except DivergedError as error:
            kept = (
                f"the last good checkpoint, of step {saved_step}, is {checkpoint_path(scratch.folder)}"
                if saved_step
                else "there is no checkpoint from before that step"
            )
            raise TrainingError(f"{error}; {kept}") from error


@contextmanager
def _terminated() -> Iterator[Callable[[], bool]]:
    """Within the block, SIGTERM only raises a flag; signals belong to the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = signal.signal(signal.SIGTERM, remember)
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGTERM, before)
