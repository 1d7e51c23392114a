import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from taskgrid.data.dataset import build_dataset
from taskgrid.data.manifest import DatasetManifest, SplitManifest
from taskgrid.data.preprocess import prepare, whole
from taskgrid.data.sources.opening import open_source
from taskgrid.data.sources.seam import Entry, Source
from taskgrid.data.splits import make_split
from taskgrid.errors import ArtifactError, DataError, SplitError
from taskgrid.machine.progress import Progress
from taskgrid.store.images import ImageStore, pixel_digest
from taskgrid.store.originals import OriginalStore, write_originals
from taskgrid.store.seals import seal_of
from tests.unit.example_images import (
    REAL_SETS,
    SHARED_DATA,
    archive,
    image_folders,
    pixels,
    png,
    shards,
    spec,
)


def build(task, folder, size=8, **options):
    manifest = build_dataset(
        task, size, "bicubic", folder / "images.arrow", folder / "dataset.json", **options
    )
    return manifest, ImageStore.open(folder / "images.arrow")


def split_of(task, manifest, store):
    return make_split(task.name, store.index, manifest.classes, allow_overlap=task.allow_overlap)


SOURCES = {
    "folder": lambda root: spec("folder", image_folders(root, ("train", "val", "test"))),
    "npz": lambda root: spec("npz", archive(root / "pets.npz")),
    "parquet": lambda root: spec("parquet", shards(root)),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_task_is_decoded_once(tmp_path, kind):
    task = SOURCES[kind](tmp_path / "pets")
    manifest, store = build(task, tmp_path / "out")
    source = open_source(task)
    expected = [(split, image) for split in source.splits() for image in source.images(split)]
    assert len(store) == len(expected) == sum(manifest.counts.values())
    for row, (split, image) in enumerate(expected):
        assert np.array_equal(store.pixels[row], prepare(image.pixels, 8))
        assert store.pixel_digests[row] == pixel_digest(image.pixels)
        assert (store.ids[row], store.labels[row], store.origin[row]) == (
            image.id, image.label, split,
        )  # fmt: skip
    assert manifest.counts == {split: source.count(split) for split in source.splits()}
    assert (manifest.classes, manifest.templates) == (source.classes, source.templates)
    assert manifest.digest == store.index.content_digest()
    assert manifest.images == seal_of(store.path)
    assert DatasetManifest.read(tmp_path / "out" / "dataset.json") == manifest


def test_the_bytes_depend_on_the_data_alone(tmp_path):
    task = SOURCES["folder"](tmp_path / "pets")
    for name, threads in (("a", 1), ("b", 1), ("c", 4)):
        build(task, tmp_path / name, threads=threads)
    files = ("images.arrow", "dataset.json")
    bytes_of = {name: [(tmp_path / name / file).read_bytes() for file in files] for name in "abc"}
    assert bytes_of["a"] == bytes_of["b"] == bytes_of["c"]


def test_the_digest_is_of_the_originals(tmp_path):
    task = SOURCES["folder"](tmp_path / "pets")
    small, _ = build(task, tmp_path / "small", size=4)
    large, _ = build(task, tmp_path / "large", size=9)
    assert small.digest == large.digest
    assert small.images != large.images


def test_progress_counts_every_image(tmp_path, capsys):
    task = SOURCES["folder"](tmp_path / "pets")
    build(task, tmp_path / "out", progress=partial(Progress, "dataset pets"))
    assert "dataset pets: 18/18 img" in capsys.readouterr().err


def truncate(root):
    path = root / "test" / "dog" / "2.png"
    path.write_bytes(path.read_bytes()[:150])


def empty(root):
    for path in (root / "train" / "cat").iterdir():
        path.unlink()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (truncate, r"^task 'pets': image \S+/test/dog/2\.png cannot be read \(.+\); replace it"),
        (empty, r"^task 'pets': the class folder \S+/train/cat has no images"),
        (lambda root: shutil.rmtree(root), r"^task 'pets': \S+/pets does not exist"),
        (lambda root: shutil.rmtree(root / "train"), r"^task 'pets': \S+ has no train split"),
    ],
)
def test_broken_data_leave_nothing(tmp_path, damage, sentence, threads):
    task = spec("folder", image_folders(tmp_path / "pets"))
    damage(tmp_path / "pets")
    with pytest.raises(DataError, match=sentence) as caught:
        build(task, tmp_path / "out", threads=threads)
    assert str(caught.value).count("task 'pets'") == 1
    assert list((tmp_path / "out").iterdir() if (tmp_path / "out").exists() else ()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_named(tmp_path):
    task = spec("folder", image_folders(tmp_path / "pets"))
    (tmp_path / "out").mkdir(mode=0o555)
    with pytest.raises(ArtifactError, match=r"cannot write \S+images.arrow: permission denied"):
        build(task, tmp_path / "out")


def test_a_results_folder_that_is_a_file_is_named(tmp_path):
    task = spec("folder", image_folders(tmp_path / "pets"))
    (tmp_path / "out").write_text("")
    with pytest.raises(ArtifactError, match=r"cannot write \S+images.arrow"):
        build(task, tmp_path / "out")


class Careless(Source):
    """A plug-in that checks nothing itself."""

    classes = ("cat", "dog")
    templates = ("{}",)

    def __init__(self, *found):
        self.found = found

    def splits(self):
        return ("train",)

    def count(self, split):
        return len(self.found)

    def entries(self, split):
        for name, label, array in self.found:
            yield Entry(name, label, lambda array=array: array)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ([("a", 0, pixels(1)), ("b", 2, pixels(2))], "image 'b' of train has label 2, but there"),
        ([("a", -1, pixels(1))], "image 'a' of train has label -1"),
        ([("a", 0, pixels(1)), ("a", 1, pixels(2))], "the id 'a' stands twice in train"),
        ([("a", 0, pixels(1) / 255)], "image 'a' is float64 of shape"),
        ([("a", 0, pixels(1)[..., 0])], "image 'a' is uint8 of shape"),
        ([("a", 0, pixels(1)[:0])], "image 'a' is uint8 of shape"),
        ([], "its source 'folder' has no images"),
    ],
)
def test_a_careless_plug_in_is_caught(tmp_path, monkeypatch, found, sentence):
    monkeypatch.setattr("taskgrid.data.dataset.open_source", lambda task: Careless(*found))
    with pytest.raises(DataError, match=f"^task 'pets': {sentence}"):
        build(spec("folder", tmp_path), tmp_path / "out")
    assert list(tmp_path.rglob("*")) in ([], [tmp_path / "out"])


