import json
import struct
import tracemalloc
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from taskgrid.config import TaskSpec
from taskgrid.data.builtin import builtin_task, samples
from taskgrid.data.sources.opening import open_source
from taskgrid.errors import ConfigError, DataError, SplitError, TaskgridError
from taskgrid.store.images import SPLITS
from tests.unit.example_images import (
    REAL_SETS,
    SHARED_DATA,
    archive,
    image_folders,
    pixels,
    png,
    shards,
    spec,
    table,
)

CLIP_PROMPT = ("a photo of a {}.",)


def everything(source):
    return {split: list(source.images(split)) for split in source.splits()}


def refusal(task, kind=DataError):
    """The sentence that refuses a task, on opening it or on reading all of it."""
    with pytest.raises(kind) as caught:
        everything(open_source(task))
    text = str(caught.value)
    assert "\n" not in text
    return text


# Folders


def test_folders_are_read_as_torchvision_reads_them(tmp_path):
    root = image_folders(tmp_path / "pets", classes=("dog", "Cat", "ant"), per_class=12)
    # More folders than a listing gives in order by chance.
    for number in reversed(range(9)):
        deep = root / "train" / "dog" / f"puppy {number}"
        deep.mkdir()
        (deep / "1.PPM").write_bytes(png(pixels(900 + number)))
    source = open_source(spec("folder", root))
    oracle = ImageFolder(str(root / "train"))
    assert source.classes == tuple(oracle.classes) == ("Cat", "ant", "dog")
    found = list(source.images("train"))
    assert [str(root / image.id) for image in found] == [path for path, _ in oracle.samples]
    assert [image.label for image in found] == oracle.targets
    for image, (expected, _) in zip(found, oracle, strict=True):
        assert np.array_equal(image.pixels, np.asarray(expected))
    assert source.splits() == ("train", "test")
    assert (source.count("train"), source.count("test")) == (45, 36)
    assert source.templates == CLIP_PROMPT


def test_hidden_and_foreign_files_are_ignored(tmp_path):
    root = image_folders(tmp_path / "pets")
    (root / ".DS_Store").write_text("x")
    (root / "train" / ".cache").mkdir()
    (root / "train" / "cat" / ".hidden.png").write_text("no image")
    (root / "train" / "cat" / "Thumbs.db").write_text("no image")
    hidden = root / "train" / "cat" / ".thumbnails"
    hidden.mkdir()
    (hidden / "0.png").write_bytes(png(pixels(1)))
    assert open_source(spec("folder", root)).count("train") == 6


def test_class_folders_alone_are_all_training_images(tmp_path):
    root = image_folders(tmp_path, splits=("pets",)) / "pets"
    source = open_source(spec("folder", root))
    assert source.splits() == ("train",)
    assert [image.id for image in source.images("train")][:2] == ["cat/0.png", "cat/1.png"]


def test_a_class_may_be_called_train(tmp_path):
    root = image_folders(tmp_path, splits=("vehicles",), classes=("bus", "train")) / "vehicles"
    source = open_source(spec("folder", root))
    assert (source.classes, source.splits()) == (("bus", "train"), ("train",))


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_folder_is_found(tmp_path, name):
    root = image_folders(tmp_path, splits=("train", name))
    assert open_source(spec("folder", root)).splits() == ("train", "val")


def test_folders_can_be_named(tmp_path):
    root = image_folders(tmp_path, splits=("Training", "val"))
    task = spec("folder", root, options={"folders": {"train": "Training", "test": "val"}})
    source = open_source(task)
    assert source.splits() == ("train", "test")
    assert next(source.images("test")).id == "val/cat/0.png"


def test_palette_grey_and_transparent_images_become_rgb(tmp_path):
    root = image_folders(tmp_path)
    folder = root / "train" / "cat"
    array = pixels(5)
    grey = array[..., 0]
    Image.fromarray(grey).save(folder / "0.png")
    Image.fromarray(np.dstack([array, grey])).save(folder / "1.png")
    Image.fromarray(array).quantize(256).save(folder / "2.png")
    found = [image.pixels for image in open_source(spec("folder", root)).images("train")]
    assert np.array_equal(found[0], np.dstack([grey] * 3))
    assert np.array_equal(found[1], array)
    assert np.array_equal(found[2], np.asarray(Image.fromarray(array).quantize(256).convert("RGB")))


