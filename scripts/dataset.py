"""Decode the images of a task once, at the size of the model, and keep what random crops need."""

from functools import partial

from taskgrid.data.dataset import build_dataset
from taskgrid.data.sources.seam import TaskData
from taskgrid.machine.progress import Progress
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read the source, write the images and their manifest."""
    args = parse(__doc__, paths=("images", "originals", "manifest"))
    task = TaskData(**args.settings["task"])
    manifest = build_dataset(
        task,
        args.settings["image_size"],
        args.settings["interpolation"],
        args.images,
        args.manifest,
        out_originals=args.originals,
        keep=args.settings.get("keep", "oblong"),
        progress=partial(Progress, f"dataset {task.name}"),
        threads=args.threads,
    )
    for note in manifest.notes:
        print(f"{task.name}: {note}")
    counts = ", ".join(f"{count} {split}" for split, count in manifest.counts.items())
    print(f"{task.name}: {counts}, {len(manifest.classes)} classes, digest {manifest.digest}")


if __name__ == "__main__":
    run(main)
