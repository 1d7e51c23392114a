"""What merges cost before lambda comes in: seconds of work, and what is kept beside the base."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from taskgrid.lattice.subsets import parse_subset
from taskgrid.plugins.cards import merger_card, shown_options
from taskgrid.plugins.storage import Tower
from taskgrid.provenance.digests import canonical_json
from taskgrid.store.atomic import read_json

COLUMNS = (
    *("model", "mode", "seed", "method", "options", "subset"),
    *("prepare_seconds", "bits_per_weight", "storage_mb"),
)
"""The columns of the table of costs; a row is a merge."""

Part = Mapping[str, Any]
"""A method of a run: ``labels`` (model, mode, seed), ``method``, ``options``; the files of seconds
``blocks``, ``learned`` (subset -> file) and ``statistics`` (task or ``""`` -> files)."""


def merge_costs(parts: Iterable[Part], towers: Mapping[str, Tower]) -> pd.DataFrame:
    """Return what every merge cost, columns ``COLUMNS``.

    Seconds are those of one machine, and enter no digest: of *prepare*, of learning, and of the
    statistics of the merged tasks. Where a part of them is not known, because its rows were found and
    not measured, there are none. What subsets share counts for the one that needed it first.

    Args:
        parts: methods with the files that say how long they took.
        towers: model -> the size of its image tower.

    Raises:
        ArtifactError: if a file is missing or damaged.
    """
    rows = [row for part in parts for row in _rows(part, towers[part["labels"]["model"]])]
    table = pd.DataFrame(rows, columns=[*COLUMNS])
    return table.astype({"seed": "Int64", "prepare_seconds": float})


def _rows(part: Part, tower: Tower) -> Iterator[dict[str, Any]]:
    method, storage = part["method"], merger_card(part["method"]).storage
    named = {
        **part["labels"],
        "method": method,
        "options": canonical_json(shown_options(method, part["options"])),
    }
    statistics = {task: _seconds(files) for task, files in part["statistics"].items()}
    for timing in (read_json(Path(file)) for file in part["blocks"]):
        for subset in timing["subsets"]:
            tasks = parse_subset(subset)
            spent = [statistics.get(task, 0.0) for task in (*tasks, "")]
            if subset in part["learned"]:
                spent.append(_seconds([part["learned"][subset]]))
            yield {
                **named,
                "subset": subset,
                "prepare_seconds": _prepared(method, timing["prepared"].get(subset), sum(spent)),
                "bits_per_weight": storage.bits_per_weight(tower, len(tasks), part["options"]),
                "storage_mb": storage.megabytes(tower, len(tasks), part["options"]),
            }


def _prepared(method: str, seconds: float | None, others: float) -> float | None:
    if merger_card(method).gives == "logits":
        return others  # there is nothing to prepare
    return None if seconds is None else seconds + others


def _seconds(files: Sequence[str]) -> float:
    return sum(float(read_json(Path(file))["seconds"]) for file in files)
