"""Put a ready-made expert to its own task; one that does not reproduce it is refused."""

from taskgrid.data.manifest import SplitManifest, check_images
from taskgrid.evaluation.engine.material import LabelledImages
from taskgrid.evaluation.verify import Check, verify_expert
from taskgrid.machine.devices import lease_device
from taskgrid.models.card import ModelCard
from taskgrid.models.heads import Head
from taskgrid.store.atomic import read_json, write_json
from taskgrid.store.images import ImageStore
from taskgrid.store.weights import load_state
from taskgrid.workflow.command import parse, run

PATHS = ("card", "base", "expert", "head", "split", "images", "verified")


def main() -> None:
    """Read the expert, the base, the head and the test images; write how the expert did."""
    args = parse(__doc__, paths=PATHS)
    settings, task = args.settings, args.settings["task"]
    store, split = ImageStore.open(args.images), SplitManifest.read(args.split)
    check_images(store, split)
    rows = store.rows(split.ids("test"))
    expert, lineage = load_state(args.expert)
    with lease_device(args.device) as device:
        found = verify_expert(
            ModelCard.from_json(read_json(args.card)),
            load_state(args.base)[0],
            expert,
            lineage,
            Head.load(args.head),
            LabelledImages(store.pixels, rows, store.labels[rows]),
            Check(settings.get("expected"), settings["tolerance"]),
            task=task,
            device=device,
            batch_size=settings["batch_size"],
            precision=settings["precision"],
        )
    write_json(args.verified, found.to_json())
    print(
        f"{task}: {found.accuracy:.2%} of {found.n} test images [{found.low:.2%}, {found.high:.2%}], "
        f"{found.rule} {found.expected:.2%}"
    )
    if found.above:
        print(
            f"{task}: better than published; were test images among those that it was trained on?"
        )


if __name__ == "__main__":
    run(main)