# Class names and templates


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.json", '["a tabby", "a hound"]'),
        ("names.json", '{"dog": "a hound", "cat": "a tabby"}'),
        ("names.txt", "a tabby\na hound\n\n"),
    ],
)
def test_class_names_from_a_file(tmp_path, name, text):
    root = image_folders(tmp_path / "pets")
    (tmp_path / name).write_text(text)
    task = spec("folder", root, classes=str(tmp_path / name))
    assert open_source(task).classes == ("a tabby", "a hound")


def test_class_names_lie_beside_the_data(tmp_path):
    root = image_folders(tmp_path / "pets")
    (root / "pretty.json").write_text('{"dog": "a hound", "cat": "a tabby"}')
    assert open_source(spec("folder", root, classes="pretty.json")).classes[0] == "a tabby"


def test_class_names_and_templates_inline(tmp_path):
    root = image_folders(tmp_path)
    task = spec("folder", root, classes=["a tabby", "a hound"], templates=["{}", "one {}!"])
    source = open_source(task)
    assert (source.classes, source.templates) == (("a tabby", "a hound"), ("{}", "one {}!"))


def test_labels_named_by_number(tmp_path):
    path = archive(tmp_path / "pets.npz")
    (tmp_path / "names.json").write_text('{"1": "hound", "0": "tabby"}')
    assert open_source(spec("npz", path, classes="names.json")).classes == ("tabby", "hound")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"classes": ["a", "b", "c"]}, ["`classes` has 3 class names", "2 classes"]),
        ({"classes": ["a"]}, ["`classes` has 1 class names", "2 classes"]),
        ({"classes": ["a", " "]}, ["`classes` has an empty name for class 1"]),
        ({"classes": "nowhere.txt"}, ["nowhere.txt", "does not exist"]),
        ({"classes": "names.csv"}, ["names.csv must be a .json or .txt file"]),
        ({"classes": "broken.json"}, ["broken.json cannot be read"]),
        ({"classes": "number.json"}, ["number.json must hold a list of texts"]),
        ({"classes": "cows.json"}, ["cows.json has 2 class names for 2", "'dog'", "'cow'"]),
        ({"templates": ["a photo"]}, ["the template 'a photo' must contain {}"]),
        ({"templates": ["{} and {}"]}, ["the template '{} and {}' must contain {} exactly once"]),
        ({"templates": ["{} {name}"]}, ["'{} {name}'", "no other brace"]),
        ({"templates": []}, ["at least one template"]),
    ],
)
def test_bad_names_and_templates(tmp_path, fields, words):
    root = image_folders(tmp_path)
    (root / "names.csv").write_text("cat,dog")
    (root / "broken.json").write_text("[")
    (root / "number.json").write_text("[1, 2]")
    (root / "cows.json").write_text('{"cat": "tabby", "cow": "moo"}')
    text = refusal(spec("folder", root, **fields))
    for word in ["task 'pets': ", *words]:
        assert word in text


# Broken folders


def empty_class(root):
    (root / "train" / "eel").mkdir()
    (root / "train" / "eel" / "notes.txt").write_text("none yet")
    (root / "test" / "eel").mkdir()


def truncated(root):
    path = root / "train" / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:200])


def no_image(root):
    (root / "test" / "dog" / "2.png").write_text("not found")


def nothing_in_it(root):
    (root / "test" / "dog" / "2.png").write_bytes(b"")


def deep_colour(root):
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(root / "train" / "cat" / "0.png")


def class_missing(root):
    (root / "test" / "dog").rename(root / "test" / "cow")


def train_missing(root):
    (root / "train").rename(root / "pictures")


def flat_train(root):
    for path in list((root / "train").rglob("*.png")):
        path.rename(root / "train" / f"{path.parent.name}{path.name}")
    for name in ("cat", "dog"):
        (root / "train" / name).rmdir()


