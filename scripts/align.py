"""Find the transport from another base to this run's base, by an aligner."""

from pathlib import Path

from taskgrid.alignment.aligning import AlignmentFiles, write_alignment
from taskgrid.alignment.sides import SideFiles
from taskgrid.machine.devices import lease_device
from taskgrid.statistics.written import ShownFiles
from taskgrid.workflow.command import parse, run
from taskgrid.workflow.listing import Listing


def main() -> None:
    """Read both bases and what the aligner looks at beside them; write the transport and its manifest."""
    args = parse(__doc__, paths=("transport", "manifest"))
    listing = Listing.read(args.listing)
    files = AlignmentFiles(
        source=SideFiles(listing.run["source_card"], listing.run["source_base"]),
        target=SideFiles(listing.run["card"], listing.run["base"]),
        expert=listing.run.get("source_expert"),
        tasks={
            task: ShownFiles(files["split"], files["images"], files.get("head"))
            for task, files in listing.tasks.items()
            if "images" in files
        },
        heads={
            task: (files["source_head"], files["head"])
            for task, files in listing.tasks.items()
            if "source_head" in files
        },
    )
    # Where nothing is looked at, nothing is run on a device.
    with lease_device(args.device if files.tasks else "cpu") as device:
        said = write_alignment(
            files, Path(args.transport), Path(args.manifest), args.settings, device
        )
    print(said)


if __name__ == "__main__":
    run(main)
