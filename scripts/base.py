"""Take the image tower theta_0 out of a pre-trained CLIP."""

from taskgrid.models.clip import load_clip
from taskgrid.store.atomic import write_json
from taskgrid.store.weights import save_state
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Load the model, write its image tower and its card."""
    args = parse(__doc__, paths=("weights", "card"))
    clip = load_clip(args.settings["architecture"], args.settings["pretrained"])
    card = clip.card()
    save_state(args.weights, clip.visual_state(), {"kind": "base", **card.lineage()})
    write_json(args.card, card.to_json())
    found = f"{card.architecture} {card.pretrained}: {card.image_size} px, {card.activation}, {card.base}"
    print(*clip.notes, found, sep="\n")


if __name__ == "__main__":
    run(main)