def two_vals(root):
    image_folders(root, splits=("val", "validation"))


BROKEN_FOLDERS = {
    empty_class: ["train/eel has no images"],
    truncated: ["train/dog/1.png cannot be read"],
    no_image: ["test/dog/2.png cannot be read (not an image)"],
    nothing_in_it: ["test/dog/2.png cannot be read (not an image)"],
    deep_colour: ["train/cat/0.png", "more than 8 bits"],
    class_missing: ["test must have the 2 class folders", "lacks dog", "has cow"],
    train_missing: ["no train split", "pictures, test", "train/<class>/*"],
    flat_train: ["no train split", "test, train", "train/<class>/*"],
    two_vals: ["val and validation, which all mean val", "options.folders"],
}


@pytest.mark.parametrize("damage", BROKEN_FOLDERS, ids=lambda damage: damage.__name__)
def test_broken_folders(tmp_path, damage):
    root = image_folders(tmp_path / "pets")
    damage(root)
    text = refusal(spec("folder", root))
    for word in BROKEN_FOLDERS[damage]:
        assert word in text


def test_a_truncated_jpeg_is_named(tmp_path):
    root = image_folders(tmp_path)
    path = root / "train" / "dog" / "x.jpg"
    Image.fromarray(pixels(7, 64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:-600])
    assert "train/dog/x.jpg cannot be read (image file is truncated" in refusal(
        spec("folder", root)
    )


def test_a_missing_path_and_a_file_for_a_folder(tmp_path):
    assert "nowhere does not exist" in refusal(spec("folder", tmp_path / "nowhere"))
    path = archive(tmp_path / "pets.npz")
    assert "is a file, but the source 'folder' needs a folder" in refusal(spec("folder", path))


def test_an_empty_folder_has_no_train_split(tmp_path):
    assert "no train split" in refusal(spec("folder", tmp_path), SplitError)


def test_one_class_is_not_enough(tmp_path):
    root = image_folders(tmp_path, classes=("cat",))
    assert "1 class ('cat'); a classification task needs at least two" in refusal(
        spec("folder", root)
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"folder": {}},
            ["unknown key 'options.folder'", "did you mean 'folders'? ", "allowed here: folders"],
        ),
        ({"folders": {"dev": "x"}}, ["options.folders.dev", "'train', 'val' or 'test'"]),
        ({"folders": {"test": "test"}}, ["no train split"]),
        ({"folders": {"train": "Train"}}, ["Train, which is no folder"]),
    ],
)
def test_bad_options(tmp_path, options, words):
    text = refusal(spec("folder", image_folders(tmp_path), options=options))
    for word in words:
        assert word in text


# Archives


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives(tmp_path, grey, save):
    path = archive(tmp_path / "pets.npz", grey=grey)
    with np.load(path) as arrays:
        arrays = dict(arrays)
    save(path, **arrays)
    source = open_source(spec("npz", path))
    assert source.classes == ("cat", "dog")
    found = everything(source)
    assert list(found) == ["train", "test"]
    for split, images in found.items():
        expected = arrays[f"{split}_images"]
        expected = np.stack([expected] * 3, axis=-1) if grey else expected
        assert np.array_equal(np.stack([image.pixels for image in images]), expected)
        assert [image.label for image in images] == arrays[f"{split}_labels"].tolist()
        assert [image.id for image in images] == arrays[f"{split}_ids"].tolist()
        assert source.count(split) == len(images)


def test_archives_with_other_names_and_shapes(tmp_path):
    images = np.stack([pixels(n, 8, 8)[..., :1] for n in range(12)])
    labels = (np.arange(12) % 2)[:, None]
    np.savez(tmp_path / "k.npz", x_train=images, y_train=labels, x_val=images[:4], y_val=labels[:4])
    options = {"images": "x_{split}", "labels": "y_{split}"}
    task = spec("npz", tmp_path / "k.npz", classes=["cat", "dog"], options=options)
    source = open_source(task)
    found = everything(source)
    assert source.splits() == ("train", "val")
    assert found["val"][3].id == "val/0000003"
    assert np.array_equal(found["train"][5].pixels, np.repeat(images[5], 3, axis=2))


