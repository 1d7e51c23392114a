"""Published data sets: torchvision reads the same stand-ins, as an oracle, wherever it can."""

import gzip
import io
import json
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torchvision.datasets as tv
from PIL import Image
from scipy.io import savemat

from taskgrid.data.dataset import build_dataset
from taskgrid.data.published.downloaded import Download, DownloadedFile
from taskgrid.data.published.layouts import class_folders
from taskgrid.data.published.layouts.class_folders import read_split_list
from taskgrid.data.published.reading import described, read_description
from taskgrid.data.sources import shards
from taskgrid.data.sources.opening import open_source
from taskgrid.data.splits import hold_out
from taskgrid.errors import ArtifactError, DataError
from taskgrid.store.atomic import write_json
from tests.unit.example_images import SHARED_DATA
from tests.unit.example_published import (
    COMMIT,
    MAKERS,
    Originals,
    hub_cache,
    hub_files,
    hub_standin,
    make_eurosat,
    make_fer2013,
    make_gtsrb,
    make_resisc45,
    original,
    published,
)

UNCHECKED = {"counts": False}


def images_of(source, split):
    return list(source.images(split))


def refusal(task, kind=DataError):
    with pytest.raises(kind) as caught:
        source = open_source(task)
        for split in source.splits():
            images_of(source, split)
    text = str(caught.value)
    assert "\n" not in text
    return text


# Original files


def rgb(image):
    return np.asarray(image.convert("RGB"))


def tv_images(dataset):
    """Class (by name or number) and pixels of each image as torchvision hands them out."""
    return [(label, rgb(image)) for image, label in dataset]


