"""Decode the images of a task once, at the size of the model."""

from functools import partial

from taskgrid.command import parse, run
from taskgrid.config import TaskSpec
from taskgrid.data.dataset import build_dataset
from taskgrid.progress import Progress


def main() -> None:
    """Read the source, write the images and their manifest."""
    args = parse(__doc__, paths=("images", "manifest"))
    task = TaskSpec.model_validate(args.settings["task"])
    manifest = build_dataset(
        task,
        args.settings["image_size"],
        args.settings["interpolation"],
        args.images,
        args.manifest,
        progress=partial(Progress, f"dataset {task.name}"),
        threads=args.threads or 1,
    )
    counts = ", ".join(f"{count} {split}" for split, count in manifest.counts.items())
    print(f"{task.name}: {counts}, {len(manifest.classes)} classes, digest {manifest.digest}")


if __name__ == "__main__":
    run(main)
