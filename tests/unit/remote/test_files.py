import hashlib
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from taskgrid.errors import ArtifactError, RemoteError
from taskgrid.remote import files
from taskgrid.remote.files import Patience, download
from tests.unit.example_servers import OneFile, answer, serving

CONTENT = np.random.default_rng(3).bytes(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(attempts=3, wait_seconds=0.001)


class Shown:
    """What a progress bar would show in the end."""

    def __init__(self):
        self.total, self.done = None, 0

    @contextmanager
    def __call__(self, total):
        assert self.total is None
        self.total = total
        yield self

    def advance(self, count=1):
        self.done += count
        assert 0 <= self.done <= max(self.total, self.done if not self.total else 0)


def get(server, folder, name="set.bin", **options):
    shown = Shown()
    with serving(server) as address:
        path = download(
            f"{address}/{name}", folder / name, progress=shown, patience=QUICK, **options
        )
    assert path.read_bytes() == server.content
    assert sorted(child.name for child in folder.iterdir()) == [name]
    assert shown.done == len(server.content)
    return server.asked


def refusal(server, folder, kind, name="set.bin", **options):
    with serving(server) as address, pytest.raises(kind) as caught:
        download(f"{address}/{name}", folder / name, patience=QUICK, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert not (folder / name).exists()
    return text


@pytest.mark.parametrize("digests", [{}, {"md5": MD5}, {"sha256": SHA256.upper()}])
def test_a_file_arrives(tmp_path, digests):
    assert get(OneFile(CONTENT), tmp_path, **digests) == [None]


def test_a_file_that_is_there_is_not_asked_for(tmp_path):
    path = tmp_path / "set.bin"
    path.write_bytes(CONTENT)
    download("http://127.0.0.1:9/nobody", path, md5=MD5)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ArtifactError, match=f"its md5 is .*, not {MD5}; delete it and run again"):
        download("http://127.0.0.1:9/nobody", path, md5=MD5)


@pytest.mark.parametrize("tag", ['"one"', None, 'W/"weak"'])
def test_a_line_that_breaks_midway_is_continued(tmp_path, tag):
    asked = get(OneFile(CONTENT, cuts=(1_500_000, 700_001), tag=tag), tmp_path, sha256=SHA256)
    assert asked == [None, "bytes=1500000-", "bytes=2200001-"]


def test_breaking_often_is_not_being_stuck(tmp_path):
    server = OneFile(CONTENT, cuts=(400_000,) * 7)
    assert len(get(server, tmp_path)) == 8 > QUICK.attempts


def test_a_server_that_knows_no_parts_begins_anew(tmp_path):
    asked = get(OneFile(CONTENT, cuts=(1_500_000,), ranges=False), tmp_path, md5=MD5)
    assert asked == [None, "bytes=1500000-"]


def test_without_a_version_or_a_digest_nothing_is_continued(tmp_path):
    assert get(OneFile(CONTENT, cuts=(1_500_000,), tag=None), tmp_path) == [None, None]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(tmp_path, status):
    assert len(get(OneFile(CONTENT, statuses=(status, status)), tmp_path)) == 3


def test_a_killed_download_goes_on(tmp_path):
    server = OneFile(CONTENT, cuts=(1_000_000, 0, 0, 0))
    text = refusal(server, tmp_path, RemoteError)
    assert "it ended after 1000000 of 3000000 bytes (3 attempts in a row)" in text
    assert "1000000 bytes of it are kept" in text
    server = OneFile(CONTENT)
    assert get(server, tmp_path) == ["bytes=1000000-"]


def test_a_file_that_changed_meanwhile_is_not_mixed(tmp_path):
    refusal(OneFile(CONTENT, cuts=(1_000_000, 0, 0, 0)), tmp_path, RemoteError)
    other = OneFile(CONTENT[::-1], tag='"two"')
    assert get(other, tmp_path) == ["bytes=1000000-"]


def test_a_part_that_is_already_whole(tmp_path):
    (tmp_path / "set.bin.part").write_bytes(CONTENT)
    with serving(OneFile(CONTENT)) as address:
        path = download(f"{address}/x", tmp_path / "set.bin", md5=MD5)
    assert path.read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_thrown_away(tmp_path):
    (tmp_path / "set.bin.part").write_bytes(CONTENT + b"more")
    assert get(OneFile(CONTENT), tmp_path, md5=MD5) == ["bytes=3000004-", None]


@pytest.mark.parametrize(("name", "right"), [("md5", MD5), ("sha256", SHA256)])
def test_another_file_is_refused(tmp_path, name, right):
    other = CONTENT[:-1] + b"x"
    text = refusal(OneFile(other), tmp_path, ArtifactError, **{name: right})
    assert right in text
    assert hashlib.new(name, other).hexdigest() in text
    # What was wrong is not continued for ever.
    assert get(OneFile(CONTENT), tmp_path, **{name: right}) == [None]


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (OneFile(b"", statuses=(404,)), "does not exist any more (404); download it by hand"),
        (OneFile(b"", statuses=(403,)), "refuses"),
        (OneFile(b"", statuses=(418,)), "the server answers 418"),
        (OneFile(b"", statuses=(500,) * 3), "the server answers 500 (3 attempts in a row)"),
        (OneFile(b"<html>", kind="text/html; charset=utf-8"), "gives a web page and not set.bin"),
    ],
)
def test_servers_that_do_not_give_it(tmp_path, server, words):
    text = refusal(server, tmp_path, RemoteError)
    assert words in text
    assert "set.bin" in text


def test_nobody_answers(tmp_path):
    with serving(OneFile(b"")) as address:
        pass
    with pytest.raises(RemoteError, match=r"refused.* attempts in a row"):
        download(f"{address}/set.bin", tmp_path / "set.bin", patience=QUICK)


def test_a_broken_head_is_tried_again(tmp_path):
    calls = []

    def respond(handler):
        calls.append(1)
        if len(calls) == 1:
            handler.close_connection = True
            return
        answer(handler, 200, CONTENT)

    with serving(respond) as address:
        path = download(f"{address}/x", tmp_path / "x.bin", md5=MD5, patience=QUICK)
    assert path.read_bytes() == CONTENT


def test_a_mirror_in_a_folder(tmp_path):
    source = tmp_path / "mirror" / "set.bin"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    target = tmp_path / "here" / "set.bin"
    assert download(source.as_uri(), target, sha256=SHA256).read_bytes() == CONTENT
    with pytest.raises(RemoteError, match=r"gone\.bin cannot be read: No such file"):
        download((source.parent / "gone.bin").as_uri(), tmp_path / "x", patience=QUICK)


def test_a_full_disk(tmp_path, monkeypatch):
    def full(_part):
        # The device of this name is a disk that is always full.
        return Path("/dev/full").open("ab", buffering=0)

    monkeypatch.setattr(files._Part, "end", full)
    text = refusal(OneFile(CONTENT), tmp_path, ArtifactError)
    assert f"cannot write {tmp_path / 'set.bin'}: the disk is full: free some space" in text


def test_two_processes_that_want_the_same_file(tmp_path):
    with serving(OneFile(CONTENT)) as address:
        wanted = [
            threading.Thread(target=download, args=(f"{address}/x", tmp_path / "x.bin"))
            for _ in range(4)
        ]
        for thread in wanted:
            thread.start()
        for thread in wanted:
            thread.join()
    assert (tmp_path / "x.bin").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]
