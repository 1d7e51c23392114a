"""Split a task's images into train, validation and test."""

from taskgrid.data.manifest import DatasetManifest
from taskgrid.data.splits import SplitRule, make_split
from taskgrid.store.images import ImageStore
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read the index of the decoded images, write the manifest of the split."""
    args = parse(__doc__, paths=("manifest", "images", "split"))
    settings = args.settings
    dataset = DatasetManifest.read(args.manifest)
    split = make_split(
        settings["task"],
        ImageStore.open(args.images).index,
        dataset.classes,
        SplitRule(settings["fraction"], settings["limit"], settings["seed"]),
        allow_overlap=settings["allow_overlap"],
        drop_duplicates=settings.get("drop_duplicates", False),
        partial=dataset.partial,
    )
    split.write(args.split)
    counts = ", ".join(f"{count} {name}" for name, count in split.counts.items())
    print(f"{split.task}: {counts} ({split.rule}), digest {split.digest}")


if __name__ == "__main__":
    run(main)
