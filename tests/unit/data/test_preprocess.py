import numpy as np
import open_clip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from taskgrid.data.preprocess import prepare
from taskgrid.errors import DataError


def oracle(image, size, interpolation):
    """open_clip's validation transform without normalisation, back as uint8."""
    transform = open_clip.image_transform(
        size, is_train=False, mean=(0, 0, 0), std=(1, 1, 1), interpolation=interpolation
    )
    return (transform(image) * 255).round().byte().permute(1, 2, 0).numpy()


@settings(max_examples=60)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    size=st.integers(1, 40),
    interpolation=st.sampled_from(("bicubic", "bilinear")),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_open_clip_pixel_for_pixel(height, width, size, interpolation, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    prepared = prepare(image, size, interpolation)
    assert prepared.shape == (size, size, 3)
    assert prepared.dtype == np.uint8
    assert np.array_equal(prepared, oracle(Image.fromarray(image), size, interpolation))


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (224, 224), (225, 224), (32, 32)])
def test_equals_open_clip_at_the_papers_size(shape):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert np.array_equal(prepare(image, 224), oracle(Image.fromarray(image), 224, "bicubic"))


def test_grey_turned_to_rgb_first_equals_open_clips_grey_path():
    grey = np.random.default_rng(2).integers(0, 256, (28, 31), dtype=np.uint8)
    rgb = np.broadcast_to(grey[..., None], (28, 31, 3))
    assert np.array_equal(prepare(rgb, 24), oracle(Image.fromarray(grey), 24, "bicubic"))


def test_an_unknown_interpolation_is_named():
    with pytest.raises(DataError, match=r"'nearest'; there are: bicubic, bilinear"):
        prepare(np.zeros((2, 2, 3), np.uint8), 2, "nearest")
