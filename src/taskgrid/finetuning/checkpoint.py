"""Checkpoints of a training in progress: one file, whole or absent, tensors only.

All random draws of the loop are functions of (seed, step), so the number of finished steps stands
for the state of every generator and for the place in the data order; the learning rate is a
function of the step too. What remains to be saved is tensors: parameters, the optimiser's moments,
and the curves so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from taskgrid.errors import ArtifactError
from taskgrid.store.weights import State, load_state, save_state

_FILE = "checkpoint.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A training after some steps.

    Attributes:
        step: finished optimiser steps.
        seconds: time spent on them.
        module: state of the trainee.
        optimiser: ``<entry>/<parameter>`` -> tensor.
        curves: the recorded curves.
    """

    step: int
    seconds: float
    module: State
    optimiser: State
    curves: State


def checkpoint_path(folder: Path) -> Path:
    """Return the file that a training's checkpoint is in."""
    return folder / _FILE


def save_checkpoint(folder: Path, checkpoint: Checkpoint, identity: str) -> None:
    """Write a checkpoint over the last one; a kill at any moment leaves one of the two.

    Args:
        folder: scratch folder of this training.
        checkpoint: what to write.
        identity: digest of all that the training depends on.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    tensors = {
        f"{group}/{name}": tensor
        for group in ("module", "optimiser", "curves")
        for name, tensor in getattr(checkpoint, group).items()
    }
    header = {
        "kind": "checkpoint",
        "identity": identity,
        "step": str(checkpoint.step),
        "seconds": repr(checkpoint.seconds),
    }
    save_state(folder / _FILE, tensors, header)


def load_checkpoint(folder: Path, identity: str) -> Checkpoint | None:
    """Return the last checkpoint of this very training, or None.

    A file that is missing, damaged, or belongs to other settings is no checkpoint: the training
    then begins anew, which costs time and is always right.
    """
    try:
        tensors, header = load_state(folder / _FILE)
    except ArtifactError:
        return None
    if header.get("kind") != "checkpoint" or header.get("identity") != identity:
        return None
    groups: dict[str, State] = {"module": {}, "optimiser": {}, "curves": {}}
    for key, tensor in tensors.items():
        group, name = key.split("/", 1)
        # A tensor of a file may lie at any address, and vectorised sums depend on alignment.
        groups[group][name] = tensor.clone()
    return Checkpoint(int(header["step"]), float(header["seconds"]), **groups)


def discard_checkpoint(folder: Path) -> None:
    """Remove the checkpoint, once the training's result is safe."""
    (folder / _FILE).unlink(missing_ok=True)
