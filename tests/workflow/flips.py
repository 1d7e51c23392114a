"""Reads every file of a finished run with flipped bytes, as jobs would: ``python -m tests.workflow.flips``.

It is a program of its own, so that a reader that ends its process is seen. Each file is read whole first,
then with one byte flipped, again and again; a line on standard output says what is read, and what is wrong.
"""

from __future__ import annotations

import random
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taskgrid.data.manifest import DatasetManifest, SplitManifest
from taskgrid.errors import TaskgridError
from taskgrid.evaluation.plan.choices import read_choices
from taskgrid.evaluation.plan.planner import Plan
from taskgrid.evaluation.plan.rows import read_rows
from taskgrid.models.card import ModelCard
from taskgrid.models.heads import Head
from taskgrid.outofcore.checked import check_weights
from taskgrid.results import read_frame
from taskgrid.store.atomic import read_json
from taskgrid.store.images import ImageStore
from taskgrid.store.originals import OriginalStore
from taskgrid.store.outcomes import OutcomeStore
from taskgrid.store.tables import read_table
from taskgrid.store.weights import digest_state, load_state
from taskgrid.tracking.records import read_records
from taskgrid.vectors import TaskVector

FLIPS = 50
ENDS = 2048
"""Half of the flips are among so many bytes at the ends, where formats say what the rest is."""


def images(path: Path) -> object:
    """All that a store of images gives."""
    store = ImageStore.open(path)
    return store.index, store.pixels.tobytes(), store.labels.tobytes(), store.image_size


def originals(path: Path) -> object:
    """All that a store of originals gives."""
    store = OriginalStore.open(path)
    return store.digests, [store.pixels(place).tobytes() for place in range(len(store))]


def weights(path: Path) -> object:
    """A state by its digest, and its lineage."""
    check_weights(path)
    state, lineage = load_state(path)
    return digest_state(state), lineage


def vector(path: Path) -> object:
    """A task vector by its digest, and its lineage."""
    found = TaskVector.load(path)
    return digest_state(found.deltas), found.lineage


def head(path: Path) -> object:
    """A head by its weights, classes and lineage."""
    found = Head.load(path)
    return found.weight.tolist(), found.classes, found.lineage


def outcomes(path: Path) -> object:
    """The outcomes of one file of the store; none where it is refused with a warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        store = OutcomeStore(path.parent)
        store.find(())
        keys = [key.hex() for batch in store._index.get(path.name, ()) for key in batch]
        found = store.find(keys)
    if caught:
        raise TaskgridError(str(caught[0].message))
    return sorted(found.items())


def frame(path: Path) -> object:
    """A table for figures and the report."""
    return read_frame(path).to_csv()


READERS: dict[str, Callable[[Path], Any]] = {
    "data/*/*/images.arrow": images,
    "data/*/*/train.arrow": originals,
    "data/*/*/dataset.json": DatasetManifest.read,
    "splits/*/*.json": SplitManifest.read,
    "models/*/base.json": lambda path: ModelCard.from_json(read_json(path)),
    "models/*/base.safetensors": weights,
    "heads/*/*.safetensors": head,
    "heads/*/*.json": read_json,
    "experts/*/*/*/*/expert.safetensors": weights,
    "experts/*/*/*/*/expert.json": read_json,
    "experts/*/*/*/*/timing.json": read_json,
    "experts/*/*/*/*/history.parquet": read_table,
    "experts/*/*/*/*/run.json": read_records,
    "vectors/*/*/*/*.safetensors": vector,
    "vectors/*/*/*/*.json": read_json,
    "vectors/*/*/*/conflicts.parquet": read_table,
    "merge/*/*/*/*/*.json": Plan.read,
    "eval/*/*/*/*/*/rows.parquet": read_rows,
    "eval/*/*/*/reference/rows.parquet": read_rows,
    "eval/*/*/*/*/*/choices.json": read_choices,
    "eval/*/*/*/*/*/timing.json": read_json,
    "eval/*/*/*/*/*/run.json": read_records,
    "store/*.arrow": outcomes,
    "tables/grid.parquet": read_rows,
    "tables/conflicts.parquet": read_table,
    "tables/selected.parquet": read_table,
    "tables/*.csv": frame,
    "registry/sync.json": read_json,
    "registry/project.json": read_json,
}
"""How jobs read the files of a run."""

FOR_PEOPLE = (
    *(
        "figures/*",
        "report.html",
        "explorer.html",
        "vectors/*/*/*/*.norms.csv",
        "logs/**/*",
        "benchmarks/**/*",
    ),
    # MLflow's, which is made from the records whenever that is asked for.
    *("mlflow.db*", "mlartifacts/**/*"),
)
"""What no job reads."""


def place_of(flip: int, size: int, draw: random.Random) -> int:
    """Draw where to flip: anywhere, near the beginning, anywhere, near the end."""
    if flip % 2 == 0:
        return draw.randrange(size)
    near = draw.randrange(min(size, ENDS))
    return near if flip % 4 == 1 else size - 1 - near


def flip_kind(results: Path, pattern: str, work: Path) -> list[str]:
    """Return what went unseen in the files of a kind."""
    files, draw, wrong = sorted(results.glob(pattern)), random.Random(pattern), []
    if not files:
        return [f"{pattern}: there is no such file"]
    read, contents = READERS[pattern], [file.read_bytes() for file in files]
    copies = [work / "results" / file.relative_to(results) for file in files]
    for copy in copies:
        copy.parent.mkdir(parents=True, exist_ok=True)
    for number in range(FLIPS):
        which = number % len(files)
        copy, content = copies[which], contents[which]
        if (beside := files[which].with_name(f".{copy.name}.seal")).exists():
            copy.with_name(beside.name).write_bytes(beside.read_bytes())
        copy.write_bytes(content)
        whole = read(copy)
        place = place_of(number, len(content), draw)
        changed = bytearray(content)
        changed[place] ^= 1 << draw.randrange(8)
        copy.write_bytes(changed)
        try:
            found = read(copy)
        except TaskgridError as error:
            if copy.name not in str(error) or "again" not in str(error):
                wrong.append(f"{pattern}: byte {place}: {error}")
        except Exception as error:
            wrong.append(f"{pattern}: byte {place}: {error!r}")
        else:
            same = found.equals(whole) if hasattr(found, "equals") else found == whole
            if not same:
                wrong.append(f"{pattern}: byte {place} of {copy.name} changed what was read")
        copy.unlink()
    return wrong


def unknown(results: Path) -> list[str]:
    """Return the files that are neither read by a reader above nor for people alone."""
    known = {file for pattern in (*READERS, *FOR_PEOPLE) for file in results.glob(pattern)}
    return [
        f"{file}: what reads it?"
        for file in sorted(results.rglob("*"))
        if file.is_file() and not file.name.startswith(".") and file not in known
    ]


def main() -> None:
    """Read the results in the folder that is named; exit code 1 if anything went unseen."""
    results = Path(sys.argv[1])
    wrong = unknown(results)
    with tempfile.TemporaryDirectory() as work:
        for pattern in READERS:
            print("reading", pattern, flush=True)
            wrong += flip_kind(results, pattern, Path(work))
    print(*wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
