"""Compute a statistic of an expert on images of a task."""

from pathlib import Path

from taskgrid.machine.devices import lease_device, use_threads
from taskgrid.machine.progress import Progress
from taskgrid.machine.timing import Stopwatch
from taskgrid.statistics.written import StatisticFiles, write_statistic
from taskgrid.store.atomic import write_json
from taskgrid.workflow.command import parse, run
from taskgrid.workflow.listing import Listing


def main() -> None:
    """Read weights, head and images; write the statistic and its manifest."""
    args, clock = parse(__doc__, paths=("state", "manifest", "timing")), Stopwatch()
    use_threads(args.threads)
    settings, listing = args.settings, Listing.read(args.listing)
    task = listing.tasks[settings["task"]]
    files = StatisticFiles(
        card=listing.run["card"],
        weights=task["expert"],
        split=task["split"],
        images=task["images"],
        head=task.get("head"),
    )
    with lease_device(args.device) as device:
        made = write_statistic(
            files,
            Path(args.state),
            Path(args.manifest),
            task=settings["task"],
            name=settings["statistic"],
            options=settings["options"],
            seed=settings["seed"],
            device=device,
            progress=Progress,
        )
    write_json(args.timing, clock.to_json())
    print(f"{made.statistic} of {settings['task']}: {made.images} images, digest {made.digest}")


if __name__ == "__main__":
    run(main)