def test_one_id_in_two_splits(tmp_path):
    ids = np.array([f"train-{row}" for row in range(6)])
    path = archive(tmp_path / "pets.npz", test_ids=ids)
    with pytest.raises(SplitError, match=r"^task 'pets': the id 'train-0' stands in train and in"):
        build(spec("npz", path), tmp_path / "out")
    assert not (tmp_path / "out" / "images.arrow").exists()
    task = spec("npz", path, allow_overlap=True)
    manifest, store = build(task, tmp_path / "out")
    assert store.ids[20:22] == ["test:train-0", "test:train-1"]
    assert split_of(task, manifest, store).counts == {
        "train": 18, "val": 2, "test": 6, "dropped": 0,
    }  # fmt: skip


def test_one_image_in_two_folders_is_a_leak_unless_allowed(tmp_path):
    root = image_folders(tmp_path / "pets", per_class=6)
    shutil.copy(root / "train" / "cat" / "1.png", root / "test" / "dog" / "copy.png")
    task = spec("folder", root)
    manifest, store = build(task, tmp_path / "out")
    with pytest.raises(
        SplitError, match=r"'train/cat/1\.png' in train and 'test/dog/copy\.png' in test have the"
    ):
        split_of(task, manifest, store)
    allowed = split_of(spec("folder", root, allow_overlap=True), manifest, store)
    assert allowed.counts["test"] == 13


def test_real_images_that_leaked_into_train_are_dropped(tmp_path):
    path = SHARED_DATA / "mnist" / "mnist.npz"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    arrays = dict(np.load(path))
    for name in ("images", "labels", "ids"):
        train, test = arrays[f"train_{name}"], arrays[f"test_{name}"]
        # The first seven under their own ids in both splits, which is how they leak in tables.
        arrays[f"train_{name}"] = np.concatenate([train, test[:7]])
    leaky = tmp_path / "leaky.npz"
    np.savez(leaky, **arrays)
    shutil.copy(path.with_name("classes.json"), tmp_path)
    with pytest.raises(
        SplitError, match="`duplicates: drop_from_train`, where it is the same image"
    ):
        build(spec("npz", leaky), tmp_path / "refused", size=24)
    manifest, store = build(spec("npz", leaky, allow_overlap=True), tmp_path / "out", size=24)
    found = make_split("digits", store.index, manifest.classes, drop_duplicates=True)
    assert found.dropped == tuple(sorted(map(str, arrays["test_ids"][:7])))
    assert (len(found.train) + len(found.val), len(found.test)) == (3000, 1000)


