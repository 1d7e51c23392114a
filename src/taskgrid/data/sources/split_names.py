"""Which split a folder or file is of, by its name: `train`, `Test`, `training_set`, `dev`."""

from __future__ import annotations

import re
from typing import Final, Literal

from taskgrid.store.images import Split

Meaning = Split | Literal["unclear"]
"""A split; or ``unclear``, for what some call validation and others test."""

_WORDS: Final[dict[str, Meaning]] = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(
        ("val", "valid", "validate", "validation", "valset", "dev", "devel", "development"), "val"
    ),
    **dict.fromkeys(("test", "tests", "testing", "testset"), "test"),
    **dict.fromkeys(("eval", "evaluation", "holdout"), "unclear"),
}
_FILLING: Final = frozenset({"data", "images", "imgs", "set", "split"})


def meaning(name: str) -> Meaning | None:
    """Return the split that a name is usual for, in any case and with words like `set` beside it."""
    words = [word for word in _words(name) if word not in _FILLING]
    return _WORDS.get(words[0]) if len(words) == 1 else None


def mentioned(name: str) -> Meaning | None:
    """Return the split that a name speaks of among other words, as `seg_train` does."""
    return next((_WORDS[word] for word in _words(name) if word in _WORDS), None)


def _words(name: str) -> list[str]:
    # A lower-case letter before an upper-case one ends a word: TrainImages.
    return [
        word.casefold()
        for word in re.findall(r"[^\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name))
    ]