def tv_folder(root, tmp_path, files):
    """The images as the papers read them: copied into class folders, then listed."""
    copy = tmp_path / "copied"
    for name, file in files:
        (copy / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(root / file, copy / name / PurePosixPath(file).name)
    found = tv.ImageFolder(str(copy))
    return [(found.classes[label], rgb(image)) for image, label in found]


def lines(path):
    return path.read_text().split()


def oracle_dtd(root, tmp_path, split):
    parts = ["train1", "val1"] if split == "train" else ["test1"]
    names = [line for part in parts for line in lines(root / f"dtd/dtd/labels/{part}.txt")]
    files = [(name.split("/")[0], f"dtd/dtd/images/{name}") for name in names]
    return tv_folder(root, tmp_path / split, files)


def oracle_sun397(root, tmp_path, split):
    part = {"train": "Training_01", "test": "Testing_01"}[split]
    names = lines(root / f"SUN397/{part}.txt")
    files = [("_".join(name.split("/")[1:-1]), f"SUN397{name}") for name in names]
    # a_abbey, as task_vectors calls its folders; its names drop the first two characters.
    return [(name[2:], image) for name, image in tv_folder(root, tmp_path / split, files)]


def oracle_resisc45(root, tmp_path, split):
    names = lines(root / f"resisc45/resisc45-{split}.txt")
    files = [(name[:-8], f"resisc45/NWPU-RESISC45/{name[:-8]}/{name}") for name in names]
    return tv_folder(root, tmp_path / split, files)


def oracle_cifar(dataset):
    def read(root, _tmp_path, split):
        settings = read_description(dataset).original.options
        size = 3072 + settings["label_bytes"]
        found = []
        for name in settings[split]:
            data = (root / settings["folder"] / name).read_bytes()
            for start in range(0, len(data), size):
                record = data[start : start + size]
                planes = [record[-3072 + 1024 * c :][:1024] for c in range(3)]
                image = np.stack([np.frombuffer(p, np.uint8).reshape(32, 32) for p in planes], -1)
                found.append((record[-3073], image))
        return found

    return read


def oracle_class_folders(dataset):
    def read(root, _tmp_path, split):
        folder = read_description(dataset).original.options["folders"][split]
        found = tv.ImageFolder(str(root / folder))
        return [(found.classes[label], rgb(image)) for image, label in found]

    return read


def oracle_pcam(root, _tmp_path, split):
    return tv_images(tv.PCAM(str(root), split=split))


def oracle_pets(root, _tmp_path, split):
    found = tv.OxfordIIITPet(str(root), split="trainval" if split == "train" else "test")
    return [(found.classes[label], image) for label, image in tv_images(found)]


def named(make):
    def read(root, _tmp_path, split):
        found = make(str(root), split)
        return [(found.classes[label], image) for label, image in tv_images(found)]

    return read


def by_number(make):
    return lambda root, _tmp_path, split: tv_images(make(str(root), split))


def letters(root, _tmp_path, split):
    found = tv.EMNIST(str(root), "letters", train=split == "train")
    return [(label - 1, image) for label, image in tv_images(found)]


ORACLES = {
    "cars": named(lambda root, split: tv.StanfordCars(root, split=split)),
    "cifar10": oracle_cifar("cifar10"),
    "cifar100": oracle_cifar("cifar100"),
    "dtd": oracle_dtd,
    "emnist_digits": by_number(lambda r, split: tv.EMNIST(r, "digits", train=split == "train")),
    "emnist_letters": letters,
    "fashion_mnist": by_number(lambda root, split: tv.FashionMNIST(root, train=split == "train")),
    "fer2013": by_number(lambda root, split: tv.FER2013(root, split=split)),
    "flowers102": by_number(lambda root, split: tv.Flowers102(root, split=split)),
    "food101": named(lambda root, split: tv.Food101(root, split=split)),
    "gtsrb": by_number(lambda root, split: tv.GTSRB(root, split=split)),
    "kmnist": by_number(lambda root, split: tv.KMNIST(root, train=split == "train")),
    "mnist": by_number(lambda root, split: tv.MNIST(root, train=split == "train")),
    "oxford_iiit_pet": oracle_pets,
    "pcam": oracle_pcam,
    "rendered_sst2": oracle_class_folders("rendered_sst2"),
    "resisc45": oracle_resisc45,
    "stl10": by_number(lambda root, split: tv.STL10(root, split=split)),
    "sun397": oracle_sun397,
    "svhn": by_number(lambda root, split: tv.SVHN(f"{root}/svhn", split=split)),
}


@pytest.fixture
def any_checksum(monkeypatch):
    """torchvision reads just the files whose MD5 it knows, and stand-ins have another one."""
    for name in ("svhn", "stl10", "flowers102", "fer2013"):
        module = getattr(tv, name)
        monkeypatch.setattr(module, "check_integrity", lambda *_args, **_options: True)


def plain(name):
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def needs(name):
    return pytest.importorskip(name, reason=f"the package {name} is not installed")


@pytest.mark.usefixtures("any_checksum")
@pytest.mark.parametrize("dataset", ORACLES)
def test_original_files_are_read_as_the_papers_read_them(tmp_path, dataset):
    if dataset == "pcam":
        needs("h5py")
    root = original(tmp_path / "files", dataset)
    source = open_source(published(dataset, root, options=UNCHECKED))
    description = read_description(dataset)
    assert source.classes == description.names
    assert source.templates == description.templates
    assert source.splits() == tuple(description.counts)
    for split in source.splits():
        expected = ORACLES[dataset](root, tmp_path, split)
        found = images_of(source, split)
        assert len(found) == source.count(split) == len(expected) > 0
        assert len({image.id for image in found}) == len(found)
        for image, (label, pixels) in zip(found, expected, strict=True):
            if isinstance(label, str):
                assert plain(description.keys[image.label]) == plain(label)
            else:
                assert image.label == label
            assert np.array_equal(image.pixels, pixels)


def test_every_description_has_a_stand_in():
    assert set(described()) == set(MAKERS)
    assert set(described()) - set(ORACLES) == {"eurosat", "imagenet"}


# Of those that share a reader the smaller ones will do.
SMALL = [name for name in MAKERS if name not in ("pcam", "imagenet", "cifar100", "sun397")]


@pytest.mark.parametrize("dataset", SMALL)
def test_the_data_sets_own_folder_will_do_too(tmp_path, dataset):
    root = original(tmp_path, dataset)
    whole = open_source(published(dataset, root, options=UNCHECKED))
    options = read_description(dataset).original.options
    folder = options.get("folder") or next(iter(options["folders"].values())).rsplit("/", 1)[0]
    direct = open_source(published(dataset, root / folder, options=UNCHECKED))
    assert list(direct.entries("test"))
    for split in whole.splits():
        left, right = ([(e.id, e.label) for e in s.entries(split)] for s in (whole, direct))
        assert left == right


@pytest.mark.parametrize("place", [".", "gzip"])
def test_compressed_idx_files(tmp_path, place):
    plainly = original(tmp_path / "a", "mnist")
    packed = original(tmp_path / "b", "mnist", suffix=".gz")
    raw = packed / "MNIST" / "raw"
    for file in list(raw.iterdir()):
        (raw / place).mkdir(exist_ok=True)
        file.rename(raw / place / file.name)
    left, right = (open_source(published("mnist", r, options=UNCHECKED)) for r in (plainly, packed))
    for one, two in zip(left.images("train"), right.images("train"), strict=True):
        assert (one.id, one.label) == (two.id, two.label)
        assert np.array_equal(one.pixels, two.pixels)


def test_emnist_is_as_stored_and_can_be_turned(tmp_path):
    root = original(tmp_path, "emnist_letters")
    stored = open_source(published("emnist_letters", root, options=UNCHECKED))
    options = {**UNCHECKED, "upright": True}
    turned = open_source(published("emnist_letters", root, options=options))
    for one, two in zip(stored.images("test"), turned.images("test"), strict=True):
        assert np.array_equal(one.pixels.transpose(1, 0, 2), two.pixels)
        assert not np.array_equal(one.pixels, two.pixels)


@pytest.mark.parametrize(
    ("train", "test", "table"),
    [
        ("Final_Training/Images", "Final_Test/Images", "Final_Test/"),
        ("GTSRB/Final_Training/Images", "GTSRB/Final_Test/Images", ""),
        ("GTSRB/Training", "GTSRB/Final_Test/Images", "GTSRB/Final_Test/Images/"),
    ],
)
def test_all_forms_of_gtsrb(tmp_path, train, test, table):
    make_gtsrb(Originals(tmp_path), "gtsrb", train=train, test=test, table=table)
    source = open_source(published("gtsrb", tmp_path, options=UNCHECKED))
    assert [entry.label for entry in source.entries("train")] == [n // 2 for n in range(86)]
    assert [entry.label for entry in source.entries("test")] == list(range(43))
    assert next(source.entries("train")).id == f"{train}/00000/00000_00000.ppm"


def test_resisc45_may_lie_in_one_folder(tmp_path):
    make_resisc45(Originals(tmp_path / "a"), "resisc45")
    make_resisc45(Originals(tmp_path / "b"), "resisc45", flat=True)
    left, right = (
        open_source(published("resisc45", tmp_path / name, options=UNCHECKED)) for name in "ab"
    )
    for one, two in zip(left.images("train"), right.images("train"), strict=True):
        assert one.label == two.label
        assert one.id.endswith(f"/{two.id}")
        assert np.array_equal(one.pixels, two.pixels)


def test_the_other_table_of_fer2013(tmp_path):
    make_fer2013(Originals(tmp_path / "a"), "fer2013")
    columns = ("emotion", " Usage", " pixels")
    make_fer2013(Originals(tmp_path / "b"), "fer2013", "icml_face_data.csv", columns)
    left, right = (
        open_source(published("fer2013", tmp_path / name, options=UNCHECKED)) for name in "ab"
    )
    assert left.count("test") == right.count("test") == 7
    for one, two in zip(left.images("train"), right.images("train"), strict=True):
        assert one.label == two.label
        assert np.array_equal(one.pixels, two.pixels)


def test_another_partition(tmp_path):
    root = original(tmp_path, "sun397")
    for name in ("Training", "Testing"):
        shutil.copy(root / f"SUN397/{name}_01.txt", root / f"SUN397/{name}_02.txt")
    task = published("sun397", root, options={**UNCHECKED, "partition": "02"})
    assert open_source(task).count("train") == 397


# EuroSAT's shipped split


def test_the_shipped_split_of_eurosat():
    listed = read_split_list("eurosat")
    assert {split: len(names) for split, names in listed.items()} == read_description(
        "eurosat"
    ).counts
    every = [name for names in listed.values() for name in names]
    assert len(set(every)) == len(every) == 27_000
    assert set(Counter(name.split("/")[0] for name in listed["val"]).values()) == {270}
    assert set(Counter(name.split("/")[0] for name in listed["test"]).values()) == {270}


@pytest.fixture
def small_list(tmp_path, monkeypatch):
    """A list of four images per class, in place of the shipped one."""
    classes = read_description("eurosat").keys
    value = {
        "images": dict.fromkeys(classes, 4),
        "val": [f"{name}/{name}_2.jpg" for name in classes],
        "test": [f"{name}/{name}_3.jpg" for name in classes],
    }
    (tmp_path / "list.json").write_text(json.dumps(value))
    monkeypatch.setattr(class_folders, "resource_path", lambda _name: tmp_path / "list.json")
    return {"counts": {"train": 20, "val": 10, "test": 10}}


def test_eurosat_is_split_by_its_list(tmp_path, monkeypatch, small_list):
    make_eurosat(Originals(tmp_path), "eurosat", numbers=(1, 2, 3, 4))
    monkeypatch.setattr(
        "taskgrid.data.published.request.read_description",
        lambda name: replace(read_description(name), counts=small_list["counts"]),
    )
    source = open_source(published("eurosat", tmp_path))
    assert source.splits() == ("train", "val", "test")
    for split, numbers in (("train", (1, 4)), ("val", (2,)), ("test", (3,))):
        found = images_of(source, split)
        expected = [
            (f"{name}/{name}_{number}.jpg", label)
            for label, name in enumerate(read_description("eurosat").keys)
            for number in numbers
        ]
        assert [(image.id, image.label) for image in found] == expected
        for image in found:
            with Image.open(tmp_path / "eurosat/2750" / image.id) as file:
                assert np.array_equal(image.pixels, np.asarray(file))


@pytest.mark.usefixtures("small_list")
def test_images_that_are_not_in_the_list_are_refused(tmp_path):
    make_eurosat(Originals(tmp_path), "eurosat", numbers=(1, 2, 3, 17))
    text = refusal(published("eurosat", tmp_path))
    assert "10 listed images are missing (AnnualCrop/AnnualCrop_4.jpg)" in text
    assert "10 images are not in the list (AnnualCrop/AnnualCrop_17.jpg)" in text
    assert "`counts: false`" in text
    source = open_source(published("eurosat", tmp_path, options=UNCHECKED))
    assert [source.count(split) for split in source.splits()] == [10, 10, 10]


@pytest.mark.parametrize(
    "value",
    [
        "[]",
        "{",
        '{"images": {"a": 3}, "val": ["a/a_1.jpg"], "test": ["a/a_1.jpg"]}',
        '{"images": {"a": 3}, "val": ["a/a_1.jpg"], "test": ["a/a_4.jpg"]}',
    ],
)
def test_a_damaged_list(tmp_path, monkeypatch, value):
    (tmp_path / "list.json").write_text(value)
    monkeypatch.setattr(class_folders, "resource_path", lambda _name: tmp_path / "list.json")
    with pytest.raises(ArtifactError, match=r"list\.json .*restore it"):
        read_split_list("eurosat")


# The control task


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    return original(tmp_path_factory.mktemp("imagenet"), "imagenet")


def test_imagenets_validation_is_the_papers(imagenet):
    options = {**UNCHECKED, "train_images": 50}
    source = open_source(published("imagenet", imagenet, options=options))
    listed = tv.ImageFolder(str(imagenet / "imagenet" / "train"))
    names = [path.split("imagenet/", 2)[-1] for path, _ in listed.samples]
    kept, held = hold_out(len(names), 200, seed=0)
    assert source.splits() == ("train", "val", "test")
    ids = {split: [entry.id for entry in source.entries(split)] for split in source.splits()}
    assert {split: source.count(split) for split in ids} == {"train": 50, "val": 200, "test": 1000}
    assert ids["val"] == [names[row] for row in sorted(held)]
    assert ids["train"] == [names[row] for row in sorted(kept[:50])]
    image = next(source.images("val"))
    assert image.label == listed.targets[min(held)]
    assert np.array_equal(image.pixels, rgb(listed[min(held)][0]))


def test_imagenets_counts_are_those_of_all_its_files(imagenet):
    text = refusal(published("imagenet", imagenet))
    assert "its split train has 2000 images, but the data set 'imagenet' has 1281167" in text
    counts = {"train": 2000, "test": 1000}
    source = open_source(published("imagenet", imagenet, options={"counts": counts}))
    assert source.count("train") == 1800 < read_description("imagenet").train_images


# Counts, and what else is refused


def test_counts_are_asserted(tmp_path):
    root = original(tmp_path, "mnist")
    text = refusal(published("mnist", root))
    assert text == (
        "task 'mnist': its split train has 30 images, but the data set 'mnist' has 60000 in the "
        "layout `original`; complete it, or accept what is there by `options.counts: {train: 30, "
        "test: 12}` (or `counts: false`)"
    )
    assert open_source(published("mnist", root, options={"counts": {"train": 30, "test": 12}}))
    assert "its split test has 12 images" in refusal(
        published("mnist", root, options={"counts": {"train": 30}})
    )


def test_a_class_too_few(tmp_path):
    root = original(tmp_path, "rendered_sst2")
    for split in ("train", "test"):
        shutil.rmtree(root / "rendered-sst2" / split / "positive")
    text = refusal(published("rendered_sst2", root, options=UNCHECKED))
    assert "has 2 classes, but the source names 1; 'positive' is missing" in text


def test_a_class_that_nobody_knows(tmp_path):
    root = original(tmp_path, "rendered_sst2")
    (root / "rendered-sst2/train/positive").rename(root / "rendered-sst2/train/postive")
    text = refusal(published("rendered_sst2", root, options=UNCHECKED))
    assert "no class called 'postive'; did you mean 'positive'?" in text


def test_labels_beyond_the_classes(tmp_path):
    root = original(tmp_path, "mnist")
    path = root / "MNIST/raw/t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0a")
    assert "image 11 of test has label 10, but there are 10 classes" in refusal(
        published("mnist", root, options=UNCHECKED)
    )


@pytest.mark.parametrize("dataset", [*SMALL, "sun397"])
def test_missing_files_are_named(tmp_path, dataset):
    root = original(tmp_path / "files", dataset)
    options = read_description(dataset).original
    for path in (tmp_path / "nothing", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        text = refusal(published(dataset, path, options=UNCHECKED))
        assert "missing" in text or "does not exist" in text
    shutil.rmtree(root / options.needs[-1], ignore_errors=True)
    (root / options.needs[-1]).unlink(missing_ok=True)
    text = refusal(published(dataset, root, options=UNCHECKED))
    assert f"task '{dataset}': {tmp_path}" in text
    assert "missing" in text
    assert "docs/datasets.md" in text


def images_and_tables(root):
    """A file of each kind that a data set consists of."""
    kinds = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        kinds.setdefault(path.suffix or path.name, path)
    return kinds.values()


@pytest.mark.parametrize("dataset", [name for name in SMALL if name != "eurosat"])
def test_truncated_files_never_pass(tmp_path, dataset):
    root = original(tmp_path, dataset)
    before = len(images_of(open_source(published(dataset, root, options=UNCHECKED)), "train"))
    for path in images_and_tables(root):
        data = path.read_bytes()
        # The last bytes of an image may be no part of its pixels.
        whole = path.suffix in (".png", ".jpg", ".JPEG", ".ppm")
        for size in (0, 5, len(data) // 2, len(data) // 2 + 1 if whole else len(data) - 3):
            path.write_bytes(data[:size])
            try:
                source = open_source(published(dataset, root, options=UNCHECKED))
                found = [len(images_of(source, split)) for split in source.splits()]
            except DataError as error:
                assert "\n" not in str(error)
                continue
            # Lists of names may be shorter and still be lists: then the counts notice it.
            assert path.suffix in (".txt", ".csv", ".bin") and sum(found) > 0
            assert "has" in refusal(published(dataset, root))
        path.write_bytes(data)
    after = images_of(open_source(published(dataset, root, options=UNCHECKED)), "train")
    assert len(after) == before


def test_pcam_says_which_package_it_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    text = refusal(published("pcam", tmp_path))
    assert "needs the package h5py: `pip install h5py`, or use `layout: hub`" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"partiton": "02"},
            ["unknown key 'options.partiton'; did you mean 'partition'? allowed here: da"],
        ),
        ({"partition": 2}, ["options.partition is 2"]),
        ({"counts": True}, ["options.counts"]),
        ({"counts": {"train": 0}}, ["options.counts"]),
        ({"counts": {"val": 3}}, ["counts names the split val, but", "are train, test"]),
        ({"layout": "web"}, ["options.layout", "'hub' or 'original'"]),
        (
            {"layout": "hub", "partition": "01"},
            ["unknown key 'options.partition'", "allowed here: dataset, lay"],
        ),
        ({"prompts": "mine"}, ["has no prompts called 'mine'"]),
    ],
)
def test_bad_options(tmp_path, options, words):
    text = refusal(published("sun397", tmp_path, options=options))
    for word in words:
        assert word in text


