"""Tables as Parquet and small ones as CSV: equal tables give equal bytes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
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
            store_schema=False,
        )


def read_table(path: str | Path) -> pa.Table:
    """Read a Parquet file.

    Raises:
        ArtifactError: if the file is missing or damaged.
    """
    try:
        # A path inside "seed=0" is no partition of a data set: read this file and nothing else.
        return pq.ParquetFile(path).read()
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing; run the workflow first") from error
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); delete it and run again") from error


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that have the same columns as CSV.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
