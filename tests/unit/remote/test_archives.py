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


def gzipped(path, files):
    path.write_bytes(gzip.compress(b"".join(files.values())))


BOMB = {"zeros": bytes(80 << 20)}


def deflated(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def squeezed(path, files):
    with tarfile.open(path, "w:bz2") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def sparse(path, _files):
    """A tar file with a hole of 4 TB."""
    info = tarfile.TarInfo("hole")
    info.pax_headers = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0",
        "GNU.sparse.name": "hole", "GNU.sparse.realsize": str(1 << 42),
    }  # fmt: skip
    content = b"1\n0\n0\n".ljust(512, b"\0")
    info.size = len(content)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (deflated, "x.zip"),
        (tarred, "x.tgz"),
        (squeezed, "x.tbz"),
        (gzipped, "x.gz"),
        (sparse, "x.tar"),
    ],
)
def test_bombs_are_refused_before_they_fill_the_disk(tmp_path, make, name):
    make(tmp_path / name, BOMB)
    assert (tmp_path / name).stat().st_size < 1 << 20
    with pytest.raises(
        ArtifactError, match=rf"{name} unpacks to more than 100 times its size \(at "
    ):
        unpack(tmp_path / name, tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_what_packs_well_is_unpacked(tmp_path):
    files = {"mask.bin": bytes(20 << 20)}
    deflated(tmp_path / "x.zip", files)
    assert unpack(tmp_path / "x.zip", tmp_path / "out") == 1
    assert (tmp_path / "out" / "mask.bin").stat().st_size == 20 << 20


def test_endless_names_are_refused_unread(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    with gzip.open(tmp_path / "x.tgz", "wb") as stream:
        stream.write(info.tobuf(tarfile.GNU_FORMAT))
        stream.write(bytes(4096))
    with pytest.raises(ArtifactError, match="a name in it has 8589934592 bytes"):
        unpack(tmp_path / "x.tgz", tmp_path / "out")


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("link", ["set", "set/a", "set/a/1.bin"])
def test_links_that_lie_there_are_not_followed(tmp_path, make, link):
    make(tmp_path / "set.xyz", FILES)
    out, other = tmp_path / "out", tmp_path / "other"
    (out / link).parent.mkdir(parents=True)
    other.mkdir()
    (other / "1.bin").write_bytes(b"two")
    (out / link).symlink_to(other / "1.bin" if link.endswith(".bin") else other)
    with pytest.raises(ArtifactError, match="is a link; remove the link, or unpack"):
        unpack(tmp_path / "set.xyz", out)
    assert [(path.name, path.read_bytes()) for path in other.iterdir()] == [("1.bin", b"two")]


def test_the_folder_itself_may_be_a_link(tmp_path):
    zipped(tmp_path / "set.zip", FILES)
    (tmp_path / "big").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "big")
    assert unpack(tmp_path / "set.zip", tmp_path / "out") == 3


def test_a_locked_archive_and_a_damaged_one_of_bz2(tmp_path):
    deflated(tmp_path / "x.zip", FILES)
    data = bytearray((tmp_path / "x.zip").read_bytes())
    for sign, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := data.find(sign, start + 1)) >= 0:
            data[start + place] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(ArtifactError, match="password required"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
    squeezed(tmp_path / "x.tbz", {"big": CONTENT})
    data = bytearray((tmp_path / "x.tbz").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "x.tbz").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"x\.tbz is damaged or no archive"):
        unpack(tmp_path / "x.tbz", tmp_path / "out")


def test_compressed_zeros_are_a_file(tmp_path):
    (tmp_path / "labels.gz").write_bytes(gzip.compress(bytes(4096)))
    assert unpack(tmp_path / "labels.gz", tmp_path / "out") == 1
    assert (tmp_path / "out" / "labels").read_bytes() == bytes(4096)
