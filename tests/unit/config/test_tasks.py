"""The files that a task is made from."""

from taskgrid.config import TaskSpec
from taskgrid.config.tasks import files_of
from taskgrid.data.sources.opening import open_source
from tests.unit.example_images import archive, image_folders, spec


def test_class_names_that_lie_with_the_data_are_watched(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    root = image_folders(tmp_path / "pets")
    (root / "names.json").write_text('["a tabby", "a hound"]')
    task = spec("folder", "~/pets", classes="names.json")
    assert files_of(task) == ("~/pets", str(root / "names.json"))
    assert open_source(task).classes == ("a tabby", "a hound")
    path = archive(tmp_path / "x.npz")
    (tmp_path / "names.txt").write_text("a\nb")
    for classes, beside in ((None, ()), ("names.txt", (str(tmp_path / "names.txt"),))):
        usual = str(tmp_path / "classes.json")
        assert files_of(spec("npz", path, classes=classes)) == (str(path), *beside, usual)


def test_files_that_are_not_there_keep_the_name_that_was_given(tmp_path):
    task = spec("folder", tmp_path, classes="gone.json", templates="t.txt")
    assert files_of(task) == (str(tmp_path), "gone.json", "t.txt")
    assert files_of(TaskSpec(name="mnist", path="x")) == ()
