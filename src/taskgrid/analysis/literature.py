"""The literature's numbers: what was measured, on which model and tasks, and who printed it.

They lie in ``resources/published``, one CSV per *lineage*: numbers that go back to one family of
checkpoints and one way to cut the data. Numbers of different lineages are never mixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pandas as pd

from taskgrid.errors import ConfigError
from taskgrid.plugins.resources import resource_path
from taskgrid.sentences import choices
from taskgrid.store.atomic import read_foreign_json

COLUMNS = (
    "lineage",
    "source",
    "study",
    "model",
    "mode",
    "method",
    "options",
    "lambda",
    "tasks",
    "task",
    "split",
    "metric",
    "value",
    "images",
    "flags",
    "note",
)
"""The columns of a lineage's file.

``tasks`` is the set of tasks that were merged or averaged over (``8``, ``14``, ``20-letters``,
``20-digits``; ``pairs`` of the eight; ``1``: no set), ``task`` one of them or ``average``. ``lambda``
is a number as text, ``val`` or ``test`` (where it was chosen), ``unstated``, or empty: the method has
none. ``value`` is in percent, with the digits that were printed; ``images`` behind it, where known.
``flags`` (joined by ``+``) are explained in ``index.json``.
"""


@cache
def _index() -> Mapping[str, Mapping[str, Any]]:
    content: Mapping[str, Mapping[str, Any]] = read_foreign_json(
        resource_path("published/index.json")
    )
    return content


def lineages() -> Mapping[str, str]:
    """Return the lineages and, in words, what each goes back to."""
    return _index()["lineages"]


def task_sets() -> Mapping[str, Sequence[str]]:
    """Return the sets of tasks that publications average over, by name."""
    return _index()["sets"]


def flag_words() -> Mapping[str, str]:
    """Return what each flag means."""
    return _index()["flags"]


def model_titles() -> Mapping[str, str]:
    """Return the models that numbers were published for, as a person writes them."""
    return {name: model["title"] for name, model in _index()["models"].items()}


def published_model(architecture: str, pretrained: str) -> str | None:
    """Return the name under which numbers of a base were published; None for any other base.

    Only OpenAI's weights count, with the activation they were trained with (QuickGELU): with
    another one the same weights are another model.
    """
    for name, model in _index()["models"].items():
        if (architecture, pretrained) == (model["architecture"], model["pretrained"]):
            return str(name)
    return None


def read_numbers(wanted: Sequence[str]) -> pd.DataFrame:
    """Read the numbers of some lineages, in the order given.

    Args:
        wanted: the lineages.

    Returns:
        The columns ``COLUMNS``, ``value`` and ``images`` as numbers and the others as text, and
        ``printed``: the value as it was printed.

    Raises:
        ConfigError: if there is no such lineage; the text lists those that exist.
    """
    known = tuple(lineages())
    for name in wanted:
        if name not in known:
            raise ConfigError(
                f"published: there are no numbers of lineage {name!r}; {choices(name, known)}"
            )
    frames = [
        pd.read_csv(resource_path(f"published/{name}.csv"), dtype=str, keep_default_na=False)
        for name in wanted
    ]
    rows = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[*COLUMNS])
    images = pd.to_numeric(rows["images"]).astype("Int64")
    value = pd.to_numeric(rows["value"])
    return rows.assign(printed=rows["value"], value=value, images=images)
