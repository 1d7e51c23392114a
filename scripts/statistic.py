"""Compute a statistic of an expert on images of its task, or of the base on those of several tasks."""

from pathlib import Path

from taskgrid.machine.devices import lease_device
from taskgrid.machine.progress import Progress
from taskgrid.machine.timing import Stopwatch
from taskgrid.statistics.written import ShownFiles, StatisticFiles, write_statistic
from taskgrid.store.atomic import write_json
from taskgrid.workflow.command import parse, run
from taskgrid.workflow.listing import Listing


def main() -> None:
    """Read weights, heads and images; write the statistic and its manifest."""
    args, clock = parse(__doc__, paths=("state", "manifest", "timing")), Stopwatch()
    settings, listing = args.settings, Listing.read(args.listing)
    experts = [files["expert"] for files in listing.tasks.values() if "expert" in files]
    files = StatisticFiles(
        card=listing.run["card"],
        weights=listing.run["base"] if "base" in listing.run else experts[0],
        tasks={
            task: ShownFiles(files["split"], files["images"], files.get("head"))
            for task, files in listing.tasks.items()
        },
    )
    with lease_device(args.device) as device:
        made = write_statistic(
            files,
            Path(args.state),
            Path(args.manifest),
            name=settings["statistic"],
            options=settings["options"],
            seed=settings["seed"],
            device=device,
            progress=Progress,
        )
    write_json(args.timing, clock.to_json())
    print(
        f"{made.statistic} of {', '.join(files.tasks)}: {made.images} images, digest {made.digest}"
    )


if __name__ == "__main__":
    run(main)