def test_no_hub():
    text = refusal(published("emnist_digits", layout="hub"))
    assert "no repository on the hub is known for the data set 'emnist_digits'" in text
    assert "`options.layout: original`" in text


def test_names_and_templates_of_the_task_win(tmp_path):
    root = original(tmp_path, "rendered_sst2")
    task = published(
        "rendered_sst2",
        root,
        name="mood",
        classes=["bad", "good"],
        templates=["{}"],
        options={**UNCHECKED, "dataset": "rendered_sst2"},
    )
    source = open_source(task)
    assert (source.classes, source.templates) == (("bad", "good"), ("{}",))
    names = tmp_path / "names.json"
    names.write_text('{"positive": "good", "negative": "bad"}')
    assert open_source(task.model_copy(update={"classes": str(names)})).classes == ("bad", "good")


def test_prompts_of_a_lineage(tmp_path):
    variants = [(name, v) for name in MAKERS for v in read_description(name).variants]
    dataset, variant = next((name, v) for name, v in variants if name not in ("pcam", "eurosat"))
    root = original(tmp_path, dataset)
    source = open_source(published(dataset, root, options={**UNCHECKED, "prompts": variant}))
    assert (source.classes, source.templates) == read_description(dataset).prompts(variant)
    assert (source.classes, source.templates) != read_description(dataset).prompts()


