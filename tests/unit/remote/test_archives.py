import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest

from taskgrid.errors import ArtifactError
from taskgrid.remote.archives import unpack

CONTENT = np.random.default_rng(3).bytes(3_000_000)


FILES = {"set/a/1.bin": b"one", "set/b/2.bin": b"two" * 1000, "set/empty": b""}


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir("set")
        for name, content in files.items():
            archive.writestr(name, content)


def tarred(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("make", [zipped, tarred])
def test_archives_are_unpacked_and_continued(tmp_path, make):
    make(tmp_path / "set.xyz", FILES)
    out = tmp_path / "out"
    assert unpack(tmp_path / "set.xyz", out) == 3
    assert {n: (out / n).read_bytes() for n in FILES} == FILES
    # A file cut short is replaced, one that is whole is left alone.
    (out / "set/b/2.bin").write_bytes(b"two")
    before = (out / "set/a/1.bin").stat().st_ino
    unpack(tmp_path / "set.xyz", out)
    assert {n: (out / n).read_bytes() for n in FILES} == FILES
    assert (out / "set/a/1.bin").stat().st_ino == before


def test_a_single_compressed_file(tmp_path):
    (tmp_path / "train.idx.gz").write_bytes(gzip.compress(CONTENT))
    assert unpack(tmp_path / "train.idx.gz", tmp_path) == 1
    assert (tmp_path / "train.idx").read_bytes() == CONTENT


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", ["../evil", "/tmp/taskgrid-evil", "a/../../evil"])
def test_nothing_is_put_outside(tmp_path, make, name):
    make(tmp_path / "bad.xyz", {name: b"x"})
    with pytest.raises(ArtifactError, match="outside of its folder"):
        unpack(tmp_path / "bad.xyz", tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def test_links_are_refused(tmp_path):
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        info = tarfile.TarInfo("x")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(ArtifactError, match="neither a file nor a folder"):
        unpack(tmp_path / "bad.tar", tmp_path / "out")


@pytest.mark.parametrize(("make", "suffix"), [(zipped, "zip"), (tarred, "tgz"), (tarred, "gz")])
def test_damaged_archives_never_pass(tmp_path, make, suffix):
    path = tmp_path / f"set.{suffix}"
    make(path, FILES | {"big": CONTENT[:20_000]})
    data = path.read_bytes()
    for end in range(0, len(data) - 600, 1999):
        path.write_bytes(data[:end])
        with pytest.raises(ArtifactError, match=f"set.{suffix} is damaged or no archive"):
            unpack(path, tmp_path / "out")


def test_something_else_is_no_archive(tmp_path):
    (tmp_path / "x.rar").write_bytes(CONTENT[:999])
    with pytest.raises(ArtifactError, match=r"x\.rar is .* no .zip, .tar or .gz file.* by hand"):
        unpack(tmp_path / "x.rar", tmp_path)
