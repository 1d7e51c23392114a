"""Pre-train a built-in model and write its weights."""

from functools import partial
from pathlib import Path

from taskgrid.pretraining.contrastive import settings_from
from taskgrid.pretraining.written import pretrain
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Render the corpus, train, probe, write."""
    args = parse(__doc__, paths=("architecture-config", "output", "datasheet"))
    pretrain(
        Path(args.architecture_config),
        settings_from(args.settings),
        Path(args.output),
        Path(args.datasheet),
        say=partial(print, flush=True),
    )


if __name__ == "__main__":
    run(main)