def test_the_split_ignores_how_a_folder_was_filled(tmp_path):
    # The same files, created in another order.
    first = image_folders(tmp_path / "first", per_class=8)
    second = tmp_path / "second"
    for path in sorted(first.rglob("*.png"), reverse=True):
        place = second / path.relative_to(first)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    found = []
    for name, root in (("a", first), ("b", second)):
        task = spec("folder", root)
        manifest, store = build(task, tmp_path / name)
        found.append((manifest.digest, split_of(task, manifest, store)))
    assert found[0] == found[1]


def test_duplicates_inside_train_leave_train(tmp_path):
    root = image_folders(tmp_path / "pets", per_class=20)
    for number in range(20):
        shutil.copy(root / "train/cat" / f"{number}.png", root / "train/dog" / f"c{number}.png")
    task = spec("folder", root)
    manifest, store = build(task, tmp_path / "out")
    found = split_of(task, manifest, store)
    digest_of = dict(zip(store.ids, store.pixel_digests, strict=True))
    assert not {digest_of[x] for x in found.train} & {digest_of[x] for x in found.val}
    assert len(found.val) == 6
    assert found.dropped
    assert sum(found.counts.values()) == len(store)


def test_images_of_many_sizes_end_at_one(tmp_path):
    root = image_folders(tmp_path / "pets")
    for number, shape in enumerate([(3, 50), (50, 3), (8, 8), (1, 1), (200, 150)]):
        (root / "train" / "cat" / f"z{number}.png").write_bytes(png(pixels(50 + number, *shape)))
    _, store = build(spec("folder", root), tmp_path / "out")
    assert store.pixels.shape == (17, 8, 8, 3)


# Originals, for random crops.


def build_with_originals(task, folder, **options):
    manifest, images = build(task, folder, out_originals=folder / "train.arrow", **options)
    return manifest, images, OriginalStore.open(folder / "train.arrow")


def sized_folders(root, shapes):
    """A task with one more training image of each shape, and oblong test images."""
    image_folders(root)
    for path in (root / "train").rglob("*.png"):
        path.write_bytes(png(pixels(sum(path.parent.name.encode()) + int(path.stem), 8, 8)))
    for number, shape in enumerate(shapes):
        (root / "train" / "cat" / f"z{number}.png").write_bytes(png(pixels(50 + number, *shape)))
    return spec("folder", root)


SHAPES = [(9, 12), (20, 20), (40, 9), (8, 8), (3, 50), (6, 6)]


@pytest.mark.parametrize(
    ("keep", "kept"), [("none", []), ("oblong", [0, 2, 4]), ("all", [0, 1, 2, 4, 5])]
)
def test_training_images_are_kept_before_the_centre_crop(tmp_path, keep, kept):
    task = sized_folders(tmp_path / "pets", SHAPES)
    manifest, images, store = build_with_originals(task, tmp_path / "out", keep=keep)
    names = [f"train/cat/z{number}.png" for number in kept]
    assert [images.ids[row] for row in store.rows] == names
    assert [tuple(size) for size in store.sizes.tolist()] == [SHAPES[number] for number in kept]
    for place, number in enumerate(kept):
        expected = whole(pixels(50 + number, *SHAPES[number]), 8)
        assert np.array_equal(store.pixels(place), expected)
        assert store.shapes[place].tolist() == list(expected.shape[:2])
    assert manifest.originals == (seal_of(tmp_path / "out" / "train.arrow") if kept else None)
    rows = images.rows(images.ids[::-1])
    places = store.places(images, rows)
    known = dict(zip(names, range(len(names)), strict=True))
    assert places.tolist() == [known.get(name, -1) for name in images.ids[::-1]]


def test_originals_change_nothing_else(tmp_path):
    task = sized_folders(tmp_path / "pets", SHAPES)
    plain, _ = build(task, tmp_path / "plain")
    kept, _, _ = build_with_originals(task, tmp_path / "kept")
    assert plain.images == kept.images
    assert plain.digest == kept.digest


def test_square_images_cost_nothing(tmp_path):
    root = tmp_path / "pets"
    archive(root / "pets.npz")
    manifest, images, store = build_with_originals(
        spec("npz", root / "pets.npz"), tmp_path / "out", size=16
    )
    assert len(store) == 0
    assert manifest.originals is None
    assert store.places(images, [0, 3]).tolist() == [-1, -1]
    assert (tmp_path / "out" / "train.arrow").stat().st_size < 4096


