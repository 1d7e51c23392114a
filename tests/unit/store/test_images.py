import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskgrid.errors import ArtifactError, DataError
from taskgrid.store.images import (
    ImageIndex,
    ImageStore,
    PreparedImage,
    pixel_digest,
    write_images,
)


def images(count, size=4, seed=0):
    rng = np.random.default_rng(seed)
    for row in range(count):
        yield PreparedImage(
            id=f"train/{row}.png",
            label=int(rng.integers(10)),
            origin="train" if row % 3 else "test",
            digest=f"{row:032x}",
            pixels=rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
        )


@pytest.fixture
def store_file(tmp_path):
    path = tmp_path / "images.arrow"
    write_images(path, images(20), 4)
    return path


@settings(max_examples=25)
@given(count=st.integers(1, 40), size=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_what_is_written_is_read(tmp_path_factory, count, size, seed):
    path = tmp_path_factory.mktemp("store") / "images.arrow"
    written = list(images(count, size, seed))
    index = write_images(path, iter(written), size, "bilinear")
    store = ImageStore.open(path)
    assert np.array_equal(store.pixels, np.stack([image.pixels for image in written]))
    assert store.pixels.dtype == np.uint8
    assert store.labels.dtype == np.int64
    assert store.labels.tolist() == [image.label for image in written]
    assert store.ids == [image.id for image in written]
    assert store.origin == [image.origin for image in written]
    assert store.pixel_digests == [image.digest for image in written]
    assert (store.image_size, store.interpolation, len(store)) == (size, "bilinear", count)
    assert store.index == index


def test_equal_images_give_equal_bytes(tmp_path):
    write_images(tmp_path / "a", images(30), 4)
    write_images(tmp_path / "b", images(30), 4)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_pixels_are_read_in_place(store_file):
    store = ImageStore.open(store_file)
    before = pa.total_allocated_bytes()
    view = store.pixels
    assert not view.flags.writeable
    assert not view.flags.owndata
    assert view.flags.c_contiguous
    assert pa.total_allocated_bytes() == before
    # The same bytes, at the place in the file where the view looks.
    data = store_file.read_bytes()
    assert data.count(view.tobytes()) == 1
    assert np.shares_memory(view, ImageStore.open(store_file).pixels) is False


def test_writing_holds_few_images_in_memory(tmp_path):
    size, count = 64, 1500
    tracemalloc.start()
    write_images(tmp_path / "images.arrow", images(count, size), size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "images.arrow").stat().st_size > count * size * size * 3
    assert peak < count * size * size * 3 / 8


def test_rows_follow_the_ids_asked_for(store_file):
    store = ImageStore.open(store_file)
    assert store.rows(["train/7.png", "train/0.png", "train/7.png"]).tolist() == [7, 0, 7]
    assert store.rows([]).dtype == np.int64
    with pytest.raises(DataError, match=r"no image 'train/99\.png'"):
        store.rows(["train/0.png", "train/99.png"])


@settings(max_examples=40)
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "images.arrow"
    write_images(path, images(20), 4)
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))])
    with pytest.raises(ArtifactError, match=r"images\.arrow is damaged"):
        ImageStore.open(path)


def test_a_missing_or_foreign_file_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"nothing\.arrow is missing"):
        ImageStore.open(tmp_path / "nothing.arrow")
    table = pa.table({"label": [1]})
    with pa.ipc.new_file(str(tmp_path / "other.arrow"), table.schema) as file:
        file.write_table(table)
    with pytest.raises(ArtifactError, match=r"other\.arrow is damaged \(it carries no seal"):
        ImageStore.open(tmp_path / "other.arrow")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((4, 5, 3), np.uint8), r"shape \(4, 5, 3\)"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
    ],
)
def test_a_bad_image_leaves_nothing(tmp_path, bad, message):
    def samples():
        yield from images(5)
        yield PreparedImage("odd", 0, "train", "0" * 32, bad)

    with pytest.raises(DataError, match=message):
        write_images(tmp_path / "images.arrow", samples(), 4)
    assert list(tmp_path.iterdir()) == []


def test_no_images_leave_nothing(tmp_path):
    with pytest.raises(DataError, match="no images"):
        write_images(tmp_path / "images.arrow", iter(()), 4)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rewrite_keeps_the_old_file(store_file):
    before = store_file.read_bytes()

    def samples():
        yield from images(3)
        raise DataError("image 3 is damaged")

    with pytest.raises(DataError, match="image 3"):
        write_images(store_file, samples(), 4)
    assert store_file.read_bytes() == before
    assert list(store_file.parent.iterdir()) == [store_file]


def test_the_pixel_digest_sees_shape_and_every_byte():
    flat = np.arange(24, dtype=np.uint8)
    tall, wide = flat.reshape(4, 2, 3), flat.reshape(2, 4, 3)
    changed = tall.copy()
    changed[3, 1, 2] ^= 1
    assert len({pixel_digest(image) for image in (tall, wide, changed)}) == 3
    assert pixel_digest(np.asfortranarray(tall)) == pixel_digest(tall)


ROWS = st.lists(
    st.tuples(st.text(), st.integers(0, 9), st.sampled_from(("train", "test")), st.text()),
    min_size=1,
    unique_by=lambda row: row[0],
)


@given(rows=ROWS, random=st.randoms())
def test_the_content_digest_ignores_order_and_nothing_else(rows, random):
    def content(rows):
        return ImageIndex(*zip(*rows, strict=True)).content_digest()

    shuffled = random.sample(rows, len(rows))
    assert content(shuffled) == content(rows)
    name, label, origin, digest = rows[-1]
    for other in (
        (name + "x", label, origin, digest),
        (name, label + 1, origin, digest),
        (name, label, origin + "x", digest),
        (name, label, origin, digest + "x"),
    ):
        assert content([*rows[:-1], other]) != content(rows)
