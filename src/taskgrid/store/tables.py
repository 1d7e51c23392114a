"""Tables as Parquet and small ones as CSV: equal tables give equal bytes.

In Parquet the words of the columns go with the table.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from taskgrid.provenance.digests import digest_file
from taskgrid.store import seals
from taskgrid.store.atomic import atomic_path, sealed_path, write_text


def write_table(path: str | Path, table: pa.Table) -> None:
    """Write a table as Parquet; equal tables give equal bytes.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    with sealed_path(path) as temporary:
        pq.write_table(
            table.combine_chunks().replace_schema_metadata({seals.NAME: seals.EMPTY}),
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
    seals.check(path)
    try:
        # A path inside "seed=0" is no partition of a data set: read this file and nothing else.
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise seals.damaged(path, str(error)) from error
    return table.replace_schema_metadata(None)


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that have the same columns as CSV.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    with csv_path(path) as temporary, temporary.open("w", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


@contextmanager
def csv_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path as ``atomic_path`` does; the digest of the CSV goes into a file beside it.

    CSV has no place that readers pass over, so this is the one format whose seal stands outside.

    Raises:
        ArtifactError: if the file system refuses to write.
    """
    with atomic_path(path) as temporary:
        yield temporary
        stated = digest_file(temporary)
        # Without one, neither the old table nor the new is ever taken for damaged.
        _beside(path).unlink(missing_ok=True)
    write_text(_beside(path), f"{stated}\n")


def check_csv(path: str | Path) -> None:
    """Compare a CSV with the digest beside it; one that was taken elsewhere without it is let be.

    Raises:
        ArtifactError: if it was changed after it was written.
    """
    try:
        stated = _beside(path).read_bytes()
    except OSError:
        return
    if stated != f"{digest_file(path)}\n".encode():
        raise seals.damaged(path, f"it does not match its digest in {_beside(path).name}")


def _beside(path: str | Path) -> Path:
    return Path(path).with_name(f".{Path(path).name}.{seals.NAME}")
