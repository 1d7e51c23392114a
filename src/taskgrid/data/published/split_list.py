"""Shipped split lists: which image of a data set without an official split is in which split.

`resources/splits/<name>.json` names the images of *val* and *test* by their path in the original
layout; all others are *train*. The file says how many images each class has, so that a copy of the
data set with images missing or added is noticed instead of being split differently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from taskgrid.errors import ArtifactError, DataError
from taskgrid.resources import resource_path
from taskgrid.store.atomic import read_json
from taskgrid.store.images import Split


@dataclass(frozen=True)
class SplitList:
    """A shipped split.

    Attributes:
        name: its name.
        rule: how it was drawn, for a person.
        images: number of images of each class, by the name of the class's folder.
        val: images that select.
        test: images that test.
    """

    name: str
    rule: str
    images: Mapping[str, int]
    val: frozenset[str]
    test: frozenset[str]

    def part(self, names: Iterable[str], *, complete: bool = True) -> dict[Split, list[str]]:
        """Part the images of a data set, keeping their order.

        Args:
            names: the images, as `class/file`.
            complete: whether these must be the images that the list was drawn from, all of them.

        Raises:
            DataError: if they must be and are not.
        """
        parts: dict[Split, list[str]] = {"train": [], "val": [], "test": []}
        for name in names:
            split: Split = "test" if name in self.test else "val" if name in self.val else "train"
            parts[split].append(name)
        if complete:
            self._check(parts)
        return parts

    def _check(self, parts: Mapping[Split, Sequence[str]]) -> None:
        found = Counter(
            PurePosixPath(name).parent.as_posix() for part in parts.values() for name in part
        )
        advice = "put the whole original data set there"
        for folder in sorted({*self.images, *found}):
            expected = self.images.get(folder, 0)
            if found[folder] != expected:
                raise DataError(
                    f"{folder} has {found[folder]} images, but the split list {self.name!r} was "
                    f"drawn from {expected}; {advice}"
                )
        missing = self.val.difference(parts["val"]) | self.test.difference(parts["test"])
        if missing:
            raise DataError(
                f"{min(missing)} is missing, which the split list {self.name!r} holds out; {advice}"
            )


def read_split_list(name: str) -> SplitList:
    """Read a shipped split list.

    Raises:
        ArtifactError: if there is none of that name, or it is damaged.
    """
    path = resource_path(f"splits/{name}.json")
    value = read_json(path)
    try:
        return SplitList(
            name=name,
            rule=value["rule"],
            images=dict(value["images"]),
            val=frozenset(value["val"]),
            test=frozenset(value["test"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} is no split list ({error}); restore the file") from error
