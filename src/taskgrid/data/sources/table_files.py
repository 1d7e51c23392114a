"""Which Parquet or Arrow files are which split: by Hugging Face's names, or as `options.files` says.

The files of a split are one *series*: the shards of one writing (``train-00000-of-00002.parquet``), or
files counted from 0 or 1, or one file, or what lies in a folder of its name. Two series beside each
other would be two states of the same images, so they are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from taskgrid.data.sources.checks import no_train_split
from taskgrid.data.sources.listings import listed, visible, visible_folders
from taskgrid.data.sources.split_names import meaning, mentioned
from taskgrid.errors import DataError, SplitError
from taskgrid.store.images import SPLITS, Split

Files = dict[Split, list[Path]]

_SUFFIXES = (".parquet", ".arrow")
_SHARD = re.compile(r"(?P<stem>.*?)(?P<number>\d+)-of-(?P<total>\d+)(?P<rest>.*)")
_COUNTED = re.compile(r"(?P<stem>(?:.*[-_.])?)(?P<number>\d+)")
_SPARK = re.compile(r"(?P<stem>part-)(?P<number>\d+)(?P<rest>-.*)")
_WRITTEN_BY_MAPS = "cache-"
"""What the hub's `datasets` leaves beside its own files: results of `map` and `filter`."""


def usual_files(root: Path) -> tuple[Files, tuple[str, ...]]:
    """Return the files of each split by their names, and what to say of those left out.

    Raises:
        DataError: if several series, or files of unclear names, may be a split's, or a shard is missing.
        SplitError: if there are no training images.
    """
    found: Files = {}
    left: list[Path] = []
    for head, path in _tables(root):
        split = meaning(head)
        if split is None or split == "unclear" or path.name.startswith(_WRITTEN_BY_MAPS):
            left.append(path)
        else:
            found.setdefault(split, []).append(path)
    for path in left:
        spoken = mentioned(path.name) or mentioned(path.parent.name if path.parent != root else "")
        if spoken is not None and spoken not in found:
            raise DataError(
                f"{path} may be a split's, because of its name; say which files are which split's in "
                f"options.files, for example {{train: ..., test: '{path.name}'}}"
            )
    if "train" not in found:
        raise SplitError(
            no_train_split(
                root,
                "it has no data/train-*.parquet, train-*.parquet, train/*.arrow or the like",
                "name the files in options.files, for example {train: 'mine/*.parquet'}",
            )
        )
    for split, paths in found.items():
        series = sorted({_series(path): path for path in reversed(paths)}.values())
        if len(series) > 1:
            names = " and ".join(path.relative_to(root).as_posix() for path in series[:2])
            raise DataError(
                f"{root} has {len(series)} sets of files for {split}, such as {names}; move all but one "
                f"away, or say which one counts in options.files, for example "
                f"{{train: '{found['train'][0].relative_to(root).as_posix()}'}}"
            )
        check_shards(paths)
    notes = (f"left out: {listed(left, ', ')}",) if left else ()
    return {split: found[split] for split in SPLITS if split in found}, notes


def matching_files(root: Path, globs: Mapping[Split, str]) -> Files:
    """Return the files of each split that match a pattern below ``root``.

    Raises:
        DataError: if a pattern is none or matches nothing, a file is of two splits, or shards are of
            several writings or missing.
        SplitError: if there are no training images.
    """
    if "train" not in globs:
        raise SplitError(
            no_train_split(root, "options.files names none", "name the files of `train`")
        )
    found: Files = {}
    taken: dict[Path, Split] = {}
    for split in SPLITS:
        if split not in globs:
            continue
        pattern = PurePosixPath(globs[split])
        where = f"options.files.{split} {globs[split]!r}"
        if pattern.is_absolute() or ".." in pattern.parts or not pattern.parts:
            raise DataError(f"{where} must be a pattern of files below {root}")
        try:
            paths = sorted(path for path in root.glob(str(pattern)) if _is_plain(path))
        except ValueError as error:
            raise DataError(f"{where} is no pattern ({error})") from error
        if not paths:
            raise DataError(f"{where} matches no file in {root}")
        check_shards(paths)
        for path in paths:
            if path in taken:
                raise DataError(
                    f"{path} is of {taken[path]} and of {split} by options.files; make the patterns "
                    "narrower"
                )
            taken[path] = split
        found[split] = paths
    return found


def check_shards(paths: Sequence[Path]) -> None:
    """Refuse shards of several writings, and a writing that is not whole.

    Raises:
        DataError: with two names that do not go together, or the name that is missing.
    """
    writings: dict[tuple[Path, str], dict[int, Path]] = {}
    totals: dict[tuple[Path, str], int | None] = {}
    for path in paths:
        shard = _numbered(path)
        if shard is None:
            continue
        key, number = (path.parent, shard["stem"]), int(shard["number"])
        total = int(shard["total"]) if "total" in shard.groupdict() else None
        numbers = writings.setdefault(key, {})
        if number in numbers or totals.setdefault(key, total) != total:
            raise _two_writings(numbers.get(number, numbers[min(numbers)]), path)
        numbers[number] = path
    for key, numbers in writings.items():
        last, total = max(numbers), totals[key]
        if total is not None and last >= total:
            raise DataError(f"{numbers[last]} is numbered beyond its total; download all shards")
        # Without a total, files are counted from 0 or 1, or their numbers are years or the like.
        first = 0 if total is not None else min(numbers)
        if total is not None or first <= 1:
            expected = range(first, last + 1 if total is None else total)
            missing = next((number for number in expected if number not in numbers), None)
            if missing is not None:
                name = _renumbered(numbers[last], missing)
                raise DataError(f"{name} is missing; download all shards")


def _numbered(path: Path) -> re.Match[str] | None:
    return _SHARD.fullmatch(path.stem) or _COUNTED.fullmatch(path.stem)


def _two_writings(first: Path, second: Path) -> DataError:
    return DataError(
        f"{first} and {second.name} are shards of two writings of the same images; move one set away, "
        "or make options.files narrower"
    )


def _renumbered(path: Path, number: int) -> Path:
    shard = _numbered(path)
    assert shard is not None
    of = f"-of-{shard['total']}" if "total" in shard.groupdict() else ""
    return path.with_name(f"{shard['stem']}{number:0{len(shard['number'])}d}{of}{path.suffix}")


def _tables(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the tables where Hugging Face puts them, each with the text that may name its split."""
    for place in (root, root / "data"):
        if not place.is_dir():
            continue
        for path in filter(_is_table, visible(place)):
            yield re.split(r"[-.]", path.name)[0], path
        for folder in visible_folders(place):
            if mentioned(folder.name):
                yield from ((folder.name, path) for path in visible(folder) if _is_table(path))


def _series(path: Path) -> tuple[Path, str, str]:
    """Return what the files of one series have in common."""
    if shard := _SHARD.fullmatch(path.stem):
        return path.parent, f"{shard['stem']}*-of-{shard['total']}", path.suffix
    if part := _SPARK.fullmatch(path.stem):
        return path.parent, f"part-*{part['rest']}", path.suffix
    if counted := _COUNTED.fullmatch(path.stem):
        return path.parent, f"{counted['stem']}*", path.suffix
    inside = meaning(path.parent.name) is not None
    return path.parent, "" if inside else path.stem, path.suffix


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")
