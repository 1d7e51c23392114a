"""Tangent models: closed forms, finite differences, and what training them keeps."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from taskgrid.errors import LineageError
from taskgrid.models import ImageEncoder, LinearizedEncoder
from taskgrid.models.inference import features_of
from taskgrid.models.linearized import _forward_mode
from taskgrid.store.weights import State
from tests.unit.example_grid import world
from tests.unit.example_models import SIZE, tiny_clip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def encoder64(seed: int = 0) -> LinearizedEncoder:
    """A random tower of two transformer blocks, in float64."""
    small = world(("a",))
    return LinearizedEncoder(
        ImageEncoder.from_card(small.card, small.base).double().tower, small.card
    )


def direction(encoder: LinearizedEncoder, seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(p.shape, generator=generator, dtype=p.dtype)
        for name, p in encoder.origin.named_parameters()
    }


def pictures(count: int = 3, seed: int = 9) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)


def at(encoder: LinearizedEncoder, step: State, by: float) -> torch.Tensor:
    """f(x; theta_0 + by * step) of the network itself."""
    moved = {n: p + by * step[n] for n, p in encoder.origin.named_parameters()}
    with torch.no_grad():
        return torch.func.functional_call(encoder.origin, moved, (pictures(),))


# ----------------------------------------------------------------------------- closed forms


class Layers(nn.Module):
    """y = B tanh(A x) over flattened pixels; without ``hidden``, y = B x."""

    def __init__(self, hidden: int | None) -> None:
        super().__init__()
        size = 3 * SIZE * SIZE
        if hidden is not None:
            self.a = nn.Parameter(torch.randn(hidden, size, dtype=torch.float64) / 10)
        self.b = nn.Parameter(torch.randn(4, hidden or size, dtype=torch.float64))
        self.hidden = hidden

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1)
        return (flat if self.hidden is None else torch.tanh(flat @ self.a.T)) @ self.b.T


def expansion(
    encoder: LinearizedEncoder, images: torch.Tensor, directions: list[dict[str, torch.Tensor]]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """f_0 and J d of every direction."""
    with torch.no_grad():
        return encoder.origin(images), [encoder.tangent(images, d) for d in directions]


def test_a_linear_model_is_its_own_tangent() -> None:
    torch.manual_seed(0)
    encoder = LinearizedEncoder(Layers(None), world(("a",)).card)
    step = direction(encoder, 1)
    images = pictures()
    value, (slope,) = expansion(encoder, images, [step])
    flat = images.flatten(1)
    torch.testing.assert_close(value, flat @ encoder.origin.b.T, rtol=1e-14, atol=0)
    torch.testing.assert_close(slope, flat @ step["b"].T, rtol=1e-14, atol=1e-13)
    encoder.load({"b": encoder.origin.b + 3 * step["b"]})
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), encoder.tower(images), rtol=1e-12, atol=1e-11)


def test_two_layers_by_hand() -> None:
    torch.manual_seed(0)
    encoder = LinearizedEncoder(Layers(5), world(("a",)).card)
    step, images = direction(encoder, 1), pictures()
    flat = images.flatten(1)
    a, b = encoder.origin.a.detach(), encoder.origin.b.detach()
    hidden = torch.tanh(flat @ a.T)
    # d tanh(u) = (1 - tanh(u)^2) du, and the product rule.
    expected = hidden @ step["b"].T + ((1 - hidden**2) * (flat @ step["a"].T)) @ b.T
    torch.testing.assert_close(encoder.tangent(images, step), expected, rtol=1e-12, atol=1e-12)


def test_the_derivative_is_the_limit_of_differences() -> None:
    encoder = encoder64()
    step = {name: 0.1 * delta for name, delta in direction(encoder, 2).items()}
    # Central differences with halved steps; Richardson cancels the errors of order h^2, h^4, h^6.
    table = [
        [(at(encoder, step, h) - at(encoder, step, -h)) / (2 * h)]
        for h in (0.02, 0.01, 0.005, 0.0025)
    ]
    for row, before in zip(table[1:], table[:-1], strict=True):
        for order, coarse in enumerate(before, start=1):
            row.append(row[-1] + (row[-1] - coarse) / (4**order - 1))
    found = encoder.tangent(pictures(), step)
    torch.testing.assert_close(found, table[-1][-1], rtol=1e-9, atol=1e-10)
    assert (table[0][0] - found).abs().max() > 1e-6


@settings(max_examples=10)
@given(
    a=st.floats(-3, 3),
    b=st.floats(-3, 3),
    seeds=st.tuples(st.integers(0, 99), st.integers(100, 199)),
)
def test_it_is_affine_in_theta(a: float, b: float, seeds: tuple[int, int]) -> None:
    encoder = encoder64()
    u, v = (direction(encoder, seed) for seed in seeds)
    images = pictures()
    value, (ju, jv) = expansion(encoder, images, [u, v])
    start = dict(encoder.origin.named_parameters())
    encoder.load({n: start[n] + a * u[n] + b * v[n] for n in start})
    with torch.no_grad():
        found = encoder(images)
    torch.testing.assert_close(found, value + a * ju + b * jv, rtol=1e-11, atol=1e-10)
    together = {n: u[n] + v[n] for n in u}
    torch.testing.assert_close(encoder.tangent(images, together), ju + jv, rtol=1e-11, atol=1e-10)


def test_directions_that_a_vit_does_not_see_give_nothing() -> None:
    # A shift of all keys cancels in the softmax; a constant before a layer norm, in its mean.
    encoder = encoder64()
    images = pictures()
    scale = encoder.tangent(images, direction(encoder, 3)).abs().max()
    key = "transformer.resblocks.0.attn.in_proj_bias"
    bias = torch.zeros_like(encoder.origin.get_parameter(key))
    width = len(bias) // 3
    bias[width : 2 * width] = torch.randn(width, dtype=torch.float64)
    assert encoder.tangent(images, {key: bias}).abs().max() < 1e-13 * scale
    for key in (
        "transformer.resblocks.1.mlp.c_proj.bias",
        "transformer.resblocks.0.attn.out_proj.bias",
    ):
        constant = torch.ones_like(encoder.origin.get_parameter(key))
        assert encoder.tangent(images, {key: constant}).abs().max() < 1e-13 * scale


def test_gradients_are_those_of_the_network_at_theta_0() -> None:
    encoder = encoder64()
    images = pictures()
    encoder.tower.requires_grad_(True)
    weight = torch.randn(3, 12, dtype=torch.float64)
    step = direction(encoder, 4)
    encoder.load({n: p.detach() + step[n] for n, p in encoder.origin.named_parameters()})
    # d <w, f_lin> / d theta is J^T w, wherever theta is.
    found = torch.autograd.grad((encoder(images) * weight).sum(), list(encoder.tower.parameters()))
    plain = encoder.origin.requires_grad_(True)
    expected = torch.autograd.grad((plain(images) * weight).sum(), list(plain.parameters()))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


# ------------------------------------------------------------------------------ as an encoder


def test_at_theta_0_it_is_the_encoder_bit_for_bit(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path)
    plain = ImageEncoder.from_card(clip.card(), clip.visual_state())
    linear = LinearizedEncoder.from_card(clip.card(), clip.visual_state())
    pixels = torch.randint(0, 256, (5, SIZE, SIZE, 3), dtype=torch.uint8)
    assert torch.equal(features_of(linear, pixels), features_of(plain, pixels))
    # The origin stays where it was when theta moves.
    linear.load({name: tensor + 0.1 for name, tensor in clip.visual_state().items()})
    assert not torch.equal(features_of(linear, pixels), features_of(plain, pixels))
    assert all(torch.equal(linear.origin.state_dict()[n], t) for n, t in plain.state().items())
    assert set(linear.state()) == set(plain.state())


@pytest.mark.parametrize("training", [False, True])
def test_it_works_under_every_gradient_mode(training: bool) -> None:
    encoder = encoder64().train(training)
    step = direction(encoder, 5)
    encoder.load({n: p + step[n] for n, p in encoder.origin.named_parameters()})
    with torch.no_grad():
        expected = encoder(pictures())
    with torch.inference_mode():
        torch.testing.assert_close(encoder(pictures()), expected, rtol=0, atol=0)
        moved = encoder.tangent(pictures(), {n: t.clone() for n, t in step.items()})
        assert torch.is_inference_mode_enabled()
    torch.testing.assert_close(encoder(pictures()), expected, rtol=1e-12, atol=1e-12)
    assert moved.abs().max() > 0
    assert not encoder.training
    assert not encoder.origin.training


def test_torchs_settings_are_put_back_also_by_threads_that_overlap() -> None:
    encoder = encoder64()
    step, images = direction(encoder, 6), pictures(1)
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
    expected, wrong = encoder.tangent(images, step), []

    def work() -> None:
        for _ in range(15):
            if not torch.equal(encoder.tangent(images, step), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
    with pytest.raises(RuntimeError, match="stop"), _forward_mode():
        assert not torch.backends.mha.get_fastpath_enabled()
        raise RuntimeError("stop")
    assert torch.backends.mha.get_fastpath_enabled()
    with sdpa_kernel(SDPBackend.MATH):
        encoder.tangent(images, step)
        assert not torch.backends.cuda.flash_sdp_enabled()


def test_what_has_no_derivative_is_refused() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.norm(images).mean((2, 3))

    encoder = LinearizedEncoder(Normed(), world(("a",)).card)
    still = {"norm.running_mean": torch.zeros(3), "norm.weight": torch.ones(3)}
    assert encoder.tangent(pictures().float(), still).shape == (3, 3)
    with pytest.raises(LineageError, match=r"'norm\.running_mean' moves, but is no parameter"):
        encoder.tangent(pictures().float(), {"norm.running_mean": torch.ones(3)})
    with pytest.raises(LineageError, match=r"shape \(4,\) for 'norm.weight'"):
        encoder.tangent(pictures().float(), {"norm.weight": torch.ones(4)})
