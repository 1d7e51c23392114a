"""Tables as Parquet and small ones as CSV: equal tables give equal bytes.

In Parquet the words of the columns go with the table.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from taskgrid.errors import ArtifactError
from taskgrid.store.atomic import atomic_path


def write_table(path: str | Path, table: pa.Table) -> None:
    """Write a table as Parquet; equal tables give equal bytes.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    with atomic_path(path) as temporary:
        pq.write_table(
            table.combine_chunks().replace_schema_metadata(None),
            temporary,
            version="2.6",
            data_page_version="1.0",
            compression="zstd",
            compression_level=3,
            use_dictionary=True,
            write_statistics=True,
            row_group_size=1 << 20,
            # The words of the columns are in the schema.
            store_schema=True,
        )


def read_table(path: str | Path) -> pa.Table:
    """Read a Parquet file.

    Raises:
        ArtifactError: if the file is missing or damaged, or of a version that is not read any more.
    """
    try:
        # A path inside "seed=0" is no partition of a data set: read this file and nothing else.
        table = pq.ParquetFile(path).read()
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing; run the workflow first") from error
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); delete it and run again") from error
    refuse_outdated(path, table.schema.names)
    return table


def refuse_outdated(path: str | Path, columns: Iterable[str]) -> None:
    """Refuse a table that was written before points had coefficients per task.

    Raises:
        ArtifactError: if it is one; the text says what to do.
    """
    names = set(columns)
    if "lambda" in names and "point" not in names:
        raise ArtifactError(
            f"{path} is of an earlier version of taskgrid (its column `lambda` is `point` and `scale` now); "
            "delete it and run the workflow again, which makes it anew"
        )


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that have the same columns as CSV.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
