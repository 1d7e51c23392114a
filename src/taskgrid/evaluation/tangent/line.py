"""The exact tangent grid: every subset and every lambda from one pass per task vector.

Along a direction d the features of a tangent model are f_0 + lambda J d, and with d = sum_t w_t tau_t

    f_0 + lambda sum_t w_t J tau_t

so f_0 and the T features J tau_t of an image answer all 2^T subsets and every real lambda. A head of
weight W turns features into logits of which numerator and squared length are polynomials in lambda:

    logits(lambda) = (W f_0 + lambda sum_t w_t W J tau_t) / ||f_0 + lambda sum_t w_t J tau_t||

Everything after the features is done in float64, so that only the features round. Like ``measure``,
this is code that a row's key holds the digest of; which points are walked is not said here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

from taskgrid.evaluation.engine.measure import Scores
from taskgrid.models.card import ModelCard
from taskgrid.models.encoder import ImageEncoder
from taskgrid.models.heads import Head
from taskgrid.models.inference import Pixels, features_of
from taskgrid.models.linearized import LinearizedEncoder

_SHORTEST = 1e-12
"""Least length that features are divided by, as in ``torch.nn.functional.normalize``."""

_CHUNK_NUMBERS = 1 << 21
"""Logits that are held at once."""


def features_at_origin(
    encoder: LinearizedEncoder, pixels: Pixels, *, batch_size: int, precision: str
) -> torch.Tensor:
    """Return f_0 ``(n, D)``: the very features that ``measure.score`` gives the base.

    Args:
        encoder: the tangent model.
        pixels: ``(n, S, S, 3)`` uint8.
        batch_size: images per forward pass.
        precision: ``fp32`` or ``bf16``.
    """
    plain = ImageEncoder(encoder.origin, encoder.card)
    device = _device_of(encoder)
    return features_of(plain, pixels, batch_size=batch_size, device=device, precision=precision)


def features_along(
    encoder: LinearizedEncoder,
    pixels: Pixels,
    direction: Mapping[str, torch.Tensor],
    *,
    batch_size: int,
    precision: str,
) -> torch.Tensor:
    """Return J d ``(n, D)`` of all images; arguments as for ``features_at_origin``.

    Args:
        encoder: the tangent model.
        pixels: ``(n, S, S, 3)`` uint8.
        direction: a task vector, on the encoder's device.
        batch_size: images per pass.
        precision: ``fp32`` or ``bf16``.
    """
    moving = _Moving(encoder, direction)
    device = _device_of(encoder)
    return features_of(moving, pixels, batch_size=batch_size, device=device, precision=precision)


@dataclass(frozen=True)
class _Moving:
    """J d as a function of images, for one direction."""

    encoder: LinearizedEncoder
    direction: Mapping[str, torch.Tensor]

    @property
    def card(self) -> ModelCard:
        return self.encoder.card

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return self.encoder.tangent(images, self.direction)

    def eval(self) -> Any:
        return self


@dataclass(frozen=True)
class LogitLine:
    """The logits of some images under one head, as functions of lambda. All in float64.

    Attributes:
        start: ``(n, C)``, W f_0.
        slope: ``(n, C)``, W J d.
        length: ``(3, n)``, coefficients of the squared length of the features: 1, lambda, lambda^2.
        labels: true classes, ``(n,)`` int64.
    """

    start: torch.Tensor
    slope: torch.Tensor
    length: torch.Tensor
    labels: torch.Tensor

    def logits(self, scales: torch.Tensor) -> torch.Tensor:
        """Return the logits ``(L, n, C)`` at L scaling coefficients."""
        squared = self.length[0] + scales[:, None] * (
            self.length[1] + scales[:, None] * self.length[2]
        )
        lengths = squared.clamp_min(0).sqrt().clamp_min(_SHORTEST)
        return (self.start + scales[:, None, None] * self.slope).div_(lengths[:, :, None])

    def scores(self, scales: Sequence[float]) -> Iterator[Scores]:
        """Yield what the model says about every image, for one scaling coefficient after another."""
        device = self.start.device
        every = torch.tensor(scales, dtype=torch.float64, device=device)
        for some in torch.split(every, max(1, _CHUNK_NUMBERS // max(1, self.start.numel()))):
            with torch.inference_mode():
                logits = self.logits(some)
                truth = self.labels.expand(len(some), -1)[:, :, None]
                right = logits.gather(2, truth)[:, :, 0]
                best, guess = logits.max(dim=2)
                hits = (guess == self.labels) & ~best.isnan()
                # At once for all points: their outcomes pack a class into a byte where it fits.
                guess = guess.to(torch.uint8) if logits.shape[2] <= 256 else guess
                rest = logits.sub_(best[:, :, None]).exp_().sum(dim=2).log()
                nll, confidence = best + rest - right, rest.neg().exp()
            columns = (column.cpu().numpy() for column in (hits, nll, confidence, guess))
            yield from (Scores(*row) for row in zip(*columns, strict=True))


@dataclass(frozen=True)
class Projected:
    """Features at theta_0 and along some directions, as a head sees them. All in float64.

    Each direction's part is a function of that direction alone, and sums run over the tasks of a
    subset in canonical order, so a line is the same bit for bit whatever else was projected.

    Attributes:
        start: ``(n, C)``, W f_0.
        slopes: task -> ``(n, C)``, W J tau_t.
        products: pair of names in order -> ``(n,)``, inner products of the features; ``""`` is f_0.
        labels: true classes, ``(n,)`` int64.
    """

    start: torch.Tensor
    slopes: Mapping[str, torch.Tensor]
    products: Mapping[tuple[str, str], torch.Tensor]
    labels: torch.Tensor

    @classmethod
    def of(
        cls,
        head: Head,
        start: torch.Tensor,
        along: Mapping[str, torch.Tensor],
        labels: torch.Tensor,
    ) -> Self:
        """Project features on a head.

        Args:
            head: the task's head, on the device of the features.
            start: f_0, ``(n, D)``.
            along: name -> J tau, ``(n, D)``.
            labels: true classes, ``(n,)``.
        """
        with torch.inference_mode():
            weight = head.weight.double().T.contiguous()
            features = {"": start.double()}
            features |= {name: along[name].double() for name in sorted(along)}
            names = tuple(features)
            return cls(
                start=features[""] @ weight,
                slopes={name: features[name] @ weight for name in names[1:]},
                products={
                    (left, right): (features[left] * features[right]).sum(dim=1)
                    for place, left in enumerate(names)
                    for right in names[place:]
                },
                labels=labels,
            )

    def line(self, weights: Mapping[str, float]) -> LogitLine:
        """Return the line along sum_t w_t tau_t.

        Args:
            weights: w_t of the tasks of a subset; the others do not move.
        """
        terms = sorted(weights.items())
        with torch.inference_mode():
            slope = torch.zeros_like(self.start)
            cross, square = (torch.zeros_like(self.products["", ""]) for _ in range(2))
            for place, (task, weight) in enumerate(terms):
                slope.add_(self.slopes[task], alpha=weight)
                cross.add_(self.products["", task], alpha=2 * weight)
                square.add_(self.products[task, task], alpha=weight * weight)
                for other, factor in terms[place + 1 :]:
                    square.add_(self.products[task, other], alpha=2 * weight * factor)
            length = torch.stack([self.products["", ""], cross, square])
        return LogitLine(self.start, slope, length, self.labels)


def _device_of(encoder: LinearizedEncoder) -> torch.device:
    return next(encoder.origin.parameters()).device
