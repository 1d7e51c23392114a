"""Write an expert as a CLIP in a folder that open_clip loads."""

from pathlib import Path

from taskgrid.models.clip import load_clip
from taskgrid.outofcore.export import export_expert
from taskgrid.outofcore.folder import describe
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Load the base CLIP, put the expert in place of its image tower, write both and what builds them."""
    args = parse(__doc__, paths=("expert", "config", "weights"))
    settings = args.settings
    clip = load_clip(settings["architecture"], settings["pretrained"])
    digest = export_expert(clip, Path(args.expert), Path(args.weights))
    describe(clip, Path(args.config), {**settings["identity"], "digest": digest})
    print(f"{settings['identity']['name']}: {digest}")


if __name__ == "__main__":
    run(main)
