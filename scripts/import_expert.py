"""Bring a ready-made expert into this project's layout; it must belong to the base."""

from pathlib import Path

from taskgrid.experts.untrained import UntrainedFiles
from taskgrid.experts.written import import_expert
from taskgrid.workflow.command import parse, run

OUTPUTS = ("expert", "manifest", "history", "timing")


def main() -> None:
    """Read the checkpoint and theta_0; write what a fine-tuning writes, and where it comes from."""
    args = parse(__doc__, paths=("card", "base", *OUTPUTS))
    out = UntrainedFiles(**{name: Path(getattr(args, name)) for name in OUTPUTS})
    print(*import_expert(Path(args.card), Path(args.base), args.settings, out), sep="\n")


if __name__ == "__main__":
    run(main)