def test_the_originals_bytes_depend_on_the_data_alone(tmp_path):
    # More than one batch of the file.
    task = sized_folders(tmp_path / "pets", [(5 + n % 7, 9 + n % 11) for n in range(150)])
    stores = [
        build_with_originals(task, tmp_path / name, threads=threads)[2]
        for name, threads in (("a", 1), ("b", 4))
    ]
    first, second = ((tmp_path / name / "train.arrow").read_bytes() for name in "ab")
    assert first == second
    images = ImageStore.open(tmp_path / "a" / "images.arrow")
    assert len(stores[0]) > 128
    for place in (0, 63, 64, 127, 128, len(stores[0]) - 1):
        number = int(images.ids[stores[0].rows[place]].split("z")[1].removesuffix(".png"))
        assert np.array_equal(
            stores[0].pixels(place), whole(pixels(50 + number, 5 + number % 7, 9 + number % 11), 8)
        )


@pytest.mark.parametrize("threads", [1, 3])
def test_broken_data_leave_no_originals(tmp_path, threads):
    task = sized_folders(tmp_path / "pets", SHAPES)
    truncate(tmp_path / "pets")
    with pytest.raises(DataError):
        build_with_originals(task, tmp_path / "out", threads=threads)
    assert list((tmp_path / "out").iterdir()) == []


def test_originals_of_other_images_are_refused(tmp_path):
    task = sized_folders(tmp_path / "pets", SHAPES)
    other = sized_folders(tmp_path / "others", SHAPES[::-1])
    _, _, store = build_with_originals(task, tmp_path / "out")
    _, images, _ = build_with_originals(other, tmp_path / "other")
    with pytest.raises(DataError, match=r"train\.arrow does not belong to \S+images\.arrow"):
        store.places(images, [0])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "is damaged"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (
            lambda path: shutil.copy(path.parent / "images.arrow", path),
            r"is damaged \(it is not a file of originals",
        ),
    ],
)
def test_damaged_originals_are_named(tmp_path, damage, words):
    task = sized_folders(tmp_path / "pets", SHAPES)
    build_with_originals(task, tmp_path)
    damage(tmp_path / "train.arrow")
    with pytest.raises(ArtifactError, match=rf"train\.arrow {words}"):
        OriginalStore.open(tmp_path / "train.arrow")


def test_originals_are_whole_or_absent(tmp_path):
    with pytest.raises(KeyboardInterrupt), write_originals(tmp_path / "train.arrow"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


# Real sets, through the whole of data, as a user would write them.

REAL = {name: spec("npz", SHARED_DATA / name / f"{name}.npz", name=name) for name in REAL_SETS}
REAL["eurosat_folders"] = spec(
    "folder", SHARED_DATA / "original-layout" / "EuroSAT_RGB", name="eurosat_folders"
)
COUNTS = {
    "cifar10": (2700, 300, 1000),
    "eurosat": (1260, 140, 500),
    "fashion_mnist": (2700, 300, 1000),
    "gtsrb": (2671, 296, 989),
    "mnist": (2700, 300, 1000),
    "eurosat_folders": (144, 16, 40),
}


@pytest.mark.parametrize("name", sorted(REAL))
def test_real_sets(tmp_path, name):
    task = REAL[name]
    if not Path(task.path).exists():
        pytest.skip(f"{task.path} is not on this machine")
    manifest, store = build(task, tmp_path, size=24)
    found = split_of(task, manifest, store)
    found.write(tmp_path / "split.json")
    assert SplitManifest.read(tmp_path / "split.json") == found
    # The five sets hold no duplicates, so nothing is dropped, nor would be on request.
    assert tuple(found.counts.values()) == (*COUNTS[name], 0)
    asked = make_split(task.name, store.index, manifest.classes, drop_duplicates=True)
    assert asked.digest == found.digest
    assert store.pixels.shape == (sum(COUNTS[name]), 24, 24, 3)
    rows = store.rows(found.val)
    assert set(store.labels[rows].tolist()) <= set(range(len(manifest.classes)))


@pytest.mark.parametrize(
    ("fields", "partial"),
    [({}, False), ({"limit": 5}, True), ({"limit": 500}, True)],
)
def test_a_manifest_says_whether_all_images_were_asked_for(tmp_path, fields, partial):
    task = spec("folder", image_folders(tmp_path / "pets"), **fields)
    manifest, _ = build(task, tmp_path / "out")
    assert (manifest.partial, manifest.notes) == (partial, ())
    (tmp_path / "pets" / "train" / "cat" / "x.gif").write_bytes(b"x")
    manifest, _ = build(task, tmp_path / "out")
    assert "train/cat/x.gif" in manifest.notes[0]
    assert DatasetManifest.read(tmp_path / "out" / "dataset.json") == manifest