# The hub


COUNTS = {"train": 26, "test": 10}


def hub_task(dataset, cache, **options):
    return published(dataset, cache, layout="hub", options={"counts": False, **options})


@pytest.mark.parametrize("dataset", ["mnist", "cifar10", "svhn", "rendered_sst2", "stl10"])
def test_labels_of_the_hub_are_mapped_by_name(tmp_path, dataset):
    expected = hub_standin(tmp_path, dataset, COUNTS)
    description = read_description(dataset)
    source = open_source(hub_task(dataset, tmp_path))
    assert source.classes == description.names
    for split, images in expected.items():
        found = images_of(source, split)
        assert len(found) == source.count(split) == COUNTS[split]
        for image, (name, pixels) in zip(found, images, strict=True):
            assert description.keys[image.label] == name
            assert np.array_equal(image.pixels, pixels)


def test_names_are_compared_leniently(tmp_path):
    names = [name.upper().replace("_", " ") for name in read_description("cars").keys]
    expected = hub_standin(tmp_path, "cars", {"train": 200, "test": 9}, names=names[::-1])
    source = open_source(hub_task("cars", tmp_path))
    for image, (name, _) in zip(source.images("train"), expected["train"], strict=True):
        assert read_description("cars").keys[image.label].upper() == name


def test_names_that_differ_need_a_table(tmp_path):
    names = ["Zero", *"123456789"]
    expected = hub_standin(tmp_path, "mnist", COUNTS, names=names)
    text = refusal(hub_task("mnist", tmp_path))
    assert "no class called 'Zero'; 1 of the source's 10 class names match none" in text
    assert "give the option `names`" in text
    source = open_source(hub_task("mnist", tmp_path, names={"Zero": "0"}))
    labels = [names.index(name) for name, _ in expected["train"]]
    assert [entry.label for entry in source.entries("train")] == labels


