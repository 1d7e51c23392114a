"""Build the zero-shot head of a task: class names x templates through the text tower."""

from taskgrid.data.manifest import DatasetManifest
from taskgrid.models.card import ModelCard
from taskgrid.models.clip import load_clip
from taskgrid.models.heads import build_head, check_head
from taskgrid.store.atomic import read_json, write_json
from taskgrid.workflow.command import parse, run


def main() -> None:
    """Read the class names and templates, write the head and its manifest."""
    args = parse(__doc__, paths=("card", "dataset", "head", "manifest"))
    dataset = DatasetManifest.read(args.dataset)
    clip = load_clip(args.settings["architecture"], args.settings["pretrained"])
    head = build_head(clip, dataset.classes, dataset.templates, lineage={"task": dataset.task})
    check_head(head, ModelCard.from_json(read_json(args.card)))
    digest = head.save(args.head)
    write_json(args.manifest, {**head.lineage, "digest": digest, "classes": list(head.classes)})
    print(f"head of {dataset.task}: {len(head.classes)} classes, digest {digest}")


if __name__ == "__main__":
    run(main)
