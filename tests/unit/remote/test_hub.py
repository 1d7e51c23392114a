import errno
import os
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest

from taskgrid.errors import ArtifactError, RemoteError
from taskgrid.remote.cache import CachedRepository, default_cache
from taskgrid.remote.hub import fetch
from tests.unit.example_published import hub_cache
from tests.unit.example_servers import Hub, etag, serving, sha256

RANDOM = np.random.default_rng(5)
FILES = {
    "README.md": b"# pets\n",
    "data/train-00000-of-00002.parquet": RANDOM.bytes(300_000),
    "data/train-00001-of-00002.parquet": RANDOM.bytes(200_000),
    "data/test-00000-of-00001.parquet": RANDOM.bytes(100_000),
    "data/contrast-00000-of-00001.parquet": RANDOM.bytes(50_000),
}
PATTERNS = ("README.md", "data/train-*.parquet", "data/test-*.parquet")
WANTED = [name for name in sorted(FILES) if "contrast" not in name]
COMMIT = "a" * 40
NAME = "someone/pets"


@pytest.fixture(autouse=True)
def _no_real_hub(monkeypatch, tmp_path):
    """Nothing here may ask the real hub, or find a real cache."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "default-cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.fixture
def hub(monkeypatch):
    server = Hub(NAME, dict(FILES))
    with serving(server) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield server


class Shown:
    def __init__(self):
        self.total, self.done = None, 0

    @contextmanager
    def __call__(self, total):
        assert self.total is None
        self.total = total
        yield self

    def advance(self, count=1):
        self.done += count


def refusal(kind, **options):
    with pytest.raises(kind) as caught:
        fetch(options.pop("name", NAME), **{"patterns": PATTERNS, **options})
    text = str(caught.value)
    assert "\n" not in text
    return text


def check(found, files=FILES):
    assert [file.name for file in found.files] == WANTED
    for file in found.files:
        assert file.path.read_bytes() == files[file.name]
        assert (file.bytes, file.sha256) == (len(files[file.name]), sha256(files[file.name]))


# Over the network


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_files_are_downloaded_and_then_need_no_network(hub, tmp_path, monkeypatch, revision):
    shown = Shown()
    found = fetch(NAME, revision=revision, patterns=PATTERNS, cache=tmp_path / "c", progress=shown)
    check(found)
    assert (found.repository, found.revision, found.commit) == (NAME, revision or "main", COMMIT)
    assert shown.total == shown.done == sum(len(FILES[name]) for name in WANTED)
    assert not [path for _, path in hub.asked if "contrast" in path]
    hub.asked.clear()
    again = fetch(NAME, revision=revision, patterns=PATTERNS, cache=tmp_path / "c")
    assert again == found
    # The newest commit is another one by now: what was recorded holds.
    hub.commit = "b" * 40
    assert fetch(NAME, revision=revision, patterns=PATTERNS, cache=tmp_path / "c") == found
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch(NAME, revision=revision, patterns=PATTERNS, cache=tmp_path / "c") == found
    assert hub.asked == []


def test_the_hubs_own_client_finds_the_files_too(hub, tmp_path):
    found = fetch(NAME, patterns=PATTERNS, cache=tmp_path)
    for file in found.files:
        path = huggingface_hub.hf_hub_download(
            NAME, file.name, repo_type="dataset", cache_dir=tmp_path, local_files_only=True
        )
        assert Path(path) == file.path


def test_a_download_of_the_hubs_own_client_is_found(hub, tmp_path, monkeypatch):
    huggingface_hub.snapshot_download(
        NAME, repo_type="dataset", cache_dir=tmp_path, endpoint=os.environ["HF_ENDPOINT"]
    )
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    check(fetch(NAME, patterns=PATTERNS, cache=tmp_path))


def test_models(monkeypatch, tmp_path):
    server = Hub(NAME, {"model.safetensors": FILES[WANTED[1]]}, kind="model")
    with serving(server) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        found = fetch(NAME, kind="model", patterns=["model.safetensors"])
    assert found.files[0].path.is_relative_to(tmp_path / "default-cache" / "models--someone--pets")


def test_what_is_missing_is_downloaded(hub, tmp_path):
    found = fetch(NAME, patterns=PATTERNS, cache=tmp_path)
    lost = found.files[2].path
    lost.resolve().unlink()
    hub.asked.clear()
    check(fetch(NAME, patterns=PATTERNS, cache=tmp_path))
    got = [path for command, path in hub.asked if command == "GET" and "/resolve/" in path]
    assert [path.rsplit("/", 1)[1] for path in got] == [lost.name]


def test_a_line_that_breaks_midway_is_continued(hub, tmp_path):
    hub.cuts = [1000]
    check(fetch(NAME, patterns=PATTERNS, cache=tmp_path))


def test_a_file_that_is_not_what_was_promised(hub, tmp_path):
    hub.damage = True
    text = refusal(ArtifactError, cache=tmp_path)
    assert "is damaged or truncated: its digest is" in text
    assert "delete it and run again" in text


@pytest.mark.parametrize(
    ("refused", "options", "words"),
    [
        (None, {"revision": "v9"}, f"{NAME} has no revision 'v9'; correct `revision`"),
        (None, {"revision": "d" * 40}, f"{NAME} has no revision '{'d' * 40}'"),
        (
            None,
            {"name": "someone/cats"},
            "someone/cats at main does not exist on the hub, or is pri",
        ),
        (
            None,
            {"patterns": ["x/*.bin"]},
            "no file that matches 'x/*.bin'; it has README.md, data/",
        ),
        ((403, "GatedRepo"), {}, f"{NAME} at main is gated: accept its terms"),
        ((401, None), {}, "log in with `hf auth login`"),
        ((403, None), {}, "the hub refuses someone/pets at main (403): accept its terms"),
        ((404, "RepoNotFound"), {}, "does not exist on the hub"),
        ((418, None), {}, "does not give someone/pets at main (418)"),
        (None, {"name": "a/b/c"}, "a/b/c at main cannot be downloaded: "),
    ],
)
def test_what_the_hub_does_not_give(hub, tmp_path, refused, options, words):
    hub.refusal = refused
    assert words in refusal(RemoteError, cache=tmp_path, **options)


def test_no_network(tmp_path):
    text = refusal(RemoteError, cache=tmp_path)
    assert f"{NAME} at main is not in {tmp_path}, and the hub cannot be reached (" in text
    assert "HF_ENDPOINT" in text


def test_a_full_disk(hub, tmp_path, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    # The lowest place where the client writes what it received.
    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    text = refusal(ArtifactError, cache=tmp_path)
    assert text == (
        f"cannot write {tmp_path}: the disk is full: free some space and run the same command again"
    )


# From the cache alone


@pytest.fixture
def cache(tmp_path):
    return hub_cache(tmp_path / "hub", NAME, FILES, COMMIT)


def offline(cache, **options):
    return fetch(NAME, cache=cache, offline=True, **{"patterns": PATTERNS, **options})


@pytest.mark.parametrize("revision", [None, COMMIT])
def test_a_cache_made_elsewhere(cache, tmp_path, revision):
    check(offline(cache, revision=revision))
    moved = cache.rename(tmp_path / "elsewhere")
    check(offline(moved, revision=revision))


def test_a_cache_without_links(tmp_path):
    cache = hub_cache(tmp_path / "hub", NAME, FILES, COMMIT, links=False)
    check(offline(cache))


@pytest.mark.parametrize("size", [0, 5, -1])
@pytest.mark.parametrize("name", ["README.md", "data/test-00000-of-00001.parquet"])
def test_truncated_files_are_named(cache, name, size):
    blob = cache / "datasets--someone--pets" / "blobs" / etag(name, FILES[name])
    blob.write_bytes(FILES[name][:size] + (b"" if size >= 0 else b"?"))
    text = refusal(ArtifactError, cache=cache, offline=True)
    assert f"{blob} ({name}) is damaged or truncated" in text
    assert f"the hub's is {etag(name, FILES[name])}; delete it and run again" in text


def test_a_missing_shard_is_noticed(cache):
    commit = cache / "datasets--someone--pets" / "snapshots" / COMMIT
    (commit / "data" / "train-00001-of-00002.parquet").unlink()
    text = refusal(RemoteError, cache=cache, offline=True)
    assert f"are not all in {cache}, and the hub is not asked (offline)" in text


@pytest.mark.parametrize("revision", ["../../../x", "/x", "a/../../x"])
def test_a_revision_is_no_way_out_of_the_cache(tmp_path, revision):
    place = CachedRepository(NAME, "model", tmp_path / "cache")
    for ask in (lambda: place.commit(revision), lambda: place.remember(revision, COMMIT)):
        with pytest.raises(RemoteError, match=f"is no revision of {NAME}; give a commit"):
            ask()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("first", [0, 1])
def test_shards_are_numbered_from_0_or_from_1(tmp_path, first):
    files = {f"model-{first + n:05d}-of-00003.safetensors": bytes([n]) * 9 for n in range(3)}
    cache = hub_cache(tmp_path, NAME, files, kind="model")
    place = CachedRepository(NAME, "model", cache)
    assert len(place.snapshot("main", ["*.safetensors"]).files) == 3
    (place.folder / "snapshots" / COMMIT / f"model-{first + 1:05d}-of-00003.safetensors").unlink()
    assert place.snapshot("main", ["*.safetensors"]) is None


def test_a_part_of_what_matches_is_not_taken_for_all(monkeypatch, tmp_path):
    server = Hub(NAME, {"data/a.parquet": b"a" * 99, "data/b.parquet": b"b" * 99})
    with serving(server) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        huggingface_hub.snapshot_download(
            NAME,
            repo_type="dataset",
            cache_dir=tmp_path,
            endpoint=address,
            allow_patterns="data/a.*",
        )
        place = CachedRepository(NAME, "dataset", tmp_path)
        assert place.snapshot("main", ["data/a.parquet"]) is not None
        assert place.snapshot("main", ["data/*.parquet"]) is None
        found = fetch(NAME, patterns=["data/*.parquet"], cache=tmp_path)
    assert [file.bytes for file in found.files] == [99, 99]


@pytest.mark.parametrize("revision", ["v2", "c" * 40])
def test_another_revision_is_not_taken(cache, monkeypatch, revision):
    monkeypatch.setenv("HF_HUB_OFFLINE", "yes")
    text = refusal(RemoteError, cache=cache, revision=revision)
    assert f"of {NAME} at {revision}" in text
    assert "offline" in text


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HF_HUB_CACHE": "/a"}, "/a"),
        ({"HF_HUB_CACHE": "$HOME/a"}, "/home/x/a"),
        ({"HF_HOME": "~/b"}, "/home/x/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({}, "/home/x/.cache/huggingface/hub"),
    ],
)
def test_the_default_cache(monkeypatch, variables, folder):
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "/home/x"} | variables).items():
        monkeypatch.setenv(name, value)
    assert default_cache() == Path(folder)
    assert CachedRepository("a/b", "model").folder == Path(folder) / "models--a--b"


def test_the_default_cache_is_the_clients():
    # Read in a process of its own: the client reads its variables when it is imported.
    import subprocess
    import sys

    code = "import huggingface_hub.constants as c, taskgrid.remote.cache as t;" + (
        "print(c.HF_HUB_CACHE == str(t.default_cache()))"
    )
    for variables in ({}, {"HF_HOME": "/somewhere"}, {"HF_HUB_CACHE": "/x/y"}):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        done = subprocess.run(
            [sys.executable, "-c", code], env=clean | variables, capture_output=True, text=True
        )
        assert done.stdout.strip() == "True", done.stderr