def remade(files, change):
    """The same Parquet files after a change of their tables."""
    found = {}
    for name, content in files.items():
        sink = io.BytesIO()
        pq.write_table(change(pq.read_table(io.BytesIO(content))), sink)
        found[name] = sink.getvalue()
    return found


def nameless(table):
    return table.replace_schema_metadata(None)


def as_truth(table):
    return nameless(table.set_column(1, "label", table.column("label").cast(pa.bool_())))


@pytest.mark.parametrize(
    ("dataset", "count", "change"), [("fer2013", 7, nameless), ("pcam", 2, as_truth)]
)
def test_bare_numbers_and_truth_values_are_names(tmp_path, dataset, count, change):
    numbers = [str(number) for number in range(count)]
    files, expected = hub_files(dataset, COUNTS, names=numbers, shards=1)
    hub = read_description(dataset).hub
    hub_cache(tmp_path, hub.repository, remade(files, change), hub.revision or COMMIT)
    source = open_source(hub_task(dataset, tmp_path))
    for image, (number, _) in zip(source.images("train"), expected["train"], strict=True):
        assert read_description(dataset).keys[image.label] == (hub.names or {}).get(number, number)


def test_hub_counts_are_asserted(tmp_path):
    hub_standin(tmp_path, "eurosat", COUNTS)
    text = refusal(published("eurosat", tmp_path, layout="hub"))
    assert (
        "its split train has 26 images, but the data set 'eurosat' has 21600 in the layout `hub`"
        in text
    )
    task = published("eurosat", tmp_path, layout="hub", options={"counts": COUNTS})
    # The list of splits is for the original files alone.
    assert open_source(task).splits() == ("train", "test")


