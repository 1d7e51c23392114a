"""Compute a statistic of an expert, or of the base, on images of a task."""

from pathlib import Path

from taskgrid.machine.devices import lease_device, use_threads
from taskgrid.machine.progress import Progress
from taskgrid.statistics.written import StatisticFiles, write_statistic
from taskgrid.workflow.command import parse, run

INPUTS = ("card", "weights", "split", "images")


def main() -> None:
    """Read weights, head and images; write the statistic and its manifest."""
    args = parse(__doc__, paths=(*INPUTS, "state", "manifest"), optional=("head",))
    use_threads(args.threads)
    settings = args.settings
    files = StatisticFiles(
        **{name: Path(getattr(args, name)) for name in INPUTS},
        head=Path(args.head) if args.head else None,
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
    print(f"{made.statistic} of {settings['task']}: {made.images} images, digest {made.digest}")


if __name__ == "__main__":
    run(main)
