"""Reports of many runs as one table: what proofs and predictions say of themselves, with their labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from taskgrid.evaluation.precision.proof import Proof
from taskgrid.lattice.points import point_scale
from taskgrid.store.atomic import read_json
from taskgrid.store.tables import csv_path

Parts = Iterable[Mapping[str, Any]]


def lattice_reports(parts: Parts) -> pd.DataFrame:
    """Return what is known about the errors of predicted lattices: a row per lattice and point.

    Args:
        parts: ``{"labels": columns to add, "report": file}`` of each lattice.

    Raises:
        ArtifactError: if a file is missing or damaged.
    """
    rows = [
        {**part["labels"], "point": point, "scale": point_scale(point), **report}
        for part in parts
        for point, report in read_json(Path(part["report"])).items()
    ]
    return pd.json_normalize(rows, sep="_")


def precision_rows(parts: Parts) -> pd.DataFrame:
    """Return the comparisons of all proofs of a reduced precision.

    Args:
        parts: ``{"labels": columns to add, "proof": file}`` of each proof.

    Raises:
        ArtifactError: if a file is missing or damaged.
    """
    rows = []
    for part in parts:
        proof = Proof.read(part["proof"])
        named = {**part["labels"], "precision": proof.precision, "machine": proof.machine}
        rows += [{**named, **row} for row in proof.rows()]
    return pd.DataFrame(rows)


def write_report(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table of reports as CSV, with every digit.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    with csv_path(path) as temporary:
        table.to_csv(temporary, index=False)
