"""Write one grid point as a CLIP that open_clip loads."""

from pathlib import Path

from taskgrid.evaluation.opening.files import load_learned
from taskgrid.evaluation.opening.references import read_learned, read_method
from taskgrid.evaluation.plan.choices import chosen_point
from taskgrid.lattice.subsets import parse_subset, subset_name
from taskgrid.models.card import ModelCard
from taskgrid.models.clip import load_clip
from taskgrid.models.lineage import check_lineage
from taskgrid.outofcore.export import Method, Point, export_points
from taskgrid.outofcore.folder import describe
from taskgrid.outofcore.windows import BoundError
from taskgrid.store.atomic import read_json
from taskgrid.workflow.command import parse, run
from taskgrid.workflow.listing import Listing
from taskgrid.workflow.setting import setting_of


def main() -> None:
    """Load the base CLIP, merge its image tower, write both as one file."""
    args = parse(__doc__, paths=("weights",), optional=("choices", "config"))
    settings, listing = args.settings, Listing.read(args.listing)
    point = (
        settings["point"]
        if args.choices is None
        else chosen_point(args.choices, settings["subset"])
    )
    card = ModelCard.from_json(read_json(listing.run["card"]))
    clip = load_clip(settings["architecture"], settings["pretrained"])
    check_lineage(
        f"the model {card.architecture} {card.pretrained}",
        clip.card().lineage(),
        card.lineage(),
        ("text", "activation", "base"),
        "run the base rule again",
    )
    tasks = parse_subset(settings["subset"])
    method = read_method(settings["method"], settings["options"], settings["seed"])
    if listing.learned:
        setting = setting_of(settings, listing)
        # Refused where it comes from other weights, heads or images.
        read_learned(setting, settings["method"], settings["options"], listing.learned)
    try:
        (digest,) = export_points(
            clip,
            listing.run["base"],
            listing.of("vector"),
            Method(method.name, method.options, method.seed or 0),
            [Point(tasks, point, Path(args.weights), settings["task"])],
            max_bytes=settings["max_bytes"],
            statistics={
                name: listing.statistics()[label] for name, label in settings["needs"].items()
            },
            learned=lambda tasks: load_learned(listing.learned[subset_name(tasks)]),
            lineage={"mode": settings["mode"], "seed": str(settings["seed"])},
        )
    except BoundError as error:
        raise error.called("export.max_mb", 1 << 20) from error
    if args.config is not None:
        about = {**settings["identity"], "point": point, "digest": digest}
        describe(clip, Path(args.config), about)
    print(f"{settings['subset']} at {point}: {digest}")
    print(f"load_clip({card.architecture!r}, {args.weights!r})")


if __name__ == "__main__":
    run(main)
