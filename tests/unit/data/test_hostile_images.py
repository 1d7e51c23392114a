"""Hostile images: nothing runs, nothing is decoded that the memory of a job could not hold."""

import io
import math
import random
import struct
import subprocess
import sys
import textwrap
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from taskgrid.data.dataset import build_dataset
from taskgrid.data.decode import FORMATS, MOST_PIXELS, decode_image
from taskgrid.data.sources.opening import open_source
from taskgrid.errors import DataError
from tests.unit.example_images import archive, image_folders, pixels, png, spec, table
from tests.unit.example_published import original, published

POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 10 10
%%EndComments
(ran.txt) (w) file dup (x) writestring closefile
0 setgray 0 0 10 10 rectfill showpage
%%EOF
"""
OTHERS = {
    "postscript": POSTSCRIPT,
    "dos postscript": struct.pack("<4sIIIIII", b"\xc5\xd0\xd3\xc6", 32, 200, 0, 0, 0, 0)
    + POSTSCRIPT,
    "pdf": b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\n%%EOF",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "wmf": b"\xd7\xcd\xc6\x9a" + bytes(60),
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
}


def refusal(task):
    with pytest.raises(DataError) as caught:
        source = open_source(task)
        for split in source.splits():
            list(source.images(split))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(autouse=True)
def no_other_program(monkeypatch, tmp_path):
    """Any start of a program, by Pillow or by what it calls, fails the test."""

    def refused(*args, **_kwargs):
        raise AssertionError(f"started {args}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess.Popen, "__init__", refused)


def in_folder(root, data):
    (image_folders(root) / "train" / "cat" / "1.png").write_bytes(data)
    return spec("folder", root)


def in_bytes(root, data):
    root.mkdir()
    pq.write_table(table([png(pixels(1)), data], [0, 1]), root / "train.parquet")
    return spec("parquet", root)


def beside_table(root, data):
    root.mkdir()
    (root / "1.jpg").write_bytes(data)
    made = table([png(pixels(1)), None], [0, 1])
    cells = [{"bytes": png(pixels(1)), "path": None}, {"bytes": None, "path": "1.jpg"}]
    made = made.set_column(0, "image", pa.array(cells, made.schema.field("image").type))
    pq.write_table(made, root / "train.parquet")
    return spec("parquet", root)


def in_eurosat(root, data):
    original(root, "eurosat")
    next(iter(sorted(root.rglob("*.jpg")))).write_bytes(data)
    return published("eurosat", root, options={"counts": False})


def in_gtsrb(root, data):
    original(root, "gtsrb")
    next(iter(sorted(root.rglob("*.ppm")))).write_bytes(data)
    return published("gtsrb", root, options={"counts": False})


@pytest.mark.parametrize("make", [in_folder, in_bytes, beside_table, in_eurosat, in_gtsrb])
@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_raster_image_is_given_to_nobody(tmp_path, make, kind):
    text = refusal(make(tmp_path / "set", OTHERS[kind]))
    assert "cannot be read (not an image)" in text
    assert ", ".join(FORMATS) in text
    assert not list(tmp_path.rglob("ran.txt"))


def test_pointers_of_git_lfs_are_named(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    for make in (in_folder, in_bytes):
        assert "a pointer of Git LFS" in refusal(make(tmp_path / make.__name__, pointer))


@pytest.mark.parametrize("kind", FORMATS)
def test_the_formats_that_people_use_are_read(kind):
    buffer = io.BytesIO()
    Image.fromarray(pixels(3, 16, 20)).save(buffer, kind)
    assert decode_image(buffer.getvalue(), "x").shape == (16, 20, 3)


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_images_are_refused_or_read(kind):
    buffer = io.BytesIO()
    Image.fromarray(pixels(1, 24, 20)).save(buffer, kind)
    rng = random.Random(7)
    for _ in range(150):
        data = bytearray(buffer.getvalue())
        data[rng.randrange(min(len(data), rng.choice((60, 10**6))))] = rng.randrange(256)
        try:
            assert decode_image(bytes(data), "x").ndim == 3
        except DataError as error:
            assert "image x" in str(error)
            assert "\n" not in str(error)


# Too large


def png_of(width, height):
    """A PNG of one colour, of a few hundred kilobytes at most."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + math.ceil(width / 8))) for _ in range(height))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
        + chunk(b"IDAT", rows + packer.flush())
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(13_000, 13_000), (7072, 7072), (100_000, 100_000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_pixels_are_refused_before_they_are_decoded(size, monkeypatch):
    data = png_of(size[0], 1)
    data = data.replace(struct.pack(">II", size[0], 1), struct.pack(">II", *size))
    crc = struct.pack(">I", zlib.crc32(data[12:29]))
    data = data[:29] + crc + data[33:]
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(
        DataError, match=r"image x (has|is too large).*; make it smaller or take it"
    ):
        decode_image(data, "x")


def test_a_cameras_image_is_decoded():
    assert MOST_PIXELS > 8064 * 6048
    assert decode_image(png_of(3000, 2000), "x").shape == (2000, 3000, 3)


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1)])
def test_strips_that_resizing_would_blow_up_are_refused(tmp_path, shape):
    root = image_folders(tmp_path / "pets")
    (root / "train" / "cat" / "1.png").write_bytes(png(pixels(1, *shape)))
    with pytest.raises(DataError, match=r"1\.png' has \d+ x \d+ pixels, too narrow to be resized"):
        build_dataset(
            spec("folder", root), 224, "bicubic", tmp_path / "i.arrow", tmp_path / "d.json"
        )


