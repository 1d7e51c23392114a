"""From a description to files on this machine, and from those to a dataset."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import fields, replace

import pytest

from taskgrid.data.dataset import build_dataset
from taskgrid.data.download import obtain
from taskgrid.data.published.description import OriginalFile
from taskgrid.data.published.downloaded import Download
from taskgrid.data.published.reading import read_description
from taskgrid.data.sources.opening import open_source
from taskgrid.data.sources.seam import TaskData
from taskgrid.errors import ArtifactError, DataError, RemoteError
from tests.unit.example_images import REPOSITORY
from tests.unit.example_published import hub_files, hub_standin, original, published
from tests.unit.example_servers import Hub, serving, sha256

COUNTS = {"train": 26, "test": 10}


@pytest.fixture(autouse=True)
def _no_real_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "default-cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


class Said(list):
    def __call__(self, line):
        self.append(line)


# The hub


@pytest.fixture
def hub(monkeypatch):
    description = read_description("svhn")
    files, _ = hub_files("svhn", COUNTS)
    files |= {"extra/x.parquet": b"not wanted"}
    server = Hub(description.hub.repository, files, commit=description.hub.revision)
    with serving(server) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield server


def test_from_the_hub_to_a_dataset(hub, tmp_path, monkeypatch):
    description = read_description("svhn")
    said = Said()
    task = published("svhn", layout="hub", options={"counts": COUNTS})
    found = obtain(task, say=said)
    assert (found.repository, found.commit) == (description.hub.repository, hub.commit)
    assert {file.name: file.sha256 for file in found.files} == {
        name: sha256(content) for name, content in hub.files.items() if "extra" not in name
    }
    assert description.licence in said[0]
    assert description.terms in said[0]
    found.write(tmp_path / "download.json")
    # From here on without the hub.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert obtain(task, say=said) == found
    options = {"counts": COUNTS, "download": str(tmp_path / "download.json")}
    task = published("svhn", layout="hub", options=options)
    built = build_dataset(task, 16, "bicubic", tmp_path / "i.arrow", tmp_path / "d.json")
    assert built.counts == COUNTS
    assert str(tmp_path) not in (tmp_path / "download.json").read_text()


def test_what_came_from_the_hub_must_be_whole(hub):
    with pytest.raises(DataError, match="has 26 images, but the data set 'svhn' has 73257"):
        obtain(published("svhn", layout="hub"), say=Said())


def test_offline_without_a_cache(tmp_path):
    task = published("svhn", tmp_path, layout="hub")
    with pytest.raises(RemoteError, match=r"not all in .* \(offline\)"):
        obtain(task, offline=True, say=Said())


# The owners' files


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror that offers stand-ins of the original files, packed as the owners pack them."""
    folder = tmp_path / "mirror"

    def offer(dataset, **changes):
        description = read_description(dataset)
        original(folder / "loose", dataset)
        files = []
        for file in description.original.files:
            packed = folder / file.to
            packed.parent.mkdir(parents=True, exist_ok=True)
            if ".tar" in file.to:
                with tarfile.open(packed, "w:gz") as archive:
                    inside = (folder / "loose" / file.to).parent
                    for path in sorted(inside.rglob("*")):
                        if path.is_file():
                            archive.add(path, path.relative_to(inside).as_posix())
            else:
                loose = folder / "loose" / file.to.removesuffix(".gz")
                packed.write_bytes(gzip.compress(loose.read_bytes(), mtime=0))
            md5 = hashlib.md5(packed.read_bytes()).hexdigest()
            files.append(OriginalFile(url=packed.as_uri(), to=file.to, md5=md5, unpack=file.unpack))
        changed = replace(
            description, original=replace(description.original, files=tuple(files)), **changes
        )
        monkeypatch.setattr(
            "taskgrid.data.published.request.read_description", lambda _name: changed
        )
        return changed

    return offer


