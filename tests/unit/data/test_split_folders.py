"""Folders as people have them: any case, links, accents, files of other kinds, splits in odd places."""

import os
import shutil
import unicodedata

import pytest

from taskgrid.data.sources.opening import open_source
from taskgrid.data.sources.split_names import meaning, mentioned
from taskgrid.errors import DataError
from taskgrid.provenance.listing import fingerprint
from tests.unit.example_images import image_folders, pixels, png, spec


def refusal(root, **fields):
    with pytest.raises(DataError) as caught:
        open_source(spec("folder", root, **fields))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def ids(source, split="train"):
    return [entry.id for entry in source.entries(split)]


def flat(folder, count=2):
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(png(pixels(500 + number)))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *[("train", "train"), ("Training", "train"), ("TRAIN", "train"), ("train_set", "train")],
        *[("TrainImages", "train"), ("train2017", "train"), ("trainset", "train")],
        *[("Val", "val"), ("valid", "val"), ("dev", "val"), ("Validation Set", "val")],
        *[("Test", "test"), ("testing_data", "test"), ("test-images", "test")],
        *[("eval", "unclear"), ("Evaluation", "unclear")],
        *[("cat", None), ("steam train", None), ("trains", None), ("latest", None), ("", None)],
    ],
)
def test_usual_names(name, split):
    assert meaning(name) == split


def test_names_that_speak_of_a_split():
    assert [mentioned(n) for n in ("seg_train", "old-Test", "extra")] == ["train", "test", None]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("Train", "Test"), ("train", "test")),
        (("train", "TEST"), ("train", "test")),
        (("train", "Val", "test"), ("train", "val", "test")),
        (("training", "dev", "testing"), ("train", "val", "test")),
        (("training_set", "test_set"), ("train", "test")),
    ],
)
def test_splits_are_known_in_any_case(tmp_path, names, splits):
    root = image_folders(tmp_path, names)
    source = open_source(spec("folder", root))
    assert (source.classes, source.splits()) == (("cat", "dog"), splits)
    assert [ids(source, split)[0] for split in splits] == [f"{name}/cat/0.png" for name in names]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("train", "eval"), ["eval may be validation or test", "{train: train, test: eval}"]),
        (("train", "val", "dev"), ["dev and val, which all mean val"]),
        (("train", "Train"), ["Train and train, which all mean train"]),
        (("train", "my_test"), ["my_test may be a split", "options.folders"]),
        (("seg_train", "seg_test"), ["seg_test may be a split", "{train: .}"]),
        (("Test", "pictures"), ["no train split", "Test, pictures"]),
    ],
)
def test_what_may_be_meant_in_two_ways_is_refused(tmp_path, names, words):
    text = refusal(image_folders(tmp_path, names))
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("name", "way"), [("test", "{train: train}"), ("Val", "{train: train}"), ("eval", "test: eval")]
)
def test_held_out_images_without_classes_are_refused(tmp_path, name, way):
    root = image_folders(tmp_path, ("train",))
    flat(root / name)
    text = refusal(root)
    assert name in text
    assert way in text
    task = spec("folder", root, options={"folders": {"train": "train"}})
    assert open_source(task).splits() == ("train",)


def test_a_class_called_test_needs_a_word(tmp_path):
    root = image_folders(tmp_path, ("pets",)) / "pets"
    flat(root / "test")
    assert "{train: .} takes it for a class" in refusal(root)
    source = open_source(spec("folder", root, options={"folders": {"train": "."}}))
    assert source.classes == ("cat", "dog", "test")
    assert ids(source)[0] == "cat/0.png"


def test_splits_below_classes_are_refused(tmp_path):
    for name in ("cat", "dog"):
        image_folders(tmp_path / name, ("pets",), ("train", "test"))
        shutil.move(tmp_path / name / "pets", tmp_path / "pets" / name)
    assert "cat holds a folder test: splits stand above classes" in refusal(tmp_path / "pets")


def test_what_is_left_out_is_named(tmp_path):
    root = image_folders(tmp_path, ("train", "test"))
    flat(root / "extra")
    (root / "docs").mkdir()
    (root / "README.md").write_text("x")
    (root / "test" / "stray.png").write_bytes(png(pixels(1)))
    for name in ("a.gif", "b.GIF", "c.heic", "notes"):
        (root / "train" / "dog" / name).write_bytes(b"x")
    source = open_source(spec("folder", root))
    assert source.notes == (
        "train: left out 4 files, which do not end like images: .gif (2), .heic (1), no ending (1), "
        "such as train/dog/a.gif",
        "test: left out 1 images that lie in no class folder, such as test/stray.png",
        "left out beside train and test: docs, extra",
    )
    assert source.count("train") == 6


def test_a_class_of_other_endings_alone_says_which(tmp_path):
    root = image_folders(tmp_path)
    for path in list((root / "train" / "dog").iterdir()):
        path.rename(path.with_suffix(".heic"))
    assert "has no images (.bmp, " in (text := refusal(root))
    assert "but files that end in .heic (3)" in text


