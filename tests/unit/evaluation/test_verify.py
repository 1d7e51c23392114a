"""An expert that does not reproduce its own task is refused; counted by hand, intervals by scipy."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from taskgrid.data.splits import make_split
from taskgrid.errors import DataError, LineageError
from taskgrid.evaluation.engine.material import LabelledImages
from taskgrid.evaluation.engine.measure import Scores, score
from taskgrid.evaluation.verify import Check, Verification, _interval, verify_expert
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.heads import Head
from taskgrid.models.inference import logits_of
from taskgrid.models.linearized import LinearizedEncoder
from taskgrid.store.atomic import read_json, write_json
from taskgrid.store.images import ImageStore, PreparedImage, pixel_digest, write_images
from taskgrid.store.weights import State, digest_state, save_state
from tests.unit.example_grid import SIZE, World, world

ROOT = Path(__file__).parents[3]
COUNT = 60


@pytest.fixture(scope="module")
def small() -> World:
    with torch.random.fork_rng(devices=[]):
        # A tower starts at random weights; how two models differ here must not depend on them.
        torch.manual_seed(0)
        return world(("a",), test=COUNT)


def lineage_of(world: World, **changes: str) -> dict[str, str]:
    digest = digest_state(world.experts["a"])
    return {"kind": "expert", **world.card.lineage(), "digest": digest, **changes}


def guesses(encoder: ImageEncoder, head: Head, pixels: Any) -> np.ndarray:
    return logits_of(encoder, head, pixels, batch_size=7).argmax(dim=1).numpy()


def labelled(
    world: World, right: Callable[[int], bool], *, state: State | None = None
) -> LabelledImages:
    """Test images, of which a model classifies correctly just those that a rule names."""
    task = world.tasks["a"]
    pixels = np.asarray(task.test[0])
    encoder = ImageEncoder.from_card(world.card, state or world.experts["a"])
    guess = guesses(encoder, task.head, pixels)
    wrong = (guess + 1) % len(task.head.classes)
    labels = np.where([right(i) for i in range(len(pixels))], guess, wrong).astype(np.int64)
    return LabelledImages(pixels, np.arange(len(pixels)), labels)


def verify(world: World, images: LabelledImages, check: Check, **changes: Any) -> Verification:
    given = {
        "card": world.card,
        "base": world.base,
        "expert": world.experts["a"],
        "lineage": lineage_of(world),
        "head": world.tasks["a"].head,
        **changes,
    }
    return verify_expert(**given, images=images, check=check, task="a", batch_size=7)


@given(n=st.integers(1, 100_000), data=st.data())
def test_the_interval_is_wilsons(n: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, n))
    expected = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert _interval(correct, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(n=st.integers(1, 100_000))
def test_rounding_refuses_nobody_who_is_always_right(n: int) -> None:
    assert _interval(n, n)[1] == 1.0
    assert _interval(0, n)[0] == 0.0


def test_an_expert_that_has_the_published_accuracy_passes(small: World) -> None:
    images = labelled(small, lambda i: i % 4 != 0)
    found = verify(small, images, Check(expected=0.75, tolerance=0.0))
    assert (found.n, found.correct, found.accuracy) == (COUNT, 45, 0.75)
    assert found.low < 0.75 < found.high
    assert (found.rule, found.expected, found.tangent) == ("published", 0.75, False)
    assert found.expert == digest_state(small.experts["a"])
    assert found.base == digest_state(small.base)


def test_a_pass_without_room_begins_again_with_half_the_images(
    small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, sizes = labelled(small, lambda i: i % 4 != 0), []

    def starved(*given: Any, batch_size: int, **options: Any) -> Scores:
        sizes.append(batch_size)
        if batch_size > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return score(*given, batch_size=batch_size, **options)

    monkeypatch.setattr("taskgrid.evaluation.verify.score", starved)
    assert verify(small, images, Check(tolerance=1.0)).correct == 45
    # The base's own accuracy is asked for, then the expert's.
    assert sizes == [7, 3, 3]


def test_the_threshold_is_the_interval_and_the_tolerance(small: World) -> None:
    images = labelled(small, lambda i: i % 4 != 0)
    high = binomtest(45, COUNT).proportion_ci(0.95, method="wilson").high
    for expected, tolerance, passes in [
        (high - 1e-9, 0.0, True),
        (high + 1e-6, 0.0, False),
        (high + 0.05, 0.05 + 1e-9, True),
        (high + 0.05, 0.05 - 1e-6, False),
    ]:
        if passes:
            assert verify(small, images, Check(expected, tolerance)).passed
        else:
            with pytest.raises(LineageError):
                verify(small, images, Check(expected, tolerance))


def test_an_accuracy_that_is_too_good_is_said(small: World) -> None:
    images = labelled(small, lambda i: i % 4 != 0)
    low = binomtest(45, COUNT).proportion_ci(0.95, method="wilson").low
    assert verify(small, images, Check(low - 0.03, 0.02)).above
    assert not verify(small, images, Check(low - 0.01, 0.02)).above
    # Better than its base is what an expert should be.
    assert not verify(small, labelled(small, lambda i: True), Check()).above


def test_the_refusal_names_the_task_both_numbers_and_what_to_check(small: World) -> None:
    images = labelled(small, lambda i: i % 3 == 0)
    with pytest.raises(LineageError) as caught:
        verify(small, images, Check(expected=0.99, tolerance=0.02))
    message = str(caught.value)
    for words in ("task 'a'", "33.33% of 60 test images", "99.00% is expected", "2.00%"):
        assert words in message
    for words in ("another task", "another base", "classes, prompts"):
        assert words in message
    assert "\n" not in message


def test_without_a_published_accuracy_the_base_is_the_measure(small: World) -> None:
    # Labels are what the base says: the base is always right, and the expert, far off, is not.
    images = labelled(small, lambda i: True, state=small.base)
    pixels, head = np.asarray(small.tasks["a"].test[0]), small.tasks["a"].head
    ours = guesses(ImageEncoder.from_card(small.card, small.experts["a"]), head, pixels)
    share = float((ours == images.labels).mean())
    assert share < 0.9
    with pytest.raises(LineageError, match=r"base's own zero-shot accuracy is 100\.00%") as caught:
        verify(small, images, Check())
    assert f"{share:.2%} of 60" in str(caught.value)
    # The base itself reaches its own accuracy.
    same = verify(small, images, Check(), expert=small.base)
    assert (same.correct, same.expected, same.rule) == (COUNT, 1.0, "zero-shot")
    # And an expert that is right where the base is not passes.
    better = verify(small, labelled(small, lambda i: True), Check())
    assert better.accuracy == 1.0
    assert better.expected == pytest.approx(share)


def test_a_swapped_checkpoint_is_found_out(small: World) -> None:
    images = labelled(small, lambda i: True)
    assert verify(small, images, Check(expected=1.0, tolerance=0.0)).passed
    generator = torch.Generator().manual_seed(5)
    other = {k: t + 0.15 * torch.randn(t.shape, generator=generator) for k, t in small.base.items()}
    with pytest.raises(LineageError, match="does not reproduce its task"):
        verify(small, images, Check(expected=1.0), expert=other)


def test_a_tangent_expert_is_put_into_the_tangent_model(small: World) -> None:
    task = small.tasks["a"]
    pixels = np.asarray(task.test[0])
    tangent = LinearizedEncoder.from_card(small.card, small.base)
    tangent.load(small.experts["a"])
    guess = guesses(tangent, task.head, pixels)
    plain = guesses(ImageEncoder.from_card(small.card, small.experts["a"]), task.head, pixels)
    assert (guess != plain).sum() > COUNT // 10
    images = LabelledImages(pixels, np.arange(COUNT), guess.astype(np.int64))
    found = verify(small, images, Check(1.0, 0.0), lineage=lineage_of(small, trained_as="linear"))
    assert (found.correct, found.tangent) == (COUNT, True)
    with pytest.raises(LineageError):
        verify(small, images, Check(1.0, 0.0))


def test_only_the_rows_of_the_split_count(small: World) -> None:
    images = labelled(small, lambda i: i < 10)
    rows = np.array([3, 12, 5, 40])
    some = LabelledImages(images.pixels, rows, images.labels[rows])
    assert verify(small, some, Check(0.5, 0.0)).correct == 2


def test_what_does_not_belong_together_is_refused_before_anything_is_measured(
    small: World,
) -> None:
    images = labelled(small, lambda i: True)
    with pytest.raises(LineageError, match=r"expert of task 'a'.*ffff"):
        verify(small, images, Check(), lineage=lineage_of(small, base="ffff"))
    head = small.tasks["a"].head
    stranger = Head(head.weight, head.classes, {**head.lineage, "text": "other"})
    with pytest.raises(LineageError, match="text tower"):
        verify(small, images, Check(), head=stranger)
    few = Head(head.weight[:2], head.classes[:2], head.lineage)
    with pytest.raises(DataError, match=r"labels go from \d to [23], but its head has 2 classes"):
        verify(small, images, Check(), head=few)
    none = LabelledImages(images.pixels, images.rows[:0], images.labels[:0])
    with pytest.raises(DataError, match="no test images"):
        verify(small, none, Check())


def test_the_script_writes_what_it_found(
    small: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    images = labelled(small, lambda i: i % 4 != 0)
    random = np.random.default_rng(0)
    prepared = [
        PreparedImage(f"train/{i}", 0, "train", pixel_digest(pixels), pixels)
        for i, pixels in enumerate(random.integers(0, 256, (20, SIZE, SIZE, 3), dtype=np.uint8))
    ] + [
        PreparedImage(f"test/{i}", int(label), "test", pixel_digest(pixels), pixels)
        for i, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True))
    ]
    write_images(tmp_path / "images.arrow", prepared, SIZE, "bicubic")
    index = ImageStore.open(tmp_path / "images.arrow").index
    make_split("a", index, small.tasks["a"].head.classes).write(tmp_path / "split.json")
    save_state(tmp_path / "base.safetensors", small.base, {"kind": "base"})
    save_state(tmp_path / "expert.safetensors", small.experts["a"], lineage_of(small))
    write_json(tmp_path / "base.json", small.card.to_json())
    small.tasks["a"].head.save(tmp_path / "head.safetensors")
    names = {
        "card": "base.json",
        "base": "base.safetensors",
        "expert": "expert.safetensors",
        "head": "head.safetensors",
        "split": "split.json",
        "images": "images.arrow",
        "verified": "verified.json",
    }
    settings = {"task": "a", "expected": 0.75, "tolerance": 0.02}
    settings |= {"batch_size": 16, "precision": "fp32"}
    words = [word for key, name in names.items() for word in (f"--{key}", str(tmp_path / name))]
    words += ["--device", "cpu", "--threads", "1", "--settings", json.dumps(settings)]
    monkeypatch.setattr(sys, "argv", ["verify_expert", *words])
    runpy.run_path(str(ROOT / "scripts" / "verify_expert.py"), run_name="__main__")
    found = read_json(tmp_path / "verified.json")
    assert (found["n"], found["correct"], found["accuracy"]) == (COUNT, 45, 0.75)
    assert found["head"] == Head.load(tmp_path / "head.safetensors").lineage["digest"]
    assert "75.00% of 60 test images" in capsys.readouterr().out

    (tmp_path / "verified.json").unlink()
    words[words.index(json.dumps(settings))] = json.dumps({**settings, "expected": 0.99})
    monkeypatch.setattr(sys, "argv", ["verify_expert", *words])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "scripts" / "verify_expert.py"), run_name="__main__")
    assert caught.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "verified.json").exists()