@pytest.mark.parametrize(
    ("dataset", "counts"),
    [("mnist", {"train": 30, "test": 12}), ("dtd", {"train": 94, "test": 47})],
)
def test_original_files_are_downloaded_and_unpacked(tmp_path, mirror, dataset, counts):
    description = mirror(dataset, counts=counts)
    said = Said()
    task = published(dataset, tmp_path / "data" / dataset)
    found = obtain(task, say=said)
    assert description.licence in said[0]
    assert description.original.files[0].url in said[1]
    assert [file.md5 for file in found.files] == [file.md5 for file in description.original.files]
    source = open_source(task)
    assert {split: source.count(split) for split in source.splits()} == counts
    # What is there is neither asked for nor needed again.
    for file in description.original.files:
        (tmp_path / "mirror" / file.to).unlink()
    said.clear()
    assert obtain(task, offline=True, say=said) == found
    assert len(said) == 1
    assert str(tmp_path / "data") not in json.dumps([file.name for file in found.files])


def test_an_interrupted_unpacking_goes_on(tmp_path, mirror):
    mirror("dtd", counts={"train": 94, "test": 47})
    task = published("dtd", tmp_path / "data")
    found = obtain(task, say=Said())
    for path in list((tmp_path / "data/dtd/dtd/images").rglob("*_9.jpg"))[:20]:
        path.unlink()
    with pytest.raises(DataError, match=r"is missing \(and 19 more\)"):
        open_source(task)
    assert obtain(task, say=Said()) == found


def test_another_file_than_the_described_one(tmp_path, mirror):
    description = mirror("mnist", counts={"train": 30, "test": 12})
    path = tmp_path / "mirror" / description.original.files[1].to
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ArtifactError, match=r"gave another file than train-labels.*, not [0-9a-f]"):
        obtain(published("mnist", tmp_path / "data"), say=Said())


def test_files_that_are_put_there_by_hand(tmp_path):
    said = Said()
    task = published("cars", tmp_path, options={"counts": {"train": 196, "test": 5}})
    with pytest.raises(DataError, match=r"cars_meta\.mat is missing; docs/datasets\.md says"):
        obtain(task, say=said)
    assert said[1].startswith(f"The files of Stanford Cars belong below {tmp_path}:\n")
    assert "stanford_cars/cars_train/00001.jpg" in said[1]
    original(tmp_path, "cars")
    found = obtain(task, say=said)
    assert found.layout == "original"
    assert set(found.placed) == set(read_description("cars").original.needs)
    # Whoever depends on it notices a change of what was put there.
    original(tmp_path, "cars", extra=1)
    assert obtain(task, say=said) != found


def test_what_is_there_must_be_whole(tmp_path):
    original(tmp_path, "cars")
    with pytest.raises(DataError, match="has 196 images, but the data set 'cars' has 8144"):
        obtain(published("cars", tmp_path), say=Said())


# The script


def run(settings, manifest, **environment):
    command = [sys.executable, "scripts/download.py", "--settings", json.dumps(settings)]
    return subprocess.run(
        [*command, "--manifest", str(manifest)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": "src"} | environment,
        capture_output=True,
        text=True,
    )


def test_the_script(tmp_path):
    hub_standin(tmp_path / "cache", "mnist", COUNTS)
    task = published("mnist", tmp_path / "cache", layout="hub", options={"counts": COUNTS})
    settings = {"task": task.model_dump(include={field.name for field in fields(TaskData)})}
    manifest = tmp_path / "out" / "mnist.json"
    done = run(settings, manifest, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert "MNIST. Licence: " in done.stdout
    assert "mnist: 4 files, ylecun/mnist at " in done.stdout
    assert len(Download.read(manifest).files) == 4
    settings["task"]["path"] = str(tmp_path / "nowhere")
    done = run(settings, tmp_path / "none.json", HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: mnist/train-*.parquet, mnist/test-*.parquet of ylecun/")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "none.json").exists()
