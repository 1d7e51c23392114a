"""Reading the tables that other people rely on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, overload

import pandas as pd
import pyarrow as pa

from taskgrid.errors import ArtifactError
from taskgrid.store.columns import csv_types
from taskgrid.store.seals import damaged
from taskgrid.store.tables import check_csv, read_table

Format = Literal["pandas", "arrow"]


@overload
def read_grid(results: str | Path = ..., format: Literal["pandas"] = ...) -> pd.DataFrame: ...
@overload
def read_grid(results: str | Path, format: Literal["arrow"]) -> pa.Table: ...
def read_grid(
    results: str | Path = "results", format: Format = "pandas"
) -> pd.DataFrame | pa.Table:
    """Read ``tables/grid.parquet``: one row per (grid point, task, split).

    Args:
        results: the results folder.
        format: ``pandas``, or ``arrow`` for a pyarrow table.

    Returns:
        The table. ``point`` is text (``"0.30"``), so that it compares exactly, ``scale`` the same as
        a number; ``seed`` and ``mode`` are missing in zero-shot rows. With pandas, ``seed`` is a
        nullable integer. ``docs/tables.md`` explains every column, as does the schema's metadata.

    Raises:
        ArtifactError: if the file is missing, damaged, or of a version that is not read any more.
    """
    return _view(Path(results) / "tables" / "grid.parquet", format)


@overload
def read_selected(results: str | Path = ..., format: Literal["pandas"] = ...) -> pd.DataFrame: ...
@overload
def read_selected(results: str | Path, format: Literal["arrow"]) -> pa.Table: ...
def read_selected(
    results: str | Path = "results", format: Format = "pandas"
) -> pd.DataFrame | pa.Table:
    """Read ``tables/selected.parquet``: the chosen points of every merge, with their scores.

    Args:
        results: the results folder.
        format: ``pandas``, or ``arrow`` for a pyarrow table.

    Raises:
        ArtifactError: if the file is missing or damaged.
    """
    return _view(Path(results) / "tables" / "selected.parquet", format)


def read_summary(results: str | Path = "results") -> pd.DataFrame:
    """Read ``tables/summary.csv``: what a paper prints.

    Args:
        results: the results folder.

    Raises:
        ArtifactError: if the file is missing or damaged.
    """
    return _csv(Path(results) / "tables" / "summary.csv")


def read_pairs(results: str | Path = "results") -> pd.DataFrame:
    """Read ``tables/pairs.csv``: what a partner does to the accuracy on a task.

    Args:
        results: the results folder.

    Raises:
        ArtifactError: if the file is missing or damaged.
    """
    return _csv(Path(results) / "tables" / "pairs.csv")


def read_study(study: str, table: str, results: str | Path = "results") -> pd.DataFrame:
    """Read ``tables/{study}/{table}.parquet``: a study's own table.

    Args:
        study: the study's label in the configuration.
        table: the table's name, as on the study's card.
        results: the results folder.

    Raises:
        ArtifactError: if the file is missing or damaged.
    """
    return read_frame(Path(results) / "tables" / study / f"{table}.parquet")


def read_published(results: str | Path = "results") -> pd.DataFrame:
    """Read ``tables/published.csv``: the literature's numbers beside the run's.

    Args:
        results: the results folder.

    Raises:
        ArtifactError: if the file is missing or damaged.
    """
    return _csv(Path(results) / "tables" / "published.csv")


def frame_of(table: pa.Table) -> pd.DataFrame:
    """Return a table of results as a pandas frame, ``seed`` as a nullable integer."""
    frame: pd.DataFrame = table.to_pandas()
    return frame.astype({"seed": "Int64"}) if "seed" in frame else frame


def read_frame(path: str | Path) -> pd.DataFrame:
    """Read a Parquet or CSV table, with the types of its columns.

    Raises:
        ArtifactError: if the file is missing, damaged, or of a version that is not read any more.
    """
    return _csv(Path(path)) if Path(path).suffix == ".csv" else frame_of(read_table(path))


def _view(path: Path, format: Format) -> pd.DataFrame | pa.Table:
    table = read_table(path)
    return frame_of(table) if format == "pandas" else table


def _csv(path: Path) -> pd.DataFrame:
    try:
        check_csv(path)
        return pd.read_csv(path, dtype=csv_types())
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing; run the workflow first") from error
    except (ValueError, OSError) as error:
        raise damaged(path, str(error)) from error
