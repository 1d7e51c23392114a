"""Fine-tune the image tower on a task; an interrupted run of the same settings is resumed."""

import platform
from pathlib import Path

import pyarrow as pa
import torch

from taskgrid.data.manifest import DatasetManifest, SplitManifest
from taskgrid.finetuning.checkpoint import discard_checkpoint
from taskgrid.finetuning.feed import Originals, Samples
from taskgrid.finetuning.loop import Scratch, finetune
from taskgrid.finetuning.recipe import Recipe
from taskgrid.machine.devices import lease_device, use_threads
from taskgrid.machine.progress import Progress
from taskgrid.models.card import ModelCard
from taskgrid.models.heads import Head
from taskgrid.store.atomic import read_json, write_json
from taskgrid.store.images import ImageStore, PixelRows
from taskgrid.store.originals import OriginalStore
from taskgrid.store.tables import write_table
from taskgrid.store.weights import load_state, save_state
from taskgrid.workflow.command import parse, run

PATHS = ("scratch", "card", "base", "head", "split", "dataset", "images", "originals")
OUTPUTS = ("expert", "manifest", "history", "timing")


def main() -> None:
    """Read the images, the head and theta_0; write theta_t, its manifest and its history."""
    args = parse(__doc__, paths=PATHS + OUTPUTS)
    use_threads(args.threads)
    settings, task = args.settings, args.settings["task"]
    split, images = SplitManifest.read(args.split), ImageStore.open(args.images)
    rows, held = (images.rows(split.ids(name)) for name in ("train", "val"))
    lineage = {"model": settings["model"], "split": split.digest}
    originals: Originals | None = None
    # Only then: what is made of square images alone has the lineage it always had.
    if (kept := DatasetManifest.read(args.dataset).originals) is not None:
        store = OriginalStore.open(args.originals)
        originals = Originals(store, store.places(images, rows))
        lineage["originals"] = kept
    # Rows of the memory map, which may be larger than memory.
    train = Samples(PixelRows(images.pixels, rows), images.labels[rows], originals)
    val = Samples(PixelRows(images.pixels, held), images.labels[held])
    recipe = Recipe.from_mapping(settings["recipe"])
    place = [settings["model"], settings["mode_label"], str(settings["seed"]), task]
    scratch = Path(args.scratch, *place)
    total = recipe.total_steps(len(train))
    with lease_device(args.device) as device, Progress(f"finetune {task}", total, "step") as bar:
        done = finetune(
            ModelCard.from_json(read_json(args.card)),
            load_state(args.base)[0],
            Head.load(args.head),
            train,
            val,
            recipe,
            task=task,
            mode=settings["mode"],
            mode_options=settings["mode_options"],
            seed=settings["seed"],
            device=device,
            scratch=Scratch(scratch, every_seconds=args.checkpoint_seconds),
            lineage=lineage,
            progress=bar,
        )
        gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    digest = save_state(args.expert, done.state, done.lineage)
    columns = dict(
        zip(("step", "metric", "value"), zip(*done.history.rows, strict=True), strict=True)
    )
    write_table(args.history, pa.table({name: list(column) for name, column in columns.items()}))
    manifest = {**done.lineage, "digest": digest, "counts": split.counts, "steps": done.steps}
    write_json(args.manifest, manifest)
    # Beside the manifest, because times differ from run to run and manifests must not.
    timing = {
        "seconds": done.seconds,
        "images_per_second": done.images / done.seconds,
        "pace": done.pace,
        "gpu_gib": round(gpu / 2**30, 2),
        "device": str(device),
        "torch": torch.__version__,
        "host": platform.node(),
    }
    write_json(args.timing, timing)
    discard_checkpoint(scratch)
    accuracy = dict(done.history.curve("val/accuracy"))
    print(
        f"{task}: val accuracy {accuracy[0]:.3f} -> {accuracy[done.steps]:.3f}, "
        f"{done.images / done.seconds:.0f} images/s, digest {digest}"
    )


if __name__ == "__main__":
    run(main)