def test_what_is_not_in_the_cache(tmp_path):
    text = refusal(published("mnist", tmp_path / "nowhere", layout="hub"))
    assert f"is not all in {tmp_path / 'nowhere'}; download it" in text
    hub_standin(tmp_path, "mnist", COUNTS, commit="c" * 40)
    assert "is not all in" in refusal(hub_task("mnist", tmp_path))


def manifest(tmp_path, dataset, commit, /, **changes):
    description = read_description(dataset)
    folder = tmp_path / f"datasets--{description.hub.repository.replace('/', '--')}"
    root = folder / "snapshots" / commit
    files = tuple(
        DownloadedFile(path.relative_to(root).as_posix(), path.stat().st_size)
        for path in sorted(root.rglob("*.parquet"))
    )
    download = Download(
        dataset, "hub", "none", None, "x", files, description.hub.repository, "main", commit
    )
    path = tmp_path / "download.json"
    replace(download, **changes).write(path)
    assert Download.read(path) == replace(download, **changes)
    return str(path)


def test_the_recorded_commit_is_read(tmp_path):
    expected = hub_standin(tmp_path, "mnist", COUNTS, commit="c" * 40)
    path = manifest(tmp_path, "mnist", "c" * 40)
    source = open_source(hub_task("mnist", tmp_path, download=path))
    assert np.array_equal(next(source.images("test")).pixels, expected["test"][0][1])
    # The cache may lie anywhere.
    moved = tmp_path.rename(tmp_path.parent / "moved")
    source = open_source(hub_task("mnist", moved, download=str(moved / "download.json")))
    assert np.array_equal(next(source.images("test")).pixels, expected["test"][0][1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"dataset": "svhn"},
            "download.json is of svhn (ylecun/mnist), not of mnist (ylecun/mnist)",
        ),
        ({"repository": "x/y"}, "download.json is of mnist (x/y), not of"),
        (
            {"files": (DownloadedFile("mnist/train-00000-of-00002.parquet", 17),)},
            "but had 17 when it was downloaded; delete it and download it again",
        ),
        (
            {"files": (DownloadedFile("mnist/gone.parquet", 17),)},
            "mnist/gone.parquet has no bytes",
        ),
    ],
)
def test_a_manifest_of_something_else(tmp_path, changes, words):
    hub_standin(tmp_path, "mnist", COUNTS, commit="c" * 40)
    path = manifest(tmp_path, "mnist", "c" * 40, **changes)
    assert words in refusal(hub_task("mnist", tmp_path, download=path), ArtifactError)


