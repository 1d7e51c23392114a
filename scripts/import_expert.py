"""Bring a ready-made expert into this project's layout; it must belong to the base."""

import platform
import time
from functools import partial

import pyarrow as pa
import torch

from taskgrid.experts.read import read_expert
from taskgrid.machine.devices import use_threads
from taskgrid.machine.progress import Progress
from taskgrid.models.card import ModelCard
from taskgrid.store.atomic import read_json, write_json
from taskgrid.store.tables import write_table
from taskgrid.store.weights import load_state, save_state
from taskgrid.workflow.command import parse, run

PATHS = ("card", "base")
OUTPUTS = ("expert", "manifest", "history", "timing")

# Nothing was trained here: a history of no steps.
HISTORY = pa.schema([("step", pa.int64()), ("metric", pa.string()), ("value", pa.float64())])


def main() -> None:
    """Read the checkpoint and theta_0; write what a fine-tuning writes, and where it comes from."""
    args = parse(__doc__, paths=PATHS + OUTPUTS)
    use_threads(args.threads)
    settings, task = args.settings, args.settings["task"]
    started = time.perf_counter()
    found = read_expert(
        settings["format"],
        settings["source"],
        task,
        ModelCard.from_json(read_json(args.card)),
        load_state(args.base)[0],
        file=settings.get("file"),
        revision=settings.get("revision"),
        progress=partial(Progress, f"download {task}", unit="B"),
    )
    lineage = {
        **found.lineage,
        "model": settings["model"],
        "mode": settings["mode"],
        "seed": str(settings["seed"]),
    }
    digest = save_state(args.expert, found.state, lineage)
    write_table(args.history, HISTORY.empty_table())
    write_json(
        args.manifest,
        {**lineage, "digest": digest, "distance": found.distance, "notes": list(found.notes)},
    )
    timing = {
        "seconds": time.perf_counter() - started,
        "images_per_second": None,
        "device": "cpu",
        "torch": torch.__version__,
        "host": platform.node(),
    }
    write_json(args.timing, timing)
    for note in found.notes:
        print(f"{task}: {note}")
    print(f"{task}: {found.distance:.2%} of theta_0's norm away, digest {digest}")


if __name__ == "__main__":
    run(main)
