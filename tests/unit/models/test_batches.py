from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from taskgrid.errors import DeviceError
from taskgrid.models.batches import CPU_BATCH, LARGEST, BatchSize, fitted, largest_batch, passing
from taskgrid.models.encoder import ImageEncoder
from tests.unit.example_grid import world

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MIB = 1 << 20


class Card:
    """A graphics card on which a pass takes so much per image, and its workspaces once."""

    def __init__(self, each: int, *, fixed: int = 0, workspaces: int = 0, total: int) -> None:
        self.each, self.fixed, self.total = each, fixed, total
        self.workspaces, self.held, self.peak = workspaces, 0, 0
        self.passes: list[int] = []

    def run(self, count: int) -> None:
        self.passes.append(count)
        self.held += self.workspaces
        self.workspaces = 0
        needed = self.held + self.fixed + count * self.each
        self.peak = max(self.peak, needed)
        if needed > self.total:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    def free(self) -> int:
        return self.total - self.held

    def peak_of(self, work: Callable[[], object]) -> int:
        before = self.peak = self.held
        work()
        return self.peak - before

    def fitted(self, **options: object) -> BatchSize:
        return fitted("auto", CUDA, self.run, meter=self, **options)  # type: ignore[arg-type]


@given(
    st.integers(1, 64 * MIB),
    st.integers(0, 256 * MIB),
    st.integers(0, 1 << 40),
    st.integers(0, 999),
)
def test_the_largest_power_of_two_that_fits_is_taken(
    each: int, fixed: int, room: int, some: int
) -> None:
    found = largest_batch(fixed + 8 * each, fixed + 16 * each, room)
    powers = [2**k for k in range(11)]
    assert found == max([n for n in powers if fixed + n * each <= room], default=1)
    assert largest_batch(fixed + 8 * each, fixed + 16 * each, room + some) >= found
    assert powers[-1] == LARGEST


def test_passes_that_take_nothing_more_for_more_images_break_nothing() -> None:
    assert largest_batch(5, 5, 1 << 30) == largest_batch(9, 5, 1 << 30) == LARGEST


def test_auto_is_what_two_small_passes_say(capsys: pytest.CaptureFixture[str]) -> None:
    # An eighth of 8 GiB for passes of 3 MiB per image: 341 images would fit, hence 256.
    card = Card(3 * MIB, total=8 << 30)
    assert card.fitted().size == 256
    assert max(card.passes) == 16
    assert capsys.readouterr().err == "batch size auto: 256 images per pass\n"
    # 400 MiB that every pass takes leave room for 208.
    assert Card(3 * MIB, fixed=400 * MIB, total=8 << 30).fitted().size == 128


def test_workspaces_of_the_first_pass_are_not_taken_for_images() -> None:
    plain = Card(3 * MIB, total=8 << 30).fitted().size
    for workspaces in (20 * MIB, 64 * MIB):
        assert Card(3 * MIB, workspaces=workspaces, total=8 << 30).fitted().size == plain


def test_a_card_too_small_to_probe_begins_with_few() -> None:
    card = Card(100 * MIB, total=1000 * MIB)
    size = card.fitted()
    assert size.size == 8
    assert size.fit(lambda count: (card.run(count), count)[1]) == 8


def test_a_number_is_taken_as_it_is_and_a_cpu_has_a_constant() -> None:
    def never(count: int) -> None:
        raise AssertionError("no pass is needed")

    assert fitted(37, CUDA, never).size == 37
    assert fitted("auto", CPU, never).size == CPU_BATCH == 128


def test_halving_ends_at_what_fits_and_stays(capsys: pytest.CaptureFixture[str]) -> None:
    card, size = Card(1, total=100), BatchSize(512)
    for _ in range(2):
        assert size.fit(lambda count: (card.run(count), count)[1]) == 64
    assert size.size == 64
    assert "evaluation.batch_size to 64" in capsys.readouterr().err
    with pytest.raises(DeviceError, match="no memory for one image"):
        BatchSize(4).fit(Card(101, total=100).run)


def test_a_probe_passes_so_many_images_through_the_encoder() -> None:
    small = world()
    seen: list[tuple[int, ...]] = []

    class Watched(ImageEncoder):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(images.shape))
            return super().forward(images)

    encoder = Watched.from_card(small.card, small.base)
    found = passing(encoder, CPU, "fp32")(16)
    assert seen == [(16, 3, 8, 8)]
    assert isinstance(found, torch.Tensor)
    assert np.isfinite(found.numpy()).all()