def test_a_damaged_manifest(tmp_path):
    write_json(tmp_path / "download.json", {"files": [{"nom": 1}]})
    task = hub_task("mnist", tmp_path, download=str(tmp_path / "download.json"))
    assert "is no manifest of a download" in refusal(task, ArtifactError)


# The limit


@pytest.mark.parametrize("layout", ["hub", "original"])
def test_the_limit_draws_from_each_split(tmp_path, layout):
    if layout == "hub":
        hub_standin(tmp_path, "mnist", {"train": 200, "test": 60}, shards=3)
    else:
        original(tmp_path, "mnist", counts=(200, 60))
    options = {"counts": {"train": 200, "test": 60}}
    task = published("mnist", tmp_path, layout=layout, options=options)
    whole = {
        split: {image.id: image for image in open_source(task).images(split)}
        for split in ("train", "test")
    }
    drawn = {}
    for limit in (10, 30, 100):
        source = open_source(task.model_copy(update={"limit": limit}))
        for split, images in whole.items():
            found = images_of(source, split)
            assert len(found) == source.count(split) == min(limit, len(images))
            ids = [image.id for image in found]
            assert ids == [name for name in images if name in set(ids)]
            assert set(ids) > set(drawn.get(split, ())) or ids == drawn.get(split)
            drawn[split] = ids
            for image in found:
                assert image.label == images[image.id].label
                assert np.array_equal(image.pixels, images[image.id].pixels)
    # Drawn from everywhere, not from the front.
    assert max(int(name.split("/")[1]) for name in drawn["train"]) > 150


def test_counts_are_asserted_before_the_limit(tmp_path):
    root = original(tmp_path, "mnist")
    assert "has 30 images, but" in refusal(published("mnist", root, limit=5))


def test_images_beyond_the_limit_are_not_decoded(tmp_path):
    root = original(tmp_path, "rendered_sst2")
    task = published("rendered_sst2", root, options=UNCHECKED, limit=1)
    (kept,) = open_source(task).entries("train")
    for path in (root / "rendered-sst2" / "train").rglob("*.png"):
        if not path.as_posix().endswith(kept.id):
            path.write_bytes(b"no image")
    assert len(images_of(open_source(task), "train")) == 1
    assert "cannot be read" in refusal(published("rendered_sst2", root, options=UNCHECKED))


