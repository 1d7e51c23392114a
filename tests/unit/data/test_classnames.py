"""Class names: each label's own, in an order that nobody can mistake."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from taskgrid.data.sources.opening import open_source
from taskgrid.data.splits import make_split
from taskgrid.errors import DataError, SplitError
from taskgrid.store.images import ImageIndex
from tests.unit.example_images import archive, image_folders, pixels, png, spec, table


def refusal(task):
    with pytest.raises(DataError) as caught:
        open_source(task)
    assert "\n" not in str(caught.value)
    return str(caught.value)


TWELVE = [str(number) for number in range(12)]


@pytest.mark.parametrize(
    "own",
    [
        *[TWELVE, [f"digit_{name}" for name in TWELVE], ["-1", "-2", "3"], ["0.5", "10", "2.5"]],
        *[["Cat", "ant", "dog"], ["a", "B"]],
    ],
    ids=["numbers", "numbered", "negative", "fractions", "case", "two"],
)
def test_a_list_for_folders_in_an_unclear_order_is_refused(tmp_path, own):
    root = image_folders(tmp_path, ("train",), own, 1)
    text = refusal(spec("folder", root, classes=[f"name {name}" for name in own]))
    assert "the order of the source's classes is not clear" in text
    assert ".json file that maps" in text
    names = {name: f"the {name}" for name in own}
    (root / "names.json").write_text(json.dumps(names))
    assert open_source(spec("folder", root, classes="names.json")).classes == tuple(
        names[name] for name in sorted(own)
    )
    assert open_source(spec("folder", root)).classes == tuple(sorted(own))


def test_text_labels_in_an_unclear_order_are_refused(tmp_path):
    path = tmp_path / "train.parquet"
    pq.write_table(table([png(pixels(n)) for n in range(12)], TWELVE, None), path)
    text = refusal(spec("parquet", path, classes=[f"digit {name}" for name in TWELVE]))
    assert "'10' comes before '2' by letters" in text


def test_numbers_take_a_list_in_their_order(tmp_path):
    names = [f"digit {name}" for name in TWELVE]
    pq.write_table(
        table([png(pixels(n)) for n in range(12)], list(range(12)), None), tmp_path / "t.parquet"
    )
    assert open_source(spec("parquet", tmp_path / "t.parquet", classes=names)).classes == tuple(
        names
    )
    path = archive(tmp_path / "t.npz", {"train": 24}, names)
    assert open_source(spec("npz", path)).classes == tuple(names)


@pytest.mark.parametrize("names", [["dog", "cat"], ["a hound", "Cat"]])
def test_the_sources_own_names_at_other_places_are_refused(tmp_path, names):
    root = image_folders(tmp_path)
    text = refusal(spec("folder", root, classes=names))
    assert "which is the source's name of another class" in text


def test_underscores_make_no_other_name(tmp_path):
    root = image_folders(tmp_path, classes=("ice_bear", "sun_bear"))
    assert (
        open_source(spec("folder", root, classes=["Ice bear", "sun bear"])).classes[1] == "sun bear"
    )
    assert "another class" in refusal(spec("folder", root, classes=["sun bear", "ice bear"]))


@pytest.mark.parametrize("names", [["cat", "cat"], ["Cat", "cat "], ["big  cat", "Big cat"]])
def test_names_that_clip_reads_alike_are_refused(tmp_path, names):
    path = archive(tmp_path / "pets.npz")
    text = refusal(spec("npz", path, classes=names))
    assert "which CLIP reads alike, so that one could never win" in text


@pytest.mark.parametrize(
    ("name", "text"),
    [("names.txt", "\ufeffcat\r\ndog\r\n"), ("names.json", '\ufeff["cat", "dog"]')],
)
def test_a_byte_order_mark_enters_no_name(tmp_path, name, text):
    root = image_folders(tmp_path)
    (root / name).write_text(text, encoding="utf-8")
    assert open_source(spec("folder", root, classes=name)).classes == ("cat", "dog")
    (root / "train" / "cat").rename(root / "train" / "\ufeffcat")
    assert open_source(spec("folder", root)).classes == ("cat", "dog")


def test_a_name_that_stands_twice_in_a_file_is_refused(tmp_path):
    root = image_folders(tmp_path)
    (root / "n.json").write_text('{"cat": "a", "dog": "b", "cat": "c"}')
    assert "the name 'cat' stands twice" in refusal(spec("folder", root, classes="n.json"))


# Classes without images


def without_test_dogs(root):
    image_folders(root)
    shutil.rmtree(root / "test" / "dog")
    return spec("folder", root)


def npz_without_test_dogs(root):
    return spec("npz", archive(root / "pets.npz", test_labels=np.zeros(6, int)))


def parquet_without_test_dogs(root):
    root.mkdir()
    images = [png(pixels(n)) for n in range(4)]
    pq.write_table(table(images, [0, 1, 0, 1]), root / "train.parquet")
    pq.write_table(table(images, [0, 0, 0, 0]), root / "test.parquet")
    return spec("parquet", root)


@pytest.mark.parametrize(
    "make", [without_test_dogs, npz_without_test_dogs, parquet_without_test_dogs]
)
def test_a_class_may_be_absent_from_test_where_the_task_says_so(tmp_path, make):
    task = make(tmp_path / "pets")
    text = refusal(task)
    assert "dog" in text
    assert "`allow_missing_classes: true` on the task" in text
    source = open_source(task.model_copy(update={"allow_missing_classes": True}))
    assert source.classes == ("cat", "dog")
    assert {entry.label for entry in source.entries("test")} == {0}


def test_an_empty_class_folder_of_test_is_one_without_images(tmp_path):
    task = without_test_dogs(tmp_path / "pets")
    (tmp_path / "pets" / "test" / "dog").mkdir()
    assert "test/dog has no images" in refusal(task)
    open_source(task.model_copy(update={"allow_missing_classes": True}))


@pytest.mark.parametrize(
    "task",
    [
        lambda root: spec("npz", archive(root / "pets.npz", train_labels=np.zeros(20, int))),
        lambda root: spec("npz", archive(root / "pets.npz", classes=("cat", "dog", "eel"),
                                         train_labels=np.arange(20) % 2)),
    ],
)  # fmt: skip
def test_no_class_may_be_absent_from_train(tmp_path, task):
    made = task(tmp_path).model_copy(update={"allow_missing_classes": True})
    assert "has no image in train; add images, or take it out of the classes" in refusal(made)


def index(labels, origins):
    names = [f"{n:03d}" for n in range(len(labels))]
    return ImageIndex(tuple(names), tuple(labels), tuple(origins), tuple(names))


def test_a_class_whose_images_are_all_held_out_is_refused():
    # A class with one image, wherever it stands: some places are cut away.
    lost = 0
    for place in range(20):
        found = index([int(row == place) for row in range(20)], ["train"] * 20)
        whole = make_split("pets", found, ("cat", "dog"), partial=True)
        left = {int(name) for name in whole.train}
        if place in left:
            make_split("pets", found, ("cat", "dog"))
            continue
        lost += 1
        with pytest.raises(SplitError, match="'dog' has 1 training image, and none is left"):
            make_split("pets", found, ("cat", "dog"))
    # A fifth for test, then a tenth of the rest for validation.
    assert lost == 5


def test_a_class_with_one_image_stays_with_splits_of_its_own():
    found = index([0] * 9 + [1] + [0] * 4, ["train"] * 10 + ["val"] * 2 + ["test"] * 2)
    assert make_split("pets", found, ("cat", "dog")).counts["train"] == 10
