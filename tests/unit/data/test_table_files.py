"""Parquet and Arrow files as people have them: several writings, odd names, labels in other orders."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taskgrid.data.sources.opening import open_source
from taskgrid.errors import DataError
from tests.unit.example_images import pixels, png, spec, table

GOOD = [png(pixels(n)) for n in range(4)]
PLAIN = table(GOOD, [0, 1, 0, 1])


def files(root, *names, made=PLAIN):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".arrow":
            with pa.ipc.new_stream(str(path), made.schema) as file:
                file.write_table(made)
        else:
            pq.write_table(made, path)
    return root


def refusal(root, **fields):
    with pytest.raises(DataError) as caught:
        source = open_source(spec("parquet", root, **fields))
        for split in source.splits():
            list(source.images(split))
    assert "\n" not in str(caught.value)
    return str(caught.value)


HASHED = [f"data/train-0000{n}-of-00002-{h}.parquet" for n, h in enumerate(("a1b2", "c3d4"))]


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        (["Train.parquet", "TEST.parquet"], {"train": 4, "test": 4}),
        (["training.PARQUET", "dev.parquet"], {"train": 4, "val": 4}),
        (HASHED, {"train": 8}),
        (["train/0000.parquet", "train/0001.parquet"], {"train": 8}),
        (["data/train/0.parquet", "data/test/0.parquet"], {"train": 4, "test": 4}),
        (["train/a.parquet", "train/b.parquet"], {"train": 8}),
        (["train_set-1-of-1.parquet"], None),
        (["train-1.parquet", "train-2.parquet"], {"train": 8}),
        (["Train/data-00000-of-00001.arrow"], {"train": 4}),
    ],
)
def test_usual_files(tmp_path, names, counts):
    root = files(tmp_path, *names)
    if counts is None:
        assert "numbered beyond its total" in refusal(root)
        return
    source = open_source(spec("parquet", root))
    assert {split: source.count(split) for split in source.splits()} == counts


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train-00000-of-00001.parquet", "train-00000-of-00002.parquet",
          "train-00001-of-00002.parquet"], ["2 sets of files for train"]),
        ([*HASHED, "data/train-00000-of-00002-ffff.parquet"], ["shards of two writings"]),
        (HASHED[1:], ["train-00000-of-00002.parquet is missing; download all shards"]),
        (["train/0000.parquet", "train/0002.parquet"], ["train/0001.parquet is missing"]),
        (["train.parquet", "train-extra.parquet"],
         ["2 sets of files for train", "train-extra.parquet and train.parquet"]),
        (["train-00000-of-00001.parquet", "train.parquet"], ["2 sets of files for train"]),
        (["train.parquet", "data/train-00000-of-00001.parquet"], ["2 sets of files for train"]),
        (["train.parquet", "train/data-00000-of-00001.arrow"], ["2 sets of files for train"]),
        (["train.parquet", "validation.parquet", "val.parquet"], ["2 sets of files for val"]),
        (["train.parquet", "validation/0.parquet", "dev.parquet"], ["2 sets of files for val"]),
        (["train-v1.parquet", "train-v2.parquet"], ["2 sets of files for train"]),
        (["train/part-00000-aa-c000.parquet", "train/part-00000-bb-c000.parquet"],
         ["2 sets of files for train"]),
        (["train.parquet", "eval.parquet"], ["eval.parquet may be a split's", "options.files"]),
        (["train.parquet", "my_test.parquet"], ["my_test.parquet may be a split's"]),
        (["train.parquet", "seg_test/0.parquet"], ["seg_test/0.parquet may be a split's"]),
        (["mine.parquet", "test.parquet"], ["no train split"]),
    ],
)  # fmt: skip
def test_what_may_be_meant_in_two_ways_is_refused(tmp_path, names, words):
    text = refusal(files(tmp_path, *names))
    assert all(word in text for word in words), text


def test_what_is_left_out_is_named(tmp_path):
    files(tmp_path, "train/data-00000-of-00001.arrow", "train/cache-1f2e.arrow", "extra.parquet")
    source = open_source(spec("parquet", tmp_path))
    assert source.count("train") == 4
    assert source.notes == ("left out: extra.parquet, cache-1f2e.arrow",)


def test_hidden_files_and_folders_of_that_name_are_no_tables(tmp_path):
    files(tmp_path, "train.parquet", "._train.parquet", "train/._x.parquet")
    (tmp_path / "test.parquet").mkdir()
    assert open_source(spec("parquet", tmp_path)).splits() == ("train",)


@pytest.mark.parametrize("pattern", ["../*.parquet", "/x/*.parquet", "", "x/../t.parquet"])
def test_patterns_stay_below_the_path(tmp_path, pattern):
    root = files(tmp_path / "a", "t.parquet")
    text = refusal(root, options={"files": {"train": pattern}})
    assert f"options.files.train {pattern!r} must be a pattern of files below" in text


def test_a_file_of_two_splits_is_refused(tmp_path):
    root = files(tmp_path, "a.parquet", "b.parquet")
    text = refusal(root, options={"files": {"train": "*.parquet", "test": "b*"}})
    assert "b.parquet is of train and of test by options.files" in text


def test_two_writings_by_one_pattern_are_refused(tmp_path):
    root = files(tmp_path, "t-0-of-1.parquet", "t-0-of-2.parquet", "t-1-of-2.parquet")
    assert "two writings" in refusal(root, options={"files": {"train": "t-*"}})
    task = spec("parquet", root, options={"files": {"train": "t-*-of-2.parquet"}})
    assert open_source(task).count("train") == 8


def test_one_shard_of_two_is_not_all(tmp_path):
    files(tmp_path, "train-00001-of-00002.parquet")
    assert "train-00000-of-00002.parquet is missing" in refusal(
        tmp_path / "train-00001-of-00002.parquet"
    )


# Labels


def labels_of(source, split):
    return [source.classes[entry.label] for entry in source.entries(split)]


@pytest.mark.parametrize("where", ["test.parquet", "train-00001-of-00002.parquet"])
def test_numbers_are_mapped_by_the_names_of_each_file(tmp_path, where):
    files(tmp_path, "train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test.parquet")
    pq.write_table(table(GOOD, [0, 1, 1, 1], ("dog", "cat")), tmp_path / where)
    source = open_source(spec("parquet", tmp_path))
    assert source.classes == ("cat", "dog")
    found = labels_of(source, "train") + labels_of(source, "test")
    start = 8 if where.startswith("test") else 4
    assert found[start : start + 4] == ["dog", "cat", "cat", "cat"]
    assert found[:4] == ["cat", "dog", "cat", "dog"]


def test_names_that_train_does_not_have_are_refused(tmp_path):
    files(tmp_path, "train.parquet")
    pq.write_table(table(GOOD, [0, 1, 1, 2], ("dog", "cat", "eel")), tmp_path / "test.parquet")
    assert "row 3 of test has the label 'eel', which is none of the 2" in refusal(tmp_path)
    pq.write_table(table(GOOD, [0, 1, 1, 2], ("dog", "cat")), tmp_path / "test.parquet")
    assert "row 3 of test has the label 2, which is none of the 2" in refusal(tmp_path)
    pq.write_table(table(GOOD, [0, 1, 1, -1], ("dog", "cat")), tmp_path / "test.parquet")
    assert "image 3 of test has label -1" in refusal(tmp_path)


def test_text_meets_names_and_composition_does_not_part_them(tmp_path):
    pq.write_table(table(GOOD, [0, 1, 0, 1], ("Cafe\u0301", "dog")), tmp_path / "train.parquet")
    texts = ["Caf\u00e9", "dog ", "\ufeffdog", "dog"]
    pq.write_table(table(GOOD, texts, None), tmp_path / "test.parquet")
    source = open_source(spec("parquet", tmp_path))
    assert labels_of(source, "test") == ["Caf\u00e9", "dog", "dog", "dog"]


def test_text_in_train_and_names_in_test(tmp_path):
    pq.write_table(table(GOOD, ["dog", "cat", "dog", "cat"], None), tmp_path / "train.parquet")
    pq.write_table(table(GOOD, [0, 1, 0, 1], ("dog", "cat")), tmp_path / "test.parquet")
    source = open_source(spec("parquet", tmp_path))
    assert labels_of(source, "train") == labels_of(source, "test") == ["dog", "cat", "dog", "cat"]
    pq.write_table(table(GOOD, [0, 1, 0, 1], None), tmp_path / "test.parquet")
    assert "row 0 of test has the label 0, which is none of the 2" in refusal(tmp_path)


def test_numbers_without_names_are_taken_as_they_are_and_it_is_said(tmp_path):
    files(tmp_path, "train.parquet")
    pq.write_table(table(GOOD, [0, 1, 0, 1], None), tmp_path / "test.parquet")
    source = open_source(spec("parquet", tmp_path))
    assert labels_of(source, "test") == ["cat", "dog", "cat", "dog"]
    assert source.notes == (
        "test.parquet names no classes, so that its numbers are taken for those of train.parquet",
    )


# What no table should hold


def struct_of(kind, values):
    cells = [{"bytes": value, "path": None} for value in values]
    return pa.array(cells, pa.struct([("bytes", kind), ("path", pa.string())]))


def huggingface(names):
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    return {"huggingface": json.dumps({"info": {"features": features}})}


LABELS = pa.array([0, 1, 0, 1])
IMAGES = struct_of(pa.binary(), GOOD)
BROKEN = {
    "bytes that are numbers": (pa.table({"image": struct_of(pa.int64(), [1] * 4), "label": LABELS}),
                               ["must hold encoded images"]),
    "bytes that are text": (pa.table({"image": ["a"] * 4, "label": LABELS}), ["must hold encoded"]),
    "lists": (pa.table({"image": IMAGES, "label": [[0], [1], [0], [1]]}), ["whole numbers"]),
    "nothing": (pa.table({"image": IMAGES, "label": pa.nulls(4)}), ["is null, but must hold"]),
    "two columns": (pa.Table.from_arrays([IMAGES, LABELS, LABELS], ["image", "label", "label"]),
                    ["has 2 columns 'label'"]),
    "names that are a number": (
        PLAIN.replace_schema_metadata(huggingface(7)), ["list them in `classes`"]),
    "names alike": (PLAIN.replace_schema_metadata(huggingface(["cat", "cat"])), ["CLIP reads alike"]),
    "a null label": (pa.table({"image": IMAGES, "label": pa.array([0, None, 1, 1])}),
                     ["row 1 of train has no label"]),
    "a huge label": (pa.table({"image": IMAGES, "label": pa.array([0, 1, 2**63, 1], pa.uint64())}),
                     ["9223372036854775809 classes", "list them in `classes`"]),
    "empty bytes": (pa.table({"image": struct_of(pa.binary(), [b"", *GOOD[1:]]), "label": LABELS})
                    .replace_schema_metadata(huggingface(["a", "b"])), ["not an image"]),
    "blank text": (table(GOOD, ["", "a", "b", " "], None), ["empty name for class 0"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_tables(tmp_path, case):
    made, words = BROKEN[case]
    pq.write_table(made, tmp_path / "train.parquet")
    text = refusal(tmp_path)
    assert any(word in text for word in words), text


@pytest.mark.parametrize(
    ("ids", "word"),
    [
        (["a", None, "c", "d"], "row 1 of train has no id"),
        ([0.5, 1.5, 2.5, 3.5], "must hold whole numbers or text"),
        (["a", "a", "c", "d"], "stands twice"),
    ],
)
def test_broken_ids(tmp_path, ids, word):
    pq.write_table(PLAIN.append_column("id", pa.array(ids)), tmp_path / "train.parquet")
    assert word in refusal(tmp_path, options={"id_column": "id"})


@pytest.mark.parametrize("path", ["../x.png", "/etc/hostname"])
def test_images_beside_the_table_lie_below_it(tmp_path, path):
    (tmp_path / "x.png").write_bytes(GOOD[0])
    cells = [{"bytes": None, "path": path}] * 4
    made = PLAIN.set_column(0, "image", pa.array(cells, PLAIN.schema.field("image").type))
    pq.write_table(made, files(tmp_path / "a", "train.parquet") / "train.parquet")
    assert "is not below" in refusal(tmp_path / "a")


def test_arrow_with_wild_offsets_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    path = tmp_path / "train" / "data.arrow"
    names = pa.array(["cat", "dog", "cat", "dog"])
    made = pa.table({"image": pa.array(GOOD, pa.binary()), "label": names})
    with pa.ipc.new_stream(str(path), made.schema) as file:
        file.write_table(made)
    data = path.read_bytes()
    good = np.array([0, 3, 6, 9, 12], "<i4").tobytes()
    assert data.count(good) == 1
    for wild in ([0, 3, 6, 9, 2**30], [0, 2**30, 6, 9, 12], [0, 9, 6, 3, 12], [-5, 3, 6, 9, 12]):
        path.write_bytes(data.replace(good, np.array(wild, "<i4").tobytes()))
        assert "data.arrow is damaged" in refusal(tmp_path)
    path.write_bytes(data.replace(b"catdog", b"c\xff\xfedog", 1))
    assert "data.arrow is damaged" in refusal(tmp_path)
