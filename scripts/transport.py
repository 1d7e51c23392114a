"""Bring an expert of another base to this run's base, by the transport that an aligner found."""

from pathlib import Path

from taskgrid.alignment.sides import SideFiles
from taskgrid.alignment.written import transport_expert
from taskgrid.experts.untrained import UntrainedFiles
from taskgrid.workflow.command import parse, run

SOURCE = ("source-card", "source-base", "source-expert")
OUTPUTS = ("expert", "manifest", "history", "timing")


def main() -> None:
    """Read bases, expert and transport; write what a fine-tuning writes, and where it comes from."""
    args = parse(__doc__, paths=("card", "base", *SOURCE, "transport", *OUTPUTS))
    said = transport_expert(
        SideFiles(Path(args.source_card), Path(args.source_base)),
        Path(args.source_expert),
        SideFiles(Path(args.card), Path(args.base)),
        Path(args.transport),
        args.settings,
        UntrainedFiles(**{name: Path(getattr(args, name)) for name in OUTPUTS}),
    )
    print(said)


if __name__ == "__main__":
    run(main)