@pytest.mark.parametrize("name", ["../pets", "/pets", "x", "train/cat/.."])
def test_named_folders_lie_below_the_path(tmp_path, name):
    root = image_folders(tmp_path / "pets")
    text = refusal(root, options={"folders": {"train": "train", "test": name}})
    assert "options.folders names" in text


def test_a_folder_named_twice_is_refused(tmp_path):
    root = image_folders(tmp_path)
    folders = {"train": "train", "test": "train"}
    assert "for two splits" in refusal(root, options={"folders": folders})


# Accents


NAME = unicodedata.normalize("NFC", "Café")
APART = unicodedata.normalize("NFD", NAME)


def test_folders_meet_however_accents_are_composed(tmp_path):
    assert NAME != APART
    root = image_folders(tmp_path, ("train",), (NAME, "dog"))
    image_folders(tmp_path, ("test",), (APART, "dog"))
    source = open_source(spec("folder", root))
    assert source.classes == (NAME, "dog")
    assert [entry.label for entry in source.entries("test")] == [0] * 3 + [1] * 3
    (root / "names.json").write_text(f'\ufeff{{"{APART}": "a bar", "dog": "a hound"}}')
    assert open_source(spec("folder", root, classes="names.json")).classes == ("a bar", "a hound")


def test_one_name_written_in_two_ways_is_refused(tmp_path):
    root = image_folders(tmp_path, ("train",), (NAME, APART, "dog"))
    assert "two folders called 'Café'" in refusal(root)


def test_a_named_folder_is_found_however_it_is_composed(tmp_path):
    root = image_folders(tmp_path, (APART, "test"))
    task = spec("folder", root, options={"folders": {"train": NAME, "test": "test"}})
    assert open_source(task).count("train") == 6


# Links


def linked(tmp_path):
    big = image_folders(tmp_path / "big")
    root = tmp_path / "pets"
    root.mkdir()
    (root / "train").symlink_to(big / "train")
    (root / "test").mkdir()
    for name in ("cat", "dog"):
        (root / "test" / name).symlink_to(big / "test" / name)
    return big, root


def test_what_lies_behind_links_is_read_and_watched(tmp_path):
    big, root = linked(tmp_path)
    source = open_source(spec("folder", root))
    assert (source.count("train"), source.count("test")) == (6, 6)
    seen = {fingerprint(root)}
    (big / "train" / "cat" / "new.png").write_bytes(png(pixels(77)))
    seen.add(fingerprint(root))
    (big / "test" / "dog" / "0.png").write_bytes(png(pixels(78)))
    seen.add(fingerprint(root))
    assert len(seen) == 3
    # As if the files lay there themselves.
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    assert fingerprint(copy) == fingerprint(root)


def test_large_folders_behind_links_are_watched_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr("taskgrid.provenance.listing._HASHED_BYTES", 2)
    big, root = linked(tmp_path)
    before = fingerprint(root)
    (big / "train" / "cat" / "new.png").write_bytes(png(pixels(77)))
    assert fingerprint(root) != before


@pytest.mark.parametrize("place", ["val", "train/eel", "train/cat/9.png", "train/cat/deep"])
def test_a_link_to_nowhere_is_named(tmp_path, place):
    root = image_folders(tmp_path / "pets")
    before = fingerprint(root)
    (root / place).symlink_to(tmp_path / "gone")
    assert fingerprint(root) != before
    text = refusal(root)
    assert f"{root / place} is a link to {tmp_path / 'gone'}, where nothing is" in text


@pytest.mark.parametrize("place", [".", "..", "../..", "../../..", "/"])
def test_a_link_in_a_circle_is_refused_and_ends(tmp_path, place):
    root = image_folders(tmp_path / "pets")
    (root / "train" / "cat" / "all").symlink_to(place)
    assert fingerprint(root) == fingerprint(root)
    assert "is a link to a folder that holds it; remove it" in refusal(root)


def test_a_pipe_in_place_of_an_image_is_not_waited_for(tmp_path):
    root = image_folders(tmp_path / "pets")
    os.mkfifo(root / "train" / "cat" / "0.jpg")
    fingerprint(root)
    with pytest.raises(DataError, match=r"0\.jpg cannot be read \(no file\)"):
        list(open_source(spec("folder", root)).images("train"))


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    root = image_folders(tmp_path / "pets")

    def refused(place):
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DataError, match=r"pets cannot be listed \(Permission denied\)"):
        fingerprint(root)
    assert "pets cannot be listed (Permission denied)" in refusal(root)


def test_names_that_are_no_text_do_not_stop_the_fingerprint(tmp_path):
    root = image_folders(tmp_path / "pets")
    open(os.fsencode(root) + b"/train/cat/\xff.txt", "w").close()  # noqa: PTH123
    fingerprint(root)
    assert "such as train/cat/\\udcff.txt" in open_source(spec("folder", root)).notes[0]
