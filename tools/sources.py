"""The part of `docs/datasets.md` on images of one's own: `tools/sources.md`, filled in.

What can be computed is: options, endings, what names of folders mean. Examples are data, so that a test
builds each of them and opens it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template

from taskgrid.config.sections.data import SplitSpec
from taskgrid.data.classnames import DEFAULT_TEMPLATES
from taskgrid.data.decode import FORMATS, IMAGE_SUFFIXES, MOST_PIXELS
from taskgrid.data.sources.folder import FolderOptions
from taskgrid.data.sources.npz import NpzOptions
from taskgrid.data.sources.options import SourceOptions
from taskgrid.data.sources.parquet import ParquetOptions
from taskgrid.data.sources.split_names import Meaning, meaning
from taskgrid.store.images import Split
from tools.configuration import options

OPTIONS: Mapping[str, type[SourceOptions]] = {
    "folder": FolderOptions,
    "npz": NpzOptions,
    "parquet": ParquetOptions,
}

Examples = Mapping[str, tuple[tuple[str, ...], tuple[Split, ...]]]
"""What lies below `path`, by what it shows, and the splits that it has."""

FOLDERS: Examples = {
    "One folder for each split": (
        ("train/robin/1.jpg", "train/wren/1.jpg", "test/robin/1.jpg", "test/wren/1.jpg"),
        ("train", "test"),
    ),
    "Class folders alone: all are training images": (
        ("robin/1.jpg", "robin/2.png", "wren/1.jpg", "wren/spring/2.jpg"),
        ("train",),
    ),
    "Other names, in any case": (
        ("Training/robin/1.jpg", "Training/wren/1.jpg", "valid/robin/1.jpg", "valid/wren/1.jpg"),
        ("train", "val"),
    ),
}

ARRAYS: Mapping[str, str] = {
    "train_images": "(n, H, W) or (n, H, W, 3), uint8",
    "train_labels": "(n,), whole numbers from 0",
    "train_ids": "(n,), text or whole numbers; may be missing",
    "test_images": "as for train",
    "test_labels": "as for train",
}

TABLES: Examples = {
    "Shards, as the hub has them": (
        (
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet",
            "data/test-00000-of-00001.parquet",
        ),
        ("train", "test"),
    ),
    "A file for each split": (("train.parquet", "validation.parquet"), ("train", "val")),
    "What `save_to_disk` writes": (
        ("train/data-00000-of-00001.arrow", "test/data-00000-of-00001.arrow"),
        ("train", "test"),
    ),
}

NAMES = (
    *("train", "Training", "train_images", "trainset"),
    *("val", "valid", "Validation", "dev"),
    *("test", "Testing", "test-set"),
    *("eval", "holdout"),
)

CUTS: Mapping[tuple[Split, ...], tuple[str, str]] = {
    ("train", "val", "test"): ("the source's own", "the source's own"),
    ("train", "test"): ("cut from train", "the source's own"),
    ("train", "val"): ("the source's own", "a fifth of train"),
    ("train",): ("cut from what is left of train", "a fifth of train"),
}
"""Where validation and test come from, by the splits that a source has."""

_PART = Path(__file__).with_suffix(".md")


def own_data() -> str:
    """Return the part: class names, the three sources, what is cut, duplicates."""
    rule = SplitSpec()
    tables = {f"{source}_options": options(model) for source, model in OPTIONS.items()}
    return Template(_PART.read_text(encoding="utf-8")).substitute(
        tables,
        folders=_listed(FOLDERS),
        tables=_listed(TABLES),
        arrays=_rows((f"`{name}`", about) for name, about in ARRAYS.items()),
        cuts=_rows((", ".join(own), *cut) for own, cut in CUTS.items()),
        pixels=f"{MOST_PIXELS:,}",
        template=DEFAULT_TEMPLATES[0],
        suffixes=_code(IMAGE_SUFFIXES),
        formats=", ".join(FORMATS),
        share=f"{rule.fraction:.0%}",
        most=f"{rule.limit:,}",
        seed=str(rule.seed),
        train=_named("train"),
        val=_named("val"),
        test=_named("test"),
        unclear=_named("unclear"),
    )


def _named(split: Meaning) -> str:
    return _code(name for name in NAMES if meaning(name) == split)


def _listed(examples: Examples) -> str:
    parts = []
    for about, (files, splits) in examples.items():
        parts.append(f"{about} ({', '.join(splits)}):\n\n```\n" + "\n".join(files) + "\n```\n")
    return "\n".join(parts)


def _rows(rows: Iterable[Iterable[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