# Archives of NumPy


def npy(shape, kind="|u1", data=b"", order="False"):
    text = f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data


def npz(path, compression=zipfile.ZIP_DEFLATED, **members):
    archive(path)
    with zipfile.ZipFile(path, "w", compression) as out:
        for name, data in members.items():
            out.writestr(f"{name}.npy", data)
    return spec("npz", path)


HUGE = 2**50
HEADERS = {
    "images": {"train_images": npy(f"({HUGE}, 8, 8)"), "train_labels": npy("(2,)")},
    "one image": {"train_images": npy(f"(2, {HUGE}, 8)"), "train_labels": npy("(2,)")},
    "labels": {"train_images": npy("(2, 1, 1)", data=b"ab"),
               "train_labels": npy(f"({HUGE},)", "<i8")},
    "overflow": {"train_images": npy(f"({2**33}, {2**33}, 8)"), "train_labels": npy("(2,)")},
    "negative": {"train_images": npy("(-1, 8, 8)"), "train_labels": npy("(-1,)", "<i8")},
    "fractions": {"train_images": npy("(2.5, 8, 8)"), "train_labels": npy("(2,)", "<i8")},
    "no shape": {"train_images": npy("8"), "train_labels": npy("(2,)", "<i8")},
    "nested": {"train_images": npy("(" * 60 + ")" * 60), "train_labels": npy("(2,)", "<i8")},
    "no type": {"train_images": npy("(2, 8, 8)", "?!"), "train_labels": npy("(2,)", "<i8")},
    "bomb": {"train_images": npy("(200000000, 1, 1)", data=bytes(2000)),
             "train_labels": npy("(200000000,)", data=bytes(2000))},
    "many": {"train_images": npy("(9000000, 1, 1)", data=bytes(9_000_000)),
             "train_labels": npy("(9000000,)", data=bytes(9_000_000))},
}  # fmt: skip


@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_ask_for_more_than_there_is(tmp_path, case):
    text = refusal(npz(tmp_path / "x.npz", **HEADERS[case]))
    assert "x.npz" in text


def test_an_archive_with_a_password_or_two_arrays_of_a_name(tmp_path):
    path = archive(tmp_path / "x.npz")
    with zipfile.ZipFile(path, "a") as out, pytest.warns(UserWarning, match="Duplicate"):
        out.writestr("train_images.npy", npy("(2, 1, 1)", data=b"ab"))
    assert "a name stands twice in it" in refusal(spec("npz", path))
    data = bytearray(archive(path).read_bytes())
    for sign, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := data.find(sign, start + 1)) >= 0:
            data[start + place] |= 1
    path.write_bytes(data)
    assert "password" in refusal(spec("npz", path))


@pytest.mark.parametrize("name", ["validation_images", "Test_images", "eval_images", "dev_images"])
def test_splits_by_another_name_are_not_left_out(tmp_path, name):
    path = archive(tmp_path / "x.npz", {"train": 20}, **{name: np.zeros((2, 8, 8), np.uint8)})
    assert f"holds {name!r}, which is no array of train, val or test" in refusal(spec("npz", path))


def test_a_name_for_all_splits_is_refused(tmp_path):
    path = archive(tmp_path / "x.npz")
    text = refusal(spec("npz", path, options={"images": "train_images"}))
    assert "options.images is 'train_images', but needs {split}" in text


# All at once, in little memory


SCRIPT = """
    import resource, sys
    from pathlib import Path
    from PIL import Image
    from taskgrid.data.sources.opening import open_source
    from taskgrid.data.sources.seam import TaskData
    from taskgrid.errors import TaskgridError

    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    for path in sys.argv[1:]:
        source = "npz" if path.endswith(".npz") else "parquet"
        try:
            opened = open_source(TaskData("x", source, path))
            for split in opened.splits():
                for image in opened.images(split):
                    pass
        except TaskgridError as error:
            print(path, "refused:", error)
"""


def test_bombs_stay_under_a_gigabyte(tmp_path, monkeypatch):
    monkeypatch.undo()
    paths = []
    for case, members in HEADERS.items():
        paths.append(tmp_path / f"{case.replace(' ', '-')}.npz")
        npz(paths[-1], **members)
    for side in (9_000, 13_000, 13_300):
        paths.append(tmp_path / f"{side}.parquet")
        pq.write_table(table([png_of(side, side), png(pixels(1))], [0, 1]), paths[-1])
    paths.append(tmp_path / "rows.parquet")
    rows = pa.table({"image": pa.array([b""] * 500_000), "label": pa.array([0] * 500_000)})
    pq.write_table(rows, paths[-1])
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(SCRIPT), *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert [f"{path} refused:" in found.stdout for path in paths] == [True] * len(paths)