def test_row_groups_beyond_the_limit_are_not_read(tmp_path, monkeypatch):
    hub_standin(tmp_path, "mnist", {"train": 400, "test": 4}, shards=2)
    read = []
    whole = shards.pq.ParquetFile.iter_batches

    def noted(self, *args, **options):
        if "row_groups" in options:
            read.append(options["row_groups"])
        return whole(self, *args, **options)

    monkeypatch.setattr(shards.pq.ParquetFile, "iter_batches", noted)
    source = open_source(hub_task("mnist", tmp_path).model_copy(update={"limit": 5}))
    assert len(images_of(source, "train")) == 5
    assert 0 < len(read) <= 5


# From files to a dataset


def test_a_dataset_of_stand_ins(tmp_path):
    root = original(tmp_path / "files", "dtd")
    task = published("dtd", root, options=UNCHECKED, limit=40)
    built = build_dataset(task, 16, "bicubic", tmp_path / "i.arrow", tmp_path / "d.json", threads=2)
    assert built.counts == {"train": 40, "test": 40}
    assert built.classes == read_description("dtd").names


# Real files


def real(name):
    path = SHARED_DATA / "original-layout" / name
    return pytest.param(path, marks=pytest.mark.skipif(not path.exists(), reason=f"no {path}"))


@pytest.mark.parametrize("path", [real("GTSRB")])
def test_real_files_of_gtsrb(path):
    text = refusal(published("gtsrb", path))
    assert "but the data set 'gtsrb' has 26640" in text
    source = open_source(published("gtsrb", path, options=UNCHECKED))
    assert source.splits() == ("train", "test")
    assert source.count("train") + source.count("test") == 209
    labels = set()
    for split in source.splits():
        for image in source.images(split):
            with Image.open(path / image.id) as file:
                assert np.array_equal(image.pixels, np.asarray(file))
            labels.add(image.label)
    assert labels == set(range(43))
    for image in source.images("train"):
        assert image.id.split("/")[-2] == f"{image.label:05d}"


@pytest.mark.parametrize("path", [real("EuroSAT_RGB")])
def test_real_files_of_eurosat(path):
    assert "listed images are missing" in refusal(published("eurosat", path))
    source = open_source(published("eurosat", path, options=UNCHECKED))
    listed = read_split_list("eurosat")
    total = 0
    for split in source.splits():
        for image in source.images(split):
            assert image.id in listed[split]
            assert read_description("eurosat").keys[image.label] == image.id.split("/")[0]
            assert image.pixels.shape == (64, 64, 3)
            total += 1
    assert total == 200


# Files that say more than they hold


def test_headers_of_idx_and_matlab_files_that_say_more_than_there_is(tmp_path):
    root = original(tmp_path, "mnist")
    path = next(root.rglob("train-images*"))
    data = path.read_bytes()
    path.write_bytes(data[:4] + b"\x7f\xff\xff\xff" * 3 + data[16:])
    task = published("mnist", root, options=UNCHECKED)
    assert "is said to be of shape (2147483647, 2147483647" in refusal(task)


def test_a_packed_idx_file_that_goes_on_is_read_no_further(tmp_path):
    root = original(tmp_path, "mnist", suffix=".gz")
    path = next(root.rglob("train-images*"))
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(1 << 20)))
    assert "train-images-idx3-ubyte.gz is damaged" in refusal(
        published("mnist", root, options=UNCHECKED)
    )


def test_matlab_files_that_say_more_than_they_hold(tmp_path):
    root = original(tmp_path, "svhn")
    savemat(
        next(root.rglob("train_32x32.mat")),
        {"X": np.zeros((32, 32, 3, 30_000), np.uint8), "y": np.ones(30_000, np.uint8)},
        do_compression=True,
    )
    assert "train_32x32.mat is damaged (X is said to be of shape (32, 32, 3, 30000))" in refusal(
        published("svhn", root, options=UNCHECKED)
    )


def test_a_class_numbered_zero_is_no_last_class(tmp_path):
    root = original(tmp_path, "cars")
    path = next(root.rglob("cars_train_annos.mat"))
    kind = [("fname", object), ("class", object)]
    rows = np.array([("00001.jpg", 0), ("00002.jpg", 1)], dtype=kind)
    savemat(path, {"annotations": rows})
    assert "a class is numbered 0" in refusal(published("cars", root, options=UNCHECKED))
