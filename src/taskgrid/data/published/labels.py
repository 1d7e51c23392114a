"""Labels mapped by name.

The same data set has its classes in another order, or under other names, on the hub, in the
original files and in the papers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from taskgrid.data.published.description import Description
from taskgrid.errors import DataError
from taskgrid.sentences import did_you_mean


def label_map(
    description: Description, names: Sequence[str], table: Mapping[str, str] | None = None
) -> tuple[int, ...]:
    """Return the label in a description of each class of a source, found by name.

    Names match a class's key or, where that does not do for all of them, its name in prompts;
    upper and lower case, spaces, `_`, `/` and `-` make no difference.

    Args:
        description: the data set's.
        names: the source's names of its classes, in the source's label order.
        table: source's name -> key in `classes`, for names that differ; `hub.names` for the
            hub's files.

    Raises:
        DataError: if a name matches no class, or a class has none; says which.
    """
    found = _match(names, description.keys)
    if None in found:
        by_prompt = _match(names, description.names)
        found = by_prompt if None not in by_prompt else found
    labels = {key: label for label, key in enumerate(description.classes)}
    for row, name in enumerate(names):
        if table is not None and name in table:
            found[row] = labels.get(table[name])
    return _complete(description, names, found)


def _complete(
    description: Description, names: Sequence[str], found: Sequence[int | None]
) -> tuple[int, ...]:
    complete = [label for label in found if label is not None]
    if len(complete) == len(found) and sorted(complete) == list(range(len(description.classes))):
        return tuple(complete)
    where = f"the data set {description.name!r}"
    strange = [name for name, label in zip(names, found, strict=True) if label is None]
    if strange:
        hint = did_you_mean(strange[0], description.classes)
        raise DataError(
            f"{where} has no class called {strange[0]!r}; {hint}{len(strange)} of the source's "
            f"{len(names)} class names match none, so its labels cannot be mapped by name; "
            "give the option `names`, a mapping from the source's names to the classes"
        )
    missing = [key for label, key in enumerate(description.classes) if label not in complete]
    if missing:
        raise DataError(
            f"{where} has {len(description.classes)} classes, but the source names "
            f"{len(set(complete))}; {missing[0]!r} is missing"
        )
    raise DataError(f"two class names of the source are the same class of {where}")


def normalised(name: str) -> str:
    """Return a class name as it is compared: lower case, runs of space, `_`, `/`, `-` as one space."""
    return re.sub(r"[\s_/-]+", " ", name).strip().casefold()


def _match(names: Sequence[str], own: Sequence[str]) -> list[int | None]:
    known: dict[str, int | None] = {}
    for label, name in enumerate(own):
        key = normalised(name)
        # Two classes of one name cannot be told apart by it.
        known[key] = None if key in known else label
    return [known.get(normalised(name)) for name in names]
