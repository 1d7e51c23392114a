"""Fine-tune the image tower on a task; an interrupted run of the same settings is resumed."""

from pathlib import Path

from taskgrid.finetuning.written import ExpertFiles, TrainingFiles, train_expert
from taskgrid.workflow.command import parse, run
from taskgrid.workflow.listing import Listing
from taskgrid.workflow.live import live_curves

INPUTS = ("card", "base", "head", "split", "dataset", "images", "originals")
OUTPUTS = ("expert", "manifest", "history", "timing")


def main() -> None:
    """Read the images, the head and theta_0; write theta_t, its manifest and its history."""
    args = parse(__doc__, paths=("scratch", *INPUTS, *OUTPUTS))
    with live_curves(args.tracking, args.settings) as listen:
        trained = train_expert(
            TrainingFiles(
                **{name: Path(getattr(args, name)) for name in INPUTS},
                others=Listing.read(args.listing).tasks if args.listing else {},
            ),
            ExpertFiles(**{name: Path(getattr(args, name)) for name in OUTPUTS}),
            args.settings,
            device=args.device,
            scratch=Path(args.scratch),
            every_seconds=args.checkpoint_seconds,
            listen=listen,
        )
    print(trained.sentence(args.settings["task"]))


if __name__ == "__main__":
    run(main)
