"""Seals: one changed byte is seen wherever it is, in every format, and other programs read on."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taskgrid.errors import ArtifactError
from taskgrid.store import seals
from taskgrid.store.atomic import read_json, write_json
from taskgrid.store.images import ImageStore, PreparedImage, write_images
from taskgrid.store.logits import LogitsStore
from taskgrid.store.originals import Original, OriginalStore, write_originals
from taskgrid.store.tables import check_csv, read_table, write_csv, write_table

JSON = {"task": "pets", "ids": ["ä", "b"], "counts": {"train": 2}, "loss": 0.1}
TABLE = pa.table({"task": ["a", "b", "a"], "accuracy": [0.5, 0.25, None]})
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
LOGITS = np.arange(12, dtype=np.float32).reshape(3, 4)


def a_json(folder: Path) -> Path:
    write_json(folder / "a.json", JSON)
    return folder / "a.json"


def a_line(folder: Path) -> Path:
    write_json(folder / "line.json", JSON, indent=None)
    return folder / "line.json"


def a_table(folder: Path) -> Path:
    write_table(folder / "a.parquet", TABLE)
    return folder / "a.parquet"


def images(folder: Path) -> Path:
    rows = [PreparedImage(f"{n}", n, "train", f"{n:032x}", PIXELS[n]) for n in range(3)]
    write_images(folder / "images.arrow", rows, 4)
    return folder / "images.arrow"


def originals(folder: Path) -> Path:
    with write_originals(folder / "train.arrow") as writer:
        writer.add(0, f"{0:032x}", Original(5, 4, PIXELS[0]))
    return folder / "train.arrow"


def logits(folder: Path) -> Path:
    LogitsStore(folder).add("key", LOGITS)
    return folder / "key.npy"


READERS: dict[Callable[[Path], Path], Callable[[Path], Any]] = {
    a_json: read_json,
    a_line: read_json,
    a_table: read_table,
    images: ImageStore.open,
    originals: OriginalStore.open,
}


@pytest.mark.parametrize("write", [*READERS, logits])
def test_a_seal_is_the_digest_of_all_other_bytes(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = write(tmp_path)
    content, stated = path.read_bytes(), seals.seal_of(path).encode()
    # Arrow says its schema twice; the seal is in the first, which is in front.
    before, _, after = content.partition(b"taskgrid-seal:" + stated)
    expected = hashlib.sha256(before + b"taskgrid-seal:" + after).hexdigest()
    assert expected[:32].encode() == stated
    assert write(tmp_path).read_bytes() == content


@pytest.mark.parametrize("write", READERS)
def test_one_flipped_bit_anywhere_is_seen(write: Callable[[Path], Path], tmp_path: Path) -> None:
    path, read, draw = write(tmp_path), READERS[write], random.Random(0)
    content = path.read_bytes()
    read(path)
    for place in range(len(content)):
        path.write_bytes(flipped(content, place, draw.randrange(8)))
        with pytest.raises(ArtifactError, match=rf"{path.name} is damaged .*; delete it and run"):
            read(path)


def test_logits_that_were_changed_are_measured_again(tmp_path: Path) -> None:
    path, store = logits(tmp_path), LogitsStore(tmp_path)
    content, found = path.read_bytes(), store.find("key")
    assert found is not None and np.array_equal(found, LOGITS)
    for place in range(len(content)):
        path.write_bytes(flipped(content, place, 0))
        assert store.find("key") is None


def test_other_programs_read_sealed_files(tmp_path: Path) -> None:
    assert json.loads(a_json(tmp_path).read_text()).items() >= JSON.items()
    assert json.loads(a_line(tmp_path).read_text()).items() >= JSON.items()
    assert pq.read_table(a_table(tmp_path)).equals(TABLE)
    assert pd.read_parquet(a_table(tmp_path))["task"].tolist() == ["a", "b", "a"]
    with pa.memory_map(str(images(tmp_path))) as source:
        assert pa.ipc.open_file(source).read_all().num_rows == 3
    assert np.array_equal(np.load(logits(tmp_path)), LOGITS)


def test_an_empty_object_has_a_seal_too(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {})
    assert read_json(tmp_path / "a.json") == {}
    write_json(tmp_path / "a.json", {}, indent=None)
    assert read_json(tmp_path / "a.json") == {}


@pytest.mark.parametrize("cut", [0, 1, 20, 100])
def test_a_file_without_a_seal_or_cut_short_is_refused(cut: int, tmp_path: Path) -> None:
    path = a_json(tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ArtifactError, match=r"a\.json is damaged"):
        read_json(path)


def test_the_sentence_names_the_rule_that_makes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results/splits/24px/pets.json"
    write_json(path, JSON)
    path.write_bytes(flipped(path.read_bytes(), -2, 0))
    with pytest.raises(ArtifactError) as caught:
        read_json(path)
    assert str(caught.value) == (
        f"{path} is damaged (its bytes do not match its seal: it was changed after it was written); "
        "delete it and run again: rule `split` makes it anew"
    )
    path.unlink()
    with pytest.raises(ArtifactError, match=r"pets\.json is missing; run the workflow"):
        read_json(path)
    path.mkdir()
    with pytest.raises(ArtifactError, match=r"pets\.json cannot be read"):
        read_json(path)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read whole from now on; every size is worth a note."""
    looked: list[str] = []
    digest = seals._digest

    def count(stream: Any, place: int) -> str:
        looked.append(Path(stream.name).name)
        return digest(stream, place)

    monkeypatch.setattr(seals, "_digest", count)
    monkeypatch.setattr(seals, "_NOTED_FROM", 0)
    return looked


def test_a_large_file_is_read_whole_once(tmp_path: Path, counted: list[str]) -> None:
    path = images(tmp_path)
    counted.clear()
    for _ in range(3):
        ImageStore.open(path)
    # Its writer knew already.
    assert counted == []
    path.rename(tmp_path / "moved.arrow")
    for _ in range(3):
        ImageStore.open(tmp_path / "moved.arrow")
    assert counted == ["moved.arrow"]


def test_a_note_holds_until_the_file_changes_whatever_its_time_says(
    tmp_path: Path, counted: list[str]
) -> None:
    path = images(tmp_path)
    content, state = path.read_bytes(), path.stat()
    with path.open("r+b") as stream:
        stream.write(flipped(content, -40, 3))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_mtime_ns == state.st_mtime_ns
    with pytest.raises(ArtifactError, match=r"images\.arrow is damaged"):
        ImageStore.open(path)
    path.write_bytes(content)
    ImageStore.open(path)
    (tmp_path / ".images.arrow.whole").write_bytes(b"\xff")
    counted.clear()
    ImageStore.open(path)
    ImageStore.open(path)
    assert counted == ["images.arrow"]


def test_small_files_leave_no_note(tmp_path: Path) -> None:
    ImageStore.open(images(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["images.arrow"]


def test_a_csv_is_compared_with_its_digest_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "results/tables/pairs.csv"
    write_csv(path, [{"task": "a", "change": 0.25}])
    content = path.read_bytes()
    assert content == b"task,change\na,0.25\n"
    check_csv(path)
    for place in range(len(content)):
        path.write_bytes(flipped(content, place, 2))
        with pytest.raises(ArtifactError, match=r"pairs\.csv is damaged .*rule `grid` makes it"):
            check_csv(path)
    taken = tmp_path / "elsewhere.csv"
    taken.write_bytes(path.read_bytes())
    check_csv(taken)


def flipped(content: bytes, place: int, bit: int) -> bytes:
    """The content with one bit turned."""
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    return bytes(changed)
