"""The image encoder and inference with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from taskgrid.config import architectures
from taskgrid.errors import LineageError
from taskgrid.models import ImageEncoder
from taskgrid.models.inference import (
    features_of,
    iter_features,
    logits_of,
    to_input,
)
from taskgrid.store.images import PixelRows
from tests.unit.example_models import SIZE, tiny_clip, tiny_head, write_tiny


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_features_are_those_of_open_clip(tmp_path: Path, quick_gelu: bool, training: bool) -> None:
    clip = tiny_clip(tmp_path, quick_gelu=quick_gelu)
    images = torch.randn(7, 3, SIZE, SIZE)
    shared = ImageEncoder.from_clip(clip)
    rebuilt = ImageEncoder.from_card(clip.card(), clip.visual_state())
    clip.model.train(training)
    rebuilt.train(training)
    with torch.no_grad():
        theirs = clip.model.encode_image(images, normalize=False)
        assert torch.equal(shared(images), theirs)
        assert torch.equal(rebuilt(images), theirs)
    assert theirs.shape == (7, 12)


def test_activation_matters(tmp_path: Path) -> None:
    images = torch.randn(2, 3, SIZE, SIZE)
    plain = tiny_clip(tmp_path)
    quick = tiny_clip(tmp_path, quick_gelu=True)
    assert plain.visual_digest == quick.visual_digest
    with torch.no_grad():
        assert not torch.equal(
            ImageEncoder.from_clip(plain)(images), ImageEncoder.from_clip(quick)(images)
        )


def test_state_has_open_clips_keys_and_is_a_copy(tmp_path: Path) -> None:
    written = write_tiny(tmp_path)
    clip = tiny_clip(tmp_path)
    encoder = ImageEncoder.from_card(clip.card(), clip.visual_state())
    state = encoder.state()
    assert {f"visual.{key}" for key in state} == {k for k in written if k.startswith("visual.")}
    assert "conv1.weight" in state
    state["conv1.weight"].zero_()
    assert encoder.state()["conv1.weight"].abs().sum() > 0


def test_live_state_is_the_model(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    encoder = ImageEncoder.from_card(clip.card(), clip.visual_state())
    encoder.live_state()["proj"].zero_()
    with torch.no_grad():
        assert encoder(torch.randn(1, 3, SIZE, SIZE)).abs().sum() == 0


def test_loading_is_strict(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    encoder = ImageEncoder.from_clip(clip)
    state = encoder.state()
    with pytest.raises(LineageError, match=r"lack 'proj'"):
        encoder.load({key: tensor for key, tensor in state.items() if key != "proj"})
    with pytest.raises(LineageError, match=r"hold 'visual\.proj'"):
        encoder.load(state | {"visual.proj": state["proj"]})
    with pytest.raises(LineageError, match=r"\(12, 16\) for 'proj'.*\(16, 12\)"):
        encoder.load(state | {"proj": state["proj"].T.contiguous()})
    encoder.load({key: tensor + 1 for key, tensor in state.items()})
    assert torch.equal(encoder.state()["proj"], state["proj"] + 1)


def test_rebuilding_leaves_the_random_state_alone(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    card, state = clip.card(), clip.visual_state()
    before = torch.get_rng_state()
    ImageEncoder.from_card(card, state)
    assert torch.equal(before, torch.get_rng_state())


def test_input_is_that_of_open_clips_transform() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    transform = open_clip.image_transform(SIZE, is_train=False, mean=mean, std=std)
    theirs = torch.stack([transform(Image.fromarray(image)) for image in pixels])
    stored = torch.from_numpy(pixels.copy())
    ours = to_input(stored, mean, std)
    assert torch.equal(ours, theirs)
    assert ours.is_contiguous()
    assert torch.equal(to_input(stored.float(), mean, std), theirs)
    assert torch.equal(stored, torch.from_numpy(pixels))


def test_inference_walks_all_images_once_in_order(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    encoder = ImageEncoder.from_clip(clip)
    pixels = np.random.default_rng(1).integers(0, 256, (11, SIZE, SIZE, 3), dtype=np.uint8)
    pixels.setflags(write=False)
    whole = features_of(encoder, pixels, batch_size=4)
    with torch.no_grad():
        one = torch.cat(
            [encoder(to_input(torch.tensor(p[None]), clip.mean, clip.std)) for p in pixels]
        )
    torch.testing.assert_close(whole, one)
    assert torch.equal(whole, features_of(encoder, torch.tensor(pixels), batch_size=4))
    rows = np.array([9, 2, 2, 10])
    chosen = features_of(encoder, PixelRows(pixels, rows), batch_size=3)
    torch.testing.assert_close(chosen, one[rows])


def test_results_do_not_depend_on_what_was_computed_before(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    encoder = ImageEncoder.from_clip(clip)
    head = tiny_head(clip)
    pixels = torch.randint(0, 256, (10, SIZE, SIZE, 3), dtype=torch.uint8)
    first = logits_of(encoder, head, pixels, batch_size=4)
    encoder.train()
    features_of(encoder, pixels[:3], batch_size=2)
    assert torch.equal(logits_of(encoder, head, pixels, batch_size=4), first)
    assert first.shape == (10, 3)


def test_iteration_leaves_the_caller_out_of_inference_mode(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    pixels = torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8)
    for features in iter_features(ImageEncoder.from_clip(clip), pixels, batch_size=1):
        assert features.is_inference()
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()


def test_what_a_tower_costs_is_known_from_its_config() -> None:
    for name in ("ViT-B-32", "ViT-B-16", "ViT-L-14"):
        with torch.device("meta"):
            tower = open_clip.model.CLIP(**open_clip.get_model_config(name)).visual
            with FlopCounterMode(display=False) as counted:
                tower.train()(torch.empty(1, 3, 224, 224))
        passes = counted.get_total_flops() / 2  # a multiply-add is two
        assert architectures.operations(name) == pytest.approx(passes, rel=0.06)
        weights = sum(parameter.numel() for parameter in tower.parameters())
        assert architectures.parameters(name) == pytest.approx(weights, rel=0.01)
    assert architectures.operations("RN50") == pytest.approx(
        architectures.operations("ViT-L-14"), rel=0.01
    )