def test_large_archives_are_read_in_pieces(tmp_path):
    images = np.stack([pixels(n, 512, 512) for n in range(64)])
    path = archive(tmp_path / "pets.npz", {"train": 64}, train_images=images)
    tracemalloc.start()
    found = open_source(spec("npz", path)).images("train")
    assert all(
        np.array_equal(image.pixels, expected)
        for image, expected in zip(found, images, strict=True)
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < images.nbytes / 3


BROKEN_ARCHIVES = {
    "floats": ({"train_images": np.zeros((20, 8, 8), np.float32)}, ["float32", "must be uint8"]),
    "channels": ({"train_images": np.zeros((20, 8, 8, 4), np.uint8)}, ["shape (20, 8, 8, 4)"]),
    "flat": ({"train_images": np.zeros((20, 64), np.uint8)}, ["shape (20, 64)"]),
    "none": ({"train_images": np.zeros((0, 8, 8), np.uint8)}, ["train_images", "has no images"]),
    "no train": ({"train_images": None}, ["no train split", "expected train_images"]),
    "no labels": ({"test_labels": None}, ["no array 'test_labels'", "test_images"]),
    "short": ({"train_labels": np.zeros(19, int)}, ["shape (19,)", "train_images has 20"]),
    "fractions": ({"train_labels": np.zeros(20)}, ["float64", "whole numbers"]),
    "above": ({"train_labels": np.arange(20) % 3}, ["2 class names", "3 classes"]),
    "below": ({"train_labels": np.zeros(20, int), "test_labels": np.zeros(6, int)},
              ["2 class names", "1 classes"]),
    "negative": ({"train_labels": np.arange(20) % 2 - (np.arange(20) == 6)},
                 ["image 6 of train has label -1", "0 to 1"]),
    "ids": ({"train_ids": np.array(["a", "b"] * 10)}, ["the id 'a' stands twice in train"]),
    "id count": ({"train_ids": np.array(["a", "b"])}, ["train_ids", "shape (2,)"]),
    "pickle": ({"train_labels": np.array([None] * 20)}, ["train_labels cannot be read", "pickle"]),
    "fortran": ({"train_images": np.asfortranarray(np.zeros((20, 8, 8), np.uint8))},
                ["Fortran order", "ascontiguousarray"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_ARCHIVES)
def test_broken_archives(tmp_path, case):
    arrays, words = BROKEN_ARCHIVES[case]
    text = refusal(spec("npz", archive(tmp_path / "pets.npz", **arrays)))
    for word in ["task 'pets': ", *words]:
        assert word in text


def test_an_archive_without_class_names(tmp_path):
    path = archive(tmp_path / "pets.npz")
    (tmp_path / "classes.json").unlink()
    assert "list them in `classes`" in refusal(spec("npz", path))


def test_damaged_archives_never_pass(tmp_path):
    path = archive(tmp_path / "pets.npz")
    data = path.read_bytes()
    for end in range(0, len(data), 997):
        path.write_bytes(data[:end])
        assert "pets.npz is damaged or no .npz archive" in refusal(spec("npz", path))
    # A flipped bit in the first pixels shows in the check sum of the zip.
    place = 400
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    assert "train_images cannot be read (Bad CRC-32" in refusal(spec("npz", path))


def test_a_wrong_check_sum_shows_in_compressed_archives_too(tmp_path):
    path = archive(tmp_path / "pets.npz")
    with np.load(path) as arrays:
        np.savez_compressed(path, **arrays)
    with zipfile.ZipFile(path) as members:
        sums = [info.CRC for info in members.infolist() if info.filename.endswith("_images.npy")]
    data = path.read_bytes()
    for stored in sums:
        data = data.replace(struct.pack("<I", stored), struct.pack("<I", stored ^ 1))
    path.write_bytes(data)
    assert "train_images cannot be read (Bad CRC-32" in refusal(spec("npz", path))


def test_a_folder_for_an_archive(tmp_path):
    assert "name the .npz file in it" in refusal(spec("npz", tmp_path))


# Parquet and Arrow


def test_parquet_in_hugging_faces_layout(tmp_path):
    counts = {"train": (7, 5), "test": (4,), "validation": (3,)}
    source = open_source(spec("parquet", shards(tmp_path / "pets", counts)))
    assert source.classes == ("cat", "dog")
    found = everything(source)
    assert {split: len(images) for split, images in found.items()} == {
        "train": 12, "val": 3, "test": 4,
    }  # fmt: skip
    assert all(source.count(split) == len(found[split]) for split in SPLITS)
    for start, split in ((0, "train"), (12, "test"), (16, "val")):
        for row, image in enumerate(found[split]):
            assert np.array_equal(image.pixels, pixels(start + row))
            assert image.label == (start + row) % 2
            assert image.id == f"{split}/{row:07d}"


@pytest.mark.parametrize("name", ["train.parquet", "train-1.parquet", "train/x.parquet"])
def test_parquet_in_other_places(tmp_path, name):
    (tmp_path / "train").mkdir()
    pq.write_table(table([png(pixels(1))] * 2, [0, 1]), tmp_path / name)
    assert open_source(spec("parquet", tmp_path)).count("train") == 2


def test_one_parquet_file_is_all_training_images(tmp_path):
    path = tmp_path / "all.parquet"
    pq.write_table(table([png(pixels(1))] * 2, [0, 1]), path)
    assert open_source(spec("parquet", path)).splits() == ("train",)


@pytest.mark.parametrize("writer", [pa.ipc.new_stream, pa.ipc.new_file])
def test_arrow_files_and_streams(tmp_path, writer):
    (tmp_path / "train").mkdir()
    made = table([png(pixels(n)) for n in range(150)], [n % 2 for n in range(150)])
    path = tmp_path / "train" / "data-00000-of-00001.arrow"
    with writer(str(path), made.schema) as file:
        file.write_table(made, max_chunksize=100)
    found = list(open_source(spec("parquet", tmp_path)).images("train"))
    assert len(found) == 150
    assert np.array_equal(found[149].pixels, pixels(149))


def test_plain_bytes_columns_globs_and_ids(tmp_path):
    made = table(
        [png(pixels(n)) for n in range(6)], [0, 1] * 3, None, ("picture", "kind"), struct=False
    ).append_column("name", pa.array([f"n{n}" for n in range(6)]))
    pq.write_table(made, tmp_path / "mine.parquet")
    task = spec(
        "parquet",
        tmp_path,
        classes=["cat", "dog"],
        options={
            "image_column": "picture",
            "label_column": "kind",
            "id_column": "name",
            "files": {"train": "m*.parquet"},
        },
    )
    found = list(open_source(task).images("train"))
    assert [image.id for image in found] == [f"n{n}" for n in range(6)]
    assert np.array_equal(found[2].pixels, pixels(2))


def test_labels_may_be_class_names(tmp_path):
    names = ["dog", "cat", "dog"]
    plain = table([png(pixels(n)) for n in range(3)], names, None)
    coded = plain.set_column(1, "label", plain["label"].dictionary_encode())
    for number, made in enumerate((plain, coded)):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(made, path)
        source = open_source(spec("parquet", path))
        assert source.classes == ("cat", "dog")
        assert [image.label for image in source.images("train")] == [1, 0, 1]


def test_a_class_label_without_training_images_is_refused(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(table([png(pixels(1))] * 2, [0, 2], ("a", "b", "c", "d")), path)
    text = refusal(spec("parquet", path, allow_missing_classes=True))
    assert "the class 'b' (and 1 more) has no image in train" in text


def test_images_beside_the_table(tmp_path):
    (tmp_path / "x.png").write_bytes(png(pixels(3)))
    made = table([None, None], [0, 1])
    cells = [{"bytes": None, "path": "x.png"}, {"bytes": png(pixels(4)), "path": "y.png"}]
    made = made.set_column(0, "image", pa.array(cells, made.schema.field("image").type))
    pq.write_table(made.replace_schema_metadata(made.schema.metadata), tmp_path / "train.parquet")
    found = list(open_source(spec("parquet", tmp_path)).images("train"))
    assert np.array_equal(found[0].pixels, pixels(3))
    (tmp_path / "x.png").unlink()
    assert "x.png does not exist; embed the images" in refusal(spec("parquet", tmp_path))


GOOD = [png(pixels(n)) for n in range(4)]
BROKEN_TABLES = {
    "undecodable": (table([*GOOD[:3], GOOD[3][:100]], [0, 1, 0, 1]),
                    ["image 'train/0000003' in", "train.parquet cannot be read"]),
    "null label": (table(GOOD, [0, 1, None, 1]), ["row 2 of train has no label"]),
    "hidden label": (table(GOOD, [0, 1, -1, 1]), ["image 2 of train has label -1", "Hugging Face"]),
    "label above": (table(GOOD, [0, 1, 2, 1]), ["label 2, but there are 2 classes"]),
    "no names": (table(GOOD, [0, 1, 0, 1], None), ["list them in `classes`"]),
    "no image": (table(GOOD, [0, 1, 0, 1], None, ("scan", "label")),
                 ["which column", "is the image?", "options.image_column", "scan, label"]),
    "no label": (table(GOOD, [0, 1, 0, 1], None, ("image", "kind")),
                 ["is the label?", "options.label_column", "image, kind"]),
    "unknown name": (table(GOOD, ["cat", "dog", "cow", "dog"]), ["'cow', which is none of the 2"]),
    "float label": (table(GOOD, [0.0, 1.0, 0.5, 1.0]), ["'label'", "double", "whole numbers"]),
    "empty cell": (table([*GOOD[:3], None], [0, 1, 0, 1], struct=False),
                   ["'train/0000003'", "is empty"]),
    "no rows": (table([], pa.array([], pa.int64())), ["train.parquet hold no images"]),
    "no bytes": (pa.table({"image": [1, 2], "label": [0, 1]}), ["int64", "encoded images"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_TABLES)
def test_broken_tables(tmp_path, case):
    made, words = BROKEN_TABLES[case]
    pq.write_table(made, tmp_path / "train.parquet")
    text = refusal(spec("parquet", tmp_path))
    for word in words:
        assert word in text


def test_two_label_columns_are_a_question(tmp_path):
    made = table(GOOD, [0, 1, 0, 1]).append_column("fine", pa.array([0, 1, 0, 1]))
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": ["a", "b"]},
        "fine": {"_type": "ClassLabel", "names": ["c", "d"]},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(made.replace_schema_metadata(metadata), tmp_path / "train.parquet")
    assert "label, fine could be it; name it in options.label_column" in refusal(
        spec("parquet", tmp_path)
    )
    task = spec("parquet", tmp_path, options={"label_column": "fine"})
    assert open_source(task).classes == ("c", "d")


def test_damaged_parquet_never_passes(tmp_path):
    root = shards(tmp_path / "pets", {"train": (4,)})
    path = root / "data" / "train-00000-of-00001.parquet"
    data = path.read_bytes()
    for end in range(0, len(data), 499):
        path.write_bytes(data[:end])
        assert f"{path} is damaged" in refusal(spec("parquet", root))


def test_a_truncated_arrow_file_is_named(tmp_path):
    (tmp_path / "train").mkdir()
    path = tmp_path / "train" / "data.arrow"
    made = table(GOOD, [0, 1, 0, 1])
    with pa.ipc.new_stream(str(path), made.schema) as file:
        file.write_table(made)
    path.write_bytes(path.read_bytes()[:-600])
    assert f"{path} is damaged" in refusal(spec("parquet", tmp_path))


def test_a_missing_shard_is_named(tmp_path):
    root = shards(tmp_path / "pets", {"train": (4, 4, 4)})
    (root / "data" / "train-00001-of-00003.parquet").unlink()
    text = refusal(spec("parquet", root))
    assert "train-00001-of-00003.parquet is missing; download all shards" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"iamge_column": "x"}, ["did you mean 'image_column'?"]),
        ({"image_column": "x"}, ["has no column 'x'; it has image, label"]),
        ({"id_column": "x"}, ["has no column 'x'"]),
        ({"files": {"train": "*.csv"}}, ["options.files.train '*.csv' matches no file"]),
        ({"files": {"test": "data/*"}}, ["no train split"]),
    ],
)
def test_bad_parquet_options(tmp_path, options, words):
    text = refusal(spec("parquet", shards(tmp_path / "pets"), options=options))
    for word in words:
        assert word in text


def test_a_folder_without_training_shards(tmp_path):
    root = shards(tmp_path / "pets", {"test": (3,)})
    assert "no train split" in refusal(spec("parquet", root), SplitError)


# Built-in tasks, and the registry


def test_a_builtin_task_is_a_source():
    known = builtin_task("handwritten")
    source = open_source(TaskSpec.model_construct(**{**blank(), "name": "handwritten"}))
    assert (source.classes, source.templates) == (known.classes, known.templates)
    assert source.splits() == tuple(split for split in SPLITS if split in known.counts)
    found, expected = list(source.images("test")), list(samples(known, "test"))
    assert source.count("test") == len(found)
    assert [(image.id, image.label) for image in found] == [
        (sample.id, sample.label) for sample in expected
    ]
    assert np.array_equal(found[0].pixels, expected[0].pixels)


def test_an_unknown_builtin_task_lists_those_there_are():
    task = TaskSpec.model_construct(**{**blank(), "name": "handwriten"})
    text = refusal(task)
    assert "did you mean 'handwritten'? there are: handwritten," in text


def test_an_unknown_source_lists_those_there_are():
    task = TaskSpec.model_construct(**{**blank(), "source": "foldr"})
    text = refusal(task, ConfigError)
    assert "did you mean 'folder'? there are: builtin, folder, npz, parquet" in text


def test_a_source_without_its_path():
    task = TaskSpec.model_construct(**{**blank(), "source": "npz"})
    assert "needs a path" in refusal(task, TaskgridError)


def blank():
    """Fields of a task that the configuration would not let through."""
    return {
        "name": "pets",
        "source": "builtin",
        "path": None,
        "classes": None,
        "templates": None,
        "allow_overlap": False,
        "options": {},
    }


# Real sets


def needs(path):
    return pytest.mark.skipif(not path.exists(), reason=f"{path} is not on this machine")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs(SHARED_DATA / name)) for name in REAL_SETS]
)
def test_real_archives_open(name):
    path = SHARED_DATA / name / f"{name}.npz"
    source = open_source(spec("npz", path))
    assert list(source.classes) == json.loads((path.parent / "classes.json").read_text())
    with np.load(path) as arrays:
        for split in ("train", "test"):
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
            assert source.count(split) == len(labels)
            for row, image in zip(range(40), source.images(split), strict=False):
                expected = images[row] if images.ndim == 4 else np.stack([images[row]] * 3, -1)
                assert np.array_equal(image.pixels, expected)
                assert image.label == labels[row]


EUROSAT = SHARED_DATA / "original-layout" / "EuroSAT_RGB"
GTSRB = SHARED_DATA / "original-layout" / "GTSRB"


@needs(EUROSAT)
def test_eurosats_own_folders_open():
    source = open_source(spec("folder", EUROSAT))
    assert source.splits() == ("train",)
    assert len(source.classes) == 10
    assert source.classes[0] == "AnnualCrop"
    found = list(source.images("train"))
    assert len(found) == source.count("train") == 200
    assert {image.pixels.shape for image in found} == {(64, 64, 3)}


@needs(GTSRB)
def test_gtsrbs_own_training_folders_open():
    task = spec("folder", GTSRB, options={"folders": {"train": "Final_Training/Images"}})
    source = open_source(task)
    assert len(source.classes) == 43
    found = list(source.images("train"))
    assert len(found) == source.count("train") > 43
    assert found[0].id.startswith("Final_Training/Images/00000/")
