"""Every writer of files, and a disk on which each of them runs out of room at every page."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from matplotlib.figure import Figure

from taskgrid.analysis import summary
from taskgrid.errors import ArtifactError
from taskgrid.finetuning.checkpoint import Checkpoint, save_checkpoint
from taskgrid.outofcore.shards import TensorSpec
from taskgrid.outofcore.streams import write_stream
from taskgrid.plots.style import save
from taskgrid.store.atomic import write_json, write_text
from taskgrid.store.images import PreparedImage, write_images
from taskgrid.store.logits import LogitsStore
from taskgrid.store.originals import Original, write_originals
from taskgrid.store.outcome import Outcome
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.tables import check_csv, write_csv, write_table
from taskgrid.store.weights import save_state

SENTENCE = "the disk is full: free some space and run the same command again"

_BLOCK = 4096
_NUMBERS = np.random.default_rng(0).normal(size=5000).astype(np.float32)
_PIXELS = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def _figure(path: Path) -> None:
    figure = Figure()
    figure.add_subplot().plot(_NUMBERS[:900])
    save(figure, path, path.with_name("figure.png"))


def _checkpoint(path: Path) -> None:
    weights = {"w": torch.from_numpy(_NUMBERS)}
    save_checkpoint(path.parent, Checkpoint(1, 1.0, weights, {}, {}), "x")


def _originals(path: Path) -> None:
    with write_originals(path) as writer:
        for row in range(4):
            writer.add(row, "0" * 32, Original(40, 40, _PIXELS))


def _stream(path: Path) -> None:
    values = memoryview(_NUMBERS).cast("B")
    specs = [TensorSpec(name, "F32", _NUMBERS.shape) for name in "ab"]
    with write_stream(path, specs, {}, shard_bytes=30_000) as writer:
        for spec in specs:
            writer.write(spec.name, 0, values)


WRITERS: Mapping[str, Callable[[Path], object]] = {
    "text": lambda path: write_text(path, "x" * 20_000),
    "json": lambda path: write_json(path, {"values": _NUMBERS[:2000].tolist()}),
    "state": lambda path: save_state(path, {"w": torch.from_numpy(_NUMBERS)}, {}),
    "table": lambda path: write_table(path, pa.table({"values": _NUMBERS})),
    "csv": lambda path: write_csv(path, [{"value": value} for value in _NUMBERS.tolist()]),
    "summary": lambda path: summary.write_csv(path, pd.DataFrame({"value": _NUMBERS})),
    "outcomes": lambda path: OutcomeStore(path.parent).append(
        [Outcome(f"{i:032x}", 8000, 1, 0.5, 0.5, _PIXELS.tobytes()[:1000]) for i in range(9)]
    ),
    "images": lambda path: write_images(
        path, (PreparedImage(str(i), 0, "train", "0" * 32, _PIXELS) for i in range(4)), 40
    ),
    "originals": _originals,
    "logits": lambda path: LogitsStore(path.parent).add("key", _NUMBERS.reshape(50, 100)),
    "figure": _figure,
    "checkpoint": _checkpoint,
    "stream": _stream,
}
"""Each writes more than one block, under a path or beside it."""


def faults(name: str, folder: Path) -> list[str] | None:
    """Write where that may be refused; return what is not as it should be, None where it was not refused.

    An earlier file stays as it was, nothing is left on its way, and the error is a sentence.
    """
    path, found = folder / "file", []
    path.write_bytes(b"old")
    before = set(folder.iterdir())
    try:
        WRITERS[name](path)
        return None
    except ArtifactError as error:
        if not str(error).endswith(SENTENCE):
            found.append(f"{name} says {error}")
    except Exception as error:
        found.append(f"{name} raises {type(error).__name__}: {error}")
    if path.read_bytes() != b"old":
        found.append(f"{name} changed what was there")
    if left := [file.name for file in set(folder.iterdir()) - before if file.name[0] == "."]:
        found.append(f"{name} left {left}")
    try:
        check_csv(path)
    except ArtifactError as error:
        found.append(f"{name}: {error}")
    return found


def main(folder: Path) -> None:
    """Print, as JSON, how often each writer was refused, and what was not as it should be."""
    refused: dict[str, int] = {}
    wrong: list[str] = []
    ballast = folder / "ballast"
    for name in WRITERS:
        for room in itertools.count(1):
            inside = folder / f"{name}-{room}"
            inside.mkdir()
            free = os.statvfs(folder).f_bavail
            ballast.write_bytes(bytes((free - room) * _BLOCK))
            found = faults(name, inside)
            ballast.unlink()
            shutil.rmtree(inside)
            if found is None:
                refused[name] = room - 1
                break
            wrong += [f"with {room} blocks {one}" for one in found]
    print(json.dumps({"refused": refused, "wrong": wrong}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
