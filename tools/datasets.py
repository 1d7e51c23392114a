"""The data sets in Markdown: `python -m tools.datasets > docs/datasets.md`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from taskgrid.data.published.description import Description, Layout, OriginalFile
from taskgrid.data.published.reading import descriptions
from taskgrid.plugins.resources import resource_path
from taskgrid.store.atomic import read_foreign_json
from taskgrid.store.images import SPLITS, Split
from tools.sources import own_data

_ORDER = (
    *("cars", "dtd", "eurosat", "gtsrb", "mnist", "resisc45", "sun397", "svhn"),
    *("cifar100", "stl10", "flowers102", "oxford_iiit_pet", "pcam", "fer2013"),
    *("emnist_letters", "emnist_digits", "cifar10", "food101", "fashion_mnist", "kmnist"),
    "rendered_sst2",
    "imagenet",
)
"""The 8 tasks, those added to make 14 and 20, the control task; others follow by name."""

_HEAD = """
## Data sets of the literature

A task with `source: published` is read from one of two layouts:

- **hub**: Parquet files of a repository on the Hugging Face hub, at the commit below. Where no
  commit could be verified (`none`), the first download records the newest one and later runs are
  held to it.
- **original**: the owners' own files, below one folder (`data.folder`, or the task's `path`). What
  can be downloaded is checked by its checksum; what is marked *by hand* you put there yourself.

Numbers of images are those the papers use, and are asserted when a data set is opened (`?`: not
known for the hub's repository, so only its classes are asserted). A data set without validation
images has them cut from its training images with the papers' rule: `min(10 %, 5000)`, by
`random_split` with seed 0. Labels are mapped by class *name*, never by position.

Facts were collected from the owners' pages, torchvision, torchgeo, openai/CLIP, task_vectors,
FusionBench, TALL-masks and public copies of the hub's pages. Licences are given as stated there; read
the owners' pages before you use or pass on any image. None of these downloads was run by the
project's tests, which use local stand-ins of the same layouts.
"""


def page() -> str:
    """Return the page: one's own images, two tables of the literature's, then a section per data set."""
    known = descriptions()
    order = [*(name for name in _ORDER if name in known), *sorted(set(known) - set(_ORDER))]
    shown = [known[name] for name in order]
    overview = _table(
        ("data set", "classes", "templates", "train", "val", "test", "licence", "original files"),
        map(_overview_row, shown),
    )
    hub = _table(("data set", "repository", "commit", "train", "test"), map(_hub_row, shown))
    return "".join(
        [own_data(), _HEAD, "\n", overview, "\n## On the hub\n\n", hub, *map(_section, shown)]
    )


def _overview_row(item: Description) -> tuple[str, ...]:
    counts = (_count(item, "original", split) for split in SPLITS)
    return (
        f"[{item.name}](#{item.name})",
        f"{len(item.classes):,}",
        str(len(item.templates)),
        *counts,
        item.licence,
        "by hand" if item.original.manual else "download",
    )


def _hub_row(item: Description) -> tuple[str, ...]:
    if item.hub is None:
        return (item.name, "none known", "", "", "")
    address = f"https://huggingface.co/datasets/{item.hub.repository}"
    return (
        item.name,
        f"[{item.hub.repository}]({address})",
        f"`{item.hub.revision}`" if item.hub.revision else "none",
        _count(item, "hub", "train"),
        _count(item, "hub", "test"),
    )


def _count(item: Description, layout: Layout, split: Split) -> str:
    expected = item.expected(layout)
    if split not in expected:
        return "cut from train"
    count = expected[split]
    return "?" if count is None else f"{count:,}"


def _section(item: Description) -> str:
    lines = [f"\n## {item.name}\n", f"[{item.title}]({item.homepage}). Licence: {item.licence}."]
    if item.terms is not None:
        lines.append(f"\n**Terms.** {item.terms}")
    lines += ["\nOriginal files, below the folder of the data sets:\n", "```"]
    lines += [item.original.place.rstrip(), "```"]
    downloads = _downloads(item)
    if downloads:
        lines += ["", downloads.rstrip()]
    if item.original.manual:
        lines.append("\nThese files must be put there by hand.")
    if item.split is not None:
        place = f"splits/{item.split}.json"
        rule = read_foreign_json(resource_path(place))["rule"]
        lines.append(f"\nShipped split: `resources/{place}` ({rule}).")
    lines.append("")
    lines += [f"- {note}" for note in item.notes]
    for name, variant in item.variants.items():
        lines.append(
            f"- Prompts `{name}` ({variant.source}): {_differences(len(variant.classes))}"
            f"{'; other templates' if variant.templates is not None else ''}."
        )
    return "\n".join(lines) + "\n"


def _downloads(item: Description) -> str:
    rows = []
    for file in item.original.files:
        name = PurePosixPath(file.to).name
        rows.append((f"[{name}]({file.url})", _checksum(file)))
    return _table(("download", "checksum"), rows) if rows else ""


def _checksum(file: OriginalFile) -> str:
    if file.md5 is not None:
        return f"MD5 `{file.md5}`"
    return f"SHA-256 `{file.sha256}`" if file.sha256 is not None else "none known"


def _differences(count: int) -> str:
    return f"{count} class name{'' if count == 1 else 's'} differ{'s' if count == 1 else ''}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    lines = [_row(head), _row("---" for _ in head), *map(_row, rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    print(page(), end="")
