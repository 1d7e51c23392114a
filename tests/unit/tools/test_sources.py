"""What the page on data sets says of images of one's own is what the sources do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taskgrid import plugins
from taskgrid.data.sources.opening import open_source
from taskgrid.data.sources.seam import Source
from taskgrid.data.sources.split_names import meaning
from taskgrid.data.splits import make_split
from taskgrid.errors import DataError
from taskgrid.store.images import ImageIndex, Split
from tests.unit.example_images import pixels, png, spec, table
from tools.sources import ARRAYS, CUTS, FOLDERS, NAMES, OPTIONS, TABLES, own_data


def write_images(root: Path, files: tuple[str, ...]) -> None:
    for key, name in enumerate(files):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(pixels(key)))


def write_tables(root: Path, files: tuple[str, ...]) -> None:
    for key, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        made = table([png(pixels(2 * key)), png(pixels(2 * key + 1))], [0, 1])
        if path.suffix == ".parquet":
            pq.write_table(made, path)
        else:
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, made.schema) as stream:
                stream.write_table(made)


def check(source: Source, splits: tuple[Split, ...], images: int) -> None:
    assert source.splits() == splits
    assert sum(source.count(split) for split in splits) == images
    assert all(image.pixels.ndim == 3 for split in splits for image in source.images(split))
    assert source.notes == ()


@pytest.mark.parametrize("about", FOLDERS)
def test_folders_that_the_page_shows(tmp_path: Path, about: str) -> None:
    files, splits = FOLDERS[about]
    write_images(tmp_path, files)
    source = open_source(spec("folder", tmp_path))
    check(source, splits, len(files))
    assert source.classes == ("robin", "wren")


@pytest.mark.parametrize("about", TABLES)
def test_tables_that_the_page_shows(tmp_path: Path, about: str) -> None:
    files, splits = TABLES[about]
    write_tables(tmp_path, files)
    check(open_source(spec("parquet", tmp_path)), splits, 2 * len(files))


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 8, 8, 3)])
def test_arrays_that_the_page_shows(tmp_path: Path, shape: tuple[int, ...]) -> None:
    kinds = {
        "images": np.zeros(shape, np.uint8),
        "labels": np.array([0, 1, 0, 1]),
        "ids": np.array(["a", "b", "c", "d"]),
    }
    arrays = {name: kinds[name.partition("_")[2]] for name in ARRAYS}
    np.savez(tmp_path / "x.npz", **arrays)
    task = spec("npz", tmp_path / "x.npz", classes=["cat", "dog"])
    check(open_source(task), ("train", "test"), 8)
    for name, words in (("train_images", "must be uint8"), ("validation_images", "rename it")):
        np.savez(tmp_path / "x.npz", **{**arrays, name: kinds["images"] / 255})
        with pytest.raises(DataError, match=words):
            open_source(task)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_folders_mean_what_the_page_says(tmp_path: Path, name: str) -> None:
    own = meaning(name)
    write_images(tmp_path, (f"{name}/robin/1.png", f"{name}/wren/1.png"))
    if own != "train":
        write_images(tmp_path, ("train/robin/2.png", "train/wren/2.png"))
    assert f"`{name}`" in own_data()
    if own == "unclear":
        with pytest.raises(DataError, match=r"options\.folders"):
            open_source(spec("folder", tmp_path))
    else:
        assert own in open_source(spec("folder", tmp_path)).splits()


def test_every_source_of_ones_own_has_its_options_explained() -> None:
    assert {*OPTIONS} == {*plugins.names("source")} - {"builtin", "published"}
    page = own_data()
    for source, model in OPTIONS.items():
        assert getattr(plugins.load("source", source), model.__name__) is model
        section = page.split(f"### Source `{source}`")[1].split("\n### ")[0]
        for key in model.model_fields:
            (row,) = (line for line in section.splitlines() if line.startswith(f"| `{key}` |"))
            assert len(row.split("|")[4].split()) > 3


@pytest.mark.parametrize("own", CUTS, ids="+".join)
def test_what_is_cut_comes_from_where_the_page_says(own: tuple[Split, ...]) -> None:
    ids = [f"{split}/{row}" for split in own for row in range(100)]
    origins = [name.partition("/")[0] for name in ids]
    index = ImageIndex(tuple(ids), tuple(n % 2 for n in range(len(ids))), (*origins,), (*ids,))
    made = make_split("x", index, ("cat", "dog"))
    for split, said, share in (("val", CUTS[own][0], 10), ("test", CUTS[own][1], 20)):
        held = made.ids(split)  # type: ignore[arg-type]
        origin = split if said == "the source's own" else "train"
        assert {name.partition("/")[0] for name in held} == {origin}
        left = 80 if said == "cut from what is left of train" else 100
        assert len(held) == (100 if origin == split else share * left // 100)
